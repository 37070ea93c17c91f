//! A bare [`Wheel`] and its owner against a sorted map of every entry.

use std::collections::BTreeMap;

use netpoller::wheel::{Tick, Wheel};

use super::random::with_seeds;
use super::{ALL_LEVELS, END_OF_TIME, LEVELS_WRAP, OPERATIONS, REMEMBERED, Ranges, SECONDS};
use crate::support::random::Random;

/// A bare wheel's owner: the truth about each key, and a sorted map of every entry.
struct WheelModel {
    wheel: Wheel<u32>,
    /// By key: where it really is due; `None` once the entry is stale.
    truth: Vec<Option<Tick>>,
    /// The entries the wheel must hold.
    entries: BTreeMap<(Tick, u32), ()>,
}

impl WheelModel {
    fn place(&mut self, when: Tick) {
        let key = self.truth.len() as u32;
        self.truth.push(Some(when));
        self.entries.insert((when, key), ());
        self.wheel.place(when, key);
    }

    /// Where the entry of `key` at `when` goes.
    fn check_entry(
        truth: &[Option<Tick>],
        entries: &mut BTreeMap<(Tick, u32), ()>,
        (when, key): (Tick, u32),
    ) -> Option<Tick> {
        assert!(
            entries.remove(&(when, key)).is_some(),
            "{key} at {when:?} is not held"
        );
        let later = truth[key as usize].filter(|later| *later > when)?;
        entries.insert((later, key), ());
        Some(later)
    }

    /// A random key that may still be held; old ones are mostly gone.
    fn some_key(&self, random: &mut Random) -> Option<usize> {
        let recent = self.truth.len().min(REMEMBERED) as u64;
        (recent > 0).then(|| self.truth.len() - 1 - random.below(recent) as usize)
    }

    fn lapse(&mut self, key: usize, now: Tick) {
        // An entry whose time has come may be gone. One whose time has not is held.
        if self.truth[key].is_some_and(|when| when > now) {
            self.truth[key] = None;
        }
    }

    fn check(&self, unfinished: bool) {
        assert_eq!(self.wheel.len(), self.entries.len());
        assert_eq!(self.wheel.is_empty(), self.entries.is_empty());
        let first = self
            .entries
            .keys()
            .next()
            .map(|&(when, _)| when.max(self.wheel.elapsed()));
        if unfinished {
            assert!(self.wheel.next() <= first && self.wheel.next() >= Some(self.wheel.elapsed()));
        } else {
            assert_eq!(self.wheel.next(), first, "next() is not exact");
        }
    }
}

fn wheel_walk(ranges: &Ranges, mut random: Random) {
    let mut wheel = Wheel::new();
    wheel.advance(ranges.start, 0, |_, _| unreachable!());
    let mut model = WheelModel {
        wheel,
        truth: vec![],
        entries: BTreeMap::new(),
    };
    let (mut now, mut unfinished) = (ranges.start, false);
    for _ in 0..OPERATIONS {
        let when = random.tick(now, ranges.reach);
        let key = model.some_key(&mut random);
        match (random.below(32), key) {
            (0..=14, _) => model.place(when),
            (15..=19, Some(key)) => model.lapse(key, now),
            (20..=25, Some(key)) => {
                // Later only: a store.
                model.truth[key] = model.truth[key].map(|old| old.max(when));
            }
            (26..=29, _) => {
                now = now.saturating_add(random.distance(ranges.step));
                let budget = random.distance(12) as usize;
                let WheelModel {
                    wheel,
                    truth,
                    entries,
                } = &mut model;
                let (floor, mut last) = (wheel.elapsed(), Tick::ZERO);
                let mut handed = 0;
                unfinished = wheel.advance(now, budget, |when, key| {
                    handed += 1;
                    let tick = when.max(floor);
                    assert!(last <= tick && tick <= now, "{last:?}, {tick:?}, {now:?}");
                    last = tick;
                    WheelModel::check_entry(truth, entries, (when, key))
                });
                assert!(handed <= budget);
                if !unfinished {
                    assert_eq!(wheel.elapsed(), now);
                    let first = entries.keys().next();
                    assert!(first.is_none_or(|&(when, _)| when > now), "late: {first:?}");
                }
            }
            (30, _) if random.one_in(40) => {
                let WheelModel {
                    wheel,
                    truth,
                    entries,
                } = &mut model;
                wheel.compact(|when, key| {
                    let keep = truth[key as usize].is_some();
                    assert!(keep || entries.remove(&(when, key)).is_some());
                    keep
                });
                unfinished = false; // After a compaction `next` is exact again.
            }
            _ => {}
        }
        model.check(unfinished);
    }
}

#[test]
fn next_is_exact_and_entries_come_in_order_within_seconds() {
    with_seeds(|random| wheel_walk(&SECONDS, random));
}

#[test]
fn next_is_exact_and_entries_come_in_order_on_any_level() {
    with_seeds(|random| wheel_walk(&ALL_LEVELS, random));
}

#[test]
fn next_is_exact_and_entries_come_in_order_where_six_levels_wrap() {
    with_seeds(|random| wheel_walk(&LEVELS_WRAP, random));
}

#[test]
fn next_is_exact_and_entries_come_in_order_at_the_end_of_time() {
    with_seeds(|random| wheel_walk(&END_OF_TIME, random));
}
