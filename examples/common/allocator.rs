//! The system's allocator. At each change it tells a function how many bytes more (or less) are held.
//!
//! The bytes are those that were asked for, without the allocator's own overhead.

use std::alloc::{GlobalAlloc, Layout, System};

/// Calls its function at each change, in the thread that makes it. The function must not
/// allocate, and must not use a thread-local that has a destructor.
pub struct Counting(pub fn(isize));

// SAFETY: every call goes to `System` with the caller's own arguments, so its contract is kept by
// passing it on. The function does not allocate.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        (self.0)(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        (self.0)(layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        (self.0)(size as isize - layout.size() as isize);
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        (self.0)(-(layout.size() as isize));
        unsafe { System.dealloc(block, layout) }
    }
}
