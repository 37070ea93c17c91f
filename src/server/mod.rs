//! Servers: a [`Protocol`] for each connection, on one thread or on several.
//!
//! [`Server`] holds the settings, [`Bound`] is a server that listens, and a [`ServerHandle`] ends it
//! from any thread. Each worker is a thread with a loop of its own, and a connection stays with its
//! worker.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! use std::io::{self, Read, Write};
//! use std::net::TcpStream;
//! use std::time::Duration;
//! use netpoller::{Conn, Protocol, Server};
//!
//! struct Echo;
//! impl Protocol for Echo {
//!     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
//!         conn.write(bytes)?;
//!         Ok(bytes.len())
//!     }
//! }
//!
//! let server = Server::new(|_peer| Echo).workers(2).idle_timeout(Duration::from_secs(60));
//! let bound = server.bind("127.0.0.1:0")?;
//! let (addr, handle) = (bound.local_addr(), bound.handle());
//! let serving = std::thread::spawn(move || bound.run());
//!
//! let mut client = TcpStream::connect(addr)?;
//! client.write_all(b"hello")?;
//! let mut answer = [0; 5];
//! client.read_exact(&mut answer)?;
//! assert_eq!(&answer, b"hello");
//!
//! // Connections in flight have ten seconds. This one is closed a second after its last byte.
//! handle.drain(Duration::from_secs(10));
//! assert_eq!(serving.join().unwrap()?.accepted(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # The end
//!
//! [`ServerHandle::drain`] ends a server in good order, within a limit of time; a second drain with
//! a shorter limit wins. [`ServerHandle::stop`] ends it at once, also while it is being drained.
//! Both return at once; [`Bound::run`] returns when the last connection has ended.

// Mirrors the fields of Go's `http.Server`.
//
// | file | what it is |
// |---|---|
// | this one, `settings.rs` | the settings of a server; what its threads share |
// | `bound.rs` | a server that listens, and the handle to it |
// | `worker_loop.rs` | one worker's life: serve, drain, stop |
// | `dispatch.rs` | between threads: orders to every worker, connections to the worker that has the fewest |
// | `signals.rs` | signals that drain or stop it (feature `signal`) |

mod bound;
mod dispatch;
mod settings;
#[cfg(feature = "signal")]
mod signals;
mod worker_loop;

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::panic::Location;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use self::settings::{Common, Settings};
use crate::connection::Protocol;
use crate::connection::filter::IntoFilter;
use crate::connection::limits::Limits;
use crate::connection::rate::Rate;
use crate::connection::shared::{ConnSettings, ticks};
use crate::endpoints::Addr;
use crate::heartbeat::Heartbeat;
use crate::net::{Hook, ListenConfig, ToAddr};
use crate::reactor::Direction;
use crate::sys;

pub use crate::connection::stats::{Stats, WorkerStats};
pub use bound::{Bound, ServerHandle};
#[allow(deprecated)]
pub use settings::Accept;
pub use settings::{Dispatch, Factory, Listeners, Peer, WithPeer};

/// Serves connections by a [`Protocol`], on one thread or on several.
///
/// Its methods are settings, each with a default, and [`bind`](Server::bind) comes last. Durations
/// are rounded up to a millisecond.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use std::io;
/// use std::time::Duration;
/// use netpoller::{Conn, Protocol, Server};
///
/// struct Discard;
/// impl Protocol for Discard {
///     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
///         Ok(bytes.len())
///     }
/// }
///
/// let bound = Server::new(|peer| {
///     println!("{peer} connects");
///     Discard
/// })
/// .workers(2)
/// .max_connections(10_000)
/// .idle_timeout(Duration::from_secs(60))
/// .heartbeat_with(Duration::from_secs(20), b"ping")
/// .bind("127.0.0.1:0")?;
/// assert_ne!(bound.local_addr().port(), 0);
/// # Ok(())
/// # }
/// ```
#[must_use = "it serves once it is bound and runs"]
pub struct Server<F> {
    /// Called by each worker, in its own thread.
    factory: Arc<F>,
    settings: Settings,
    connections: ConnSettings,
}

impl<F> Clone for Server<F> {
    fn clone(&self) -> Self {
        Server {
            factory: self.factory.clone(),
            settings: self.settings.clone(),
            connections: self.connections.clone(),
        }
    }
}

impl<P: Protocol, F: Fn(Addr) -> P + 'static> Server<F> {
    /// A server with the default settings. `factory` makes the protocol of each connection from the
    /// peer's address, in the thread of the worker that will serve it.
    ///
    /// [`Bound::run`] wants a factory that is `Send` and `Sync`, because several threads call it.
    /// [`Bound::run_in`] takes any.
    ///
    /// ```
    /// # use netpoller::{Conn, Protocol};
    /// use netpoller::{Addr, Server};
    ///
    /// /// Knows its peer.
    /// struct Visitor(Addr);
    /// impl Protocol for Visitor {
    /// #     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> std::io::Result<usize> {
    /// #         Ok(bytes.len())
    /// #     }
    ///     fn open(&mut self, conn: &mut Conn) -> std::io::Result<()> {
    ///         conn.write(format!("you are {}\n", self.0).as_bytes())
    ///     }
    /// }
    /// let server = Server::new(Visitor); // the constructor is a function from an address
    /// ```
    #[track_caller]
    pub fn new(factory: F) -> Self {
        Server::made_by(factory)
    }
}

impl<P: Protocol, F: Fn(Peer) -> P + 'static> Server<WithPeer<F>> {
    /// As [`new`](Server::new), for a factory that is told to which listener the peer came:
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::io;
    /// use netpoller::{Conn, Peer, Protocol, Runtime, Server, TcpStream};
    ///
    /// /// Operators have a port of their own.
    /// struct Greeter {
    ///     to: &'static str,
    /// }
    /// impl Protocol for Greeter {
    ///     fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
    ///         conn.write(self.to.as_bytes())
    ///     }
    ///     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         Ok(bytes.len())
    ///     }
    /// }
    ///
    /// let listen = || std::net::TcpListener::bind("127.0.0.1:0");
    /// let server = Server::with_peer(|peer: Peer| Greeter {
    ///     to: ["client", "operator"][peer.listener],
    /// });
    /// let bound = server.bind_to([listen()?, listen()?])?;
    /// let runtime = Runtime::new()?;
    /// let _serving = bound.run_in(&runtime)?;
    /// let addrs = bound.local_addrs();
    /// runtime.block_on(async {
    ///     for (addr, greeting) in addrs.iter().zip(["client", "operator"]) {
    ///         let stream = TcpStream::connect(addr).await?;
    ///         assert_eq!(stream.read_with(|bytes| bytes.to_vec()).await?, greeting.as_bytes());
    ///     }
    ///     Ok(())
    /// })
    /// # }
    /// ```
    #[track_caller]
    pub fn with_peer(factory: F) -> Self {
        Server::made_by(WithPeer(factory))
    }
}

impl<F> Server<F> {
    #[track_caller]
    fn made_by(factory: F) -> Self {
        Server {
            factory: Arc::new(factory),
            settings: Settings {
                place: Location::caller(),
                workers: 1,
                dispatch: Dispatch::default(),
                on_worker: None,
                filter: None,
                spin: Duration::ZERO,
            },
            connections: ConnSettings {
                max_connections: usize::MAX,
                drain_grace: 1000,
                ..ConnSettings::default()
            },
        }
    }

    /// Closes a connection, after a call of [`Protocol::idle`], when nothing has come for this long,
    /// unless it is [busy](crate::Conn::set_busy). Bytes that the peer takes count only while nothing
    /// is read from it: [reading has stopped](crate::Limits::high_water), or the peer has ended. A peer
    /// that only listens has to answer a [heartbeat](Server::heartbeat).
    ///
    /// `None`, the default, and zero mean never, as in Go.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::io;
    /// use std::time::Duration;
    /// use netpoller::{Conn, Protocol, Runtime, Server, TcpStream};
    ///
    /// struct Discard;
    /// impl Protocol for Discard {
    ///     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         Ok(bytes.len())
    ///     }
    ///     fn idle(&mut self, conn: &mut Conn) -> io::Result<()> {
    ///         conn.write(b"a minute is over")
    ///     }
    /// }
    ///
    /// let runtime = Runtime::builder().virtual_clock().build()?;
    /// let server = Server::new(|_peer| Discard).idle_timeout(Duration::from_secs(60));
    /// let bound = server.bind("127.0.0.1:0")?;
    /// bound.run_in(&runtime)?;
    /// runtime.block_on(async {
    ///     let stream = TcpStream::connect(bound.local_addr()).await?;
    ///     assert_eq!(stream.read_with(|bytes| bytes.to_vec()).await?, b"a minute is over");
    ///     assert_eq!(stream.read(&mut [0]).await?, 0);
    ///     io::Result::Ok(())
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        let timeout = timeout.into().filter(|wait| !wait.is_zero());
        self.connections.idle_timeout = timeout.map(ticks);
        self
    }

    /// Calls [`Protocol::heartbeat`] whenever nothing has come for `interval`. `None`, the default,
    /// is never. [`heartbeat_with`](Server::heartbeat_with) sends fixed bytes.
    ///
    /// Bytes that are sent do not delay it, so that a peer that only listens is asked too. With an
    /// idle timeout of a few intervals, a peer that does not answer is dropped. The first heartbeat
    /// comes up to an eighth of the interval later, so that connections that were opened together
    /// do not all send at the same time.
    ///
    /// Until version 0.2, zero means 30 s.
    ///
    /// ```
    /// use std::io;
    /// use std::time::Duration;
    /// use netpoller::{Conn, Protocol, Server};
    ///
    /// struct Events;
    /// impl Protocol for Events {
    /// #     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> { Ok(bytes.len()) }
    ///     fn heartbeat(&mut self, conn: &mut Conn) -> io::Result<()> {
    ///         conn.write(b"event: ping\n\n")
    ///     }
    /// }
    ///
    /// // A peer that does not answer three of them is dropped.
    /// let beat = Duration::from_secs(20);
    /// let server = Server::new(|_peer| Events).heartbeat(beat).idle_timeout(3 * beat);
    /// ```
    pub fn heartbeat(mut self, interval: impl Into<Option<Duration>>) -> Self {
        let interval = interval.into().map(|interval| match interval {
            Duration::ZERO => Heartbeat::DEFAULT_INTERVAL,
            interval => interval,
        });
        self.connections.heartbeat = interval.map(ticks);
        self.connections.heartbeat_bytes = None;
        self
    }

    /// As [`heartbeat`](Server::heartbeat), with fixed bytes: they are written in place of calling
    /// [`Protocol::heartbeat`].
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::io;
    /// use std::time::Duration;
    /// use netpoller::{Conn, Protocol, Runtime, Server, TcpStream};
    ///
    /// struct Discard;
    /// impl Protocol for Discard {
    ///     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         Ok(bytes.len())
    ///     }
    /// }
    ///
    /// let runtime = Runtime::builder().virtual_clock().build()?;
    /// let server = Server::new(|_peer| Discard).heartbeat_with(Duration::from_secs(20), b"ping");
    /// let bound = server.bind("127.0.0.1:0")?;
    /// bound.run_in(&runtime)?;
    /// runtime.block_on(async {
    ///     let stream = TcpStream::connect(bound.local_addr()).await?;
    ///     let mut pings = [0; 8];
    ///     stream.read_exact(&mut pings).await?;
    ///     assert_eq!(&pings, b"pingping");
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub fn heartbeat_with(
        self,
        interval: impl Into<Option<Duration>>,
        bytes: impl AsRef<[u8]>,
    ) -> Self {
        let mut server = self.heartbeat(interval);
        server.connections.heartbeat_bytes = Some(bytes.as_ref().into());
        server
    }

    /// Drops a peer that sends fewer than `bytes_per_second`, on the average of a `window`, while it is
    /// in the middle of a message. A peer that sends a byte now and then is never idle; a minimum rate
    /// drops it. Zero, the default, asks for nothing.
    ///
    /// A peer is in the middle of a message while [`Protocol::data`] leaves bytes unused. Between
    /// messages, and for a protocol that uses all bytes as they come, only the [idle
    /// timeout](Server::idle_timeout) holds. Time does not count while [reading has
    /// stopped](crate::Limits::high_water). If the loop was held up, an eighth of the window counts at
    /// most. The connection ends with a RST, and [`Protocol::closed`] is told: `minimum rate not met:
    /// 12 bytes in 10 s, 1000 asked`, which is a [timeout](crate::NetError::is_timeout).
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::io;
    /// use std::time::Duration;
    /// use netpoller::{Conn, NetError, Protocol, Runtime, Server, TcpStream, time};
    ///
    /// struct Lines;
    /// impl Protocol for Lines {
    ///     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         Ok(bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1))
    ///     }
    ///     fn closed(&mut self, why: io::Result<()>) {
    ///         let text = why.unwrap_err().to_string();
    ///         assert!(text.ends_with("minimum rate not met: 9 bytes in 10 s, 1000 asked"), "{text}");
    ///     }
    /// }
    ///
    /// let runtime = Runtime::builder().virtual_clock().build()?;
    /// let server = Server::new(|_peer| Lines).minimum_read_rate(100, Duration::from_secs(10));
    /// let bound = server.bind("127.0.0.1:0")?;
    /// let serving = bound.run_in(&runtime)?;
    /// runtime.block_on(async {
    ///     let loris = TcpStream::connect(bound.local_addr()).await?;
    ///     while loris.write_all(b"x").await.is_ok() {
    ///         time::sleep(Duration::from_secs(1)).await;
    ///     }
    ///     bound.handle().stop();
    ///     assert_eq!(serving.await.unwrap()?.workers[0].slow, 1);
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub fn minimum_read_rate(mut self, bytes_per_second: u64, window: Duration) -> Self {
        self.connections.rates[Direction::Read as usize] =
            Rate::new(bytes_per_second, ticks(window));
        self
    }

    /// Drops a peer that takes fewer than `bytes_per_second`, on the average of a `window`, while
    /// more waits for it. Otherwise as [`minimum_read_rate`](Server::minimum_read_rate).
    ///
    /// A byte counts when our system's send buffer takes it. Systems make room in steps, of 64 KiB and
    /// more, as the peer reads: let the window be long enough for some.
    pub fn minimum_write_rate(mut self, bytes_per_second: u64, window: Duration) -> Self {
        self.connections.rates[Direction::Write as usize] =
            Rate::new(bytes_per_second, ticks(window));
        self
    }

    /// The most connections at once, on all workers together. The next one is accepted when one of
    /// them has ended; until then clients wait in the system's backlog. A drain accepts them at once, and
    /// they wait for room.
    ///
    /// ```
    /// # use netpoller::{Conn, Protocol, Server};
    /// # struct Discard;
    /// # impl Protocol for Discard {
    /// #     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> std::io::Result<usize> {
    /// #         Ok(bytes.len())
    /// #     }
    /// # }
    /// // Fewer than the process may have descriptors: some are needed besides.
    /// let server = Server::new(|_peer| Discard).workers(2).max_connections(900);
    /// ```
    ///
    /// # Panics
    ///
    /// If `max` is zero.
    pub fn max_connections(mut self, max: usize) -> Self {
        assert!(max > 0, "netpoller: a server needs room for a connection");
        self.connections.max_connections = max;
        self
    }

    /// Threads, each with a loop of its own: one by default. `None` is as many as there are CPUs.
    /// [`dispatch`](Server::dispatch) says how connections come to them.
    ///
    /// Until version 0.2, zero also means as many as there are CPUs.
    ///
    /// ```
    /// # use netpoller::{Conn, Protocol, Server};
    /// # struct Discard;
    /// # impl Protocol for Discard {
    /// #     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> std::io::Result<usize> {
    /// #         Ok(bytes.len())
    /// #     }
    /// # }
    /// let four = Server::new(|_peer| Discard).workers(4);
    /// let one_for_each_cpu = Server::new(|_peer| Discard).workers(None);
    /// ```
    pub fn workers(mut self, workers: impl Into<Option<usize>>) -> Self {
        self.settings.workers = match workers.into() {
            None | Some(0) => thread::available_parallelism().map_or(1, NonZeroUsize::get),
            Some(workers) => workers,
        };
        self
    }

    /// Has each worker call `start` with its number, in its own thread and inside its runtime,
    /// before the first connection is accepted: to open a log, or to spawn a task beside the
    /// connections. When all workers have started, the server serves.
    ///
    /// If one fails or panics, the server does not start: [`Bound::run`] returns an error that says
    /// which worker it was. Clients that have connected meanwhile are reset.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::cell::RefCell;
    /// use std::io;
    /// use netpoller::{Conn, Protocol, Server};
    ///
    /// thread_local! {
    ///     static GREETING: RefCell<String> = RefCell::default();
    /// }
    ///
    /// struct Greeter;
    /// impl Protocol for Greeter {
    ///     fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
    ///         GREETING.with_borrow(|greeting| conn.write(greeting.as_bytes()))?;
    ///         conn.close();
    ///         Ok(())
    ///     }
    ///     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         Ok(bytes.len())
    ///     }
    /// }
    ///
    /// let server = Server::new(|_peer| Greeter).workers(2).on_worker(|worker| {
    ///     GREETING.set(format!("I am worker {worker}"));
    ///     Ok(())
    /// });
    /// let bound = server.bind("127.0.0.1:0")?;
    /// let (addr, handle) = (bound.local_addr(), bound.handle());
    /// let serving = std::thread::spawn(move || bound.run());
    /// let greeting = io::read_to_string(std::net::TcpStream::connect(addr)?)?;
    /// assert!(greeting.starts_with("I am worker "));
    /// handle.stop();
    /// serving.join().unwrap()?;
    ///
    /// let fails = |worker| match worker {
    ///     1 => Err(io::Error::other("no room")),
    ///     _ => Ok(()),
    /// };
    /// let server = Server::new(|_peer| Greeter).workers(2).on_worker(fails);
    /// let error = server.bind("127.0.0.1:0")?.run().unwrap_err();
    /// assert_eq!(error.to_string(), "worker 1 does not start: no room");
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_worker(
        mut self,
        start: impl Fn(usize) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.settings.on_worker = Some(Hook(Arc::new(start)));
        self
    }

    /// Puts a [`Filter`](crate::Filter) between the socket and the protocol of each connection. `make`
    /// is called with the peer, in the thread of the worker, beside the factory.
    ///
    /// An `Option` of a filter leaves some connections without one: here, those of the first listener.
    ///
    /// ```
    /// # use std::io;
    /// use netpoller::{Conn, Filter, FilterIo, Protocol, Server};
    /// # struct Tls;
    /// # impl Filter for Tls {
    /// #     fn incoming(&mut self, bytes: &[u8], _: &mut FilterIo) -> io::Result<usize> { Ok(bytes.len()) }
    /// #     fn outgoing(&mut self, bytes: &[u8], _: &mut FilterIo) -> io::Result<usize> { Ok(bytes.len()) }
    /// # }
    /// # struct Http;
    /// # impl Protocol for Http {
    /// #     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> { Ok(bytes.len()) }
    /// # }
    /// let server = Server::new(|_peer| Http).filter(|peer| (peer.listener > 0).then_some(Tls));
    /// ```
    pub fn filter<L: IntoFilter>(
        mut self,
        make: impl Fn(&Peer) -> L + Send + Sync + 'static,
    ) -> Self {
        let make = move |peer: &Peer| make(peer).into_filter();
        self.settings.filter = Some(Hook(Arc::new(make)));
        self
    }

    /// How connections come to several workers: [`Dispatch::Auto`] by default.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::io::{self, Read};
    /// use std::net::TcpStream;
    /// use netpoller::{Conn, Dispatch, Protocol, Server};
    ///
    /// /// Says which thread serves it.
    /// struct Thread;
    /// impl Protocol for Thread {
    ///     fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
    ///         conn.write(format!("{:?}", std::thread::current().id()).as_bytes())?;
    ///         conn.close();
    ///         Ok(())
    ///     }
    ///     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         Ok(bytes.len())
    ///     }
    /// }
    ///
    /// let server = Server::new(|_peer| Thread).workers(2).dispatch(Dispatch::HandOver);
    /// let bound = server.bind("127.0.0.1:0")?;
    /// let (addr, handle) = (bound.local_addr(), bound.handle());
    /// let running = std::thread::spawn(move || bound.run());
    /// let ask = || {
    ///     let mut name = String::new();
    ///     TcpStream::connect(addr)?.read_to_string(&mut name)?;
    ///     io::Result::Ok(name)
    /// };
    /// let first = ask()?;
    /// while ask()? == first {}
    /// handle.stop();
    /// running.join().unwrap()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn dispatch(mut self, dispatch: Dispatch) -> Self {
        self.settings.dispatch = dispatch;
        self
    }

    /// The old name of [`dispatch`](Server::dispatch).
    #[deprecated(note = "it is called `dispatch` now")]
    pub fn accept(self, dispatch: Dispatch) -> Self {
        self.dispatch(dispatch)
    }

    /// What a connection may keep in memory.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # use netpoller::{Conn, Protocol, Server};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> std::io::Result<usize> {
    /// #         conn.write(bytes)?;
    /// #         Ok(bytes.len())
    /// #     }
    /// # }
    /// use netpoller::Limits;
    /// // Half a megabyte a connection at most, and 256 MiB over all.
    /// let limits = Limits::default().with_most_queued(512 << 10).with_most_queued_in_all(256 << 20);
    /// let server = Server::new(|_peer| Echo).limits(limits);
    /// # drop(server);
    /// # Ok(())
    /// # }
    /// ```
    pub fn limits(mut self, limits: Limits) -> Self {
        self.connections.limits = limits;
        self
    }

    /// During a drain, a connection stays open until there was no traffic on it, either way, for
    /// this time, in case more follows: 1 s by default. Without idle timeout and heartbeat, bytes
    /// that came before the drain are dated by the clock's last reading before they were used. See
    /// [`ServerHandle::drain`](crate::ServerHandle::drain).
    ///
    /// ```
    /// # use netpoller::{Conn, Protocol, Server};
    /// # struct Discard;
    /// # impl Protocol for Discard {
    /// #     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> std::io::Result<usize> {
    /// #         Ok(bytes.len())
    /// #     }
    /// # }
    /// use std::time::Duration;
    /// // Clients are near: what they have sent arrives within this time.
    /// let server = Server::new(|_peer| Discard).drain_grace(Duration::from_millis(100));
    /// ```
    pub fn drain_grace(mut self, grace: Duration) -> Self {
        self.connections.drain_grace = ticks(grace);
        self
    }

    /// Ends each connection in good order once it is older than `age`, so that clients spread over
    /// new servers: as in a drain, [`Protocol::draining`] is called once, and the connection closes
    /// when it is not in flight. `None`, the default, and zero are no limit.
    ///
    /// Connections that were opened together end apart: each up to `jitter` later.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::io;
    /// use std::time::Duration;
    /// use netpoller::{Conn, Drain, Protocol, Runtime, Server, TcpStream, time};
    ///
    /// struct Discard;
    /// impl Protocol for Discard {
    ///     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         Ok(bytes.len())
    ///     }
    ///     fn draining(&mut self, conn: &mut Conn) -> io::Result<Drain> {
    ///         conn.write(b"come again")?;
    ///         Ok(Drain::WhenQuiet)
    ///     }
    /// }
    ///
    /// let hour = Duration::from_secs(3600);
    /// let runtime = Runtime::builder().virtual_clock().build()?;
    /// let server = Server::new(|_peer| Discard).max_connection_age(hour, hour / 10);
    /// let bound = server.bind("127.0.0.1:0")?;
    /// let _serving = bound.run_in(&runtime)?;
    /// runtime.block_on(async {
    ///     let opened = time::now();
    ///     let stream = TcpStream::connect(bound.local_addr()).await?;
    ///     assert_eq!(stream.read_with(|bytes| bytes.to_vec()).await?, b"come again");
    ///     assert!(time::now() - opened >= hour);
    ///     assert_eq!(stream.read(&mut [0]).await?, 0);
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub fn max_connection_age(
        mut self,
        age: impl Into<Option<Duration>>,
        jitter: Duration,
    ) -> Self {
        let age = age.into().filter(|age| !age.is_zero());
        self.connections.max_age = age.map(|age| (ticks(age), ticks(jitter)));
        self
    }

    /// How long each worker's loop polls before it sleeps: see
    /// [`Builder::spin`](crate::Builder::spin).
    pub fn spin(mut self, spin: Duration) -> Self {
        self.settings.spin = spin;
        self
    }

    /// Listens on `addr`. From here on clients can connect; they are served once the server runs.
    ///
    /// A name is looked up on this thread, which blocks.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # use netpoller::{Conn, Protocol, Server};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> std::io::Result<usize> {
    /// #         conn.write(bytes)?;
    /// #         Ok(bytes.len())
    /// #     }
    /// # }
    /// let bound = Server::new(|_peer| Echo).bind("localhost:0")?;
    /// println!("listening on {}", bound.local_addr());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`ListenConfig::bind`].
    pub fn bind(self, addr: impl ToAddr) -> io::Result<Bound<F>> {
        self.bind_to((ListenConfig::new(), addr))
    }

    /// As [`bind`](Server::bind), on one or more listeners of any kind: a TCP or Unix listener of std's
    /// (a service manager's socket, say), a [`ListenConfig`] with an address, or several of them: see
    /// [`Listeners`]. With [`with_peer`](Server::with_peer) the protocol may depend on the listener.
    ///
    /// With several workers, the first one accepts from a listener of std's, and hands each connection
    /// over to the worker that has the fewest.
    ///
    /// A listener of std's becomes non-blocking. A TCP one also sends without delay, as Go's connections
    /// do. A Unix listener's path stays when the server ends.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::io::{self, Read, Write};
    /// use std::net::TcpStream;
    /// use std::os::unix::net::{UnixListener, UnixStream};
    /// use netpoller::{Conn, ListenConfig, Protocol, Server, server::Listeners};
    ///
    /// struct Echo;
    /// impl Protocol for Echo {
    ///     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         conn.write(bytes)?;
    ///         Ok(bytes.len())
    ///     }
    /// }
    ///
    /// let path = std::env::temp_dir().join(format!("netpoller-server-{}", std::process::id()));
    /// let unix = Listeners::from(UnixListener::bind(&path)?);
    /// let server = Server::new(|_peer| Echo).workers(2);
    /// let bound = server.bind_to(unix.and((ListenConfig::new().backlog(64), "127.0.0.1:0")))?;
    /// let (tcp, handle) = (bound.local_addr(), bound.handle());
    /// assert_eq!(bound.local_addrs()[0].to_string(), path.to_str().unwrap());
    /// let serving = std::thread::spawn(move || bound.run());
    ///
    /// fn ask(mut stream: impl Read + Write) -> io::Result<()> {
    ///     stream.write_all(b"hello")?;
    ///     let mut answer = [0; 5];
    ///     stream.read_exact(&mut answer)?;
    ///     assert_eq!(&answer, b"hello");
    ///     Ok(())
    /// }
    /// ask(TcpStream::connect(tcp)?)?;
    /// ask(UnixStream::connect(&path)?)?;
    /// handle.stop();
    /// std::fs::remove_file(&path)?;
    /// assert_eq!(serving.join().unwrap()?.accepted(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`ListenConfig::bind`]; no listener at all.
    pub fn bind_to(self, listeners: impl Into<Listeners>) -> io::Result<Bound<F>> {
        let sharing = match self.settings.dispatch {
            Dispatch::Auto if !sys::SPREADS_CONNECTIONS => 1,
            Dispatch::Auto | Dispatch::ReusePort => self.settings.workers,
            Dispatch::HandOver => 1,
        };
        let (addrs, ports) = listeners.into().open(sharing)?;
        if ports.is_empty() {
            let text = "netpoller: a server needs a listener";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let common = Common::new(self.settings, self.connections, addrs);
        Ok(Bound::new(self.factory, common, ports))
    }
}

impl<F> fmt::Debug for Server<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = (&self.settings, &self.connections);
        f.debug_tuple("Server").field(&settings).finish()
    }
}
