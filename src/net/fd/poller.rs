//! Operations of a poller (futures-io), which has no future to keep its place between two polls.
//!
//! May touch: the loop in `mod.rs`. Go has none of this: a goroutine is its own place.

use std::io;
use std::task::{Context, Poll};

use super::{Failure, Fd};
use crate::reactor::Direction;
use crate::runtime::resource::Hold;

impl Fd {
    /// One operation of a poller, which has no future to hold the direction between two polls: it
    /// waits while an operation holds it, and else parks without holding it.
    pub(crate) fn poll_unheld<R>(
        &self,
        direction: Direction,
        cx: &Context<'_>,
        attempt: impl FnMut(&Fd) -> io::Result<R>,
    ) -> Poll<Result<R, Failure>> {
        let resource = &self.link.user_data;
        if let Err(refusal) = self.link.check(direction) {
            drop(resource.take_poller(direction));
            return self.poll_refused(refusal, cx);
        }
        if self.poll_release(direction, cx).is_pending() {
            return Poll::Pending;
        }
        let mut hold = Hold::Free;
        let polled = self.poll_step(direction, &mut hold, cx, attempt);
        resource.release(direction, &mut hold);
        if polled.is_pending() {
            resource.keep_poller(direction, cx.waker());
        }
        polled
    }

    /// Waits until no operation holds the direction. The last poller wins: an earlier one's waker
    /// goes.
    pub(crate) fn poll_release(&self, direction: Direction, cx: &Context<'_>) -> Poll<()> {
        let resource = &self.link.user_data;
        drop(resource.take_poller(direction));
        if self.is_closed() || !resource.is_held(direction) {
            return Poll::Ready(());
        }
        resource.keep_poller(direction, cx.waker());
        Poll::Pending
    }
}
