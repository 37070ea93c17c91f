//! The wheel against a sorted map: millions of random operations, every answer compared.
//!
//! Touches the public API of `netpoller::wheel` only. A failing run prints its seed;
//! `WHEEL_SEED=<seed>` repeats it. Go tests its timers against the clock (time/sleep_test.go);
//! without one, a model can tell the exact tick.

use netpoller::wheel::{Tick, Timers};

mod random;
mod timers;
mod wheel;

/// Operations of each random walk.
const OPERATIONS: usize = 100_000;

/// How many keys a walk remembers, living and dead, to move and cancel.
const REMEMBERED: usize = 2_000;

/// Where a walk starts, and how far its ticks and its steps reach, in bits.
struct Ranges {
    start: Tick,
    reach: u64,
    step: u64,
}

const SECONDS: Ranges = Ranges {
    start: Tick::ZERO,
    reach: 16,
    step: 8,
};
const ALL_LEVELS: Ranges = Ranges {
    start: Tick::new(77),
    reach: 44,
    step: 36,
};
const LEVELS_WRAP: Ranges = Ranges {
    start: Tick::new((1 << 36) - 900_000),
    reach: 20,
    step: 12,
};
const END_OF_TIME: Ranges = Ranges {
    start: Tick::new(u64::MAX - 9_000_000),
    reach: 63,
    step: 9,
};

/// Asserts the bound that keeps the wheel small, and returns the entries there are.
fn bounded<V>(timers: &Timers<V>) -> usize {
    let (entries, live) = (timers.entries(), timers.len());
    assert!(
        entries <= 2 * live + 64,
        "{entries} entries for {live} timers"
    );
    entries
}

#[test]
fn entries_stay_within_twice_the_live_timers_when_near_and_far_alternate() {
    let mut timers = Timers::new();
    let keys: Vec<_> = (0..100)
        .map(|value| timers.insert(Tick::new(1 << 30), value))
        .collect();
    for round in 0..2_000 {
        for key in &keys {
            timers.move_to(*key, Tick::new(10 + round));
            bounded(&timers);
            timers.move_to(*key, Tick::new(1 << 30));
        }
        timers.advance(Tick::new(round), usize::MAX, |_| panic!("early"));
        bounded(&timers);
    }
    assert_eq!(timers.len(), 100);
}

#[test]
fn entries_stay_within_twice_the_live_timers_when_one_keeps_coming_back_to_its_tick() {
    // Each round leaves one more entry at the same tick under the same key.
    let mut timers = Timers::new();
    let far = Tick::new(1 << 40);
    let key = timers.insert(far, ());
    for round in 1..10_000 {
        timers.move_to(key, Tick::new(round));
        timers.move_to(key, far);
        timers.advance(Tick::new(round), usize::MAX, |()| panic!("early"));
        bounded(&timers);
    }
    let mut fired = 0;
    timers.advance(far, usize::MAX, |()| fired += 1);
    assert_eq!((fired, timers.len()), (1, 0));
}

#[test]
fn entries_stay_within_twice_the_live_timers_when_connections_churn() {
    let mut timers = Timers::new();
    for round in 0..100_000u64 {
        let key = timers.insert(Tick::new(round + 3_600_000), round);
        assert!(bounded(&timers) <= 66);
        assert_eq!(timers.cancel(key), Some(round));
        timers.advance(Tick::new(round), 10, |_| panic!("early"));
        assert!(bounded(&timers) <= 64);
    }
}

#[test]
fn entries_stay_within_twice_the_live_timers_when_all_are_canceled() {
    let mut timers = Timers::new();
    let keys: Vec<_> = (0..5_000)
        .map(|when| timers.insert(Tick::new(when), ()))
        .collect();
    for key in keys {
        assert!(timers.cancel(key).is_some());
        bounded(&timers);
    }
}

#[test]
fn entries_stay_within_twice_the_live_timers_when_the_live_ones_fire() {
    let mut timers = Timers::new();
    let far: Vec<_> = (0..150)
        .map(|_| timers.insert(Tick::new(1_000_000), ()))
        .collect();
    for tick in 0..100 {
        timers.insert(Tick::new(tick), ());
    }
    for key in far {
        assert!(timers.cancel(key).is_some());
    }
    for now in 0..100 {
        timers.advance(Tick::new(now), usize::MAX, |()| ());
        bounded(&timers);
    }
    assert_eq!(timers.len(), 0);
}
