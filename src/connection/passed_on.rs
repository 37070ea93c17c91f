//! What a callback has written so far, and what of that is just what it was offered: that is noted,
//! not copied, and sent from where it lies.
//!
//! May touch: nothing. Go has no counterpart: there, a handler writes from its own buffer.

use std::cell::Cell;

/// What a callback has written.
///
/// | state | who moves it there | on to |
/// |---|---|---|
/// | Nothing | `new`, `sent`, `take`, `set_gathered` | PassedOn by `note`; Gathered by `set_gathered` |
/// | PassedOn | `note` | Nothing by `sent` or `take`; Both by `set_gathered` |
/// | Gathered | `set_gathered`; `take` | Nothing by `set_gathered` |
/// | Both | `set_gathered` | Gathered by `take`; PassedOn by `set_gathered` |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Written {
    #[default]
    Nothing,
    /// The bytes that it was offered, as they are.
    PassedOn,
    /// Bytes that were copied.
    Gathered,
    /// First those, then these.
    Both,
}

/// Bytes that a protocol was offered and writes as they are, as an echo or a relay does: told by
/// where they lie, and sent from there.
#[derive(Default)]
pub(super) struct PassedOn {
    /// Where the bytes offered begin, and how many they are; zero if none are, or others have been
    /// written first.
    offer: Cell<usize>,
    length: Cell<usize>,
    written: Cell<Written>,
}

impl PassedOn {
    /// Before the protocol is called.
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
        self.written.set(Written::PassedOn);
        true
    }

    /// The offer is over.
    #[inline]
    pub(super) fn shut(&self) {
        self.offer.set(0);
    }

    #[inline]
    pub(super) fn written(&self) -> Written {
        self.written.get()
    }

    /// What was noted, and nothing besides, is on its way.
    #[inline]
    pub(super) fn sent(&self) {
        self.written.set(Written::Nothing);
    }

    /// Whether the offer, which is over, is to be passed on: by who asks.
    pub(super) fn take(&self) -> bool {
        self.offer.set(0);
        let (noted, left) = match self.written.get() {
            Written::PassedOn => (true, Written::Nothing),
            Written::Both => (true, Written::Gathered),
            other => (false, other),
        };
        self.written.set(left);
        noted
    }

    /// How many bytes are noted.
    pub(super) fn len(&self) -> usize {
        match self.written.get() {
            Written::PassedOn | Written::Both => self.length.get(),
            Written::Nothing | Written::Gathered => 0,
        }
    }

    /// Whether any bytes lie copied.
    pub(super) fn set_gathered(&self, any: bool) {
        self.written.set(match (self.len() > 0, any) {
            (false, false) => Written::Nothing,
            (false, true) => Written::Gathered,
            (true, false) => Written::PassedOn,
            (true, true) => Written::Both,
        });
    }
}
