//! The system's allocator with a count: how many bytes the server's side of this process holds.
//!
//! A thread of the loader's side calls `client_thread` once; every other thread is the server's. Bytes are as
//! requested, without the allocator's own overhead. A block is counted for the thread that asks for it and subtracted
//! for the thread that frees it, which here is the same.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

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

// SAFETY: every call goes to `System` with the caller's own arguments, so its contract is kept by passing it on;
// counting touches an atomic and a thread-local that needs no set-up, and neither allocates.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size as isize - layout.size() as isize);
        unsafe { System.realloc(block, layout, new_size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(block, layout) }
    }
}
