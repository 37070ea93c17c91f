//! What a server has done: each worker counts, and any thread reads.

// Mirrors the counters of Go's `expvar`.

use std::fmt;

use crate::runtime::counter::Counter;

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
    /// Accepts that failed: the system was short of something, or the connection was broken.
    refused,
    /// Bytes received.
    received,
    /// Bytes that the system took to be sent.
    sent,
    /// Heartbeats: how often the interval passed.
    heartbeats,
    /// Connections closed because they were idle.
    idled,
    /// Connections closed because a minimum rate was not met.
    slow,
    /// Connections that ended because they would have kept more in memory than a limit allows.
    limited,
    /// Connections that ended with another error: reset, a protocol's own, a panic.
    failed,
    /// Turns of the loop. Known once the worker has ended; always 0 under `run_in`.
    turns,
    /// Events harvested from the system: known as `turns` is.
    events,
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
    /// One for each worker that was asked for. Under `run_in` the first alone counts.
    pub workers: Vec<WorkerStats>,
}

impl Stats {
    /// One for each worker that was asked for. Under `run_in` the first alone counts.
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
