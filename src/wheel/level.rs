//! One ring of the wheel: 64 slots, a bitmap of those in use, and the sums that find a tick's.
//!
//! Touches [`Tick`] and [`Slot`] only. With the slots, stands where Go's runtime/time.go has a
//! 4-ary heap (`siftUp`): a heap compares its way through memory, a ring is indexed.

use super::Tick;
use super::slot::{Place, Slot, Spare};

/// How many bits of a tick one level reads.
const BITS: u32 = 6;

/// How many slots a level has: one for each value of its bits.
const SLOTS: usize = 1 << BITS;

/// How many levels tell all ticks apart; the last has only four bits left to read.
pub(super) const LEVELS: usize = u64::BITS.div_ceil(BITS) as usize;

/// One ring of slots. A slot of level `n` spans `64^n` ticks.
pub(super) struct Level<K> {
    /// Bit `i` is set while slot `i` holds anything.
    occupied: u64,
    slots: [Slot<K>; SLOTS],
}

/// Which level tells `tick` from `elapsed`: the one that reads the highest bit they differ in.
#[inline]
pub(super) fn level_of(elapsed: Tick, tick: Tick) -> usize {
    let differing = elapsed.get() ^ tick.get();
    // The same tick is level 0's too.
    ((differing | 1).ilog2() / BITS) as usize
}

/// Which slot of `level` spans `tick`.
#[inline]
pub(super) fn slot_of(level: usize, tick: Tick) -> usize {
    (tick.get() >> (level as u32 * BITS)) as usize % SLOTS
}

impl<K: Copy> Level<K> {
    pub(super) fn new() -> Self {
        Level {
            occupied: 0,
            slots: std::array::from_fn(|_| Slot::new()),
        }
    }

    /// The earliest place of this level, and the slot where it lies.
    #[inline]
    pub(super) fn first(&self) -> Option<(Tick, usize)> {
        if self.occupied == 0 {
            return None;
        }
        let slot = self.occupied.trailing_zeros() as usize;
        Some((self.slots[slot].earliest, slot))
    }

    /// The slots in use now.
    pub(super) fn in_use(&self) -> impl Iterator<Item = usize> + use<K> {
        let occupied = self.occupied;
        (0..SLOTS).filter(move |slot| occupied >> slot & 1 == 1)
    }

    /// Whether there is room in `slot` to [`push`](Level::push) to.
    #[inline]
    pub(super) fn has_room(&self, slot: usize) -> bool {
        self.slots[slot].has_room()
    }

    /// Makes room in `slot` if there is none.
    #[inline]
    pub(super) fn make_room(&mut self, slot: usize, spare: &mut Spare<K>) {
        if !self.slots[slot].has_room() {
            self.slots[slot].make_room(spare);
        }
    }

    /// Adds a place that counts as due at `tick`, where there is room.
    #[inline]
    pub(super) fn push(&mut self, slot: usize, tick: Tick, place: Place<K>) {
        // Stores that change nothing stand in the queue with those that do.
        if self.occupied >> slot & 1 == 0 {
            self.occupied |= 1 << slot;
        }
        self.slots[slot].push(tick, place);
    }

    /// The last places of `slot`, to take from; empty only if the slot is: then
    /// [`settle`](Level::settle) it.
    #[inline]
    pub(super) fn tail(&mut self, slot: usize, spare: &mut Spare<K>) -> &mut Vec<Place<K>> {
        self.slots[slot].tail(spare)
    }

    /// Marks `slot` empty, when everything was taken from it.
    pub(super) fn settle(&mut self, slot: usize, spare: &mut Spare<K>) {
        self.occupied &= !(1 << slot);
        self.slots[slot].settle(spare);
    }

    /// Drops the places of `slot` that are not to be kept, and says how many. What stays counts
    /// as due at `elapsed` or later.
    #[inline]
    pub(super) fn retain(
        &mut self,
        slot: usize,
        elapsed: Tick,
        keep: impl FnMut(&Place<K>) -> bool,
        spare: &mut Spare<K>,
    ) -> usize {
        let gone = self.slots[slot].retain(elapsed, keep, spare);
        if self.slots[slot].tail(spare).is_empty() {
            self.settle(slot, spare);
        }
        gone
    }
}
