//! What is no socket, a pipe above all: read(2), write(2), and splice(2), which moves bytes from
//! descriptor to descriptor inside the kernel.
// Mirrors `FD.Read` and `FD.Write` of Go's `internal/poll/fd_unix.go`, and `splice_linux.go`.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;

use super::MAX_AT_ONCE;

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
