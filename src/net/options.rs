//! Socket options, with Go's defaults.
//!
//! May touch: fd.rs. Mirrors Go's `net/sockopt_posix.go`, `net/tcpsockopt_*.go` and
//! `net/tcpsock.go`'s `KeepAliveConfig`.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// TCP's own probing of an idle peer.
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

/// What Go sets on every TCP socket: no delay, and keep-alive.
pub(crate) fn set_tcp_defaults(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    set_keepalive(socket, Some(KeepAlive::default()))
}

pub(crate) fn set_keepalive(socket: &SockRef<'_>, keepalive: Option<KeepAlive>) -> io::Result<()> {
    let Some(keepalive) = keepalive else {
        return socket.set_keepalive(false);
    };
    let settings = TcpKeepalive::new()
        .with_time(keepalive.idle)
        .with_interval(keepalive.interval)
        .with_retries(keepalive.count);
    socket.set_tcp_keepalive(&settings)
}

/// The system's own limit of a listener's backlog: Go's `maxListenerBacklog`.
pub(crate) fn most_backlog() -> u32 {
    let limit = std::fs::read_to_string("/proc/sys/net/core/somaxconn");
    let limit = limit.ok().and_then(|text| text.trim().parse().ok());
    limit.unwrap_or(libc::SOMAXCONN as u32)
}
