//! Waiting for a descriptor to become free on this thread.
//!
//! The table of descriptors belongs to the process, so this serves all runtimes of a thread. It does not
//! see what other threads and other libraries close, so its callers also wait for a time.

// Go has no counterpart: its accept loops sleep out their back-off.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::panics::wake_quietly;
use super::waiters::{Ticket, Waiters};

thread_local! {
    static WAITERS: RefCell<Waiters> = const { RefCell::new(Waiters::new()) };
}

/// A descriptor was closed, or will be before anything else runs.
pub(crate) fn descriptor_closed() {
    // The waiters are taken out first: waking may run any code.
    let waiters = WAITERS.try_with(|waiters| waiters.borrow_mut().take_all());
    waiters.into_iter().flatten().for_each(wake_quietly);
}

/// Waits until a descriptor is closed on this thread, counted from the first poll.
#[derive(Default)]
pub(crate) struct UntilClosed {
    ticket: Option<Ticket>,
}

impl Future for UntilClosed {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let (poll, left_over) =
            WAITERS.with_borrow_mut(|waiters| waiters.poll(&mut self.ticket, waker));
        drop(left_over);
        poll
    }
}

impl Drop for UntilClosed {
    fn drop(&mut self) {
        let left = WAITERS.try_with(|waiters| waiters.borrow_mut().leave(&mut self.ticket));
        drop(left);
    }
}
