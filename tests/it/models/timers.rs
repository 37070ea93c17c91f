//! Timers on the wheel against a sorted list.

use std::collections::BTreeSet;

use netpoller::wheel::{Tick, TimerKey, Timers};

use super::choices::Choices;

/// A distance of any magnitude.
fn distance(choices: &mut Choices) -> u64 {
    let bits = choices.below(48);
    let low = u64::from(choices.byte()) | u64::from(choices.byte()) << 8;
    (1 << bits) | (low & ((1 << bits) - 1))
}

/// Runs the program that `bytes` spell.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut timers = Timers::new();
    // By the value: its key, and when it is due while it lives.
    let mut all: Vec<(TimerKey, Option<Tick>)> = Vec::new();
    let mut due: BTreeSet<(Tick, usize)> = BTreeSet::new();
    let mut now = Tick::ZERO;
    let mut unfinished = false;
    while !choices.is_empty() {
        let when = match choices.below(8) {
            0 => Tick::new(now.get().saturating_sub(distance(&mut choices))),
            1 => Tick::MAX,
            _ => now.saturating_add(distance(&mut choices)),
        };
        let value = choices.below(all.len().clamp(1, 256));
        match (choices.below(6), all.get(value).copied()) {
            (0 | 1, _) | (_, None) => {
                let key = timers.insert(when, all.len());
                due.insert((when, all.len()));
                all.push((key, Some(when)));
            }
            (2, Some((key, before))) => {
                assert_eq!(timers.move_to(key, when), before.is_some());
                if let Some(before) = before {
                    due.remove(&(before, value));
                    due.insert((when, value));
                    all[value].1 = Some(when);
                }
            }
            (3, Some((key, before))) => {
                assert_eq!(timers.when(key), before);
                assert_eq!(timers.cancel(key), before.map(|_| value));
                if let Some(before) = before {
                    due.remove(&(before, value));
                    all[value].1 = None;
                }
            }
            _ => {
                let from = now;
                if choices.below(2) == 1 {
                    now = now.saturating_add(distance(&mut choices));
                }
                let budget = choices.below(64);
                let mut fired = Vec::new();
                let more = timers.advance(now, budget, |value| fired.push(value));
                assert!(fired.len() <= budget);
                let mut last = Tick::ZERO;
                for value in fired {
                    let when = all[value].1.take().expect("it fires once, and lives");
                    assert!(when <= now, "early: {when:?} at {now:?}");
                    // What had come before counts as due at the beginning.
                    let tick = when.max(from);
                    assert!(unfinished || last <= tick, "{tick:?} after {last:?}");
                    last = tick;
                    due.remove(&(when, value));
                }
                let first = due.first().map(|(when, _)| *when);
                assert!(
                    more || first.is_none_or(|first| first > now),
                    "late: {first:?}"
                );
                unfinished = more;
            }
        }
        assert_eq!(
            (timers.len(), timers.is_empty()),
            (due.len(), due.is_empty())
        );
        assert!(timers.entries() <= 2 * due.len() + 64);
        if let Some((first, _)) = due.first() {
            let next = timers.next().expect("something is held");
            assert!(next <= *first.max(&now), "it oversleeps");
        }
    }
}
