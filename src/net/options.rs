//! Socket options, with Go's defaults.

// Mirrors Go's `net/sockopt_posix.go`, `net/tcpsockopt_*.go`, and `KeepAliveConfig` and `newTCPConn` of
// `net/tcpsock.go`.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use super::addr::{Tcp, Udp};
use super::datagram::Datagram;
use super::stream::Stream;

/// The largest value of an option that the system takes as an `int`: of a larger one it would see
/// the lower half, which may be zero.
const MAX: i32 = i32::MAX;

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
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{TcpListener, TcpStream};
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let stream = TcpStream::connect(listener.local_addr()?).await?;
    /// assert!(stream.nodelay()?);
    /// stream.set_nodelay(false)?; // for many small writes of one message
    /// assert!(!stream.nodelay()?);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
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

    /// What a close does with bytes that were written and not sent yet. `None`, the default: the system
    /// sends them after the close. Zero: they are thrown away, and the peer gets a RST. Any other: a thread
    /// for such closes waits until they are sent, at most for this time, and throws away what is left.
    ///
    /// Fractions of a second are rounded up.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{TcpListener, TcpStream};
    /// use std::time::Duration;
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let stream = TcpStream::connect(listener.local_addr()?).await?;
    /// assert_eq!(stream.linger()?, None);
    /// stream.set_linger(Some(Duration::ZERO))?; // a close resets the connection
    /// assert_eq!(stream.linger()?, Some(Duration::ZERO));
    /// # Ok(())
    /// # })
    /// # }
    /// ```
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
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{KeepAlive, TcpListener, TcpStream};
    /// use std::time::Duration;
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let stream = TcpStream::connect(listener.local_addr()?).await?;
    /// let minute = KeepAlive::new().with_idle(Duration::from_secs(60)).with_count(3);
    /// stream.set_keepalive(Some(minute))?;
    /// assert_eq!(stream.keepalive()?, Some(minute));
    /// stream.set_keepalive(None)?;
    /// assert_eq!(stream.keepalive()?, None);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn set_keepalive(&self, keepalive: Option<KeepAlive>) -> io::Result<()> {
        self.fd
            .option("set", |socket| set_keepalive(socket, keepalive))
    }

    /// See [`set_keepalive`](Stream::set_keepalive).
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn keepalive(&self) -> io::Result<Option<KeepAlive>> {
        self.fd.option("get", KeepAlive::of)
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
            /// ```
            /// # fn main() -> std::io::Result<()> {
            /// # netpoller::Runtime::new()?.block_on(async {
            /// let (ours, _theirs) = netpoller::UnixStream::pair()?;
            /// ours.set_write_buffer(16 * 1024)?;
            /// assert!(ours.write_buffer()? >= 16 * 1024);
            /// # Ok(())
            /// # })
            /// # }
            /// ```
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

macro_rules! hops {
    ($($Handle:ident<$K:ident>)*) => { $(
        impl $Handle<$K> {
            /// How many routers what is sent may pass: IPv4's time to live, IPv6's hop limit.
            ///
            /// ```
            /// # fn main() -> std::io::Result<()> {
            /// # netpoller::Runtime::new()?.block_on(async {
            /// let socket = netpoller::UdpSocket::bind("127.0.0.1:0").await?;
            /// socket.set_ttl(1)?; // to this network's machines alone
            /// assert_eq!(socket.ttl()?, 1);
            /// # Ok(())
            /// # })
            /// # }
            /// ```
            ///
            /// # Errors
            ///
            /// The system's; closed.
            pub fn set_ttl(&self, hops: u32) -> io::Result<()> {
                // The system would read the largest `u32` as -1, which means its default.
                let hops = hops.min(MAX as u32);
                self.fd.option("set", |socket| match is_ipv6(socket)? {
                    // A socket of both families needs both. One of IPv6 alone refuses the second.
                    true => socket.set_unicast_hops_v6(hops).map(|()| drop(socket.set_ttl_v4(hops))),
                    false => socket.set_ttl_v4(hops),
                })
            }

            /// See
            #[doc = concat!("[`set_ttl`](", stringify!($Handle), "::set_ttl).")]
            ///
            /// # Errors
            ///
            /// The system's; closed.
            pub fn ttl(&self) -> io::Result<u32> {
                self.fd.option("get", |socket| match is_ipv6(socket)? {
                    true => socket.unicast_hops_v6(),
                    false => socket.ttl_v4(),
                })
            }
        }
    )* };
}

hops!(Stream<Tcp> Datagram<Udp>);

/// Whether a socket sends IPv6. A socket of both families has an IPv4 address once it is connected
/// over IPv4.
fn is_ipv6(socket: &SockRef<'_>) -> io::Result<bool> {
    let local = socket.local_addr()?.as_socket();
    Ok(local.is_some_and(|local| local.ip().to_canonical().is_ipv6()))
}

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
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let socket = netpoller::UdpSocket::bind("127.0.0.1:0").await?;
    /// assert!(socket.broadcast()?);
    /// socket.set_broadcast(false)?;
    /// assert!(!socket.broadcast()?);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
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

    /// Receives what is sent to a group as well, on the interface of this index; zero lets the
    /// system choose. For IPv4 the system always chooses.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use std::net::{IpAddr, Ipv4Addr};
    /// let socket = netpoller::UdpSocket::bind("0.0.0.0:0").await?;
    /// let mdns = IpAddr::from(Ipv4Addr::new(224, 0, 0, 251));
    /// // A machine without a route for groups refuses it.
    /// if socket.join_multicast(mdns, 0).is_ok() {
    ///     socket.leave_multicast(mdns, 0)?;
    /// }
    /// # Ok(())
    /// # })
    /// # }
    /// ```
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

// ---- keep-alive ----

/// TCP's own probing of an idle peer: see [`Dialer::keepalive`](crate::Dialer::keepalive) and
/// [`TcpStream::set_keepalive`](crate::net::Stream::set_keepalive).
///
/// Systems count in seconds: fractions are rounded up. A zero in a field stands for Go's default, as
/// it does there.
///
/// ```
/// use netpoller::KeepAlive;
/// use std::time::Duration;
/// let patient = KeepAlive::new().with_idle(Duration::from_secs(600));
/// assert_eq!(patient.idle, Duration::from_secs(600));
/// assert_eq!((patient.interval, patient.count), (Duration::from_secs(15), 9));
/// ```
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Idle time before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes before the connection is given up.
    pub count: u32,
}

impl Default for KeepAlive {
    fn default() -> Self {
        KeepAlive::new()
    }
}

impl KeepAlive {
    /// Go's: 15 s, 15 s, 9 probes.
    ///
    /// ```
    /// use netpoller::KeepAlive;
    /// use std::time::Duration;
    /// let minute = Duration::from_secs(60);
    /// let patient = KeepAlive::new().with_idle(10 * minute).with_interval(minute).with_count(5);
    /// assert_eq!((patient.idle, patient.interval, patient.count), (10 * minute, minute, 5));
    /// ```
    pub const fn new() -> Self {
        KeepAlive {
            idle: Duration::from_secs(15),
            interval: Duration::from_secs(15),
            count: 9,
        }
    }

    /// The same with another idle time before the first probe.
    pub const fn with_idle(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// The same with another time between probes.
    pub const fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// The same with another number of probes.
    pub const fn with_count(mut self, count: u32) -> Self {
        self.count = count;
        self
    }

    /// The settings of a socket; `None` where keep-alive is off.
    fn of(socket: &SockRef<'_>) -> io::Result<Option<KeepAlive>> {
        if !socket.keepalive()? {
            return Ok(None);
        }
        Ok(Some(KeepAlive {
            idle: socket.tcp_keepalive_time()?,
            interval: socket.tcp_keepalive_interval()?,
            count: socket.tcp_keepalive_retries()?,
        }))
    }
}

/// What Go sets on every TCP socket. As there, if the system refuses one of them, nothing fails.
pub(crate) fn set_on_all(socket: &SockRef<'_>, keepalive: Option<KeepAlive>) {
    let set = [
        socket.set_tcp_nodelay(true),
        set_keepalive(socket, keepalive),
    ];
    for error in set.into_iter().filter_map(Result::err) {
        log::debug!("can't set one of the usual options of a TCP socket: {error}");
    }
}

fn set_keepalive(socket: &SockRef<'_>, keepalive: Option<KeepAlive>) -> io::Result<()> {
    let Some(keepalive) = keepalive else {
        return socket.set_keepalive(false);
    };
    let default = KeepAlive::new();
    let or = |wait: Duration, default| if wait.is_zero() { default } else { wait };
    let settings = TcpKeepalive::new()
        .with_time(whole_seconds(or(keepalive.idle, default.idle)))
        .with_interval(whole_seconds(or(keepalive.interval, default.interval)))
        .with_retries(match keepalive.count {
            0 => default.count,
            count => count,
        });
    socket.set_tcp_keepalive(&settings)
}

/// Rounded up: half a second of keep-alive must not be none, nor half a second of linger a RST.
fn whole_seconds(wait: Duration) -> Duration {
    let more = u64::from(wait.subsec_nanos() > 0);
    Duration::from_secs(wait.as_secs().saturating_add(more))
}
