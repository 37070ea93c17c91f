//! A limit of connections, over all threads of a server: first come, first served, so that no thread
//! is starved by a busier one.

// Mirrors `x/net/netutil.LimitListener`.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};

use crate::runtime::sync::{Mutex, MutexGuard};
use crate::runtime::waiters::{Left, Ticket, Waiters};
use crate::runtime::wake_quietly;

/// How many connections a server may have.
#[derive(Debug)]
pub(crate) struct Permits {
    max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Permits given out, at most `max`. It is `max` while anything waits: a permit that comes back
    /// goes to the first waiter and stays out.
    out: usize,
    waiters: Waiters,
}

/// A connection's right to exist. Its drop gives it back. `None` where there is no limit.
pub(crate) struct Permit(Option<Arc<Permits>>);

impl Permits {
    /// As many as `max`; `usize::MAX` for no limit.
    pub(crate) fn new(max: usize) -> Self {
        Permits {
            max,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code of others runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, if there is room.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Permit> {
        if self.max == usize::MAX {
            return Some(Permit(None));
        }
        let mut state = self.state();
        if state.out == self.max {
            return None;
        }
        debug_assert!(state.waiters.is_empty(), "a waiter is passed over");
        state.out += 1;
        Some(Permit(Some(self.clone())))
    }

    /// Waits for one.
    pub(crate) fn wait(self: &Arc<Self>) -> Wait {
        Wait {
            permits: self.clone(),
            ticket: None,
        }
    }

    /// A connection whose permit was [handed over](Permit::hand_over) has ended.
    pub(crate) fn connection_gone(&self) {
        if self.max < usize::MAX {
            self.give_back();
        }
    }

    fn give_back(&self) {
        let mut state = self.state();
        let next = state.waiters.pop();
        if next.is_none() {
            debug_assert!(state.out > 0, "more permits come back than went out");
            state.out -= 1;
        }
        drop(state);
        next.into_iter().for_each(wake_quietly);
    }
}

impl Permit {
    /// From here on a connection has it: see [`Permits::connection_gone`].
    pub(crate) fn hand_over(mut self) {
        self.0 = None;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(permits) = &self.0 {
            permits.give_back();
        }
    }
}

/// See [`Permits::wait`].
pub(crate) struct Wait {
    permits: Arc<Permits>,
    ticket: Option<Ticket>,
}

impl Future for Wait {
    type Output = Permit;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        let this = self.get_mut();
        let (permits, waker) = (this.permits.clone(), cx.waker().clone());
        let mut state = permits.state();
        if this.ticket.is_none() && state.out < permits.max {
            state.out += 1;
            drop(state);
            return Poll::Ready(Permit(Some(permits)));
        }
        let (polled, left_over) = state.waiters.poll(&mut this.ticket, waker);
        drop(state);
        drop(left_over);
        polled.map(|()| Permit(Some(permits)))
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let left = self.permits.state().waiters.leave(&mut self.ticket);
        // It was woken for a permit and does not take it: the permit goes to the next waiter.
        if matches!(left, Left::Woken) && !fault!("leaked_permit") {
            self.permits.give_back();
        }
    }
}
