//! One ring of the wheel: 64 slots, a bitmap of those in use, and the sum that finds a place's ring.
//!
//! Touches [`Tick`] only. Stands where Go's runtime/time.go has a 4-ary heap (`siftUpTimer`):
//! a heap walks memory on every insert, a slot is an array that is appended to and read in order.

use super::Tick;

/// How many bits of a tick one level tells apart.
const BITS: u32 = 6;

/// How many slots a level has: one for each value of its bits.
const SLOTS: usize = 1 << BITS;

/// How many levels tell all ticks apart: the last has only four bits left to read.
pub(super) const LEVELS: usize = u64::BITS.div_ceil(BITS) as usize;

/// The buffer an empty slot may keep for the next time, in places. A larger one is given back.
const KEPT: usize = 256;

/// One ring of slots. A slot of level `n` spans `64^n` ticks.
pub(super) struct Level<K> {
    /// Bit `i` is set while slot `i` holds anything.
    occupied: u64,
    slots: [Slot<K>; SLOTS],
}

/// The places of one span of time, in no order.
pub(super) struct Slot<K> {
    pub(super) places: Vec<(Tick, K)>,
    /// The earliest of `places`, so that nobody has to search them.
    pub(super) earliest: Tick,
}

/// Which level tells `tick` from `elapsed`: the one that reads the highest bit they differ in.
pub(super) fn level_of(elapsed: Tick, tick: Tick) -> usize {
    let differing = elapsed.get() ^ tick.get();
    // Level 0 holds whatever differs in its bits, or not at all.
    ((differing | 1).ilog2() / BITS) as usize
}

/// Which slot of `level` spans `tick`.
pub(super) fn slot_of(level: usize, tick: Tick) -> usize {
    (tick.get() >> (level as u32 * BITS)) as usize % SLOTS
}

/// Appends a place to the slot where it belongs while the time is `elapsed`; that level must exist.
/// A tick that has passed counts as `elapsed`.
#[inline]
pub(super) fn put<K>(levels: &mut [Level<K>], elapsed: Tick, when: Tick, key: K) {
    let tick = when.max(elapsed);
    let level = level_of(elapsed, tick);
    let slot = slot_of(level, tick);
    let level = &mut levels[level];
    level.occupied |= 1 << slot;
    let slot = &mut level.slots[slot];
    slot.earliest = slot.earliest.min(tick);
    slot.places.push((when, key));
}

impl<K> Level<K> {
    pub(super) fn new() -> Self {
        let empty = |_| Slot {
            places: Vec::new(),
            earliest: Tick::MAX,
        };
        Level {
            occupied: 0,
            slots: std::array::from_fn(empty),
        }
    }

    /// The first slot in use and the earliest tick in it.
    pub(super) fn first(&self) -> Option<(Tick, usize)> {
        if self.occupied == 0 {
            return None;
        }
        let slot = self.occupied.trailing_zeros() as usize;
        Some((self.slots[slot].earliest, slot))
    }

    /// The slots in use, first to last.
    pub(super) fn in_use(&self) -> impl Iterator<Item = usize> + use<K> {
        let occupied = self.occupied;
        (0..SLOTS).filter(move |slot| occupied >> slot & 1 == 1)
    }

    pub(super) fn slot(&mut self, slot: usize) -> &mut Slot<K> {
        &mut self.slots[slot]
    }

    /// Tidies a slot that places were taken from: an empty one is marked so, and a buffer
    /// far too large for what is left in it is given back.
    pub(super) fn settle(&mut self, slot: usize) {
        let Slot { places, earliest } = &mut self.slots[slot];
        if places.is_empty() {
            self.occupied &= !(1 << slot);
            *earliest = Tick::MAX;
        }
        if places.capacity() > KEPT.max(4 * places.len()) {
            places.shrink_to(2 * places.len());
        }
    }
}
