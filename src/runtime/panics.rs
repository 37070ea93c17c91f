//! Panics of the user's code, caught where they happen.
//!
//! A panic stays with the machine whose code it was. So the loop runs and drops each machine and each
//! job through here, and a machine wakes the waker of another one with [`wake_quietly`]. The waker that a
//! machine was polled with is woken without that: its panic is that machine's.

use std::any::Any;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::task::Waker;

/// What a panic was raised with. Dropping it never panics.
pub(crate) struct Payload(Option<Box<dyn Any + Send>>);

impl Payload {
    /// For `std::panic::resume_unwind`.
    pub(crate) fn into_inner(mut self) -> Box<dyn Any + Send> {
        self.0.take().expect("only a drop or this takes it")
    }

    /// The message, if the payload is text.
    pub(crate) fn message(&self) -> Option<&str> {
        let payload = self.0.as_deref()?;
        let text = payload.downcast_ref::<&str>().copied();
        text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        let payload = self.0.take();
        // A payload's destructor may panic, with a payload of its own. That one is leaked: the
        // chain has to end somewhere.
        if let Err(next) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            mem::forget(next);
        }
    }
}

/// Runs `f` and catches its panic.
pub(crate) fn catch<R>(f: impl FnOnce() -> R) -> Result<R, Payload> {
    panic::catch_unwind(AssertUnwindSafe(f)).map_err(|payload| Payload(Some(payload)))
}

/// Drops a value and returns the payload if that panicked.
pub(crate) fn drop_quietly<T>(value: T) -> Option<Payload> {
    catch(|| drop(value)).err()
}

/// Wakes a waker. If it panics, the panic is logged and goes no further: the waker is not the code
/// of the machine that happens to run.
pub(crate) fn wake_quietly(waker: Waker) {
    if catch(|| waker.wake()).is_err() {
        log::error!("a waker panicked");
    }
}
