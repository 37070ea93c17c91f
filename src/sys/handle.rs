//! The owned descriptor that all handles to a socket share, and the two calls it is for.
//!
//! May touch: libc. Mirrors Go's `internal/poll/fd_unix.go` (`Sysfd`).

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use socket2::SockRef;

/// An owned descriptor that can be closed through a shared reference, exactly once.
///
/// Every handle to a socket shares one of these, so that `close` on any of them is seen by all.
/// While somebody holds the borrowed descriptor ([`Handle::with`]), a close is put off until
/// they are done: the number must not be reused under them.
#[derive(Debug)]
pub(crate) struct Handle {
    fd: Cell<RawFd>,
    lent: Cell<u16>,
    close_asked: Cell<bool>,
    /// Bits: what those may have done who had the descriptor in hand.
    suspected: Cell<u8>,
}

const CLOSED: RawFd = -1;

/// Somebody may have set a linger.
const LINGER: u8 = 1;
/// Somebody may have duplicated it.
const DUPLICATE: u8 = 2;

impl Handle {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Handle::of(fd.into_raw_fd())
    }

    /// A handle that owns nothing, for sources that somebody else owns.
    pub(crate) fn none() -> Self {
        Handle::of(CLOSED)
    }

    fn of(raw: RawFd) -> Self {
        Handle {
            fd: Cell::new(raw),
            lent: Cell::new(0),
            close_asked: Cell::new(false),
            suspected: Cell::new(0),
        }
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.fd.get()
    }

    /// The socket, for one call. Our own code only: nothing that runs meanwhile may close.
    #[inline]
    pub(crate) fn socket(&self) -> SockRef<'_> {
        SockRef::from(self)
    }

    /// Lends the descriptor to a caller's closure; `None` if it is closed. A close that was put
    /// off meanwhile is left to `close`.
    pub(crate) fn with<R>(
        &self,
        f: impl FnOnce(BorrowedFd<'_>) -> R,
        close: fn(OwnedFd),
    ) -> Option<R> {
        struct Return<'a>(&'a Handle, fn(OwnedFd));
        impl Drop for Return<'_> {
            fn drop(&mut self) {
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
        let _returned_even_on_panic = Return(self, close);
        // SAFETY: open, owned by us, and not closed while `lent` is above zero.
        Some(f(unsafe { BorrowedFd::borrow_raw(self.fd.get()) }))
    }

    pub(crate) fn is_lent(&self) -> bool {
        self.lent.get() > 0
    }

    pub(crate) fn may_linger(&self) -> bool {
        self.suspected.get() & LINGER != 0
    }

    pub(crate) fn may_be_duplicated(&self) -> bool {
        self.suspected.get() != 0
    }

    /// From here on a close asks the system whether it would block, and deregisters first.
    pub(crate) fn note_linger(&self) {
        self.suspected.set(LINGER | DUPLICATE);
    }

    /// From here on a close deregisters first: the system forgets no socket of which somebody has a
    /// duplicate.
    pub(crate) fn note_duplicate(&self) {
        self.suspected.set(self.suspected.get() | DUPLICATE);
    }

    /// Takes the descriptor out: the one who gets it closes it. `None` the second time, and
    /// while it is lent (then it is closed when it comes back).
    pub(crate) fn take(&self) -> Option<OwnedFd> {
        if self.fd.get() == CLOSED {
            return None;
        }
        if self.lent.get() > 0 {
            self.close_asked.set(true);
            return None;
        }
        // SAFETY: we own it, and it is forgotten here, so that nobody takes it twice.
        Some(unsafe { OwnedFd::from_raw_fd(self.fd.replace(CLOSED)) })
    }
}

impl AsFd for Handle {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        assert_ne!(self.fd.get(), CLOSED, "used after close");
        // SAFETY: the descriptor is open, as was just checked; we own it, and nothing between here
        // and the end of the caller's one system call can close it.
        unsafe { BorrowedFd::borrow_raw(self.fd.get()) }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        drop(self.take());
    }
}
