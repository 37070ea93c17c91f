//! Edge cases of the wheel. The model in tests/it/wheel/model.rs tests all else.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Tick, Wheel};

const SECOND: u64 = 1_000;
const YEAR: u64 = 365 * 24 * 3_600 * SECOND;

fn tick(count: u64) -> Tick {
    Tick::new(count)
}

/// A wheel that has come to `elapsed`.
fn wheel_at(elapsed: u64) -> Wheel<u64> {
    let mut wheel = Wheel::new();
    assert!(!wheel.advance(tick(elapsed), 0, |_, _| unreachable!()));
    wheel
}

/// Advances to `now` with no limit, and returns the keys that come out.
fn due(wheel: &mut Wheel<u64>, now: u64) -> Vec<u64> {
    let mut keys = Vec::new();
    let more = wheel.advance(tick(now), usize::MAX, |_, key| {
        keys.push(key);
        None
    });
    assert!(!more);
    keys
}

/// What [`due`] returns if nothing is due.
const NOTHING: [u64; 0] = [];

/// Values of `elapsed`: at, before and after the slots' boundaries, and far out.
fn elapsed_values() -> Vec<u64> {
    let mut values = vec![0, 1, 77, 3 * YEAR + 12_345, 1_000 * YEAR, u64::MAX - 5];
    for level in 1..=10 {
        let span = 64u64.pow(level);
        values.extend([span - 1, span, span + 1, 5 * span - 1]);
    }
    values
}

/// The ticks after `elapsed` where something could go wrong: one slot of each level away, and
/// where a slot of each level begins.
fn corners(elapsed: u64) -> Vec<u64> {
    let mut corners = vec![elapsed.saturating_add(1), u64::MAX - 1, u64::MAX];
    for level in 0..=10 {
        let span = 64u64.pow(level);
        let next = (elapsed / span).saturating_add(1).saturating_mul(span);
        for corner in [elapsed.saturating_add(span), next] {
            corners.extend([corner - 1, corner, corner.saturating_add(1)]);
        }
    }
    corners.retain(|&corner| corner > elapsed);
    corners.sort_unstable();
    corners.dedup();
    corners
}

#[test]
fn an_entry_comes_out_at_its_tick_and_not_before_on_either_side_of_every_boundary() {
    for elapsed in elapsed_values() {
        for when in corners(elapsed) {
            let mut wheel = wheel_at(elapsed);
            wheel.place(tick(when), when);
            assert_eq!(wheel.next(), Some(tick(when)), "from {elapsed}");
            assert_eq!(due(&mut wheel, when - 1), NOTHING, "early, from {elapsed}");
            assert_eq!(wheel.next(), Some(tick(when)), "from {elapsed}");
            assert_eq!(due(&mut wheel, when), [when], "late, from {elapsed}");
            assert_eq!((wheel.next(), wheel.len()), (None, 0));
        }
    }
}

#[test]
fn a_far_deadline_wakes_nothing_before_its_time() {
    let mut wheel = wheel_at(10);
    let when = 3 * YEAR + 1;
    wheel.place(tick(when), 0);
    // A sleep until next() is one sleep; turning the wheel meanwhile changes nothing.
    for now in [11, 63, 64, 4096, 64 * 4096, YEAR, 2 * YEAR, when - 1] {
        assert_eq!(due(&mut wheel, now), NOTHING);
        assert_eq!(wheel.next(), Some(tick(when)));
    }
    assert_eq!(due(&mut wheel, when), [0]);
}

#[test]
fn what_has_come_already_comes_out_with_the_next_advance() {
    let mut wheel = wheel_at(100);
    wheel.place(tick(99), 99);
    wheel.place(tick(100), 100);
    wheel.place(tick(0), 0);
    assert_eq!(wheel.next(), Some(tick(100)));
    // A `now` before `elapsed` counts as `elapsed`.
    let mut keys = due(&mut wheel, 50);
    keys.sort_unstable();
    assert_eq!(keys, [0, 99, 100]);
    assert_eq!(wheel.elapsed(), tick(100));
}

#[test]
fn a_budget_bounds_what_is_handed_out() {
    let mut wheel = wheel_at(0);
    for key in 0..10 {
        wheel.place(tick(5 + key / 3), key);
    }
    let mut keys = Vec::new();
    for expected in [0, 4, 8, 10] {
        let budget = if expected == 0 { 0 } else { 4 };
        let more = wheel.advance(tick(9), budget, |_, key| {
            keys.push(key / 3);
            None
        });
        assert_eq!((keys.len(), more), (expected, expected < 10));
    }
    assert!(keys.is_sorted());
}

#[test]
fn a_budget_that_is_just_enough_leaves_nothing_to_do() {
    let mut wheel = wheel_at(0);
    for key in 0..300 {
        wheel.place(tick(5), key);
    }
    assert!(!wheel.advance(tick(5), 300, |_, _| None));
    assert_eq!((wheel.len(), wheel.next()), (0, None));
}

#[test]
fn few_entries_cascade_for_nothing() {
    let mut wheel = wheel_at(0);
    for key in 0..10 {
        wheel.place(tick(64u64.pow(key)), 0);
    }
    assert!(!wheel.advance(Tick::MAX, 10, |_, _| None));
    assert!(wheel.is_empty());
}

#[test]
fn a_budget_bounds_how_much_of_a_full_slot_cascades() {
    let mut wheel = wheel_at(0);
    for key in 0..16_000 {
        wheel.place(tick(4_100 + key % 1_000), key);
    }
    let (mut calls, mut handed, mut last) = (0, 0, Tick::ZERO);
    loop {
        calls += 1;
        let more = wheel.advance(tick(5_000), 1, |when, _| {
            assert!(last <= when && when <= tick(5_000));
            (handed, last) = (handed + 1, when);
            None
        });
        if !more {
            break;
        }
        assert!(
            wheel.next() <= Some(tick(5_000)),
            "unfinished: call again now"
        );
        if calls == 10 {
            wheel.place(tick(4_500), 0); // what is placed meanwhile is kept as well
        }
    }
    assert_eq!((handed, wheel.len()), (901 * 16 + 1, 99 * 16));
    assert_eq!(wheel.next(), Some(tick(5_001)));
    assert!(calls >= handed + 16_000 / 16, "{calls} calls");
}

#[test]
fn a_late_entry_that_moved_on_but_not_past_now_comes_out_at_once() {
    let mut wheel = wheel_at(100);
    wheel.place(tick(3), 3);
    let mut seen = Vec::new();
    wheel.advance(tick(100), usize::MAX, |when, _| {
        seen.push(when.get());
        if when < tick(50) {
            Some(tick(50))
        } else {
            None
        }
    });
    assert_eq!(seen, [3, 50]);
}

#[test]
fn a_budget_ends_an_advance_whose_owner_moves_nothing_on() {
    let mut wheel = wheel_at(0);
    wheel.place(tick(5), 5);
    assert!(wheel.advance(tick(YEAR), 100, |when, _| Some(when)));
    assert_eq!((wheel.len(), wheel.next()), (1, Some(tick(5))));
}

#[test]
fn a_panicking_owner_loses_only_the_entry_it_was_handed() {
    let mut wheel = wheel_at(0);
    for key in 0..3 {
        wheel.place(tick(5), key);
    }
    wheel.place(tick(6), 6);
    let caught = catch_unwind(AssertUnwindSafe(|| {
        wheel.advance(tick(5), usize::MAX, |_, _| panic!("the owner's own fault"));
    }));
    assert!(caught.is_err());
    assert_eq!(wheel.len(), 3);
    assert_eq!(wheel.next(), Some(tick(5)));
    assert_eq!(due(&mut wheel, 5).len(), 2);
    assert_eq!(due(&mut wheel, 6), [6]);
}

#[test]
fn compaction_may_come_in_the_middle_of_a_cascade() {
    let mut wheel = wheel_at(0);
    for key in 0..1_000 {
        wheel.place(tick(4_096 + key), key);
    }
    let mut handed = 0;
    assert!(wheel.advance(tick(4_100), 10, |_, _| {
        handed += 1;
        None
    }));
    wheel.compact(|_, key| key >= 100);
    assert_eq!((handed, wheel.next()), (0, Some(tick(4_196))));
    assert_eq!(due(&mut wheel, YEAR), (100..1_000).collect::<Vec<_>>());
}
