//! A hierarchical timer wheel: ticks go in, due keys come out. No clock, no I/O.
//!
//! A [`Wheel`] holds only entries, each a tick and a key. Its owner stores when each timer is really due.
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
// is its `timerWhen`, the stale entry of a canceled timer its zombie.
//
//   level 0   bits 0 to 5    64 slots of    1 tick     all entries of a slot are due together
//   level 1   bits 6 to 11   64 slots of   64 ticks
//   level 2   bits 12 to 17  64 slots of 4096 ticks    ... six levels reach 2^36 ticks, eleven all of u64
//
// # Ground rules
//
// `elapsed` is the tick that the wheel has reached: entries up to it were handed out.
//
// Where an entry goes: take the highest bit in which its tick differs from `elapsed`. The level is the one
// that has this bit. The slot is the number in the tick's six bits of that level.
//
// How an entry comes out: `advance` sets `elapsed` to the tick of the earliest entry. If this entry is on
// level 0, its slot is handed out. If not, its slot *cascades*: all entries of the slot are placed anew,
// on lower levels. Then `advance` goes on with the entry that is the earliest now.
//
// So these rules hold:
//
// 1. `elapsed` is never after the tick of an entry. (An overdue entry counts as due at `elapsed`.)
// 2. An entry's tick equals `elapsed` in the bits above its level, and is not smaller in the bits of its
//    level. So the first slot in use of a level has the earliest entry of that level.
// 3. The earliest entry of all is in the first slot in use of some level: at most eleven comparisons find it. It
//    may be on any level, since an entry does not move down while `elapsed` comes near.
// 4. Nothing has to be done when `elapsed` reaches the beginning of a slot. So the owner need not wake up
//    then.
// 5. If the budget ends a cascade half-way, the other entries stay in the slot. New entries with ticks of
//    this slot go to lower levels, since they equal `elapsed` in the bits of this level.

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

/// How many bits of a tick a level has.
const BITS: u32 = 6;

/// How many slots a level has: one for each value of its bits.
const SLOTS: usize = 1 << BITS;

/// To cascade this many entries costs as much of the budget as to hand one out.
const CASCADED_FOR_ONE: usize = 16;

/// An empty slot keeps the memory of this many entries.
const KEPT: usize = 32;

/// A tick, and its owner's key.
type Entry<K> = (Tick, K);

/// The entries of one span of time, in no order.
struct Slot<K> {
    entries: Vec<Entry<K>>,
    /// When the earliest entry is due: at its tick, or at `elapsed` if that was later when it was placed.
    /// [`Tick::MAX`] if there is none. It may be too early after a cascade that the budget has ended.
    earliest: Tick,
}

/// One ring of slots. A slot of level `n` spans `64^n` ticks.
struct Level<K> {
    /// Bit `i` is set while slot `i` holds anything.
    occupied: u64,
    slots: [Slot<K>; SLOTS],
}

/// The level for an entry at `tick`: the one that has the highest bit in which `tick` and `elapsed` differ.
fn level_of(elapsed: Tick, tick: Tick) -> usize {
    let differing = elapsed.get() ^ tick.get();
    // If they are equal, it is level 0.
    ((differing | 1).ilog2() / BITS) as usize
}

/// The slot for an entry at `tick` on `level`.
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

    /// If `slot` has no entries: marks it empty, and frees its memory but for `KEPT` entries.
    fn trim(&mut self, slot: usize) {
        let Slot { entries, earliest } = &mut self.slots[slot];
        if entries.is_empty() {
            *earliest = Tick::MAX;
            self.occupied &= !(1 << slot);
            entries.shrink_to(KEPT);
        }
    }
}

/// Holds entries, each a tick and a key, and hands each out when its tick is reached.
///
/// The owner stores when each timer is due. If a timer moves *later*, leave the entry where it is: when it
/// comes out, return the new tick. If a timer moves *earlier*, place a second entry: the first is then
/// *stale*. If a timer is canceled, its entry is stale too. When a stale entry comes out, return `None`. An
/// owner of many stale entries [compacts](Wheel::compact) the wheel now and then.
///
/// By the key the owner must tell whether an entry is stale. The tick is not enough, since a timer may get
/// the same tick twice. So put a number into the key that is new for each [`place`](Wheel::place).
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
/// // "thirty" has moved later meanwhile, and the wheel was not told.
/// wheel.advance(Tick::new(30), 100, |_, _| Some(Tick::new(90)));
/// assert_eq!(wheel.next(), Some(Tick::new(90)));
/// ```
pub struct Wheel<K: Copy> {
    /// Level 0 first. A level is made when it is first needed.
    levels: Vec<Level<K>>,
    elapsed: Tick,
    /// When the earliest entry is due, or [`Tick::MAX`] if there is none. Exact, except within an `advance`
    /// and after one that returned true: then it may be too early.
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

    /// Adds an entry that comes out at tick `when`. If `when` is at or before
    /// [`elapsed`](Wheel::elapsed), it comes out with the next [`advance`](Wheel::advance), as if it were
    /// placed at `elapsed`.
    ///
    /// O(1), amortised over the slots' growth.
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Wheel};
    /// let mut wheel = Wheel::new();
    /// wheel.place(Tick::MAX, 'a');
    /// assert_eq!(wheel.next(), Some(Tick::MAX));
    /// ```
    pub fn place(&mut self, when: Tick, key: K) {
        let tick = when.max(self.elapsed);
        let level = level_of(self.elapsed, tick);
        if level >= self.levels.len() {
            self.levels.resize_with(level + 1, Level::new);
        }
        let (ring, at) = (&mut self.levels[level], slot_of(level, tick));
        ring.occupied |= 1 << at;
        let slot = &mut ring.slots[at];
        slot.entries.push((when, key));
        slot.earliest = slot.earliest.min(tick);
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

    /// How far the wheel has come: the `now` of the last [`advance`](Wheel::advance) or, if that returned
    /// true, the tick that it has reached.
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

    /// The tick of the earliest entry, stale or not; at least [`elapsed`](Wheel::elapsed). After an
    /// [`advance`](Wheel::advance) that returned true, it is a tick that is due already.
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
    pub fn next(&self) -> Option<Tick> {
        (self.len > 0).then_some(self.earliest)
    }

    /// Finds the slot with the earliest entry of all (ground rule 3), and sets `earliest`. Returns the level
    /// and the slot, if that entry is due by `limit`.
    fn find_front(&mut self, limit: Tick) -> Option<(usize, usize)> {
        let firsts = self.levels.iter().enumerate().filter_map(|(level, ring)| {
            // If no bit is set, this is 64, which is no slot.
            let slot = ring.occupied.trailing_zeros() as usize;
            Some((ring.slots.get(slot)?.earliest, level, slot))
        });
        let front = firsts.min();
        self.earliest = front.map_or(Tick::MAX, |(tick, ..)| tick);
        let due = front.filter(|&(tick, ..)| tick <= limit);
        due.map(|(_, level, slot)| (level, slot))
    }

    // ---- advance ----

    /// Moves to tick `now` and hands every entry due by then to `check`, tick by tick (in any order
    /// within a tick), until `budget` is used up. Returns true if more may be due: then call again,
    /// with the same `now` or a later one.
    ///
    /// If the timer was moved, `check` returns its new, later tick, and the entry is placed there. If that
    /// tick is due too, the entry comes out again in the same call. If `check` returns `None`, since the
    /// timer has fired or the entry is stale, the entry is removed.
    ///
    /// The budget is one for each entry handed out, and one for each 16 entries that cascade (fewer than 16
    /// cost nothing). It bounds the work of a call, however full a slot is. A `now` before
    /// [`elapsed`](Wheel::elapsed) counts as `elapsed`.
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
        // If nothing is due, a call costs only the comparison. `earliest` is too early once a slot was handed
        // out or cascaded: `find_front` corrects it.
        while self.earliest <= now
            && let Some((level, slot)) = self.find_front(now)
        {
            // More may be due. `earliest` is not after `now`, so `next` says: call again now.
            if budget == 0 {
                return true;
            }
            // Rule 1.
            self.elapsed = self.earliest;
            // The slot may have later entries too. Move them down and look again.
            if level > 0 {
                self.cascade(level, slot, &mut budget);
                continue;
            }
            // A slot of level 0 is one tick: all of it is due. Take an entry out before `check` is called: if
            // `check` panics, the entry does not come out twice.
            while budget > 0
                && let Some((when, key)) = self.levels[0].slots[slot].entries.pop()
            {
                budget -= 1;
                self.len -= 1;
                if let Some(later) = check(when, key) {
                    self.place(later, key);
                }
            }
            self.levels[0].trim(slot);
        }
        self.elapsed = now;
        false
    }

    /// Places the entries of a slot anew, as far as the budget allows. All of them equal `elapsed` in the
    /// bits of this level, so each goes to a lower one (rule 2).
    fn cascade(&mut self, level: usize, slot: usize, budget: &mut usize) {
        let mut entries = std::mem::take(&mut self.levels[level].slots[slot].entries);
        let moved = entries.len().min(budget.saturating_mul(CASCADED_FOR_ONE));
        self.len -= moved;
        for (when, key) in entries.drain(entries.len() - moved..) {
            self.place(when, key);
        }
        self.levels[level].slots[slot].entries = entries;
        self.levels[level].trim(slot);
        // Rounded down: under 16 cost nothing. `advance` ends all the same: each entry goes to a lower
        // level, and to come out costs one.
        *budget -= moved / CASCADED_FOR_ONE;
    }

    /// Removes each entry for which `keep` returns false: the stale ones.
    ///
    /// O(entries + slots), without a budget. So call it when more than half of the entries are stale: then it
    /// costs O(1) for each entry that became stale.
    ///
    /// # Panics
    ///
    /// Only if `keep` does. Then drop the wheel: it has lost count of its entries.
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
                // An overdue entry counts as due at `elapsed`.
                let first = entries.iter().map(|&(when, _)| when.max(self.elapsed));
                *earliest = first.min().unwrap_or(Tick::MAX);
                level.trim(slot);
            }
        }
        // Only to set `earliest`: nothing is handed out here.
        self.find_front(Tick::ZERO);
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
