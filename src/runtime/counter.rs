//! A counter that one thread writes and any thread reads.

use std::sync::atomic::Ordering;

use super::sync::AtomicU64;

/// Counts what happened. One thread writes, so that adding is a load and a store; the others see
/// the value a moment later.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn add(&self, more: u64) {
        self.0
            .store(self.get().wrapping_add(more), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn sub(&self, less: u64) {
        debug_assert!(self.get() >= less, "it counts what lives");
        self.0
            .store(self.get().wrapping_sub(less), Ordering::Relaxed);
    }
}
