//! The loop's time: read once a turn, real or virtual; and how instants become ticks.
//!
//! May touch: the wheel's [`Tick`]. Mirrors the one `nanotime()` a round of Go's scheduler takes,
//! and `testing/synctest`'s clock that jumps when everybody is durably blocked.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::wheel::Tick;

/// A tick is a millisecond: the selector's own resolution.
const TICKS_A_SECOND: u64 = 1000;
const NANOS_A_TICK: u32 = 1_000_000;

/// The latest tick a deadline can have: one short of [`Tick::MAX`], which means "none".
const LATEST: u64 = u64::MAX - 1;

/// How old the loop's time may be, in ticks, for a deadline to be judged by it: a quarter of a second.
/// "Now", read by somebody whose turn is taking long, lies a little ahead of the loop's time, and
/// must expire at once all the same.
const NEAR: u64 = 250;

const DISTANT: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);

pub(crate) struct Clock {
    /// Tick zero.
    base: Instant,
    now: Cell<Instant>,
    /// The same, from `base`.
    passed: Cell<Duration>,
    tick: Cell<Tick>,
    /// The same, rounded up: deadlines counted from it are not early.
    ceiling: Cell<Tick>,
    /// How far a virtual clock has jumped; `None` for the real one.
    jumped: Cell<Option<Duration>>,
    /// The last conversion, while it is not near: a busy loop moves every deadline of a turn to the
    /// same instant.
    memo: Cell<(Instant, Tick)>,
    /// The first and the last instant of that tick, to the nanosecond: the next turn's deadlines
    /// fall into the same one, as a rule, and to compare is far cheaper than to subtract.
    span: Cell<(Instant, Instant)>,
}

impl Clock {
    pub(crate) fn new(is_virtual: bool) -> Self {
        let base = Instant::now();
        let clock = Clock {
            base,
            now: Cell::new(base),
            passed: Cell::new(Duration::ZERO),
            tick: Cell::new(Tick::ZERO),
            ceiling: Cell::new(Tick::ZERO),
            jumped: Cell::new(is_virtual.then_some(Duration::ZERO)),
            memo: Cell::new((base, Tick::ZERO)),
            span: Cell::new((base, base)),
        };
        clock.forget();
        clock
    }

    /// Remembers a conversion that is true, and that nobody asks for.
    fn forget(&self) {
        let distant = self.base + DISTANT;
        self.memo.set((distant, self.tick_of(distant)));
        self.span.set((distant, distant));
    }

    pub(crate) fn is_virtual(&self) -> bool {
        self.jumped.get().is_some()
    }

    /// The loop's time.
    #[inline]
    pub(crate) fn now(&self) -> Instant {
        self.now.get()
    }

    /// The loop's time in ticks, rounded down: what has passed for sure.
    #[inline]
    pub(crate) fn tick(&self) -> Tick {
        self.tick.get()
    }

    /// The tick so many after the loop's time: never early.
    #[inline]
    pub(crate) fn tick_after(&self, ticks: u64) -> Tick {
        // Too far is never.
        Tick::new(self.ceiling.get().get().saturating_add(ticks))
    }

    /// As [`Clock::tick_after`], for what can't be too far: less than 2^63, or a time ago.
    #[inline]
    pub(crate) fn tick_soon_after(&self, ticks: u64) -> Tick {
        Tick::new(self.ceiling.get().get().wrapping_add(ticks))
    }

    /// Reads the clock anew and makes that the loop's time.
    pub(crate) fn read(&self) -> Instant {
        let now = match self.jumped.get() {
            None => Instant::now(),
            Some(jumped) => self.base + jumped,
        };
        self.now.set(now);
        let passed = now.saturating_duration_since(self.base);
        self.passed.set(passed);
        // Only a virtual clock comes so far, and it stops at the latest tick.
        let ticks = passed.as_secs().saturating_mul(TICKS_A_SECOND);
        let (part, rest) = (passed.subsec_millis(), passed.subsec_nanos() % NANOS_A_TICK);
        let tick = ticks.saturating_add(u64::from(part)).min(LATEST);
        self.tick.set(Tick::new(tick));
        let more = u64::from(rest > 0);
        self.ceiling.set(Tick::new((tick + more).min(LATEST)));
        if self.is_near(self.memo.get().1) {
            self.forget();
        }
        now
    }

    /// The tick of a deadline, if it is the one that was asked for last: see `memo`.
    #[inline]
    pub(crate) fn known_tick_of(&self, when: Instant) -> Option<Tick> {
        let (known, tick) = self.memo.get();
        (known == when).then_some(tick)
    }

    /// The tick of a deadline that is not near: what is close to the loop's time, which may
    /// be old, needs a fresh reading to tell whether it has passed.
    pub(crate) fn far_tick_of(&self, when: Instant) -> Option<Tick> {
        let (first, last) = self.span.get();
        if first <= when && when <= last {
            let (_, tick) = self.memo.get();
            self.memo.set((when, tick));
            return Some(tick);
        }
        let tick = self.tick_of(when);
        if self.is_near(tick) {
            return None;
        }
        // Only once a second deadline has met the same tick: who sets a new one each time would pay
        // for the span, and have nothing of it.
        let (_, before) = self.memo.replace((when, tick));
        self.span.set(match before == tick {
            true => self.span_of(tick, when),
            false => (when, when),
        });
        Some(tick)
    }

    /// The instants of a tick that lies ahead, of which `when` is one.
    #[cold]
    #[inline(never)]
    fn span_of(&self, tick: Tick, when: Instant) -> (Instant, Instant) {
        let ends = Duration::from_millis(tick.get());
        match self.base.checked_add(ends) {
            Some(last) if last >= when => {
                let first = last - Duration::from_nanos(u64::from(NANOS_A_TICK) - 1);
                (first, last)
            }
            // Too far to be told: the latest tick has no end.
            _ => (when, when),
        }
    }

    fn is_near(&self, tick: Tick) -> bool {
        tick <= self.tick.get().saturating_add(NEAR)
    }

    /// The first tick at which `when` has passed: rounded up, so that nothing is early. What lies
    /// before the clock began is tick 0; what lies too far ahead is the latest tick there is.
    pub(crate) fn tick_of(&self, when: Instant) -> Tick {
        let ahead = when.saturating_duration_since(self.base);
        let ticks = ahead.as_secs().saturating_mul(TICKS_A_SECOND);
        let part = ahead.subsec_nanos().div_ceil(NANOS_A_TICK);
        Tick::new(ticks.saturating_add(u64::from(part)).min(LATEST))
    }

    /// Whether `when` has passed: by the loop's time, or, close to it, by a fresh reading.
    pub(crate) fn has_passed(&self, when: Instant) -> bool {
        when <= self.now.get() || (self.is_near(self.tick_of(when)) && when <= self.read())
    }

    /// How long from the loop's time to the start of `tick`.
    pub(crate) fn until(&self, tick: Tick) -> Duration {
        let (seconds, part) = (tick.get() / TICKS_A_SECOND, tick.get() % TICKS_A_SECOND);
        let ahead = Duration::new(seconds, part as u32 * NANOS_A_TICK);
        ahead.saturating_sub(self.passed.get())
    }

    /// A virtual clock jumps forward; the real one can't be moved.
    pub(crate) fn jump(&self, ahead: Duration) {
        if let Some(jumped) = self.jumped.get() {
            // Instants can't go on for ever: stay within what `base` can be moved by.
            let to = jumped.saturating_add(ahead);
            if self.base.checked_add(to).is_some() {
                self.jumped.set(Some(to));
            }
            self.read();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_that_is_remembered_is_the_one_that_would_be_counted() {
        let clock = Clock::new(true);
        let mut step = 1_u64;
        for round in 0..20_000_u64 {
            // Small steps, each tick's first and last instant, and leaps.
            step = step
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(round)
                % 2_000_003;
            let ahead = match round % 4 {
                0 => Duration::from_nanos(round * 1_000),
                1 => Duration::from_millis(step % 5),
                2 => Duration::from_millis(step % 5) + Duration::from_nanos(1),
                _ => Duration::from_nanos(step),
            };
            let when = clock.base + Duration::from_secs(60) + ahead;
            assert_eq!(
                clock.far_tick_of(when),
                Some(clock.tick_of(when)),
                "{ahead:?}"
            );
            assert_eq!(clock.known_tick_of(when), Some(clock.tick_of(when)));
        }
    }

    #[test]
    fn what_is_near_is_not_remembered_and_what_comes_near_is_forgotten() {
        let clock = Clock::new(true);
        let near = clock.now() + Duration::from_millis(NEAR);
        assert_eq!(clock.far_tick_of(near), None);
        let far = near + Duration::from_millis(1);
        assert!(clock.far_tick_of(far).is_some());
        clock.jump(Duration::from_millis(2));
        assert_eq!(clock.known_tick_of(far), None);
        assert_eq!(clock.far_tick_of(far), None);
    }
}
