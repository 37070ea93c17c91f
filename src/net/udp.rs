//! UDP: binding, connecting, receiving from and sending to an address.

// Mirrors Go's `net/udpsock.go` and `net/udpsock_posix.go`.

use std::io;
use std::net::{SocketAddr, SocketAddrV6};

use socket2::{SockAddr, Type};

use super::addr::{ToAddr, unmapped};
use super::datagram::Datagram;
use super::error::Cause;
use super::fd::Fd;
use super::kinds::Udp;
use super::resolve::{self, Purpose, Resolution};
use crate::cancel::CancelToken;
use crate::endpoints::{Addr, End, Network};

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
    /// An [`OpError`] with `listen` as its operation.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub async fn bind(addr: impl ToAddr) -> io::Result<UdpSocket> {
        let target = addr.to_addr();
        let resolution = Resolution::new(Network::Udp, Purpose::Listen);
        let found = resolution.addresses(&target, &CancelToken::new()).await?;
        let address = resolve::first_v4(&found);
        let bound = open(address);
        bound.map(Datagram::of).map_err(|cause| {
            let asked = resolve::asked_for(&target, address);
            resolution.error(Some(asked), cause).into()
        })
    }

    /// Connects: from now on the socket sends to `addr`, and receives from there only. Connecting
    /// again changes the peer.
    ///
    /// # Errors
    ///
    /// An [`OpError`] with `dial` as its operation.
    pub async fn connect(&self, addr: impl ToAddr) -> io::Result<()> {
        let resolution = Resolution::new(Network::Udp, Purpose::Dial);
        let (target, scope) = (addr.to_addr(), CancelToken::new());
        let mut connected = Ok(());
        for address in resolution.addresses(&target, &scope).await? {
            let address = resolve::to_dial(address);
            let tried = self.fd.with_socket(|socket| {
                // Asked anew: connected over IPv4 before, a socket of both shows an IPv4 address.
                let ipv6 = socket.local_addr()?.is_ipv6();
                socket.connect(&system_addr(address, ipv6))
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
    /// # Errors
    ///
    /// As [`send`](Datagram::send); of the address, if it does not resolve; if the socket is
    /// connected.
    pub async fn send_to(&self, message: &[u8], addr: impl ToAddr) -> io::Result<usize> {
        let ipv6 = self.is_ipv6();
        let address = match addr.to_addr() {
            Addr::Socket(address) => unmapped(address),
            target => {
                let resolution = Resolution::new(Network::Udp, Purpose::Message);
                let found = resolution.addresses(&target, &CancelToken::new()).await?;
                // The first of the socket's own family.
                let fits = |address: &&SocketAddr| ipv6 || address.is_ipv4();
                *found.iter().find(fits).unwrap_or(&found[0])
            }
        };
        self.check_unconnected(&address.into()).await?;
        let to = system_addr(address, ipv6);
        self.send_to_system(message, &to, address.into()).await
    }

    fn is_ipv6(&self) -> bool {
        let local = self.fd.endpoint(End::Local);
        matches!(local, Some(Addr::Socket(SocketAddr::V6(_))))
    }
}

/// The address in the socket's own family: a socket of both families takes IPv4 as
/// `::ffff:a.b.c.d`.
fn system_addr(address: SocketAddr, ipv6: bool) -> SockAddr {
    match address {
        SocketAddr::V4(v4) if ipv6 => {
            SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
        }
        address => address.into(),
    }
}

/// A socket bound to `address`, with Go's defaults: broadcast allowed, and both families where no
/// address in particular is asked for.
fn open(address: SocketAddr) -> Result<Fd, Cause> {
    let (socket, address) = resolve::to_bind(Network::Udp, address, None, Type::DGRAM)?;
    let set = socket.set_broadcast(true);
    set.map_err(Cause::by("setsockopt"))?;
    socket.bind(&address.into()).map_err(Cause::by("bind"))?;
    let fd = Fd::adopt("UdpSocket::bind", socket, Network::Udp).map_err(Cause::by("epoll_ctl"))?;
    fd.endpoint(End::Local);
    Ok(fd)
}
