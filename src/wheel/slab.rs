//! Where timers live: slots in pages that never move, named by keys that never come again.
//!
//! Touches [`Tick`] only. Go allocates each `timer` apart (runtime/time.go) and lets the
//! collector see to stale references; here a key's generation does.

use std::num::NonZeroU32;

use super::Tick;

/// How many slots a page has.
const PAGE: usize = 256;

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

/// A timer: the truth, and what of it the wheel knows.
pub(super) struct Timer<V> {
    /// When it fires.
    pub(super) when: Tick,
    /// Where its live place is: not after `when`.
    pub(super) placed: Tick,
    /// The stamp of its live place.
    pub(super) stamp: u32,
    generation: NonZeroU32,
    pub(super) value: V,
}

/// Aligned, so that a timer of 32 bytes is never in two cache lines.
#[repr(align(64))]
struct Page<V>([Option<Timer<V>>; PAGE]);

/// Timers by index, the vacant slots under the keys they are given out with next.
pub(super) struct Slab<V> {
    pages: Vec<Box<Page<V>>>,
    /// Beside the slots, not in them: to read the next free one there would be to wait for it.
    free: Vec<TimerKey>,
    /// How many slots were ever used.
    used: usize,
    /// How many are.
    len: usize,
}

impl TimerKey {
    pub(super) fn index(self) -> u32 {
        self.index
    }
}

impl<V> Slab<V> {
    pub(super) fn new() -> Self {
        Slab {
            pages: Vec::new(),
            free: Vec::new(),
            used: 0,
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a timer whose place has `stamp`.
    pub(super) fn insert(&mut self, when: Tick, stamp: u32, value: V) -> TimerKey {
        let key = self.free.pop().unwrap_or_else(|| self.fresh());
        let generation = key.generation;
        let timer = Timer {
            when,
            placed: when,
            stamp,
            generation,
            value,
        };
        self.pages[key.index as usize / PAGE].0[key.index as usize % PAGE] = Some(timer);
        self.len += 1;
        key
    }

    /// A key to a slot that was never used.
    fn fresh(&mut self) -> TimerKey {
        let index = u32::try_from(self.used).expect("no more than 2^32 timers at a time");
        if self.used.is_multiple_of(PAGE) {
            self.pages.push(Box::new(Page([const { None }; PAGE])));
        }
        self.used += 1;
        TimerKey {
            index,
            generation: NonZeroU32::MIN,
        }
    }

    /// The timer in slot `index`, if there is one.
    #[inline]
    pub(super) fn at(&self, index: u32) -> Option<&Timer<V>> {
        let page = self.pages.get(index as usize / PAGE)?;
        page.0[index as usize % PAGE].as_ref()
    }

    /// The timer in slot `index`, if there is one, to change.
    #[inline]
    pub(super) fn at_mut(&mut self, index: u32) -> Option<&mut Timer<V>> {
        let page = self.pages.get_mut(index as usize / PAGE)?;
        page.0[index as usize % PAGE].as_mut()
    }

    /// The timer that `key` names, unless it is gone.
    #[inline]
    pub(super) fn get(&self, key: TimerKey) -> Option<&Timer<V>> {
        self.at(key.index)
            .filter(|timer| timer.generation == key.generation)
    }

    /// The timer that `key` names, unless it is gone, to change.
    #[inline]
    pub(super) fn get_mut(&mut self, key: TimerKey) -> Option<&mut Timer<V>> {
        self.at_mut(key.index)
            .filter(|timer| timer.generation == key.generation)
    }

    /// Takes the timer out of slot `index`, which is then free under its next generation, or
    /// retired if that was the last.
    #[inline]
    pub(super) fn take(&mut self, index: u32) -> Option<V> {
        let page = self.pages.get_mut(index as usize / PAGE)?;
        let timer = page.0[index as usize % PAGE].take()?;
        self.len -= 1;
        if let Some(generation) = timer.generation.checked_add(1) {
            self.free.push(TimerKey { index, generation });
        }
        Some(timer.value)
    }
}
