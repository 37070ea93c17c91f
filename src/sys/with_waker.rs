//! A task's future beside its waker, pinned together.
//!
//! May touch: nothing. Go has no such thing: a goroutine's stack is its future.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A future and the waker it runs with, in one allocation.
///
/// Apart, the waker would have to be moved out of the scheduler's slab and back on every run, for
/// the slab can't stay borrowed while anything runs; that is a dozen instructions a message.
pub(crate) struct WithWaker<F> {
    pub(crate) waker: Waker,
    future: F,
}

impl<F: Future> WithWaker<F> {
    pub(crate) fn new(waker: Waker, future: F) -> Self {
        WithWaker { waker, future }
    }

    /// Polls the future with the waker.
    #[inline]
    pub(crate) fn poll(self: Pin<&mut Self>) -> Poll<F::Output> {
        // SAFETY: `future` is pinned whenever the whole is: nothing here moves it or hands out
        // `&mut F`, there is no `Drop` impl, and the whole is `Unpin` only if `F` is. `waker` is
        // never pinned, and only lent.
        let (waker, future) = unsafe {
            let this = self.get_unchecked_mut();
            (&this.waker, Pin::new_unchecked(&mut this.future))
        };
        future.poll(&mut Context::from_waker(waker))
    }
}
