//! A limit over all connections of a server, on whatever threads they are.

use std::sync::atomic::Ordering;

use crate::runtime::sync::AtomicUsize;

/// How much all connections may keep together.
#[derive(Debug)]
pub(crate) struct Quota {
    limit: usize,
    /// More than `limit` only through `charge_beyond`. Zero where the limit is `usize::MAX`: then
    /// nothing is counted.
    used: AtomicUsize,
}

impl Quota {
    pub(super) fn new(limit: usize) -> Self {
        Quota {
            limit,
            used: AtomicUsize::new(0),
        }
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.limit != usize::MAX
    }

    /// Charges all of the bytes, or none if they exceed the limit.
    pub(crate) fn charge(&self, bytes: usize) -> bool {
        let more = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        !self.is_limited()
            || self
                .used
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
                .is_ok()
    }

    /// Charges the bytes, beyond the limit if need be.
    pub(super) fn charge_beyond(&self, bytes: usize) {
        if self.is_limited() {
            self.used.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        if self.is_limited() {
            let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
            debug_assert!(before >= bytes, "more is given back than was charged");
        }
    }
}
