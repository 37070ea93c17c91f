//! How long a connection may be quiet, and how often it sends a heartbeat: of all connections of a
//! worker, in the loop's ticks.
//!
//! May touch: nothing. Mirrors `IdleTimeout` of Go's `http.Server`.

use std::cell::Cell;
use std::time::Duration;

/// No deadline: what is added to any time is never.
const NONE: u64 = u64::MAX;

/// Longer than any clock runs, and short enough to be added to the time without a check.
const LONGEST: u64 = 1 << 62;

/// The idle timeout and the heartbeat's interval.
pub(crate) struct Intervals {
    idle: Cell<u64>,
    heartbeat: Cell<u64>,
    /// The shorter of both.
    soonest: Cell<u64>,
}

/// A duration in the loop's ticks, rounded up; zero stays zero, for none.
pub(crate) fn ticks(wait: Duration) -> u64 {
    let ticks = u64::try_from(wait.as_nanos().div_ceil(1_000_000));
    ticks.map_or(LONGEST, |ticks| ticks.min(LONGEST))
}

fn or_none(ticks: u64) -> u64 {
    match ticks {
        0 => NONE,
        ticks => ticks.min(LONGEST),
    }
}

fn or_zero(ticks: u64) -> u64 {
    match ticks {
        NONE => 0,
        ticks => ticks,
    }
}

impl Intervals {
    /// Zero is none.
    pub(crate) fn new(idle: Duration, heartbeat: Duration) -> Self {
        let intervals = Intervals {
            idle: Cell::new(NONE),
            heartbeat: Cell::new(NONE),
            soonest: Cell::new(NONE),
        };
        intervals.set(ticks(idle), ticks(heartbeat));
        intervals
    }

    pub(crate) fn set(&self, idle: u64, heartbeat: u64) {
        let (idle, heartbeat) = (or_none(idle), or_none(heartbeat));
        self.idle.set(idle);
        self.heartbeat.set(heartbeat);
        self.soonest.set(idle.min(heartbeat));
    }

    /// Both are over, and nothing is put off any more: from the loop's time `now` on the shorter
    /// reaches no further than the clock's beginning, where no deadline lies. So whoever has
    /// something to read finds that there is more to do.
    pub(crate) fn end(&self, now: u64) {
        self.set(1, 0);
        // An even number, so that it is not the one for none.
        self.soonest.set((now & !1).wrapping_neg());
    }

    /// Whether there is either.
    #[inline]
    pub(crate) fn are_set(&self) -> bool {
        self.soonest.get() != NONE
    }

    /// Zero for none.
    pub(crate) fn idle(&self) -> u64 {
        or_zero(self.idle.get())
    }

    /// As `idle`.
    pub(crate) fn heartbeat(&self) -> u64 {
        or_zero(self.heartbeat.get())
    }

    /// Both, to be added to the time without overflow, and the shorter, which needs no care.
    #[inline]
    pub(crate) fn to_add(&self) -> ([u64; 2], u64) {
        let both = [self.idle.get(), self.heartbeat.get()];
        (both, self.soonest.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_none_and_the_longest_stays_addable() {
        let intervals = Intervals::new(Duration::ZERO, Duration::ZERO);
        assert!(!intervals.are_set());
        assert_eq!((intervals.idle(), intervals.heartbeat()), (0, 0));
        intervals.set(ticks(Duration::MAX), 0);
        assert!(intervals.are_set());
        assert_eq!((intervals.idle(), intervals.heartbeat()), (LONGEST, 0));
        assert_eq!(intervals.to_add(), ([LONGEST, NONE], LONGEST));
        intervals.set(30, ticks(Duration::from_micros(9_001)));
        assert_eq!(intervals.to_add(), ([30, 10], 10), "rounded up");
        for now in [0, 1, 2, 3, 1000, LONGEST + 1] {
            intervals.end(now);
            assert!(intervals.are_set());
            let (both, soonest) = intervals.to_add();
            assert_eq!(both, [1, NONE]);
            assert!(now.wrapping_add(soonest) < 2, "at the beginning");
        }
    }
}
