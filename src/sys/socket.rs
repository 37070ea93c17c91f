//! Sockets: made and accepted non-blocking and close-on-exec; and what socket2 leaves to the caller.
// Mirrors Go's `internal/poll/sock_cloexec.go` and `net/sock_cloexec.go`.

use std::io;
use std::os::fd::BorrowedFd;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

/// A new socket.
pub(crate) fn socket(domain: Domain, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(domain, kind, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// What [`accept`] calls.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
pub(crate) const ACCEPTS_BY: &str = "accept4";
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
pub(crate) const ACCEPTS_BY: &str = "accept";

/// A connection that has come. In one call where the system can.
pub(crate) fn accept(listener: &Socket) -> io::Result<(Socket, SockAddr)> {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    return listener.accept4(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK);
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    {
        let (socket, address) = listener.accept()?;
        socket.set_nonblocking(true)?;
        Ok((socket, address))
    }
}

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

/// Bytes in the system's send buffer that the peer has not acknowledged, a FIN among them. `None`
/// where the system can't tell.
pub(crate) fn unacknowledged(socket: &SockRef<'_>) -> Option<usize> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use std::os::fd::AsRawFd;
        let mut bytes: libc::c_int = 0;
        // TIOCOUTQ is SIOCOUTQ by its older name.
        // SAFETY: the call stores one int, which lives as long.
        let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        (done == 0).then_some(usize::try_from(bytes).unwrap_or(0))
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = socket;
        None
    }
}
