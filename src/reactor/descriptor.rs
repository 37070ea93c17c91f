//! One registered source as a pure state machine: no I/O, no clock, no selector.
//!
//! May touch: the words for what is said of a source, and the wheel's [`Tick`]. Mirrors `pollDesc` in Go's
//! `runtime/netpoll.go`, with its `rg`/`wg` as parking places and its `rd`/`wd` as deadlines.
//!
//! # The parking place, one for each direction
//!
//! | state | meaning | who moves it there | on to |
//! |---|---|---|---|
//! | Nil | nobody waits, nothing known | `drained`; `park` that consumed Ready | Parked, Ready |
//! | Ready | an attempt may succeed | `ready` (selector); `assume_ready` (open) | Nil by `drained` or `park` |
//! | Parked(W) | W waits | `park` from Nil | Nil by `unpark`, `expire`, `evict`; Ready by `ready` |
//!
//! Illegal: a second W in a place that holds one (panics, by name); Parked and Ready at once;
//! anything but `unpark` on a closed descriptor changes nothing.
//!
//! # The flags
//!
//! | flag | set by | cleared by |
//! |---|---|---|
//! | ready | `ready`, `assume_ready` | `drained`, `park` |
//! | expired | `expire`, a deadline that has passed already | a deadline moved to later, or to none |
//! | hung up | `ready` | never |
//! | urgent | `ready` | `drained`, that is at EAGAIN |
//! | closed | `evict` | never |
//! | guarded | `new`, where the selector can't tell edges or urgent data | never |
//! | one owner | `give_to_one_owner` | never |
//! | left | `leave` (the registry has it no more) | never |
//! | idle place | the last deadline cleared while a place is held | a deadline set; the place coming up |
//!
//! The deadlines, and their place in the wheel, are in `descriptor/deadlines.rs`.

mod deadlines;

use std::cell::Cell;

use super::words::{Direction, Park, Readiness, Refusal};
use crate::wheel::Tick;

pub(crate) use deadlines::{Due, Placing};

// The low four bits are `Readiness`; the high half is the stamp of the last harvest.
const HUNG_UP: u32 = Readiness::HUNG_UP.bits();
const URGENT: u32 = Readiness::URGENT.bits();
const CLOSED: u32 = 1 << 6;
const GUARDED: u32 = 1 << 7;
/// With any of these, a short read or write does not prove that there is no more.
const NOT_PROVED: u32 = HUNG_UP | URGENT | GUARDED;
const IDLE_PLACE: u32 = 1 << 8;
/// Somebody may be parked for writing or for a hang-up: set when parking, looked at by `ready`.
const OTHERS: u32 = 1 << 9;
/// One owner has both directions: whichever deadline passes, it is woken wherever it is parked.
const ONE_OWNER: u32 = 1 << 11;
const LEFT: u32 = 1 << 10;
const STAMP_SHIFT: u32 = 16;

const fn ready_bit(direction: Direction) -> u32 {
    1 << direction as u32
}

const fn expired_bit(direction: Direction) -> u32 {
    1 << (4 + direction as u32)
}

/// No deadline: later than every other.
pub(crate) const NEVER: Tick = Tick::MAX;

/// The place of whoever waits for the peer to go, whether or not anybody reads.
const HANG_UP: usize = 2;

const BOTH: [Direction; 2] = [Direction::Read, Direction::Write];

/// Go's `pollDesc`, less its links. All cells: a turn and an operation may both hold it. What is
/// looked at most comes first.
#[repr(C)]
pub(crate) struct State<W> {
    flags: Cell<u32>,
    /// Tells that place from those left behind: a deadline may come back to the very same tick.
    number: Cell<u32>,
    /// Readers, writers, and who waits for the peer to hang up.
    parked: [Cell<Option<W>>; 3],
    deadline: [Cell<Tick>; 2],
    /// The earliest place in the wheel that still counts, `NEVER` for none or an idle one.
    placed: Cell<Tick>,
}

impl<W> State<W> {
    /// `guarded`: a short read or write never proves anything here.
    pub(crate) fn new(guarded: bool) -> Self {
        State {
            flags: Cell::new(if guarded { GUARDED } else { 0 }),
            parked: [const { Cell::new(None) }; 3],
            deadline: [Cell::new(NEVER), Cell::new(NEVER)],
            placed: Cell::new(NEVER),
            number: Cell::new(0),
        }
    }

    fn raise(&self, bits: u32) {
        self.flags.set(self.flags.get() | bits);
    }

    fn lower(&self, bits: u32) {
        self.flags.set(self.flags.get() & !bits);
    }

    /// Closed? Expired? One load when all is well.
    #[inline]
    pub(crate) fn check(&self, direction: Direction) -> Result<(), Refusal> {
        let flags = self.flags.get();
        if flags & (CLOSED | expired_bit(direction)) == 0 {
            return Ok(());
        }
        // Closed comes first, as in netpollcheckerr: closing is for ever, a deadline is not.
        Err(if flags & CLOSED != 0 {
            Refusal::Closed
        } else {
            Refusal::TimedOut
        })
    }

    /// Open, not expired, and ready: one load says all three.
    #[inline]
    pub(crate) fn may_try(&self, direction: Direction) -> bool {
        let of_interest = CLOSED | expired_bit(direction) | ready_bit(direction);
        self.flags.get() & of_interest == ready_bit(direction)
    }

    /// As `may_try`, of a stream of which a short read proves that there is no more.
    #[inline]
    pub(crate) fn is_plainly_ready(&self, direction: Direction) -> bool {
        let speaks = NOT_PROVED | CLOSED | expired_bit(direction);
        self.flags.get() & (speaks | ready_bit(direction)) == ready_bit(direction)
    }

    /// Open, not expired, and not ready.
    #[inline]
    pub(crate) fn must_wait(&self, direction: Direction) -> bool {
        let of_interest = CLOSED | expired_bit(direction) | ready_bit(direction);
        self.flags.get() & of_interest == 0
    }

    #[inline]
    pub(crate) fn is_ready(&self, direction: Direction) -> bool {
        self.flags.get() & ready_bit(direction) != 0
    }

    /// Whether the registry has it.
    pub(crate) fn is_registered(&self) -> bool {
        self.flags.get() & LEFT == 0
    }

    /// It leaves the registry: true the first time.
    pub(crate) fn leave(&self) -> bool {
        let registered = self.is_registered();
        self.raise(LEFT);
        registered
    }

    pub(crate) fn is_hung_up(&self) -> bool {
        self.flags.get() & HUNG_UP != 0
    }

    /// How many wait here.
    pub(crate) fn waiting(&self) -> usize {
        let waits = |place: &Cell<Option<W>>| {
            let w = place.take();
            let waits = w.is_some();
            place.set(w);
            waits
        };
        self.parked.iter().filter(|place| waits(place)).count()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.flags.get() & CLOSED != 0
    }

    /// Whether a short read or write proves that the kernel has no more: not when it stopped for
    /// another reason (end of file to come, or an urgent byte), for no further edge would come.
    #[inline]
    pub(crate) fn short_means_drained(&self) -> bool {
        self.flags.get() & NOT_PROVED == 0
    }

    /// From here on a short read or write proves nothing.
    pub(crate) fn short_io_is_inconclusive(&self) {
        self.raise(GUARDED);
    }

    /// As `drained`, after a short read or write, if that proves anything.
    #[inline]
    pub(crate) fn drained_if_proved(&self, direction: Direction) {
        if self.short_means_drained() {
            self.drained(direction);
        }
    }

    #[inline]
    pub(crate) fn park(&self, direction: Direction, w: W) -> Park<W> {
        if let Err(refusal) = self.check(direction) {
            return match refusal {
                Refusal::Closed => Park::Closed(w),
                Refusal::TimedOut => Park::TimedOut(w),
            };
        }
        if self.is_ready(direction) {
            self.lower(ready_bit(direction));
            return Park::Ready(w);
        }
        self.put(direction, w);
        Park::Parked
    }

    #[inline]
    fn put(&self, direction: Direction, w: W) {
        let place = &self.parked[direction as usize];
        if let Some(first) = place.take() {
            // Put back before the panic, so that the first waiter is not lost to the mistake.
            place.set(Some(first));
            second_waiter(direction);
        }
        place.set(Some(w));
        self.note_other(direction);
    }

    /// As `drained` and `park`, if a short attempt proves anything: one load says that, and that
    /// nothing speaks against waiting.
    #[inline]
    pub(crate) fn park_short(&self, direction: Direction, w: W) -> Park<W> {
        let flags = self.flags.get();
        if flags & (NOT_PROVED | CLOSED | expired_bit(direction)) != 0 {
            return self.park_short_with_care(direction, w);
        }
        self.flags.set(flags & !ready_bit(direction));
        self.put(direction, w);
        Park::Parked
    }

    #[cold]
    #[inline(never)]
    fn park_short_with_care(&self, direction: Direction, w: W) -> Park<W> {
        match self.check(direction) {
            Err(Refusal::Closed) => Park::Closed(w),
            Err(Refusal::TimedOut) => Park::TimedOut(w),
            Ok(()) => Park::Ready(w),
        }
    }

    /// As `park`, where `check` and `is_ready` have just been asked, and the place is the caller's.
    #[inline]
    pub(crate) fn park_again(&self, direction: Direction, w: W) {
        debug_assert!(self.check(direction).is_ok() && !self.is_ready(direction));
        self.parked[direction as usize].set(Some(w));
        self.note_other(direction);
    }

    #[inline]
    fn note_other(&self, direction: Direction) {
        if direction == Direction::Write {
            self.raise(OTHERS);
        }
    }

    #[inline]
    pub(crate) fn unpark(&self, direction: Direction) -> Option<W> {
        self.parked[direction as usize].take()
    }

    /// As `park`, for the peer's hanging up; it is not used up, has no deadline, and may be parked
    /// again over an earlier W, which comes back.
    pub(crate) fn park_hang_up(&self, w: W) -> (Park<W>, Option<W>) {
        match () {
            () if self.is_closed() => (Park::Closed(w), None),
            () if self.is_hung_up() => (Park::Ready(w), None),
            () => {
                self.raise(OTHERS);
                (Park::Parked, self.parked[HANG_UP].replace(Some(w)))
            }
        }
    }

    pub(crate) fn unpark_hang_up(&self) -> Option<W> {
        self.parked[HANG_UP].take()
    }

    /// EAGAIN, or as good as: the next attempt waits for an edge.
    #[inline]
    pub(crate) fn drained(&self, direction: Direction) {
        let urgent = match direction {
            Direction::Read => URGENT,
            Direction::Write => 0,
        };
        self.lower(ready_bit(direction) | urgent);
    }

    /// From here on one machine parks in both places, or in one for both.
    pub(crate) fn give_to_one_owner(&self) {
        self.raise(ONE_OWNER);
    }

    /// A new source may well be ready: one attempt is cheaper than a turn to learn it.
    pub(crate) fn assume_ready(&self, readiness: Readiness) {
        self.raise(readiness.bits());
    }

    /// The selector's word. The reader who waited for it is returned; whoever else did, which is
    /// rarer, goes to `out`. On a closed descriptor it changes nothing that anybody looks at.
    #[inline]
    pub(crate) fn ready(&self, readiness: Readiness, stamp: u16, out: &mut Vec<W>) -> Option<W> {
        let flags = self.flags.get() & 0xffff;
        let stamp = u32::from(stamp) << STAMP_SHIFT;
        self.flags.set(flags | stamp | readiness.bits());
        if flags & OTHERS != 0 {
            self.ready_others(readiness, out);
        }
        if readiness.contains(Readiness::READ) {
            return self.parked[Direction::Read as usize].take();
        }
        None
    }

    #[cold]
    #[inline(never)]
    fn ready_others(&self, readiness: Readiness, out: &mut Vec<W>) {
        self.lower(OTHERS);
        let others = [
            (Readiness::WRITE, Direction::Write as usize),
            (Readiness::HUNG_UP, HANG_UP),
        ];
        for (wanted, place) in others {
            match self.parked[place].take() {
                Some(w) if readiness.contains(wanted) => out.push(w),
                Some(w) => {
                    self.parked[place].set(Some(w));
                    self.raise(OTHERS);
                }
                None => {}
            }
        }
    }

    /// Closes for ever and takes out everybody who waits. Returns whether a place in the wheel is
    /// left behind.
    pub(crate) fn evict(&self, out: &mut impl FnMut(W)) -> bool {
        let idle = self.take_up_place();
        self.raise(CLOSED);
        for direction in BOTH {
            self.deadline[direction as usize].set(NEVER);
            if let Some(w) = self.unpark(direction) {
                out(w);
            }
        }
        if let Some(w) = self.parked[HANG_UP].take() {
            out(w);
        }
        self.placed.replace(NEVER) != NEVER && !idle
    }
}

#[cold]
#[inline(never)]
fn second_waiter(direction: Direction) -> ! {
    panic!("netpoller: something is parked already for {direction:?}: one waiter a direction");
}

#[cfg(test)]
mod tests;
