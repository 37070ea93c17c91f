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
mod poller;
mod registry;
mod selector;
mod turn;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Source;

use crate::wheel::Tick;

use self::core::{Core, Registered};
pub use descriptor::{Direction, Park, Readiness, Refusal};
pub(crate) use poller::Poller;
pub use selector::{Break, Event, Harvest, MioSelector, Selector, Token, Traits};

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
        Ok(Descriptor { registered })
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
        self.core.turn(max_wait, true, true, out)
    }

    /// As [`Reactor::turn`]; `may_jump` false holds a virtual clock back, and `settled` false the
    /// deadlines: somebody whom an earlier turn handed out has not run, and may yet move them.
    pub(crate) fn turn_held(
        &self,
        max_wait: Option<Duration>,
        may_jump: bool,
        settled: bool,
        out: &mut Vec<W>,
    ) -> io::Result<Turn> {
        self.core.turn(max_wait, may_jump, settled, out)
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
    /// Makes the turn under way, or else the next one, return soon.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn break_netpoll(&self) -> io::Result<()> {
        self.inner.break_netpoll()
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker").finish_non_exhaustive()
    }
}

/// One registered source: two parking places, two deadlines, a closing flag.
///
/// Clones are the same descriptor. Once the last is dropped the slot is free again and events for
/// it are stale; the system forgets the source when it is closed, or at [`Reactor::close`].
pub struct Descriptor<W, T = ()> {
    registered: Rc<Registered<W, T>>,
}

impl<W, T> Clone for Descriptor<W, T> {
    fn clone(&self) -> Self {
        Descriptor {
            registered: self.registered.clone(),
        }
    }
}

impl<W, T> Drop for Descriptor<W, T> {
    #[inline]
    fn drop(&mut self) {
        // One for us and one for the registry: the last handle goes.
        if Rc::strong_count(&self.registered) <= 2 {
            self.registered.unregister();
        }
    }
}

impl<W, T> fmt::Debug for Descriptor<W, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Descriptor")
            .field("token", &self.registered.token)
            .field("closed", &self.registered.state.is_closed())
            .finish_non_exhaustive()
    }
}

impl<W, T> Descriptor<W, T> {
    /// Parks `w` until the direction is ready, its deadline passes or the descriptor is evicted;
    /// a turn then hands it back.
    ///
    /// Call it after an attempt failed with `WouldBlock` and no turn has come between.
    ///
    /// # Panics
    ///
    /// If something is parked there already: one waiter a direction.
    #[inline]
    pub fn park(&self, direction: Direction, w: W) -> Park<W> {
        self.registered.state.park(direction, w)
    }

    /// Takes out whoever is parked, for an operation that was given up.
    #[inline]
    pub fn unpark(&self, direction: Direction) -> Option<W> {
        self.registered.state.unpark(direction)
    }

    /// Forgets readiness: the last attempt met EAGAIN, or had so little that it proves there is
    /// no more. The next [`park`](Descriptor::park) waits for a new edge.
    #[inline]
    pub fn drained(&self, direction: Direction) {
        self.registered.state.drained(direction);
    }

    /// Whether an operation may be tried.
    ///
    /// # Errors
    ///
    /// Why not: closed, or the deadline has passed and has not been moved since.
    #[inline]
    pub fn check(&self, direction: Direction) -> Result<(), Refusal> {
        self.registered.state.check(direction)
    }

    /// Moves a direction's deadline; `None` takes it away. Moving it later is a store.
    ///
    /// A deadline that has passed expires at once; one that had expired revives. On an evicted
    /// descriptor it changes nothing.
    #[inline(always)]
    pub fn set_deadline(&self, direction: Direction, when: Option<Instant>) {
        self.registered.set_deadline(direction, when);
    }

    /// Closes the descriptor for parking: whoever is parked is handed back by the next turn, which
    /// does not block, and every later [`park`](Descriptor::park) and
    /// [`check`](Descriptor::check) says closed. Go's `pollUnblock`.
    pub fn evict(&self) {
        self.registered.evict();
    }

    /// Whether the last word of the selector was that an attempt may succeed.
    #[inline]
    pub fn is_ready(&self, direction: Direction) -> bool {
        self.registered.state.is_ready(direction)
    }

    /// Whether the peer sent FIN or RST, as far as the selector has told.
    pub fn is_hung_up(&self) -> bool {
        self.registered.state.is_hung_up()
    }

    /// Parks `w` until the peer hangs up, whether or not anybody reads. A `W` that was parked for
    /// that already comes back as the second value.
    pub fn park_hang_up(&self, w: W) -> (Park<W>, Option<W>) {
        self.registered.state.park_hang_up(w)
    }

    /// Whether a read or write of a byte stream that took less than it could proves that there is
    /// no more, so that [`drained`](Descriptor::drained) may be called without EAGAIN.
    #[inline]
    pub fn short_means_drained(&self) -> bool {
        self.registered.short_means_drained()
    }

    /// Registers another source with the same reactor.
    pub(crate) fn open_beside(
        &self,
        source: &mut dyn Source,
        carried: T,
        guarded: bool,
    ) -> io::Result<Descriptor<W, T>> {
        let registered = self.registered.core.open(source, carried, guarded)?;
        Ok(Descriptor { registered })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.registered.state.is_closed()
    }

    /// Whether nothing speaks against a try: open, not expired, and ready as far as is known.
    #[inline]
    pub(crate) fn may_try(&self, direction: Direction) -> bool {
        self.registered.state.may_try(direction)
    }

    /// Whether nothing speaks against waiting: open, not expired, and not ready.
    #[inline]
    pub(crate) fn must_wait(&self, direction: Direction) -> bool {
        self.registered.state.must_wait(direction)
    }

    /// As [`park`](Descriptor::park), for one operation at a time that has just been refused
    /// nothing and found not ready: it takes the place, from itself if it was there.
    #[inline]
    pub(crate) fn park_again(&self, direction: Direction, w: W) {
        self.registered.state.park_again(direction, w);
    }

    pub(crate) fn assume_ready(&self, readiness: Readiness) {
        self.registered.state.assume_ready(readiness);
    }

    pub(crate) fn rearm(&self, source: &mut dyn Source) -> io::Result<()> {
        self.registered.rearm(source)
    }

    /// As [`Reactor::close`]. `will_close` says that the descriptor is about to be closed, and that
    /// nobody holds a duplicate: most systems then forget it by themselves.
    pub(crate) fn close(&self, source: &mut dyn Source, will_close: bool) -> io::Result<()> {
        self.registered.evict();
        let result = match will_close && self.registered.close_forgets() {
            true => Ok(()),
            false => self.registered.deregister(source),
        };
        self.registered.unregister();
        result
    }

    /// Takes out whoever is parked for the peer's hanging up.
    pub(crate) fn unpark_hang_up(&self) -> Option<W> {
        self.registered.state.unpark_hang_up()
    }

    /// What this descriptor carries.
    #[inline]
    pub(crate) fn carried(&self) -> &T {
        &self.registered.carried
    }

    pub(crate) fn token(&self) -> Token {
        self.registered.token
    }

    /// One machine has both directions to itself: see the table in descriptor.rs.
    pub(crate) fn give_to_one_owner(&self) {
        self.registered.state.give_to_one_owner();
    }

    /// Moves a direction's deadline to so many ticks after the loop's time.
    #[inline]
    pub(crate) fn set_deadline_after(&self, direction: Direction, ticks: u64) {
        let when = self.registered.core.clock.tick_after(ticks);
        self.registered.set_far_deadline(direction, when);
    }

    /// Whether this descriptor belongs to `core`: by identity.
    #[inline]
    pub(crate) fn home(&self) -> *const () {
        Rc::as_ptr(&self.registered.core).cast()
    }

    pub(crate) fn handles(&self) -> usize {
        Rc::strong_count(&self.registered)
    }
}
