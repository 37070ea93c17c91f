//! Places that never move: a slab that can be read while anything runs, and grows meanwhile.
//!
//! May touch: sys. Mirrors Go's `allgs`, which only grows and keeps every `g` where it is
//! (`runtime/proc.go`).
//!
//! A machine runs while its place is referred to, and may spawn others. In a vector that would
//! take a borrow and a second lookup for every run; here the places lie in pieces that are made
//! once, each a quarter of all before it.

use std::cell::{Cell, OnceCell};

use crate::sys::Piece;

/// The number of a place says where it lies: the piece in the upper bits, then which of its places.
const OFFSET_BITS: u32 = 26;
const PIECES: usize = 1 << (u32::BITS - OFFSET_BITS);

/// Places in the first piece.
const FIRST: usize = 64;

/// All places there have ever been, each in use or waiting for its next owner.
pub(crate) struct Shelf<T> {
    pieces: [OnceCell<Piece<T>>; PIECES],
    /// The piece that has places never used yet, and how many have been, in all pieces.
    open: Cell<usize>,
    used: Cell<usize>,
}

impl<T: Default> Shelf<T> {
    pub(crate) const fn new() -> Self {
        Shelf {
            pieces: [const { OnceCell::new() }; PIECES],
            open: Cell::new(0),
            used: Cell::new(0),
        }
    }

    /// The place of this number, if it has ever been used.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        let piece = self.pieces[(number >> OFFSET_BITS) as usize].get()?;
        piece.get(number as usize & ((1 << OFFSET_BITS) - 1))
    }

    /// The number of a place that has never been used.
    ///
    /// # Panics
    ///
    /// When there are a hundred million already.
    pub(crate) fn next(&self) -> u32 {
        let used = self.used.get();
        self.used.set(used + 1);
        loop {
            let open = self.open.get();
            let room = FIRST.max(used / 4);
            let piece = self.pieces[open].get_or_init(|| Piece::with_room(room));
            if let Some(offset) = piece.push(T::default()) {
                return (open as u32) << OFFSET_BITS | offset as u32;
            }
            self.open.set(open + 1);
        }
    }

    /// How many places have ever been used.
    pub(crate) fn len(&self) -> usize {
        self.used.get()
    }

    /// All that have ever been used, with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let pieces = self.pieces.iter().map_while(OnceCell::get).enumerate();
        pieces.flat_map(|(piece, places)| {
            let first = (piece as u32) << OFFSET_BITS;
            (first..).zip(places.values())
        })
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
}
