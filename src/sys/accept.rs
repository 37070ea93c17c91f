//! New sockets, dialled or accepted: non-blocking and close-on-exec from their first moment.
// Mirrors Go's `internal/poll/sock_cloexec.go` and `net/sock_cloexec.go`.

use std::io;
use std::os::fd::OwnedFd;
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
use std::os::fd::{AsRawFd, FromRawFd};

use socket2::{Domain, SockAddr, Socket, Type};

/// A new socket, non-blocking and close-on-exec.
pub(crate) fn socket(domain: Domain, kind: Type) -> io::Result<Socket> {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    {
        Socket::new(domain, kind.nonblocking(), None)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    {
        let socket = Socket::new(domain, kind, None)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// What [`accept`] calls.
pub(crate) const ACCEPTS_BY: &str = if cfg!(any(
    target_os = "linux",
    target_os = "android",
    target_os = "freebsd"
)) {
    "accept4"
} else {
    "accept"
};

/// `accept4`: the connection comes non-blocking and close-on-exec in one call where it can.
pub(crate) fn accept(listener: &Socket) -> io::Result<(OwnedFd, SockAddr)> {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    {
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: `address` and `length` are valid for the call and say their true size; the
        // kernel fills them in, and a descriptor that is not negative is ours.
        let (fd, address) = unsafe {
            SockAddr::try_init(|address, length| {
                match libc::accept4(listener.as_raw_fd(), address.cast(), length, flags) {
                    -1 => Err(io::Error::last_os_error()),
                    fd => Ok(OwnedFd::from_raw_fd(fd)),
                }
            })?
        };
        Ok((fd, address))
    }
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    {
        let (socket, address) = listener.accept()?;
        socket.set_nonblocking(true)?;
        Ok((socket.into(), address))
    }
}
