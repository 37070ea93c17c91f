//! Sockets: the owned descriptor, which all handles of a socket share, and its two hot system calls;
//! made and accepted non-blocking and close-on-exec; and what socket2 leaves to the caller.

// Mirrors `Sysfd` of Go's `internal/poll/fd_unix.go`, `ignoringEINTRIO(syscall.Read, ...)`,
// `internal/poll/sock_cloexec.go` and `net/sock_cloexec.go`.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::{MAX_AT_ONCE, SEND_FLAGS};

/// An owned descriptor that can be closed through a shared reference, exactly once.
///
/// All handles to a socket share one, so that `close` on any of them is seen by all. While the
/// descriptor is lent ([`OwnedSocket::with`]) a close is put off until it is back: its number must
/// not be reused meanwhile.
#[derive(Debug)]
pub(crate) struct OwnedSocket {
    /// The descriptor, or [`CLOSED`].
    fd: Cell<RawFd>,
    /// How many calls of [`OwnedSocket::with`] are under way.
    lent: Cell<u16>,
    /// A close came while the descriptor was lent. The last call of `with` closes it.
    close_asked: Cell<bool>,
}

const CLOSED: RawFd = -1;

impl OwnedSocket {
    /// Without a descriptor it counts as closed: for a source that its user owns.
    pub(crate) fn new(fd: Option<OwnedFd>) -> Self {
        OwnedSocket {
            fd: Cell::new(fd.map_or(CLOSED, IntoRawFd::into_raw_fd)),
            lent: Cell::new(0),
            close_asked: Cell::new(false),
        }
    }

    /// The descriptor's number, -1 once it is closed.
    pub(crate) fn raw(&self) -> RawFd {
        self.fd.get()
    }

    /// The socket, for one call of our own code: nothing that runs meanwhile may close it.
    pub(crate) fn socket(&self) -> SockRef<'_> {
        SockRef::from(self)
    }

    // On Linux these call the kernel directly. In a process that has had a second thread, glibc's `recv`
    // and `send` cost about 110 instructions more for each echoed message, for thread cancellation.

    /// Reads what is there, up to [`MAX_AT_ONCE`].
    pub(crate) fn receive(&self, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        let (fd, at, length) = (
            self.raw(),
            buffer.as_mut_ptr(),
            buffer.len().min(MAX_AT_ONCE),
        );
        // SAFETY: the slice is valid for writes of its length, and borrowed for the call. The kernel
        // refuses a descriptor that is closed (-1).
        #[cfg(target_os = "linux")]
        let got = unsafe { libc::syscall(libc::SYS_recvfrom, fd, at, length, 0, 0usize, 0usize) };
        // SAFETY: as above.
        #[cfg(not(target_os = "linux"))]
        let got = unsafe { libc::recv(fd, at.cast(), length, 0) };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    }

    /// Sends, and never raises SIGPIPE, which a C host perhaps does not ignore.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let (fd, at, length) = (self.raw(), bytes.as_ptr(), bytes.len().min(MAX_AT_ONCE));
        // SAFETY: the slice is valid for reads of its length. The kernel refuses a closed descriptor.
        #[cfg(target_os = "linux")]
        let sent =
            unsafe { libc::syscall(libc::SYS_sendto, fd, at, length, SEND_FLAGS, 0usize, 0usize) };
        // SAFETY: as above.
        #[cfg(not(target_os = "linux"))]
        let sent = unsafe { libc::send(fd, at.cast(), length, SEND_FLAGS) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Lends the descriptor to a caller's closure; `None` if it is closed. A close that comes
    /// meanwhile is put off, and `close` then gets the descriptor.
    pub(crate) fn with<R>(
        &self,
        f: impl FnOnce(BorrowedFd<'_>) -> R,
        close: fn(OwnedFd),
    ) -> Option<R> {
        struct Return<'a>(&'a OwnedSocket, fn(OwnedFd));
        impl Drop for Return<'_> {
            fn drop(&mut self) {
                debug_assert!(self.0.is_lent(), "it comes back once");
                self.0.lent.set(self.0.lent.get() - 1);
                if self.0.lent.get() == 0 && self.0.close_asked.get() {
                    self.0.take().into_iter().for_each(self.1);
                }
            }
        }
        if self.fd.get() == CLOSED || self.close_asked.get() {
            return None;
        }
        self.lent.set(self.lent.get() + 1);
        // A guard, so that the descriptor comes back when `f` panics too.
        let _return = Return(self, close);
        // SAFETY: open, owned by us, and not closed while `lent` is above zero.
        Some(f(unsafe { BorrowedFd::borrow_raw(self.fd.get()) }))
    }

    pub(crate) fn is_lent(&self) -> bool {
        self.lent.get() > 0
    }

    /// Takes the descriptor out, for the caller to close. `None` the second time, and while it is
    /// lent: then it is closed when it comes back.
    pub(crate) fn take(&self) -> Option<OwnedFd> {
        if self.fd.get() == CLOSED {
            return None;
        }
        if self.is_lent() {
            self.close_asked.set(true);
            return None;
        }
        let fd = match fault!("double_close") {
            true => self.fd.get(),
            false => self.fd.replace(CLOSED),
        };
        // SAFETY: we own it, and `replace` forgets it, so that it is taken once.
        Some(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

impl AsFd for OwnedSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        assert_ne!(self.fd.get(), CLOSED, "used after close");
        // SAFETY: the descriptor is open, as was just checked; we own it, and nothing between here
        // and the end of the caller's one system call can close it.
        unsafe { BorrowedFd::borrow_raw(self.fd.get()) }
    }
}

impl Drop for OwnedSocket {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// A buffer that the system fills from its beginning, so that it need not be initialised before.
pub(crate) struct Filling<'b> {
    buffer: &'b mut [MaybeUninit<u8>],
    /// How many bytes, from the first on, are initialised. Only `receive` moves it.
    filled: usize,
}

impl<'b> Filling<'b> {
    pub(crate) fn new(buffer: &'b mut [MaybeUninit<u8>]) -> Self {
        Filling { buffer, filled: 0 }
    }

    /// How many bytes there is room for.
    pub(crate) fn room(&self) -> usize {
        self.buffer.len()
    }

    /// One read.
    pub(crate) fn receive(&mut self, socket: &OwnedSocket) -> io::Result<usize> {
        self.filled = socket.receive(self.buffer)?;
        Ok(self.filled)
    }

    pub(crate) fn into_filled(self) -> &'b mut [u8] {
        let filled = &mut self.buffer[..self.filled];
        // SAFETY: same layout, and the kernel wrote the first `filled` bytes.
        unsafe { &mut *(ptr::from_mut(filled) as *mut [u8]) }
    }
}

// ---- made, accepted, asked ----

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

/// Accepts a connection, in one system call where possible.
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

/// Bytes in the system's send buffer that the peer has not acknowledged, a FIN among them. Zero where
/// the system can't tell: then the call fails.
pub(crate) fn unacknowledged(socket: &SockRef<'_>) -> usize {
    let mut bytes: libc::c_int = 0;
    // TIOCOUTQ is Linux's SIOCOUTQ by its older name.
    // SAFETY: the call stores one int, which lives as long.
    unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    usize::try_from(bytes).unwrap_or(0)
}

// ---- what is no socket, a pipe above all ----
//
// Mirrors `FD.Read` and `FD.Write` of Go's `internal/poll/fd_unix.go`, and `splice_linux.go`.

/// Reads what is there, up to [`MAX_AT_ONCE`].
pub(crate) fn read(file: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let (fd, length) = (file.as_fd().as_raw_fd(), buffer.len().min(MAX_AT_ONCE));
    // SAFETY: the slice is valid for writes of its length.
    let got = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), length) };
    usize::try_from(got).map_err(|_negative| io::Error::last_os_error())
}

/// Writes what is taken at once, up to [`MAX_AT_ONCE`].
pub(crate) fn write(file: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    let (fd, length) = (file.as_fd().as_raw_fd(), bytes.len().min(MAX_AT_ONCE));
    // SAFETY: the slice is valid for reads of its length.
    let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), length) };
    usize::try_from(written).map_err(|_negative| io::Error::last_os_error())
}

/// Moves up to `most` bytes between a pipe and something else, inside the kernel. It never waits,
/// for the pipe either.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    let flags = libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE;
    let none = ptr::null_mut();
    // SAFETY: both are open for the call, and no offsets are given.
    let moved = unsafe { libc::splice(from, none, to, none, most, flags) };
    usize::try_from(moved).map_err(|_negative| io::Error::last_os_error())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn splice(_: BorrowedFd<'_>, _: BorrowedFd<'_>, _: usize) -> io::Result<usize> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

/// As [`splice`], from a pipe to a socket. Unsupported where SIGPIPE is not ignored, as in a C host
/// that has not thought of it: splicing to a socket whose peer is gone raises it (seen on Linux
/// 6.18, TCP and Unix alike), and there is no flag like MSG_NOSIGNAL.
pub(crate) fn splice_to_socket(
    pipe: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    most: usize,
) -> io::Result<usize> {
    match ignores_sigpipe() {
        true => splice(pipe, socket, most),
        false => Err(io::Error::from_raw_os_error(libc::ENOSYS)),
    }
}

/// Asked anew each time: a host may change that at any time.
fn ignores_sigpipe() -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is set, and what is asked for goes where there is room for it.
    let asked = unsafe { libc::sigaction(libc::SIGPIPE, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: zeros are a value of it, and the call, if it succeeded, wrote another.
    asked == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}
