//! [`Timers`] against a sorted set of deadlines.

use std::collections::{BTreeSet, HashMap};

use netpoller::wheel::{Tick, TimerKey, Timers};

use super::random::with_seeds;
use super::{ALL_LEVELS, END_OF_TIME, LEVELS_WRAP, OPERATIONS, REMEMBERED, Ranges, SECONDS};
use crate::support::random::Random;

/// Timers, and what a sorted map makes of the same operations.
struct TimersModel {
    timers: Timers<u64>,
    /// Every live timer by its key: when it is due, and the value it carries.
    live: HashMap<TimerKey, (Tick, u64)>,
    due: BTreeSet<(Tick, u64)>,
    /// The value names the key.
    keys: HashMap<u64, TimerKey>,
    remembered: Vec<TimerKey>,
    now: Tick,
    values: u64,
    /// The last advance ran out of budget: the wheel is somewhere before `now`.
    unfinished: bool,
}

impl TimersModel {
    fn new(start: Tick) -> Self {
        let mut timers = Timers::new();
        assert!(!timers.advance(start, 0, |_| unreachable!()));
        TimersModel {
            timers,
            live: HashMap::new(),
            due: BTreeSet::new(),
            keys: HashMap::new(),
            remembered: Vec::new(),
            now: start,
            values: 0,
            unfinished: false,
        }
    }

    fn insert(&mut self, when: Tick, random: &mut Random) {
        self.values += 1;
        let key = self.timers.insert(when, self.values);
        assert!(
            self.live.insert(key, (when, self.values)).is_none(),
            "a key was given out twice"
        );
        self.due.insert((when, self.values));
        self.keys.insert(self.values, key);
        if self.remembered.len() < REMEMBERED {
            self.remembered.push(key);
        } else {
            self.remembered[random.below(REMEMBERED as u64) as usize] = key;
        }
    }

    fn move_to(&mut self, key: TimerKey, when: Tick) {
        let live = self.live.get_mut(&key);
        assert_eq!(self.timers.move_to(key, when), live.is_some());
        if let Some((old, value)) = live {
            assert!(self.due.remove(&(*old, *value)));
            self.due.insert((when, *value));
            *old = when;
        }
    }

    fn cancel(&mut self, key: TimerKey) {
        let live = self.live.remove(&key);
        assert_eq!(self.timers.get(key).copied(), live.map(|(_, value)| value));
        assert_eq!(self.timers.when(key), live.map(|(when, _)| when));
        assert_eq!(self.timers.cancel(key), live.map(|(_, value)| value));
        if let Some((when, value)) = live {
            assert!(self.due.remove(&(when, value)));
            self.keys.remove(&value);
        }
    }

    fn advance(&mut self, now: Tick, budget: usize) {
        let floor = self.now;
        let ordered = !self.unfinished;
        let mut fired = Vec::new();
        let more = self.timers.advance(now, budget, |value| fired.push(value));
        assert!(
            fired.len() <= budget,
            "{} fired with a budget of {budget}",
            fired.len()
        );
        let mut last = Tick::ZERO;
        for value in fired {
            let key = self
                .keys
                .remove(&value)
                .expect("fired twice, or after it was canceled");
            let (when, _) = self.live.remove(&key).expect("keys and live agree");
            assert!(self.due.remove(&(when, value)));
            assert!(when <= now, "{when:?} fired at {now:?}: early");
            // What had come before this advance counts as due at its start.
            let tick = when.max(floor);
            assert!(!ordered || last <= tick, "{tick:?} fired after {last:?}");
            last = tick;
        }
        if !more && let Some((when, _)) = self.due.first() {
            assert!(*when > now, "{when:?} has not fired at {now:?}: late");
        }
        self.now = now;
        self.unfinished = more;
    }

    fn check(&mut self, random: &mut Random) {
        let (live, entries) = (self.live.len(), self.timers.entries());
        assert_eq!(self.timers.len(), live);
        assert_eq!(self.timers.is_empty(), live == 0);
        assert!(
            entries <= 2 * live + 64,
            "{entries} entries for {live} timers"
        );
        let Some(&(first, _)) = self.due.first() else {
            return;
        };
        let next = self.timers.next().expect("timers are held");
        assert!(
            next <= first.max(self.now),
            "next() oversleeps: {next:?}, not {first:?}"
        );
        if !self.unfinished {
            assert!(next >= self.now);
        }
        if random.one_in(200) {
            assert_eq!(self.timers.next_live(), Some(first));
        }
    }
}

fn timers_walk(ranges: &Ranges, mut random: Random) {
    let mut model = TimersModel::new(ranges.start);
    for operation in 0..OPERATIONS {
        let when = random.tick(model.now, ranges.reach);
        // For a while more come than go, then more go than come.
        let filling = operation / 20_000 % 2 == 0;
        let key = (!model.remembered.is_empty())
            .then(|| model.remembered[random.below(model.remembered.len() as u64) as usize]);
        match (random.below(16), key) {
            (0..=4, _) if filling => model.insert(when, &mut random),
            (0..=1, _) => model.insert(when, &mut random),
            (5..=9, Some(key)) => model.move_to(key, when),
            (10..=12, Some(key)) => model.cancel(key),
            (13, _) => {
                let now = model.now.saturating_add(random.distance(ranges.step));
                let budget = random.distance(10) as usize;
                model.advance(now, budget);
            }
            (14, _) if random.one_in(50) => {
                let now = model
                    .now
                    .saturating_add(random.distance(ranges.reach.min(50)));
                model.advance(now, usize::MAX);
                assert!(!model.unfinished);
            }
            _ => {}
        }
        model.check(&mut random);
    }
    model.advance(Tick::MAX, usize::MAX);
    assert!(
        model.timers.is_empty() && model.live.is_empty(),
        "a timer was lost"
    );
}

#[test]
fn no_timer_is_ever_early_late_or_lost_within_seconds() {
    with_seeds(|random| timers_walk(&SECONDS, random));
}

#[test]
fn no_timer_is_ever_early_late_or_lost_on_any_level() {
    with_seeds(|random| timers_walk(&ALL_LEVELS, random));
}

#[test]
fn no_timer_is_ever_early_late_or_lost_where_six_levels_wrap() {
    with_seeds(|random| timers_walk(&LEVELS_WRAP, random));
}

#[test]
fn no_timer_is_ever_early_late_or_lost_at_the_end_of_time() {
    with_seeds(|random| timers_walk(&END_OF_TIME, random));
}
