//! How much memory connections may take: limits of each, and a quota over all.

// Go has no counterpart: there, a goroutine that writes waits.

use std::sync::atomic::Ordering;

use crate::runtime::sync::AtomicUsize;

/// What connections may keep in memory, in bytes.
///
/// ```
/// use netpoller::Limits;
///
/// let mut limits = Limits::default();
/// limits.most_queued = 1 << 20;
/// let limits = limits.with_most_unused(64 << 10);
/// assert_eq!((limits.most_queued, limits.most_unused), (1 << 20, 64 << 10));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Once more than this waits to be written, reading from that peer stops until `low_water`. By
    /// default 256 KiB.
    pub high_water: usize,
    /// Reading goes on when no more than this waits, and
    /// [`Protocol::writable`](crate::Protocol::writable) is called. By default 64 KiB.
    pub low_water: usize,
    /// A write that would let more than this wait for one peer is refused. By default 16 MiB. The
    /// bytes that a handle has written count; those that the system has taken,
    /// which may be megabytes, do not. Reading stops only after a read (64 KiB at most) is
    /// answered: leave room for that answer above `high_water`. If this limit is below
    /// `high_water`, reading never stops: a peer that is slow to read is dropped.
    ///
    /// A callback gets an error for a refused write. If the callback then fails too, the connection
    /// ends with a RST. A refused write by a [`ConnHandle`](crate::ConnHandle) or an id ends the
    /// connection with a RST, since a message would be missing. What they write is offered to the
    /// peer when the connection next runs: a task or a callback that writes more than this in one
    /// run ends the connection of a fast peer too.
    pub most_queued: usize,
    /// The same for all connections of a server together, on whichever worker. By default no limit.
    /// Without room a write is refused, and the connection goes on; in a callback it is refused only if
    /// the peer does not take the bytes at once. If the peer took a part, the connection ends.
    pub most_queued_in_all: usize,
    /// Bytes that [`Protocol::data`](crate::Protocol::data) has seen and not used. By default 1 MiB. More of
    /// them end the connection, and so does a [need](crate::Conn::need) of more. The peer is not
    /// told: to say "too long", count in `data`, and close.
    pub most_unused: usize,
    /// The same for all connections of a server together, on whichever worker. By default no limit.
    /// Without room, the connection that keeps most unused bytes on that thread ends.
    pub most_unused_in_all: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            high_water: 256 << 10,
            low_water: 64 << 10,
            most_queued: 16 << 20,
            most_queued_in_all: usize::MAX,
            most_unused: 1 << 20,
            most_unused_in_all: usize::MAX,
        }
    }
}

macro_rules! setters {
    ($($setter:ident $field:ident),*) => {
        /// The fields as a chain of setters.
        impl Limits {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Limits::", stringify!($field), ").")]
                #[must_use]
                pub fn $setter(mut self, bytes: usize) -> Self {
                    self.$field = bytes;
                    self
                }
            )*
        }
    };
}

setters! {
    with_high_water high_water,
    with_low_water low_water,
    with_most_queued most_queued,
    with_most_queued_in_all most_queued_in_all,
    with_most_unused most_unused,
    with_most_unused_in_all most_unused_in_all
}

/// How much all connections may keep together.
#[derive(Debug)]
pub(crate) struct Quota {
    limit: usize,
    /// More than `limit` only through `recharge`. Zero where the limit is `usize::MAX`: then
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

    /// Charges `now` bytes in place of `before`, beyond the limit if need be.
    pub(super) fn recharge(&self, before: usize, now: usize) {
        if self.is_limited() {
            let more = now.saturating_sub(before);
            self.used.fetch_add(more, Ordering::Relaxed);
        }
        self.give_back(before.saturating_sub(now));
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        if self.is_limited() {
            let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
            debug_assert!(before >= bytes, "more is given back than was charged");
        }
    }
}
