//! How much a connection may keep in memory.
//!
//! May touch: nothing. Go has no counterpart: there a goroutine that writes waits.

/// What a connection may keep in memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// More than this waiting to be written stops reading from that peer: 256 KiB.
    pub high_water: usize,
    /// Less than this starts it again, and [`Protocol::drained`](crate::Protocol::drained) says
    /// so: 64 KiB.
    pub low_water: usize,
    /// More than this is refused: 16 MiB. What one read brings, 64 KiB at most, is answered at
    /// once: let there be so much room for it above `high_water`.
    pub most_queued: usize,
    /// As much for all connections of a server together, on whichever worker: no limit. Where
    /// nothing waits yet, a callback is not refused, for its peer may take it all; if that does
    /// not, and there is no room, the connection ends.
    pub most_queued_in_all: usize,
    /// Bytes that [`Protocol::data`](crate::Protocol::data) has not used. More of them end the
    /// connection: 10 MiB.
    pub most_unused: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            high_water: 256 << 10,
            low_water: 64 << 10,
            most_queued: 16 << 20,
            most_queued_in_all: usize::MAX,
            most_unused: 10 << 20,
        }
    }
}
