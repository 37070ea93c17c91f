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

    /// Keeps a block, unless it is a smaller one or there are enough.
    pub(super) fn give(&mut self, mut block: Vec<Place<K>>) {
        if block.capacity() >= BLOCK && self.0.len() < SPARE {
            block.clear();
            self.0.push(block);
        }
    }
}
