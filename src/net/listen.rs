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

use super::addr::{ToAddr, unmapped};
use super::dial::{Asked, Control};
use super::error::{Cause, OpError};
use super::family;
use super::fd::{Accepting, Fd, Op};
use super::options::{self, KeepAlive};
use super::resolve::{self, Purpose, Resolution, Resolver};
use super::stream::Stream;
use super::tcp::{Tcp, TcpListener, TcpStream};
use crate::endpoints::{Addr, End, Network};
use crate::reactor::Direction;
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

impl Listener<Tcp> {
    /// Waits for a connection, and says from where it comes.
    ///
    /// Connections that were aborted before they were accepted are passed over. After an error
    /// that is [temporary](crate::NetError::is_temporary), such as too many open files, try again
    /// later: the connection waits still, unless it was taken and could not be registered.
    ///
    /// # Errors
    ///
    /// The system's; a timeout once the deadline has passed; closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses no connection.
    pub fn accept(&self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> {
        self.accept_fd(|| Some(()), |(), fd, peer| (Stream::new(fd), peer))
    }

    /// Accepts with a permit, which is asked for when a connection may be there, and not kept if
    /// there is none. `ResourceBusy`, an error of the operation, says that there was no permit.
    pub(crate) fn accept_fd<P, T>(
        &self,
        permit: impl FnMut() -> Option<P>,
        mut take: impl FnMut(P, Fd, SocketAddr) -> T,
    ) -> impl Future<Output = io::Result<T>> {
        self.accept_socket(permit, move |listener, permit, socket, peer| {
            let fd = listener.open_beside(socket, listener.network())?;
            fd.resource().set_endpoint(End::Peer, Addr::Socket(peer));
            Ok(take(permit, fd, peer))
        })
    }

    /// As [`Listener::accept_fd`], of a socket that is in no runtime yet, beside the listener's own.
    pub(crate) fn accept_socket<P, T>(
        &self,
        mut permit: impl FnMut() -> Option<P>,
        mut take: impl FnMut(&Fd, P, OwnedFd, SocketAddr) -> io::Result<T>,
    ) -> impl Future<Output = io::Result<T>> {
        Op::new(Accepting, &self.fd, move |fd| {
            let permit = permit().ok_or(io::ErrorKind::ResourceBusy)?;
            let (connection, peer) = accept(&fd.socket())?;
            context::charge(0);
            // One that was aborted has no address on macOS, and is passed over as well.
            let peer = peer.as_socket().map(unmapped);
            let peer = peer.ok_or(io::ErrorKind::Interrupted)?;
            take(fd, permit, connection, peer)
        })
    }

    /// The address that it listens on, with the real port.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self.fd.endpoint(End::Local) {
            Some(Addr::Socket(address)) => Ok(address),
            _ => Err(self.fd.no_address()),
        }
    }
}

impl<K> Listener<K> {
    pub(super) fn new(fd: Fd) -> Self {
        Listener {
            fd,
            kind: PhantomData,
        }
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

/// One connection; those that the peer gave up meanwhile are passed over, each at the price of an
/// operation: however many they are, others have their turn.
pub(super) fn accept(socket: &SockRef<'_>) -> io::Result<(OwnedFd, socket2::SockAddr)> {
    match sys::accept(socket) {
        Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => {
            Err(io::ErrorKind::Interrupted.into())
        }
        result => result,
    }
}
