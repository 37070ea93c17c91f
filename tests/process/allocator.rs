//! The system's allocator, counted: what the whole process holds, and the most that it held.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

static HELD: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

/// Bytes of the heap in use.
pub fn held() -> isize {
    HELD.load(Relaxed)
}

/// The most that was in use since `reset_peak`.
pub fn peak() -> isize {
    PEAK.load(Relaxed)
}

pub fn reset_peak() {
    PEAK.store(held(), Relaxed);
}

fn count(bytes: isize) {
    let held = HELD.fetch_add(bytes, Relaxed) + bytes;
    if bytes > 0 {
        PEAK.fetch_max(held, Relaxed);
    }
}

// SAFETY: every call goes to `System` with the caller's own arguments, so its contract is kept by
// passing it on; counting touches two atomics and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(block, layout) }
    }
}

#[test]
fn what_is_held_is_counted_and_the_peak_stays() {
    super::child::in_child(|| {
        let before = held();
        reset_peak();
        let mut bytes = vec![0_u8; 1 << 20];
        bytes.reserve_exact(1 << 20);
        std::hint::black_box(&bytes);
        drop(bytes);
        assert!(held() - before < 1 << 10);
        assert!(peak() - before >= 2 << 20);
    });
}
