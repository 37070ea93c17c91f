//! What a server has done: each worker counts, and any thread reads.

// Mirrors the counters of Go's `expvar`.

use std::fmt;

use crate::runtime::sync::Counter;

/// Declares the counters once: a worker's fields and accessors, and the sums over all workers.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What a worker counts: its thread writes, and any thread reads.
        #[derive(Default)]
        pub(crate) struct Tally {
            $(pub(crate) $name: Counter,)+
        }

        /// What one worker of a server has done.
        ///
        /// ```
        /// use netpoller::{ServerHandle, WorkerStats};
        ///
        /// /// How many connections the busiest worker has.
        /// fn busiest(handle: &ServerHandle) -> u64 {
        ///     let stats = handle.stats();
        ///     stats.workers().iter().map(WorkerStats::live).max().unwrap_or(0)
        /// }
        /// ```
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct WorkerStats {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl WorkerStats {
            $($(#[doc = $doc])+ pub fn $name(&self) -> u64 {
                self.$name
            })+

            pub(crate) fn read(tally: &Tally) -> Self {
                WorkerStats {
                    $($name: tally.$name.get(),)+
                }
            }
        }

        /// The sums over all workers.
        impl Stats {
            $($(#[doc = $doc])+ pub fn $name(&self) -> u64 {
                self.workers.iter().map(WorkerStats::$name).sum()
            })+
        }
    };
}

counters! {
    /// Connections accepted.
    accepted,
    /// Connections that are open.
    live,
    /// Accepts that failed, for any of the four reasons that follow.
    refused,
    /// Accepts that failed because the process or the system has no descriptor left (EMFILE, ENFILE).
    no_descriptor,
    /// Accepts that failed because the system is short of memory (ENOMEM, ENOBUFS).
    no_memory,
    /// Connections that their peers gave up before they were accepted (ECONNABORTED).
    aborted,
    /// Accepts that failed with another error.
    not_accepted,
    /// Bytes received.
    received,
    /// Bytes that the system took to be sent.
    sent,
    /// Heartbeats that were due.
    heartbeats,
    /// Connections that the peer ended, in good order.
    left,
    /// Connections that the protocol, its filter, a handle or an id ended.
    asked,
    /// Connections that a drain or their greatest age ended, with nothing in flight.
    drained,
    /// Connections cut off when the server stopped, or when a drain reached its limit.
    stopped,
    /// Connections closed because they were idle.
    idled,
    /// Connections closed because a minimum rate was not met.
    slow,
    /// Connections that ended because they would have kept more in memory than a limit allows.
    limited,
    /// Connections that ended with another error: reset, a protocol's own, a panic, the end of the
    /// runtime.
    failed,
    /// Turns of the worker's loop. Under `run_in`, of your runtime.
    turns,
    /// Events that it got from the system.
    events,
}

impl WorkerStats {
    /// How many connections have ended by each [reason](crate::CloseReason), under its name. All together
    /// they are those that were accepted and are not open.
    ///
    /// ```
    /// use netpoller::WorkerStats;
    ///
    /// let ends = WorkerStats::default().ends();
    /// assert_eq!(ends.iter().map(|(_, count)| count).sum::<u64>(), 0);
    /// assert_eq!(ends[0], ("peer", 0)); // in good order
    /// ```
    pub fn ends(&self) -> [(&'static str, u64); 8] {
        [
            ("peer", self.left),
            ("asked", self.asked),
            ("drained", self.drained),
            ("idle", self.idled),
            ("too_slow", self.slow),
            ("limit", self.limited),
            ("stopped", self.stopped),
            ("error", self.failed),
        ]
    }

    /// How many accepts have failed for each reason, under its name. All together they are
    /// [`refused`](WorkerStats::refused).
    ///
    /// ```
    /// use netpoller::WorkerStats;
    ///
    /// for (reason, count) in WorkerStats::default().accept_errors() {
    ///     println!("accepts failed: {reason} {count}");
    /// }
    /// ```
    pub fn accept_errors(&self) -> [(&'static str, u64); 4] {
        [
            ("no_descriptor", self.no_descriptor),
            ("no_memory", self.no_memory),
            ("aborted", self.aborted),
            ("other", self.not_accepted),
        ]
    }
}

/// What a server has done, by worker.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use std::io;
/// use netpoller::{Conn, Protocol, Server};
///
/// struct Discard;
/// impl Protocol for Discard {
///     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
///         Ok(bytes.len())
///     }
/// }
///
/// let bound = Server::new(|_peer| Discard).workers(2).bind("127.0.0.1:0")?;
/// let stats = bound.handle().stats();
/// assert_eq!(stats.workers().len(), 2);
/// assert_eq!((stats.accepted(), stats.workers()[0].live()), (0, 0));
/// assert_eq!(stats.to_string(), "accepted 0, open 0, received 0, sent 0");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// One for each worker that was asked for. Under `run_in` only the first worker runs; the others stay
    /// zero.
    pub workers: Vec<WorkerStats>,
}

impl Stats {
    /// One for each worker that was asked for. Under `run_in` only the first worker runs; the others stay
    /// zero.
    pub fn workers(&self) -> &[WorkerStats] {
        &self.workers
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
