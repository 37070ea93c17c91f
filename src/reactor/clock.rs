//! The loop's time: where it is read, and how an instant becomes a tick.
// Mirrors the `nanotime()` calls of Go's scheduler, and testing/synctest's clock, which jumps when
// nothing else can happen.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::wheel::Tick;

/// A tick is a millisecond: epoll's resolution.
const TICK: Duration = Duration::from_millis(1);

/// This is added before the division, to round up.
const ALMOST_A_TICK: Duration = Duration::from_nanos(999_999);

/// The latest tick that a deadline can have. [`Tick::MAX`] means "none".
const LATEST: u64 = u64::MAX - 1;

/// The memo (see `Clock`) holds a deadline only while it is at least so many ticks after the last reading.
/// A remembered deadline that is set when that reading is over 10 s old may have passed: it expires in a
/// later turn.
const PLAINLY_AHEAD: u64 = 10_000;

/// What the clock reads.
pub(crate) enum TimeSource {
    System,
    /// A time that only `jump` moves: the sum of all jumps.
    Virtual(Cell<Duration>),
    /// The user's, such as a simulation's.
    Given(Box<dyn Fn() -> Instant>),
}

pub(crate) struct Clock {
    source: TimeSource,
    /// Tick zero.
    pub(crate) base: Instant,
    /// The last reading. It never goes back.
    now: Cell<Instant>,
    /// The last reading in ticks, rounded up, and the instant of that tick.
    next: Cell<(Tick, Instant)>,
    /// The tick of the last deadline that was `PLAINLY_AHEAD`, with two instants: the beginnings of the tick
    /// before it and of itself. A deadline between them rounds up to this tick, and the next one often does.
    memo: Cell<Option<(Tick, Instant, Instant)>>,
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
            next: Cell::new((Tick::ZERO, base)),
            memo: Cell::new(None),
        }
    }

    pub(crate) fn is_virtual(&self) -> bool {
        matches!(self.source, TimeSource::Virtual(_))
    }

    pub(crate) fn is_systems(&self) -> bool {
        matches!(self.source, TimeSource::System)
    }

    /// The last reading.
    pub(crate) fn now(&self) -> Instant {
        self.now.get()
    }

    /// What a reading would give. It is not stored, so `now` and the ticks stay.
    pub(crate) fn peek(&self) -> Instant {
        let now = match &self.source {
            TimeSource::System => Instant::now(),
            TimeSource::Virtual(jumped) => self.base + jumped.get(),
            TimeSource::Given(read) => read(),
        };
        // A clock that is given may go back.
        now.max(self.now.get())
    }

    /// Reads the clock: `now` and the ticks below go by this reading.
    pub(crate) fn read(&self) -> Instant {
        let now = self.peek();
        self.now.set(now);
        if now > self.next.get().1 {
            self.set_next(now);
        }
        now
    }

    /// Sets `next` for a reading in a later tick. Most readings lie in the same tick as the one before.
    #[cold]
    fn set_next(&self, now: Instant) {
        let tick = self.tick_of(now);
        self.next.set((tick, self.instant_of(tick)));
        let far = tick.saturating_add(PLAINLY_AHEAD);
        self.memo.set(self.memo.get().filter(|memo| memo.0 >= far));
    }

    /// The last reading in ticks, rounded down: this tick and all before it have begun.
    pub(crate) fn tick(&self) -> Tick {
        let (next, begins) = self.next.get();
        match self.now.get() < begins {
            true => Tick::new(next.get() - 1),
            false => next,
        }
    }

    /// The last reading in ticks, rounded up: a deadline computed from this tick is never early.
    pub(crate) fn tick_ceiling(&self) -> Tick {
        self.next.get().0
    }

    /// The first tick at which `when` has passed: rounded up, so that nothing is early. An instant before
    /// the clock began becomes tick 0, and one too far ahead `LATEST`.
    pub(crate) fn tick_of(&self, when: Instant) -> Tick {
        let ahead = when.saturating_duration_since(self.base);
        let ahead = match fault!("deadline_rounded_down") {
            true => ahead,
            false => ahead.saturating_add(ALMOST_A_TICK),
        };
        Tick::new(ahead.as_millis().min(LATEST.into()) as u64)
    }

    /// The tick of `when`, if it is in the memo.
    pub(crate) fn remembered(&self, when: Instant) -> Option<Tick> {
        let (tick, before, begins) = self.memo.get()?;
        (before < when && when <= begins).then_some(tick)
    }

    /// The tick of a deadline. `None` if it has passed, by the last reading or a fresh one, which is not stored.
    /// If the deadline is `PLAINLY_AHEAD`, its tick goes into the memo; only on the system's clock, since others
    /// may jump between two readings.
    pub(crate) fn tick_ahead(&self, when: Instant) -> Option<Tick> {
        if when <= self.now.get() || when <= self.peek() {
            return None;
        }
        let tick = self.tick_of(when);
        if self.is_systems() && tick >= self.tick_ceiling().saturating_add(PLAINLY_AHEAD) {
            let begins = self.instant_of(tick);
            self.memo.set(Some((tick, begins - TICK, begins)));
        }
        Some(tick)
    }

    /// The instant at which a tick begins.
    pub(crate) fn instant_of(&self, tick: Tick) -> Instant {
        self.base + Duration::from_millis(tick.get())
    }

    /// How long from the last reading to the start of `tick`.
    pub(crate) fn until(&self, tick: Tick) -> Duration {
        Duration::from_millis(tick.get()).saturating_sub(self.now.get() - self.base)
    }

    /// A virtual clock jumps forward. No other can be moved.
    pub(crate) fn jump(&self, ahead: Duration) {
        if let TimeSource::Virtual(jumped) = &self.source {
            let to = jumped.get().saturating_add(ahead);
            // An `Instant` can overflow: then the clock does not jump.
            if self.base.checked_add(to).is_some() {
                jumped.set(to);
            }
            self.read();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_of_now_has_passed_however_old_the_last_reading_is() {
        let clock = Clock::new(TimeSource::System);
        let old = clock.base - Duration::from_secs(11);
        clock.now.set(old);
        assert_eq!(clock.tick_ahead(Instant::now()), None);
        let far = Instant::now() + Duration::from_secs(60);
        assert!(clock.tick_ahead(far).is_some() && clock.remembered(far).is_some());
    }
}
