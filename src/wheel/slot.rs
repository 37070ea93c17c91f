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

    /// Adds a place that counts as due at `tick`.
    #[inline]
    pub(super) fn push(&mut self, tick: Tick, place: Place<K>, spare: &mut Spare<K>) {
        if self.tail.len() == BLOCK {
            self.start_block(spare);
        }
        self.tail.push(place);
        self.earliest = self.earliest.min(tick);
    }

    /// Adds what is left of a block, none of it due before `earliest`.
    pub(super) fn append(
        &mut self,
        earliest: Tick,
        mut block: Vec<Place<K>>,
        spare: &mut Spare<K>,
    ) {
        let room = BLOCK - self.tail.len();
        if self.tail.is_empty() {
            std::mem::swap(&mut self.tail, &mut block);
        } else {
            self.tail
                .extend(block.drain(block.len().saturating_sub(room)..));
        }
        if block.is_empty() {
            spare.give(block);
        } else {
            self.full.push(std::mem::replace(&mut self.tail, block));
        }
        self.earliest = self.earliest.min(earliest);
    }

    #[cold]
    fn start_block(&mut self, spare: &mut Spare<K>) {
        let block = std::mem::replace(&mut self.tail, spare.take());
        self.full.push(block);
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

    /// Takes everything out, block by block.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Vec<Place<K>>> + use<K> {
        let Slot { tail, full, .. } = std::mem::replace(self, Slot::new());
        full.into_iter().chain([tail])
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
            slot.push(tick, (tick, count), spare);
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
        let mut spare = Spare::new();
        for each in [1, 2, 100, 128, 200, BLOCK] {
            let mut slot = filled(20 * BLOCK, &mut spare);
            for mut block in slot.take() {
                block.truncate(each);
                if !block.is_empty() {
                    slot.append(Tick::new(7), block, &mut spare);
                }
            }
            assert!(slot.full.iter().all(|block| block.len() == BLOCK));
            let places = slot.full.len() * BLOCK + slot.tail.len();
            assert_eq!((places, slot.earliest), (20 * each, Tick::new(7)));
        }
    }
}
