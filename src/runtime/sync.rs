//! What threads share: the types for it, a lock, and a counter.
//!
//! The mail of a runtime, permits, inboxes, orders and quotas are made of these. `tests/loom/` compiles
//! their files, and this one, with the types of loom in place of std's, and runs them through every order of
//! events that the memory model allows.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

pub(crate) use super::shared_types::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};
pub(crate) use super::shared_types::{Mutex, MutexGuard};

/// Locks a mutex, also after a thread panicked while it held it. No foreign code runs under a lock of this
/// crate, so the data is consistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts what happened. One thread writes, so that adding is a load and a store; the others see
/// the value a moment later.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, more: u64) {
        self.0
            .store(self.get().wrapping_add(more), Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, less: u64) {
        debug_assert!(self.get() >= less, "it counts what lives");
        self.0
            .store(self.get().wrapping_sub(less), Ordering::Relaxed);
    }
}
