//! A hierarchical timer wheel: ticks go in, due keys come out. No clock, no I/O.
//!
//! [`Wheel`] is the bare thing, for an owner that keeps the truth about each deadline elsewhere.
//! [`Timers`] is such an owner: a slab of timers over a wheel.
//!
//! ```
//! use netpoller::wheel::{Tick, Timers};
//!
//! let mut timers = Timers::new();
//! timers.insert(Tick::new(5), "five");
//! timers.insert(Tick::new(3), "three");
//! let mut due = Vec::new();
//! timers.advance(Tick::new(4), 100, |value| due.push(value));
//! assert_eq!(due, ["three"]);
//! assert_eq!(timers.next(), Some(Tick::new(5)));
//! ```
// Does the work of the 4-ary heap in Go's runtime/time.go (`siftUp`, `check`, `run`, `adjust`): an entry
// is its `timerWhen`, a stale entry its zombie.
//
//   level 0   64 slots of    1 tick     what is in one slot is due together
//   level 1   64 slots of   64 ticks
//   level 2   64 slots of 4096 ticks    ... six levels reach 2^36 ticks, eleven all of u64
//
// # Ground rules
//
// A new entry goes to the level that reads the highest bit in which its tick differs from
// `elapsed`, and there to the slot that the tick's six bits of this level name. When the earliest
// entry of a slot falls due, the slot *cascades*: its entries go one level down. So these hold:
//
// 1. `elapsed` moves to the earliest entry held, or to a `now` before that. It passes no entry.
// 2. Above its level, an entry has the bits of `elapsed`; those of its level are not smaller.
//    So a level never wraps: its first slot in use has its earliest entry.
// 3. Levels may overlap: an entry in a wide slot may be due before a later comer in a narrow one. The
//    earliest of all is the earliest of the levels' first slots, found without search.
// 4. Nothing happens at the boundary of a slot, so no owner need be woken then.
// 5. A slot that is cascaded in part is like any other, but nothing more goes into it: the levels
//    below now read its ticks.

mod timers;

#[cfg(test)]
mod tests;

pub use timers::{TimerKey, Timers};

/// A point in the wheel's time, counted in ticks from the owner's beginning.
///
/// The unit is the owner's: the reactor's ticks are milliseconds.
///
/// ```
/// use netpoller::wheel::Tick;
///
/// let soon = Tick::new(5);
/// assert!(Tick::ZERO < soon && soon < Tick::MAX);
/// assert_eq!(soon.saturating_add(2).get(), 7);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(u64);

impl Tick {
    /// The beginning: the tick at which every wheel starts.
    pub const ZERO: Tick = Tick(0);

    /// The last tick. A wheel holds an entry here like any other; an owner may take it to mean
    /// "never".
    pub const MAX: Tick = Tick(u64::MAX);

    /// The tick `count` ticks after the beginning.
    ///
    /// ```
    /// # use netpoller::wheel::Tick;
    /// const SECOND: Tick = Tick::new(1_000);
    /// assert_eq!(SECOND.get(), 1_000);
    /// ```
    pub const fn new(count: u64) -> Tick {
        Tick(count)
    }

    /// How many ticks after the beginning this is.
    ///
    /// ```
    /// # use netpoller::wheel::Tick;
    /// assert_eq!(Tick::ZERO.get(), 0);
    /// ```
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The tick `ticks` later, or [`Tick::MAX`] where that would be past the end of time.
    ///
    /// ```
    /// # use netpoller::wheel::Tick;
    /// assert_eq!(Tick::new(1).saturating_add(2), Tick::new(3));
    /// assert_eq!(Tick::MAX.saturating_add(1), Tick::MAX);
    /// ```
    pub const fn saturating_add(self, ticks: u64) -> Tick {
        Tick(self.0.saturating_add(ticks))
    }
}

/// How many bits of a tick one level reads.
const BITS: u32 = 6;

/// How many slots a level has: one for each value of its bits.
const SLOTS: usize = 1 << BITS;

/// To cascade this many entries costs as much of the budget as to hand one out.
const CASCADED_FOR_ONE: usize = 16;

/// How many entries of room an empty slot keeps for the next time.
const KEPT: usize = 32;

/// A tick, and the key that its owner knows it by.
type Entry<K> = (Tick, K);

/// The entries of one span of time, in no order.
struct Slot<K> {
    entries: Vec<Entry<K>>,
    /// When the first entry is due: at its tick, or at `elapsed` if that was later when it was placed.
    /// [`Tick::MAX`] if there is none.
    earliest: Tick,
}

/// One ring of slots. A slot of level `n` spans `64^n` ticks.
struct Level<K> {
    /// Bit `i` is set while slot `i` holds anything.
    occupied: u64,
    slots: [Slot<K>; SLOTS],
}

/// Which level tells `tick` from `elapsed`: the one that reads the highest bit they differ in.
#[inline]
fn level_of(elapsed: Tick, tick: Tick) -> usize {
    let differing = elapsed.get() ^ tick.get();
    // The same tick is level 0's too.
    ((differing | 1).ilog2() / BITS) as usize
}

/// Which slot of `level` spans `tick`.
#[inline]
fn slot_of(level: usize, tick: Tick) -> usize {
    (tick.get() >> (level as u32 * BITS)) as usize % SLOTS
}

impl<K: Copy> Level<K> {
    fn new() -> Self {
        Level {
            occupied: 0,
            slots: std::array::from_fn(|_| Slot {
                entries: Vec::new(),
                earliest: Tick::MAX,
            }),
        }
    }

    /// The earliest entry of this level, and the slot where it lies.
    #[inline]
    fn first(&self) -> Option<(Tick, usize)> {
        let slot = self.occupied.trailing_zeros() as usize;
        (self.occupied != 0).then(|| (self.slots[slot].earliest, slot))
    }

    /// Adds an entry that counts as due at `tick`.
    #[inline]
    fn push(&mut self, slot: usize, tick: Tick, entry: Entry<K>) {
        self.occupied |= 1 << slot;
        let slot = &mut self.slots[slot];
        slot.entries.push(entry);
        slot.earliest = slot.earliest.min(tick);
    }

    /// If everything was taken from `slot`: marks it empty, and gives back all but a little room.
    fn settle(&mut self, slot: usize) {
        let Slot { entries, earliest } = &mut self.slots[slot];
        if entries.is_empty() {
            *earliest = Tick::MAX;
            self.occupied &= !(1 << slot);
            entries.shrink_to(KEPT);
        }
    }
}

/// Entries, each a tick and a key, that come out when their tick has come.
///
/// The wheel holds entries; its owner knows when each timer is due. A timer that moves *later* costs
/// nothing here: when its entry comes out, the owner says where it goes. One that moves *earlier* or
/// ends leaves its old entry behind, *stale*: when that comes out, the owner knows. An owner that
/// leaves many behind [compacts](Wheel::compact) the wheel now and then.
///
/// A key must tell a timer's live entry from those it left behind. The tick can't: a timer may move
/// away and come back to it. So put a number into the key that changes with every
/// [`place`](Wheel::place) of a timer's.
///
/// An entry costs 16 bytes when the key has 8. A level costs 2 KiB once an entry was placed on it, or on
/// a level above.
///
/// ```
/// use netpoller::wheel::{Tick, Wheel};
///
/// let mut wheel = Wheel::new();
/// wheel.place(Tick::new(30), "thirty");
/// wheel.place(Tick::new(10), "ten");
/// assert_eq!(wheel.next(), Some(Tick::new(10)));
///
/// let mut due = Vec::new();
/// let more = wheel.advance(Tick::new(20), 100, |_, key| {
///     due.push(key);
///     None // It has fired.
/// });
/// assert!(!more);
/// assert_eq!(due, ["ten"]);
///
/// // "thirty" has moved meanwhile, and the wheel did not hear of it.
/// wheel.advance(Tick::new(30), 100, |_, _| Some(Tick::new(90)));
/// assert_eq!(wheel.next(), Some(Tick::new(90)));
/// ```
pub struct Wheel<K: Copy> {
    /// Made when first needed.
    levels: Vec<Level<K>>,
    elapsed: Tick,
    /// The earliest entry held, or [`Tick::MAX`]. Between calls it is exact.
    earliest: Tick,
    len: usize,
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
            elapsed: Tick::ZERO,
            earliest: Tick::MAX,
            len: 0,
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
        if level >= self.levels.len() {
            self.levels.resize_with(level + 1, Level::new);
        }
        self.levels[level].push(slot_of(level, tick), tick, (when, key));
        self.len += 1;
        self.earliest = self.earliest.min(tick);
    }

    /// How many entries are held, stale ones too.
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

    /// Whether no entry is held, not even a stale one.
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
    /// # use netpoller::wheel::{Tick, Wheel};
    /// let mut wheel = Wheel::<u64>::new();
    /// wheel.advance(Tick::new(7), 1, |_, _| None);
    /// assert_eq!(wheel.elapsed(), Tick::new(7));
    /// ```
    pub fn elapsed(&self) -> Tick {
        self.elapsed
    }

    /// The earliest entry held, stale or not, and never before [`elapsed`](Wheel::elapsed).
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

    /// Finds the slot with the earliest entry of all, one of the levels' first slots (ground rule 3),
    /// and sets `earliest` to what is there. Returns its level and its number.
    fn front(&mut self) -> Option<(usize, usize)> {
        let mut front = None;
        self.earliest = Tick::MAX;
        for (level, ring) in self.levels.iter().enumerate() {
            if let Some((tick, slot)) = ring.first()
                && (tick < self.earliest || front.is_none())
            {
                self.earliest = tick;
                front = Some((level, slot));
            }
        }
        front
    }

    // ---- advance ----

    /// Moves to tick `now` and hands every entry due by then to `check`, tick by tick (in any order
    /// within a tick), until `budget` is used up. Returns whether more is due: then call again,
    /// with the same `now` or a later one.
    ///
    /// `check` returns the tick that the timer has moved to, later than the one that came: the
    /// entry goes there. If that tick has come too, the entry comes out again in the same call.
    /// After `None` the entry is gone: it has fired, or was stale.
    ///
    /// An entry handed out costs one of the budget, and so do 16 that cascade: a call's work is
    /// bounded by it, however full a slot is. A `now` before [`elapsed`](Wheel::elapsed) counts
    /// as `elapsed`.
    ///
    /// O(1) when nothing is due; an entry costs O(1) for each level that it comes down.
    ///
    /// ```
    /// use netpoller::wheel::{Tick, Wheel};
    ///
    /// let mut wheel = Wheel::new();
    /// for key in 0..3 {
    ///     wheel.place(Tick::new(5), key);
    /// }
    /// let mut seen = 0;
    /// let mut check = |_, _| {
    ///     seen += 1;
    ///     None
    /// };
    /// assert!(wheel.advance(Tick::new(9), 2, &mut check)); // one is left
    /// assert!(!wheel.advance(Tick::new(9), 1, &mut check));
    /// assert_eq!(seen, 3);
    /// ```
    pub fn advance(
        &mut self,
        now: Tick,
        mut budget: usize,
        mut check: impl FnMut(Tick, K) -> Option<Tick>,
    ) -> bool {
        let now = now.max(self.elapsed);
        // `earliest` is exact between calls, so a turn with nothing due costs this comparison.
        while self.earliest <= now {
            // Handing out and cascading leave `earliest` behind. `front` makes it exact again.
            let Some((level, slot)) = self.front() else {
                break;
            };
            if self.earliest > now {
                break;
            }
            // More is due. `earliest` stays in the past, so `next()` says: call again now.
            if budget == 0 {
                return true;
            }
            // Move to the earliest entry and never past one (rule 1).
            self.elapsed = self.earliest;
            // A wider slot holds later entries too. Move them down a level and look again.
            if level > 0 {
                self.cascade(level, slot, &mut budget);
                continue;
            }
            // A slot of level 0 is one tick: all of it is due. An entry is taken out before the owner
            // is asked: even if that panics, it comes out once.
            while budget > 0
                && let Some((when, key)) = self.levels[0].slots[slot].entries.pop()
            {
                budget -= 1;
                self.len -= 1;
                if let Some(later) = check(when, key) {
                    self.place(later, key);
                }
            }
            self.levels[0].settle(slot);
        }
        self.elapsed = now;
        false
    }

    /// Spreads the entries of a slot over the level below, as far as the budget goes. `elapsed` is
    /// the earliest of them, so the level below reads where they belong.
    fn cascade(&mut self, level: usize, slot: usize, budget: &mut usize) {
        let (below, here) = self.levels.split_at_mut(level);
        let (below, here) = (&mut below[level - 1], &mut here[0]);
        let entries = &mut here.slots[slot].entries;
        let moved = entries.len().min(budget.saturating_mul(CASCADED_FOR_ONE));
        for entry in entries.drain(entries.len() - moved..) {
            below.push(slot_of(level - 1, entry.0), entry.0, entry);
        }
        here.settle(slot);
        // Rounded down, so that fewer than 16 cost nothing: the earliest of them is handed out
        // next, and costs one.
        *budget -= moved / CASCADED_FOR_ONE;
    }

    /// Drops every entry that `keep` does not want: the stale ones.
    ///
    /// O(entries), without a budget. If it is called when the stale entries outnumber the live ones
    /// by some, it looks at few for each that became stale.
    ///
    /// # Panics
    ///
    /// Only if `keep` does; entries that were kept may then come out twice.
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Wheel};
    /// let mut wheel = Wheel::new();
    /// wheel.place(Tick::new(1), 'a');
    /// wheel.place(Tick::new(2), 'b');
    /// wheel.compact(|_, key| key == 'b');
    /// assert_eq!((wheel.len(), wheel.next()), (1, Some(Tick::new(2))));
    /// ```
    pub fn compact(&mut self, mut keep: impl FnMut(Tick, K) -> bool) {
        self.len = 0;
        for level in &mut self.levels {
            for slot in 0..SLOTS {
                let Slot { entries, earliest } = &mut level.slots[slot];
                entries.retain(|&(when, key)| keep(when, key));
                self.len += entries.len();
                // What is overdue counts as due at `elapsed`.
                let first = entries.iter().map(|&(when, _)| when).min();
                *earliest = first.map_or(Tick::MAX, |first| first.max(self.elapsed));
                level.settle(slot);
            }
        }
        self.front();
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
            .field("next", &self.next())
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
