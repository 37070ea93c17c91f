//! What a server has done, counted by each worker and read by anybody.
//!
//! May touch: nothing. Mirrors the counters of Go's `expvar`.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a worker has done, readable from other threads. One thread writes, so that to count is a
/// load and a store.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) accepted: AtomicU64,
    pub(crate) live: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) heartbeats: AtomicU64,
    pub(crate) idled: AtomicU64,
    pub(crate) slow: AtomicU64,
    pub(crate) limited: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) turns: AtomicU64,
    pub(crate) events: AtomicU64,
}

#[inline]
pub(crate) fn add(counter: &AtomicU64, more: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(more),
        Ordering::Relaxed,
    );
}
