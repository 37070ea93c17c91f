//! read(2) and write(2), for what is no socket.

// Mirrors `FD.Read` and `FD.Write` of Go's `internal/poll/fd_unix.go`.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

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
