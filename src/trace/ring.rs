//! The ring: one thread writes, any thread reads, without a lock.
//!
//! The loop writes a record's words over the oldest record, and then publishes how many records there have
//! been. All stores are releases. So a reader that sees a word of a record also sees that all earlier records
//! were published. After the copy the reader loads the count again, and drops the records that may have been
//! overwritten.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{AtomicU64, Kind, LEAST, NOTHING, ON};

/// A record: its head, the id, the detail. If a record hands something out, its detail is the id of that.
/// A cause that hands out two has two records.
///
/// ```text
/// | 63 .. 9                                   | 8 .. 5       | 4 .. 0 |
/// | nanoseconds since the loop's beginning:   | readiness,   | kind   |
/// | 55 bits are 416 days                      | if it has it |        |
/// ```
pub(super) type Words = [u64; 3];

const TIME: u32 = 9;
const READINESS: u32 = 5;

/// The nanoseconds, the readiness and the kind of a head.
pub(super) fn parts(head: u64) -> (u64, u64, usize) {
    let kind = head & ((1 << READINESS) - 1);
    (head >> TIME, head >> READINESS & 0xf, kind as usize)
}

pub(crate) struct Ring {
    /// A power of two of them.
    records: Box<[[AtomicU64; 3]]>,
    /// How many records have been published.
    count: AtomicU64,
}

impl Ring {
    fn record(&self, number: u64) -> &[AtomicU64; 3] {
        &self.records[number as usize & (self.records.len() - 1)]
    }

    /// Writes a record, and publishes it.
    #[inline(always)]
    fn push(&self, head: u64, id: u64, detail: u64) {
        let count = self.count.load(Ordering::Relaxed);
        for (word, value) in self.record(count).iter().zip([head, id, detail]) {
            word.store(value, Ordering::Release);
        }
        self.count.store(count + 1, Ordering::Release);
    }
}

/// A ring to read, or none.
#[derive(Clone, Default)]
pub(crate) struct Tape(Option<Arc<Ring>>);

impl Tape {
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        if bytes < LEAST {
            let why = format!("netpoller: a trace ring of {bytes} bytes: the least is {LEAST}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let length = 1 << (bytes / size_of::<Words>()).ilog2();
        let mut records = Vec::new();
        records.try_reserve_exact(length)?;
        records.resize_with(length, Default::default);
        let (records, count) = (records.into(), AtomicU64::new(0));
        Ok(Tape(Some(Arc::new(Ring { records, count }))))
    }

    /// The records that are there, and how many have been overwritten.
    pub(super) fn copy(&self) -> Option<(Vec<Words>, u64)> {
        let ring = self.0.as_ref()?;
        let held = ring.records.len() as u64;
        let end = ring.count.load(Ordering::Acquire);
        let numbers = end.saturating_sub(held)..end;
        let load = |word: &AtomicU64| word.load(Ordering::Acquire);
        let copy = |number| ring.record(number).each_ref().map(load);
        let mut copied: Vec<Words> = numbers.clone().map(copy).collect();
        // The loop may be in the midst of one that is not published.
        let begun = ring.count.load(Ordering::Acquire) + 1;
        let lost = begun.saturating_sub(held).clamp(numbers.start, end);
        copied.drain(..(lost - numbers.start) as usize);
        Some((copied, lost))
    }
}

/// What the loop calls.
pub(crate) struct Recorder<W> {
    pub(crate) tape: Tape,
    /// Returns the id of a W in the records.
    name: fn(&W) -> u64,
    /// The last reading of the clock, as in a head.
    now: Cell<u64>,
    /// The machine, foreign waker or job that runs now, and so is the cause of wakes.
    by: Cell<u64>,
}

impl<W> Recorder<W> {
    pub(crate) fn new(tape: Tape, name: fn(&W) -> u64) -> Self {
        let (now, by) = (Cell::new(0), Cell::new(NOTHING));
        Recorder {
            tape,
            name,
            now,
            by,
        }
    }

    /// Always `None` without the feature, so the compiler removes the callers' code.
    #[inline(always)]
    fn ring(&self) -> Option<&Ring> {
        self.tape.0.as_deref().filter(|_| ON)
    }

    /// The clock was read: `now` after the loop's beginning.
    pub(crate) fn read(&self, now: impl FnOnce() -> Duration) {
        if self.ring().is_some() {
            let now = (now().as_nanos() as u64) << TIME;
            self.now.set(self.now.get().max(now));
        }
    }

    pub(crate) fn put(&self, kind: Kind, id: u64, detail: u64) {
        let Some(ring) = self.ring() else { return };
        if let Kind::Turn | Kind::TurnEnd | Kind::Foreign | Kind::Mail | Kind::Run = kind {
            self.by.set(id);
        }
        ring.push(self.now.get() | kind as u64, id, detail);
    }

    /// As `put`, for a record that hands out the W with the id `number` (`NOTHING`: none).
    #[inline(always)]
    pub(crate) fn handed(&self, kind: Kind, id: u64, readiness: u64, number: u64) {
        let Some(ring) = self.ring() else { return };
        debug_assert!(readiness < 1 << (TIME - READINESS));
        let head = self.now.get() | readiness << READINESS | kind as u64;
        ring.push(head, id, number);
    }

    /// Returns the id of a W in the records.
    pub(crate) fn number(&self, w: &W) -> u64 {
        self.ring().map_or(NOTHING, |_| (self.name)(w))
    }

    /// The cause of the wakes and spawns that come now.
    pub(crate) fn by(&self) -> u64 {
        self.by.get()
    }
}
