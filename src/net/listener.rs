//! Listening and accepting.
//!
//! May touch: fd/, resolve.rs. Mirrors Go's `net/sock_posix.go` (`listenStream`),
//! `internal/poll/fd_unix.go` (`FD.Accept`) and `net.ListenConfig`.

use std::fmt;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use socket2::{Domain, SockRef, Type};

use super::accept_loop::{Accepted, Outcome, Permit};
use super::addr::{self, ToAddr, unmapped};
use super::dial::{Asked, Control};
use super::error::{Cause, OpError};
use super::family;
use super::fd::{Accepting, Failure, Fd, Op};
use super::options::{self, KeepAlive};
use super::resolve::{self, Purpose, Resolution, Resolver};
use super::stream::Stream;
use super::tcp::{Tcp, TcpListener};
use super::unix::{self, Unix};
use crate::endpoints::{Addr, End, Network};
use crate::reactor::{Direction, Refusal};
use crate::runtime::context;
use crate::sys;

/// How to listen: Go's `net.ListenConfig`.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    network: Asked,
    backlog: Option<u32>,
    reuse_port: bool,
    only_v6: Option<bool>,
    control: Option<Control>,
    resolver: Option<Resolver>,
}

impl Default for ListenConfig {
    fn default() -> Self {
        ListenConfig::new()
    }
}

impl ListenConfig {
    /// Go's defaults: SO_REUSEADDR, the system's own limit as the backlog, and for an empty host
    /// every address of both families.
    #[must_use]
    pub fn new() -> Self {
        ListenConfig {
            network: Asked::Known(Network::Tcp),
            backlog: None,
            reuse_port: false,
            only_v6: None,
            control: None,
            resolver: None,
        }
    }

    /// `tcp`, or `tcp4` or `tcp6` for one family alone. Any other is an error of
    /// [`bind`](ListenConfig::bind).
    #[must_use]
    pub fn network(mut self, network: &str) -> Self {
        self.network = Asked::tcp(network);
        self
    }

    /// How many connections the system keeps for us to accept; its own maximum by default.
    #[must_use]
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.backlog = Some(backlog);
        self
    }

    /// Lets several listeners share the port, each with its own queue (SO_REUSEPORT). On Linux the
    /// system spreads connections over them.
    #[must_use]
    pub fn reuse_port(mut self, reuse: bool) -> Self {
        self.reuse_port = reuse;
        self
    }

    /// Whether an IPv6 socket leaves IPv4 alone (IPV6_V6ONLY). By default it does on `tcp6`, and on
    /// `tcp` it does not: there every address is those of both families, where the system can.
    #[must_use]
    pub fn only_v6(mut self, only: bool) -> Self {
        self.only_v6 = Some(only);
        self
    }

    /// A hook that is given the socket before it is bound, with the address that it is to be bound
    /// to: to set options. Its error fails the bind.
    #[must_use]
    pub fn control(
        mut self,
        hook: impl Fn(BorrowedFd<'_>, SocketAddr) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.control = Some(Control::new(hook));
        self
    }

    /// Looks names up in place of the system: see
    /// [`Dialer::resolver`](crate::Dialer::resolver).
    #[must_use]
    pub fn resolver(
        mut self,
        look_up: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        self.resolver = Some(Resolver::new(look_up));
        self
    }

    /// Listens on `addr`; port 0 takes a free one, which [`Listener::local_addr`] tells.
    ///
    /// # Errors
    ///
    /// An [`OpError`] with `listen` as its operation.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub async fn bind(&self, addr: impl ToAddr) -> io::Result<TcpListener> {
        let target = addr.to_addr();
        let name = Addr::from(target.clone());
        let network = match self.network.network() {
            Ok(network) => network,
            Err(cause) => return Err(self.error(name, cause)),
        };
        let resolution = Resolution {
            network: self.only_network(network),
            purpose: Purpose::Listen,
            resolver: self.resolver.as_ref(),
            scope: None,
        };
        let resolved = resolution.addresses(target.clone()).await;
        let addresses = resolved.map_err(|cause| self.error(name, cause))?;
        // Go listens on the first that is found, IPv4 preferred.
        let first = addresses.iter().find(|address| address.is_ipv4());
        let address = *first.unwrap_or(&addresses[0]);
        let fd = self.listen(network, address).map_err(|cause| {
            let asked = resolve::asked_for(&target, address);
            self.error(asked, cause)
        })?;
        Ok(Listener {
            fd,
            kind: PhantomData,
        })
    }

    /// Who wants IPv6 alone has no use for other addresses.
    fn only_network(&self, network: Network) -> Network {
        match (network, self.only_v6) {
            (Network::Tcp, Some(true)) => Network::Tcp6,
            _ => network,
        }
    }

    fn error(&self, addr: Addr, cause: Cause) -> io::Error {
        OpError {
            op: "listen",
            net: self.network.name(),
            source: None,
            addr: Some(addr),
            written: 0,
            cause,
        }
        .into()
    }

    fn listen(&self, network: Network, address: SocketAddr) -> Result<Fd, Cause> {
        let (address, only_v6) = family::to_bind(network, address, self.only_v6);
        let call = |name| move |error| Cause::system(name, error);
        let socket = sys::socket(Domain::for_address(address), Type::STREAM);
        let socket = socket.map_err(call("socket"))?;
        let set = call("setsockopt");
        if let Some(only) = only_v6 {
            socket.set_only_v6(only).map_err(set)?;
        }
        socket.set_reuse_address(true).map_err(set)?;
        if self.reuse_port {
            socket.set_reuse_port(true).map_err(set)?;
        }
        // Accepted sockets inherit these, so that each costs no system call of its own.
        options::set_on_all(&SockRef::from(&socket), Some(KeepAlive::default()));
        if let Some(control) = &self.control {
            control.call(socket.as_fd(), address)?;
        }
        socket.bind(&address.into()).map_err(call("bind"))?;
        let backlog = self.backlog.unwrap_or_else(options::most_backlog);
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        socket.listen(backlog).map_err(call("listen"))?;
        // A hook may have set one, and what is accepted inherits it.
        let lingers = self.control.is_some() && !matches!(socket.linger(), Ok(None));
        let open = |scheduler: &_| Fd::open(scheduler, OwnedFd::from(socket), network);
        let fd = context::with("listening", open).map_err(call("epoll_ctl"))?;
        if self.control.is_some() {
            fd.resource().handle.note_duplicate();
        }
        if lingers {
            fd.resource().handle.note_linger();
        }
        fd.endpoint(End::Local);
        Ok(fd)
    }
}

/// A listening socket: [`TcpListener`] or [`UnixListener`](crate::UnixListener).
///
/// A cheap handle: clones are the same listener, several tasks may accept on it, and closing one
/// closes all.
pub struct Listener<K> {
    pub(super) fd: Fd,
    pub(super) kind: PhantomData<K>,
}

impl<K> Clone for Listener<K> {
    fn clone(&self) -> Self {
        Listener {
            fd: self.fd.clone(),
            kind: PhantomData,
        }
    }
}

/// What listeners of a kind accept: see [`Listener::accept`].
pub trait ListenerKind: sealed::Sealed + 'static {
    /// The address of a peer, and of the listener.
    type Addr: fmt::Debug + 'static;

    #[doc(hidden)]
    fn addr(addr: &Addr) -> Option<Self::Addr>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Tcp {}
    impl Sealed for super::Unix {}
}

impl ListenerKind for Tcp {
    type Addr = SocketAddr;

    fn addr(addr: &Addr) -> Option<SocketAddr> {
        match addr {
            Addr::Socket(address) => Some(*address),
            _ => None,
        }
    }
}

impl ListenerKind for Unix {
    type Addr = std::os::unix::net::SocketAddr;

    fn addr(addr: &Addr) -> Option<Self::Addr> {
        match addr {
            Addr::Path(path) => unix::std_name(path).ok(),
            _ => None,
        }
    }
}

impl<K: ListenerKind> Listener<K> {
    /// Waits for a connection, and says from where it comes: most Unix sockets have no name.
    ///
    /// Connections that were aborted before they were accepted are passed over. After an error
    /// that is [temporary](crate::NetError::is_temporary), such as too many open files, try again
    /// later: the connection still waits, unless it was taken and could not be registered.
    ///
    /// # Errors
    ///
    /// The system's; a timeout once the deadline has passed; closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses no connection.
    pub async fn accept(&self) -> io::Result<(Stream<K>, K::Addr)> {
        loop {
            let outcome = self.accept_with(|| Some(Permit::UNLIMITED)).await?;
            if let Outcome::Connection(accepted) = outcome {
                return self.take(accepted.socket, accepted.peer);
            }
        }
    }

    /// An accepted connection as a stream, with its peer.
    pub(super) fn take(&self, socket: OwnedFd, peer: Addr) -> io::Result<(Stream<K>, K::Addr)> {
        let address = K::addr(&peer).ok_or(io::ErrorKind::InvalidData)?;
        let fd = self.fd.open_accepted(socket, peer)?;
        Ok((Stream::new(fd), address))
    }

    /// The address that it listens on, with the real port.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn local_addr(&self) -> io::Result<K::Addr> {
        let addr = self.fd.endpoint(End::Local);
        addr.and_then(|addr| K::addr(&addr))
            .ok_or_else(|| self.fd.no_address())
    }
}

impl<K> Listener<K> {
    pub(super) fn new(fd: Fd) -> Self {
        Listener {
            fd,
            kind: PhantomData,
        }
    }

    /// Waits until an accept comes to something. `permit` is asked for when a connection may be
    /// there, and not kept if there is none.
    pub(super) fn accept_with(
        &self,
        mut permit: impl FnMut() -> Option<Permit>,
    ) -> impl Future<Output = io::Result<Outcome>> {
        Op::new(Accepting, &self.fd, move |fd| accept(fd, &mut permit))
    }

    /// One accept, without waiting: `WouldBlock` where no connection is queued.
    pub(super) fn accept_now(&self, permit: impl FnMut() -> Option<Permit>) -> io::Result<Outcome> {
        if self.fd.is_closed() {
            let closed = Failure::Refused(Refusal::Closed);
            return Err(self.fd.error("accept", closed, 0));
        }
        accept(&self.fd, permit).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => error,
            _ => self.fd.error("accept", Failure::System(error), 0),
        })
    }

    /// When accepting fails with a timeout; `None` for never. See
    /// [`Stream::set_read_deadline`].
    ///
    /// # Errors
    ///
    /// Closed.
    pub fn set_deadline(&self, when: Option<Instant>) -> io::Result<()> {
        self.fd.set_deadline(Direction::Read, when)
    }

    /// Closes the listener, for every handle, and frees the port before it returns. Whoever is
    /// accepting fails with "use of closed network connection".
    ///
    /// # Errors
    ///
    /// Closed already.
    pub fn close(&self) -> io::Result<()> {
        self.fd.close().map_err(|_closed_already| {
            // A listener has one end, and Go names that as the address.
            let error = OpError {
                op: "close",
                net: self.fd.network().name(),
                source: None,
                addr: self.fd.endpoint(End::Local),
                written: 0,
                cause: Cause::Closed,
            };
            error.into()
        })
    }
}

impl<K> fmt::Debug for Listener<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Listener");
        debug.field("network", &self.fd.network().name());
        if let Some(address) = self.fd.endpoint(End::Local) {
            debug.field("local", &format_args!("{address}"));
        }
        debug.field("closed", &self.fd.is_closed()).finish()
    }
}

/// One system call. A peer that gave up costs an operation too, so that however many do, other
/// machines run in between.
fn accept(fd: &Fd, permit: impl FnOnce() -> Option<Permit>) -> io::Result<Outcome> {
    let Some(permit) = permit() else {
        return Ok(Outcome::NoPermit);
    };
    let (socket, peer) = match sys::accept(&fd.socket()) {
        Ok(accepted) => accepted,
        Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => {
            context::charge(0);
            return Ok(Outcome::Aborted);
        }
        Err(error) => return Err(error),
    };
    context::charge(0);
    let peer = match fd.network() {
        Network::Unix => Some(Addr::Path(addr::unix_name(&peer))),
        _ => peer.as_socket().map(|peer| Addr::Socket(unmapped(peer))),
    };
    // On macOS an aborted connection comes without an address.
    Ok(peer.map_or(Outcome::Aborted, |peer| {
        Outcome::Connection(Accepted {
            socket,
            peer,
            permit,
        })
    }))
}
