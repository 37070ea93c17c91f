//! Where timers live: slots in pages that never move, named by keys that never come again.
//!
//! Touches [`Tick`] only. Go allocates each `timer` apart (runtime/time.go) and lets the
//! collector see to stale references; here a key's generation does.

use std::num::NonZeroU32;

use super::Tick;

/// How many slots a group has: as few as fill whole cache lines, whatever the size of a timer.
const GROUP: usize = 8;

/// How many groups a page has.
const GROUPS: usize = 32;

/// How many slots a page has.
const PAGE: usize = GROUPS * GROUP;

/// No place has it: for slots with none to come.
const NO_STAMP: u32 = 0;

/// Names one timer of a [`Timers`](super::Timers), and never another: once a slot has used up
/// its generations, after four billion timers, it is retired.
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
pub(super) struct Mark {
    pub(super) index: u32,
    /// Tells the live place from those that this timer, or another in its slot, left behind.
    pub(super) stamp: NonZeroU32,
}

/// A timer: the truth, and what of it the wheel knows.
pub(super) struct Timer<V> {
    /// When it fires.
    pub(super) when: Tick,
    /// Where its live place is: not after `when`.
    pub(super) placed: Tick,
    /// The stamp of that place.
    stamp: NonZeroU32,
    generation: u32,
    pub(super) value: V,
}

/// Aligned, so that a timer of 32 bytes never lies in two cache lines.
#[repr(align(64))]
struct Group<V>([Option<Timer<V>>; GROUP]);

/// Made on the heap group by group: values may be larger than a stack has room for 256 of.
struct Page<V>(Box<[Group<V>; GROUPS]>);

/// Timers by slot, and the keys that vacant slots are given out under next.
pub(super) struct Slab<V> {
    pages: Vec<Page<V>>,
    /// By slot, the stamp of its timer's live place: a copy, so that sweeping the wheel need not
    /// fetch the timers, which with millions would be all its cost. [`NO_STAMP`] once canceled;
    /// once fired it does not matter, for the place is spent.
    stamps: Vec<u32>,
    /// Not a list through the slots: following one waits for memory at every step.
    free: Vec<TimerKey>,
    len: usize,
    /// The latest place's stamp. It may wrap: at worst a place left behind is then taken for
    /// the live one, and moves to where the timer is due instead of lapsing.
    stamp: NonZeroU32,
}

impl<V> Page<V> {
    fn new() -> Self {
        let groups: Vec<_> = (0..GROUPS)
            .map(|_| Group([const { None }; GROUP]))
            .collect();
        match groups.try_into() {
            Ok(groups) => Page(groups),
            Err(_) => unreachable!("there are as many groups as a page has"),
        }
    }

    #[inline]
    fn slot(&self, index: u32) -> &Option<Timer<V>> {
        let index = index as usize % PAGE;
        &self.0[index / GROUP].0[index % GROUP]
    }

    #[inline]
    fn slot_mut(&mut self, index: u32) -> &mut Option<Timer<V>> {
        let index = index as usize % PAGE;
        &mut self.0[index / GROUP].0[index % GROUP]
    }
}

impl<V> Slab<V> {
    pub(super) fn new() -> Self {
        Slab {
            pages: Vec::new(),
            stamps: Vec::new(),
            free: Vec::new(),
            len: 0,
            stamp: NonZeroU32::MIN,
        }
    }

    /// How many timers there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a timer, to be placed at `when` under the mark.
    #[inline]
    pub(super) fn insert(&mut self, when: Tick, value: V) -> (TimerKey, Mark) {
        let key = self.free.pop().unwrap_or_else(|| self.fresh());
        let stamp = self.next_stamp();
        let timer = Timer {
            when,
            placed: when,
            stamp,
            generation: key.generation.get(),
            value,
        };
        let index = key.index;
        *self.slot_mut(index) = Some(timer);
        self.stamps[index as usize] = stamp.get();
        self.len += 1;
        (key, Mark { index, stamp })
    }

    #[inline]
    fn slot_mut(&mut self, index: u32) -> &mut Option<Timer<V>> {
        self.pages[index as usize / PAGE].slot_mut(index)
    }

    /// A key to a slot that was never used.
    fn fresh(&mut self) -> TimerKey {
        let used = self.stamps.len();
        let index = u32::try_from(used).expect("no more than 2^32 timers at a time");
        if used.is_multiple_of(PAGE) {
            self.pages.push(Page::new());
        }
        self.stamps.push(NO_STAMP);
        let generation = NonZeroU32::MIN;
        TimerKey { index, generation }
    }

    /// Moves a timer to `when`, before its place: to be placed there under the mark instead.
    /// `None` if it is gone.
    pub(super) fn move_earlier(&mut self, key: TimerKey, when: Tick) -> Option<Mark> {
        let stamp = self.next_stamp();
        let timer = self.get_mut(key)?;
        timer.when = when;
        timer.placed = when;
        timer.stamp = stamp;
        self.stamps[key.index as usize] = stamp.get();
        let index = key.index;
        Some(Mark { index, stamp })
    }

    fn next_stamp(&mut self) -> NonZeroU32 {
        self.stamp = self.stamp.checked_add(1).unwrap_or(NonZeroU32::MIN);
        self.stamp
    }

    /// The timer that `key` names, unless it is gone.
    #[inline]
    pub(super) fn get(&self, key: TimerKey) -> Option<&Timer<V>> {
        let page = self.pages.get(key.index as usize / PAGE)?;
        let timer = page.slot(key.index).as_ref()?;
        (timer.generation == key.generation.get()).then_some(timer)
    }

    /// The timer that `key` names, unless it is gone, to change.
    #[inline]
    pub(super) fn get_mut(&mut self, key: TimerKey) -> Option<&mut Timer<V>> {
        let page = self.pages.get_mut(key.index as usize / PAGE)?;
        let timer = page.slot_mut(key.index).as_mut()?;
        (timer.generation == key.generation.get()).then_some(timer)
    }

    /// The timer whose live place is marked so.
    #[inline]
    pub(super) fn marked(&mut self, mark: Mark) -> Option<&mut Timer<V>> {
        let timer = self.slot_mut(mark.index).as_mut()?;
        (timer.stamp == mark.stamp).then_some(timer)
    }

    /// Whether a timer's live place is marked so, by the copies.
    #[inline]
    pub(super) fn is_live(&self, mark: Mark) -> bool {
        self.stamps[mark.index as usize] == mark.stamp.get()
    }

    /// Loads the timers marked so, none of the loads waiting for another.
    #[inline]
    pub(super) fn load(&self, marks: impl Iterator<Item = Mark>) {
        let mut vacant = 0;
        for mark in marks {
            let page = &self.pages[mark.index as usize / PAGE];
            vacant += usize::from(page.slot(mark.index).is_none());
        }
        std::hint::black_box(vacant);
    }

    /// Takes out a timer whose place stays behind.
    pub(super) fn cancel(&mut self, key: TimerKey) -> Option<V> {
        self.get(key)?;
        self.stamps[key.index as usize] = NO_STAMP;
        self.take(key.index)
    }

    /// Takes out the timer in slot `index`, which is then free under its next generation, or
    /// retired if that was the last.
    #[inline]
    pub(super) fn take(&mut self, index: u32) -> Option<V> {
        let timer = self.slot_mut(index).take()?;
        self.len -= 1;
        if let Some(generation) = NonZeroU32::new(timer.generation.wrapping_add(1)) {
            self.free.push(TimerKey { index, generation });
        }
        Some(timer.value)
    }
}

#[cfg(test)]
impl<V> Slab<V> {
    /// Makes the next stamp the one after `stamp`.
    pub(super) fn set_stamp(&mut self, stamp: u32) {
        self.stamp = NonZeroU32::new(stamp).expect("0 is no stamp");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_of_an_eight_byte_value_takes_half_a_cache_line() {
        assert_eq!(size_of::<Option<Timer<u64>>>(), 32);
        assert_eq!(size_of::<(Tick, Mark)>(), 16);
        assert_eq!(size_of::<Option<TimerKey>>(), 8);
    }

    #[test]
    fn a_slot_whose_generations_are_spent_is_never_used_again() {
        let mut slab = Slab::new();
        let (first, _) = slab.insert(Tick::ZERO, 'a');
        slab.cancel(first);
        slab.free[0].generation = NonZeroU32::MAX;
        let (last, _) = slab.insert(Tick::ZERO, 'b');
        assert_eq!((last.index, slab.cancel(last)), (first.index, Some('b')));
        let (other, _) = slab.insert(Tick::ZERO, 'c');
        assert_ne!(other.index, first.index);
        for key in [first, last] {
            assert!(slab.get(key).is_none() && slab.cancel(key).is_none());
        }
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn no_place_is_stamped_as_none() {
        let mut slab = Slab::new();
        slab.set_stamp(u32::MAX - 1);
        let stamps = [(); 3].map(|()| slab.insert(Tick::ZERO, ()).1.stamp.get());
        assert_eq!(stamps, [u32::MAX, 1, 2]);
    }

    #[test]
    fn a_key_of_another_slab_finds_nothing() {
        let mut full = Slab::new();
        let keys: Vec<_> = (0..1_000)
            .map(|value| full.insert(Tick::ZERO, value).0)
            .collect();
        let mut empty = Slab::<u64>::new();
        for key in keys {
            assert!(empty.get(key).is_none() && empty.get_mut(key).is_none());
            assert!(empty.cancel(key).is_none() && empty.move_earlier(key, Tick::ZERO).is_none());
        }
    }
}
