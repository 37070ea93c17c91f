//! Socket options, with Go's defaults.

// Mirrors Go's `net/sockopt_posix.go` and `net/tcpsock.go`.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use socket2::SockRef;

use super::datagram::Datagram;
use super::keepalive::{self, KeepAlive, whole_seconds};
use super::kinds::{Tcp, Udp};
use super::stream::Stream;

/// The largest value of an option that the system takes as an `int`: of a larger one it would see
/// the lower half, which may be zero.
const MAX: i32 = i32::MAX;

/// Whether a socket sends IPv6. A socket of both families has an IPv4 address once it is connected
/// over IPv4.
fn is_ipv6(socket: &SockRef<'_>) -> io::Result<bool> {
    let local = socket.local_addr()?.as_socket_ipv6();
    Ok(local.is_some_and(|local| local.ip().to_ipv4_mapped().is_none()))
}

fn set_ttl(socket: &SockRef<'_>, hops: u32) -> io::Result<()> {
    // The largest number of all would be read as -1, the system's default.
    let hops = hops.min(MAX as u32);
    if !is_ipv6(socket)? {
        return socket.set_ttl_v4(hops);
    }
    socket.set_unicast_hops_v6(hops)?;
    // For a socket of both families. One of IPv6 alone refuses it, and has no use for it.
    let _ = socket.set_ttl_v4(hops);
    Ok(())
}

fn ttl(socket: &SockRef<'_>) -> io::Result<u32> {
    match is_ipv6(socket)? {
        true => socket.unicast_hops_v6(),
        false => socket.ttl_v4(),
    }
}

/// Options of TCP.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// use netpoller::{KeepAlive, TcpListener, TcpStream};
/// use std::time::Duration;
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let stream = TcpStream::connect(listener.local_addr()?).await?;
/// assert!(stream.nodelay()?);
/// stream.set_nodelay(false)?;
/// let minute = KeepAlive::new().with_idle(Duration::from_secs(60));
/// stream.set_keepalive(Some(minute))?;
/// stream.set_linger(Some(Duration::ZERO))?; // a close resets the connection
/// # Ok(())
/// # })
/// # }
/// ```
impl Stream<Tcp> {
    /// Whether small writes are sent at once, without waiting for more (TCP_NODELAY). On by
    /// default, as in Go.
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.fd
            .option("set", |socket| socket.set_tcp_nodelay(nodelay))
    }

    /// See [`set_nodelay`](Stream::set_nodelay).
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.fd.option("get", |socket| socket.tcp_nodelay())
    }

    /// What a close does with bytes that were written and not sent yet. `None`, the default: the
    /// system sends them meanwhile. Zero: they are thrown away, and the peer gets a RST. Else the
    /// close takes up to so long to send them, on the blocking pool, and throws away what is left.
    ///
    /// Fractions of a second are rounded up.
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        let longest = Duration::from_secs(MAX as u64);
        let linger = linger.map(|linger| whole_seconds(linger).min(longest));
        self.fd.option("set", |socket| socket.set_linger(linger))
    }

    /// See [`set_linger`](Stream::set_linger).
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        self.fd.option("get", |socket| socket.linger())
    }

    /// Whether and how the system finds out that an idle peer is gone; `None` for never. On by
    /// default, every 15 seconds, as in Go.
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn set_keepalive(&self, keepalive: Option<KeepAlive>) -> io::Result<()> {
        self.fd
            .option("set", |socket| keepalive::set_keepalive(socket, keepalive))
    }

    /// See [`set_keepalive`](Stream::set_keepalive).
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn keepalive(&self) -> io::Result<Option<KeepAlive>> {
        self.fd.option("get", KeepAlive::of)
    }

    /// How many routers what is sent may pass: IPv4's time to live, IPv6's hop limit.
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn set_ttl(&self, hops: u32) -> io::Result<()> {
        self.fd.option("set", |socket| set_ttl(socket, hops))
    }

    /// See [`set_ttl`](Stream::set_ttl).
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn ttl(&self) -> io::Result<u32> {
        self.fd.option("get", ttl)
    }
}

macro_rules! buffers {
    ($($Handle:ident)*) => { $(
        impl<K> $Handle<K> {
            /// The size of the system's receive buffer. The system has bounds for it; Linux doubles
            /// it for its own bookkeeping.
            ///
            /// ```
            /// # fn main() -> std::io::Result<()> {
            /// # netpoller::Runtime::new()?.block_on(async {
            /// let (ours, _theirs) = netpoller::UnixStream::pair()?;
            /// ours.set_read_buffer(16 * 1024)?;
            /// assert!(ours.read_buffer()? >= 16 * 1024);
            /// # Ok(())
            /// # })
            /// # }
            /// ```
            ///
            /// # Errors
            ///
            /// The system's; closed.
            pub fn set_read_buffer(&self, bytes: usize) -> io::Result<()> {
                let bytes = bytes.min(MAX as usize);
                self.fd.option("set", |socket| socket.set_recv_buffer_size(bytes))
            }

            /// The size of the system's receive buffer, as the system tells it.
            ///
            /// # Errors
            ///
            /// The system's; closed.
            pub fn read_buffer(&self) -> io::Result<usize> {
                self.fd.option("get", |socket| socket.recv_buffer_size())
            }

            /// The size of the system's send buffer: see
            #[doc = concat!("[`set_read_buffer`](", stringify!($Handle), "::set_read_buffer).")]
            ///
            /// # Errors
            ///
            /// The system's; closed.
            pub fn set_write_buffer(&self, bytes: usize) -> io::Result<()> {
                let bytes = bytes.min(MAX as usize);
                self.fd.option("set", |socket| socket.set_send_buffer_size(bytes))
            }

            /// The size of the system's send buffer, as the system tells it.
            ///
            /// # Errors
            ///
            /// The system's; closed.
            pub fn write_buffer(&self) -> io::Result<usize> {
                self.fd.option("get", |socket| socket.send_buffer_size())
            }
        }
    )* };
}

buffers!(Stream Datagram);

/// Options of UDP.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// let socket = netpoller::UdpSocket::bind("127.0.0.1:0").await?;
/// assert!(socket.broadcast()?);
/// socket.set_ttl(1)?;
/// assert_eq!(socket.ttl()?, 1);
/// # Ok(())
/// # })
/// # }
/// ```
impl Datagram<Udp> {
    /// Whether broadcast addresses may be sent to. On by default, as in Go.
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn set_broadcast(&self, broadcast: bool) -> io::Result<()> {
        self.fd
            .option("set", |socket| socket.set_broadcast(broadcast))
    }

    /// See [`set_broadcast`](Datagram::set_broadcast).
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn broadcast(&self) -> io::Result<bool> {
        self.fd.option("get", |socket| socket.broadcast())
    }

    /// How many routers what is sent may pass: see [`Stream::set_ttl`].
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn set_ttl(&self, hops: u32) -> io::Result<()> {
        self.fd.option("set", |socket| set_ttl(socket, hops))
    }

    /// See [`set_ttl`](Datagram::set_ttl).
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn ttl(&self) -> io::Result<u32> {
        self.fd.option("get", ttl)
    }

    /// Receives what is sent to a group as well, on the interface of this index; zero lets the
    /// system choose. For IPv4 the system always chooses.
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn join_multicast(&self, group: IpAddr, interface: u32) -> io::Result<()> {
        self.fd.option("set", |socket| match group.to_canonical() {
            IpAddr::V4(group) => socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(group) => socket.join_multicast_v6(&group, interface),
        })
    }

    /// Leaves a group: see [`join_multicast`](Datagram::join_multicast).
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn leave_multicast(&self, group: IpAddr, interface: u32) -> io::Result<()> {
        self.fd.option("set", |socket| match group.to_canonical() {
            IpAddr::V4(group) => socket.leave_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(group) => socket.leave_multicast_v6(&group, interface),
        })
    }
}
