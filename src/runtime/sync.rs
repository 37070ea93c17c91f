//! What threads share is made of these types: the mail of a runtime, permits, inboxes, orders, quotas.
//!
//! `tests/loom/` compiles those files with the types of loom in place of this module, and runs them
//! through every order of events that the memory model allows.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};
pub(crate) use std::sync::{Mutex, MutexGuard};

/// Locks, though another thread panicked with the lock: no code of others runs under those of this
/// crate, so that what they guard is whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
