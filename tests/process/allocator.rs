//! What the whole process holds of the heap, and the most that it held.

use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};

#[path = "../../examples/common/allocator.rs"]
mod counting;

#[global_allocator]
static COUNTING: counting::Counting = counting::Counting(count);

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
