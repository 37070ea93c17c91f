//! Reading into the loop's own buffer, which is lent to a closure; with the fast path of a task.

// Go has no counterpart: there, every reader that waits holds a buffer.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use super::{Claim, Fd, LockState, ParkKey};
use crate::reactor::{Direction, May};
use crate::runtime::{context, lent};

/// [`Fd::read_with`]. The usual path of a busy connection is written out, which halves the
/// instructions of an echo; the rest is [`Claim::poll_read_slow`].
pub(crate) struct ReadWith<'a, F> {
    claim: Claim<'a>,
    f: Option<F>,
}

impl Fd {
    pub(crate) fn read_with<R, F: FnOnce(&[u8]) -> R>(&self, f: F) -> ReadWith<'_, F> {
        ReadWith {
            claim: Claim::new(self, Direction::Read),
            f: Some(f),
        }
    }
}

impl<F> Unpin for ReadWith<'_, F> {}

impl<F: FnOnce(&[u8]) -> R, R> Future for ReadWith<'_, F> {
    type Output = io::Result<R>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let fd = this.claim.fd;
        let (buffer, got) = match this.claim.lock {
            // It holds the lock, the socket counts as ready, and there is budget.
            LockState::Holder
                if fd.desc.may_try(Direction::Read) == May::Try && context::has_budget() =>
            {
                match lent::fill(|buffer| fd.receive(buffer)) {
                    Ok(filled) => filled,
                    Err(error) => ready!(this.claim.poll_read_slow(cx, Some(error)))?,
                }
            }
            // It has just begun, and nothing is there.
            LockState::Idle if fd.park_at_once(Direction::Read, cx.waker()) => {
                this.claim.lock = LockState::Holder;
                fd.trace("park", Direction::Read);
                return Poll::Pending;
            }
            _ => ready!(this.claim.poll_read_slow(cx, None))?,
        };
        fd.transferred(Direction::Read, got, lent::LENGTH);
        // Unlock before calling `f`, because `f` may read from the same socket.
        fd.socket().unlock(Direction::Read, &mut this.claim.lock);
        let f = this.f.take();
        let f = f.expect("an operation that is done is not polled");
        let result = f(&buffer[..got]);
        lent::give_back(buffer);
        Poll::Ready(Ok(result))
    }
}

impl Fd {
    /// Locks the direction and parks there, if it is uncontended, the socket is neither ready nor closed
    /// nor expired, and the waker is the running machine's own. Returns whether it did.
    #[inline]
    fn park_at_once(&self, direction: Direction, waker: &Waker) -> bool {
        let socket = &self.desc.user_data;
        if self.desc.may_try(direction) != May::Wait || !socket.is_uncontended(direction) {
            return false;
        }
        let Some(id) = context::own(self.home(), waker) else {
            return false;
        };
        socket.lock_uncontended(direction);
        self.desc.park_waiting(direction, ParkKey::machine(id));
        true
    }
}

impl Claim<'_> {
    /// All other cases of [`ReadWith`]. If it returns bytes, they are in the buffer, and the lock is still
    /// held. After an error the lock is released. `met` is the fast path's error. It is used as the result
    /// of the first try, because the kernel reports a reset only once.
    #[cold]
    fn poll_read_slow(
        &mut self,
        cx: &Context<'_>,
        mut met: Option<io::Error>,
    ) -> Poll<io::Result<(lent::Buffer, usize)>> {
        let read = |fd: &Fd| match met.take() {
            Some(error) => Err(error),
            None => lent::fill(|buffer| fd.receive(buffer)),
        };
        let polled = self.poll_step(cx, read);
        polled.map_err(|failure| {
            self.release();
            self.fd.error("read", failure)
        })
    }
}
