//! A slab of timers, each with a value, over a wheel. The slab stores when each timer is due.
// Mirrors Go's runtime/time.go, where a `timer`'s `when` may likewise be later than the `timerWhen` that
// stands for it in the heap.
//
// | a timer       | in the slab       | in the wheel                                              |
// |---------------|-------------------|-----------------------------------------------------------|
// | is inserted   | an index          | an entry with a new number                                |
// | moves later   | `when` is stored  | nothing; when the entry comes out, it is placed at `when` |
// | moves earlier | `when`, `number`  | a new entry; the old one is stale                         |
// | is canceled   | index is freed    | the entry is stale                                        |
// | fires         | index is freed    | the entry is removed                                      |
//
// | number       | kept in                     | tells apart                                                |
// |--------------|-----------------------------|------------------------------------------------------------|
// | `index`      | a `TimerKey`, an `EntryKey` | the timers of the slab                                     |
// | `number`     | an `EntryKey`, a `Timer`    | a timer's entry from the stale entries of its index        |
// | `generation` | a `TimerKey`, a `Timer`     | the successive timers of one index: it is the first number |

use std::mem;
use std::num::NonZeroU32;
use std::ops::Range;

use slab::Slab;

use super::{Tick, Wheel};

/// The wheel is compacted once its stale entries outnumber its timers by more than this.
const SLACK: usize = 64;

/// Names one timer of a [`Timers`]. Insertions, and moves to an earlier tick, are counted in 32 bits, and
/// wrap: a key that is kept while there are four billion of them may name another timer of the same index.
///
/// ```
/// use netpoller::wheel::{Tick, Timers};
///
/// let mut timers = Timers::new();
/// let old = timers.insert(Tick::new(1), 'a');
/// timers.cancel(old);
/// let new = timers.insert(Tick::new(1), 'b'); // of the same index
/// assert_ne!(old, new);
/// assert_eq!((timers.get(old), timers.get(new)), (None, Some(&'b')));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerKey {
    pub(crate) index: u32,
    generation: NonZeroU32,
}

/// The key of a timer's entry in the wheel.
#[derive(Clone, Copy)]
struct EntryKey {
    index: u32,
    number: NonZeroU32,
}

/// A timer: when it fires, and which entry of the wheel stands for it.
struct Timer<V> {
    /// When it fires. Its entry is at this tick or before.
    when: Tick,
    /// The number of its entry. The stale entries of its index have other numbers.
    number: NonZeroU32,
    /// The number of its first entry.
    generation: NonZeroU32,
    value: V,
}

/// Holds timers, each with a value, and hands each value out when its tick is reached.
///
/// A timer costs 24 bytes when its value has 8, and each entry in the wheel 16. The memory for timers does
/// not shrink.
///
/// ```
/// use netpoller::wheel::{Tick, Timers};
///
/// let mut timers = Timers::new();
/// let tea = timers.insert(Tick::new(180_000), "tea");
/// let egg = timers.insert(Tick::new(300_000), "egg");
/// timers.move_to(tea, Tick::new(240_000)); // a little stronger
/// timers.cancel(egg);
///
/// let mut done = Vec::new();
/// timers.advance(Tick::new(180_000), 100, |value| done.push(value));
/// assert!(done.is_empty());
/// timers.advance(Tick::new(240_000), 100, |value| done.push(value));
/// assert_eq!(done, ["tea"]);
/// ```
pub struct Timers<V> {
    wheel: Wheel<EntryKey>,
    slab: Slab<Timer<V>>,
    /// The number of the newest entry. It wraps, see [`TimerKey`]: after that a stale entry may be taken for
    /// the timer's own, and is placed again at the timer's tick.
    placed: NonZeroU32,
}

impl<V> Timers<V> {
    /// No timers, at tick 0. Allocates nothing.
    ///
    /// ```
    /// # use netpoller::wheel::Timers;
    /// assert!(Timers::<u64>::new().is_empty());
    /// ```
    pub fn new() -> Self {
        Timers {
            wheel: Wheel::new(),
            slab: Slab::new(),
            placed: NonZeroU32::MAX,
        }
    }

    /// Adds a timer that fires at tick `when`. If `when` is past, it fires with the next
    /// [`advance`](Timers::advance).
    ///
    /// O(1), amortised over the wheel's growth.
    ///
    /// # Panics
    ///
    /// With 2^32 timers at a time.
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Timers};
    /// let mut timers = Timers::new();
    /// let key = timers.insert(Tick::new(5), 'a');
    /// assert_eq!(timers.when(key), Some(Tick::new(5)));
    /// ```
    pub fn insert(&mut self, when: Tick, value: V) -> TimerKey {
        let index = u32::try_from(self.slab.vacant_key()).expect("no more than 2^32 timers");
        let generation = self.place_entry(when, index);
        self.slab.insert(Timer {
            when,
            number: generation,
            generation,
            value,
        });
        TimerKey { index, generation }
    }

    /// Moves a timer to tick `when`; `false` if it has fired or was canceled.
    ///
    /// A later tick is only stored. An earlier one is O(1), amortised over compaction.
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Timers};
    /// let mut timers = Timers::new();
    /// let key = timers.insert(Tick::new(5), 'a');
    /// assert!(timers.move_to(key, Tick::new(9)));
    /// assert_eq!(timers.when(key), Some(Tick::new(9)));
    /// ```
    pub fn move_to(&mut self, key: TimerKey, when: Tick) -> bool {
        let timer = self.slab.get_mut(key.index as usize);
        let Some(timer) = timer.filter(|timer| timer.generation == key.generation) else {
            return false;
        };
        if when < mem::replace(&mut timer.when, when) {
            // Its entry may be after `when`: a new one.
            let number = self.place_entry(when, key.index);
            self.slab[key.index as usize].number = number;
            self.compact();
        }
        true
    }

    /// Cancels the timer that has this index. For an owner that stores only the index, and does not use it
    /// after the timer has fired.
    pub(crate) fn cancel_at(&mut self, index: u32) -> Option<V> {
        let timer = self.slab.try_remove(index as usize)?;
        self.compact();
        Some(timer.value)
    }

    /// Takes a timer out before it fires; `None` if it has fired or was canceled.
    ///
    /// O(1), amortised over compaction.
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Timers};
    /// let mut timers = Timers::new();
    /// let key = timers.insert(Tick::new(5), 'a');
    /// assert_eq!(timers.cancel(key), Some('a'));
    /// assert_eq!(timers.cancel(key), None);
    /// ```
    pub fn cancel(&mut self, key: TimerKey) -> Option<V> {
        self.timer(key)?;
        self.cancel_at(key.index)
    }

    /// A timer's value, until it fires or is canceled. O(1).
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Timers};
    /// let mut timers = Timers::new();
    /// let key = timers.insert(Tick::new(5), 'a');
    /// assert_eq!(timers.get(key), Some(&'a'));
    /// ```
    pub fn get(&self, key: TimerKey) -> Option<&V> {
        self.timer(key).map(|timer| &timer.value)
    }

    /// The tick at which a timer is due. O(1).
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Timers};
    /// let mut timers = Timers::new();
    /// let key = timers.insert(Tick::new(5), 'a');
    /// assert_eq!(timers.when(key), Some(Tick::new(5)));
    /// ```
    pub fn when(&self, key: TimerKey) -> Option<Tick> {
        self.timer(key).map(|timer| timer.when)
    }

    /// When to [`advance`](Timers::advance) next. No timer is due before. Perhaps none is due then either:
    /// the entry may be stale, or its timer may have moved later. O(1).
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Timers};
    /// let mut timers = Timers::new();
    /// let key = timers.insert(Tick::new(5), 'a');
    /// timers.move_to(key, Tick::new(9));
    /// assert_eq!(timers.next(), Some(Tick::new(5)));
    /// ```
    pub fn next(&self) -> Option<Tick> {
        self.wheel.next()
    }

    /// When the next timer fires, exactly. For a virtual clock, which must not jump to a stale entry.
    /// O(timers).
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Timers};
    /// let mut timers = Timers::new();
    /// let key = timers.insert(Tick::new(5), 'a');
    /// timers.move_to(key, Tick::new(9));
    /// assert_eq!(timers.next_live(), Some(Tick::new(9)));
    /// ```
    pub fn next_live(&self) -> Option<Tick> {
        self.slab.iter().map(|(_, timer)| timer.when).min()
    }

    /// Moves to tick `now` and gives `fire` the values of the timers due by then, in tick order
    /// (overdue ones in any), until `budget` is used up. Returns whether more is due: then call again.
    ///
    /// The budget is that of [`Wheel::advance`]; a stale entry costs as much of it as a timer that
    /// fires. O(1) when nothing is due.
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Timers};
    /// let mut timers = Timers::new();
    /// timers.insert(Tick::new(5), 'a');
    /// timers.insert(Tick::new(4), 'b');
    /// let mut fired = String::new();
    /// assert!(timers.advance(Tick::new(5), 1, |value| fired.push(value)));
    /// assert!(!timers.advance(Tick::new(5), 1, |value| fired.push(value)));
    /// assert_eq!(fired, "ba");
    /// ```
    pub fn advance(&mut self, now: Tick, budget: usize, mut fire: impl FnMut(V)) -> bool {
        let slab = &mut self.slab;
        let more = self.wheel.advance(now, budget, |when, entry| {
            // The entry is stale if its timer is gone, or has a newer entry.
            let timer = slab.get(entry.index as usize)?;
            if timer.number != entry.number {
                return None;
            }
            if timer.when > when {
                return Some(timer.when);
            }
            fire(slab.remove(entry.index as usize).value);
            None
        });
        // Timers have fired, so there may now be too many stale entries.
        self.compact();
        more
    }

    /// How many timers there are.
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Timers};
    /// let mut timers = Timers::new();
    /// timers.insert(Tick::new(5), 'a');
    /// assert_eq!(timers.len(), 1);
    /// ```
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Calls `look` with each timer with an index in `range`. Returns whether there are more indices.
    pub(crate) fn for_each_in(&self, range: Range<usize>, mut look: impl FnMut(Tick, &V)) -> bool {
        let timers = range.clone().filter_map(|index| self.slab.get(index));
        timers.for_each(|timer| look(timer.when, &timer.value));
        range.end < self.slab.capacity()
    }

    /// How many entries the wheel holds: never more than 2 x [`len`](Timers::len) + 64.
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Timers};
    /// let mut timers = Timers::new();
    /// let key = timers.insert(Tick::new(5), 'a');
    /// timers.cancel(key);
    /// assert_eq!((timers.len(), timers.entries()), (0, 1));
    /// ```
    pub fn entries(&self) -> usize {
        self.wheel.len()
    }

    /// Whether there is no timer.
    ///
    /// ```
    /// # use netpoller::wheel::Timers;
    /// assert!(Timers::<u64>::new().is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The timer that `key` names, unless it is gone.
    fn timer(&self, key: TimerKey) -> Option<&Timer<V>> {
        let timer = self.slab.get(key.index as usize)?;
        (timer.generation == key.generation).then_some(timer)
    }

    /// Places an entry for the timer at `index`, and returns the entry's number.
    fn place_entry(&mut self, when: Tick, index: u32) -> NonZeroU32 {
        let number = self.placed.checked_add(1).unwrap_or(NonZeroU32::MIN);
        self.placed = number;
        self.wheel.place(when, EntryKey { index, number });
        number
    }

    /// Removes the stale entries, if there are more than `len + SLACK` of them. (Each timer has one entry
    /// that is not stale.)
    fn compact(&mut self) {
        let slab = &self.slab;
        if self.wheel.len() > 2 * slab.len() + SLACK {
            self.wheel.compact(|_, entry| {
                let timer = slab.get(entry.index as usize);
                timer.is_some_and(|timer| timer.number == entry.number)
            });
        }
    }
}

impl<V> Default for Timers<V> {
    fn default() -> Self {
        Timers::new()
    }
}

impl<V> std::fmt::Debug for Timers<V> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Timers")
            .field("len", &self.len())
            .field("wheel", &self.wheel)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
