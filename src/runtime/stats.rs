//! Figures of a running loop: what it has done, how long that took, and what lives on it. The loop's
//! thread writes them, and any thread reads.
//!
//! Times are taken with the feature `observe` alone. Without it the histograms of times stay empty, and
//! a [`Stopwatch`] does nothing.

// Mirrors Go's `runtime/metrics`: `/sched/latencies:seconds`, and the `timeHistogram` behind it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Deref;
use std::time::Instant;

use super::context::MachineId;
use super::sync::Counter;
use crate::reactor::Clock;
use crate::wheel::Tick;

/// Whether times are taken.
pub(super) const OBSERVES: bool = cfg!(feature = "observe");

/// 64 buckets, in rows: std has defaults for arrays of 32 at most.
type Buckets<T> = [[T; 8]; 8];

const LAST: usize = 63;

/// Counts of values, by how many bits a value has. Of a loop's figures, see
/// [`Handle::stats`](crate::Handle::stats).
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let runtime = netpoller::Runtime::new()?;
/// runtime.turn(Some(std::time::Duration::ZERO))?;
/// let events = runtime.stats().turn_events();
/// // One turn, without an event.
/// assert_eq!((events.count(), events.sum()), (1, 0));
/// // The first bucket holds the zeros, the next ones what is at most 1, 3, 7, ….
/// assert_eq!(events.buckets().next(), Some((0, 1)));
/// assert_eq!(events.buckets().nth(3), Some((7, 0)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Histogram {
    /// `counts[n]` counts the values of `n` bits, and the last one those of 64 bits too.
    counts: Buckets<u64>,
    sum: u64,
}

impl Histogram {
    /// How many values there were.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let runtime = netpoller::Runtime::new()?;
    /// runtime.turn(Some(std::time::Duration::ZERO))?;
    /// let events = runtime.stats().turn_events();
    /// let mean = events.sum() as f64 / events.count() as f64; // of a turn
    /// assert_eq!(mean, 0.0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn count(&self) -> u64 {
        self.counts.as_flattened().iter().sum()
    }

    /// The sum of all values.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The greatest value that each of the 64 buckets may hold, and how many values it does hold.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let runtime = netpoller::Runtime::new()?;
    /// runtime.turn(Some(std::time::Duration::ZERO))?;
    /// let events = runtime.stats().turn_events();
    /// let most = events.buckets().filter(|&(_, count)| count > 0).last();
    /// assert_eq!(most, Some((0, 1))); // one turn, with no event
    /// # Ok(())
    /// # }
    /// ```
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        let bound = |bits: usize| match bits {
            LAST => u64::MAX,
            _ => (1 << bits) - 1,
        };
        let counts = self.counts.into_iter().flatten().enumerate();
        counts.map(move |(bits, count)| (bound(bits), count))
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let filled = self.buckets().filter(|&(_, count)| count > 0);
        f.debug_map().entries(filled).finish()
    }
}

/// A histogram that one thread fills and any thread reads.
#[derive(Default)]
pub(crate) struct SharedHistogram {
    counts: Buckets<Counter>,
    sum: Counter,
}

impl SharedHistogram {
    pub(super) fn add(&self, value: u64) {
        let bits = (u64::BITS - value.leading_zeros()) as usize;
        self.counts.as_flattened()[bits.min(LAST)].add(1);
        self.sum.add(value);
    }

    /// Adds the nanoseconds from one instant to another.
    fn add_time(&self, from: Instant, to: Instant) {
        self.add(to.saturating_duration_since(from).as_nanos() as u64);
    }

    fn get(&self) -> Histogram {
        let row = |row: &[Counter; 8]| row.each_ref().map(Counter::get);
        let (counts, sum) = (self.counts.each_ref().map(row), self.sum.get());
        Histogram { counts, sum }
    }
}

/// Declares the figures once: what the loop writes, and what is read of it.
macro_rules! figures {
    ($($(#[doc = $doc:literal])+ $name:ident: $shared:ident => $seen:ident,)+) => {
        /// What a loop publishes of what it has done.
        #[derive(Default)]
        pub(crate) struct Figures {
            $(pub(crate) $name: $shared,)+
        }

        impl Figures {
            pub(super) fn read(&self) -> LoopStats {
                LoopStats {
                    $($name: self.$name.get(),)+
                }
            }
        }

        /// What a loop has done since it was made, how long that took, and what lives on it: see
        /// [`Handle::stats`](crate::Handle::stats).
        ///
        /// Histograms of times are in nanoseconds of the loop's clock. They are filled with the
        /// feature `observe` alone, and empty without it.
        ///
        /// ```
        /// # fn main() -> std::io::Result<()> {
        /// use netpoller::LoopStats;
        ///
        /// /// Tells of a loop that lives or has ended, from any thread.
        /// fn show(stats: &LoopStats) -> String {
        ///     format!("{} turns, {} tasks", stats.turns(), stats.tasks())
        /// }
        ///
        /// let runtime = netpoller::Runtime::new()?;
        /// runtime.block_on(netpoller::yield_now());
        /// assert_eq!(show(&runtime.handle().stats()), "1 turns, 0 tasks");
        /// # Ok(())
        /// # }
        /// ```
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct LoopStats {
            $($name: $seen,)+
        }

        impl LoopStats {
            $($(#[doc = $doc])+ pub fn $name(&self) -> $seen {
                self.$name
            })+
        }
    };
}

figures! {
    /// Turns of the loop that have ended.
    turns: Counter => u64,
    /// Runs of a machine, which is a task or a connection.
    machines: Counter => u64,
    /// Deadlines that passed and timers that fired.
    expired: Counter => u64,
    /// Tasks and connections that began.
    spawned: Counter => u64,
    /// Tasks and connections that ended by a panic.
    panicked: Counter => u64,
    /// Connections run by a server.
    connections: Counter => u64,
    /// Tasks that had not ended when the last turn did.
    tasks: Counter => u64,
    /// Sockets and other sources that were registered when the last turn ended.
    descriptors: Counter => u64,
    /// Entries of the timer wheels when the last turn ended, stale ones too.
    entries: Counter => u64,
    /// Events of the selector, by turn.
    turn_events: SharedHistogram => Histogram,
    /// How long each turn took, without its wait for the selector.
    turn_time: SharedHistogram => Histogram,
    /// The loop's lag: for each turn with a timer or a deadline that was due, how late the turn was for the
    /// earliest of them. One that has moved later counts at its earlier time.
    lag: SharedHistogram => Histogram,
    /// How long each machine and each root waited from when the loop made it runnable until it ran. A
    /// wake from another thread counts from the turn that learns of it.
    wake_delay: SharedHistogram => Histogram,
    /// How long each run of a task took.
    task_time: SharedHistogram => Histogram,
    /// How long each run of a connection took.
    connection_time: SharedHistogram => Histogram,
    /// How long each run of a root took, which is the future of `block_on`.
    root_time: SharedHistogram => Histogram,
}

impl LoopStats {
    /// Events of the selector.
    pub fn events(&self) -> u64 {
        self.turn_events.sum()
    }
}

/// What lives on a runtime, and what it has done since it was made. It derefs to [`LoopStats`], which
/// has more.
///
/// ```
/// use netpoller::Runtime;
///
/// # fn main() -> std::io::Result<()> {
/// let runtime = Runtime::new()?;
/// runtime.spawn(std::future::pending::<()>());
/// assert_eq!(runtime.stats().tasks, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Tasks that have not ended.
    pub tasks: usize,
    /// Connections run by a server.
    pub connections: usize,
    /// Sockets and other sources registered.
    pub descriptors: usize,
    /// Sources that have a deadline, sleeps, and timers of connections.
    pub timers: usize,
    /// What is parked, queues for a lock or waits for a hang-up, and all sleeps and timers of connections.
    pub waiters: usize,
    /// Entries of the timer wheels now, stale ones too: the same as [`LoopStats::entries`]. The entry of a
    /// cleared deadline stays until its tick.
    pub places: usize,
    /// Turns of the loop.
    pub turns: u64,
    /// Events of the selector.
    pub events: u64,
    /// Runs of a machine, which is a task or a connection.
    pub machines: u64,
    /// Deadlines that expired and timers that fired, counted as in [`Turn::expired`](crate::Turn::expired).
    pub expired: u64,
    /// Tasks and connections that began.
    pub spawned: u64,
    pub(super) of_loop: LoopStats,
}

impl Deref for Stats {
    type Target = LoopStats;

    fn deref(&self) -> &LoopStats {
        &self.of_loop
    }
}

/// Takes the times, by the loop's clock. In the loop's thread.
pub(super) struct Stopwatch {
    /// When the last wait ended.
    awake: Cell<Instant>,
    /// When the last run ended, or the batch began.
    pub(super) last: Cell<Instant>,
    /// By slot of a machine: since when it is runnable, or parked.
    since: RefCell<Vec<Instant>>,
}

impl Stopwatch {
    pub(super) fn new(now: Instant) -> Self {
        Stopwatch {
            awake: Cell::new(now),
            last: Cell::new(now),
            since: RefCell::default(),
        }
    }

    /// The wait of this turn has ended. If a timer has fired or a deadline has expired, `due` is the tick
    /// that the next entry had before the turn.
    pub(super) fn wait_ended(&self, clock: &Clock, figures: &Figures, due: Option<Tick>) {
        if OBSERVES {
            self.awake.set(clock.now());
        }
        if let Some(due) = due {
            figures.lag.add_time(clock.instant_of(due), clock.now());
        }
    }

    /// A machine, or the root, is runnable.
    pub(super) fn queued(&self, id: MachineId, since: impl FnOnce() -> Instant) {
        if OBSERVES {
            self.set_since(id, since());
        }
    }

    /// A machine, or the root, begins to run.
    pub(super) fn begins(&self, id: MachineId, figures: &Figures) {
        if OBSERVES {
            let since = self.since.borrow()[id.slot() as usize];
            figures.wake_delay.add_time(since, self.last.get());
        }
    }

    /// It has run.
    pub(super) fn ends(&self, id: MachineId, clock: &Clock, times: Option<&SharedHistogram>) {
        if let Some(times) = times.filter(|_| OBSERVES) {
            let now = clock.peek();
            times.add_time(self.last.replace(now), now);
            self.set_since(id, now);
        }
    }

    /// The turn ends.
    pub(super) fn turn_ends(&self, clock: &Clock, figures: &Figures) {
        if OBSERVES {
            figures.turn_time.add_time(self.awake.get(), clock.peek());
        }
    }

    /// Since when a machine is runnable, or parked.
    pub(super) fn since(&self, id: MachineId) -> Option<Instant> {
        self.since.borrow().get(id.slot() as usize).copied()
    }

    fn set_since(&self, id: MachineId, when: Instant) {
        let (slot, mut since) = (id.slot() as usize, self.since.borrow_mut());
        if slot >= since.len() {
            since.resize(slot + 1, when);
        }
        since[slot] = when;
    }
}
