//! Datagram sockets: whole messages, each with its sender or receiver. What those of UDP and of Unix
//! share, and then what UDP has; the rest of Unix is in `unix.rs`.

// Mirrors Go's `net/udpsock.go`, `net/udpsock_posix.go`, what `net.UnixConn` has of it
// (`net/unixsock.go`), and `FD.ReadFrom`, `FD.WriteTo` (`internal/poll/fd_unix.go`).

use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::net::{SocketAddr, SocketAddrV6};

use socket2::{Domain, SockAddr, Socket};

use super::addr::{self, Kind, ToAddr, Udp, unmapped};
use super::error::{Cause, amended};
use super::fd::Fd;
use super::resolve::{self, LISTEN, Resolution};
use crate::cancel::CancelToken;
use crate::endpoints::{Addr, End, Network};
use crate::reactor::Direction::{Read, Write};
use crate::runtime::context;

/// A datagram socket: [`UdpSocket`](crate::UdpSocket) or [`UnixDatagram`](crate::UnixDatagram).
///
/// A cheap handle: clones are the same socket, and closing one closes all. Receives queue up behind
/// each other, first come first served, and so do sends. It closes by itself when the last handle
/// is dropped. It is not `Send`: see [`Stream`](crate::net::Stream).
///
/// A message longer than the buffer is cut, and the rest of it is lost. An empty message is a
/// message: zero bytes received is not an end.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// let (ours, theirs) = netpoller::UnixDatagram::pair()?;
/// theirs.send(b"first").await?;
/// theirs.send(b"").await?;
/// let mut buffer = [0; 3];
/// assert_eq!(ours.recv(&mut buffer).await?, 3); // "st" is lost
/// assert_eq!(ours.recv(&mut buffer).await?, 0); // the empty message
/// # Ok(())
/// # })
/// # }
/// ```
///
/// # Cancel safety
///
/// An operation that is dropped leaves nothing behind, and loses no message.
pub struct Datagram<K> {
    pub(super) fd: Fd,
    pub(super) kind: PhantomData<K>,
}

impl<K: Kind> Datagram<K> {
    /// Receives a message, and says from where it comes. A sender of Unix may have no name.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::UdpSocket;
    /// let ours = UdpSocket::bind("127.0.0.1:0").await?;
    /// let theirs = UdpSocket::bind("127.0.0.1:0").await?;
    /// theirs.send_to(b"ping", ours.local_addr()?).await?;
    /// let mut buffer = [0; 1500];
    /// let (length, from) = ours.recv_from(&mut buffer).await?;
    /// assert_eq!(&buffer[..length], b"ping");
    /// ours.send_to(b"pong", from).await?;
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`recv`](Datagram::recv).
    pub async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, K::Addr)> {
        let received = self.fd.op(Read, |fd| fd.receive_from(buffer)).await;
        let (got, from) = received.map_err(|error| renamed(error, "recvfrom", None))?;
        let from = K::addr(&addr::from_system(&from));
        Ok((got, from.ok_or(io::ErrorKind::InvalidData)?))
    }
}

impl<K> Datagram<K> {
    // ---- receiving ----

    /// Receives a message; on a connected socket, one of its peer's.
    ///
    /// With an empty buffer it takes no message and returns at once, as in Go; `recv_from` takes
    /// one, and says from where it came.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let (ours, theirs) = netpoller::UnixDatagram::pair()?;
    /// theirs.send(b"a message").await?;
    /// let mut buffer = [0; 1500];
    /// let length = ours.recv(&mut buffer).await?;
    /// assert_eq!(&buffer[..length], b"a message");
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The system's; a timeout once the read deadline has passed; closed. A connected UDP socket
    /// whose peer's port is closed says `connection refused`, once, and lives on.
    pub fn recv(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> {
        self.fd
            .op_on(Read, buffer.is_empty(), move |fd| fd.read(buffer))
    }

    /// Receives what is there without waiting.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let (ours, theirs) = netpoller::UnixDatagram::pair()?;
    /// let error = ours.try_recv(&mut [0; 8]).unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    /// theirs.try_send(b"a message")?;
    /// ours.readable().await?;
    /// assert_eq!(ours.try_recv(&mut [0; 1500])?, 9);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if nothing is; else as [`recv`](Datagram::recv).
    pub fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fd.try_now(Read, |fd| fd.read(buffer))
    }

    /// Receives a message without taking it out: the next receive gets it again. With an empty
    /// buffer it returns at once.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let (ours, theirs) = netpoller::UnixDatagram::pair()?;
    /// theirs.send(b"a message").await?;
    /// let mut kind = [0; 1];
    /// ours.peek(&mut kind).await?;
    /// assert_eq!(&kind, b"a");
    /// assert_eq!(ours.recv(&mut [0; 1500]).await?, 9); // all of it, again
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`recv`](Datagram::recv).
    pub fn peek(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> {
        self.fd
            .op_on(Read, buffer.is_empty(), move |fd| fd.peek(buffer))
    }

    // ---- sending ----

    /// Sends a message to the peer; waits while the system has no room for it. All of it goes, or
    /// nothing.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::UdpSocket;
    /// let server = UdpSocket::bind("127.0.0.1:0").await?;
    /// let client = UdpSocket::bind("127.0.0.1:0").await?;
    /// client.connect(server.local_addr()?).await?;
    /// assert_eq!(client.send(b"ping").await?, 4);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The system's, if the socket is not connected or the message too long; a timeout once the
    /// write deadline has passed; closed.
    pub fn send(&self, message: &[u8]) -> impl Future<Output = io::Result<usize>> {
        self.fd.op(Write, move |fd| fd.send_message(message))
    }

    /// Sends a message to the peer without waiting.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let (ours, theirs) = netpoller::UnixDatagram::pair()?;
    /// assert_eq!(ours.try_send(b"ping")?, 4);
    /// assert_eq!(theirs.recv(&mut [0; 8]).await?, 4);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if there is no room; else as [`send`](Datagram::send).
    pub fn try_send(&self, message: &[u8]) -> io::Result<usize> {
        self.fd.try_now(Write, |fd| fd.send_message(message))
    }

    /// Sends to an address in the system's form. A connected socket refuses that, as in Go, before the
    /// system is asked.
    pub(super) async fn send_to_system(
        &self,
        message: &[u8],
        to: &SockAddr,
        name: Addr,
    ) -> io::Result<usize> {
        let sent = if self.fd.socket().endpoint(End::Peer).is_none() {
            self.fd.op(Write, |fd| fd.send_to(message, to)).await
        } else {
            context::yield_once().await;
            let text = "use of send_to with a connected socket";
            let error = io::Error::new(io::ErrorKind::InvalidInput, text);
            Err(self.fd.op_error("write", Cause::Other(error)))
        };
        sent.map_err(|error| renamed(error, "sendto", Some(name)))
    }
}

/// Names the system call, and the address that was sent to.
#[cold]
fn renamed(error: io::Error, call: &'static str, to: Option<Addr>) -> io::Error {
    amended(error, |failed| {
        if let Cause::System { call: called, .. } = &mut failed.cause {
            *called = call;
        }
        failed.addr = to.or(failed.addr.take());
    })
}

// ---- UDP ----

/// A UDP socket: see [`Datagram`] for the rest of what it can do.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// use netpoller::UdpSocket;
/// let server = UdpSocket::bind("127.0.0.1:0").await?;
/// let client = UdpSocket::bind("127.0.0.1:0").await?;
/// client.send_to(b"ping", server.local_addr()?).await?;
///
/// let mut buffer = [0; 1500];
/// let (length, from) = server.recv_from(&mut buffer).await?;
/// assert_eq!(&buffer[..length], b"ping");
/// server.send_to(b"pong", from).await?;
/// # let (length, _) = client.recv_from(&mut buffer).await?;
/// # assert_eq!(&buffer[..length], b"pong");
/// # Ok(())
/// # })
/// # }
/// ```
pub type UdpSocket = Datagram<Udp>;

impl Datagram<Udp> {
    /// Binds a socket to `addr`; port 0 takes a free one, which
    /// [`local_addr`](Datagram::local_addr) tells. An empty host, `0.0.0.0` and `[::]` are every
    /// address of both families, as in Go.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::UdpSocket;
    /// let (ours, theirs) = (UdpSocket::bind("127.0.0.1:0").await?, UdpSocket::bind("127.0.0.1:0").await?);
    /// ours.send_to(b"hello", theirs.local_addr()?).await?;
    /// let mut buffer = [0; 1500];
    /// let (length, from) = theirs.recv_from(&mut buffer).await?;
    /// assert_eq!((&buffer[..length], from), (&b"hello"[..], ours.local_addr()?));
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
    pub async fn bind(addr: impl ToAddr) -> io::Result<UdpSocket> {
        let target = addr.to_addr();
        let resolution = Resolution::new(LISTEN, Network::Udp);
        let found = resolution.addresses(&target, &CancelToken::new()).await?;
        let bound = resolution.bind_first(&target, &found, bind);
        bound.map(Datagram::of)
    }

    /// Connects: from now on the socket sends to `addr`, and receives from there only. Connecting
    /// again changes the peer.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::UdpSocket;
    /// let server = UdpSocket::bind("127.0.0.1:0").await?;
    /// let client = UdpSocket::bind("127.0.0.1:0").await?;
    /// client.connect(server.local_addr()?).await?;
    /// client.send(b"ping").await?;
    /// assert_eq!(server.recv_from(&mut [0; 8]).await?, (4, client.local_addr()?));
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// An [`OpError`](crate::OpError) with `dial` as its operation.
    pub async fn connect(&self, addr: impl ToAddr) -> io::Result<()> {
        let resolution = Resolution::new("dial", Network::Udp);
        let (target, scope) = (addr.to_addr(), CancelToken::new());
        let mut connected = Ok(());
        for address in resolution.addresses(&target, &scope).await? {
            let address = resolve::to_dial(address);
            let tried = self.fd.with_socket(|socket| {
                // Asks the system: the noted address is IPv4 if the socket was connected over IPv4
                // before.
                let family = socket.local_addr()?.domain();
                socket.connect(&system_addr(address, family))
            });
            connected = tried.map_err(|failure| {
                let cause = failure.cause("connect");
                resolution.error(Some(address.into()), cause).into()
            });
            if connected.is_ok() {
                self.fd.learn_new_endpoints(address.into());
                break;
            }
        }
        connected
    }

    /// Sends a message to `addr`; waits while the system has no room for it. All of it goes, or
    /// nothing.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::UdpSocket;
    /// let server = UdpSocket::bind("127.0.0.1:0").await?;
    /// let client = UdpSocket::bind("127.0.0.1:0").await?;
    /// let port = server.local_addr()?.port();
    /// assert_eq!(client.send_to(b"ping", ("127.0.0.1", port)).await?, 4);
    /// assert_eq!(server.recv(&mut [0; 8]).await?, 4);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`send`](Datagram::send); of the address, if it does not resolve; if the socket is
    /// connected.
    pub async fn send_to(&self, message: &[u8], addr: impl ToAddr) -> io::Result<usize> {
        let family = self.family();
        let address = match addr.to_addr() {
            Addr::Socket(address) => unmapped(address),
            target => {
                let resolution = Resolution::new("write", Network::Udp);
                let found = resolution.addresses(&target, &CancelToken::new()).await?;
                // The first of the socket's own family.
                let fits = |address: &&SocketAddr| family == Domain::IPV6 || address.is_ipv4();
                *found.iter().find(fits).unwrap_or(&found[0])
            }
        };
        let to = system_addr(address, family);
        self.send_to_system(message, &to, address.into()).await
    }

    fn family(&self) -> Domain {
        match self.fd.endpoint(End::Local) {
            Some(Addr::Socket(local)) => Domain::for_address(local),
            _ => Domain::IPV4,
        }
    }
}

/// The address in the socket's own family: a socket of both families takes IPv4 as
/// `::ffff:a.b.c.d`.
fn system_addr(address: SocketAddr, family: Domain) -> SockAddr {
    match address {
        SocketAddr::V4(v4) if family == Domain::IPV6 => {
            SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
        }
        address => address.into(),
    }
}

/// Binds a socket, with Go's default: broadcast allowed.
fn bind(socket: Socket, address: SocketAddr) -> Result<Fd, Cause> {
    let set = socket.set_broadcast(true);
    set.map_err(Cause::by("setsockopt"))?;
    socket.bind(&address.into()).map_err(Cause::by("bind"))?;
    Fd::adopt("UdpSocket::bind", socket, Network::Udp).map_err(Cause::by("epoll_ctl"))
}
