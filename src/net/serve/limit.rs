//! How many connections a server has, and who waits for one of them to go.
//!
//! May touch: nothing. Mirrors the semaphore of `LimitListener` in Go's `x/net/netutil`.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::runtime::wake_quietly;

/// How many are served, and who waits for one of them to go.
#[derive(Default)]
pub(super) struct Limit {
    live: Cell<usize>,
    waiter: Cell<Option<Waker>>,
    accepted: Cell<u64>,
    pub(super) refused: Cell<u64>,
    pub(super) episodes: Cell<u64>,
}

pub(super) fn count(counter: &Cell<u64>) {
    counter.set(counter.get().wrapping_add(1));
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit")
            .field("live", &self.live.get())
            .finish_non_exhaustive()
    }
}

/// Waits until fewer than so many are out. It stays so: the one loop of a server is the only one
/// that gives out permits.
pub(super) struct Room<'a>(pub(super) &'a Limit, pub(super) usize);

impl Future for Room<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Room(limit, most) = *self;
        if limit.live.get() < most {
            return Poll::Ready(());
        }
        let old = limit.waiter.replace(Some(cx.waker().clone()));
        drop(old);
        Poll::Pending
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        drop(self.0.waiter.take());
    }
}

/// A connection's right to be: it goes with the connection's task, however that ends.
pub(super) struct Permit(Rc<Limit>);

impl Permit {
    pub(super) fn new(limit: &Rc<Limit>) -> Self {
        count(&limit.accepted);
        limit.live.set(limit.live.get() + 1);
        Permit(limit.clone())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.live.set(self.0.live.get() - 1);
        if let Some(waiter) = self.0.waiter.take() {
            wake_quietly(waiter);
        }
    }
}

/// What a [`Serve`](super::Serve) has done and does.
#[derive(Clone)]
pub struct ServeCounters(pub(super) Rc<Limit>);

impl ServeCounters {
    /// Connections accepted.
    pub fn accepted(&self) -> u64 {
        self.0.accepted.get()
    }

    /// Connections being served.
    pub fn live(&self) -> usize {
        self.0.live.get()
    }

    /// Accepts that failed because the system was short of something.
    pub fn refused(&self) -> u64 {
        self.0.refused.get()
    }

    /// Shortages: however many accepts failed one soon after the other.
    pub fn episodes(&self) -> u64 {
        self.0.episodes.get()
    }
}

impl fmt::Debug for ServeCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeCounters")
            .field("accepted", &self.accepted())
            .field("live", &self.live())
            .field("refused", &self.refused())
            .field("episodes", &self.episodes())
            .finish()
    }
}
