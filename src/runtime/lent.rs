//! The loop's own buffer, lent to one read after the other: an idle connection holds none.
//!
//! | state | meaning | moved there by | on to |
//! |---|---|---|---|
//! | Closed | no runtime is entered on this thread | `close` | Empty or Full by `open` |
//! | Empty | a runtime is entered, and no buffer is here | `open`, the first time; `take` | Full by `give_back`; Closed by `close` |
//! | Full | the buffer is here | `open`; `give_back` | Empty by `take`; Closed by `close` |
//!
//! The thread-local has no destructor, since the check for one doubles the cost of an access. So
//! its owner must empty it: a runtime puts the buffer in when it is entered, for one turn or for all turns
//! of a `block_on`, and takes it out when it is left. In Closed, each read makes a buffer of its own and
//! drops it.

use std::cell::Cell;
use std::mem::ManuallyDrop;

use super::context;

/// What one read takes at most: half of what a socket's receive buffer holds by default, and small
/// enough for the caches.
pub(crate) const LENGTH: usize = 64 * 1024;

pub(crate) type Buffer = Box<[u8; LENGTH]>;

thread_local! {
    /// `None` when Empty or Closed.
    static LENT: Cell<Option<ManuallyDrop<Buffer>>> = const { Cell::new(None) };
}

/// Takes the buffer out, so that a closure which reads again gets another.
#[inline]
pub(crate) fn take() -> Buffer {
    LENT.take().map_or_else(make, ManuallyDrop::into_inner)
}

#[cold]
fn make() -> Buffer {
    let buffer = vec![0; LENGTH].into_boxed_slice();
    buffer.try_into().expect("it is of that length")
}

/// Gives it back, for the next read.
#[inline]
pub(crate) fn give_back(buffer: Buffer) {
    if context::is_inside()
        && let Some(other) = LENT.replace(Some(ManuallyDrop::new(buffer)))
    {
        drop(ManuallyDrop::into_inner(other));
    }
}

/// Reads into the buffer. After an error the buffer is given back; otherwise the caller gives it back.
#[inline]
pub(crate) fn fill<E>(
    read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
) -> Result<(Buffer, usize), E> {
    let mut buffer = take();
    match read(&mut buffer[..]) {
        Ok(got) => Ok((buffer, got)),
        Err(error) => {
            give_back(buffer);
            Err(error)
        }
    }
}

/// A runtime is entered, with the buffer that it took out when it was left.
pub(super) fn open(buffer: Option<Buffer>) {
    debug_assert!(!context::is_inside(), "the outermost turn opens it");
    LENT.set(buffer.map(ManuallyDrop::new));
}

/// A runtime is left, and nothing stays in the thread.
pub(super) fn close() -> Option<Buffer> {
    debug_assert!(!context::is_inside(), "the outermost turn has ended");
    LENT.take().map(ManuallyDrop::into_inner)
}
