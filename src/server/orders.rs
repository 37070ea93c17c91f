//! The orders of a server: a handle gives them on any thread, and each worker follows them.
//!
//! | phase | who moves it there | on to |
//! |---|---|---|
//! | Starting | `Orders::new` | Serving, Draining, Stopped |
//! | Serving | `Common::start`, when the last worker has started | Draining, Stopped |
//! | Draining | [`ServerHandle::drain`](super::ServerHandle::drain) | Stopped; Draining with a shorter limit |
//! | Stopped | [`ServerHandle::stop`](super::ServerHandle::stop); a worker that fails | - |

// Mirrors `Server.inShutdown` and `doneChan` in Go's `net/http/server.go`.

use std::future::poll_fn;
use std::sync::PoisonError;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::connection::shared::Phase;
use crate::runtime::sync::{Mutex, MutexGuard};
use crate::runtime::waiters::{Ticket, Waiters};
use crate::runtime::wake_quietly;

/// What the workers are to do. The phase only rises, and the limit only falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) phase: Phase,
    /// How long a drain may take, from when a worker learns of it.
    pub(crate) limit: Duration,
    /// How often the workers were told to look at what else they wait for.
    #[cfg(feature = "signal")]
    news: usize,
}

impl Order {
    const FIRST: Order = Order {
        phase: Phase::Starting,
        limit: Duration::MAX,
        #[cfg(feature = "signal")]
        news: 0,
    };
}

/// The order in force, and the workers that wait for the next.
pub(crate) struct Orders {
    state: Mutex<State>,
}

struct State {
    order: Order,
    waiters: Waiters,
}

impl Orders {
    pub(crate) fn new() -> Self {
        let state = State {
            order: Order::FIRST,
            waiters: Waiters::new(),
        };
        Orders {
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code of others runs under the lock, so that a poisoned one is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an order, unless one that asks for as much is in force: then false.
    pub(crate) fn give(&self, phase: Phase, limit: Duration) -> bool {
        self.change(|order| {
            order.phase = order.phase.max(phase);
            order.limit = order.limit.min(limit);
        })
    }

    /// Tells the workers of something new, which is no order.
    #[cfg(feature = "signal")]
    pub(crate) fn tell(&self) {
        self.change(|order| order.news += 1);
    }

    fn change(&self, change: impl FnOnce(&mut Order)) -> bool {
        let mut state = self.state();
        let old = state.order;
        change(&mut state.order);
        if state.order == old {
            return false;
        }
        let waiters = state.waiters.take_all();
        drop(state);
        waiters.for_each(wake_quietly);
        true
    }

    /// Follows the orders from the beginning: one that has been given already is a change.
    pub(crate) fn follow(&self) -> Follower<'_> {
        Follower {
            known: Order::FIRST,
            orders: self,
            ticket: None,
        }
    }
}

/// One worker's view of the orders.
pub(crate) struct Follower<'a> {
    orders: &'a Orders,
    /// The last order that this worker has learned of.
    known: Order,
    ticket: Option<Ticket>,
}

impl Follower<'_> {
    /// Waits for an order that this worker does not know yet.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no order.
    pub(crate) async fn changed(&mut self) -> Order {
        poll_fn(|cx| self.poll_changed(cx)).await
    }

    fn poll_changed(&mut self, cx: &Context<'_>) -> Poll<Order> {
        let waker = cx.waker().clone();
        let mut state = self.orders.state();
        if state.order != self.known {
            self.known = state.order;
            let left = state.waiters.leave(&mut self.ticket);
            drop(state);
            drop((left, waker));
            return Poll::Ready(self.known);
        }
        let (woken, left_over) = state.waiters.poll(&mut self.ticket, waker);
        drop(state);
        drop(left_over);
        debug_assert!(woken.is_pending(), "woken without another order");
        Poll::Pending
    }
}

impl Drop for Follower<'_> {
    fn drop(&mut self) {
        let left = self.orders.state().waiters.leave(&mut self.ticket);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn next(follower: &mut Follower<'_>) -> Option<Order> {
        match follower.poll_changed(&Context::from_waker(Waker::noop())) {
            Poll::Ready(order) => Some(order),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_shorter_drain_wins_a_longer_one_changes_nothing_and_a_stop_is_the_last() {
        let second = Duration::from_secs(1);
        let orders = Orders::new();
        let mut follower = orders.follow();
        assert_eq!(next(&mut follower), None);
        let drain = |limit| orders.give(Phase::Draining, limit);
        let stop = || orders.give(Phase::Stopped, Duration::ZERO);
        assert!(drain(10 * second));
        assert_eq!(next(&mut follower).unwrap().limit, 10 * second);
        assert!(!drain(20 * second) && !drain(10 * second));
        assert_eq!(next(&mut follower), None);
        assert!(drain(second));
        assert_eq!(next(&mut follower).unwrap().limit, second);
        assert!(stop() && !stop() && !drain(second));
        assert_eq!(next(&mut follower).unwrap().phase, Phase::Stopped);
        assert_eq!(next(&mut follower), None);
        let late = next(&mut orders.follow());
        assert_eq!(late.unwrap().phase, Phase::Stopped, "given earlier");
    }
}
