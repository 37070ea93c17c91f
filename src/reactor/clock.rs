//! The loop's time: where readings come from, and how an instant becomes a tick.
// Mirrors the one `nanotime()` of each round of Go's scheduler, and testing/synctest's clock,
// which jumps when nothing else can happen.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::wheel::Tick;

/// A tick is a millisecond: the selector's own resolution.
const TICKS_A_SECOND: u64 = 1000;
const NANOS_A_TICK: u32 = 1_000_000;
const TICK: Duration = Duration::from_millis(1);

/// The latest tick that a deadline can have. [`Tick::MAX`] means "none".
const LATEST: u64 = u64::MAX - 1;

/// A deadline at least this far after the last reading lies ahead, and the clock is not read again:
/// it has passed only if this thread has stood still for all that time. With a clock other than the
/// system's it is always read.
const PLAINLY_AHEAD: Duration = Duration::from_secs(10);

/// Where readings come from.
pub(crate) enum TimeSource {
    System,
    /// Stands still, and jumps: the sum of the jumps so far.
    Virtual(Cell<Duration>),
    /// The user's, such as a simulation's.
    Given(Box<dyn Fn() -> Instant>),
}

impl TimeSource {
    pub(crate) fn standing_still() -> Self {
        TimeSource::Virtual(Cell::new(Duration::ZERO))
    }
}

/// A reading in whole ticks since tick zero. They are those of each reading between `begins` and
/// `ends`.
#[derive(Clone, Copy)]
struct Counted {
    floor: Tick,
    ceiling: Tick,
    begins: Instant,
    ends: Instant,
}

impl Counted {
    #[inline]
    fn holds_for(&self, reading: Instant) -> bool {
        self.begins < reading && reading < self.ends
    }
}

pub(crate) struct Clock {
    source: TimeSource,
    /// Tick zero.
    base: Instant,
    /// The last reading.
    now: Cell<Instant>,
    /// The last reading in ticks, or `None` if it lies in another tick than the one before and has not
    /// been asked for.
    counted: Cell<Option<Counted>>,
    /// The deadline that was converted last, if it lay plainly ahead of the last reading: a loop
    /// moves many to the same instant.
    memo: Cell<Option<(Instant, Tick)>>,
}

impl Clock {
    pub(crate) fn new(source: TimeSource) -> Self {
        let base = match &source {
            TimeSource::Given(read) => read(),
            _ => Instant::now(),
        };
        Clock {
            source,
            base,
            now: Cell::new(base),
            counted: Cell::new(None),
            memo: Cell::new(None),
        }
    }

    pub(crate) fn is_virtual(&self) -> bool {
        matches!(self.source, TimeSource::Virtual(_))
    }

    /// The last reading.
    #[inline]
    pub(crate) fn now(&self) -> Instant {
        self.now.get()
    }

    /// Reads the clock.
    #[inline]
    pub(crate) fn read(&self) -> Instant {
        let now = match &self.source {
            TimeSource::System => Instant::now(),
            TimeSource::Virtual(jumped) => self.base + jumped.get(),
            TimeSource::Given(read) => read(),
        };
        self.now.set(now);
        // Most readings lie in the tick of the one before.
        let counted = self.counted.get();
        if !counted.is_some_and(|counted| counted.holds_for(now)) {
            self.counted.set(None);
        }
        self.memo.set(None);
        now
    }

    /// The last reading in ticks.
    #[inline]
    fn counted(&self) -> Counted {
        self.counted.get().unwrap_or_else(|| self.count())
    }

    #[cold]
    #[inline(never)]
    fn count(&self) -> Counted {
        let now = self.now.get();
        let passed = now.saturating_duration_since(self.base);
        let since = Duration::from_nanos(u64::from(passed.subsec_nanos() % NANOS_A_TICK));
        let begins = now.checked_sub(since).unwrap_or(now);
        let counted = Counted {
            floor: ticks(passed, passed.subsec_nanos() / NANOS_A_TICK),
            ceiling: ticks(passed, passed.subsec_nanos().div_ceil(NANOS_A_TICK)),
            begins,
            // At the very beginning of a tick rounding up gives that tick, and later the next.
            ends: match since {
                Duration::ZERO => begins,
                _ => begins.checked_add(TICK).unwrap_or(begins),
            },
        };
        self.counted.set(Some(counted));
        counted
    }

    /// The last reading in ticks, rounded down: what has passed for sure.
    #[inline]
    pub(crate) fn tick(&self) -> Tick {
        self.counted().floor
    }

    /// The first tick at which `when` has passed: rounded up, so that nothing is early. What lies
    /// before the clock began is tick 0. What lies too far ahead is the latest tick there is.
    #[inline]
    pub(crate) fn tick_of(&self, when: Instant) -> Tick {
        let ahead = when.saturating_duration_since(self.base);
        if fault!("deadline_rounded_down") {
            return ticks(ahead, ahead.subsec_nanos() / NANOS_A_TICK);
        }
        ticks(ahead, ahead.subsec_nanos().div_ceil(NANOS_A_TICK))
    }

    /// The tick that lies `ticks` after the last reading, rounded up. Too far is never.
    #[inline]
    pub(crate) fn tick_after(&self, ticks: u64) -> Tick {
        let ceiling = match self.counted.get() {
            Some(counted) => counted.ceiling,
            None => self.count().ceiling,
        };
        ceiling.saturating_add(ticks)
    }

    /// The tick of a deadline, or `None` if that has passed, by a fresh reading if it is close.
    #[inline]
    pub(crate) fn tick_ahead(&self, when: Instant) -> Option<Tick> {
        if let Some((known, tick)) = self.memo.get()
            && known == when
        {
            return Some(tick);
        }
        let is_systems = matches!(self.source, TimeSource::System);
        if is_systems && when >= self.now.get() + PLAINLY_AHEAD {
            let tick = self.tick_of(when);
            self.memo.set(Some((when, tick)));
            return Some(tick);
        }
        (!self.has_passed(when)).then(|| self.tick_of(when))
    }

    /// Whether `when` has passed: by the last reading, or else by a fresh one.
    #[inline]
    pub(crate) fn has_passed(&self, when: Instant) -> bool {
        when <= self.now.get() || when <= self.read()
    }

    /// How long from the last reading to the start of `tick`.
    pub(crate) fn until(&self, tick: Tick) -> Duration {
        let passed = self.now.get().saturating_duration_since(self.base);
        Duration::from_millis(tick.get()).saturating_sub(passed)
    }

    /// A virtual clock jumps forward. No other can be moved.
    pub(crate) fn jump(&self, ahead: Duration) {
        if let TimeSource::Virtual(jumped) = &self.source {
            let to = jumped.get().saturating_add(ahead);
            // An instant has an end, where the clock stops.
            if self.base.checked_add(to).is_some() {
                jumped.set(to);
            }
            self.read();
        }
    }
}

/// The whole seconds of `time` in ticks, and `more` of them.
#[inline]
fn ticks(time: Duration, more: u32) -> Tick {
    let ticks = time.as_secs().saturating_mul(TICKS_A_SECOND);
    Tick::new(ticks.saturating_add(u64::from(more)).min(LATEST))
}
