//! The netpoller: hands back what was parked on a source once that is ready, or its deadline passes.
// Knows nothing of tasks or sockets. Mirrors Go's runtime/netpoll.go: `poll_runtime_pollOpen`,
// `pollWait`, `pollSetDeadline`, `pollUnblock`, and `netpoll` itself.
//
// # One turn
//
//   settle ──► pending ──► wait ──► unpark the ready ──► settle at rest ──► expire ──► fire timers
//  (what has  (released  (selector,  (by token and      (nothing came:     (deadlines  (by the
//   run)       by a       until the   generation)        look once more)    up to the   clock)
//              close)     next tick)                                        settled
//                 │                         │                               reading)      │
//                 └─────────────────────────┴──────► out: Vec<W> ◄──────────────┴─────────┘

mod clock;
mod netpoll;
mod poll_desc;
mod registry;
mod selector;
mod types;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Source;

use crate::sys::Process;
use crate::wheel::TimerKey;
pub(crate) use clock::TimeSource;
pub(crate) use netpoll::{Behind, Core, Jump, RunQueue};
pub(crate) use poll_desc::{Closes, ShortIo};
pub use poll_desc::{Descriptor, PollDesc};
pub use selector::{Break, Event, Harvest, MioSelector, Selector, Token, Traits};
pub(crate) use types::May;
pub use types::{Direction, Park, Readiness, Refusal};

/// What one turn of the loop did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Events harvested from the selector.
    pub events: usize,
    /// Machines run; always zero for a bare [`Reactor`], which runs nothing.
    pub machines: usize,
    /// Deadlines that passed and timers that fired.
    pub expired: usize,
    /// Whether there is more to do at once: the next turn will not block.
    pub more: bool,
}

/// A netpoller that hands back what was parked: `W` is yours, an index into your own state
/// machines, a thread to unpark, a waker.
///
/// `T` is what each descriptor carries along; the runtime keeps its sockets there, and you can
/// ignore it.
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
        Reactor::with_clock(selector, TimeSource::System, |(), _| None)
    }

    /// Registers a source for both directions. Nobody is parked, and nothing is known: try first.
    ///
    /// # Errors
    ///
    /// The selector's, and `OutOfMemory` when all slots are taken.
    #[doc(alias = "poll_runtime_pollOpen")]
    pub fn open(&self, source: &mut dyn Source) -> io::Result<Descriptor<W>> {
        self.core.open(source, None, (), ShortIo::Conclusive)
    }
}

impl<W, T> Reactor<W, T> {
    /// A reactor whose descriptors carry a `T`, on a clock of one's own.
    pub(crate) fn with_clock(
        selector: Box<dyn Selector>,
        time: TimeSource,
        behind: Behind<W, T>,
    ) -> Self {
        Reactor {
            core: Rc::new(Core::new(selector, time, behind)),
        }
    }

    /// Deregisters a source and forgets its descriptor. What was parked there is handed back by the
    /// next turn, which does not block.
    ///
    /// # Errors
    ///
    /// The selector's. The descriptor is closed all the same.
    #[doc(alias = "poll_runtime_pollClose")]
    pub fn close(&self, descriptor: Descriptor<W, T>, source: &mut dyn Source) -> io::Result<()> {
        descriptor.close(source, Closes::No)
    }

    /// One turn: waits up to `max_wait` (for ever if `None`) for readiness, a deadline, an eviction
    /// or a [`Breaker`], and appends what was parked to `out`.
    ///
    /// Calling it says that everything handed out before has run. A turn may end early and hand
    /// back nothing.
    ///
    /// # Errors
    ///
    /// The selector's. What was appended to `out` is still to be run.
    #[doc(alias = "netpoll")]
    pub fn turn(&self, max_wait: Option<Duration>, out: &mut Vec<W>) -> io::Result<Turn> {
        self.core
            .turn(max_wait, RunQueue::Empty, Jump::Allowed, out)
    }

    /// As [`Reactor::turn`], for a caller that may not have run everything.
    pub(crate) fn turn_beside(
        &self,
        max_wait: Option<Duration>,
        run_queue: RunQueue,
        jump: Jump,
        out: &mut Vec<W>,
    ) -> io::Result<Turn> {
        self.core.turn(max_wait, run_queue, jump, out)
    }

    /// How long a turn could sleep: until the next deadline, zero if something is to be handed out
    /// at once, `None` if nothing is to come but readiness. Counts from a fresh reading of the clock.
    pub fn next_timeout(&self) -> Option<Duration> {
        self.core.next_timeout()
    }

    /// Hands `w` out at `when`, or with the next turn if that has passed: a timer that judges no
    /// peer, and so fires by the clock, whatever is still to run.
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

    /// Polls the selector without sleeping for this long before each sleep: one CPU, spent on
    /// answering sooner. Zero, the default, sleeps at once.
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
        Breaker {
            inner: self.core.selector.borrow().breaker(),
            process: self.core.process,
        }
    }

    /// Descriptors registered.
    pub fn descriptors(&self) -> usize {
        self.core.registry.borrow().len()
    }

    /// Entries held in the timer wheel for deadlines, and how many of them are left behind.
    pub fn places(&self) -> (usize, usize) {
        self.core.places()
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

    // ---- for the runtime's figures, wakers and end ----

    /// How many Ws are parked, how many descriptors have a deadline, and what `count` says of the
    /// users' data.
    pub(crate) fn waiting(&self, count: impl Fn(&T) -> usize) -> (usize, usize) {
        let registry = self.core.registry.borrow();
        let (mut waiting, mut deadlines) = (0, 0);
        for desc in registry.iter() {
            waiting += desc.parked() + count(&desc.user_data);
            deadlines += usize::from(desc.has_deadline());
        }
        (waiting, deadlines)
    }

    /// Looks at the user's data of each descriptor. Nothing of anybody's may run meanwhile.
    pub(crate) fn each(&self, mut look: impl FnMut(&T)) {
        let registry = self.core.registry.borrow();
        registry.iter().for_each(|desc| look(&desc.user_data));
    }

    /// The descriptor in `slot`.
    pub(crate) fn in_slot(&self, slot: usize) -> Option<Rc<PollDesc<W, T>>> {
        self.core.registry.borrow().in_slot(slot).cloned()
    }

    pub(crate) fn shut_down(&self) {
        self.core.shut_down();
    }
}

impl<W, T> Drop for Reactor<W, T> {
    fn drop(&mut self) {
        self.core.shut_down();
    }
}

impl<W, T> fmt::Debug for Reactor<W, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor")
            .field("descriptors", &self.descriptors())
            .finish_non_exhaustive()
    }
}

/// Ends a blocked turn from any thread: Go's `netpollBreak`.
#[derive(Clone)]
pub struct Breaker {
    inner: Arc<dyn Break>,
    process: Process,
}

impl Breaker {
    /// Makes the turn under way, or else the next one, return soon. A signal does not keep it from
    /// that.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn break_netpoll(&self) -> io::Result<()> {
        // A child of fork shares what it would write to, and would wake its parent.
        if !self.process.is_current() {
            return Ok(());
        }
        loop {
            match self.inner.break_netpoll() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker").finish_non_exhaustive()
    }
}
