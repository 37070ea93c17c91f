//! The handle of one registered source: park, deadlines, evict.
//!
//! May touch: the files beside it. Mirrors `pollDesc` as `internal/poll/fd_poll_runtime.go` uses it.

use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use mio::event::Source;

use super::core::Registered;
use super::descriptor::State;
use super::selector::Token;
use super::words::{Direction, Park, Readiness, Refusal};

/// One registered source: two parking places, two deadlines, a closing flag.
///
/// Clones are the same descriptor. Once the last is dropped the slot is free again and events for
/// it are stale; the system forgets the source when it is closed, or at [`Reactor::close`](super::Reactor::close).
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
    pub(super) fn new(registered: Rc<Registered<W, T>>) -> Self {
        Descriptor { registered }
    }

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

    /// Parks after a read or write of a byte stream that took less than it could: as
    /// [`drained`](Descriptor::drained) and [`park`](Descriptor::park), if that proves that there is
    /// no more. Where it does not, it is [`Park::Ready`] and nothing has changed: try again, for
    /// only EAGAIN will tell.
    ///
    /// # Panics
    ///
    /// As [`park`](Descriptor::park).
    #[inline]
    pub fn park_short(&self, direction: Direction, w: W) -> Park<W> {
        self.registered.state.park_short(direction, w)
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

    /// From here on a short read or write proves nothing.
    pub(crate) fn short_io_is_inconclusive(&self) {
        self.registered.state.short_io_is_inconclusive();
    }

    /// Registers another source with the same reactor.
    pub(crate) fn open_beside(
        &self,
        source: &mut dyn Source,
        carried: T,
        guarded: bool,
    ) -> io::Result<Descriptor<W, T>> {
        let registered = self.registered.core.open(source, carried, guarded)?;
        Ok(Descriptor::new(registered))
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

    /// The state machine and what is carried, looked up once for whoever needs both.
    #[inline]
    pub(crate) fn parts(&self) -> (&State<W>, &T) {
        (&self.registered.state, &self.registered.carried)
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

    /// Moves both deadlines later, to so many ticks after the loop's time, of which `soonest` is the
    /// fewest; `u64::MAX` is none. False if that is not all there is to do.
    #[inline(always)]
    pub(crate) fn put_off_both(&self, ticks: [u64; 2], soonest: u64) -> bool {
        let Registered { core, state, .. } = &*self.registered;
        let soon = core.clock.tick_soon_after(soonest);
        state.put_off_both(soon, || ticks.map(|ticks| core.clock.tick_after(ticks)))
    }

    /// The short way of [`set_deadline`](Descriptor::set_deadline). False if it does not lead there,
    /// as when the descriptor is closed.
    #[inline(always)]
    pub(crate) fn put_off_deadline(&self, direction: Direction, when: Option<Instant>) -> bool {
        self.registered.put_off_deadline(direction, when)
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
