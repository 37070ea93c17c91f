//! How many connections a server may have, over all its workers.
//!
//! May touch: nothing. Mirrors the semaphore of `LimitListener` in Go's `x/net/netutil`, with
//! first-come-first-served among the workers, so that none is starved by a busier one.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

#[derive(Debug)]
pub(crate) struct Permits {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    out: usize,
    waiters: VecDeque<(u64, Waker)>,
    /// A permit is kept for each of these, who have been woken.
    granted: Vec<u64>,
    tickets: u64,
}

/// A connection's right to be. Handed over, it is the worker's to give back.
pub(crate) struct Permit(Option<Arc<Permits>>);

impl Permits {
    pub(crate) fn new(most: usize) -> Self {
        Permits {
            most,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing of anybody's runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, if there is room and nobody waits for it.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Permit> {
        if self.most == usize::MAX {
            return Some(Permit(None));
        }
        let mut state = self.state();
        if state.out >= self.most {
            return None;
        }
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

    /// A connection that had one is gone.
    pub(crate) fn connection_gone(&self) {
        if self.most < usize::MAX {
            self.give_back();
        }
    }

    fn give_back(&self) {
        let mut state = self.state();
        let next = match state.waiters.pop_front() {
            Some((ticket, waker)) => {
                // It stays out: it is that one's.
                state.granted.push(ticket);
                Some(waker)
            }
            None => {
                state.out -= 1;
                None
            }
        };
        drop(state);
        if let Some(waker) = next {
            waker.wake();
        }
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

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

/// See [`Permits::wait`].
pub(crate) struct Wait {
    permits: Arc<Permits>,
    ticket: Option<u64>,
}

impl Future for Wait {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        let permits = self.permits.clone();
        let waker = cx.waker().clone();
        let mut state = permits.state();
        let Some(ticket) = self.ticket else {
            if state.out < permits.most {
                state.out += 1;
                drop(state);
                return Poll::Ready(Permit(Some(permits)));
            }
            let ticket = state.tickets;
            state.tickets += 1;
            state.waiters.push_back((ticket, waker));
            drop(state);
            self.ticket = Some(ticket);
            return Poll::Pending;
        };
        if let Some(at) = state.granted.iter().position(|&granted| granted == ticket) {
            state.granted.swap_remove(at);
            drop(state);
            self.ticket = None;
            return Poll::Ready(Permit(Some(permits)));
        }
        let waiting = state
            .waiters
            .iter_mut()
            .find(|(queued, _)| *queued == ticket);
        let old = waiting.map(|(_, kept)| std::mem::replace(kept, waker));
        drop(state);
        drop(old);
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.permits.state();
        let at = state
            .waiters
            .iter()
            .position(|(queued, _)| *queued == ticket);
        let gone = at.and_then(|at| state.waiters.remove(at));
        let granted = state.granted.iter().position(|&granted| granted == ticket);
        if let Some(at) = granted {
            state.granted.swap_remove(at);
        }
        drop(state);
        drop(gone);
        if granted.is_some() {
            self.permits.give_back();
        }
    }
}
