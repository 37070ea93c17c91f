//! Telling the processor what will be looked at soon.
//!
//! May touch: nothing. Mirrors `Prefetch` in Go's `internal/runtime/sys/intrinsics.go`.

use std::ops::Range;

/// Where something lies, or lay: good for nothing but to have it brought closer.
#[derive(Clone, Copy)]
pub(crate) struct Whereabouts(*const u8);

/// What one load brings along.
const LINE: usize = 64;

impl Whereabouts {
    pub(crate) const NOWHERE: Whereabouts = Whereabouts(std::ptr::null());

    #[inline]
    pub(crate) fn of<T: ?Sized>(it: &T) -> Self {
        Whereabouts((&raw const *it).cast())
    }

    /// Has these bytes of it brought closer. Of what is gone nothing comes, nor of nowhere.
    #[inline]
    pub(crate) fn prefetch(self, bytes: Range<usize>) {
        let last = bytes.end.saturating_sub(1);
        for at in bytes.step_by(LINE).chain([last]) {
            prefetch(self.0.wrapping_add(at));
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint, for any address at all: it changes nothing that a program could see, and an
    // address that is none raises no fault.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

/// No hint that stable Rust has.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn prefetch(_at: *const u8) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_may_be_asked_for_even_what_is_not_there() {
        let gone = Whereabouts::of(&*Box::new([0u8; 300]));
        gone.prefetch(0..300);
        Whereabouts::NOWHERE.prefetch(24..104);
        Whereabouts::of(&()).prefetch(0..0);
        Whereabouts(usize::MAX as *const u8).prefetch(0..65);
    }
}
