//! The only `unsafe` in the crate: what std, mio and socket2 do not offer safely.
//!
//! Knows nothing of the reactor or the runtime.
//! Mirrors Go's `internal/poll/sock_cloexec.go`, `splice_linux.go`, `fd_unix.go`'s `Sysfd`, and
//! `net/cgo_unix.go`. This file: what they share, and dup2.

#![allow(unsafe_code)]

mod fork;
mod lookup;
#[cfg(feature = "signal")]
mod signal;
mod socket;
mod with_waker;

use std::cell::OnceCell;
use std::io;
use std::mem::MaybeUninit;
use std::ops::{Deref, Range};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

pub(crate) use fork::{PerProcess, Process};
pub(crate) use lookup::{NotFound, address_info, interface_index, is_shortage};
#[cfg(feature = "signal")]
pub(crate) use signal::{SignalNotes, note_signals};
pub(crate) use socket::{
    ACCEPTS_BY, Filling, OwnedSocket, SPREADS_CONNECTIONS, accept, read, share_port, socket,
    splice, splice_to_socket, unacknowledged, write,
};
pub(crate) use with_waker::WithWaker;

/// A send never raises SIGPIPE, which a C host perhaps does not ignore.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
pub(crate) const SEND_FLAGS: libc::c_int = libc::MSG_NOSIGNAL;
/// Elsewhere the socket itself says so (`SO_NOSIGPIPE`, set by socket2 when it makes one).
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
pub(crate) const SEND_FLAGS: libc::c_int = 0;

/// What one system call is given at most: some systems fail, or truncate, above 1 GiB.
pub(crate) const MAX_AT_ONCE: usize = 1 << 30;

/// Buffers that the system takes at once (its IOV_MAX).
const MAX_BUFFERS: usize = 1024;

/// Which buffers one system call is given: as many as the system takes, from the first that is not
/// empty on. If all that are offered were empty, the answer would look like an end of file.
pub(crate) fn at_once(buffers: &[impl Deref<Target = [u8]>]) -> Range<usize> {
    let first = buffers.iter().position(|buffer| !buffer.is_empty());
    let first = first.unwrap_or(0);
    let mut bytes = 0;
    let fitting = buffers[first..]
        .iter()
        .take(MAX_BUFFERS)
        .take_while(|buffer| {
            bytes += buffer.len();
            bytes <= MAX_AT_ONCE
        });
    let fitting = fitting.count().max(1);
    first..buffers.len().min(first + fitting)
}

/// A buffer for calls that only ever write initialised bytes into it.
pub(crate) fn uninit(buffer: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    // SAFETY: same layout, and the calls it is given to (socket2's) only store bytes that the
    // kernel wrote, so it is as initialised afterwards as it was before.
    unsafe { &mut *(std::ptr::from_mut(buffer) as *mut [MaybeUninit<u8>]) }
}

/// A descriptor that `owner` keeps open for as long as it lives.
#[cfg_attr(mio_unsupported_force_poll_poll, allow(dead_code))]
pub(crate) fn borrow<O: ?Sized>(fd: RawFd, _owner: &O) -> BorrowedFd<'_> {
    // SAFETY: the callers pass the descriptor of mio's selector, or the reactor's `FdCopy`. Both stay
    // open while `owner` is borrowed.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// A copy of a descriptor whose owner may replace it. Once it is made it stays open, so it can be lent.
#[cfg_attr(mio_unsupported_force_poll_poll, allow(dead_code))]
#[derive(Default)]
pub(crate) struct FdCopy(OnceCell<OwnedFd>);

#[cfg_attr(mio_unsupported_force_poll_poll, allow(dead_code))]
impl FdCopy {
    /// The copy, as a duplicate of `fd` from here on.
    pub(crate) fn of(&self, fd: BorrowedFd<'_>) -> RawFd {
        let copy = self.0.get_or_init(|| {
            let copy = fd.try_clone_to_owned();
            copy.expect("netpoller: no descriptor to spare for as_fd")
        });
        let (fd, copy) = (fd.as_raw_fd(), copy.as_raw_fd());
        debug_assert_ne!(fd, copy, "dup2 would leave its flags as they are");
        // SAFETY: plain calls on two open descriptors. The second stays its owner's, and open.
        let done = unsafe {
            libc::dup2(fd, copy) >= 0 && libc::fcntl(copy, libc::F_SETFD, libc::FD_CLOEXEC) >= 0
        };
        if !done {
            let error = io::Error::last_os_error();
            log::error!("can't update the descriptor lent by as_fd: {error}");
        }
        copy
    }
}
