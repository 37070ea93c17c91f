//! What the modes share: options, counts, workers, and how a server ends.
//!
//! ```text
//!   serving ── first signal ──► draining ── all ended, or DRAIN over, or second signal ──► ended
//! ```
//!
//! A drain serves what waits in the accept queue, then closes the listener. A connection that has
//! been quiet for [`QUIET`] has nothing in flight and is closed.

#[path = "async_mode.rs"]
mod async_mode;
#[path = "protocol_mode.rs"]
mod protocol_mode;
#[path = "reactor_mode.rs"]
mod reactor_mode;
#[path = "trace.rs"]
mod trace;

use std::fmt::{self, Display};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use netpoller::ListenConfig;

/// How the server is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// A task for each connection, over `TcpStream`
    Async,
    /// The netpoller alone: `Reactor<usize>` under a loop of its own
    Reactor,
    /// A state machine for each connection: a `Protocol` in a `Server`
    Protocol,
}

/// As the flag has it.
impl Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no mode is skipped");
        f.write_str(value.get_name())
    }
}

/// What to serve, and how.
#[derive(Clone, Debug)]
pub struct Options {
    pub addr: String,
    pub mode: Mode,
    /// `None`: never.
    pub idle_timeout: Option<Duration>,
    /// In protocol mode alone. `None`: never.
    pub heartbeat: Option<Duration>,
    pub spin: Duration,
    /// Whether SIGQUIT prints what every connection waits for.
    pub dumps: bool,
    /// Where to write what the loop has done, at SIGUSR1 and at the end. With one worker.
    pub trace: Option<PathBuf>,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub accepted: u64,
    pub open: u64,
    pub bytes: u64,
    pub turns: u64,
    pub events: u64,
}

impl Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            accepted,
            open,
            bytes,
            turns,
            events,
        } = self;
        write!(f, "accepted {accepted}, open {open}, bytes {bytes}, ")?;
        write!(f, "turns {turns}, events {events}")
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.accepted += other.accepted;
        self.open += other.open;
        self.bytes += other.bytes;
        self.turns += other.turns;
        self.events += other.events;
    }
}

/// How long connections have to finish once the drain begins.
pub const DRAIN: Duration = Duration::from_secs(5);

/// How long a connection may be quiet once the drain begins.
pub const QUIET: Duration = Duration::from_millis(100);

/// The most connections that a drain takes from the accept queue: what comes later may come for
/// ever.
const QUEUE: usize = 4096;

// ---- the log: the words of the library's `Server`, which logs for protocol mode ----

/// At debug: a connection has ended after `bytes` were read. `Ok` is the peer's end of file.
pub fn log_ended(peer: impl Display, bytes: u64, ended: &io::Result<()>) {
    match ended {
        Ok(()) => log::debug!("{peer}: ended after {bytes} bytes: end of file"),
        Err(error) => log::debug!("{peer}: ended after {bytes} bytes: {error}"),
    }
}

fn log_drain(addr: SocketAddr, open: u64) {
    log::info!("{addr}: the server drains within {DRAIN:?}; open connections: {open}");
}

fn log_waits(addr: SocketAddr, open: u64) {
    log::info!("{addr}: connections in flight: {open}");
}

fn log_end(addr: SocketAddr, end: End, open: u64) {
    match end {
        End::Stopped => log::info!("{addr}: the server stops; open connections: {open}"),
        End::Drained if open > 0 => {
            log::warn!("{addr}: the drain's limit has passed; connections cut off: {open}")
        }
        End::Drained => {}
    }
}

/// What ended a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The last connection, or the limit of time.
    Drained,
    /// A second signal.
    Stopped,
}

// ---- the workers ----

/// Runs a worker for each of `stops`. A byte of its stream, or its end of file, begins the drain; a
/// second byte ends it at once. Calls `ready` once it listens and handles the other signals, with
/// the real address.
pub fn run(
    options: &Options,
    mut stops: Vec<UnixStream>,
    ready: impl FnOnce(SocketAddr),
) -> io::Result<Counts> {
    trace::try_path(options)?;
    if options.mode == Mode::Protocol {
        // A `Server` has listeners and workers of its own.
        return protocol_mode::run(options, stops, ready);
    }
    let first = listen(&options.addr, stops.len() > 1)?;
    let addr = first.local_addr()?;
    let mut listeners = vec![first];
    while listeners.len() < stops.len() {
        listeners.push(listen(&addr.to_string(), true)?);
    }
    let (Some(listener), Some(stop)) = (listeners.pop(), stops.pop()) else {
        return Ok(Counts::default());
    };
    let mut others = Vec::new();
    for (listener, stop) in listeners.into_iter().zip(stops) {
        let options = options.clone();
        others.push(thread::spawn(move || {
            serve(&options, listener, stop, || ())
        }));
    }
    let mut counts = serve(options, listener, stop, || ready(addr))?;
    for other in others {
        counts += other
            .join()
            .map_err(|_| io::Error::other("a worker panicked"))??;
    }
    Ok(counts)
}

/// One worker.
fn serve(
    options: &Options,
    listener: TcpListener,
    stop: UnixStream,
    ready: impl FnOnce(),
) -> io::Result<Counts> {
    match options.mode {
        Mode::Async => async_mode::serve(options, listener, stop, ready),
        Mode::Reactor => reactor_mode::serve(options, listener, stop, ready),
        Mode::Protocol => unreachable!("it has workers of its own"),
    }
}

/// A listener with Go's settings and Go's errors, in no runtime yet.
fn listen(addr: &str, shared: bool) -> io::Result<TcpListener> {
    ListenConfig::new().reuse_port(shared).bind_std(addr)
}
