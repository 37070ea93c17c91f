//! What other threads see of a loop: which machine runs, since when, and where it was spawned. And a
//! thread that watches it.
//!
//! The loop publishes by plain stores; `batch` and `origins` have a lock each. If another thread takes
//! two equal samples, one run has lasted from the first to the second: each run of a machine, of the root
//! and of a job has a number of its own.

// Mirrors `sysmon` in Go's `runtime/proc.go`, which reads `schedtick` and `schedwhen` of a `p`, and
// preempts where this can only tell.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU64;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::context::MachineId;
use super::dump::{Entry, Value};
use super::stats::Figures;
use super::sync::{Counter, lock};
use crate::reactor::Clock;
use crate::trace::JOB;

/// A batch that takes this long is logged once it has ended. From then on each run that does is logged.
const LONG: Duration = Duration::from_secs(1);

/// At most this many machines are named if it is not known which took long.
const FEW: usize = 16;

/// The least time between two lines of a watchdog about the same run.
const QUIET: Duration = Duration::from_secs(1);

/// In place of an id: no machine runs.
const NONE: u64 = 0;

/// A place in a program.
pub(crate) type Place = &'static Location<'static>;

/// What the loop publishes.
#[derive(Default)]
pub(crate) struct Running {
    /// The bits of the id of what runs, or `NONE`, or `JOB`.
    id: AtomicU64,
    /// Runs of the root and of jobs that have begun. Those of machines are in `figures`.
    pub(super) others: Counter,
    pub(crate) figures: Figures,
    /// When the last batch began. It stays `None` if the loop's clock is not the system's.
    batch: Mutex<Option<Instant>>,
    /// A long batch has been logged: from then on each run is timed.
    pub(super) is_careful: AtomicBool,
    /// A watchdog logs in place of the loop. It ends once this is lowered.
    pub(super) is_watched: AtomicBool,
    origins: Mutex<Origins>,
}

/// Where the machines come from: four bytes each, and 24 for each place in the program.
#[derive(Default)]
struct Origins {
    places: Vec<(&'static str, Place)>,
    /// By slot, of the machine that has it or had it last: the index of its kind and place, and the low 16
    /// bits of its generation.
    by_slot: Vec<(u16, u16)>,
    /// By slot, of machines that were given a name. A name stays until another machine has the slot, so
    /// that the log can name one that has just ended.
    names: BTreeMap<u32, Arc<str>>,
}

/// A look from another thread: the id of what runs, and how many runs have begun.
pub(super) type Sample = (u64, u64);

/// For the loop.
impl Running {
    /// Something begins to run, and is counted: a machine, the root, or a [`JOB`].
    pub(super) fn begin(&self, id: u64, runs: &Counter) {
        debug_assert_ne!(id, NONE);
        runs.add(1);
        self.id.store(id, Ordering::Release);
    }

    /// No machine runs.
    pub(super) fn end(&self) {
        self.id.store(NONE, Ordering::Release);
    }

    /// Notes that a batch begins, if the loop's clock is the system's: see `holder`.
    pub(super) fn begin_batch(&self, clock: &Clock) {
        if clock.is_systems() {
            *lock(&self.batch) = Some(clock.now());
        }
    }

    /// Logs a warning if these machines, which began at `since`, have taken `LONG`. Which of several took
    /// long is not known, so from then on each run is timed (careful mode). Returns the time now, or `since`
    /// if the clock was not read.
    pub(super) fn lap(&self, ran: &[MachineId], since: Instant) -> Instant {
        // If nothing ran, or a watchdog logs, the clock is not read.
        if ran.is_empty() || self.is_watched.load(Ordering::Relaxed) {
            return since;
        }
        let now = Instant::now();
        let held = now.saturating_duration_since(since);
        if held >= LONG {
            let first = ran.iter().take(FEW);
            let names: Vec<_> = first.map(|id| self.origin(id.bits()).to_string()).collect();
            let names = names.join("; ");
            match ran.len() {
                1 => log::warn!("the loop was held for {held:.1?} by {names}"),
                many => log::warn!(
                    "the loop was held for {held:.1?} by a batch of {many} machines (from here on each \
                     is timed); the first: {names}"
                ),
            }
            self.is_careful.store(true, Ordering::Relaxed);
        }
        now
    }

    /// A machine of this `kind` has been spawned.
    pub(super) fn enter(
        &self,
        id: MachineId,
        kind: &'static str,
        place: Place,
        name: Option<Arc<str>>,
    ) {
        let mut origins = lock(&self.origins);
        let same = |&(known, at): &(&str, Place)| known == kind && std::ptr::eq(at, place);
        let index = origins.places.iter().position(same).unwrap_or_else(|| {
            origins.places.push((kind, place));
            origins.places.len() - 1
        });
        let slot = id.slot() as usize;
        if slot >= origins.by_slot.len() {
            origins.by_slot.resize(slot + 1, (0, 0));
        }
        debug_assert!(index <= usize::from(u16::MAX), "too many places");
        origins.by_slot[slot] = (index as u16, id.generation() as u16);
        origins.names.remove(&id.slot());
        origins.names.extend(name.map(|name| (id.slot(), name)));
    }
}

/// For any thread.
impl Running {
    /// Describes the machine with this id, unless another machine has its slot.
    #[cfg(feature = "trace")]
    pub(super) fn known(&self, id: u64) -> Option<String> {
        let bits = NonZeroU64::new(id)?;
        let mut origin = self.origin(bits);
        let is_known = origin.get("place").is_some() || bits == MachineId::ROOT.bits();
        origin.0.retain(|(name, _)| *name != "id");
        is_known.then(|| origin.to_string())
    }

    /// Describes the machine with this id: see `put_origin`.
    pub(super) fn origin(&self, bits: NonZeroU64) -> Entry {
        let mut origin = Entry::default();
        self.put_origin(&mut origin, bits);
        origin
    }

    /// Adds the kind, the id, the name, and the place of the spawn (for a connection: of the server).
    pub(super) fn put_origin(&self, entry: &mut Entry, bits: NonZeroU64) {
        let id = MachineId::from_bits(bits);
        let origins = lock(&self.origins);
        let of_slot = || {
            let &(index, end) = origins.by_slot.get(id.slot() as usize)?;
            let place = origins.places.get(usize::from(index)).copied();
            place.filter(|_| end == id.generation() as u16)
        };
        let (kind, place) = match bits.get() {
            JOB => ("job", None),
            _ if id == MachineId::ROOT => ("root", None),
            _ => of_slot().map_or(("task", None), |(kind, place)| (kind, Some(place))),
        };
        let name = place.and_then(|_| origins.names.get(&id.slot()));
        let place = place.map(|at| Value::shown(format_args!("{}:{}", at.file(), at.line())));
        entry
            .put("kind", Value::text(kind))
            .put("id", (bits.get() != JOB).then(|| Value::shown(id)))
            .put("name", name.map(Value::shown))
            .put("place", place);
    }

    pub(super) fn runs(&self, id: MachineId) -> bool {
        self.id.load(Ordering::Relaxed) == id.bits().get()
    }

    pub(super) fn sample(&self) -> Sample {
        let id = self.id.load(Ordering::Acquire);
        (id, self.figures.machines.get() + self.others.get())
    }

    /// What runs, if it is still the run of the `earlier` sample, which was taken at `first`; and when
    /// its batch began.
    pub(super) fn holder(&self, earlier: Sample, first: Instant) -> Option<(Entry, Instant)> {
        let id = NonZeroU64::new(earlier.0)?;
        if self.sample() != earlier {
            return None;
        }
        let began = lock(&self.batch).map_or(first, |began| began.min(first));
        Some((self.origin(id), began))
    }

    // ---- the watchdog ----

    /// Starts a thread that names what holds the loop, while it holds it. The thread ends
    /// within a second after `is_watched` was lowered. It is not joined: a child of fork(2) has no such
    /// thread.
    pub(super) fn watch(self: &Arc<Self>, threshold: Duration) -> io::Result<()> {
        self.is_watched.store(true, Ordering::Relaxed);
        let running = self.clone();
        let thread = thread::Builder::new().name("netpoller-watchdog".into());
        thread.spawn(move || running.name_holders(threshold))?;
        Ok(())
    }

    fn name_holders(&self, threshold: Duration) {
        let step = (threshold / 4).clamp(Duration::from_millis(1), QUIET);
        let mut first = (self.sample(), Instant::now());
        // What was named, when it began, and when that was logged last.
        let mut named: Option<(Entry, Instant, Instant)> = None;
        loop {
            // Nothing wakes it: the loop must not pay for being watched.
            thread::sleep(step);
            if !self.is_watched.load(Ordering::Relaxed) {
                return;
            }
            let Some((origin, began)) = self.holder(first.0, first.1) else {
                if let Some((origin, began, _)) = named.take() {
                    let held = began.elapsed();
                    log::warn!("the loop was held for {held:.1?} by {origin}");
                }
                first = (self.sample(), Instant::now());
                continue;
            };
            // The run may have begun up to a step before it was first seen. `began` may be that of earlier
            // machines of the batch, so `first` must be long ago too.
            let held = began.elapsed();
            let is_long = first.1.elapsed() + step >= threshold && held >= threshold;
            let last = named.as_ref().map(|(_, _, last)| last.elapsed());
            if is_long && last.is_none_or(|last| last >= QUIET) {
                log::warn!("the loop is held for {held:.1?} so far by {origin}");
                named = Some((origin, began, Instant::now()));
            }
        }
    }
}
