//! The thread's own buffer, lent to one read after the other: an idle connection holds none.

use std::cell::Cell;

/// What one read takes at most: half of what a socket's receive buffer holds by default, and small
/// enough for the caches.
pub(crate) const LENGTH: usize = 64 * 1024;

pub(crate) type Buffer = Box<[u8; LENGTH]>;

thread_local! {
    /// `None` before the first read, and while a read has it. It goes with the thread.
    static LENT: Cell<Option<Buffer>> = const { Cell::new(None) };
}

/// A read inside a read, and one at the end of the thread, gets a buffer of its own.
#[inline]
pub(crate) fn take() -> Buffer {
    let lent = LENT.try_with(Cell::take);
    lent.ok().flatten().unwrap_or_else(make)
}

#[cold]
fn make() -> Buffer {
    let bytes = vec![0; LENGTH].into_boxed_slice();
    bytes.try_into().expect("it is of that length")
}

#[inline]
pub(crate) fn give_back(buffer: Buffer) {
    let _ = LENT.try_with(|lent| lent.set(Some(buffer)));
}
