//! Timers with an owner: a slab that knows when each is due, over a wheel that finds it then.
//!
//! Touches the wheel and the slab beside it. Mirrors Go's runtime/time.go, where a `timer`'s
//! `when` may likewise have moved on from the `timerWhen` that stands for it in the heap.
//!
//! | a timer       | in the slab                  | in the wheel                                |
//! |---------------|------------------------------|---------------------------------------------|
//! | is inserted   | a slot, its next stamp       | a place with that stamp                     |
//! | moves later   | `when` is stored             | nothing; its place finds out when it is met |
//! | moves earlier | `when`, `placed`, a new stamp | a new place; the old one lapses            |
//! | is canceled   | the slot is free             | the place lapses                            |
//! | fires         | the slot is free             | the place is spent                          |

use super::slab::{Mark, Slab, TimerKey};
use super::{Owner, Tick, Verdict, Wheel};

/// Timers, each with a value that comes out when its tick has come.
///
/// A timer costs 33 bytes when its value has 8, and each place in the wheel 16. Room for as many
/// timers as there ever were at a time is kept, with 8 bytes more for each that is vacant.
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
    wheel: Wheel<Mark>,
    slab: Slab<V>,
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
        }
    }

    /// Adds a timer that fires at tick `when`; if that has come, with the next
    /// [`advance`](Timers::advance).
    ///
    /// O(1), amortised over the growth of a slot.
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
    #[inline]
    pub fn insert(&mut self, when: Tick, value: V) -> TimerKey {
        match self.slab.vacant() {
            Some(key) => self.insert_at(key, when, value),
            None => self.insert_fresh(when, value),
        }
    }

    /// Apart, so that the busy way calls nothing, and need not save registers for it: with
    /// millions of timers stores are what it waits for.
    #[inline(never)]
    fn insert_fresh(&mut self, when: Tick, value: V) -> TimerKey {
        let key = self.slab.fresh();
        self.insert_at(key, when, value)
    }

    #[inline(always)]
    fn insert_at(&mut self, key: TimerKey, when: Tick, value: V) -> TimerKey {
        let mark = self.slab.fill(key, when, value);
        self.wheel.place(when, mark);
        key
    }

    /// Moves a timer to tick `when`; `false` if it has fired or was canceled.
    ///
    /// Later than its place in the wheel: a store. Earlier: O(1), amortised over compaction.
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
        match self.slab.get_mut(key) {
            Some(timer) if when >= timer.placed => {
                timer.when = when;
                true
            }
            Some(_) => self.move_earlier(key, when),
            None => false,
        }
    }

    /// Takes a timer out before it fires; `None` if it has, or was canceled before.
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
        let value = self.slab.cancel(key)?;
        self.wheel.lapse();
        self.compact();
        Some(value)
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
        self.slab.get(key).map(|timer| &timer.value)
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
        self.slab.get_mut(key).map(|timer| &mut timer.value)
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
        self.slab.get(key).map(|timer| timer.when)
    }

    /// When to [`advance`](Timers::advance) next: no timer is due before, but none need be due
    /// then. A timer that moved or was canceled may have left a place there, which costs one
    /// such call. O(1).
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

    /// When the next timer fires, exactly, for a virtual clock. Costs what
    /// [`Wheel::next_live`] does.
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
            .next_live(|when, mark| judge(&mut self.slab, when, mark))
    }

    /// Moves to tick `now` and gives the values of the timers due by then to `fire`, in the
    /// order of their ticks, until `budget` is used up. Returns whether it was, with more to
    /// do: then call again.
    ///
    /// The budget is that of [`Wheel::advance`]; a place left behind costs as much of it as a
    /// timer that fires. O(1) when nothing is due.
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
    pub fn advance(&mut self, now: Tick, budget: usize, fire: impl FnMut(V)) -> bool {
        let slab = &mut self.slab;
        let more = self.wheel.turn(now, budget, &mut Firing { slab, fire });
        // Fewer are live now, so that the stale ones may be too many.
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
        self.len() == 0
    }

    /// Gives a timer a place before the one it has.
    #[inline(never)]
    fn move_earlier(&mut self, key: TimerKey, when: Tick) -> bool {
        let Some(mark) = self.slab.move_earlier(key, when) else {
            return false;
        };
        self.wheel.place(when, mark);
        self.wheel.lapse();
        self.compact();
        true
    }

    /// Sweeps the wheel once too many places are stale.
    #[inline]
    fn compact(&mut self) {
        if self.wheel.overgrown() {
            self.sweep();
        }
    }

    #[cold]
    fn sweep(&mut self) {
        let live = self.slab.len();
        let slab = &mut self.slab;
        self.wheel
            .compact_roughly(live, |_, mark| slab.may_be_live(mark));
        // Where the copies told too little, sweeping by them would soon be due again.
        if self.wheel.stale() > live / 8 {
            self.wheel
                .compact_roughly(live, |_, mark| slab.marked(mark).is_some());
        }
    }
}

/// What of a place that is met at tick `when`?
#[inline]
fn judge<V>(slab: &mut Slab<V>, when: Tick, mark: Mark) -> Verdict {
    match slab.marked(mark) {
        Some(timer) if timer.when > when => {
            timer.placed = timer.when;
            Verdict::Again(timer.when)
        }
        Some(_) => Verdict::Done,
        None => Verdict::Lapsed,
    }
}

/// The owner whose timers fire.
struct Firing<'a, V, F> {
    slab: &'a mut Slab<V>,
    fire: F,
}

impl<V, F: FnMut(V)> Owner<Mark> for Firing<'_, V, F> {
    #[inline]
    fn ahead(&mut self, places: &[(Tick, Mark)]) {
        self.slab.load(places.iter().map(|&(_, mark)| mark));
    }

    #[inline]
    fn check(&mut self, when: Tick, mark: Mark) -> Verdict {
        let verdict = judge(self.slab, when, mark);
        if verdict == Verdict::Done
            && let Some(value) = self.slab.take(mark.index)
        {
            (self.fire)(value);
        }
        verdict
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
