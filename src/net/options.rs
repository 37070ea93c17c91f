//! Socket options, with Go's defaults.
//!
//! May touch: fd/, and the types it gives options to. Mirrors Go's `net/sockopt_posix.go`, `net/tcpsockopt_*.go` and
//! `net/tcpsock.go`'s `KeepAliveConfig`.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use super::datagram::Datagram;
use super::fd::Fd;
use super::stream::Stream;
use super::tcp::Tcp;
use super::udp::Udp;

/// TCP's own probing of an idle peer.
///
/// Zero stands for Go's default, in each of the three; fractions of a second are rounded up, for
/// systems count in seconds.
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
    /// Go's: 15 s, 15 s, 9 probes.
    fn default() -> Self {
        KeepAlive {
            idle: Duration::from_secs(15),
            interval: Duration::from_secs(15),
            count: 9,
        }
    }
}

/// What Go sets on every TCP socket: no delay, and keep-alive. As there, a system that refuses it
/// stops nobody.
pub(crate) fn set_on_all(socket: &SockRef<'_>, keepalive: Option<KeepAlive>) {
    let set = [
        socket.set_tcp_nodelay(true),
        set_keepalive(socket, keepalive),
    ];
    for error in set.into_iter().filter_map(Result::err) {
        log::debug!("a TCP socket goes without one of its usual options: {error}");
    }
}

fn set_keepalive(socket: &SockRef<'_>, keepalive: Option<KeepAlive>) -> io::Result<()> {
    let Some(keepalive) = keepalive else {
        return socket.set_keepalive(false);
    };
    let default = KeepAlive::default();
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

/// The system's own limit of a listener's backlog: Go's `maxListenerBacklog`.
pub(crate) fn most_backlog() -> u32 {
    let limit = std::fs::read_to_string("/proc/sys/net/core/somaxconn");
    let limit = limit.ok().and_then(|text| text.trim().parse().ok());
    limit.unwrap_or(libc::SOMAXCONN as u32)
}

/// What the system takes as an `int`; of more it would see the lower half, which may be zero.
const MOST: i32 = i32::MAX;

impl Fd {
    fn set_read_buffer(&self, bytes: usize) -> io::Result<()> {
        let bytes = bytes.min(MOST as usize);
        self.set_option(|socket| socket.set_recv_buffer_size(bytes))
    }

    fn set_write_buffer(&self, bytes: usize) -> io::Result<()> {
        let bytes = bytes.min(MOST as usize);
        self.set_option(|socket| socket.set_send_buffer_size(bytes))
    }

    fn set_option(&self, set: impl FnOnce(&SockRef<'_>) -> io::Result<()>) -> io::Result<()> {
        let set = self.with_socket(set);
        set.map_err(|failure| self.error("set", failure, 0))
    }

    fn option<T>(&self, get: impl FnOnce(&SockRef<'_>) -> io::Result<T>) -> io::Result<T> {
        let got = self.with_socket(get);
        got.map_err(|failure| self.error("get", failure, 0))
    }

    fn set_ttl(&self, hops: u32) -> io::Result<()> {
        self.set_option(|socket| {
            let local = socket.local_addr()?.as_socket_ipv6();
            if local.is_some_and(|local| local.ip().to_ipv4_mapped().is_none()) {
                socket.set_unicast_hops_v6(hops)?;
                // Of both families, perhaps; where it is not, there is nothing to set.
                let _ = socket.set_ttl_v4(hops);
                return Ok(());
            }
            socket.set_ttl_v4(hops)
        })
    }

    fn ttl(&self) -> io::Result<u32> {
        self.option(|socket| {
            let local = socket.local_addr()?.as_socket_ipv6();
            if local.is_some_and(|local| local.ip().to_ipv4_mapped().is_none()) {
                return socket.unicast_hops_v6();
            }
            socket.ttl_v4()
        })
    }
}

/// Options of TCP.
impl Stream<Tcp> {
    /// Whether small writes are sent at once, without waiting for more (TCP_NODELAY). On by
    /// default, as in Go.
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.fd.set_option(|socket| socket.set_tcp_nodelay(nodelay))
    }

    /// See [`set_nodelay`](Stream::set_nodelay).
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.fd.option(|socket| socket.tcp_nodelay())
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
        self.fd.resource().handle.note_linger();
        let longest = Duration::from_secs(MOST as u64);
        let linger = linger.map(|linger| whole_seconds(linger).min(longest));
        self.fd.set_option(|socket| socket.set_linger(linger))
    }

    /// See [`set_linger`](Stream::set_linger).
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        self.fd.option(|socket| socket.linger())
    }

    /// Whether and how the system finds out that an idle peer is gone; `None` for never. On by
    /// default, every 15 seconds, as in Go.
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn set_keepalive(&self, keepalive: Option<KeepAlive>) -> io::Result<()> {
        self.fd
            .set_option(|socket| set_keepalive(socket, keepalive))
    }

    /// See [`set_keepalive`](Stream::set_keepalive).
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn keepalive(&self) -> io::Result<Option<KeepAlive>> {
        self.fd.option(|socket| {
            if !socket.keepalive()? {
                return Ok(None);
            }
            Ok(Some(KeepAlive {
                idle: socket.tcp_keepalive_time()?,
                interval: socket.tcp_keepalive_interval()?,
                count: socket.tcp_keepalive_retries()?,
            }))
        })
    }

    /// How many routers what is sent may pass: IPv4's time to live, IPv6's hop limit.
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn set_ttl(&self, hops: u32) -> io::Result<()> {
        self.fd.set_ttl(hops)
    }

    /// See [`set_ttl`](Stream::set_ttl).
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn ttl(&self) -> io::Result<u32> {
        self.fd.ttl()
    }
}

impl<K> Stream<K> {
    /// The size of the system's receive buffer. It bounds it; Linux doubles it for its own
    /// bookkeeping.
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn set_read_buffer(&self, bytes: usize) -> io::Result<()> {
        self.fd.set_read_buffer(bytes)
    }

    /// The size of the system's receive buffer, as the system tells it.
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn read_buffer(&self) -> io::Result<usize> {
        self.fd.option(|socket| socket.recv_buffer_size())
    }

    /// The size of the system's send buffer: see [`set_read_buffer`](Stream::set_read_buffer).
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn set_write_buffer(&self, bytes: usize) -> io::Result<()> {
        self.fd.set_write_buffer(bytes)
    }

    /// The size of the system's send buffer, as the system tells it.
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn write_buffer(&self) -> io::Result<usize> {
        self.fd.option(|socket| socket.send_buffer_size())
    }
}

impl<K> Datagram<K> {
    /// The size of the system's receive buffer: see [`Stream::set_read_buffer`].
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn set_read_buffer(&self, bytes: usize) -> io::Result<()> {
        self.fd.set_read_buffer(bytes)
    }

    /// The size of the system's receive buffer, as the system tells it.
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn read_buffer(&self) -> io::Result<usize> {
        self.fd.option(|socket| socket.recv_buffer_size())
    }

    /// The size of the system's send buffer: see [`Stream::set_read_buffer`].
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn set_write_buffer(&self, bytes: usize) -> io::Result<()> {
        self.fd.set_write_buffer(bytes)
    }

    /// The size of the system's send buffer, as the system tells it.
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn write_buffer(&self) -> io::Result<usize> {
        self.fd.option(|socket| socket.send_buffer_size())
    }
}

/// Options of UDP.
impl Datagram<Udp> {
    /// Whether broadcast addresses may be sent to. On by default, as in Go.
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn set_broadcast(&self, broadcast: bool) -> io::Result<()> {
        self.fd.set_option(|socket| socket.set_broadcast(broadcast))
    }

    /// See [`set_broadcast`](Datagram::set_broadcast).
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn broadcast(&self) -> io::Result<bool> {
        self.fd.option(|socket| socket.broadcast())
    }

    /// How many routers what is sent may pass: see [`Stream::set_ttl`].
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn set_ttl(&self, hops: u32) -> io::Result<()> {
        self.fd.set_ttl(hops)
    }

    /// See [`set_ttl`](Datagram::set_ttl).
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn ttl(&self) -> io::Result<u32> {
        self.fd.ttl()
    }

    /// Receives what is sent to a group as well, on the interface of this index; zero lets the
    /// system choose. For IPv4 the system always chooses.
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn join_multicast(&self, group: IpAddr, interface: u32) -> io::Result<()> {
        self.fd.set_option(|socket| match group {
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
        self.fd.set_option(|socket| match group {
            IpAddr::V4(group) => socket.leave_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(group) => socket.leave_multicast_v6(&group, interface),
        })
    }
}
