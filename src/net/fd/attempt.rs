//! One system call each, and what its answer tells of the readiness behind it.
//!
//! May touch: `sys/`. Mirrors `internal/poll/fd_unix.go` (`FD.Read`, `FD.Write`, their limits).

use std::io;

use super::{Failure, Fd};
use crate::reactor::Direction;
use crate::runtime::context;
use crate::runtime::resource::Hold;
use crate::sys::{ErrorNumber, Outcome};

/// The most that one system call is given: some systems fail, or truncate, above 1 GiB.
pub(crate) const MOST_AT_ONCE: usize = 1 << 30;

/// Some, and less than it might have been: what was asked for is not what we capped.
#[inline]
fn is_short(bytes: usize, asked: usize) -> bool {
    bytes < asked && asked < MOST_AT_ONCE && bytes > 0
}

impl Fd {
    /// Notes what a read or write moved. One that moved less than it might have shows that the
    /// kernel has no more, or takes no more: the next try can wait for an edge, and a system call
    /// is saved. That holds on TCP alone (a Unix stream's read stops at passed descriptors).
    #[inline]
    pub(crate) fn moved(&self, direction: Direction, bytes: usize, asked: usize) {
        context::charge(bytes);
        self.fell_short(direction, bytes, asked);
    }

    #[inline]
    pub(super) fn fell_short(&self, direction: Direction, bytes: usize, asked: usize) {
        if is_short(bytes, asked) {
            self.link.transferred(direction, bytes, asked);
        }
    }

    /// As [`Fd::moved`], at the end of an operation, which gives the direction back.
    #[inline]
    pub(crate) fn moved_and_done(
        &self,
        direction: Direction,
        bytes: usize,
        asked: usize,
        hold: &mut Hold,
    ) {
        context::charge(bytes);
        self.fell_short(direction, bytes, asked);
        self.link.user_data.release(direction, hold);
    }

    /// Whether nothing can lie behind what the kernel shows: no urgent byte, no hang-up.
    pub(crate) fn short_means_drained(&self) -> bool {
        self.link.short_means_drained()
    }

    /// One read.
    #[inline]
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.resource().handle.receive(buffer).result()?)
    }

    /// One write without waiting. It is not charged: it follows on a read that was.
    #[inline]
    pub(crate) fn try_send(&self, bytes: &[u8]) -> Result<usize, Failure> {
        if self.link.check(Direction::Write).is_ok() && bytes.len() < MOST_AT_ONCE {
            return self.tried_to_send(bytes, self.resource().handle.send(bytes));
        }
        self.try_send_with_care(bytes, None)
    }

    /// What has become of a write without waiting.
    #[inline]
    pub(crate) fn tried_to_send(&self, bytes: &[u8], sent: Outcome) -> Result<usize, Failure> {
        match sent.result() {
            Ok(gone) => {
                self.fell_short(Direction::Write, gone, bytes.len());
                Ok(gone)
            }
            Err(number) => self.try_send_with_care(bytes, Some(number)),
        }
    }

    #[cold]
    #[inline(never)]
    fn try_send_with_care(
        &self,
        bytes: &[u8],
        mut met: Option<ErrorNumber>,
    ) -> Result<usize, Failure> {
        self.try_once(Direction::Write, |fd| match met.take() {
            // The system tells a reset once, and then speaks of a broken pipe.
            Some(number) => Err(number.into()),
            None => fd.send(bytes),
        })
    }

    /// One write, of no more than the system takes at once, and never a SIGPIPE.
    #[inline]
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(MOST_AT_ONCE)];
        let gone = self.resource().handle.send(bytes).result()?;
        self.moved(Direction::Write, gone, bytes.len());
        Ok(gone)
    }

    /// One try, no waiting: `WouldBlock` if it would have to.
    pub(crate) fn try_once<R>(
        &self,
        direction: Direction,
        mut attempt: impl FnMut(&Fd) -> io::Result<R>,
    ) -> Result<R, Failure> {
        self.link.check(direction).map_err(Failure::Refused)?;
        loop {
            match attempt(self) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if error.kind() == io::ErrorKind::WouldBlock {
                        self.drained(direction).map_err(Failure::System)?;
                    }
                    return Err(Failure::System(error));
                }
                Ok(done) => return Ok(done),
            }
        }
    }
}
