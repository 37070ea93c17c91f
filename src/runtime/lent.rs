//! The loop's own buffer, lent to one read after the other: who waits holds none.
//!
//! May touch: std. Go has no counterpart: there, every connection's goroutine holds its own.
//!
//! Ground rule: while a runtime is in a turn the buffer lies in a thread-local that needs no
//! destructor, for checking whether one has run would cost as much as the rest; the turn takes it
//! back when it ends.

use std::cell::Cell;
use std::mem::ManuallyDrop;

/// What one read takes at most: half of what a socket's receive buffer holds by default, and no
/// more than the caches like.
pub(crate) const LENGTH: usize = 64 * 1024;

pub(crate) type Buffer = Box<[u8; LENGTH]>;

thread_local! {
    static LENT: Cell<Option<ManuallyDrop<Buffer>>> = const { Cell::new(None) };
}

/// Takes the buffer, for a borrow would not do: a closure that reads again gets another.
#[inline]
pub(crate) fn take() -> Buffer {
    match LENT.take() {
        Some(buffer) => ManuallyDrop::into_inner(buffer),
        None => make(),
    }
}

#[cold]
fn make() -> Buffer {
    match vec![0; LENGTH].into_boxed_slice().try_into() {
        Ok(buffer) => buffer,
        Err(_) => unreachable!("it is of that length"),
    }
}

/// Gives it back, for the next read. One that comes back outside a turn is kept for the next one
/// on this thread.
#[inline]
pub(crate) fn give_back(buffer: Buffer) {
    if let Some(other) = LENT.replace(Some(ManuallyDrop::new(buffer))) {
        drop(ManuallyDrop::into_inner(other));
    }
}

/// Takes it out of the thread, at the end of a turn.
pub(crate) fn collect() -> Option<Buffer> {
    LENT.take().map(ManuallyDrop::into_inner)
}
