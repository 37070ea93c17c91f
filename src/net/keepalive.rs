//! What Go sets on every TCP socket: keep-alive, and no delay.

// Mirrors `KeepAliveConfig` (`net/tcpsock.go`), `net/tcpsockopt_*.go` and `newTCPConn`.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

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
    #[must_use]
    pub const fn new() -> Self {
        KeepAlive {
            idle: Duration::from_secs(15),
            interval: Duration::from_secs(15),
            count: 9,
        }
    }

    /// The same with another idle time before the first probe.
    #[must_use]
    pub const fn with_idle(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// The same with another time between probes.
    #[must_use]
    pub const fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// The same with another number of probes.
    #[must_use]
    pub const fn with_count(mut self, count: u32) -> Self {
        self.count = count;
        self
    }

    /// The settings of a socket; `None` where keep-alive is off.
    pub(super) fn of(socket: &SockRef<'_>) -> io::Result<Option<KeepAlive>> {
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

/// What Go sets on every TCP socket. As there, a system that refuses one of them fails nothing.
pub(crate) fn set_on_all(socket: &SockRef<'_>, keepalive: Option<KeepAlive>) {
    let set = [
        socket.set_tcp_nodelay(true),
        set_keepalive(socket, keepalive),
    ];
    for error in set.into_iter().filter_map(Result::err) {
        log::debug!("can't set one of the usual options of a TCP socket: {error}");
    }
}

pub(super) fn set_keepalive(socket: &SockRef<'_>, keepalive: Option<KeepAlive>) -> io::Result<()> {
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
pub(super) fn whole_seconds(wait: Duration) -> Duration {
    let more = u64::from(wait.subsec_nanos() > 0);
    Duration::from_secs(wait.as_secs().saturating_add(more))
}
