//! Who waits for a descriptor to become free on this thread.
//!
//! May touch: the waker. Go has no counterpart: its accept loops sleep out their back-off.
//!
//! The table of descriptors is the process's, so this is for all runtimes of a thread. Closes on
//! other threads, and by other libraries, are not seen: who waits should wait for a time as well.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::waker::wake_quietly;

thread_local! {
    /// Whether anybody may wait: the one look that every close takes.
    static WAITING: Cell<bool> = const { Cell::new(false) };
    static TICKETS: Cell<u64> = const { Cell::new(0) };
    static WAITERS: RefCell<Vec<(u64, Waker)>> = const { RefCell::new(Vec::new()) };
}

/// A descriptor was closed, or will be before anybody else runs.
#[inline]
pub(crate) fn descriptor_closed() {
    if WAITING.get() {
        wake();
    }
}

#[cold]
#[inline(never)]
fn wake() {
    WAITING.set(false);
    // Taken out first: waking runs other people's code.
    let waiters = WAITERS.try_with(RefCell::take).unwrap_or_default();
    waiters
        .into_iter()
        .for_each(|(_, waker)| wake_quietly(waker));
}

/// Waits until a descriptor is closed on this thread, from the first poll on.
#[derive(Default)]
pub(crate) struct UntilClosed {
    /// Its place among the waiters; gone from there means woken.
    ticket: Option<u64>,
}

impl Future for UntilClosed {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let old = match self.ticket {
            None => {
                let ticket = TICKETS.replace(TICKETS.get().wrapping_add(1));
                self.ticket = Some(ticket);
                WAITERS.with_borrow_mut(|waiters| waiters.push((ticket, waker)));
                WAITING.set(true);
                None
            }
            Some(ticket) => WAITERS.with_borrow_mut(|waiters| {
                let place = waiters.iter_mut().find(|(waiting, _)| *waiting == ticket);
                Some(place.map(|(_, place)| std::mem::replace(place, waker)))
            }),
        };
        // What was replaced is dropped here, out of the borrow.
        match old {
            Some(None) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

impl Drop for UntilClosed {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let gone = WAITERS.try_with(|waiters| {
            let mut waiters = waiters.borrow_mut();
            let at = waiters.iter().position(|(waiting, _)| *waiting == ticket);
            at.map(|at| waiters.swap_remove(at))
        });
        drop(gone);
    }
}
