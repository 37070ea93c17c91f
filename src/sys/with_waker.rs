//! A task's future beside its waker and its data, pinned together.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A future, the waker it runs with and what else belongs to it, in one allocation.
///
/// With the waker elsewhere it would have to be moved out of the slab of machines and back for each
/// run, since the slab can't stay borrowed while a machine runs.
pub(crate) struct WithWaker<F, D> {
    pub(crate) waker: Waker,
    pub(crate) data: D,
    future: F,
}

impl<F: Future, D> WithWaker<F, D> {
    pub(crate) fn new(waker: Waker, data: D, future: F) -> Self {
        WithWaker {
            waker,
            data,
            future,
        }
    }

    pub(crate) fn data(self: Pin<&mut Self>) -> &mut D {
        // SAFETY: `data` is never pinned, and `future` is not touched.
        unsafe { &mut self.get_unchecked_mut().data }
    }

    /// Polls the future with the waker.
    pub(crate) fn poll(self: Pin<&mut Self>) -> Poll<F::Output> {
        // SAFETY: `future` is pinned whenever the whole is: nothing here moves it or hands out
        // `&mut F`, there is no `Drop` impl, and the whole is `Unpin` only if `F` is. `waker` is
        // never pinned, and only lent here.
        let (waker, future) = unsafe {
            let this = self.get_unchecked_mut();
            (&this.waker, Pin::new_unchecked(&mut this.future))
        };
        future.poll(&mut Context::from_waker(waker))
    }
}
