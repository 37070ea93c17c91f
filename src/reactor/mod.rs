//! The netpoller. It hands out what was parked on a source when the source is ready or its deadline
//! expires.
//!
//! Use it for an event loop without tasks or futures. [`Reactor`] has the contract.
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
// Imports nothing of tasks or sockets. Mirrors Go's runtime/netpoll.go: its `poll_runtime_` functions
// `pollOpen`, `pollClose`, `pollReset` (`check`; Go stores pdNil before the try, we after EAGAIN:
// `drained`), `pollWait` (`park`), `pollSetDeadline` and `pollUnblock` (`evict`); and the `netpoll` of each
// platform's file.
//
// # One turn
//
// `Core::turn` calls these functions of netpoll.rs, in this order. All but the first two hand out Ws.
//
//   settle         allows deadlines to expire, up to the proven tick, if all that was handed out has run
//     ▼
//   wait           polls the selector; sleeps until an event, a break, a wheel's next entry or the end of
//                  `max_wait`, unless anything is pending
//     ▼
//   unpark_ready   what is pending; then event ─► token ─► PollDesc ─► what was parked
//     ▼
//   poll_again     if a wait found nothing and an entry is due: polls again, without waiting
//     ▼
//   expire         deadlines and judging timers, to the settled tick; other timers, to the clock's
//
// *Pending* is what a close, or a deadline set in the past, has released. *Proven* and *settled* are
// explained in netpoll.rs.

mod clock;
mod netpoll;
mod poll_desc;
mod selector;
mod types;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
#[cfg(not(mio_unsupported_force_poll_poll))]
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use mio::event::Source;

use crate::sys::{FdCopy, Process};
use crate::trace::{Kind, NOTHING, Recorder, Tape};
use crate::wheel::TimerKey;
pub(crate) use clock::{Clock, TimeSource};
pub(crate) use netpoll::{Core, RunQueue};
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
    /// Deadlines that expired and timers that fired in this turn. A deadline that expires when it is set
    /// is not counted.
    pub expired: usize,
    /// Whether there may be more to do at once.
    pub more: bool,
}

/// What [`Reactor::entries`] counts.
///
/// ```
/// use netpoller::reactor::{Direction, Reactor};
/// use std::time::{Duration, Instant};
///
/// # fn main() -> std::io::Result<()> {
/// let reactor: Reactor<&str> = Reactor::new()?;
/// let (mut ours, _theirs) = mio::net::UnixStream::pair()?;
/// let descriptor = reactor.open(&mut ours)?;
/// let now = Instant::now();
/// descriptor.set_deadline(Direction::Read, Some(now + Duration::from_secs(60)));
/// descriptor.set_deadline(Direction::Read, Some(now + Duration::from_secs(30))); // earlier
/// let entries = reactor.entries();
/// assert_eq!((entries.held, entries.stale), (2, 1));
/// # reactor.close(descriptor, &mut ours)
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entries {
    /// All entries in the wheel of deadlines, the stale ones too.
    pub held: usize,
    /// The stale entries. The wheel drops them when their tick comes, or when it is compacted.
    pub stale: usize,
}

/// A netpoller. It hands out what was parked on a source when the source is ready or its deadline
/// expires.
///
/// `W` is yours: an index into your own state machines, a thread to unpark, a waker. `T` is for this
/// crate's runtime: leave it at `()`. A reactor belongs to one thread and is not `Send`, since its
/// descriptors share it without locks; only its [`Breaker`] is `Send`.
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
/// **Try first.** At first the reactor does not know whether a source is ready. What it knows later may be
/// out of date. So try the operation. If it fails with `WouldBlock`, call [`drained`](PollDesc::drained) and
/// [`park`](PollDesc::park). When a turn hands your `W` out, try again. If a turn has reported the source
/// ready since `drained`, `park` returns [`Ready`](Park::Ready) in place of `Parked`: then no turn will hand
/// the `W` out, and you must try at once.
///
/// **Edges.** A source is registered once, for both directions, edge-triggered. A direction stays ready
/// until you call `drained`, or until `park` returns `Ready`. The selector reports no second edge for
/// bytes that are there already. So try until `WouldBlock` before you park. If you stop before that, do
/// not park: put the `W` into your own run queue.
///
/// **Spurious readiness.** A turn may hand out a `W` although the next attempt fails with `WouldBlock`:
/// another handle has read the bytes, or the selector was wrong. Park again. After an error, or after
/// the end of both directions, both are ready, as in Go: the next attempt returns the error or the end
/// of file. A FIN makes only reading ready.
///
/// **Short reads and writes.** If a read of a TCP stream returns less than was asked for, the kernel's
/// receive buffer is empty. If a write takes less, the send buffer is full.
/// [`transferred`](PollDesc::transferred) and [`park_short`](PollDesc::park_short) then save the attempt
/// that would fail with `WouldBlock`, unless the peer has hung up, urgent data is there, or the selector
/// can't tell. On Unix streams and datagrams call neither.
///
/// **One waiter.** Each direction holds one `W`. Parking a second one panics.
///
/// **Deadlines.** Each direction has one. When it expires, a turn hands out what is parked there, and
/// [`check`](PollDesc::check) and `park` report a timeout until the deadline is moved. Moving it later
/// only stores it, and no timer is touched: so move it on every read. A deadline is never early. One
/// that is set to now or to the past expires at once, even if there is data to read (in a later turn, if the
/// loop was held up for more than ten seconds).
///
/// A deadline *judges a peer*: if it expires, the peer was too slow. So a deadline at T expires only
/// after the reactor has handed out the `W` of every event before T and you have run it, since it may
/// move the deadline. If the loop was blocked, a read still does not time out if its bytes arrived before
/// the deadline. A [`timer`](Reactor::timer) judges no peer: it fires once the clock has reached its time.
///
/// **What runs before the next turn.** A call of [`turn`](Reactor::turn) says that everything handed out
/// so far has run, and has moved the deadlines that it wanted to move. If you delay a `W` past the next
/// turn, the deadline of its descriptor may expire although bytes are there. The reactor does not wait
/// for another thread, or for a task of another runtime, to move a deadline.
///
/// **Closing.** Call [`close`](Reactor::close) while the source is still open. The next turn, which does
/// not block, hands out what is parked. Events that were already read for this source are dropped. They
/// do not reach a source that gets the same key later. After [`evict`](PollDesc::evict), or when the
/// reactor is gone, the descriptor is closed for ever.
///
/// **Re-entrance.** A [`Selector`], a source's `register`, `reregister` and `deregister`, and a logger of the
/// crate log must not use the reactor, which is borrowed while they run: a logger that opens a socket in the
/// same thread panics. A logger must not panic either. The drop of a `W` may use the reactor.
///
/// **Portability.** epoll and kqueue report edges. mio's poll(2) does not: there short transfers prove
/// nothing, and `with_fd` returns `None`. There, after `WouldBlock`, arm the source again:
/// mio's own sources do that themselves, for others call [`rearm`](PollDesc::rearm).
/// Only Linux and Android report urgent data: elsewhere a short transfer proves nothing either.
///
/// **Time.** Deadlines and timers are rounded up to a whole millisecond; `max_wait` too, except with kqueue.
/// For exact frames, let `max_wait` end two milliseconds early, and then call `turn` with a `max_wait` of
/// zero until it is time.
pub struct Reactor<W, T = ()> {
    pub(crate) core: Rc<Core<W, T>>,
    /// Only for a selector of the user's: what `as_fd` lends.
    #[cfg_attr(mio_unsupported_force_poll_poll, allow(dead_code))]
    pub(crate) copy: Option<FdCopy>,
}

impl<W> Reactor<W> {
    /// A reactor on the system's selector, on the real clock.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::Reactor;
    /// // What is parked is yours: here, the number of a machine.
    /// let reactor: Reactor<usize> = Reactor::new()?;
    /// assert_eq!(reactor.next_timeout(), None); // nothing to wait for
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The system's, when file descriptors run out.
    pub fn new() -> io::Result<Self> {
        let trace = Recorder::new(Tape::default(), |_| 0);
        Ok(Reactor::bare(Box::new(MioSelector::new()?), None, trace))
    }

    /// A reactor on a selector of your own.
    pub fn with(selector: Box<dyn Selector>) -> Self {
        let trace = Recorder::new(Tape::default(), |_| 0);
        Reactor::bare(selector, Some(FdCopy::default()), trace)
    }

    fn bare(selector: Box<dyn Selector>, copy: Option<FdCopy>, trace: Recorder<W>) -> Self {
        let core = Core::new(selector, TimeSource::System, |(), _| {}, trace);
        Reactor { core, copy }
    }

    /// As [`new`](Reactor::new), with a ring of `bytes` in memory that keeps records of what the reactor
    /// does: see [`trace`](crate::trace). `name` returns the number of a `W` in the records, below
    /// `u64::MAX - 3`. It must not use the reactor. It must not panic, or the turn loses what it has not
    /// handed out yet. Only with the feature `trace`.
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
        let trace = Recorder::new(Tape::new(bytes)?, name);
        Ok(Reactor::bare(Box::new(MioSelector::new()?), None, trace))
    }

    /// Registers a source for both directions. The reactor does not know yet whether it is ready: try
    /// first.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::Reactor;
    /// let reactor: Reactor<usize> = Reactor::new()?;
    /// let mut listener = mio::net::TcpListener::bind("127.0.0.1:0".parse().unwrap())?;
    /// let descriptor = reactor.open(&mut listener)?;
    /// assert_eq!(reactor.descriptors(), 1);
    /// reactor.close(descriptor, &mut listener)?;
    /// assert_eq!(reactor.descriptors(), 0);
    /// # Ok(())
    /// # }
    /// ```
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
    /// Deregisters a source and forgets its descriptor. What was parked there is handed out by the
    /// next turn, which does not block.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::reactor::{Direction, Park, Reactor};
    /// let reactor: Reactor<&str> = Reactor::new()?;
    /// let (mut ours, _theirs) = mio::net::UnixStream::pair()?;
    /// let descriptor = reactor.open(&mut ours)?;
    /// assert_eq!(descriptor.park(Direction::Read, "reader"), Park::Parked);
    /// reactor.close(descriptor, &mut ours)?;
    /// let mut ready = Vec::new();
    /// reactor.turn(None, &mut ready)?; // does not block
    /// assert_eq!(ready, ["reader"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The selector's. The descriptor is closed all the same.
    ///
    /// # Panics
    ///
    /// In a debug build, if the descriptor is another reactor's.
    #[doc(alias = "poll_runtime_pollClose")]
    pub fn close(&self, descriptor: Descriptor<W, T>, source: &mut dyn Source) -> io::Result<()> {
        debug_assert!(Rc::ptr_eq(&self.core, &descriptor.core));
        descriptor.close(source)
    }

    /// One turn: waits up to `max_wait` (for ever if `None`) for readiness, a deadline, a timer or a
    /// [`Breaker`], and appends what was parked to `out`. It does not wait if a close or a deadline set
    /// in the past has released anything.
    ///
    /// The call says that everything handed out before has run. A turn may return before `max_wait`
    /// with nothing in `out`.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::Reactor;
    /// use std::time::{Duration, Instant};
    /// let reactor: Reactor<&str> = Reactor::new()?;
    /// reactor.timer(Instant::now(), "due");
    /// let mut ready = Vec::new();
    /// let turn = reactor.turn(Some(Duration::from_secs(1)), &mut ready)?;
    /// assert_eq!((turn.expired, turn.events), (1, 0));
    /// for machine in ready.drain(..) {
    ///     assert_eq!(machine, "due"); // run it, before the next turn
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The selector's. What was appended to `out` before has to run all the same.
    #[doc(alias = "netpoll")]
    pub fn turn(&self, max_wait: Option<Duration>, out: &mut Vec<W>) -> io::Result<Turn> {
        let trace = &self.core.trace;
        self.core.rounds.update(|rounds| rounds + 1);
        let turn = self.core.turn(max_wait, RunQueue::Empty, &mut |w| {
            let number = trace.number(&w);
            out.push(w);
            number
        });
        trace.put(Kind::TurnEnd, NOTHING, 0);
        turn
    }

    /// The newest record of the ring, and those that are at most `last` older. `None` if the reactor has
    /// no ring: see [`with_trace`](Reactor::with_trace).
    #[cfg(feature = "trace")]
    pub fn trace_last(&self, last: Duration) -> Option<crate::trace::Trace> {
        crate::trace::Trace::of(&self.core.trace.tape, last)
    }

    /// How long the next turn may sleep, at most: until the next entry of a timer wheel is due, which may be
    /// a [stale](Entries::stale) one. Zero if a close or a past deadline has released a
    /// `W`, an entry is due, or the last harvest may have left events. `None` if there is no entry. Reads
    /// the clock, unless something was released or left.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::Reactor;
    /// use std::time::{Duration, Instant};
    /// let reactor: Reactor<&str> = Reactor::new()?;
    /// assert_eq!(reactor.next_timeout(), None);
    /// reactor.timer(Instant::now() + Duration::from_secs(5), "tea");
    /// let wait = reactor.next_timeout().unwrap();
    /// assert!(wait > Duration::from_secs(4) && wait <= Duration::from_millis(5001));
    /// # Ok(())
    /// # }
    /// ```
    pub fn next_timeout(&self) -> Option<Duration> {
        let core = &self.core;
        if core.has_pending() || core.found_more.get() {
            return Some(Duration::ZERO);
        }
        core.clock.read();
        core.until_next()
    }

    /// Hands `w` out at `when`, or in the next turn if `when` has passed. A timer judges no peer: it
    /// fires once the clock has reached `when`, whatever is still to run.
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
        let tick = self.core.clock.tick_ahead(when).unwrap_or_default();
        self.core.timers.borrow_mut().insert(tick, w)
    }

    /// Moves a timer. `false` if it has fired or was canceled.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::Reactor;
    /// use std::time::{Duration, Instant};
    /// let reactor: Reactor<&str> = Reactor::new()?;
    /// let hour = Duration::from_secs(3600);
    /// let tea = reactor.timer(Instant::now() + hour, "tea");
    /// assert!(reactor.move_timer(tea, Instant::now() + 2 * hour));
    /// assert_eq!(reactor.timers(), 1);
    /// assert_eq!(reactor.cancel_timer(tea), Some("tea"));
    /// assert!(!reactor.move_timer(tea, Instant::now()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn move_timer(&self, key: TimerKey, when: Instant) -> bool {
        let tick = self.core.clock.tick_ahead(when).unwrap_or_default();
        self.core.timers.borrow_mut().move_to(key, tick)
    }

    /// Takes a timer out before it fires. `None` if it has fired or was canceled.
    pub fn cancel_timer(&self, key: TimerKey) -> Option<W> {
        self.core.timers.borrow_mut().cancel(key)
    }

    /// Before each sleep, polls the selector for this long without sleeping. Answers come sooner, and the
    /// loop keeps a CPU busy for as long. With zero, the default, the loop sleeps at once.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::Reactor;
    /// use std::time::Duration;
    /// let reactor: Reactor<usize> = Reactor::new()?;
    /// reactor.set_spin(Duration::from_micros(50));
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_spin(&self, spin: Duration) {
        self.core.spin.set(spin);
    }

    /// The last reading of the clock.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::Reactor;
    /// use std::time::{Duration, Instant};
    /// let reactor: Reactor<usize> = Reactor::new()?;
    /// reactor.turn(Some(Duration::ZERO), &mut Vec::new())?;
    /// assert!(reactor.now() <= Instant::now());
    /// # Ok(())
    /// # }
    /// ```
    pub fn now(&self) -> Instant {
        self.core.clock.now()
    }

    /// A [`Breaker`], which ends a blocked turn from any thread.
    pub fn breaker(&self) -> Breaker {
        self.core.breaker()
    }

    /// The number of open descriptors.
    pub fn descriptors(&self) -> usize {
        self.core.registry.borrow().len()
    }

    /// The number of timers that have neither fired nor been canceled: see [`timer`](Reactor::timer).
    pub fn timers(&self) -> usize {
        self.core.timers.borrow().len()
    }

    /// Calls `look` with each open descriptor: what is [parked](PollDesc::parked) on it, its
    /// [deadlines](PollDesc::deadline), whether it is ready. Use it to find out why a loop hangs. It
    /// makes no system call.
    ///
    /// `look` must not use the reactor, which is borrowed while it runs. The order is not promised.
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

    /// How many entries the timer wheel holds for deadlines. When a deadline moves earlier, or its
    /// descriptor is closed, the old entry stays in the wheel, *stale*, until its tick comes or the wheel
    /// is compacted.
    pub fn entries(&self) -> Entries {
        let deadlines = self.core.deadlines.borrow();
        Entries {
            held: deadlines.entries(),
            stale: deadlines.entries() - deadlines.len(),
        }
    }

    /// Calls `f` with the selector's file descriptor, which another loop can wait for: it is readable
    /// when a turn would find readiness. `None` if the selector has none.
    ///
    /// Deadlines do not make it readable: wait for it no longer than [`Reactor::next_timeout`]. `f` must
    /// not use the reactor, which is borrowed while it runs.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::Reactor;
    /// use std::os::fd::AsRawFd;
    /// let reactor: Reactor<usize> = Reactor::new()?;
    /// // For the loop around it: `None` under poll(2).
    /// if let Some(fd) = reactor.with_fd(|fd| fd.as_raw_fd()) {
    ///     println!("wait for {fd}, at most {:?}", reactor.next_timeout());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_fd<R>(&self, f: impl FnOnce(BorrowedFd<'_>) -> R) -> Option<R> {
        self.core.selector.borrow().descriptor().map(f)
    }
}

/// To nest a reactor in another loop: wait for this to be readable, no longer than
/// [`Reactor::next_timeout`], then call [`Reactor::turn`] with a wait of zero, whatever ended the wait: a
/// deadline does not make it readable.
///
/// ```
/// use netpoller::Reactor;
/// use std::os::fd::AsFd;
///
/// # fn main() -> std::io::Result<()> {
/// let outer: Reactor<&str> = Reactor::new()?;
/// let inner: Reactor<&str> = Reactor::new()?;
/// # #[cfg(not(mio_unsupported_force_poll_poll))] {
/// let fd = std::os::fd::AsRawFd::as_raw_fd(&inner.as_fd());
/// let nested = outer.open(&mut mio::unix::SourceFd(&fd))?;
/// # outer.close(nested, &mut mio::unix::SourceFd(&fd))?;
/// # }
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// If the reactor was made with a selector of your own that has no descriptor, or if the process has none
/// to spare for the copy of it that is lent.
#[cfg(not(mio_unsupported_force_poll_poll))]
impl<W, T> AsFd for Reactor<W, T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // A selector of the user's may replace its descriptor while it is lent.
        let fd = self.with_fd(|own| match &self.copy {
            Some(copy) => copy.of(own),
            None => own.as_raw_fd(),
        });
        crate::sys::borrow(
            fd.expect("netpoller: this selector has no descriptor to nest"),
            self,
        )
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

/// Ends a blocked turn from any thread: Go's `netpollBreak`. [`Reactor::breaker`] makes one. A clone
/// ends the turns of the same reactor.
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
    /// Makes the turn under way, or else the next one, return soon. If a signal interrupts the call, it
    /// is repeated.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::Reactor;
    /// let reactor: Reactor<usize> = Reactor::new()?;
    /// reactor.breaker().break_netpoll()?;
    /// let turn = reactor.turn(None, &mut Vec::new())?; // returns at once
    /// assert_eq!(turn.events, 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn break_netpoll(&self) -> io::Result<()> {
        // In a child of fork the pipe is the parent's: a write would wake the parent.
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
