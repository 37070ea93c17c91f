//! A hierarchical timer wheel: ticks go in, due keys come out.
//!
//! [`Wheel`] is the bare thing, for an owner who keeps the truth about each deadline elsewhere
//! (the reactor's descriptors). [`Timers`] is a slab of timers over a wheel, for everybody else.
//! No clock, no I/O; imports nothing of this crate. Does the work of the heap in Go's
//! runtime/time.go: a *place* is its `timerWhen`, a *stale* place its zombie.
//!
//! ```text
//! level 0   64 slots of    1 tick     what is in one slot is due together
//! level 1   64 slots of   64 ticks
//! level 2   64 slots of 4096 ticks    ... six levels reach 2^36 ticks, eleven all of u64
//! ```
//!
//! # Ground rules
//!
//! A new place goes to the level that reads the highest bit in which its tick differs from
//! `elapsed`, and to the slot that the level's six bits of the tick say. When the earliest place
//! of a slot falls due, the slot *cascades*: its places go one level down. So these hold:
//!
//! 1. `elapsed` only moves to the earliest place held, or to a `now` before it. It passes none.
//! 2. Above its level, a place's bits are those of `elapsed`; in its level's bits it is not
//!    behind. So a level never wraps: its first slot in use has its earliest place.
//! 3. Levels may overlap: a place in a wide slot may be due before a later comer in a narrow
//!    one. The earliest of all is the earliest of the levels' first slots, found without search.
//! 4. Nothing ever happens at the boundary of a slot, so nobody need be woken there.
//! 5. A slot cascaded in part is a slot as any other, and fills no more: what it spans now
//!    belongs to the levels below.

mod advance;
mod level;
mod slab;
mod slot;
mod sweep;
mod tick;
mod timers;

#[cfg(test)]
mod tests;

pub use slab::TimerKey;
pub use tick::Tick;
pub use timers::Timers;

use level::{Level, level_of, slot_of};
use slot::{Place, Spare};

/// What a place's owner says when the wheel hands it the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It fired: the place is spent. (To [`Wheel::next_live`]: it is live, and stays.)
    Done,
    /// It was stale: the place is dropped, and counts no longer as [`stale`](Wheel::stale).
    Lapsed,
    /// Its timer moved later meanwhile: the place goes there. A tick that has come as well
    /// comes out again in the same [`advance`](Wheel::advance).
    Again(Tick),
}

/// Who is asked about due places. Every closure that gives verdicts is one.
trait Owner<K> {
    /// These come next. An owner that looks them up in far-away memory can load them all at
    /// once here, where one [`check`](Owner::check) after another would wait for each.
    #[inline]
    fn ahead(&mut self, _places: &[(Tick, K)]) {}

    /// What of the place of `key` at tick `when`?
    fn check(&mut self, when: Tick, key: K) -> Verdict;
}

impl<K, F: FnMut(Tick, K) -> Verdict> Owner<K> for F {
    #[inline]
    fn check(&mut self, when: Tick, key: K) -> Verdict {
        self(when, key)
    }
}

/// Places in time, each a tick and a key, that come out when their tick has come.
///
/// The wheel holds places, its owner the truth. A timer that moves *later* costs nothing here:
/// when its place comes out, the owner answers [`Verdict::Again`]. One that moves *earlier* or
/// ends leaves its old place behind: the owner says so with [`lapse`](Wheel::lapse), answers
/// [`Verdict::Lapsed`] when it comes out, and compacts when the wheel is
/// [`overgrown`](Wheel::overgrown).
///
/// A key must tell a timer's live place from those it left behind, and the tick does not do that:
/// one may move away and come back to it. So put a number into the key that changes with every
/// [`place`](Wheel::place) of a timer's (but not with `Again`).
///
/// A place costs 16 bytes when the key has 8, and a level 4 KiB once something is on it.
///
/// ```
/// use netpoller::wheel::{Tick, Verdict, Wheel};
///
/// let mut wheel = Wheel::new();
/// wheel.place(Tick::new(30), "thirty");
/// wheel.place(Tick::new(10), "ten");
/// assert_eq!(wheel.next(), Some(Tick::new(10)));
///
/// let mut due = Vec::new();
/// let more = wheel.advance(Tick::new(20), 100, |_, key| {
///     due.push(key);
///     Verdict::Done
/// });
/// assert!(!more);
/// assert_eq!(due, ["ten"]);
/// assert_eq!(wheel.next(), Some(Tick::new(30)));
/// ```
pub struct Wheel<K: Copy> {
    /// Made when first needed.
    levels: Vec<Level<K>>,
    spare: Spare<K>,
    elapsed: Tick,
    /// The earliest place held, or [`Tick::MAX`]; between calls it is exact.
    earliest: Tick,
    len: usize,
    stale: usize,
}

/// The first slot of all, where the earliest place lies.
struct Front {
    level: usize,
    slot: usize,
}

impl<K: Copy> Wheel<K> {
    /// An empty wheel at tick 0. Allocates nothing.
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Wheel};
    /// let wheel = Wheel::<u64>::new();
    /// assert_eq!((wheel.len(), wheel.elapsed()), (0, Tick::ZERO));
    /// ```
    pub fn new() -> Self {
        Wheel {
            levels: Vec::new(),
            spare: Spare::new(),
            elapsed: Tick::ZERO,
            earliest: Tick::MAX,
            len: 0,
            stale: 0,
        }
    }

    /// Holds `key` until tick `when`. One at or before [`elapsed`](Wheel::elapsed) comes out
    /// with the next [`advance`](Wheel::advance), as if it were placed at `elapsed`.
    ///
    /// O(1), amortised over the slots' growth.
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Wheel};
    /// let mut wheel = Wheel::new();
    /// wheel.place(Tick::MAX, 'a');
    /// assert_eq!(wheel.next(), Some(Tick::MAX));
    /// ```
    #[inline]
    pub fn place(&mut self, when: Tick, key: K) {
        let tick = when.max(self.elapsed);
        let level = level_of(self.elapsed, tick);
        let slot = slot_of(level, tick);
        match self.levels.get_mut(level) {
            Some(ring) if ring.has_room(slot) => ring.push(slot, tick, (when, key)),
            _ => self.make_room_and_push(level, slot, tick, (when, key)),
        }
        self.len += 1;
        if tick < self.earliest {
            self.earliest = tick;
        }
    }

    /// Tells the wheel that one of the places it holds no longer counts.
    ///
    /// O(1). Whether to [`compact`](Wheel::compact) now, [`overgrown`](Wheel::overgrown) says.
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Wheel};
    /// let mut wheel = Wheel::new();
    /// wheel.place(Tick::new(9), 'a');
    /// wheel.lapse();
    /// assert_eq!((wheel.len(), wheel.stale()), (1, 1));
    /// ```
    #[inline]
    pub fn lapse(&mut self) {
        self.stale += 1;
    }

    /// Takes a [`lapse`](Wheel::lapse) back: a place that had been left behind counts again.
    ///
    /// O(1).
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Wheel};
    /// let mut wheel = Wheel::new();
    /// wheel.place(Tick::new(9), 'a');
    /// wheel.lapse();
    /// wheel.revive();
    /// assert_eq!((wheel.len(), wheel.stale()), (1, 0));
    /// ```
    #[inline]
    pub fn revive(&mut self) {
        self.stale = self.stale.saturating_sub(1);
    }

    /// How many places are held, stale ones too.
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Wheel};
    /// let mut wheel = Wheel::new();
    /// wheel.place(Tick::new(9), 'a');
    /// assert_eq!(wheel.len(), 1);
    /// ```
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many of the places held no longer count, as far as the owner has said.
    ///
    /// ```
    /// # use netpoller::wheel::Wheel;
    /// assert_eq!(Wheel::<u64>::new().stale(), 0);
    /// ```
    pub fn stale(&self) -> usize {
        self.stale
    }

    /// Whether no place is held, not even a stale one.
    ///
    /// ```
    /// # use netpoller::wheel::Wheel;
    /// assert!(Wheel::<u64>::new().is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How far the wheel has come: the `now` of the last [`advance`](Wheel::advance) or, while
    /// that is unfinished, the tick it has reached.
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Verdict, Wheel};
    /// let mut wheel = Wheel::<u64>::new();
    /// wheel.advance(Tick::new(7), 1, |_, _| Verdict::Done);
    /// assert_eq!(wheel.elapsed(), Tick::new(7));
    /// ```
    pub fn elapsed(&self) -> Tick {
        self.elapsed
    }

    /// The earliest place held, stale or not, and never before [`elapsed`](Wheel::elapsed).
    /// While an [`advance`](Wheel::advance) is unfinished, a tick that has come: call again now.
    ///
    /// O(1): a load.
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Wheel};
    /// let mut wheel = Wheel::new();
    /// assert_eq!(wheel.next(), None);
    /// wheel.place(Tick::new(4097), 'a');
    /// assert_eq!(wheel.next(), Some(Tick::new(4097))); // not 4096, where a slot begins
    /// ```
    #[inline]
    pub fn next(&self) -> Option<Tick> {
        (self.len > 0).then_some(self.earliest)
    }

    #[cold]
    #[inline(never)]
    fn make_room_and_push(&mut self, level: usize, slot: usize, tick: Tick, place: Place<K>) {
        if level >= self.levels.len() {
            self.levels.resize_with(level + 1, Level::new);
        }
        let ring = &mut self.levels[level];
        ring.make_room(slot, &mut self.spare);
        ring.push(slot, tick, place);
    }

    /// Finds the slot with the earliest place of all, one of the levels' first slots (ground
    /// rule 3), and sets `earliest` to what is there.
    fn front(&mut self) -> Option<Front> {
        let mut front = None;
        self.earliest = Tick::MAX;
        for (level, ring) in self.levels.iter().enumerate() {
            if let Some((tick, slot)) = ring.first()
                && (tick < self.earliest || front.is_none())
            {
                self.earliest = tick;
                front = Some(Front { level, slot });
            }
        }
        front
    }
}

impl<K: Copy> Default for Wheel<K> {
    fn default() -> Self {
        Wheel::new()
    }
}

impl<K: Copy> std::fmt::Debug for Wheel<K> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Wheel")
            .field("elapsed", &self.elapsed)
            .field("next", &self.next())
            .field("len", &self.len)
            .field("stale", &self.stale)
            .finish_non_exhaustive()
    }
}
