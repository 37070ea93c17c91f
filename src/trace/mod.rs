//! What a loop has done, as records in a ring in memory: for a look back at the last seconds.
//!
//! It needs the feature `trace`, and a ring: [`Builder::trace`](crate::Builder::trace), or for a bare
//! reactor [`Reactor::with_trace`](crate::Reactor::with_trace).
//! [`Handle::trace_last`](crate::Handle::trace_last) reads it.
//!
//! ```
//! # #[cfg(feature = "trace")]
//! # fn main() -> std::io::Result<()> {
//! use netpoller::trace::Kind;
//! use netpoller::{Runtime, spawn_named};
//! use std::time::Duration;
//!
//! let runtime = Runtime::builder().trace(64 << 10).build()?;
//! runtime.block_on(async { spawn_named("job", async {}).await.unwrap() });
//!
//! let trace = runtime.handle().trace_last(Duration::from_secs(1)).unwrap();
//! let mut kinds = trace.records.iter().map(|record| record.kind);
//! assert!(kinds.any(|kind| kind == Kind::Spawn) && kinds.any(|kind| kind == Kind::Done));
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "trace"))]
//! # fn main() {}
//! ```
//!
//! # Time
//!
//! A record carries the last reading of the loop's clock. The loop does not read the clock for a record: it
//! reads it before and after a wait, after closures that other threads have sent, and, on the system's clock
//! and without a watchdog, after a batch of machines. A [`Trace`] gives the time between two readings
//! to the wait, if one lies between, and else in equal parts to the runs between; all other records take no
//! time. So the times never go back, a wait is exact (with the handing out after it), and one run among
//! many is an estimate.
//!
//! The clock of the records runs for 416 days from the loop's beginning. All later records carry its
//! last time.
// Mirrors Go's flight recorder (`runtime/trace.go`). The loop calls a `Recorder`. Without the feature
// it has no ring, as the compiler knows, so that no call asks for the feature.

#[cfg_attr(not(feature = "trace"), allow(dead_code))]
mod ring;
#[cfg(feature = "trace")]
mod show;

// For the ring. The models of tests/loom use their own.
use std::sync::atomic::AtomicU64;

pub(crate) use ring::{Recorder, Tape};
#[cfg(feature = "trace")]
pub use show::{Record, Trace};

const ON: bool = cfg!(feature = "trace");

/// The least size of a ring, in bytes.
const LEAST: usize = 4096;

/// In place of an id: nothing.
pub(crate) const NOTHING: u64 = u64::MAX - 3;

/// In place of a machine's id: a job, which is a closure that another thread has sent. No machine has
/// these ids: the generation of each is below 2^31.
pub(crate) const JOB: u64 = u64::MAX - 2;

/// In place of a machine's id: another thread.
pub(crate) const THREAD: u64 = u64::MAX - 1;

/// What a [`Record`] tells, and of what: the meaning of its `id` and `detail`.
///
/// Ids are as in the log: a slot or key in the lower half, a generation in the upper half.
///
/// ```
/// # #[cfg(feature = "trace")]
/// # fn main() -> std::io::Result<()> {
/// use netpoller::trace::Kind;
/// use std::time::Duration;
/// let runtime = netpoller::Runtime::builder().trace(64 << 10).build()?;
/// runtime.block_on(async { netpoller::spawn(async {}).await.unwrap() });
/// let trace = runtime.handle().trace_last(Duration::from_secs(9)).unwrap();
/// let runs = trace.records.iter().filter(|record| record.kind == Kind::Run);
/// assert!(runs.count() >= 2); // of the task and of the root, which spawned it
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "trace"))]
/// # fn main() {}
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(not(feature = "trace"), allow(dead_code))]
pub enum Kind {
    /// A turn begins.
    Turn,
    /// A turn has ended. After a bare reactor's turn, what it handed out runs.
    TurnEnd,
    /// The selector is asked. `detail`: the nanoseconds that it may wait, unless a timer is due before;
    /// `u64::MAX` is without end.
    Wait,
    /// The selector has answered.
    WaitEnd,
    /// The selector says that the descriptor `id` is ready. `detail`: the bits of a
    /// [`Readiness`](crate::reactor::Readiness). An [`Unpark`](Kind::Unpark) follows for what waited. If two
    /// waited, the event has two records.
    Event,
    /// As `Event`, of a break or of an earlier owner of the descriptor's key: it reaches nothing.
    Stale,
    /// The deadline of the descriptor `id` has passed. `detail`: as of `Event`. What waited follows.
    Expired,
    /// A timer has fired. What waited for it follows.
    Fired,
    /// The descriptor `id` is closed. What waited follows.
    Closed,
    /// The previous record hands out `id`: a machine, or the key of a foreign waker, which is
    /// another executor's.
    Unpark,
    /// The foreign waker of the key `id` is woken. What it wakes follows.
    Foreign,
    /// What other threads have woken follows.
    Mail,
    /// The machine `id` becomes runnable. `detail`: what woke it: the id of a machine, the key of a foreign
    /// waker, or one of the numbers from `u64::MAX - 3`, which print as words.
    Wake,
    /// As `Wake`, of a new machine.
    Spawn,
    /// The machine `id` runs, until the next `Run` or `TurnEnd`. If no `Done` comes before, the machine then
    /// parks, unless it was woken during the run.
    Run,
    /// The machine `id` has ended.
    Done,
    /// The deadline for reading of the descriptor `id` moves. `detail`: the new deadline, in milliseconds
    /// since the loop's beginning; `u64::MAX`: none.
    ReadUntil,
    /// As `ReadUntil`, for writing.
    WriteUntil,
}

/// A string of JSON. A character that Rust would escape is written as its number.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c.escape_debug().len() {
            1 => quoted.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    quoted += &format!("\\u{unit:04x}");
                }
            }
        }
    }
    quoted + "\""
}
