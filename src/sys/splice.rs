//! splice(2): bytes from descriptor to descriptor inside the kernel.
// Mirrors Go's `internal/poll/splice_linux.go`.

use std::io;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

#[cfg(any(target_os = "linux", target_os = "android"))]
use super::sigpipe;

/// Whether [`splice`] works here: elsewhere no pipe is made for it.
pub(crate) const SPLICES: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Moves up to `most` bytes between a pipe and something else, inside the kernel. It never waits,
/// for the pipe either.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    let flags = libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE;
    let none = std::ptr::null_mut();
    // SAFETY: both are open for the call, and no offsets are given.
    let moved = unsafe { libc::splice(from, none, to, none, most, flags) };
    usize::try_from(moved).map_err(|_negative| io::Error::last_os_error())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn splice(_: BorrowedFd<'_>, _: BorrowedFd<'_>, _: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// As [`splice`], from a pipe to a socket, and without a SIGPIPE.
///
/// Splicing to a socket whose peer is gone raises it (seen on Linux 6.18, TCP and Unix alike), and
/// there is no flag like MSG_NOSIGNAL.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn splice_to_socket(
    pipe: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    most: usize,
) -> io::Result<usize> {
    sigpipe::without(|| splice(pipe, socket, most))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn splice_to_socket(
    pipe: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    most: usize,
) -> io::Result<usize> {
    splice(pipe, socket, most)
}
