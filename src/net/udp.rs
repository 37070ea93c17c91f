//! UDP: binding, connecting, receiving from and sending to an address.

// Mirrors Go's `net/udpsock.go` and `net/udpsock_posix.go`.

use std::io;
use std::net::{SocketAddr, SocketAddrV6};

use socket2::{Domain, SockAddr, Type};

use super::addr::{ToAddr, unmapped};
use super::datagram::Datagram;
use super::error::{Cause, OpError};
use super::family;
use super::fd::Fd;
use super::kinds::Udp;
use super::resolve::{self, Purpose, Resolution};
use crate::cancel::CancelToken;
use crate::endpoints::{Addr, End, Network};
use crate::sys;

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
        let found = addresses("listen", target.clone(), Purpose::Listen).await?;
        // As for a listener: the first that is found, IPv4 preferred.
        let first = found.iter().find(|address| address.is_ipv4());
        let address = *first.unwrap_or(&found[0]);
        let bound = open(address);
        bound.map(Datagram::of).map_err(|cause| {
            let asked = resolve::asked_for(&target, address);
            op_error("listen", asked, cause)
        })
    }

    /// Connects: from now on the socket sends to `addr`, and receives from there only. Connecting
    /// again changes the peer.
    ///
    /// # Errors
    ///
    /// An [`OpError`] with `dial` as its operation.
    pub async fn connect(&self, addr: impl ToAddr) -> io::Result<()> {
        let mut connected = Ok(());
        for address in addresses("dial", addr.to_addr(), Purpose::Dial).await? {
            let address = family::to_dial(address);
            connected = self.connect_to(address);
            if connected.is_ok() {
                break;
            }
        }
        connected
    }

    fn connect_to(&self, address: SocketAddr) -> io::Result<()> {
        let connected = self.fd.with_socket(|socket| {
            // Asked anew: connected over IPv4 before, a socket of both shows an IPv4 address.
            let ipv6 = socket.local_addr()?.is_ipv6();
            socket.connect(&system_addr(address, ipv6))
        });
        connected
            .map_err(|failure| op_error("dial", Addr::Socket(address), failure.cause("connect")))?;
        self.fd.learn_new_endpoints(Addr::Socket(address));
        Ok(())
    }

    /// Sends a message to `addr`; waits while the system has no room for it. All of it goes, or
    /// nothing.
    ///
    /// # Errors
    ///
    /// As [`send`](Datagram::send); of the address, if it does not resolve; if the socket is
    /// connected.
    pub async fn send_to(&self, message: &[u8], addr: impl ToAddr) -> io::Result<usize> {
        let address = match addr.to_addr() {
            Addr::Socket(address) => unmapped(address),
            target => self.resolve_peer(target).await?,
        };
        self.check_unconnected(&Addr::Socket(address)).await?;
        let to = system_addr(address, self.is_ipv6());
        self.send_to_system(message, &to, Addr::Socket(address))
            .await
    }

    /// The address of a name to send to: the first of the socket's own family.
    async fn resolve_peer(&self, target: Addr) -> io::Result<SocketAddr> {
        let found = addresses("write", target, Purpose::Dial).await?;
        let ipv6 = self.is_ipv6();
        let fits = |address: &&SocketAddr| ipv6 || address.is_ipv4();
        Ok(*found.iter().find(fits).unwrap_or(&found[0]))
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

fn op_error(op: &'static str, addr: Addr, cause: Cause) -> io::Error {
    OpError::new(op, Network::Udp.name(), Some(addr), cause).into()
}

/// What `target` stands for: at least one address.
async fn addresses(
    op: &'static str,
    target: Addr,
    purpose: Purpose,
) -> io::Result<Vec<SocketAddr>> {
    let resolution = Resolution {
        network: Network::Udp,
        purpose,
        resolver: None,
    };
    let found = resolution
        .addresses(target.clone(), &CancelToken::new())
        .await;
    found.map_err(|cause| op_error(op, target, cause))
}

/// A socket bound to `address`, with Go's defaults: broadcast allowed, and both families where no
/// address in particular is asked for.
fn open(address: SocketAddr) -> Result<Fd, Cause> {
    let (address, only_v6) = family::to_bind(Network::Udp, address, None);
    let socket =
        sys::socket(Domain::for_address(address), Type::DGRAM).map_err(Cause::by("socket"))?;
    let set = Cause::by("setsockopt");
    socket.set_broadcast(true).map_err(&set)?;
    if let Some(only) = only_v6 {
        socket.set_only_v6(only).map_err(&set)?;
    }
    socket.bind(&address.into()).map_err(Cause::by("bind"))?;
    let fd = Fd::adopt("UdpSocket::bind", socket, Network::Udp).map_err(Cause::by("epoll_ctl"))?;
    fd.endpoint(End::Local);
    Ok(fd)
}
