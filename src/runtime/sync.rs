//! The types of the state that threads share: the mail of a runtime, permits, inboxes, orders, quotas.
//!
//! `tests/loom/` compiles those files with the types of loom in place of this module, and runs them
//! through every order of events that the memory model allows.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};
pub(crate) use std::sync::{Mutex, MutexGuard};

/// Locks a mutex, also after a thread panicked while it held it. No foreign code runs under a lock of this
/// crate, so the data is consistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
