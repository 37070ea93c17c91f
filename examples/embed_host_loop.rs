//! A runtime under the loop of its host, in four ways: by turns within the budget of a frame, as in
//! a game; by its descriptor in the host's own poll(2), as in a daemon; the same in the loop of the
//! crate calloop, as under Wayland; and by a thread that calls the host, as in a GUI, which waits for
//! a queue.
//!
//! ```text
//! cargo run --example embed_host_loop                   # all, one after the other
//! cargo run --example embed_host_loop -- --by fd        # one of them: turns, fd, calloop, notify
//! ```

mod common;

use std::io;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use netpoller::{Handle, Runtime, TcpListener, TcpStream, time};

/// Shows a runtime under the loop of its host, in four ways.
#[derive(Parser)]
struct Flags {
    /// In which way [default: all, one after the other]
    #[arg(long, value_enum)]
    by: Option<By>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum By {
    /// Within the budget of each frame, as in a game
    Turns,
    /// By its descriptor, in the host's poll(2), as in a daemon
    Fd,
    /// By its descriptor, in the loop of the crate calloop
    Calloop,
    /// By a thread that calls the host, which waits for a queue, as in a GUI
    Notify,
}

fn main() -> ExitCode {
    common::run_blocking(|flags: Flags| {
        let dump = |runtime: &Handle| runtime.dump(common::PATIENCE).to_string();
        common::at_each_quit(move || {
            // Cloned, so that the lock is free while the loop is asked.
            let current = CURRENT.lock().unwrap().clone();
            current
                .as_ref()
                .map_or_else(|| "loop not made yet\n".into(), dump)
        })?;
        for by in By::value_variants() {
            if flags.by.is_none_or(|wanted| wanted == *by) {
                match by {
                    By::Turns => by_turns()?,
                    #[cfg(not(mio_unsupported_force_poll_poll))]
                    By::Fd => nested()?,
                    #[cfg(not(mio_unsupported_force_poll_poll))]
                    By::Calloop => in_calloop()?,
                    #[cfg(not(mio_unsupported_force_poll_poll))]
                    By::Notify => notified()?,
                    #[cfg(mio_unsupported_force_poll_poll)]
                    _ => println!("poll(2) has no descriptor to watch"),
                }
            }
        }
        io::Result::Ok(())
    })
}

/// The runtime that SIGQUIT dumps. Each way makes its own.
static CURRENT: Mutex<Option<Handle>> = Mutex::new(None);

/// The network's work: a server that answers, and a client that asks five times.
fn start(runtime: &Runtime) -> netpoller::JoinHandle<io::Result<()>> {
    *CURRENT.lock().unwrap() = Some(runtime.handle());
    runtime.spawn(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = netpoller::spawn(async move {
            let (stream, _) = listener.accept().await?;
            loop {
                let question = stream.read_with(<[u8]>::to_vec).await?;
                if question.is_empty() {
                    return io::Result::Ok(());
                }
                stream.write_all(&question).await?;
            }
        });
        let client = TcpStream::connect(address).await?;
        for number in 1..=5 {
            time::sleep(Duration::from_millis(30)).await;
            client.write_all(format!("{number}").as_bytes()).await?;
            let answer = client.read_with(<[u8]>::to_vec).await?;
            println!("  the network: {}", String::from_utf8_lossy(&answer));
        }
        client.close()?;
        server.await.map_err(io::Error::other)?
    })
}

/// A game: sixty frames a second, and the network has what the frame leaves over.
fn by_turns() -> io::Result<()> {
    const FRAME: Duration = Duration::from_micros(16_667);
    let runtime = Runtime::new()?;
    let network = start(&runtime);
    let mut frames = 0;
    let mut next_frame = Instant::now();
    while !network.is_finished() {
        frames += 1;
        next_frame += FRAME;
        // … the game's own work would be here …
        run_until(&runtime, next_frame)?;
    }
    println!("by turns: {frames} frames");
    runtime.block_on(network).map_err(io::Error::other)?
}

/// Gives the network its turns until the frame ends: at least one, however late the game is, and
/// none after the end, however much is left to do (`Turn::more`).
///
/// A turn waits up to a millisecond longer than it was asked to, because the system counts in
/// milliseconds. For more exact frames, end the waiting 2 ms early, then call `turn_for` with zero.
pub fn run_until(runtime: &Runtime, end: Instant) -> io::Result<()> {
    loop {
        // It returns early when there is no more to do. Something may still come before the frame ends.
        runtime.turn_for(end.saturating_duration_since(Instant::now()))?;
        if Instant::now() >= end {
            return Ok(());
        }
    }
}

/// A daemon: its own poll(2) over its own descriptors, of which the runtime is one.
#[cfg(not(mio_unsupported_force_poll_poll))]
fn nested() -> io::Result<()> {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    let runtime = Runtime::new()?;
    let network = start(&runtime);
    let (mut ours, mut theirs) = UnixStream::pair()?;
    theirs.write_all(b"the daemon's own")?;
    let mut waits = 0;
    while !network.is_finished() {
        waits += 1;
        let mut fds = [ours.as_raw_fd(), runtime.as_raw_fd()].map(|fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        });
        // A deadline does not make the descriptor readable, so it bounds the wait. Rounded up: waking
        // too early would spin.
        let limit = runtime.next_timeout().map_or(-1, |limit| {
            i32::try_from(limit.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
        });
        // SAFETY: the array is valid for the call, and has two elements.
        if unsafe { libc::poll(fds.as_mut_ptr(), 2, limit) } < 0 {
            return Err(io::Error::last_os_error());
        }
        if fds[0].revents != 0 {
            println!("  the host: {} bytes of its own", ours.read(&mut [0; 16])?);
        }
        runtime.turn(Some(Duration::ZERO))?;
    }
    println!("nested: {waits} waits of the host's poll");
    runtime.block_on(network).map_err(io::Error::other)?
}

/// A program on calloop, which watches the runtime's descriptor as any other.
#[cfg(not(mio_unsupported_force_poll_poll))]
fn in_calloop() -> io::Result<()> {
    use calloop::generic::Generic;
    use calloop::{EventLoop, Interest, Mode, PostAction};

    let runtime = Runtime::new()?;
    let network = start(&runtime);
    let mut host = EventLoop::try_new()?;
    let source = Generic::new(&runtime, Interest::READ, Mode::Level);
    // A turn follows every dispatch: a deadline that passes brings no readiness.
    let turn_after = |_, _: &mut _, (): &mut ()| Ok(PostAction::Continue);
    host.handle()
        .insert_source(source, turn_after)
        .map_err(|error| error.error)?;
    let mut dispatches = 0;
    while !network.is_finished() {
        dispatches += 1;
        host.dispatch(runtime.next_timeout(), &mut ())?;
        runtime.turn(Some(Duration::ZERO))?;
    }
    println!("in calloop: {dispatches} dispatches");
    drop(host);
    runtime.block_on(network).map_err(io::Error::other)?
}

/// A GUI: its loop waits for a queue of its own, where everything that happens arrives as an event.
#[cfg(not(mio_unsupported_force_poll_poll))]
fn notified() -> io::Result<()> {
    use std::sync::mpsc;

    enum Event {
        Key(char),
        Network,
    }
    let (queue, events) = mpsc::channel();
    let runtime = Runtime::new()?;
    let network = start(&runtime);
    let to_queue = queue.clone();
    // The queue is gone when the program ends.
    runtime.notify_host(move || to_queue.send(Event::Network).unwrap_or_default())?;
    let _ = queue.send(Event::Key('q'));
    let mut turns = 0;
    while !network.is_finished() {
        match events.recv().map_err(io::Error::other)? {
            Event::Key(key) => println!("  the host: the key {key}"),
            Event::Network => {
                turns += 1;
                runtime.turn(Some(Duration::ZERO))?;
            }
        }
    }
    println!("notified: {turns} events of the network");
    runtime.block_on(network).map_err(io::Error::other)?
}
