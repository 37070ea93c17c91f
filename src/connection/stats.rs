//! What the connections of one worker count.

// Mirrors the counters of Go's `expvar`.

use crate::runtime::counter::Counter;

/// What a worker has done. Its thread writes, and any thread reads: the fields are described at
/// [`WorkerStats`](crate::WorkerStats).
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) accepted: Counter,
    pub(crate) live: Counter,
    pub(crate) refused: Counter,
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
    pub(crate) heartbeats: Counter,
    pub(crate) idled: Counter,
    pub(crate) slow: Counter,
    pub(crate) limited: Counter,
    pub(crate) failed: Counter,
    pub(crate) turns: Counter,
    pub(crate) events: Counter,
}
