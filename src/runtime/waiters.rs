//! The one queue of waiters: first come, first served.
//!
//! `Waiters` is plain data. Its user keeps it in a `RefCell`, or in a `Mutex` where several threads
//! wait. Cloning, waking and dropping a waker may run any code, so all three are done while nothing
//! is borrowed or locked:
//!
//! ```text
//! let waker = cx.waker().clone();                               // before the borrow
//! let (poll, left_over) = cell.borrow_mut().poll(&mut ticket, waker);
//! drop(left_over);                                              // after the borrow
//! ```
//!
//! | state of a ticket | meaning | moved there by | on to |
//! |---|---|---|---|
//! | none | it does not wait | a new waiter; `poll` that says Ready; `leave` | Queued by `poll` |
//! | Queued | it is in the queue, with its waker unless `nudge` took that | `poll` | Woken by `pop` or `take_all`; none by `leave` |
//! | Woken | it has been taken out of the queue, and has not been polled since | `pop`, `take_all` | none by `poll`, which says Ready, or by `leave`, which says that it had been woken |
//!
//! A waiter that is dropped calls `leave`. If it was woken already, it owns the lock or the permit that
//! it waited for, and must pass it on.

// Mirrors the semaphore queue of `runtime/sema.go`, as used by `fdMutex`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::wake_quietly;

/// A waiter's number. Numbers only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// Waiters in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    /// In the order of the tickets, which is the order of arrival. `None`: that waiter was nudged, and
    /// has not polled since.
    queue: BTreeMap<Ticket, Option<Waker>>,
    /// The number of the next ticket.
    next: u64,
}

impl Waiters {
    /// Joins the queue, or renews the waker of a ticket that is in it. Ready if the ticket has been
    /// woken; the ticket is then none again.
    ///
    /// Also returns a waker that is not needed, to be dropped after the borrow.
    #[must_use = "drop the waker after the borrow"]
    pub(crate) fn poll(
        &mut self,
        ticket: &mut Option<Ticket>,
        waker: Waker,
    ) -> (Poll<()>, Option<Waker>) {
        let Some(known) = *ticket else {
            let new = Ticket(self.next);
            self.next += 1;
            self.queue.insert(new, Some(waker));
            *ticket = Some(new);
            return (Poll::Pending, None);
        };
        match self.queue.get_mut(&known) {
            Some(kept) => (Poll::Pending, kept.replace(waker)),
            None => {
                *ticket = None;
                (Poll::Ready(()), Some(waker))
            }
        }
    }

    /// Leaves the queue, for a waiter that is dropped or needs to wait no more. Says whether it had been
    /// woken and has not been polled since, and hands back its waker, unless `nudge` took it.
    #[must_use = "drop the waker after the borrow; a woken waiter passes on what it was woken for"]
    pub(crate) fn leave(&mut self, ticket: &mut Option<Ticket>) -> (bool, Option<Waker>) {
        let Some(ticket) = ticket.take() else {
            return (false, None);
        };
        let queued = self.queue.remove(&ticket);
        (queued.is_none(), queued.flatten())
    }

    /// Takes out the first waiter, to be woken after the borrow.
    #[must_use = "wake it after the borrow"]
    pub(crate) fn pop(&mut self) -> Option<Waker> {
        let (_, waker) = self.queue.pop_first()?;
        Some(waker.unwrap_or_else(|| Waker::noop().clone()))
    }

    /// Takes out all waiters in their order, to be woken after the borrow.
    #[must_use = "wake them after the borrow"]
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = Waker> + use<> {
        std::mem::take(&mut self.queue).into_values().flatten()
    }

    /// Takes all wakers, for the caller to wake. The waiters keep their places in the queue. Each brings a
    /// new waker when it polls again; until then it has none.
    #[must_use = "wake them after the borrow"]
    pub(crate) fn nudge(&mut self) -> impl Iterator<Item = Waker> {
        self.queue.values_mut().filter_map(Option::take)
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Calls `look` with each waker, except those that `nudge` took.
    pub(crate) fn each(&self, look: impl FnMut(&Waker)) {
        self.queue.values().flatten().for_each(look);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

// ---- the waiters for a descriptor that becomes free ----
//
// Go has no counterpart: its accept loops sleep out their back-off.

thread_local! {
    /// The table of descriptors belongs to the process, so this serves all runtimes of a thread. What
    /// other threads and other libraries close is not seen, so the waiters have a time limit too.
    static WAITERS: RefCell<Waiters> = RefCell::default();
}

/// A descriptor was closed, or soon will be.
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    struct Waiter;

    impl Wake for Waiter {
        fn wake(self: Arc<Self>) {}
    }

    fn wait(waiters: &mut Waiters, ticket: &mut Option<Ticket>) -> bool {
        let (poll, left_over) = waiters.poll(ticket, Arc::new(Waiter).into());
        drop(left_over);
        poll.is_ready()
    }

    #[test]
    fn the_first_to_come_is_the_first_to_be_woken_and_a_renewed_waker_keeps_its_turn() {
        let mut waiters = Waiters::default();
        let (mut first, mut second) = (None, None);
        assert!(!wait(&mut waiters, &mut first) && !wait(&mut waiters, &mut second));
        assert!(!wait(&mut waiters, &mut first), "renewed");
        assert_eq!(waiters.len(), 2);
        assert!(waiters.pop().is_some());
        assert!(!wait(&mut waiters, &mut second), "not its turn");
        assert!(wait(&mut waiters, &mut first), "woken");
        assert_eq!(first, None);
    }

    #[test]
    fn waiters_that_are_nudged_keep_their_turns_and_are_not_nudged_again_before_they_poll() {
        let mut waiters = Waiters::default();
        let (mut first, mut second) = (None, None);
        assert!(!wait(&mut waiters, &mut first) && !wait(&mut waiters, &mut second));
        assert_eq!(waiters.nudge().count(), 2);
        assert_eq!(waiters.nudge().count(), 0);
        assert!(!wait(&mut waiters, &mut second), "it renews its waker");
        assert_eq!(waiters.nudge().count(), 1);
        assert!(waiters.pop().is_some());
        assert!(wait(&mut waiters, &mut first), "it came first");
    }

    #[test]
    fn a_waiter_that_leaves_learns_whether_it_had_been_woken() {
        let mut waiters = Waiters::default();
        let (mut queued, mut woken, mut idle) = (None, None, None);
        assert!(!wait(&mut waiters, &mut woken) && !wait(&mut waiters, &mut queued));
        assert!(waiters.pop().is_some());
        assert!(waiters.leave(&mut woken).0);
        assert!(matches!(waiters.leave(&mut queued), (false, Some(_))));
        assert!(matches!(waiters.leave(&mut idle), (false, None)));
        assert!(waiters.is_empty() && waiters.pop().is_none());
    }
}
