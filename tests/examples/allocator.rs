//! The most bytes that a thread held at once.

use std::cell::Cell;

#[path = "../../examples/common/allocator.rs"]
mod counting;

#[global_allocator]
static COUNTING: counting::Counting = counting::Counting(count);

thread_local! {
    // Const-initialised and without a destructor: reading them never allocates.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The most bytes that `f` held at once, and what it gave.
pub fn peak<T>(f: impl FnOnce() -> T) -> (usize, T) {
    let before = HELD.get();
    PEAK.set(before);
    let result = f();
    (PEAK.get().abs_diff(before), result)
}

fn count(bytes: isize) {
    HELD.set(HELD.get() + bytes);
    PEAK.set(PEAK.get().max(HELD.get()));
}
