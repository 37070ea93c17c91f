//! Listening and accepting.
// Mirrors Go's `net/sock_posix.go` (`listenStream`), `internal/poll/fd_unix.go` (`FD.Accept`) and
// `net.ListenConfig`.

use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use socket2::{SockRef, Socket};

use super::addr::{self, Kind, Tcp, ToAddr};
use super::error::{Cause, amended};
use super::fd::{Fd, Name, RuntimeCore};
use super::options::{self, KeepAlive};
use super::resolve::{Control, Hook, LISTEN, Resolution, common_settings};
use super::stream::Stream;
use crate::cancel::CancelToken;
use crate::endpoints::{Addr, End, Network};
use crate::reactor::Direction;
use crate::runtime::context;
use crate::sys;

/// How to listen on TCP: Go's `net.ListenConfig`.
///
/// An IPv4 address written as IPv6 (`::ffff:127.0.0.1`) is taken for IPv4.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use netpoller::{ListenConfig, TcpStream};
/// netpoller::Runtime::new()?.block_on(async {
///     // Two listeners with one port; the system spreads connections over their queues.
///     let config = ListenConfig::new().reuse_port(true).backlog(64);
///     let one = config.bind("127.0.0.1:0").await?;
///     let other = config.bind(one.local_addr()?).await?;
///     assert_eq!(one.local_addr()?, other.local_addr()?);
///     TcpStream::connect(one.local_addr()?).await?;
///     Ok(())
/// })
/// # }
/// ```
#[must_use]
#[derive(Clone, Debug)]
pub struct ListenConfig {
    resolution: Resolution,
    backlog: Option<u32>,
    reuse_port: bool,
    control: Option<Control>,
}

common_settings!(ListenConfig);

impl ListenConfig {
    /// Go's defaults: SO_REUSEADDR, the system's own limit as the backlog, and for an empty host
    /// every address of both families.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::ListenConfig;
    /// let listener = ListenConfig::new().bind("127.0.0.1:0").await?; // as `TcpListener::bind`
    /// assert_ne!(listener.local_addr()?.port(), 0);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub fn new() -> Self {
        ListenConfig {
            resolution: Resolution::new(LISTEN, Network::Tcp),
            backlog: None,
            reuse_port: false,
            control: None,
        }
    }

    /// How many connections wait in the system's queue at most. The default is the system's limit
    /// (`somaxconn`, on Linux 4,096 since 5.4); a larger number has no effect.
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.backlog = Some(backlog);
        self
    }

    /// Lets several listeners share the port, each with its own queue (SO_REUSEPORT, on FreeBSD
    /// SO_REUSEPORT_LB). On Linux and FreeBSD the system spreads connections over them; elsewhere
    /// one of them gets all.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::ListenConfig;
    /// let config = ListenConfig::new().reuse_port(true);
    /// let one = config.bind("127.0.0.1:0").await?;
    /// let other = config.bind(one.local_addr()?).await?; // for another thread
    /// assert_eq!(one.local_addr()?, other.local_addr()?);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub fn reuse_port(mut self, reuse: bool) -> Self {
        self.reuse_port = reuse;
        self
    }

    /// Whether an IPv6 socket takes IPv6 connections alone (IPV6_V6ONLY). By default it does so on
    /// `tcp6` and not on `tcp`, where "every address" means both families, if the system can.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::ListenConfig;
    /// // A machine may have no IPv6.
    /// if let Ok(listener) = ListenConfig::new().only_v6(true).bind("[::1]:0").await {
    ///     assert!(listener.local_addr()?.is_ipv6());
    /// }
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub fn only_v6(mut self, only: bool) -> Self {
        self.resolution.only_v6 = Some(only);
        self
    }

    /// Listens on `addr`; port 0 takes a free one, which [`Listener::local_addr`] tells.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{ListenConfig, NetError};
    /// let config = ListenConfig::new().backlog(64);
    /// let listener = config.bind("localhost:0").await?;
    /// let error = config.bind(listener.local_addr()?).await.unwrap_err();
    /// assert!(error.to_string().ends_with("bind: address already in use"));
    /// assert_eq!(error.op_error().unwrap().op, "listen");
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// An [`OpError`](crate::OpError) with `listen` as its operation.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub async fn bind(&self, addr: impl ToAddr) -> io::Result<Listener<Tcp>> {
        let target = addr.to_addr();
        let resolution = &self.resolution;
        let found = resolution.addresses(&target, &CancelToken::new()).await?;
        let listen = |socket, address| self.listen(socket, address);
        let socket = resolution.bind_first(&target, &found, listen)?;
        let fd = Fd::adopt("listening", socket, resolution.network);
        let listener = fd.map(Listener::of).map_err(Cause::by("epoll_ctl"));
        listener.map_err(|cause| resolution.error(Some(target), cause).into())
    }

    /// As [`bind`](ListenConfig::bind), without a runtime: a name is looked up on this thread,
    /// which blocks meanwhile. [`Listener::from_std`] takes the listener into a runtime.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::{ListenConfig, Runtime, TcpListener};
    /// let listener = ListenConfig::new().bind_std("127.0.0.1:0")?;
    /// println!("listening on {}", listener.local_addr()?);
    /// Runtime::new()?.block_on(async {
    ///     let listener = TcpListener::from_std(listener)?;
    ///     listener.close()
    /// })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`bind`](ListenConfig::bind).
    pub fn bind_std(&self, addr: impl ToAddr) -> io::Result<std::net::TcpListener> {
        let target = addr.to_addr();
        let found = self.resolution.look_up(&target)?;
        let listen = |socket, address| self.listen(socket, address);
        let listening = self.resolution.bind_first(&target, &found, listen);
        listening.map(Into::into)
    }

    fn listen(&self, socket: Socket, address: SocketAddr) -> Result<Socket, Cause> {
        let set = Cause::by("setsockopt");
        socket.set_reuse_address(true).map_err(&set)?;
        if self.reuse_port {
            sys::share_port(socket.as_fd()).map_err(&set)?;
        }
        // Accepted sockets inherit these, so that each costs no system call of its own.
        options::set_on_all(&SockRef::from(&socket), Some(KeepAlive::default()));
        if let Some(Hook(control)) = &self.control {
            control(socket.as_fd(), address).map_err(Cause::Other)?;
        }
        socket.bind(&address.into()).map_err(Cause::by("bind"))?;
        // The system takes its own limit for any larger number.
        let backlog = self.backlog.and_then(|backlog| i32::try_from(backlog).ok());
        let listens = socket.listen(backlog.unwrap_or(i32::MAX));
        listens.map_err(Cause::by("listen"))?;
        Ok(socket)
    }
}

/// A listening socket: [`TcpListener`](crate::TcpListener) or [`UnixListener`](crate::UnixListener).
///
/// A cheap handle: clones are the same listener, several tasks may accept on it, and closing one
/// closes all. It belongs to the runtime's thread and is not `Send`.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// use netpoller::{NetError, TcpListener, TcpStream};
/// let listener = TcpListener::bind("localhost:0").await?;
/// let client = TcpStream::connect(listener.local_addr()?).await?;
/// let (_server, peer) = listener.accept().await?;
/// assert_eq!(peer, client.local_addr()?);
/// listener.close()?;
/// assert!(listener.accept().await.unwrap_err().is_closed());
/// # Ok(())
/// # })
/// # }
/// ```
pub struct Listener<K> {
    pub(super) fd: Fd,
    pub(super) kind: PhantomData<K>,
}

/// A TCP listener: see [`Listener`].
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// use netpoller::{TcpListener, TcpStream};
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let client = TcpStream::connect(listener.local_addr()?).await?;
/// let (server, _peer) = listener.accept().await?;
/// server.write_all(b"welcome").await?;
/// assert_eq!(client.read_with(|bytes| bytes.to_vec()).await?, b"welcome");
/// # Ok(())
/// # })
/// # }
/// ```
pub type TcpListener = Listener<Tcp>;

impl Listener<Tcp> {
    /// Listens on `addr`, as [`ListenConfig::bind`] does with its defaults.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let listener = netpoller::TcpListener::bind("localhost:0").await?;
    /// println!("listening on {}", listener.local_addr()?);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`ListenConfig::bind`].
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    #[doc(alias = "Listen")]
    pub async fn bind(addr: impl ToAddr) -> io::Result<TcpListener> {
        ListenConfig::new().bind(addr).await
    }
}

impl<K: Kind> Listener<K> {
    /// Waits for a connection, and says from where it comes: most Unix sockets have no name.
    ///
    /// Connections that were aborted before they were accepted are passed over. After an error
    /// that is [temporary](crate::NetError::is_temporary), such as too many open files, try again
    /// later: the connection still waits, unless it was taken and could not be registered.
    ///
    /// ```
    /// # async fn serve(listener: netpoller::TcpListener) -> std::io::Result<()> {
    /// loop {
    ///     let (stream, peer) = listener.accept().await?;
    ///     netpoller::spawn(async move {
    ///         if let Err(error) = stream.write_all(b"hello\n").await {
    ///             eprintln!("{peer}: {error}");
    ///         }
    ///     });
    /// }
    /// # }
    /// ```
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
            let accepting = self.fd.op(Direction::Read, accept_once).named(Name::Accept);
            if let Some(accepted) = accepting.await? {
                return self.open(accepted).map_err(|error| failed(&self.fd, error));
            }
        }
    }

    /// Accepts a connection that waits in the system's queue, without waiting for one, nor for the accepts
    /// that wait. As [`accept`](Listener::accept), passes over what was aborted.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{TcpListener, TcpStream};
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let client = TcpStream::connect(listener.local_addr()?).await?;
    ///
    /// // What waits is served, and not reset by the close.
    /// while let Ok((stream, _peer)) = listener.try_accept() {
    ///     stream.write_all(b"goodbye\n").await?;
    /// }
    /// listener.close()?;
    /// assert_eq!(client.read_with(|bytes| bytes.to_vec()).await?, b"goodbye\n");
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if none waits; else as [`accept`](Listener::accept).
    pub fn try_accept(&self) -> io::Result<(Stream<K>, K::Addr)> {
        loop {
            if let Some(accepted) = accept_now(&self.fd)? {
                return self.open(accepted).map_err(|error| failed(&self.fd, error));
            }
        }
    }

    /// An accepted connection as a stream, in the listener's runtime.
    pub(super) fn open(&self, accepted: Accepted) -> io::Result<(Stream<K>, K::Addr)> {
        let peer = K::addr(&accepted.peer).ok_or(io::ErrorKind::InvalidData)?;
        Ok((Stream::of(accepted.open(&self.fd.desc.core)?), peer))
    }

    /// The address that it listens on, with the real port.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let listener = netpoller::TcpListener::bind("127.0.0.1:0").await?;
    /// assert_ne!(listener.local_addr()?.port(), 0);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn local_addr(&self) -> io::Result<K::Addr> {
        self.fd.addr::<K>(End::Local)
    }
}

impl<K> Listener<K> {
    /// When accepting fails with a timeout; `None` for never. See
    /// [`Stream::set_read_deadline`].
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{NetError, TcpListener, time};
    /// use std::time::Duration;
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// listener.set_deadline(Some(time::now() + Duration::from_millis(10)))?;
    /// assert!(listener.accept().await.unwrap_err().is_timeout());
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Closed.
    pub fn set_deadline(&self, when: Option<Instant>) -> io::Result<()> {
        // Both: while an accept loop waits for a permit, it waits in the other direction (`ended`).
        self.fd.set_deadline(Direction::Write, when)?;
        self.fd.set_deadline(Direction::Read, when)
    }

    /// Closes the listener, for every handle, and frees the port before it returns. A parked accept
    /// fails with "use of closed network connection".
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{NetError, TcpListener, spawn, yield_now};
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let same = listener.clone();
    /// let accepting = spawn(async move { same.accept().await });
    /// yield_now().await;
    /// listener.close()?;
    /// assert!(accepting.await.unwrap().unwrap_err().is_closed());
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Closed already.
    pub fn close(&self) -> io::Result<()> {
        let closed = self.fd.close();
        // A listener has one end, and Go names that as the address.
        closed.map_err(|error| amended(error, |failed| failed.addr = failed.source.take()))
    }
}

/// A connection that was accepted, in no runtime yet: it may go to another thread.
pub(crate) struct Accepted {
    pub(crate) socket: OwnedFd,
    pub(crate) network: Network,
    pub(crate) peer: Addr,
}

impl Accepted {
    /// Takes the connection into the runtime of `core`.
    pub(crate) fn open(self, core: &RuntimeCore) -> io::Result<Fd> {
        debug_assert!(self.peer.socket().is_some() == self.network.is_tcp());
        let fd = Fd::register(core, self.socket, self.network)?;
        fd.socket().set_endpoint(End::Peer, self.peer);
        Ok(fd)
    }
}

/// Sets, on a listener made elsewhere, what Go sets on each TCP connection: what is accepted inherits it. A
/// listener's own keep-alive stays.
pub(crate) fn set_defaults(listener: &impl AsFd) {
    let socket = SockRef::from(listener);
    match socket.keepalive() {
        Ok(true) => drop(socket.set_tcp_nodelay(true)),
        _ => options::set_on_all(&socket, Some(KeepAlive::default())),
    }
}

/// Prepares a server's listening socket, and returns its address.
pub(crate) fn prepare(socket: &OwnedFd) -> io::Result<Addr> {
    let socket = SockRef::from(socket);
    socket.set_nonblocking(true)?;
    Ok(addr::from_system(&socket.local_addr()?))
}

/// One accept, without waiting: `WouldBlock` if no connection is queued, `None` if the peer gave up.
pub(super) fn accept_now(listener: &Fd) -> io::Result<Option<Accepted>> {
    let accepted = listener.try_once(Direction::Read, accept_once);
    accepted.map_err(|failure| listener.error("accept", failure))
}

/// The error of a connection that was accepted and could not be taken in.
pub(super) fn failed(listener: &Fd, error: io::Error) -> io::Error {
    listener.op_error("accept", Cause::by("epoll_ctl")(error))
}

/// One system call. A peer that gave up before it was accepted is charged as an operation too, so that
/// other machines run in between, however many give up.
fn accept_once(fd: &Fd) -> io::Result<Option<Accepted>> {
    let accepted = match sys::accept(&fd.sock_ref()) {
        Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => None,
        accepted => Some(accepted?),
    };
    context::charge(0);
    let network = fd.network();
    let accepted = accepted.map(|(socket, peer)| Accepted {
        socket: socket.into(),
        network,
        peer: addr::from_system(&peer),
    });
    // On macOS an aborted connection comes without an address.
    Ok(accepted.filter(|accepted| accepted.peer.socket().is_some() == network.is_tcp()))
}
