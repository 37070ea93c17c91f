//! What a loop has done, as records in a ring in memory: for a look back at the last seconds.
//!
//! It needs the feature `trace`, and a ring: [`Builder::trace`](crate::Builder::trace), or for a bare
//! reactor [`Reactor::with_trace`](crate::Reactor::with_trace). Any thread reads it by
//! [`Handle::trace_last`](crate::Handle::trace_last).
//!
//! # Time
//!
//! A record carries the last reading of the loop's clock. The loop does not read the clock for a
//! record: it reads it before and after a wait, after closures that other threads have sent, and after
//! a batch of machines. A [`Trace`] gives the time between two readings to the wait, if one lies between,
//! and else in equal parts to the runs between; all other records take no time. So the times never go
//! back, a wait is exact, and one run among many is an estimate.
// Mirrors Go's flight recorder (`runtime/trace.go`). The loop calls a `Recorder`. Without the feature
// that is empty, and so are its functions, so that no call asks for the feature.

#[cfg(not(feature = "trace"))]
#[path = "off.rs"]
mod recorder;
#[cfg(feature = "trace")]
#[path = "ring.rs"]
mod recorder;
#[cfg(feature = "trace")]
mod show;

pub(crate) use recorder::{Recorder, Tape};
#[cfg(feature = "trace")]
pub use show::{Record, Trace};

/// In place of a machine's id: no machine ran.
pub(crate) const NOTHING: u64 = 0;

/// In place of a machine's id: a closure that another thread has sent.
pub(crate) const JOB: u64 = 2;

/// In place of a machine's id: another thread.
pub(crate) const THREAD: u64 = u64::MAX;

/// What a record tells, and of what: the meaning of its `id` and `detail`.
///
/// An id is that of the log: a slot or key in the lower half, a generation in the upper half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(not(feature = "trace"), allow(dead_code))]
pub enum Kind {
    /// A turn begins.
    Turn,
    /// A turn has ended; of a bare reactor, it hands out.
    TurnEnd,
    /// The selector is asked. `detail`: the nanoseconds that it may wait, unless a timer is due before;
    /// `u64::MAX` is without end.
    Wait,
    /// The selector has answered.
    WaitEnd,
    /// The selector says that the descriptor `id` is ready. `detail`: the bits of a
    /// [`Readiness`](crate::reactor::Readiness). What waited for that follows as [`Unpark`](Kind::Unpark).
    Event,
    /// As `Event`, of a break or of an earlier owner of the descriptor's key: it reaches nothing.
    Stale,
    /// The deadline of the descriptor `id` has passed. `detail`: 0 to read, 1 to write. What waited
    /// follows.
    Expired,
    /// A timer has fired. What waited for it follows.
    Fired,
    /// The descriptor `id` is closed. What waited follows.
    Closed,
    /// What the record before tells of hands out `id`: a machine, or the key of a foreign waker.
    Unpark,
    /// The foreign waker of the key `id` is woken. What it wakes follows.
    Waker,
    /// The machine `id` becomes runnable. `detail`: by the machine that runs; 0 if none runs (the
    /// program wakes between turns, or a foreign waker does), 2 in a closure that another thread has
    /// sent, `u64::MAX` by another thread.
    Wake,
    /// As `Wake`, and it is new.
    Spawn,
    /// The machine `id` runs, until the next `Run` or the turn's end; 2 is a closure that another
    /// thread has sent. If no `Done` comes, it has parked.
    Run,
    /// The machine `id` has ended.
    Done,
    /// A descriptor's deadline for reading moves. `detail`: to so many milliseconds after the loop's
    /// beginning; `u64::MAX` is none.
    ReadDeadline,
    /// The same for writing.
    WriteDeadline,
}
