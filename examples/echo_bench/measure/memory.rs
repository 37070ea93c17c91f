//! How many bytes the server's side of this process holds.
//!
//! A thread of the loader's side calls `client_thread` once; every other thread is the server's. A block is counted
//! for the thread that asks for it and subtracted for the thread that frees it, which here is the same.

use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};

#[path = "../../common/allocator.rs"]
mod allocator;

#[global_allocator]
static COUNTING: allocator::Counting = allocator::Counting(count);

static SERVER_BYTES: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    // Const-initialised and without a destructor: reading it never allocates, and works until the thread's end.
    static CLIENT: Cell<bool> = const { Cell::new(false) };
}

/// From now on this thread's memory is the loader's.
pub fn client_thread() {
    CLIENT.set(true);
}

/// Bytes that the server's threads have asked for and not given back.
pub fn server_bytes() -> isize {
    SERVER_BYTES.load(Relaxed)
}

fn count(bytes: isize) {
    if !CLIENT.get() {
        SERVER_BYTES.fetch_add(bytes, Relaxed);
    }
}
