//! How a descriptor goes: closed from any handle, lent and closed meanwhile, left by its peer.
//!
//! May touch: the runtime and the reactor. Mirrors `internal/poll/fd_unix.go` (`FD.Close`,
//! `FD.destroy`, `FD.RawControl`).

use std::os::fd::{BorrowedFd, OwnedFd};
use std::task::{Context, Poll};

use mio::event::Source;
use mio::unix::SourceFd;
use socket2::SockRef;

use super::{Failure, Fd};
use crate::reactor::{Closes, Park, Refusal};
use crate::runtime::blocking;
use crate::runtime::resource::{Parked, Place};
use crate::runtime::shortage;
use crate::runtime::wake_quietly;

impl Fd {
    pub(crate) fn is_closed(&self) -> bool {
        self.link.is_closed()
    }

    /// Closes for every handle, at once: who is parked is woken and never touches it again.
    pub(crate) fn close(&self) -> Result<(), Failure> {
        if self.is_closed() {
            return Err(Failure::Refused(Refusal::Closed));
        }
        // While the socket can still tell: later errors will want to name it.
        self.learn_endpoints();
        self.shut();
        Ok(())
    }

    pub(super) fn shut(&self) {
        let resource = &self.link.user_data;
        // Before the descriptor goes, as Go does it: whoever finds the path finds us there.
        drop(resource.attach(None));
        let raw = resource.handle.raw();
        let closes = match resource.handle.may_be_duplicated() {
            true => Closes::No,
            false => Closes::Soon,
        };
        self.leave(&mut SourceFd(&raw), closes);
        match resource.handle.take() {
            Some(fd) if resource.handle.may_linger() => close_fd(fd),
            closed => drop(closed),
        }
        shortage::descriptor_closed();
    }

    /// Closes what the end of its runtime has left to its last handle.
    #[cold]
    #[inline(never)]
    fn bury(&self) {
        if self.link.handles() <= 1 {
            self.resource().handle.take().into_iter().for_each(close_fd);
        }
    }

    /// Takes the socket out of the runtime; the other handles find it closed.
    pub(crate) fn detach(&self) -> Option<OwnedFd> {
        let raw = self.resource().handle.raw();
        self.leave(&mut SourceFd(&raw), Closes::No);
        self.resource().handle.take()
    }

    /// Deregisters, and wakes whoever is parked. `closes`: see `PollDesc::close`.
    pub(crate) fn leave(&self, source: &mut dyn Source, closes: Closes) {
        let mut wakers = Vec::new();
        self.link.user_data.take_all_wakers(&mut wakers);
        if let Err(error) = self.link.close(source, closes) {
            log::debug!("the selector would not forget a descriptor: {error}");
        }
        wakers.into_iter().for_each(wake_quietly);
    }

    /// Lends the descriptor itself; a close that comes meanwhile is put off until it is back.
    pub(crate) fn with_fd<R>(&self, f: impl FnOnce(BorrowedFd<'_>) -> R) -> Result<R, Failure> {
        if self.is_closed() {
            return Err(Failure::Refused(Refusal::Closed));
        }
        self.resource().handle.note_linger();
        let lent = self.resource().handle.with(f, close_fd);
        lent.ok_or(Failure::Refused(Refusal::Closed))
    }

    // ---- the peer's going ----

    /// Who may loop on it is to yield in its turn.
    pub(crate) fn poll_hung_up(
        &self,
        ticket: &mut Option<u32>,
        cx: &Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        let parked = Parked::foreign(self.link.token(), Place::HangUp);
        match self.link.park_hang_up(parked).0 {
            Park::Ready(_) => Poll::Ready(Ok(())),
            Park::Parked => {
                self.link.user_data.await_hang_up(ticket, cx.waker());
                Poll::Pending
            }
            Park::TimedOut(_) | Park::Closed(_) => {
                Poll::Ready(Err(Failure::Refused(Refusal::Closed)))
            }
        }
    }

    pub(crate) fn forget_hang_up(&self, ticket: u32) {
        if self.link.user_data.forget_hang_up(ticket) {
            self.link.unpark_hang_up();
        }
    }
}

impl Drop for Fd {
    #[inline]
    fn drop(&mut self) {
        // The registry's and ours: the last handle goes, so nothing can be parked here.
        if self.link.handles() <= 2 && !self.is_closed() {
            self.shut();
        } else if self.resource().handle.may_linger() {
            self.bury();
        }
    }
}

/// A lingering close blocks even on a non-blocking socket: not in the loop.
fn close_fd(fd: OwnedFd) {
    if lingers(&fd) {
        blocking::closes().run(Box::new(move || drop(fd)));
    }
}

/// Whether closing it may block until what was written has been sent.
fn lingers(fd: &OwnedFd) -> bool {
    let linger = SockRef::from(fd).linger();
    matches!(linger, Ok(Some(wait)) if !wait.is_zero())
}
