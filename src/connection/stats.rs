//! What a server has done, counted by each worker and read by anybody.
//!
//! May touch: nothing. Mirrors the counters of Go's `expvar`.

use std::fmt;
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

/// What a server has done, by worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// One for each worker.
    pub workers: Vec<WorkerStats>,
}

/// What one thread of a server has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerStats {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections alive.
    pub live: u64,
    /// Accepts that failed because the system was short of something.
    pub refused: u64,
    /// Bytes that came.
    pub received: u64,
    /// Bytes that the system took.
    pub sent: u64,
    /// Heartbeats.
    pub heartbeats: u64,
    /// Connections closed because they were idle.
    pub idled: u64,
    /// Connections closed because a minimum rate was not met.
    pub slow: u64,
    /// Connections closed because they would have kept more in memory than a limit allows.
    pub limited: u64,
    /// Connections that ended with another error: reset, a protocol's own, a panic, a stop.
    pub failed: u64,
    /// Turns of its loop, known once it has ended; none of them where it ran in a runtime of yours.
    pub turns: u64,
    /// Events harvested: as `turns`.
    pub events: u64,
}

impl Tally {
    pub(crate) fn read(&self) -> WorkerStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WorkerStats {
            accepted: load(&self.accepted),
            live: load(&self.live),
            refused: load(&self.refused),
            received: load(&self.received),
            sent: load(&self.sent),
            heartbeats: load(&self.heartbeats),
            idled: load(&self.idled),
            slow: load(&self.slow),
            limited: load(&self.limited),
            failed: load(&self.failed),
            turns: load(&self.turns),
            events: load(&self.events),
        }
    }
}

impl Stats {
    fn sum(&self, of: impl Fn(&WorkerStats) -> u64) -> u64 {
        self.workers.iter().map(of).sum()
    }

    /// Connections accepted, by all workers.
    pub fn accepted(&self) -> u64 {
        self.sum(|worker| worker.accepted)
    }

    /// Connections alive.
    pub fn live(&self) -> u64 {
        self.sum(|worker| worker.live)
    }

    /// Bytes that came.
    pub fn received(&self) -> u64 {
        self.sum(|worker| worker.received)
    }

    /// Bytes that the system took.
    pub fn sent(&self) -> u64 {
        self.sum(|worker| worker.sent)
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "accepted {}, open {}, received {}, sent {}",
            self.accepted(),
            self.live(),
            self.received(),
            self.sent()
        )
    }
}
