//! How much of what was written the peer has not acknowledged.

use socket2::SockRef;

/// Bytes in the system's send buffer that the peer has not acknowledged, a FIN among them. `None`
/// where the system can't tell.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn unacknowledged(socket: &SockRef<'_>) -> Option<usize> {
    use std::os::fd::AsRawFd;
    let mut bytes: libc::c_int = 0;
    // TIOCOUTQ is SIOCOUTQ by its older name.
    // SAFETY: the call stores one int, which lives as long.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    (done == 0).then_some(usize::try_from(bytes).unwrap_or(0))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn unacknowledged(_: &SockRef<'_>) -> Option<usize> {
    None
}
