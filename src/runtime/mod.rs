//! The runtime: machines on a reactor.

// Mirrors Go's `runtime/proc.go`, for one thread.
//
// | file | what it is |
// |---|---|
// | `scheduler.rs`, `ending.rs` | the loop: one turn, a batch, `block_on`; how machines end |
// | `machine.rs`, `join.rs` | the slab of machines and their states; what a task shares with its handle |
// | `context.rs` | what runs on this thread now, and what is parked for it |
// | `current.rs` | which runtime is entered on this thread |
// | `waker.rs`, `handle.rs` | waking and sending, from here and from other threads |
// | `socket.rs` | what a descriptor carries: Go's `poll.FD`, with its locks: `fdMutex` |
// | `host.rs` | calling a host that can't watch a descriptor |
// | `waiters.rs` | the one queue of waiters; waiting for a descriptor to become free |
// | `running.rs` | what other threads see of the loop; a thread that watches it |
// | `stats.rs` | figures of the loop, and taking the times for them |
// | `dump.rs`, `look.rs` | a dump: its names and values; how it is made |
// | `lent.rs` | the buffer that is lent to reads |
// | `blocking.rs` | threads for work that blocks, and how its value comes back |
// | `panics.rs` | panics caught where they happen |
// | `sync.rs` | what threads share: the types, a lock, a counter |

pub(crate) mod blocking;
pub(crate) mod context;
pub(crate) mod current;
pub(crate) mod dump;
mod ending;
mod handle;
mod host;
mod join;
pub(crate) mod lent;
pub(crate) mod look;
pub(crate) mod machine;
pub(crate) mod panics;
pub(crate) mod running;
pub(crate) mod scheduler;
pub(crate) mod socket;
pub(crate) mod stats;
pub(crate) mod sync;
pub(crate) mod waiters;
mod waker;

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
#[cfg(not(mio_unsupported_force_poll_poll))]
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::Location;
use std::pin::pin;
use std::rc::Rc;
// The types of `sync.rs`. The models of tests/loom put others in their place.
use std::sync as shared_types;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::reactor::{Direction, MioSelector, Selector, TimeSource, Turn};
use crate::sys::FdCopy;
use crate::trace::Tape;
use blocking::Lane;
use context::MachineId;
use current::Entered;
pub use dump::{Dump, Entry, Value};
pub use handle::{Handle, spawn_blocking};
pub use join::{JoinError, JoinHandle};
pub(crate) use panics::wake_quietly;
use running::Place;
use scheduler::{BATCH, Schedule, Scheduler};
pub use stats::{Histogram, LoopStats, Stats};

/// After this many machines `turn_for` reads the clock.
const STEP: usize = 16;

/// An event loop with everything that runs on it: tasks, connections, their sockets and timers.
///
/// It is one thread, and shares nothing: for more cores, make more of them. A runtime is driven by
/// [`block_on`](Runtime::block_on), or under a loop of your own by [`turn`](Runtime::turn).
///
/// It is not `Send`. Its [`JoinHandle`]s and sockets are not `Send` either, since they reach its machines
/// without a lock. Other threads use a [`Handle`].
///
/// ```
/// use std::time::Duration;
/// use netpoller::{Runtime, time};
///
/// # fn main() -> std::io::Result<()> {
/// let runtime = Runtime::new()?;
/// let task = runtime.spawn(async {
///     time::sleep(Duration::from_millis(5)).await;
///     "slept"
/// });
///
/// // A frame of a game: do its own work, then give the network what time is left.
/// while !task.is_finished() {
///     runtime.turn(Some(Duration::from_millis(2)))?;
/// }
/// assert_eq!(runtime.block_on(task).unwrap(), "slept");
/// # Ok(())
/// # }
/// ```
///
/// Dropping it drops its machines and closes their sockets. I/O on a socket that outlives it is an
/// error. In a child of fork(2) an inherited runtime refuses to be used: make a new one there.
pub struct Runtime {
    scheduler: Rc<Scheduler>,
}

impl Runtime {
    /// A runtime on the system's selector and clock.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::Runtime;
    /// let runtime = Runtime::new()?;
    /// runtime.block_on(async { netpoller::yield_now().await });
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The system's, when it has no descriptor to spare.
    pub fn new() -> io::Result<Self> {
        Runtime::builder().build()
    }

    /// A runtime with other settings.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::{Runtime, time};
    /// use std::time::Duration;
    /// let runtime = Runtime::builder().virtual_clock().build()?;
    /// runtime.block_on(async { time::sleep(Duration::from_secs(3600)).await }); // takes no time
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> Builder {
        Builder {
            spin: Duration::ZERO,
            time: TimeSource::System,
            selector: None,
            blocking_threads: blocking::MAX_THREADS,
            schedule: None,
            watchdog: None,
            trace: None,
        }
    }

    /// Runs a future to its end, and meanwhile all that is spawned. Tasks that have not ended by then
    /// stay where they are, for the next call.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let runtime = netpoller::Runtime::new()?;
    /// assert_eq!(runtime.block_on(async { 6 * 7 }), 42);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// Inside a runtime (await the future instead), or in a child of fork(2); if the future panics; if the
    /// selector fails.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.scheduler.block_on(future)
    }

    /// Spawns a task, between turns or inside one. It runs from the next turn on.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let runtime = netpoller::Runtime::new()?;
    /// let task = runtime.spawn(async { 6 * 7 });
    /// assert!(!task.is_finished()); // no turn has run yet
    /// assert_eq!(runtime.block_on(task).unwrap(), 42);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// In a child of fork(2).
    #[track_caller]
    pub fn spawn<F: Future<Output: 'static> + 'static>(&self, future: F) -> JoinHandle<F::Output> {
        self.scheduler.spawn(Location::caller(), None, future)
    }

    /// As [`spawn`](Runtime::spawn), with a name for dumps and warnings.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let runtime = netpoller::Runtime::new()?;
    /// runtime.spawn_named("the sweeper", std::future::pending::<()>());
    /// let dump = runtime.dump();
    /// assert_eq!(dump.machines[0].get("name").unwrap().to_string(), "the sweeper");
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn spawn_named<F: Future<Output: 'static> + 'static>(
        &self,
        name: impl Into<Arc<str>>,
        future: F,
    ) -> JoinHandle<F::Output> {
        let name = Some(name.into());
        self.scheduler.spawn(Location::caller(), name, future)
    }

    /// One turn, for a host loop. Runs what is runnable, 1,024 machines at most. If nothing is, waits up
    /// to `max_wait` (for ever if `None`) until something is, and runs that.
    ///
    /// It returns as soon as something has run, mostly long before `max_wait`. A host with frames calls
    /// [`turn_for`](Runtime::turn_for) until the frame ends. If [`Turn::more`] is set, call it again at
    /// once, as far as the host has time.
    ///
    /// The system counts `max_wait` in milliseconds, rounded up, so a turn may end more than a
    /// millisecond late. For a frame that has to begin on time, wait until two milliseconds before it,
    /// then call `turn(Some(Duration::ZERO))` until it begins.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::{Runtime, time};
    /// use std::time::Duration;
    ///
    /// let runtime = Runtime::new()?;
    /// let network = runtime.spawn(async { time::sleep(Duration::from_millis(5)).await });
    /// while !network.is_finished() {
    ///     // The host's own work comes here.
    ///     runtime.turn(Some(Duration::from_millis(1)))?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The selector's. Nothing is lost: call again. Also in a child of fork(2), if the runtime is the
    /// parent's.
    ///
    /// # Panics
    ///
    /// Inside a runtime.
    #[doc(alias = "netpoll")]
    pub fn turn(&self, max_wait: Option<Duration>) -> io::Result<Turn> {
        let _entered = Entered::new(&self.scheduler)?;
        self.scheduler.turn(max_wait, BATCH, &mut || false)
    }

    /// As [`turn`](Runtime::turn), and waits until `when` at most, by the runtime's clock.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::time::{Duration, Instant};
    /// let runtime = netpoller::Runtime::new()?;
    /// let frame = Instant::now() + Duration::from_millis(4);
    /// while Instant::now() < frame {
    ///     runtime.turn_until(frame)?; // nothing to do: it waits
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`turn`](Runtime::turn).
    pub fn turn_until(&self, when: Instant) -> io::Result<Turn> {
        let now = self.scheduler.reactor.core.clock.read();
        self.turn(Some(when.saturating_duration_since(now)))
    }

    /// Turns until there is no more to do, or until `budget` has passed: for a host that has that much
    /// time in each frame. To give the network the rest of a frame, call it until the frame ends: it
    /// returns early once the loop was woken and there is no more to do. [`Turn::more`] says whether
    /// there is.
    ///
    /// If nothing is runnable, it waits first, within the budget. It reads the clock after every 16
    /// machines, so a machine that takes long makes it late. With a budget of zero it runs 16 machines
    /// at most and does not wait.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::time::{Duration, Instant};
    /// let runtime = netpoller::Runtime::new()?;
    /// // A task that is always runnable, such as a peer that never stops sending.
    /// runtime.spawn(async { loop { netpoller::yield_now().await } });
    ///
    /// let frame = Instant::now() + Duration::from_millis(16);
    /// // The game's own work comes here, and then the network, for as long as the frame lasts.
    /// while Instant::now() < frame {
    ///     let turn = runtime.turn_for(frame.saturating_duration_since(Instant::now()))?;
    ///     assert!(turn.more);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`turn`](Runtime::turn).
    ///
    /// # Panics
    ///
    /// Inside a runtime.
    pub fn turn_for(&self, budget: Duration) -> io::Result<Turn> {
        let _entered = Entered::new(&self.scheduler)?;
        let start = Instant::now();
        let mut all = Turn::default();
        let mut wait = budget;
        loop {
            let turn = self.scheduler.turn(Some(wait), STEP, &mut || false)?;
            all.events += turn.events;
            all.machines += turn.machines;
            all.expired += turn.expired;
            all.more = turn.more;
            if !turn.more || start.elapsed() >= budget {
                return Ok(all);
            }
            wait = Duration::ZERO;
        }
    }

    /// How long the host may sleep before it has to call [`turn`](Runtime::turn): zero while anything is
    /// runnable, and inside a turn; `None` if only readiness can bring work. Ask again before each sleep:
    /// a turn changes it, and so does a task that is spawned between two turns.
    ///
    /// A host that sleeps for whole milliseconds, as in poll(2), rounds up. If it rounds down, it
    /// wakes too early, and turns without effect until the deadline.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::time::Duration;
    /// let runtime = netpoller::Runtime::new()?;
    /// assert_eq!(runtime.next_timeout(), None);
    /// runtime.spawn(async { netpoller::time::sleep(Duration::from_secs(5)).await });
    /// assert_eq!(runtime.next_timeout(), Some(Duration::ZERO)); // the task is to run
    /// runtime.turn(Some(Duration::ZERO))?;
    /// assert!(runtime.next_timeout() > Some(Duration::from_secs(4)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn next_timeout(&self) -> Option<Duration> {
        self.scheduler.next_timeout()
    }

    /// The loop's figures: what is alive, and what was done.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let runtime = netpoller::Runtime::new()?;
    /// drop(runtime.spawn(std::future::pending::<()>()));
    /// assert_eq!(runtime.stats().tasks, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn stats(&self) -> Stats {
        let scheduler = &self.scheduler;
        let core = &scheduler.reactor.core;
        let sleepers = core.timers.borrow().len() + core.peer_timers.borrow().len();
        let (mut waiting, mut deadlines) = (0, 0);
        scheduler.reactor.for_each(|desc| {
            desc.parked(|_, _| waiting += 1);
            desc.user_data.waiting(|_, _| waiting += 1);
            let mut directions = Direction::BOTH.into_iter();
            let has_deadline = directions.any(|at| desc.deadline(at).is_some());
            deadlines += usize::from(has_deadline);
        });
        scheduler.publish_counts();
        let of_loop = scheduler.figures().read();
        Stats {
            tasks: of_loop.tasks() as usize,
            connections: of_loop.connections() as usize,
            descriptors: of_loop.descriptors() as usize,
            timers: deadlines + sleepers,
            waiters: sleepers + waiting,
            places: of_loop.entries() as usize,
            turns: of_loop.turns(),
            events: of_loop.events(),
            machines: of_loop.machines(),
            expired: of_loop.expired(),
            spawned: of_loop.spawned(),
            of_loop,
        }
    }

    /// Drops the runtime, then waits until the jobs of [`spawn_blocking`] have ended, but no longer
    /// than `limit`. Returns whether they have; false in a child of fork(2).
    ///
    /// Dropping a runtime does not wait: its jobs go on.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::time::Duration;
    /// let runtime = netpoller::Runtime::new()?;
    /// runtime.block_on(async {
    ///     netpoller::spawn_blocking(|| std::thread::sleep(Duration::from_millis(10)));
    /// });
    /// assert!(runtime.shutdown(Duration::from_secs(10)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn shutdown(self, limit: Duration) -> bool {
        let lane = self.scheduler.remote.lane.clone();
        drop(self);
        lane.wait(limit)
    }

    /// Lists the tasks, connections and sockets of the runtime, with what they wait for. Nothing is
    /// polled: it reads the tables of the loop, and asks the system only for addresses. A task or a
    /// callback may call it too. [`Handle::dump`] is for other threads.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let runtime = netpoller::Runtime::new()?;
    /// runtime.spawn(async { netpoller::time::sleep(std::time::Duration::from_secs(60)).await });
    /// runtime.turn(None)?;
    /// let dump = runtime.dump();
    /// assert_eq!(dump.machines[0].get("status").unwrap().to_string(), "parked");
    /// println!("{dump}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn dump(&self) -> Dump {
        self.scheduler.dump()
    }

    /// A handle for other threads.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let runtime = netpoller::Runtime::new()?;
    /// let handle = runtime.handle(); // for any thread, as often as you like
    /// let asking = std::thread::spawn(move || handle.stats().turns());
    /// assert_eq!(asking.join().unwrap(), 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn handle(&self) -> Handle {
        self.scheduler.handle()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.scheduler.forget_host();
        // Entered, since destructors may spawn or ask for the time. `None` where the thread is ending.
        let entered = Entered::to_drop(&self.scheduler);
        self.scheduler.shut_down();
        drop(entered);
        self.scheduler.is_gone.set(true);
        self.scheduler.wake_foreign_waiters();
        self.scheduler.remote.lane.close();
        self.scheduler.end_host();
        self.scheduler.publish_counts();
        let running = &self.scheduler.remote.running;
        running.is_watched.store(false, Ordering::Relaxed);
        lent::free();
    }
}

/// To nest a runtime in another loop: wait for this to be readable, no longer than
/// [`Runtime::next_timeout`], then call [`Runtime::turn`] with a wait of zero, whatever ended the wait:
/// a deadline does not make it readable. The [cookbook](crate::cookbook#ours-inside-another-loop) has
/// such a loop.
///
/// # Panics
///
/// If the runtime was built on a selector of your own that has no descriptor, or if the process has none
/// to spare for the copy of it that is lent.
#[cfg(not(mio_unsupported_force_poll_poll))]
impl AsFd for Runtime {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.scheduler.reactor.as_fd()
    }
}

#[cfg(not(mio_unsupported_force_poll_poll))]
impl AsRawFd for Runtime {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// Settings of a [`Runtime`]: see [`Runtime::builder`].
///
/// It is not `Send`, because the selector and the clock that it may be given need not be.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use std::time::Duration;
/// let runtime = netpoller::Runtime::builder()
///     .spin(Duration::from_micros(50))
///     .blocking_threads(4)
///     .build()?;
/// # drop(runtime);
/// # Ok(())
/// # }
/// ```
pub struct Builder {
    spin: Duration,
    time: TimeSource,
    selector: Option<Box<dyn Selector>>,
    blocking_threads: usize,
    schedule: Option<Schedule>,
    watchdog: Option<Duration>,
    /// The size of the ring, in bytes.
    trace: Option<usize>,
}

impl Builder {
    /// Polls for this long before each sleep. Answers come sooner, and the loop keeps a CPU busy for
    /// as long. Zero by default.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::time::Duration;
    /// let runtime = netpoller::Runtime::builder().spin(Duration::from_micros(50)).build()?;
    /// # drop(runtime);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn spin(mut self, spin: Duration) -> Self {
        self.spin = spin;
        self
    }

    /// A clock for tests. It stands still while anything is runnable, or a blocking job or a look-up is
    /// queued or under way. Otherwise, when two polls of the selector a millisecond apart find nothing, it jumps to the next
    /// deadline, or to the end of the turn's `max_wait` if that is sooner. Take instants from
    /// [`time::now`](crate::time::now).
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::{Runtime, time};
    /// use std::time::Duration;
    /// let day = Duration::from_secs(24 * 3600);
    /// Runtime::builder().virtual_clock().build()?.block_on(async {
    ///     let begin = time::now();
    ///     time::sleep(day).await; // ends after some milliseconds
    ///     assert!(time::now() - begin >= day);
    /// });
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn virtual_clock(mut self) -> Self {
        self.time = TimeSource::Virtual(Default::default());
        self
    }

    /// Reads the time from `clock`, such as a simulation's, in place of the system's. It must not go
    /// backwards, nor use the runtime.
    ///
    /// The selector's timeout is computed from this clock. So give the runtime a selector too, which moves
    /// the clock when it waits.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::{Runtime, time};
    /// use std::{cell::Cell, rc::Rc, time::{Duration, Instant}};
    /// let begin = Instant::now();
    /// let world = Rc::new(Cell::new(begin));
    /// let theirs = world.clone();
    /// let runtime = Runtime::builder().clock(move || theirs.get()).build()?;
    /// let task = runtime.spawn(time::sleep_until(begin + Duration::from_secs(60)));
    /// runtime.turn(Some(Duration::ZERO))?;
    /// world.set(begin + Duration::from_secs(61)); // the simulation goes on
    /// while !task.is_finished() {
    ///     runtime.turn(Some(Duration::ZERO))?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn clock(mut self, clock: impl Fn() -> Instant + 'static) -> Self {
        self.time = TimeSource::Given(Box::new(clock));
        self
    }

    /// A selector of your own in place of the system's.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::{Runtime, reactor::MioSelector};
    /// // In a test, one that wraps this: see `Selector`.
    /// let selector = Box::new(MioSelector::new()?);
    /// let runtime = Runtime::builder().selector(selector).build()?;
    /// assert_eq!(runtime.block_on(async { 42 }), 42);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn selector(mut self, selector: Box<dyn Selector>) -> Self {
        self.selector = Some(selector);
        self
    }

    /// The most threads for the jobs of [`spawn_blocking`]: 64 by default. They start when they are
    /// needed, and end after ten idle seconds.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::{Runtime, spawn_blocking};
    /// // A library that takes one call at a time.
    /// let runtime = Runtime::builder().blocking_threads(1).build()?;
    /// let file = runtime.block_on(async { spawn_blocking(|| std::fs::read("Cargo.toml")).await });
    /// assert!(!file.unwrap()?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If `threads` is zero.
    #[must_use]
    pub fn blocking_threads(mut self, threads: usize) -> Self {
        assert!(threads > 0, "netpoller: blocking_threads can't be zero");
        self.blocking_threads = threads;
        self
    }

    /// Starts a thread that watches the loop. If a task, a connection, the future of `block_on` or
    /// a closure that was sent runs for longer than `threshold`, the thread logs it at `warn`, at most once
    /// a second, and once more when the run has ended. The time in these lines counts from the beginning of
    /// the batch in which it runs.
    ///
    /// Without the thread, a batch that took longer than a second is logged once it has ended, and from
    /// then on each run is timed. The thread has a cost: glibc's blocking calls are slower once a second
    /// thread has started.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::time::Duration;
    /// let runtime = netpoller::Runtime::builder()
    ///     .watchdog(Duration::from_millis(250))
    ///     .build()?;
    /// // the loop is held for 250.1ms so far by task 1.1, spawned at src/main.rs:7
    /// runtime.spawn(async { std::thread::sleep(Duration::from_millis(300)) });
    /// runtime.turn(None)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If `threshold` is zero.
    #[must_use]
    pub fn watchdog(mut self, threshold: Duration) -> Self {
        assert!(
            !threshold.is_zero(),
            "netpoller: a watchdog's threshold can't be zero"
        );
        self.watchdog = Some(threshold);
        self
    }

    /// Keeps records of what the loop does in a ring of `bytes` in memory (rounded down to a power of two
    /// records of 24 bytes), for [`Handle::trace_last`]: see [`trace`](crate::trace). A message through a
    /// connection makes two records. Only with the feature `trace`.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::Runtime;
    /// use std::time::Duration;
    /// let runtime = Runtime::builder().trace(64 << 10).build()?;
    /// runtime.block_on(async { netpoller::yield_now().await });
    /// let trace = runtime.handle().trace_last(Duration::from_secs(1)).unwrap();
    /// assert!(!trace.records.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "trace")]
    #[must_use]
    pub fn trace(mut self, bytes: usize) -> Self {
        self.trace = Some(bytes);
        self
    }

    /// For tests: in each turn `schedule` orders the runnable ids, and returns how many of them run. Its
    /// arguments: the ids, how many of them are left in the round, how many may run, the tick.
    #[doc(hidden)]
    #[must_use]
    pub fn schedule(
        mut self,
        schedule: impl Fn(&mut [MachineId], usize, usize, u64) -> usize + 'static,
    ) -> Self {
        self.schedule = Some(Box::new(schedule));
        self
    }

    /// Builds it.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let builder = netpoller::Runtime::builder().blocking_threads(1);
    /// let runtime = builder.build()?; // the thread that calls this drives it
    /// let sum = runtime.block_on(async { netpoller::spawn_blocking(|| 1 + 2).await });
    /// assert_eq!(sum.unwrap(), 3);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The system's, when it has no descriptor to spare. `InvalidInput` for a trace ring of less than
    /// 4,096 bytes, and `OutOfMemory` for one that does not fit.
    pub fn build(self) -> io::Result<Runtime> {
        let copy = self.selector.is_some().then(FdCopy::default);
        let selector = match self.selector {
            Some(selector) => selector,
            None => Box::new(MioSelector::new()?),
        };
        let lane = Lane::new(self.blocking_threads);
        let tape = self.trace.map(Tape::new).transpose()?.unwrap_or_default();
        let scheduler = Scheduler::new(selector, copy, self.time, lane, self.schedule, tape);
        let scheduler = Rc::new(scheduler);
        scheduler.reactor.set_spin(self.spin);
        if let Some(threshold) = self.watchdog {
            scheduler.remote.running.watch(threshold)?;
        }
        Ok(Runtime { scheduler })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("spin", &self.spin)
            .finish_non_exhaustive()
    }
}

/// Spawns a task onto the runtime that is in a turn on this thread. It need not be `Send`, and runs from
/// the next turn on: Go's `go`.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// netpoller::Runtime::new()?.block_on(async {
///     let task = netpoller::spawn(async { "done" });
///     assert_eq!(task.await.unwrap(), "done");
/// });
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// Outside a runtime.
#[doc(alias = "go")]
#[track_caller]
pub fn spawn<F: Future<Output: 'static> + 'static>(future: F) -> JoinHandle<F::Output> {
    spawn_at(Location::caller(), None, future)
}

#[track_caller]
fn spawn_at<F: Future<Output: 'static> + 'static>(
    place: Place,
    name: Option<Arc<str>>,
    future: F,
) -> JoinHandle<F::Output> {
    current::with("spawn", |scheduler| scheduler.spawn(place, name, future))
}

/// As [`spawn`], with a name for dumps and warnings.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let runtime = netpoller::Runtime::new()?;
/// let task = runtime.block_on(async { netpoller::spawn_named("the sweeper", async { 42 }) });
/// assert_eq!(runtime.block_on(task).unwrap(), 42);
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// Outside a runtime.
#[track_caller]
pub fn spawn_named<F: Future<Output: 'static> + 'static>(
    name: impl Into<Arc<str>>,
    future: F,
) -> JoinHandle<F::Output> {
    spawn_at(Location::caller(), Some(name.into()), future)
}

/// Lets all that is runnable run first, and the selector be polled: Go's `runtime.Gosched`.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// netpoller::Runtime::new()?.block_on(async {
///     let task = netpoller::spawn(async {});
///     netpoller::yield_now().await;
///     assert!(task.is_finished());
/// });
/// # Ok(())
/// # }
/// ```
#[doc(alias = "Gosched")]
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Which of two futures was ready, and what it returned.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Either<A, B> {
    First(A),
    Second(B),
}

/// Polls both futures, `first` before `second`, until one is ready. The other one is dropped.
///
/// If both are ready in the same poll, `first` wins and `second` is not polled: Go's `select`, with an
/// order where Go chooses at random.
pub(crate) async fn select<A: Future, B: Future>(
    first: A,
    second: B,
) -> Either<A::Output, B::Output> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    poll_fn(|cx| match first.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Either::First(output)),
        Poll::Pending => second.as_mut().poll(cx).map(Either::Second),
    })
    .await
}
