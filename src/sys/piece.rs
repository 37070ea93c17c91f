//! A vector that never moves what it holds, so that it can be added to while that is referred to.
//!
//! May touch: nothing. Mirrors a block of Go's `persistentalloc`, which is never given back.

use std::cell::UnsafeCell;

/// Room for so many values. What has not been used of it costs no memory, where the system gives
/// that by the page.
pub(crate) struct Piece<T>(UnsafeCell<Vec<T>>);

impl<T> Piece<T> {
    pub(crate) fn with_room(most: usize) -> Self {
        Piece(UnsafeCell::new(Vec::with_capacity(most)))
    }

    /// Which place it has; `None` when all are taken.
    pub(crate) fn push(&self, value: T) -> Option<usize> {
        // SAFETY: nobody else has the vector: it is not `Sync`, and what `get` lends are its
        // values, which lie in its memory. That stays where it is, for it is never outgrown.
        let values = unsafe { &mut *self.0.get() };
        let at = values.len();
        if at == values.capacity() {
            return None;
        }
        values.push(value);
        Some(at)
    }

    #[inline]
    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        self.values().get(at)
    }

    pub(crate) fn values(&self) -> &[T] {
        // SAFETY: the values are never moved, dropped or lent as mutable while `self` lives: `push`
        // alone changes the vector, and adds behind them.
        unsafe { &*self.0.get() }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_is_referred_to_stays_while_more_is_pushed_and_no_more_than_there_is_room_for() {
        let piece = Piece::with_room(3);
        assert_eq!(piece.push(Cell::new(1)), Some(0));
        let first = piece.get(0).expect("it was just pushed");
        assert_eq!(piece.push(Cell::new(2)), Some(1));
        first.set(7);
        assert_eq!(piece.push(Cell::new(3)), Some(2));
        assert_eq!(piece.push(Cell::new(4)), None);
        assert!(piece.get(3).is_none());
        let all: Vec<i32> = piece.values().iter().map(Cell::get).collect();
        assert_eq!(all, [7, 2, 3]);
    }
}
