//! A server's settings.
//!
//! May touch: net's listeners. Mirrors the fields of Go's `http.Server`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::bound::Bound;
use crate::connection::intervals::ticks;
use crate::connection::limits::Limits;
use crate::connection::progress::Rate;
use crate::connection::protocol::Protocol;
use crate::connection::watch::Rates;
use crate::heartbeat::Heartbeat;
use crate::net::{ListenConfig, TcpListener, ToAddr};
use crate::runtime::{Runtime, context};
use crate::sys;

/// Serves connections by a [`Protocol`], on one thread or on several.
///
/// See [`Protocol`] for an example.
pub struct Server<F> {
    pub(crate) factory: Arc<F>,
    pub(crate) settings: Settings,
}

impl<F> Clone for Server<F> {
    fn clone(&self) -> Self {
        Server {
            factory: self.factory.clone(),
            settings: self.settings.clone(),
        }
    }
}

/// How connections come to a server's workers, where it has several: see [`Server::accept`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Accept {
    /// [`Each`](Accept::Each) where the system spreads connections over listeners that share a
    /// port: on Linux, and on FreeBSD from 12 on. Elsewhere [`HandOver`](Accept::HandOver).
    #[default]
    BySystem,
    /// Each worker has a listener of its own on the one port, with a queue of its own; the system
    /// chooses by a hash of the addresses.
    Each,
    /// One worker accepts for all, and hands each connection over to the worker that has fewest:
    /// an even spread, for a passage between threads.
    HandOver,
}

impl Accept {
    fn listens_each(self) -> bool {
        match self {
            Accept::BySystem => sys::spreads_connections(),
            Accept::Each => true,
            Accept::HandOver => false,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) idle: Duration,
    pub(crate) heartbeat: Duration,
    pub(crate) rates: Rates,
    pub(crate) grace: Duration,
    pub(crate) most: usize,
    pub(crate) workers: usize,
    pub(crate) accept: Accept,
    pub(crate) limits: Limits,
    pub(crate) spin: Duration,
}

impl<F, P> Server<F>
where
    F: Fn(SocketAddr) -> P + Send + Sync + 'static,
    P: Protocol,
{
    /// A server that makes a protocol for each connection, of the peer's address, in the thread
    /// that will serve it.
    #[must_use]
    pub fn new(factory: F) -> Self {
        Server {
            factory: Arc::new(factory),
            settings: Settings {
                idle: Duration::ZERO,
                heartbeat: Duration::ZERO,
                rates: Rates::default(),
                grace: Duration::from_millis(100),
                most: usize::MAX,
                workers: 1,
                accept: Accept::default(),
                limits: Limits::default(),
                spin: Duration::ZERO,
            },
        }
    }

    /// Closes a connection when nothing has come for so long: see [`Protocol::idle`]. Zero, the
    /// default, is never.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.settings.idle = timeout;
        self
    }

    /// Calls [`Protocol::heartbeat`] whenever nothing has come for so long; zero is 30 s. By
    /// default it is never called.
    ///
    /// What we send does not put it off: a peer that only listens is asked all the same whether
    /// it is there. With an idle timeout of a few intervals, one that does not answer is dropped.
    /// The first comes up to an eighth later, so that connections which are opened together do
    /// not beat together.
    #[must_use]
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.settings.heartbeat = match interval {
            Duration::ZERO => Heartbeat::DEFAULT_INTERVAL,
            interval => interval,
        };
        self
    }

    /// Drops a peer that, once it has begun a message, sends fewer than `bytes` a second over a
    /// `window`: one that sends a byte now and then, so that it is never idle. Nothing is asked by
    /// default; zero asks for nothing.
    ///
    /// A message has begun while [`Protocol::data`] leaves bytes unused; between messages, and for
    /// a protocol that uses all bytes as they come, only the [idle
    /// timeout](Server::idle_timeout) holds. Time counts only while the peer may send and the loop
    /// is attentive: not while [reading has stopped](crate::Limits::high_water), nor an eighth of a
    /// window in which the loop was held up. The connection ends with a RST, and
    /// [`Protocol::closed`] is told: `minimum rate not met: 12 bytes in 10 s, 1000 asked`, which is
    /// a [timeout](crate::NetError::is_timeout).
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
    #[must_use]
    pub fn minimum_read_rate(mut self, bytes: u64, window: Duration) -> Self {
        self.settings.rates.read = Rate::new(bytes, ticks(window));
        self
    }

    /// Drops a peer that takes fewer than `bytes` a second over a `window` while more waits for
    /// it. Otherwise as [`minimum_read_rate`](Server::minimum_read_rate).
    ///
    /// A byte is taken when the system's buffer takes it from us. Systems make room in steps, of
    /// 64 KiB and more, as the peer reads: let the window be long enough for some.
    #[must_use]
    pub fn minimum_write_rate(mut self, bytes: u64, window: Duration) -> Self {
        self.settings.rates.write = Rate::new(bytes, ticks(window));
        self
    }

    /// No more than this many connections at once, on all workers together. The next is not
    /// accepted before one of them has gone: those that wait, wait in the system's backlog.
    ///
    /// # Panics
    ///
    /// If it is zero: nothing would ever be served.
    #[must_use]
    pub fn max_connections(mut self, most: usize) -> Self {
        assert!(
            most > 0,
            "netpoller: a server of zero connections serves nobody"
        );
        self.settings.most = most;
        self
    }

    /// Threads, each with a loop of its own; zero is as many as there are CPUs. One by default.
    /// [`accept`](Server::accept) says how connections come to them.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.settings.workers = match workers {
            0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            workers => workers,
        };
        self
    }

    /// How connections come to several workers: by the system, where it spreads them, by default.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::io::{self, Read};
    /// use std::net::TcpStream;
    /// use netpoller::{Accept, Conn, Protocol, Server};
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
    /// let server = Server::new(|_peer| Thread).workers(2).accept(Accept::HandOver);
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
    #[must_use]
    pub fn accept(mut self, accept: Accept) -> Self {
        self.settings.accept = accept;
        self
    }

    /// What a connection may keep in memory.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// While the server is drained, a connection that has been quiet for so long is closed: 100 ms
    /// by default.
    #[must_use]
    pub fn drain_grace(mut self, grace: Duration) -> Self {
        self.settings.grace = grace;
        self
    }

    /// How long each worker's loop polls before it sleeps: see
    /// [`Builder::spin`](crate::Builder::spin).
    #[must_use]
    pub fn spin(mut self, spin: Duration) -> Self {
        self.settings.spin = spin;
        self
    }

    /// Listens. From here on clients can connect; they are served once the server runs.
    ///
    /// # Errors
    ///
    /// Those of [`ListenConfig::bind`].
    pub fn bind(self, addr: impl ToAddr) -> io::Result<Bound<F>> {
        let target = addr.to_addr();
        // Bound in a loop of its own, for names are looked up in one; and where one is running on
        // this thread already, beside it.
        let wanted = match self.settings.accept.listens_each() {
            true => self.settings.workers,
            false => 1,
        };
        let listeners = if context::try_with(|_| ()).is_none() {
            listen(target, wanted)?
        } else {
            let beside = std::thread::spawn(move || listen(target, wanted));
            let panicked = |_| io::Error::other("binding panicked");
            beside.join().map_err(panicked)??
        };
        Bound::new(self, listeners)
    }
}

fn listen(target: crate::net::Target, listeners: usize) -> io::Result<Vec<std::net::TcpListener>> {
    Runtime::new()?.block_on(async {
        let mut config = ListenConfig::new();
        if listeners > 1 {
            config = config.control(|socket, _| sys::share_port(socket));
        }
        let first = config.bind(target).await?;
        let address = first.local_addr()?;
        let mut all = vec![first.into_std()?];
        while all.len() < listeners {
            all.push(TcpListener::into_std(config.bind(address).await?)?);
        }
        Ok(all)
    })
}

impl<F> fmt::Debug for Server<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
