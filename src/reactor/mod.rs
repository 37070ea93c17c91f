//! The netpoller: who waits for which source, until when.
//!
//! May touch: the wheel, and the files beside it. Knows nothing of tasks or sockets.
//! Mirrors Go's `runtime/netpoll.go`: `poll_runtime_pollOpen`, `pollWait`, `pollSetDeadline`,
//! `pollUnblock`, and `netpoll` itself, which hands back whoever was parked.
//!
//! # One turn
//!
//! ```text
//!   evicted ──► wait ──► harvest ──► read the clock ──► unpark the ready ──► expire
//!      │     (selector,                                   (by token and       (wheel: up to now, or to
//!      │      until the next                               generation)         the last complete harvest)
//!      │      deadline)                                        │                  │
//!      └──────────────────────────── out: Vec<W> ◄─────────────┴──────────────────┘
//! ```

mod alarm;
mod clock;
mod core;
mod descriptor;
mod handle;
mod poller;
mod registry;
mod selector;
mod turn;
mod words;

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Source;

use crate::wheel::Tick;

use self::core::{Core, Registered};
pub use handle::Descriptor;
pub(crate) use poller::Poller;
pub use selector::{Break, Event, Harvest, MioSelector, Selector, Token, Traits};
pub(crate) use turn::{Behind, Handed};
pub use words::{Direction, Park, Readiness, Refusal};

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
        Ok(Reactor::carrying(
            Poller::System(MioSelector::new()?),
            false,
        ))
    }

    /// A reactor on a selector of your own.
    pub fn with(selector: Box<dyn Selector>) -> Self {
        Reactor::carrying(Poller::given(selector), false)
    }

    /// Registers a source for both directions. Nobody is parked, and nothing is known: try first.
    ///
    /// # Errors
    ///
    /// The selector's, and `OutOfMemory` when all slots are taken.
    pub fn open(&self, source: &mut dyn Source) -> io::Result<Descriptor<W>> {
        self.open_carrying(source, (), false)
    }
}

impl<W, T> Reactor<W, T> {
    /// The part of a descriptor that an operation looks at.
    pub(crate) const BUSY: Range<usize> = Registered::<W, T>::BUSY;

    /// A reactor whose descriptors carry a `T`, on the real or on a virtual clock.
    pub(crate) fn carrying(poller: Poller, is_virtual: bool) -> Self {
        Reactor {
            core: Rc::new(Core::new(poller, is_virtual)),
        }
    }

    /// As [`Reactor::open`]; `guarded` if a short read or write never proves anything there.
    pub(crate) fn open_carrying(
        &self,
        source: &mut dyn Source,
        carried: T,
        guarded: bool,
    ) -> io::Result<Descriptor<W, T>> {
        let registered = self.core.open(source, carried, guarded)?;
        Ok(Descriptor::new(registered))
    }

    /// Deregisters a source and forgets its descriptor. Whoever was parked there is handed back
    /// by the next turn, which does not block.
    ///
    /// # Errors
    ///
    /// The selector's; the descriptor is closed all the same.
    pub fn close(&self, descriptor: Descriptor<W, T>, source: &mut dyn Source) -> io::Result<()> {
        descriptor.close(source, false)
    }

    /// One turn: waits up to `max_wait` (for ever if `None`) for readiness, a deadline, an
    /// eviction or a [`Breaker`], and appends whoever is to go on to `out`.
    ///
    /// A turn may end early and hand back nobody. Deadlines are never early; a turn that
    /// harvested readiness expires only up to the time of the harvest before it, so that bytes
    /// which had come can still push their deadlines: run whoever was handed out before the next.
    ///
    /// # Errors
    ///
    /// The selector's. Whoever was appended to `out` before is still to be run.
    pub fn turn(&self, max_wait: Option<Duration>, out: &mut Vec<W>) -> io::Result<Turn> {
        self.core.turn(max_wait, true, Behind::Nobody, out)
    }

    /// As [`Reactor::turn`]; `may_jump` false holds a virtual clock back, and who is behind the
    /// deadlines: somebody whom an earlier turn handed out has not run, and may yet move them.
    pub(crate) fn turn_held<H: Handed<W>>(
        &self,
        max_wait: Option<Duration>,
        may_jump: bool,
        behind: Behind,
        out: &mut Vec<H>,
    ) -> io::Result<Turn> {
        self.core.turn(max_wait, may_jump, behind, out)
    }

    /// How long a turn could sleep: until the next deadline, zero if somebody was evicted, `None`
    /// if nothing is to come but readiness. Counts from a fresh reading of the clock.
    pub fn next_timeout(&self) -> Option<Duration> {
        self.core.next_timeout()
    }

    /// Polls the selector without sleeping for this long before each sleep: one CPU, spent on
    /// answering sooner. Zero, the default, sleeps at once.
    pub fn set_spin(&self, spin: Duration) {
        self.core.spin.set(spin);
    }

    /// The loop's time: the reading that the last turn took.
    #[inline]
    pub fn now(&self) -> Instant {
        self.core.clock.now()
    }

    /// Ends a blocked turn from any thread.
    pub fn breaker(&self) -> Breaker {
        Breaker {
            inner: self.core.poller.borrow().breaker(),
        }
    }

    /// Descriptors registered.
    pub fn descriptors(&self) -> usize {
        self.core.descriptors()
    }

    /// Places held in the timer wheel for deadlines, and how many of them are left behind.
    pub fn places(&self) -> (usize, usize) {
        self.core.places()
    }

    /// The selector's descriptor, readable when a turn would find readiness, for nesting in
    /// another loop. `None` where the selector has none.
    ///
    /// Deadlines do not make it readable: wait on it no longer than [`Reactor::next_timeout`].
    pub fn with_fd<R>(&self, f: impl FnOnce(BorrowedFd<'_>) -> R) -> Option<R> {
        self.core.poller.borrow().descriptor().map(f)
    }

    pub(crate) fn core(&self) -> &Rc<Core<W, T>> {
        &self.core
    }

    // ---- for the runtime's own timers ----

    pub(crate) fn is_virtual(&self) -> bool {
        self.core.clock.is_virtual()
    }

    pub(crate) fn tick(&self) -> Tick {
        self.core.clock.tick()
    }

    pub(crate) fn tick_of(&self, when: Instant) -> Tick {
        self.core.clock.tick_of(when)
    }

    pub(crate) fn read_clock(&self) -> Instant {
        self.core.clock.read()
    }

    /// How long until `tick`, from a fresh reading.
    pub(crate) fn until(&self, tick: Tick) -> Duration {
        self.core.clock.read();
        self.core.clock.until(tick)
    }

    /// Whether `when` has passed: by the loop's time, or, close to it, by a fresh reading.
    pub(crate) fn has_passed(&self, when: Instant) -> bool {
        self.core.clock.has_passed(when)
    }

    // ---- for the runtime's figures, wakers and end ----

    pub(crate) fn waiting(&self, count: impl Fn(&T) -> usize) -> usize {
        self.core.waiting(count)
    }

    /// Looks at what each descriptor carries; nothing of anybody's may run meanwhile.
    pub(crate) fn each(&self, look: impl FnMut(&T)) {
        self.core.each(look);
    }

    /// What the descriptor in `slot` carries, if its token is the one that the caller means.
    pub(crate) fn carried<R>(
        &self,
        slot: usize,
        is_it: impl FnOnce(Token) -> bool,
        f: impl FnOnce(&T) -> R,
    ) -> Option<R> {
        self.core.carried(slot, is_it, f)
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
}

impl Breaker {
    /// Makes the turn under way, or else the next one, return soon. A signal does not keep it from
    /// that.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn break_netpoll(&self) -> io::Result<()> {
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
