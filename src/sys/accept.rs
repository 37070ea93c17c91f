//! New sockets, dialled or accepted: non-blocking and close-on-exec from their first moment.
// Mirrors Go's `internal/poll/sock_cloexec.go` and `net/sock_cloexec.go`.

pub(crate) use by::*;

/// In one call where the system can.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
mod by {
    use std::io;

    use socket2::{Domain, SockAddr, Socket, Type};

    /// What [`accept`] calls.
    pub(crate) const ACCEPTS_BY: &str = "accept4";

    /// A new socket.
    pub(crate) fn socket(domain: Domain, kind: Type) -> io::Result<Socket> {
        Socket::new(domain, kind.nonblocking(), None)
    }

    /// A connection that has come.
    pub(crate) fn accept(listener: &Socket) -> io::Result<(Socket, SockAddr)> {
        listener.accept4(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
mod by {
    use std::io;

    use socket2::{Domain, SockAddr, Socket, Type};

    /// What [`accept`] calls.
    pub(crate) const ACCEPTS_BY: &str = "accept";

    /// A new socket.
    pub(crate) fn socket(domain: Domain, kind: Type) -> io::Result<Socket> {
        let socket = Socket::new(domain, kind, None)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// A connection that has come.
    pub(crate) fn accept(listener: &Socket) -> io::Result<(Socket, SockAddr)> {
        let (socket, address) = listener.accept()?;
        socket.set_nonblocking(true)?;
        Ok((socket, address))
    }
}
