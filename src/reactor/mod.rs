//! The netpoller: when a source is ready, or its deadline passes, hands back what was parked on it.
//!
//! For an event loop of one's own, without tasks or futures. [`Reactor`] has the contract.
//!
//! ```
//! use netpoller::reactor::{Direction, Reactor, TryIo};
//! use std::io::{Read, Write};
//!
//! # fn main() -> std::io::Result<()> {
//! let reactor: Reactor<&str> = Reactor::new()?;
//! let (mut ours, mut theirs) = mio::net::UnixStream::pair()?;
//! let descriptor = reactor.open(&mut ours)?;
//! let tried = descriptor.try_io(Direction::Read, "the reader", || ours.read(&mut [0; 8]));
//! assert!(matches!(tried, TryIo::Parked)); // nothing was there
//!
//! theirs.write_all(b"hello")?;
//! let mut ready = Vec::new();
//! while ready.is_empty() {
//!     reactor.turn(None, &mut ready)?; // sleeps in the kernel
//! }
//! assert_eq!(ready, ["the reader"]);
//! # reactor.close(descriptor, &mut ours)
//! # }
//! ```
// Knows nothing of tasks or sockets. Mirrors Go's runtime/netpoll.go: its `poll_runtime_` functions
// `pollOpen`, `pollClose`, `pollReset` (`check`), `pollWait` (`park`), `pollSetDeadline` and
// `pollUnblock` (`evict`), and `netpoll` itself.
//
// # One turn
//
//   settle ──► wait ──► pending ──► unpark the ready ──► look again ──► expire ──► fire timers
//  (what has  (selector, (released   (by token and      (if nothing   (deadlines  (by the
//   run)       until the  by a        generation)        came)         up to the   clock)
//              next tick) close)                                       settled
//                           │               │                          reading)      │
//                           └───────────────┴──────► out: Vec<W> ◄─────────┴─────────┘

mod clock;
mod netpoll;
mod poll_desc;
mod selector;
mod types;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use mio::event::Source;

use crate::sys::Process;
use crate::trace::{Kind, NOTHING, Recorder, Tape};
use crate::wheel::TimerKey;
pub(crate) use clock::{Clock, TimeSource};
pub(crate) use netpoll::{Behind, Core, RunQueue};
pub use poll_desc::{Descriptor, PollDesc};
pub use selector::{Break, Event, Harvest, MioSelector, Selector, Traits};
pub(crate) use types::May;
pub use types::{Direction, Park, Readiness, Refusal, Token, TryIo};

/// What one turn of the loop did.
///
/// ```
/// use netpoller::Runtime;
/// use std::time::Duration;
///
/// # fn main() -> std::io::Result<()> {
/// let runtime = Runtime::new()?;
/// runtime.spawn(async { netpoller::yield_now().await });
/// let turn = runtime.turn(Some(Duration::ZERO))?;
/// // The task has yielded, and is to run again.
/// assert_eq!((turn.machines, turn.more), (1, true));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Events harvested from the selector that named an open descriptor.
    pub events: usize,
    /// Runs of a machine, which is a task or a connection; zero for a bare [`Reactor`], which runs
    /// nothing.
    pub machines: usize,
    /// Deadlines that passed and timers that fired.
    pub expired: usize,
    /// Whether there is more to do: the next turn will not block.
    pub more: bool,
}

/// What [`Reactor::entries`] counts.
///
/// [`Reactor::entries`] has an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entries {
    /// All that the wheel holds, the stale ones too.
    pub held: usize,
    /// Those of them that no longer stand for a timer.
    pub stale: usize,
}

/// A netpoller: when a source is ready, or its deadline passes, it hands back what was parked on it.
///
/// `W` is yours: an index into your own state machines, a thread to unpark, a waker. `T` is what each
/// descriptor carries for the runtime; ignore it. A reactor belongs to one thread and is not `Send`,
/// since its descriptors share it without locks; only its [`Breaker`] is `Send`.
///
/// ```
/// use netpoller::reactor::{Direction, Park, Reactor};
/// use std::io::{Read, Write};
///
/// # fn main() -> std::io::Result<()> {
/// let reactor: Reactor<usize> = Reactor::new()?;
/// let (mut ours, theirs) = mio::net::UnixStream::pair()?;
/// let descriptor = reactor.open(&mut ours)?;
///
/// // Try, EAGAIN, park.
/// let mut byte = [0];
/// assert_eq!(ours.read(&mut byte).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
/// assert_eq!(descriptor.park(Direction::Read, 7), Park::Parked);
///
/// (&theirs).write_all(b"!")?;
/// let mut ready = Vec::new();
/// while ready.is_empty() {
///     reactor.turn(None, &mut ready)?;
/// }
/// assert_eq!(ready, [7]);
/// assert_eq!(ours.read(&mut byte)?, 1);
/// reactor.close(descriptor, &mut ours)
/// # }
/// ```
///
/// # Contract
///
/// **Try first.** Readiness is unknown at first, and only a hint later. Try the operation. When it
/// fails with `WouldBlock`, call [`drained`](PollDesc::drained) and [`park`](PollDesc::park). When
/// the turn hands your `W` back, try again. If readiness came after the attempt, `park` says
/// [`Ready`](Park::Ready) in place of `Parked`: then no turn will hand the `W` out, and you must
/// try at once.
///
/// **Edges.** A source is registered once, for both directions, edge-triggered. Readiness that was
/// reported is remembered until `drained` or a `park` that consumes it. No edge comes for bytes
/// that are already there: operate until `WouldBlock` before you park, or put yourself back into
/// your own queue.
///
/// **Spurious readiness.** A `W` may come back although an attempt still fails: another handle read
/// the bytes, or the selector erred. Park again. An error, or the end of both directions, makes
/// both ready, as in Go: the attempt will tell which it is. A FIN makes only reading ready.
///
/// **Short reads and writes.** When a read or write of a TCP stream moves less than was asked for, the
/// kernel has, or takes, no more. [`transferred`](PollDesc::transferred) and
/// [`park_short`](PollDesc::park_short) then save the attempt that would meet `WouldBlock`, unless
/// the peer has hung up, urgent data is there, or the selector can't tell. On Unix streams and
/// datagrams call neither.
///
/// **One waiter.** Each direction holds one `W`. A second one panics.
///
/// **Deadlines.** Each direction has one. When it passes, what is parked there is handed back, and
/// [`check`](PollDesc::check) and `park` say that it timed out until it is moved. Moving it later
/// is a store, so move it on every read. It is never early, and the past expires at once, even with
/// data waiting. A deadline *judges a peer*: when it passes, the peer was too slow. So it expires
/// only after everything that had arrived in time has been handed out, has run, and has had its
/// chance to move the deadline. After a loop was held up, no deadline expires whose bytes had come
/// in time. A [`timer`](Reactor::timer) judges no peer, and fires by the clock.
///
/// **What runs before the next turn.** Calling [`turn`](Reactor::turn) says that everything handed
/// out so far has run, and has moved the deadlines that it meant to move. The reactor does not know of
/// a `W` that you put off: its deadline may expire although bytes are there. Nor does the reactor wait
/// for another thread, or a task of another runtime, to move a deadline.
///
/// **Closing.** Call [`close`](Reactor::close) while the source is still open. The next turn, which does
/// not block, hands back what is parked. Events that were harvested for the source reach nothing, not
/// even the next owner of its key. After [`evict`](PollDesc::evict), or when the reactor is gone, the
/// descriptor says that it is closed, for ever.
///
/// **Re-entrance.** A source's `register` and a [`Selector`] must not use the reactor, which is
/// borrowed meanwhile. The drop of a `W` may use it.
///
/// **Portability.** epoll and kqueue report edges. Forced poll(2) does not: there short transfers prove
/// nothing, and there is no descriptor for nesting. After `WouldBlock` a source has to be armed again:
/// mio's own sources do that themselves, for others call [`rearm`](PollDesc::rearm).
/// Only Linux and Android report urgent data: elsewhere a short transfer proves nothing either.
///
/// **Time.** A tick is a millisecond. `max_wait` is rounded up to one, as the system's call does it. For
/// exact frames, let `max_wait` end two milliseconds early, and then look with a `max_wait` of zero
/// until it is time.
pub struct Reactor<W, T = ()> {
    core: Rc<Core<W, T>>,
}

impl<W> Reactor<W> {
    /// A reactor on the system's selector, on the real clock.
    ///
    /// # Errors
    ///
    /// The system's, when it has no descriptor to spare.
    pub fn new() -> io::Result<Self> {
        Ok(Reactor::with(Box::new(MioSelector::new()?)))
    }

    /// A reactor on a selector of your own.
    pub fn with(selector: Box<dyn Selector>) -> Self {
        Reactor::bare(selector, Recorder::new(Tape::default(), |_| 0))
    }

    fn bare(selector: Box<dyn Selector>, trace: Recorder<W>) -> Self {
        Reactor::with_clock(selector, TimeSource::System, |(), _| {}, trace)
    }

    /// As [`new`](Reactor::new), with a ring of `bytes` in memory that keeps records of what the reactor
    /// does: see [`trace`](crate::trace). `name` gives what is parked a number in them, but none of
    /// the largest four, and may not use the reactor. Only with the feature `trace`.
    ///
    /// ```
    /// # use netpoller::reactor::{Direction, Park, Reactor};
    /// # use netpoller::trace::Kind;
    /// # use std::time::Duration;
    /// # fn main() -> std::io::Result<()> {
    /// let reactor = Reactor::with_trace(1 << 20, |&id: &usize| id as u64)?;
    /// let (mut ours, theirs) = mio::net::UnixStream::pair()?;
    /// let descriptor = reactor.open(&mut ours)?;
    /// assert_eq!(descriptor.park(Direction::Read, 7), Park::Parked);
    /// drop(theirs);
    /// let mut ready = Vec::new();
    /// while ready.is_empty() {
    ///     reactor.turn(None, &mut ready)?;
    /// }
    /// let trace = reactor.trace_last(Duration::from_secs(1)).unwrap();
    /// let unparked = trace.records.iter().find(|record| record.kind == Kind::Unpark).unwrap();
    /// assert_eq!(unparked.id, 7);
    /// # reactor.close(descriptor, &mut ours)
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`new`](Reactor::new), and `InvalidInput` for a ring of less than 4,096 bytes.
    #[cfg(feature = "trace")]
    pub fn with_trace(bytes: usize, name: fn(&W) -> u64) -> io::Result<Self> {
        let trace = Recorder::new(Tape::new(Some(bytes))?, name);
        Ok(Reactor::bare(Box::new(MioSelector::new()?), trace))
    }

    /// Registers a source for both directions. Nothing is parked, and nothing is known: try first.
    ///
    /// # Errors
    ///
    /// The selector's, and `OutOfMemory` when all keys are taken.
    #[doc(alias = "poll_runtime_pollOpen")]
    pub fn open(&self, source: &mut dyn Source) -> io::Result<Descriptor<W>> {
        self.core.open(source, None, ())
    }
}

impl<W, T> Reactor<W, T> {
    /// A reactor with a `T` in each descriptor, on a given clock.
    pub(crate) fn with_clock(
        selector: Box<dyn Selector>,
        time: TimeSource,
        behind: Behind<W, T>,
        trace: Recorder<W>,
    ) -> Self {
        let core = Rc::new(Core::new(selector, time, behind, trace));
        Reactor { core }
    }

    /// Deregisters a source and forgets its descriptor. What was parked there is handed back by the
    /// next turn, which does not block.
    ///
    /// # Errors
    ///
    /// The selector's. The descriptor is closed all the same.
    #[doc(alias = "poll_runtime_pollClose")]
    pub fn close(&self, descriptor: Descriptor<W, T>, source: &mut dyn Source) -> io::Result<()> {
        let ours: *const () = Rc::as_ptr(&self.core).cast();
        debug_assert_eq!(descriptor.home(), ours, "a descriptor of this reactor");
        descriptor.close(source)
    }

    /// One turn: waits up to `max_wait` (for ever if `None`) for readiness, a deadline, an eviction
    /// or a [`Breaker`], and appends what was parked to `out`.
    ///
    /// Calling it says that everything handed out before has run. A turn may end early and hand
    /// back nothing. `max_wait` is rounded up to a millisecond.
    ///
    /// # Errors
    ///
    /// The selector's. What was appended to `out` is still to be run.
    #[doc(alias = "netpoll")]
    pub fn turn(&self, max_wait: Option<Duration>, out: &mut Vec<W>) -> io::Result<Turn> {
        let trace = &self.core.trace;
        let turn = self.core.turn(max_wait, RunQueue::Empty, |w| {
            let number = trace.number(&w);
            out.push(w);
            number
        });
        trace.put(Kind::TurnEnd, NOTHING, 0);
        turn
    }

    /// What the reactor has done: what its ring holds of the `last` time before the newest record. `None`
    /// if it has no ring: see [`with_trace`](Reactor::with_trace).
    #[cfg(feature = "trace")]
    pub fn trace_last(&self, last: Duration) -> Option<crate::trace::Trace> {
        crate::trace::Trace::of(&self.core.trace.tape, last)
    }

    /// How long a turn could sleep: until the next deadline; zero if something is to be handed out
    /// now; `None` if only readiness can come. Counts from a fresh reading of the clock.
    pub fn next_timeout(&self) -> Option<Duration> {
        let core = &self.core;
        if core.has_pending() {
            return Some(Duration::ZERO);
        }
        core.clock.read();
        core.until_next()
    }

    /// Hands `w` out at `when`, or in the next turn if `when` has passed. This timer judges no
    /// peer: it fires by the clock, whatever is still to run.
    ///
    /// ```
    /// # use netpoller::reactor::Reactor;
    /// # use std::time::{Duration, Instant};
    /// # fn main() -> std::io::Result<()> {
    /// let reactor: Reactor<&str> = Reactor::new()?;
    /// let soon = Instant::now() + Duration::from_millis(5);
    /// reactor.timer(soon, "tea");
    /// let late = reactor.timer(soon, "coffee");
    /// reactor.cancel_timer(late);
    /// let mut due = Vec::new();
    /// while due.is_empty() {
    ///     reactor.turn(None, &mut due)?;
    /// }
    /// assert_eq!(due, ["tea"]);
    /// assert!(Instant::now() >= soon);
    /// # Ok(())
    /// # }
    /// ```
    pub fn timer(&self, when: Instant, w: W) -> TimerKey {
        let tick = self.core.clock.tick_of(when);
        self.core.timers.borrow_mut().insert(tick, w)
    }

    /// Moves a timer. `false` if it has fired or was canceled.
    pub fn move_timer(&self, key: TimerKey, when: Instant) -> bool {
        let tick = self.core.clock.tick_of(when);
        self.core.timers.borrow_mut().move_to(key, tick)
    }

    /// Takes a timer out before it fires. `None` if it has, or was canceled before.
    pub fn cancel_timer(&self, key: TimerKey) -> Option<W> {
        self.core.timers.borrow_mut().cancel(key)
    }

    /// Before each sleep, polls the selector for this long without sleeping. Answers come sooner,
    /// and the loop keeps a CPU busy for as long. Zero, the default, sleeps at once.
    pub fn set_spin(&self, spin: Duration) {
        self.core.spin.set(spin);
    }

    /// The last reading of the clock.
    #[inline]
    pub fn now(&self) -> Instant {
        self.core.clock.now()
    }

    /// Ends a blocked turn from any thread.
    pub fn breaker(&self) -> Breaker {
        self.core.breaker()
    }

    /// Descriptors registered.
    pub fn descriptors(&self) -> usize {
        self.core.registry.borrow().len()
    }

    /// Timers that are to fire: see [`timer`](Reactor::timer).
    pub fn timers(&self) -> usize {
        self.core.timers.borrow().len()
    }

    /// Shows each open descriptor: what is [parked](PollDesc::parked) on it, its
    /// [deadlines](PollDesc::deadline), whether it is ready. For a look at a loop that hangs: it reads
    /// tables, and asks the system nothing.
    ///
    /// `look` must not use the reactor, which is borrowed meanwhile. The order is not promised.
    ///
    /// ```
    /// # use netpoller::reactor::{Direction, Park, Reactor};
    /// # fn main() -> std::io::Result<()> {
    /// let reactor: Reactor<&str> = Reactor::new()?;
    /// let (mut ours, _theirs) = mio::net::UnixStream::pair()?;
    /// let descriptor = reactor.open(&mut ours)?;
    /// let soon = std::time::Instant::now() + std::time::Duration::from_secs(9);
    /// descriptor.set_deadline(Direction::Read, Some(soon));
    /// assert_eq!(descriptor.park(Direction::Read, "the reader"), Park::Parked);
    ///
    /// let mut waiting = Vec::new();
    /// reactor.for_each(|descriptor| {
    ///     assert!(descriptor.deadline(Direction::Read).is_some());
    ///     descriptor.parked(|direction, &w| waiting.push((direction, w)));
    /// });
    /// assert_eq!(waiting, [(Direction::Read, "the reader")]);
    /// # reactor.close(descriptor, &mut ours)
    /// # }
    /// ```
    pub fn for_each(&self, mut look: impl FnMut(&PollDesc<W, T>)) {
        let registry = self.core.registry.borrow();
        registry.iter().for_each(|(_, desc)| look(desc));
    }

    /// How many entries the timer wheel holds for deadlines. A deadline that moves earlier, or a
    /// descriptor that is closed, leaves its entry behind, *stale*, until it comes up or is swept out.
    pub fn entries(&self) -> Entries {
        let deadlines = self.core.deadlines.borrow();
        Entries {
            held: deadlines.entries(),
            stale: deadlines.entries() - deadlines.len(),
        }
    }

    /// The selector's descriptor, readable when a turn would find readiness, for nesting in
    /// another loop. `None` where the selector has none.
    ///
    /// Deadlines do not make it readable: wait on it no longer than [`Reactor::next_timeout`]. `f`
    /// must not use the reactor, which is borrowed meanwhile.
    pub fn with_fd<R>(&self, f: impl FnOnce(BorrowedFd<'_>) -> R) -> Option<R> {
        self.core.selector.borrow().descriptor().map(f)
    }

    pub(crate) fn core(&self) -> &Rc<Core<W, T>> {
        &self.core
    }
}

impl<W, T> Drop for Reactor<W, T> {
    fn drop(&mut self) {
        self.core.evict_all();
    }
}

impl<W, T> fmt::Debug for Reactor<W, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor")
            .field("descriptors", &self.descriptors())
            .finish_non_exhaustive()
    }
}

/// Ends a blocked turn from any thread: Go's `netpollBreak`. [`Reactor::breaker`] makes one; a
/// clone ends the same reactor's turns.
///
/// ```
/// use netpoller::Reactor;
///
/// # fn main() -> std::io::Result<()> {
/// let reactor: Reactor<usize> = Reactor::new()?;
/// let breaker = reactor.breaker();
/// let other = std::thread::spawn(move || breaker.break_netpoll());
/// // Sleeps until the thread ends it, and finds nothing.
/// assert_eq!(reactor.turn(None, &mut Vec::new())?.events, 0);
/// other.join().unwrap()
/// # }
/// ```
#[derive(Clone)]
pub struct Breaker {
    inner: Arc<dyn Break>,
    process: Process,
}

impl Breaker {
    /// Makes the turn under way, or else the next one, return soon. A signal during the call does
    /// not prevent that.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn break_netpoll(&self) -> io::Result<()> {
        // A child of fork shares what it would write to, and would wake its parent.
        if !self.process.is_current() {
            return Ok(());
        }
        while let Err(error) = self.inner.break_netpoll() {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker").finish_non_exhaustive()
    }
}
