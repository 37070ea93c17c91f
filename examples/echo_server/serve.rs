//! What the modes share: options, counts, the workers and the way to stop.

#[path = "async_mode.rs"]
mod async_mode;
#[path = "protocol_mode.rs"]
mod protocol_mode;
#[path = "reactor_mode.rs"]
mod reactor_mode;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, TcpKeepalive, Type};

/// How the server is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One task a connection, over `TcpStream`.
    Async,
    /// `Reactor<usize>` alone, under a loop of its own.
    Reactor,
    /// A `Protocol` in a `Server`: a state machine a connection.
    Protocol,
}

impl Mode {
    /// All of them.
    pub const ALL: &'static [Mode] = &[Mode::Async, Mode::Reactor, Mode::Protocol];

    /// As the flag has it.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Async => "async",
            Mode::Reactor => "reactor",
            Mode::Protocol => "protocol",
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Mode::ALL.iter().find(|mode| mode.name() == text);
        known.copied().ok_or_else(|| {
            let names: Vec<_> = Mode::ALL.iter().map(|mode| mode.name()).collect();
            format!("the modes are {}", names.join(", "))
        })
    }
}

/// What to serve, and how.
#[derive(Clone, Debug)]
pub struct Options {
    pub addr: String,
    pub mode: Mode,
    pub workers: usize,
    pub idle_timeout: Option<Duration>,
    pub heartbeat: Option<Duration>,
    pub spin: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            addr: "127.0.0.1:0".into(),
            mode: Mode::Async,
            workers: 1,
            idle_timeout: None,
            heartbeat: None,
            spin: None,
        }
    }
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

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            accepted,
            open,
            bytes,
            turns,
            events,
        } = self;
        write!(
            f,
            "accepted {accepted}, open {open}, bytes {bytes}, turns {turns}, events {events}"
        )
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

/// How long what is in flight may take once the server stops.
pub const DRAIN: Duration = Duration::from_secs(5);

/// A connection that has been quiet for so long while the server stops has nothing in flight.
pub const QUIET: Duration = Duration::from_millis(100);

/// Waits before accepting again once descriptors or memory ran out: net/http's, 5 ms doubling to
/// a second.
pub struct Backoff(Duration);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(5);
    const MOST: Duration = Duration::from_secs(1);

    pub fn new() -> Self {
        Backoff(Duration::ZERO)
    }

    /// An accept went well.
    pub fn reset(&mut self) {
        if self.0 > Duration::ZERO {
            log::info!("accepting again");
            self.0 = Duration::ZERO;
        }
    }

    /// An accept failed: how long to wait. Logs once an episode.
    pub fn next(&mut self, error: &io::Error) -> Duration {
        if self.0.is_zero() {
            log::warn!("accepting less often: {error}");
        }
        self.0 = (self.0 * 2).clamp(Self::FIRST, Self::MOST);
        self.0
    }
}

/// Runs until `stop` becomes readable (a byte, or end of file). Calls `ready` once listening, with
/// the real address.
pub fn run(
    options: &Options,
    stop: UnixStream,
    ready: impl FnOnce(SocketAddr),
) -> io::Result<Counts> {
    if options.mode == Mode::Protocol {
        // It has listeners and workers of its own.
        return protocol_mode::run(options, stop, ready);
    }
    let first = listen(&options.addr, options.workers > 1)?;
    let addr = first.local_addr()?;
    let mut listeners = vec![first];
    while listeners.len() < options.workers {
        listeners.push(listen(&addr.to_string(), true)?);
    }
    stop.set_nonblocking(true)?;
    ready(addr);
    let Some(ours) = listeners.pop() else {
        return Ok(Counts::default());
    };
    let mut others = Vec::new();
    for listener in listeners {
        let (options, stop) = (options.clone(), stop.try_clone()?);
        others.push(thread::spawn(move || serve(&options, listener, stop)));
    }
    let mut counts = serve(options, ours, stop)?;
    for other in others {
        counts += other
            .join()
            .map_err(|_| io::Error::other("a worker panicked"))??;
    }
    Ok(counts)
}

/// One worker.
fn serve(options: &Options, listener: TcpListener, stop: UnixStream) -> io::Result<Counts> {
    match options.mode {
        Mode::Async => async_mode::serve(options, listener, stop),
        Mode::Reactor => reactor_mode::serve(options, listener, stop),
        Mode::Protocol => unreachable!("it does not come here"),
    }
}

/// A listener with Go's settings: what is set here, accepted connections inherit.
fn listen(addr: &str, shared: bool) -> io::Result<TcpListener> {
    let name = |error: io::Error| io::Error::new(error.kind(), format!("listen {addr}: {error}"));
    let resolved = addr.to_socket_addrs().map_err(name)?.next();
    let addr = resolved.ok_or_else(|| name(io::ErrorKind::NotFound.into()))?;
    let bind = || {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        if shared {
            socket.set_reuse_port(true)?;
        }
        socket.set_tcp_nodelay(true)?;
        let quarter_minute = Duration::from_secs(15);
        let keepalive = TcpKeepalive::new()
            .with_time(quarter_minute)
            .with_interval(quarter_minute);
        socket.set_tcp_keepalive(&keepalive)?;
        socket.bind(&addr.into())?;
        socket.listen(4096)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    bind().map_err(name)
}
