//! What a protocol writes just as it was offered: noted, not copied, and sent from where it lies.
//!
//! May touch: nothing. Go has no counterpart: there, a handler writes from its own buffer.

use std::cell::Cell;

/// Bytes that a protocol was offered and writes as they are, as an echo or a relay does: told by
/// where they lie, and sent from there.
///
/// | state | who moves it there | on to |
/// |---|---|---|
/// | Shut | `new`, `take` | Offered by `offer` |
/// | Offered | `offer`, before `data` is called | Noted by `note`; Shut by `shut`, when other bytes are written first |
/// | Noted | `note` | Shut by `take`, when `data` has returned |
#[derive(Default)]
pub(super) struct PassedOn {
    /// Where the bytes offered begin, zero if it is not Offered; and how many they are.
    offer: Cell<usize>,
    length: Cell<usize>,
    noted: Cell<bool>,
}

impl PassedOn {
    #[inline]
    pub(super) fn offer(&self, bytes: &[u8]) {
        self.offer.set(bytes.as_ptr().addr());
        self.length.set(bytes.len());
    }

    /// Whether the bytes are what is offered, all of it, and the first that are written.
    #[inline]
    pub(super) fn note(&self, bytes: &[u8]) -> bool {
        if bytes.as_ptr().addr() != self.offer.get() || bytes.len() != self.length.get() {
            return false;
        }
        self.offer.set(0);
        self.noted.set(true);
        true
    }

    pub(super) fn shut(&self) {
        self.offer.set(0);
    }

    /// Whether the offer, which is over, is to be passed on.
    #[inline]
    pub(super) fn take(&self) -> bool {
        self.offer.set(0);
        self.noted.replace(false)
    }

    /// How many bytes are noted.
    pub(super) fn len(&self) -> usize {
        match self.noted.get() {
            true => self.length.get(),
            false => 0,
        }
    }
}
