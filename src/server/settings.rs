//! The settings of a server, what it listens on, and what makes the protocol of a peer; and what its
//! workers and handles share.

// Mirrors the fields of `Server` in Go's `net/http/server.go`, whose `Serve` takes any `net.Listener`.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::dispatch::Dispatcher;
use crate::connection::Protocol;
use crate::connection::filter::Filter;
use crate::connection::shared::{ConnSettings, Phase, ServerShared};
use crate::connection::stats::{Stats, WorkerStats};
use crate::endpoints::{Addr, Network};
use crate::net::{Hook, ListenConfig, ToAddr, listener};
use crate::runtime::Handle;
use crate::runtime::running::Place;

type MakeFilter = Hook<dyn Fn(&Peer) -> Option<Box<dyn Filter>> + Send + Sync>;

/// The settings of a server, without those of its connections.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where the server was made.
    pub(crate) place: Place,
    pub(crate) workers: usize,
    pub(crate) dispatch: Dispatch,
    /// Each worker calls it before the first connection is accepted.
    pub(crate) on_worker: Option<Hook<dyn Fn(usize) -> io::Result<()> + Send + Sync>>,
    /// Makes what stands between the socket and the protocol.
    pub(crate) filter: Option<MakeFilter>,
    /// How long each worker's loop polls before it sleeps.
    pub(crate) spin: Duration,
}

/// What the workers and the handles of a server share.
pub(crate) struct Common {
    pub(crate) settings: Settings,
    /// By listener, with the real ports.
    pub(crate) addrs: Vec<Addr>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// By worker: its runtime, once it is made.
    pub(crate) runtimes: Vec<OnceLock<Handle>>,
    /// What all connections share.
    pub(crate) shared: Arc<ServerShared>,
    /// What the workers wait for besides orders.
    #[cfg(feature = "signal")]
    pub(crate) watches: super::signals::Watches,
}

impl Common {
    pub(super) fn new(settings: Settings, connections: ConnSettings, addrs: Vec<Addr>) -> Self {
        debug_assert!(!addrs.is_empty(), "it is named by the first");
        Common {
            addrs,
            dispatcher: Arc::new(Dispatcher::new(settings.workers)),
            runtimes: (0..settings.workers).map(|_| OnceLock::new()).collect(),
            shared: Arc::new(ServerShared::new(connections)),
            settings,
            #[cfg(feature = "signal")]
            watches: Default::default(),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let tallies = self.dispatcher.tallies.iter();
        let mut workers: Vec<_> = tallies.map(|tally| WorkerStats::read(tally)).collect();
        for (stats, runtime) in workers.iter_mut().zip(&self.runtimes) {
            let of_loop = runtime.get().map(Handle::stats).unwrap_or_default();
            (stats.turns, stats.events) = (of_loop.turns(), of_loop.events());
        }
        Stats { workers }
    }

    /// The server, as log lines name it: by its first listener.
    pub(crate) fn name(&self) -> &Addr {
        &self.addrs[0]
    }

    /// Ends the server: in good order within a limit, or at once.
    pub(crate) fn end(&self, within: Option<Duration>) {
        let (phase, does) = match within {
            Some(limit) => (Phase::Draining, format!("drains within {limit:?}")),
            None => (Phase::Stopped, "stops".to_owned()),
        };
        if self.dispatcher.give(phase, within.unwrap_or_default()) {
            let (name, open) = (self.name(), self.stats().live());
            log::info!("{name}: the server {does}; open connections: {open}");
        }
    }
}

/// How connections come to the workers of a server that has several: see
/// [`Server::dispatch`](crate::Server::dispatch).
///
/// ```
/// # use netpoller::{Conn, Protocol};
/// use netpoller::{Dispatch, Server};
///
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> std::io::Result<usize> {
/// #         conn.write(bytes).map(|()| bytes.len())
/// #     }
/// # }
/// # fn main() -> std::io::Result<()> {
/// // A few long connections: the kernel's choice by hash could give them all to one worker.
/// let server = Server::new(|_peer| Echo).workers(2).dispatch(Dispatch::HandOver);
/// let bound = server.bind("127.0.0.1:0")?;
/// # drop(bound);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dispatch {
    /// [`ReusePort`](Dispatch::ReusePort) where the system spreads connections over listeners that
    /// share a port: on Linux, and on FreeBSD from 12 on. Elsewhere
    /// [`HandOver`](Dispatch::HandOver).
    #[default]
    Auto,
    /// Each worker has a listener of its own on the one port, with a queue of its own; the system
    /// chooses by a hash of the addresses.
    ReusePort,
    /// One worker accepts for all, and hands each connection over to the worker that has the fewest:
    /// an even spread, at the price of a passage between threads.
    HandOver,
}

/// The old name of [`Dispatch`].
///
/// ```
/// use netpoller::{Accept, Dispatch};
/// let same: Accept = Dispatch::HandOver;
/// assert_eq!(same, Dispatch::HandOver);
/// ```
#[deprecated(note = "it is called `Dispatch` now")]
pub type Accept = Dispatch;

#[allow(non_upper_case_globals, reason = "the old names of variants")]
impl Dispatch {
    /// The old name of [`Dispatch::Auto`].
    #[deprecated(note = "it is called `Dispatch::Auto` now")]
    pub const BySystem: Dispatch = Dispatch::Auto;
    /// The old name of [`Dispatch::ReusePort`].
    #[deprecated(note = "it is called `Dispatch::ReusePort` now")]
    pub const Each: Dispatch = Dispatch::ReusePort;
}

/// What a server listens on, for [`Server::bind_to`](crate::Server::bind_to): a listener of std's,
/// TCP or Unix; a [`ListenConfig`] with an address; or several of them.
///
/// Listeners of one kind are given as an array or a `Vec`; of several kinds, by
/// [`and`](Listeners::and):
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use netpoller::{ListenConfig, server::Listeners};
/// let given = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let config = ListenConfig::new().backlog(64);
/// let _listeners = Listeners::from(given).and((config, "localhost:0"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Listeners(Vec<Listen>);

#[derive(Debug)]
enum Listen {
    On(ListenConfig, Addr),
    Given(OwnedFd, Network),
}

impl Listeners {
    /// These listeners, with `more` behind them.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::{ListenConfig, server::Listeners};
    /// use std::os::unix::net::UnixListener;
    /// let path = std::env::temp_dir().join(format!("netpoller-doc-and-{}", std::process::id()));
    /// let local = UnixListener::bind(&path)?;
    /// let listeners = Listeners::from(local).and((ListenConfig::new(), "127.0.0.1:0"));
    /// # drop(listeners);
    /// # std::fs::remove_file(&path)?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn and(mut self, more: impl Into<Listeners>) -> Self {
        self.0.extend(more.into().0);
        self
    }

    /// Opens them: where the port can be shared, one socket for each of `sharing` workers. Returns the
    /// address of each listener, and all sockets.
    pub(super) fn open(self, sharing: usize) -> io::Result<(Vec<Addr>, Vec<Port>)> {
        let (mut addrs, mut ports) = (Vec::new(), Vec::new());
        for (listener, listen) in self.0.into_iter().enumerate() {
            let mut open = |socket, network, worker| {
                let addr = listener::prepare(&socket)?;
                ports.push(Port {
                    socket,
                    network,
                    at: At { listener, worker },
                });
                io::Result::Ok(addr)
            };
            addrs.push(match listen {
                Listen::Given(socket, network) => {
                    if network.is_tcp() {
                        listener::set_defaults(&socket);
                    }
                    open(socket, network, None)?
                }
                Listen::On(config, addr) if sharing == 1 => {
                    open(config.bind_std(&addr)?.into(), Network::Tcp, None)?
                }
                Listen::On(config, mut addr) => {
                    let config = config.reuse_port(true);
                    for worker in 0..sharing {
                        // From the second on, the port that the first was given.
                        let socket = config.bind_std(&addr)?.into();
                        addr = open(socket, Network::Tcp, Some(worker))?;
                    }
                    addr
                }
            });
        }
        Ok((addrs, ports))
    }
}

impl From<TcpListener> for Listeners {
    fn from(listener: TcpListener) -> Self {
        Listeners(vec![Listen::Given(listener.into(), Network::Tcp)])
    }
}

/// The listener's path stays when the server ends.
impl From<UnixListener> for Listeners {
    fn from(listener: UnixListener) -> Self {
        Listeners(vec![Listen::Given(listener.into(), Network::Unix)])
    }
}

impl<A: ToAddr> From<(ListenConfig, A)> for Listeners {
    fn from((config, addr): (ListenConfig, A)) -> Self {
        Listeners(vec![Listen::On(config, addr.to_addr())])
    }
}

impl<L: Into<Listeners>> From<Vec<L>> for Listeners {
    fn from(several: Vec<L>) -> Self {
        several.into_iter().fold(Listeners::default(), Self::and)
    }
}

impl<L: Into<Listeners>, const N: usize> From<[L; N]> for Listeners {
    fn from(several: [L; N]) -> Self {
        several.into_iter().fold(Listeners::default(), Self::and)
    }
}

/// A listening socket on its way to the thread that accepts from it.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) socket: OwnedFd,
    pub(super) network: Network,
    pub(super) at: At,
}

/// Where a connection comes to, and where it goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    /// The listener's number.
    pub(super) listener: usize,
    /// The worker that accepts from it for itself. `None`: the first accepts, for the worker that has the
    /// fewest connections.
    pub(super) worker: Option<usize>,
}

/// A peer, and the listener that it came to: see [`Server::with_peer`](crate::Server::with_peer).
///
/// ```
/// # use netpoller::{Conn, Protocol};
/// use netpoller::{Peer, Server};
///
/// /// Says which port was dialed: the second listener is for operators.
/// struct Greeter(&'static str);
/// impl Protocol for Greeter {
/// #     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> std::io::Result<usize> {
/// #         Ok(bytes.len())
/// #     }
///     fn open(&mut self, conn: &mut Conn) -> std::io::Result<()> {
///         conn.write(self.0.as_bytes())
///     }
/// }
///
/// let server = Server::with_peer(|peer: Peer| match peer.listener {
///     0 => Greeter("welcome\n"),
///     _ => Greeter("operator\n"),
/// });
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Peer {
    /// Its address. Most peers on a Unix socket have no name.
    pub addr: Addr,
    /// The listener's number, in the order of [`Server::bind_to`](crate::Server::bind_to).
    pub listener: usize,
}

/// What makes the protocol of each connection: a function from the peer's [`Addr`], or
/// [`WithPeer`]. The trait is for functions that take any server:
///
/// ```
/// use netpoller::{Bound, ServerStats, server::Factory};
///
/// fn run_to_the_end<F: Factory + Send + Sync>(bound: Bound<F>) -> std::io::Result<ServerStats> {
///     println!("listening on {:?}", bound.local_addrs());
///     bound.run()
/// }
/// ```
pub trait Factory: 'static {
    /// The protocol that it makes.
    type Protocol: Protocol;

    /// Makes the protocol of one connection.
    fn make(&self, peer: Peer) -> Self::Protocol;
}

impl<P: Protocol, F: Fn(Addr) -> P + 'static> Factory for F {
    type Protocol = P;

    fn make(&self, peer: Peer) -> P {
        self(peer.addr)
    }
}

/// A function from a [`Peer`]: the factory of [`Server::with_peer`](crate::Server::with_peer).
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # use netpoller::{Conn, Protocol};
/// use netpoller::{Bound, Peer, Server, server::WithPeer};
///
/// # struct Greeter(usize);
/// # impl Protocol for Greeter {
/// #     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> std::io::Result<usize> {
/// #         Ok(bytes.len())
/// #     }
/// # }
/// /// A type that keeps a server names its factory.
/// struct Service {
///     bound: Bound<WithPeer<fn(Peer) -> Greeter>>,
/// }
///
/// let server = Server::with_peer((|peer| Greeter(peer.listener)) as fn(Peer) -> Greeter);
/// let service = Service { bound: server.bind("127.0.0.1:0")? };
/// assert_ne!(service.bound.local_addr().port(), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct WithPeer<F>(pub(super) F);

impl<P: Protocol, F: Fn(Peer) -> P + 'static> Factory for WithPeer<F> {
    type Protocol = P;

    fn make(&self, peer: Peer) -> P {
        (self.0)(peer)
    }
}
