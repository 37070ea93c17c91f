//! The places of one slot: an array in blocks, appended to and taken from at its end.
//!
//! Touches [`Tick`] only. In blocks, because a slot may hold ten places or ten million: an array
//! that doubles copies itself and faults in fresh memory for each slot that fills, while blocks
//! go from the slot that drains to the one that fills. Go's runtime/time.go has one slice, its
//! heap.

use super::Tick;

/// A tick, and the key that its owner knows it by.
pub(super) type Place<K> = (Tick, K);

/// How many places a block has: 4 KiB of them when the key has 8 bytes.
const BLOCK: usize = 256;

/// How many places of room an empty slot keeps for the next time.
const KEPT: usize = 32;

/// How many empty blocks are kept for whoever needs one. Those above are given back.
const SPARE: usize = 64;

/// The places of one span of time, in no order.
pub(super) struct Slot<K> {
    /// Where places come and go. Doubles as any vector does, until it is a block.
    tail: Vec<Place<K>>,
    /// The blocks before it, each of them full.
    full: Vec<Vec<Place<K>>>,
    /// No place is earlier; [`Tick::MAX`] if there is none.
    pub(super) earliest: Tick,
}

/// Empty blocks, which any slot may take.
pub(super) struct Spare<K>(Vec<Vec<Place<K>>>);

impl<K: Copy> Slot<K> {
    pub(super) fn new() -> Self {
        Slot {
            tail: Vec::new(),
            full: Vec::new(),
            earliest: Tick::MAX,
        }
    }

    /// Whether a place may be pushed.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.tail.len() != self.tail.capacity() && self.tail.len() != BLOCK
    }

    /// Makes room, where there is none.
    #[cold]
    #[inline(never)]
    pub(super) fn make_room(&mut self, spare: &mut Spare<K>) {
        if self.tail.len() == BLOCK {
            let block = std::mem::replace(&mut self.tail, spare.take());
            self.full.push(block);
        } else {
            self.tail.reserve(1);
        }
    }

    /// Adds a place that counts as due at `tick`, where there is room.
    #[inline]
    pub(super) fn push(&mut self, tick: Tick, place: Place<K>) {
        debug_assert!(self.has_room());
        self.tail.push(place);
        self.earliest = self.earliest.min(tick);
    }

    /// The last places, to take from; empty only if the slot is.
    #[inline]
    pub(super) fn tail(&mut self, spare: &mut Spare<K>) -> &mut Vec<Place<K>> {
        if self.tail.is_empty()
            && let Some(block) = self.full.pop()
        {
            spare.give(std::mem::replace(&mut self.tail, block));
        }
        &mut self.tail
    }

    /// Drops the places that are not to be kept, and says how many. What stays counts as due at
    /// `elapsed` or later.
    #[inline]
    pub(super) fn retain(
        &mut self,
        elapsed: Tick,
        mut keep: impl FnMut(&Place<K>) -> bool,
        spare: &mut Spare<K>,
    ) -> usize {
        let (mut gone, mut earliest) = (0, Tick::MAX);
        for block in self.full.iter_mut().chain([&mut self.tail]) {
            let mut kept = 0;
            // Each is written where the next to be kept belongs, kept or not: a branch here
            // would be guessed wrong for every other place.
            for asked in 0..block.len() {
                let place = block[asked];
                let keeping = keep(&place);
                block[kept] = place;
                kept += usize::from(keeping);
                earliest = earliest.min(if keeping { place.0 } else { Tick::MAX });
            }
            gone += block.len() - kept;
            block.truncate(kept);
        }
        self.earliest = earliest.max(elapsed);
        self.join(spare);
        gone
    }

    /// Makes full blocks again of those that places were dropped from.
    fn join(&mut self, spare: &mut Spare<K>) {
        let last = std::mem::take(&mut self.tail);
        for mut block in std::mem::take(&mut self.full).into_iter().chain([last]) {
            if self.tail.is_empty() {
                std::mem::swap(&mut self.tail, &mut block);
            }
            let room = BLOCK - self.tail.len();
            let moving = block.len().min(room);
            self.tail.extend(block.drain(block.len() - moving..));
            if block.is_empty() {
                spare.give(block);
            } else {
                self.full.push(std::mem::replace(&mut self.tail, block));
            }
        }
    }

    /// Once it is empty: keeps a little room, and gives back the rest.
    pub(super) fn settle(&mut self, spare: &mut Spare<K>) {
        if self.tail.capacity() > KEPT {
            spare.give(std::mem::take(&mut self.tail));
        }
        self.full = Vec::new();
        self.earliest = Tick::MAX;
    }
}

impl<K: Copy> Spare<K> {
    pub(super) fn new() -> Self {
        Spare(Vec::new())
    }

    /// An empty block.
    fn take(&mut self) -> Vec<Place<K>> {
        self.0.pop().unwrap_or_else(|| Vec::with_capacity(BLOCK))
    }

    /// Keeps an empty block, unless it is a smaller one or there are enough.
    pub(super) fn give(&mut self, block: Vec<Place<K>>) {
        debug_assert!(block.is_empty());
        if block.capacity() >= BLOCK && self.0.len() < SPARE {
            self.0.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(places: usize, spare: &mut Spare<u64>) -> Slot<u64> {
        let mut slot = Slot::new();
        for count in 0..places as u64 {
            let tick = Tick::new(1_000_000 - count);
            if !slot.has_room() {
                slot.make_room(spare);
            }
            slot.push(tick, (tick, count));
        }
        slot
    }

    #[test]
    fn a_slot_gives_back_the_places_it_was_given_and_its_memory() {
        for places in [0, 1, KEPT, BLOCK - 1, BLOCK, BLOCK + 1, 100 * BLOCK] {
            let mut spare = Spare::new();
            let mut slot = filled(places, &mut spare);
            if places > 0 {
                assert_eq!(slot.earliest, Tick::new(1_000_001 - places as u64));
            }
            let mut keys = Vec::new();
            while let Some((_, key)) = slot.tail(&mut spare).pop() {
                keys.push(key);
            }
            keys.sort_unstable();
            assert!(keys.into_iter().eq(0..places as u64));
            slot.settle(&mut spare);
            assert_eq!(slot.earliest, Tick::MAX);
            assert!(slot.tail.capacity() <= KEPT && slot.full.capacity() == 0);
            assert!(spare.0.len() <= SPARE);
        }
    }

    #[test]
    fn blocks_that_were_thinned_out_are_joined() {
        for each in [0, 1, 2, 100, 128, 200, BLOCK] {
            let mut spare = Spare::new();
            let mut slot = filled(20 * BLOCK + 1, &mut spare);
            let kept = |key: u64| key as usize % BLOCK < each;
            let gone = slot.retain(Tick::new(7), |&(_, key)| kept(key), &mut spare);
            assert_eq!(
                gone,
                (0..=20 * BLOCK as u64).filter(|&key| !kept(key)).count()
            );
            assert!(slot.full.iter().all(|block| block.len() == BLOCK));
            let places = slot.full.iter().flatten().chain(&slot.tail);
            let mut keys: Vec<_> = places.map(|&(_, key)| key).collect();
            keys.sort_unstable();
            assert!(
                keys.into_iter()
                    .eq((0..=20 * BLOCK as u64).filter(|&key| kept(key)))
            );
        }
    }

    #[test]
    fn what_is_kept_says_when_it_is_due() {
        let mut spare = Spare::new();
        let mut slot = filled(1_000, &mut spare);
        slot.retain(Tick::new(7), |&(_, key)| key < 500, &mut spare);
        assert_eq!(slot.earliest, Tick::new(1_000_000 - 499));
        slot.retain(Tick::new(2_000_000), |_| true, &mut spare);
        assert_eq!(slot.earliest, Tick::new(2_000_000));
    }
}
