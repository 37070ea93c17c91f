//! Places that never move: a slab that can be read while anything runs, and grows meanwhile.
//!
//! May touch: std. Mirrors Go's `allgs`, which only grows and keeps every `g` where it is
//! (`runtime/proc.go`).
//!
//! A machine runs while its place is referred to, and may spawn others. In a vector that would
//! take a borrow and a second lookup for every run; here the places lie in pieces that are made
//! once, each a quarter of all before it.

use std::cell::{Cell, OnceCell};

/// The number of a place says where it lies: the piece in the upper bits, then which of its places.
const OFFSET_BITS: u32 = 26;
const PIECES: usize = 1 << (u32::BITS - OFFSET_BITS);

/// Places in the first piece.
const FIRST: usize = 64;

/// All places there have ever been, each in use or waiting for its next owner.
pub(crate) struct Shelf<T> {
    pieces: [OnceCell<Box<[T]>>; PIECES],
    /// The piece that has places never used yet, how many are, and how many there are in those before.
    open: Cell<usize>,
    used: Cell<usize>,
    before: Cell<usize>,
}

impl<T: Default> Shelf<T> {
    pub(crate) const fn new() -> Self {
        Shelf {
            pieces: [const { OnceCell::new() }; PIECES],
            open: Cell::new(0),
            used: Cell::new(0),
            before: Cell::new(0),
        }
    }

    /// The place of this number, if it has ever been used.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        let piece = self.pieces[(number >> OFFSET_BITS) as usize].get()?;
        piece.get(number as usize & ((1 << OFFSET_BITS) - 1))
    }

    /// The number of a place that has never been used.
    pub(crate) fn next(&self) -> u32 {
        let mut open = self.open.get();
        let length = self.pieces[open].get().map_or(0, |piece| piece.len());
        if self.used.get() == length && length > 0 {
            self.before.set(self.before.get() + length);
            self.used.set(0);
            open += 1;
            self.open.set(open);
        }
        assert!(open < PIECES, "no room for another machine");
        self.pieces[open].get_or_init(|| {
            let length = FIRST.max(self.before.get() / 4);
            (0..length).map(|_| T::default()).collect()
        });
        let offset = self.used.get();
        self.used.set(offset + 1);
        (open as u32) << OFFSET_BITS | offset as u32
    }

    /// How many places have ever been used.
    pub(crate) fn len(&self) -> usize {
        self.before.get() + self.used.get()
    }

    /// All that have ever been used, with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let pieces = self.pieces.iter().map_while(OnceCell::get).enumerate();
        let all = pieces.flat_map(|(piece, places)| {
            let first = (piece as u32) << OFFSET_BITS;
            (first..).zip(places.iter())
        });
        all.take(self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_keep_their_numbers_and_their_addresses_while_the_shelf_grows() {
        let shelf = Shelf::<Cell<u32>>::new();
        let first = shelf.next();
        let address: *const _ = shelf.get(first).expect("it was just made");
        let numbers: Vec<u32> = (1..10_000).map(|_| shelf.next()).collect();
        for &number in &numbers {
            shelf.get(number).expect("as well").set(number);
        }
        assert!(std::ptr::eq(address, shelf.get(first).unwrap()));
        assert_eq!(shelf.len(), 10_000);
        let mut all = shelf.iter();
        assert_eq!(all.next().map(|(number, _)| number), Some(first));
        assert!(all.by_ref().all(|(number, place)| place.get() == number));
        assert_eq!(shelf.iter().count(), 10_000);
        assert!(shelf.get(u32::MAX).is_none());
    }

    #[test]
    fn a_grown_shelf_has_a_quarter_of_its_places_to_spare_at_most() {
        let shelf = Shelf::<u8>::new();
        (0..100_000).for_each(|_| _ = shelf.next());
        let made: usize = shelf
            .pieces
            .iter()
            .flat_map(OnceCell::get)
            .map(|piece| piece.len())
            .sum();
        assert!(made <= 100_000 / 4 * 5, "{made} places for 100,000");
    }
}
