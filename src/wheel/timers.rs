//! Timers with an owner: a slab that knows when each is due, over a wheel that finds it then.
//!
//! Touches the wheel beside it. Mirrors `timer` in Go's runtime/time.go, whose `when` may
//! likewise have moved on from the `timerWhen` that stands for it in the heap.
//!
//! | a timer            | the slab              | the wheel                                   |
//! |--------------------|-----------------------|---------------------------------------------|
//! | is inserted        | a slot, from `free`   | a place                                     |
//! | moves later        | `when` is stored      | nothing; its place finds out, and moves     |
//! | moves earlier      | a new stamp           | a new place; the old one lapses             |
//! | fires, is canceled | the slot goes to `free` | the place is spent; lapses                |

use std::num::NonZeroU32;

use super::{Tick, Verdict, Wheel};

/// Names one timer of a [`Timers`], and never a later one: when a slot's generations are spent,
/// after four billion timers, the slot is retired.
///
/// ```
/// use netpoller::wheel::{Tick, Timers};
///
/// let mut timers = Timers::new();
/// let old = timers.insert(Tick::new(1), 'a');
/// timers.cancel(old);
/// let new = timers.insert(Tick::new(1), 'b'); // in the same slot
/// assert_ne!(old, new);
/// assert_eq!((timers.get(old), timers.get(new)), (None, Some(&'b')));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerKey {
    index: u32,
    generation: NonZeroU32,
}

/// What the wheel holds for a timer.
#[derive(Clone, Copy)]
struct Place {
    index: u32,
    /// Tells a timer's live place from those that it, or an earlier timer of its slot, left.
    stamp: u32,
}

struct Timer<V> {
    /// The truth.
    when: Tick,
    /// Where its live place is: never after `when`.
    placed: Tick,
    /// The stamp of its live place.
    stamp: u32,
    generation: NonZeroU32,
    value: V,
}

/// Timers, each with a value that comes out when its tick has come.
///
/// Costs 32 bytes a timer when the value has 8, and 16 in the wheel. The slab keeps its greatest
/// size.
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
    wheel: Wheel<Place>,
    slab: Vec<Option<Timer<V>>>,
    /// The keys that vacant slots are given out under next.
    free: Vec<TimerKey>,
    len: usize,
    /// Goes on with every new place. It may wrap: at worst an old place is then taken for a
    /// live one, finds the truth, and moves there or lapses, as any other.
    stamp: u32,
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
            slab: Vec::new(),
            free: Vec::new(),
            len: 0,
            stamp: 0,
        }
    }

    /// Adds a timer that fires at tick `when`; a tick that has come fires with the next
    /// [`advance`](Timers::advance).
    ///
    /// O(1), amortised over the slab's and the slots' growth.
    ///
    /// # Panics
    ///
    /// With 2^32 timers in the slab.
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Timers};
    /// let mut timers = Timers::new();
    /// let key = timers.insert(Tick::new(5), 'a');
    /// assert_eq!(timers.when(key), Some(Tick::new(5)));
    /// ```
    pub fn insert(&mut self, when: Tick, value: V) -> TimerKey {
        self.stamp = self.stamp.wrapping_add(1);
        let stamp = self.stamp;
        let timer = |generation| {
            Some(Timer {
                when,
                placed: when,
                stamp,
                generation,
                value,
            })
        };
        let key = match self.free.pop() {
            Some(key) => {
                self.slab[key.index as usize] = timer(key.generation);
                key
            }
            None => {
                let index = u32::try_from(self.slab.len()).expect("more than 2^32 timers");
                let key = TimerKey {
                    index,
                    generation: NonZeroU32::MIN,
                };
                self.slab.push(timer(key.generation));
                key
            }
        };
        self.len += 1;
        self.wheel.place(
            when,
            Place {
                index: key.index,
                stamp,
            },
        );
        key
    }

    /// Moves a timer to tick `when`; `false` if it has fired or was canceled.
    ///
    /// Later: a store. Earlier than its place in the wheel: O(1), amortised over compaction.
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Timers};
    /// let mut timers = Timers::new();
    /// let key = timers.insert(Tick::new(5), 'a');
    /// assert!(timers.move_to(key, Tick::new(9)));
    /// assert_eq!(timers.when(key), Some(Tick::new(9)));
    /// ```
    #[inline]
    pub fn move_to(&mut self, key: TimerKey, when: Tick) -> bool {
        let Some(timer) = self.live(key) else {
            return false;
        };
        timer.when = when;
        if when < timer.placed {
            self.place_anew(key, when);
        }
        true
    }

    /// Takes a timer out before it fires; `None` if it has fired or was canceled before.
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
        self.live(key)?;
        let timer = self.slab[key.index as usize].take()?;
        release(&mut self.free, key);
        self.len -= 1;
        self.wheel.lapse();
        self.compact();
        Some(timer.value)
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
        self.peek(key).map(|timer| &timer.value)
    }

    /// A timer's value, to change. O(1).
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Timers};
    /// let mut timers = Timers::new();
    /// let key = timers.insert(Tick::new(5), 'a');
    /// *timers.get_mut(key).unwrap() = 'b';
    /// assert_eq!(timers.cancel(key), Some('b'));
    /// ```
    pub fn get_mut(&mut self, key: TimerKey) -> Option<&mut V> {
        self.live(key).map(|timer| &mut timer.value)
    }

    /// The tick at which a timer will fire. O(1).
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Timers};
    /// let mut timers = Timers::new();
    /// let key = timers.insert(Tick::new(5), 'a');
    /// assert_eq!(timers.when(key), Some(Tick::new(5)));
    /// ```
    pub fn when(&self, key: TimerKey) -> Option<Tick> {
        self.peek(key).map(|timer| timer.when)
    }

    /// When to [`advance`](Timers::advance) next: no timer is due before. A place that a moved
    /// or canceled timer left may be there instead, at most once each. O(1).
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Timers};
    /// let mut timers = Timers::new();
    /// let key = timers.insert(Tick::new(5), 'a');
    /// timers.move_to(key, Tick::new(9));
    /// assert_eq!(timers.next(), Some(Tick::new(5)));
    /// ```
    #[inline]
    pub fn next(&self) -> Option<Tick> {
        self.wheel.next()
    }

    /// When the next timer fires, exactly: for a virtual clock. See [`Wheel::next_live`] for
    /// its cost.
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Timers};
    /// let mut timers = Timers::new();
    /// let key = timers.insert(Tick::new(5), 'a');
    /// timers.move_to(key, Tick::new(9));
    /// assert_eq!(timers.next_live(), Some(Tick::new(9)));
    /// ```
    pub fn next_live(&mut self) -> Option<Tick> {
        self.wheel
            .next_live(|when, place| judge(&mut self.slab, when, place))
    }

    /// Moves to tick `now` and gives the values of the timers due by then to `fire`, in the
    /// order of their ticks, until `budget` is used up. Returns whether it was, with more due:
    /// then call again.
    ///
    /// The budget is [`Wheel::advance`]'s; a place that a moved or canceled timer left costs as
    /// much of it as one that fires. O(1) when nothing is due.
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
        let Timers {
            wheel,
            slab,
            free,
            len,
            ..
        } = self;
        let more = wheel.advance(now, budget, |when, place| {
            let verdict = judge(slab, when, place);
            if verdict == Verdict::Done
                && let Some(timer) = slab[place.index as usize].take()
            {
                release(
                    free,
                    TimerKey {
                        index: place.index,
                        generation: timer.generation,
                    },
                );
                *len -= 1;
                fire(timer.value);
            }
            verdict
        });
        // Each that fired leaves fewer live ones for the stale ones to be measured against.
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
        self.len
    }

    /// How many places the wheel holds: never more than 2 x [`len`](Timers::len) + 64.
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Timers};
    /// let mut timers = Timers::new();
    /// let key = timers.insert(Tick::new(5), 'a');
    /// timers.cancel(key);
    /// assert_eq!((timers.len(), timers.places()), (0, 1));
    /// ```
    pub fn places(&self) -> usize {
        self.wheel.len()
    }

    /// Whether there is no timer.
    ///
    /// ```
    /// # use netpoller::wheel::Timers;
    /// assert!(Timers::<u64>::new().is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    fn peek(&self, key: TimerKey) -> Option<&Timer<V>> {
        let timer = self.slab.get(key.index as usize)?.as_ref()?;
        (timer.generation == key.generation).then_some(timer)
    }

    #[inline]
    fn live(&mut self, key: TimerKey) -> Option<&mut Timer<V>> {
        let timer = self.slab.get_mut(key.index as usize)?.as_mut()?;
        (timer.generation == key.generation).then_some(timer)
    }

    #[inline(never)]
    fn place_anew(&mut self, key: TimerKey, when: Tick) {
        self.stamp = self.stamp.wrapping_add(1);
        let stamp = self.stamp;
        let Some(timer) = self.live(key) else { return };
        timer.placed = when;
        timer.stamp = stamp;
        self.wheel.place(
            when,
            Place {
                index: key.index,
                stamp,
            },
        );
        self.wheel.lapse();
        self.compact();
    }

    fn compact(&mut self) {
        if self.wheel.overgrown() {
            let slab = &self.slab;
            self.wheel.compact(|_, place| {
                let timer = slab[place.index as usize].as_ref();
                timer.is_some_and(|timer| timer.stamp == place.stamp)
            });
        }
    }
}
/// What becomes of a place that is met at tick `when`.
#[inline]
fn judge<V>(slab: &mut [Option<Timer<V>>], when: Tick, place: Place) -> Verdict {
    match &mut slab[place.index as usize] {
        Some(timer) if timer.stamp != place.stamp => Verdict::Lapsed,
        Some(timer) if timer.when > when => {
            timer.placed = timer.when;
            Verdict::Again(timer.when)
        }
        Some(_) => Verdict::Done,
        None => Verdict::Lapsed,
    }
}

/// Makes a slot vacant under its next generation, or retires it when that was the last.
fn release(free: &mut Vec<TimerKey>, key: TimerKey) {
    if let Some(generation) = key.generation.checked_add(1) {
        free.push(TimerKey { generation, ..key });
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
            .field("len", &self.len)
            .field("wheel", &self.wheel)
            .finish()
    }
}
