//! The time from a client's write until the host knows that a turn is due: from the runtime's
//! descriptor in the host's own poll(2), or from `Runtime::notify_host`. A client on another
//! thread writes a byte, waits for the echo, and rests for 200 us, so that the host sleeps each time.
//!
//! And how late frames begin if the host waits for them in [`Runtime::turn`].
//!
//! ```text
//! cargo run --release -p netpoller-benches --example host_latency
//! ```

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use netpoller::{JoinHandle, Runtime};

const ROUNDS: usize = 10_000;
const REST: Duration = Duration::from_micros(200);
const NOW: Option<Duration> = Some(Duration::ZERO);
const FRAMES: u32 = 600;
const FRAME: Duration = Duration::from_micros(16_667);

/// When the client wrote, in nanoseconds; zero once the host has seen it.
#[derive(Clone)]
struct Written(Instant, Arc<AtomicU64>);

impl Written {
    fn note(&self) {
        self.1
            .store(self.0.elapsed().as_nanos() as u64, Ordering::SeqCst);
    }

    /// How long ago the client wrote, if the host has not seen it yet.
    fn seen(&self) -> Option<Duration> {
        let now = self.0.elapsed();
        let written = Duration::from_nanos(self.1.swap(0, Ordering::SeqCst));
        (!written.is_zero()).then(|| now - written)
    }
}

/// A runtime that echoes, and its client.
fn start() -> io::Result<(Runtime, JoinHandle<()>, Written)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    client.set_nodelay(true)?;
    let (stream, _) = listener.accept()?;
    let runtime = Runtime::new()?;
    let echo = runtime.spawn(async move {
        let stream = netpoller::TcpStream::from_std(stream).expect("a new socket");
        let mut byte = [0];
        while stream.read(&mut byte).await.is_ok_and(|got| got > 0) {
            stream.write_all(&byte).await.expect("the client reads");
        }
    });
    let written = Written(Instant::now(), Arc::default());
    let notes = written.clone();
    thread::spawn(move || {
        for _ in 0..ROUNDS {
            thread::sleep(REST);
            notes.note();
            client.write_all(&[1])?;
            client.read_exact(&mut [0])?;
        }
        io::Result::Ok(())
    });
    Ok((runtime, echo, written))
}

fn by_descriptor() -> io::Result<Vec<Duration>> {
    let (runtime, echo, written) = start()?;
    let mut seen = Vec::new();
    while !echo.is_finished() {
        let limit = runtime
            .next_timeout()
            .map_or(-1, |wait| wait.as_millis() as i32);
        let mut poll = libc::pollfd {
            fd: runtime.as_fd().as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid entry.
        unsafe { libc::poll(&raw mut poll, 1, limit) };
        seen.extend(written.seen());
        runtime.turn(NOW)?;
    }
    Ok(seen)
}

fn by_call() -> io::Result<Vec<Duration>> {
    let (runtime, echo, written) = start()?;
    let (call, calls) = mpsc::channel();
    runtime.notify_host(move || call.send(written.seen()).unwrap_or_default())?;
    let mut seen = Vec::new();
    while !echo.is_finished() {
        seen.extend(calls.recv().map_err(io::Error::other)?);
        runtime.turn(NOW)?;
    }
    Ok(seen)
}

/// How late frames begin, if turns wait until `before` is left of the time to a frame, and not after that.
fn frames(before: Duration) -> io::Result<Vec<Duration>> {
    let runtime = Runtime::new()?;
    let start = Instant::now();
    let mut late = Vec::new();
    for frame in 1..=FRAMES {
        let begins = start + frame * FRAME;
        while Instant::now() < begins {
            let left = begins.saturating_duration_since(Instant::now());
            runtime.turn(Some(left.saturating_sub(before)))?;
        }
        late.push(begins.elapsed());
    }
    Ok(late)
}

fn main() -> io::Result<()> {
    for (by, mut seen) in [
        ("descriptor", by_descriptor()?),
        ("notify_host", by_call()?),
        ("frame: turn", frames(Duration::ZERO)?),
        ("frame: 2 ms", frames(Duration::from_millis(2))?),
    ] {
        seen.sort_unstable();
        let at = |share: f64| seen[(seen.len() as f64 * share) as usize];
        println!(
            "{by:<12} {:>6} times, median {:.1?}, p99 {:.1?}",
            seen.len(),
            at(0.5),
            at(0.99)
        );
    }
    Ok(())
}
