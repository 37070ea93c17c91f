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

/// Names one timer of a [`Timers`](super::Timers), and never another: once a slot has used up
/// its generations, after four billion timers and moves to earlier ticks, it is retired.
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
    /// Tells the live place from those that this timer, or another in its slot, left behind:
    /// it counts the slot's places. It may wrap in the hands of one timer, which moves four
    /// billion times to earlier ticks: at worst a place left behind is then taken for the live
    /// one, and moves to where the timer is due instead of lapsing.
    pub(super) stamp: NonZeroU32,
}

/// A timer: the truth, and what of it the wheel knows.
pub(super) struct Timer<V> {
    /// When it fires.
    pub(super) when: Tick,
    /// Where its live place is: not after `when`.
    pub(super) placed: Tick,
    /// The stamp of that place. The first of a timer's is its generation.
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
    /// By slot, the last byte of the stamp of its timer's live place: copies, so that sweeping
    /// the wheel need not fetch the timers, which with millions would be all its cost, and small
    /// ones, which the cache has room for. Once the timer is canceled, of the stamp to come;
    /// once it has fired it does not matter, for the place is spent.
    tags: Vec<u8>,
    /// Not a list through the slots: following one waits for memory at every step.
    free: Vec<TimerKey>,
    /// How many slots are never given out again.
    retired: usize,
}

/// The byte of a stamp that the slab copies.
#[inline]
fn tag(stamp: NonZeroU32) -> u8 {
    stamp.get() as u8
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
            tags: Vec::new(),
            free: Vec::new(),
            retired: 0,
        }
    }

    /// How many timers there are.
    pub(super) fn len(&self) -> usize {
        self.tags.len() - self.free.len() - self.retired
    }

    /// A key to a slot that is vacant again, to [`fill`](Slab::fill).
    #[inline]
    pub(super) fn vacant(&mut self) -> Option<TimerKey> {
        self.free.pop()
    }

    /// Puts a timer into the slot that it has the key to, to be placed at `when` under the mark.
    #[inline]
    pub(super) fn fill(&mut self, key: TimerKey, when: Tick, value: V) -> Mark {
        let (index, stamp) = (key.index, key.generation);
        let timer = Timer {
            when,
            placed: when,
            stamp,
            generation: stamp.get(),
            value,
        };
        *self.slot_mut(index) = Some(timer);
        self.tags[index as usize] = tag(stamp);
        Mark { index, stamp }
    }

    #[inline]
    fn slot_mut(&mut self, index: u32) -> &mut Option<Timer<V>> {
        self.pages[index as usize / PAGE].slot_mut(index)
    }

    /// A key to a slot that was never used, to [`fill`](Slab::fill).
    pub(super) fn fresh(&mut self) -> TimerKey {
        let used = self.tags.len();
        let index = u32::try_from(used).expect("no more than 2^32 timers at a time");
        if used.is_multiple_of(PAGE) {
            self.pages.push(Page::new());
        }
        let generation = NonZeroU32::MIN;
        self.tags.push(tag(generation));
        TimerKey { index, generation }
    }

    /// Moves a timer to `when`, before its place: to be placed there under the mark instead.
    /// `None` if it is gone.
    pub(super) fn move_earlier(&mut self, key: TimerKey, when: Tick) -> Option<Mark> {
        let timer = self.get_mut(key)?;
        let stamp = timer.stamp.checked_add(1).unwrap_or(NonZeroU32::MIN);
        timer.when = when;
        timer.placed = when;
        timer.stamp = stamp;
        let index = key.index;
        self.tags[index as usize] = tag(stamp);
        Some(Mark { index, stamp })
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

    /// Whether a timer's live place may be marked so, by the copies: of a slot's places, one in
    /// 256 that is not live is taken for it.
    #[inline]
    pub(super) fn may_be_live(&self, mark: Mark) -> bool {
        self.tags[mark.index as usize] == tag(mark.stamp)
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
        let index = key.index;
        let page = self.pages.get_mut(index as usize / PAGE)?;
        let slot = page.slot_mut(index);
        if slot.as_ref()?.generation != key.generation.get() {
            return None;
        }
        let timer = slot.take()?;
        self.tags[index as usize] = tag(timer.stamp).wrapping_add(1);
        self.vacate(index, timer.stamp, timer.generation);
        Some(timer.value)
    }

    /// Takes out the timer in slot `index`, whose place is spent.
    #[inline]
    pub(super) fn take(&mut self, index: u32) -> Option<V> {
        let timer = self.slot_mut(index).take()?;
        self.vacate(index, timer.stamp, timer.generation);
        Some(timer.value)
    }

    /// A slot is free, under a generation later than any key or place that it ever had; or
    /// retired, if there is none.
    #[inline]
    fn vacate(&mut self, index: u32, stamp: NonZeroU32, generation: u32) {
        match stamp.checked_add(1) {
            Some(next) if next.get() > generation => self.free.push(TimerKey {
                index,
                generation: next,
            }),
            _ => self.retired += 1,
        }
    }
}

#[cfg(test)]
impl<V> Slab<V> {
    /// Adds a timer, as [`Timers`](super::super::Timers) does.
    fn insert(&mut self, when: Tick, value: V) -> (TimerKey, Mark) {
        let key = self.vacant().unwrap_or_else(|| self.fresh());
        (key, self.fill(key, when, value))
    }

    /// Gives the slot that is filled next another generation.
    pub(super) fn set_generation(&mut self, generation: u32) {
        let key = self.free.last_mut().expect("a slot is vacant");
        key.generation = NonZeroU32::new(generation).expect("0 is no generation");
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
        slab.set_generation(u32::MAX);
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
    fn a_slot_whose_stamps_wrapped_gives_out_no_key_twice() {
        for (first, moves, then) in [
            (5, 2, Some(8)),
            (u32::MAX - 1, 1, None),
            (u32::MAX - 1, 2, None),
            (u32::MAX - 1, 9, None),
        ] {
            let mut slab = Slab::new();
            let (key, _) = slab.insert(Tick::ZERO, ());
            slab.cancel(key);
            slab.set_generation(first);
            let (key, mut mark) = slab.insert(Tick::ZERO, ());
            for _ in 0..moves {
                let moved = slab.move_earlier(key, Tick::ZERO).unwrap();
                assert_ne!(moved.stamp, mark.stamp);
                assert!(slab.may_be_live(moved) && !slab.may_be_live(mark));
                mark = moved;
            }
            slab.cancel(key);
            assert_eq!(slab.vacant().map(|key| key.generation.get()), then);
            assert!(slab.marked(mark).is_none() && !slab.may_be_live(mark));
        }
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
