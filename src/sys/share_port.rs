//! Listeners that share a port, and whether the system spreads connections over them.
// Go has no counterpart: its goroutines share one listener.

use std::io;
use std::os::fd::BorrowedFd;

use socket2::SockRef;

/// Whether the system spreads connections over listeners that share a port: on Linux, and on
/// FreeBSD (which has the option since 12). Elsewhere the option exists, and one of the listeners
/// gets all.
pub(crate) const SPREADS_CONNECTIONS: bool = cfg!(any(
    target_os = "linux",
    target_os = "android",
    target_os = "freebsd"
));

/// Lets a listener that is not bound yet share its port with others that do the same.
pub(crate) fn share_port(socket: BorrowedFd<'_>) -> io::Result<()> {
    let socket = SockRef::from(&socket);
    #[cfg(target_os = "freebsd")]
    return socket.set_reuse_port_lb(true);
    #[cfg(not(target_os = "freebsd"))]
    socket.set_reuse_port(true)
}
