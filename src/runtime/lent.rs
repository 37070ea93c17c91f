//! The loop's own buffer, lent to one read after the other: an idle connection holds none.
//!
//! | state | meaning | moved there by | on to |
//! |---|---|---|---|
//! | Empty | the buffer is lent, or there was none yet | the thread's beginning; `take` | Full by `give_back` |
//! | Full | the buffer is here | `give_back` | Empty by `take`, and by `free` when a runtime or the thread ends |
//!
//! The thread-local has no destructor, since the check for one doubles the cost of an access. Another has
//! one, and is touched only when a buffer is made.

use std::cell::Cell;
use std::mem::ManuallyDrop;

/// What one read takes at most: half of what a socket's receive buffer holds by default, and small
/// enough for the caches.
pub(crate) const LENGTH: usize = 64 * 1024;

pub(crate) type Buffer = Box<[u8; LENGTH]>;

thread_local! {
    /// `None` when Empty.
    static LENT: Cell<Option<ManuallyDrop<Buffer>>> = const { Cell::new(None) };

    static AT_THE_END: AtTheEnd = const { AtTheEnd };
}

/// Frees the thread's buffer when the thread ends.
struct AtTheEnd;

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        free();
    }
}

/// Frees the thread's buffer: a runtime is dropped. If there is another, its next read makes a new one.
pub(super) fn free() {
    drop(LENT.take().map(ManuallyDrop::into_inner));
}

/// Takes the buffer out, so that a closure which reads again gets another.
pub(crate) fn take() -> Buffer {
    LENT.take().map_or_else(make, ManuallyDrop::into_inner)
}

#[cold]
fn make() -> Buffer {
    // Fails only in a destructor that reads while the thread ends: then one buffer is not freed.
    let _ = AT_THE_END.try_with(|_| ());
    let buffer = vec![0; LENGTH].into_boxed_slice();
    buffer.try_into().expect("it is of that length")
}

/// Gives it back, for the next read.
pub(crate) fn give_back(buffer: Buffer) {
    // There is another if a closure has read again.
    let other = LENT.replace(Some(ManuallyDrop::new(buffer)));
    drop(other.map(ManuallyDrop::into_inner));
}

/// Reads into the buffer. After an error the buffer is given back; otherwise the caller gives it back.
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
