//! A limit of connections, over all threads of a server: first come, first served, so that no thread
//! is starved by a busier one.

// Mirrors `x/net/netutil.LimitListener`.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use crate::runtime::sync::{Mutex, lock};
use crate::runtime::waiters::{Ticket, Waiters};
use crate::runtime::wake_quietly;

/// How many connections a server may have.
#[derive(Debug)]
pub(crate) struct Permits(Mutex<PermitState>);

#[derive(Debug)]
struct PermitState {
    /// Zero while anything waits: a permit that comes back goes to the first waiter.
    free: usize,
    waiters: Waiters,
}

/// A permit for one connection. Dropping it gives the permit back, unless it was handed over.
pub(crate) struct Permit(Option<Arc<Permits>>);

impl Permits {
    pub(crate) fn new(max: usize) -> Self {
        Permits(Mutex::new(PermitState {
            free: max,
            waiters: Waiters::default(),
        }))
    }

    /// Takes one, at the first poll if one is free.
    pub(crate) async fn take(self: &Arc<Self>) -> Permit {
        let mut waiting = Waiting(self, None);
        poll_fn(|cx| {
            let waker = cx.waker().clone();
            let mut state = lock(&self.0);
            if waiting.1.is_none() && state.free > 0 {
                debug_assert!(state.waiters.is_empty(), "a waiter is passed over");
                state.free -= 1;
                return Poll::Ready(());
            }
            let (polled, left_over) = state.waiters.poll(&mut waiting.1, waker);
            drop(state);
            drop(left_over);
            polled
        })
        .await;
        Permit(Some(self.clone()))
    }

    /// Gives a permit back that was [handed over](Permit::hand_over): its connection has ended.
    pub(crate) fn give_back(&self) {
        let mut state = lock(&self.0);
        let next = state.waiters.pop();
        debug_assert!(next.is_none() || state.free == 0);
        if next.is_none() {
            state.free += 1;
        }
        drop(state);
        next.into_iter().for_each(wake_quietly);
    }

    /// How many are free, and how many accept loops wait for one.
    pub(crate) fn figures(&self) -> [usize; 2] {
        let state = lock(&self.0);
        [state.free, state.waiters.len()]
    }
}

impl Permit {
    /// From here on a connection has it: see [`Permits::give_back`].
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

/// A place in the queue for a permit, if it has a ticket.
struct Waiting<'a>(&'a Permits, Option<Ticket>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let (was_woken, left_over) = lock(&self.0.0).waiters.leave(&mut self.1);
        drop(left_over);
        // It was woken for a permit and does not take it: the permit goes to the next waiter.
        if was_woken && !fault!("leaked_permit") {
            self.0.give_back();
        }
    }
}
