//! Listening and accepting.
//!
//! May touch: fd.rs, resolve.rs. Mirrors Go's `net/sock_posix.go` (`listenStream`),
//! `internal/poll/fd_unix.go` (`FD.Accept`) and `net.ListenConfig`.

use std::fmt;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use socket2::{Domain, SockRef, Socket, Type};

use super::addr::{ToAddr, unmapped};
use super::error::{Cause, OpError};
use super::fd::{Accepting, Fd, Op};
use super::options;
use super::resolve::{self, Purpose};
use super::stream::Stream;
use super::tcp::{Tcp, TcpListener, TcpStream};
use crate::endpoints::{Addr, End, Network};
use crate::reactor::Direction;
use crate::runtime::context;
use crate::sys;

/// How to listen: Go's `net.ListenConfig`.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    network: Network,
    backlog: Option<u32>,
    reuse_port: bool,
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
            network: Network::Tcp,
            backlog: None,
            reuse_port: false,
        }
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
        let resolved = resolve::resolve(self.network, target, Purpose::Listen).await;
        let addresses = resolved.map_err(|cause| self.error(name.clone(), cause))?;
        // Go listens on the first that is found, IPv4 preferred.
        let first = addresses.iter().find(|address| address.is_ipv4());
        let Some(&address) = first.or(addresses.first()) else {
            let none = io::Error::new(io::ErrorKind::NotFound, "no suitable address found");
            return Err(self.error(name, Cause::Other(none)));
        };
        let fd = self
            .listen(address)
            .map_err(|cause| self.error(Addr::Socket(address), cause))?;
        Ok(Listener {
            fd,
            kind: PhantomData,
        })
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

    fn listen(&self, address: SocketAddr) -> Result<Fd, Cause> {
        let call = |name| move |error| Cause::system(name, error);
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking().cloexec(),
            None,
        )
        .map_err(call("socket"))?;
        let set = call("setsockopt");
        socket.set_reuse_address(true).map_err(set)?;
        if self.reuse_port {
            socket.set_reuse_port(true).map_err(set)?;
        }
        // Accepted sockets inherit these, so that each costs no system call of its own.
        options::set_tcp_defaults(&SockRef::from(&socket)).map_err(set)?;
        socket.bind(&address.into()).map_err(call("bind"))?;
        let backlog = self.backlog.unwrap_or_else(options::most_backlog);
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        socket.listen(backlog).map_err(call("listen"))?;
        let open = |scheduler: &_| Fd::open(scheduler, OwnedFd::from(socket), self.network);
        let fd = context::with("listening", open).map_err(call("epoll_ctl"))?;
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
    /// Takes over a listener of std's, as it is set.
    ///
    /// # Errors
    ///
    /// The system's.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<TcpListener> {
        listener.set_nonblocking(true)?;
        let open = |scheduler: &_| Fd::open(scheduler, listener.into(), Network::Tcp);
        let fd = context::with("TcpListener::from_std", open)?;
        Ok(Listener {
            fd,
            kind: PhantomData,
        })
    }

    /// Waits for a connection, and says from where it comes.
    ///
    /// Connections that were aborted before they were accepted are passed over. After an error
    /// that is [temporary](crate::NetError::is_temporary), such as too many open files, the
    /// connection still waits: try again later.
    ///
    /// # Errors
    ///
    /// The system's; a timeout once the deadline has passed; closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses no connection.
    pub fn accept(&self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> {
        Op::new(Accepting, &self.fd, |fd| {
            let (connection, peer) = accept(&fd.socket())?;
            context::charge(0);
            let fd = fd.open_beside(connection, fd.network())?;
            let peer = peer
                .as_socket()
                .map(unmapped)
                .ok_or(io::ErrorKind::InvalidData)?;
            fd.resource().endpoints.set(End::Peer, Addr::Socket(peer));
            Ok((Stream::new(fd), peer))
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
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl<K> Listener<K> {
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
        let closed = self.fd.close();
        closed.map_err(|failure| self.fd.error("close", failure, 0))
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

/// One connection; those that the peer gave up meanwhile are passed over.
fn accept(socket: &SockRef<'_>) -> io::Result<(OwnedFd, socket2::SockAddr)> {
    loop {
        match sys::accept(socket) {
            Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => {}
            result => return result,
        }
    }
}
