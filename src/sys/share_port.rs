//! Listeners that share a port, and whether the system spreads connections over them.
//!
//! May touch: socket2. Go has no counterpart: its goroutines share one listener.

use std::io;
use std::os::fd::BorrowedFd;

use socket2::SockRef;

/// Whether a port that listeners share is shared fairly: on Linux since SO_REUSEPORT exists, on
/// FreeBSD from 12 on. Elsewhere the option exists, and one of the listeners gets all.
pub(crate) fn spreads_connections() -> bool {
    #[cfg(target_os = "freebsd")]
    {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        socket.is_ok_and(|socket| socket.set_reuse_port_lb(true).is_ok())
    }
    #[cfg(not(target_os = "freebsd"))]
    {
        cfg!(any(target_os = "linux", target_os = "android"))
    }
}

/// Lets a listener that is not bound yet share its port with others that do the same, fairly where
/// the system can.
pub(crate) fn share_port(socket: BorrowedFd<'_>) -> io::Result<()> {
    let socket = SockRef::from(&socket);
    #[cfg(target_os = "freebsd")]
    if socket.set_reuse_port_lb(true).is_ok() {
        return Ok(());
    }
    socket.set_reuse_port(true)
}
