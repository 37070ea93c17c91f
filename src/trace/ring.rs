//! The ring: one thread writes, any thread reads, without a lock.
//!
//! The loop writes a record's words into the oldest place, and then publishes how many records there
//! have been. Each store is a release. So a reader that sees a word of record `n` also sees that `n`
//! records were there before it; after it has copied the ring, it looks at the number again, and drops
//! what may have been overwritten meanwhile.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Kind;
use super::show::Trace;

/// A record: `time << 8 | kind`, the id, and the detail. The time is in nanoseconds since the loop's
/// beginning: 56 bits are two years.
pub(super) type Words = [u64; 3];

/// The least size of a ring, in bytes.
const LEAST: usize = 4096;

struct Ring {
    /// As many as a power of two.
    places: Box<[[AtomicU64; 3]]>,
    /// How many records have been written.
    written: AtomicU64,
}

impl Ring {
    #[inline]
    fn put(&self, words: Words) {
        let written = self.written.load(Ordering::Relaxed);
        for (word, value) in self.place(written).iter().zip(words) {
            word.store(value, Ordering::Release);
        }
        self.written.store(written + 1, Ordering::Release);
    }

    #[inline]
    fn place(&self, number: u64) -> &[AtomicU64; 3] {
        &self.places[number as usize & (self.places.len() - 1)]
    }

    /// What is there, and how many records were overwritten before.
    fn copy(&self) -> (Vec<Words>, u64) {
        let (end, length) = (
            self.written.load(Ordering::Acquire),
            self.places.len() as u64,
        );
        let start = end.saturating_sub(length);
        let load = |word: &AtomicU64| word.load(Ordering::Acquire);
        let copied = (start..end).map(|number| self.place(number).each_ref().map(load));
        let mut words: Vec<Words> = copied.collect();
        // One more than were published: the loop may be in the midst of the next.
        let begun = self.written.load(Ordering::Acquire) + 1;
        let lost = begun.saturating_sub(length);
        words.drain(..words.len().min((lost.max(start) - start) as usize));
        (words, lost)
    }
}

/// A ring to read, or none.
#[derive(Clone, Default)]
pub(crate) struct Tape(Option<Arc<Ring>>);

impl Tape {
    pub(crate) fn new(bytes: Option<usize>) -> io::Result<Self> {
        let Some(bytes) = bytes else {
            return Ok(Tape::default());
        };
        if bytes < LEAST {
            let why = format!("netpoller: a trace ring of {bytes} bytes: the least is {LEAST}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let length = 1 << (bytes / size_of::<Words>()).ilog2();
        let mut places = Vec::new();
        places.try_reserve_exact(length)?;
        places.resize_with(length, Default::default);
        Ok(Tape(Some(Arc::new(Ring {
            places: places.into(),
            written: AtomicU64::new(0),
        }))))
    }

    pub(crate) fn last(&self, duration: Duration) -> Option<Trace> {
        let (words, lost) = self.0.as_ref()?.copy();
        Some(Trace::new(&words, lost, duration))
    }
}

/// What the loop calls.
pub(crate) struct Recorder<W> {
    tape: Tape,
    name: fn(&W) -> u64,
    /// The last reading of the clock, as in a record. It never goes back.
    now: Cell<u64>,
    /// The machine that runs, or `NOTHING`, or `JOB`.
    runs: Cell<u64>,
}

impl<W> Recorder<W> {
    pub(crate) fn new(tape: Tape, name: fn(&W) -> u64) -> Self {
        let (now, runs) = Default::default();
        Recorder {
            tape,
            name,
            now,
            runs,
        }
    }

    pub(crate) fn tape(&self) -> &Tape {
        &self.tape
    }

    /// The clock was read: it is so long after the loop's beginning.
    #[inline]
    pub(crate) fn now(&self, since: Duration) {
        if self.tape.0.is_some() {
            self.now
                .set(self.now.get().max((since.as_nanos() as u64) << 8));
        }
    }

    #[inline]
    pub(crate) fn put(&self, kind: Kind, id: u64, detail: u64) {
        if let Some(ring) = &self.tape.0 {
            ring.put([self.now.get() | kind as u64, id, detail]);
        }
    }

    /// A machine runs, or a job, or nothing any more.
    #[inline]
    pub(crate) fn run(&self, kind: Kind, id: u64) {
        self.runs.set(id);
        self.put(kind, id, 0);
    }

    /// By what a machine is woken or spawned now.
    #[inline]
    pub(crate) fn runs(&self) -> u64 {
        self.runs.get()
    }

    /// The record before hands these out, from the given one on.
    #[inline]
    pub(crate) fn unparked(&self, out: &[W], from: usize) {
        if self.tape.0.is_some() {
            let handed = out.iter().skip(from);
            handed.for_each(|w| self.put(Kind::Unpark, (self.name)(w), 0));
        }
    }
}
