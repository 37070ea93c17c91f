//! Appending to a vector without asking each time whether there is room.
//!
//! May touch: nothing. Mirrors the `gList` that Go's `netpoll` fills, which links what is there.

use std::mem::MaybeUninit;
use std::slice;

/// Room for so many values at the end of a vector.
pub(crate) struct Places<'a, T>(slice::IterMut<'a, MaybeUninit<T>>);

impl<T> Places<'_, T> {
    /// # Panics
    ///
    /// When all places are taken.
    #[inline]
    pub(crate) fn put(&mut self, value: T) {
        match self.0.next() {
            Some(place) => place.write(value),
            None => full(),
        };
    }
}

#[cold]
#[inline(never)]
fn full() -> ! {
    panic!("more came than there was room for");
}

/// Appends what `fill` puts into up to `most` places, of which it gives back those it has left.
#[inline]
pub(crate) fn append<T>(
    vec: &mut Vec<T>,
    most: usize,
    fill: impl for<'a> FnOnce(Places<'a, T>) -> Places<'a, T>,
) {
    vec.reserve(most);
    let room = &mut vec.spare_capacity_mut()[..most];
    let left = fill(Places(room.iter_mut())).0.len();
    let length = vec.len() + (most - left);
    // SAFETY: there are `most` places behind the vector's length; those that are not left over were
    // taken one after the other, by `put`, which fills what it takes. The lifetime, which the
    // callers can't choose, sees to it that it is these very places that come back.
    unsafe { vec.set_len(length) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_appended_and_what_is_left_is_not() {
        let mut vec = vec![String::from("first")];
        append(&mut vec, 3, |mut places| {
            places.put(String::from("second"));
            places.put(String::from("third"));
            places
        });
        assert_eq!(vec, ["first", "second", "third"]);
    }

    #[test]
    #[should_panic(expected = "more came than there was room for")]
    fn putting_more_than_there_is_room_for_is_refused() {
        append(&mut Vec::with_capacity(100), 1, |mut places| {
            places.put(1);
            places.put(2);
            places
        });
    }
}
