//! What a callback has written so far, and what of that is just what it was offered: that is noted,
//! not copied, and sent from where it lies.
//!
//! May touch: nothing. Go has no counterpart: there, a handler writes from its own buffer.

use std::cell::Cell;

/// What a callback has written.
///
/// | state | who moves it there | on to |
/// |---|---|---|
/// | Nothing | at first; `sent`, `take`, `set_gathered` | PassedOn by `note`; Gathered by `set_gathered` |
/// | PassedOn | `note` | Nothing by `sent` or `take`; Both by `set_gathered` |
/// | Gathered | `set_gathered`; `take` | Nothing by `set_gathered` |
/// | Both | `set_gathered` | Gathered by `take`; PassedOn by `set_gathered` |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Nothing,
    /// The bytes that it was offered, as they are.
    PassedOn,
    /// Bytes that were copied.
    Gathered,
    /// First those, then these.
    Both,
}

thread_local! {
    /// Of the one callback that runs on this thread: found without asking a connection for its
    /// worker.
    static CALLBACK: Callback = const { Callback::new() };
}

/// Bytes that a protocol was offered and writes as they are, as an echo or a relay does: told by
/// where they lie, and sent from there.
struct Callback {
    /// Where the bytes offered begin, and how many they are; zero if none are, or others have been
    /// written first.
    offer: Cell<usize>,
    length: Cell<usize>,
    written: Cell<Written>,
}

impl Callback {
    const fn new() -> Self {
        Callback {
            offer: Cell::new(0),
            length: Cell::new(0),
            written: Cell::new(Written::Nothing),
        }
    }

    fn noted(&self) -> usize {
        match self.written.get() {
            Written::PassedOn | Written::Both => self.length.get(),
            Written::Nothing | Written::Gathered => 0,
        }
    }
}

/// Before the protocol is called.
#[inline]
pub(crate) fn offer(bytes: &[u8]) {
    CALLBACK.with(|callback| {
        callback.offer.set(bytes.as_ptr().addr());
        callback.length.set(bytes.len());
    });
}

/// Whether the bytes are what is offered, all of it, and the first that are written.
#[inline]
pub(crate) fn note(bytes: &[u8]) -> bool {
    CALLBACK.with(|callback| {
        let at = bytes.as_ptr().addr();
        if at != callback.offer.get() || bytes.len() != callback.length.get() {
            return false;
        }
        callback.offer.set(0);
        callback.written.set(Written::PassedOn);
        true
    })
}

/// The offer is over.
#[inline]
pub(crate) fn shut() {
    CALLBACK.with(|callback| callback.offer.set(0));
}

#[inline]
pub(crate) fn written() -> Written {
    CALLBACK.with(|callback| callback.written.get())
}

/// What was noted, and nothing besides, is on its way.
#[inline]
pub(crate) fn sent() {
    CALLBACK.with(|callback| callback.written.set(Written::Nothing));
}

/// Whether the offer, which is over, is to be passed on: by who asks.
pub(crate) fn take() -> bool {
    CALLBACK.with(|callback| {
        callback.offer.set(0);
        let (noted, left) = match callback.written.get() {
            Written::PassedOn => (true, Written::Nothing),
            Written::Both => (true, Written::Gathered),
            other => (false, other),
        };
        callback.written.set(left);
        noted
    })
}

/// How many bytes are noted.
pub(crate) fn len() -> usize {
    CALLBACK.with(Callback::noted)
}

/// Whether any bytes lie copied.
pub(crate) fn set_gathered(any: bool) {
    CALLBACK.with(|callback| {
        callback.written.set(match (callback.noted() > 0, any) {
            (false, false) => Written::Nothing,
            (false, true) => Written::Gathered,
            (true, false) => Written::PassedOn,
            (true, true) => Written::Both,
        });
    });
}
