//! The wheel against a sorted map: millions of random operations, every answer compared.
//!
//! Touches the public API of `netpoller::wheel` only. A failing run prints its seed;
//! `WHEEL_SEED=<seed>` repeats it. Go tests its timers against the clock (time/sleep_test.go);
//! without one, a model can tell the exact tick.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use netpoller::wheel::{Tick, TimerKey, Timers, Verdict, Wheel};

/// Operations of each random walk.
const OPERATIONS: usize = 250_000;

/// How many keys a walk remembers, living and dead, to move and cancel.
const REMEMBERED: usize = 2_000;

/// SplitMix64: small, and good enough to stir a wheel.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    /// A distance of any magnitude up to `2^bits`: small ones as likely as large ones.
    fn distance(&mut self, bits: u64) -> u64 {
        let magnitude = self.below(bits + 1);
        self.bits().checked_shr(64 - magnitude as u32).unwrap_or(0)
    }

    /// A tick around `now`: mostly later, often beside a slot's boundary, sometimes past.
    fn tick(&mut self, now: Tick, bits: u64) -> Tick {
        let distance = self.distance(bits);
        match self.below(16) {
            0 => Tick::new(now.get().saturating_sub(distance)),
            1..=3 => {
                let span = 1u64 << (6 * self.below(bits / 6 + 1));
                let boundary = (now.get() / span).saturating_add(1 + self.below(3));
                let offset = self.below(3);
                Tick::new(
                    boundary
                        .saturating_mul(span)
                        .saturating_add(offset)
                        .saturating_sub(1),
                )
            }
            _ => now.saturating_add(distance),
        }
    }
}

/// Says which seed failed, when a test does.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to repeat: WHEEL_SEED={}", self.0);
        }
    }
}

/// Runs a walk with a seed that is always the same and with one that never is.
fn with_seeds(walk: impl Fn(Random)) {
    let fresh = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
    let seeds = match std::env::var("WHEEL_SEED") {
        Ok(seed) => vec![seed.parse().expect("WHEEL_SEED is a number")],
        Err(_) => vec![1, fresh()],
    };
    for seed in seeds {
        let _told = Seed(seed);
        walk(Random(seed));
    }
}

/// Where a walk starts, and how far its ticks and its steps reach, in bits.
struct Terrain {
    start: Tick,
    reach: u64,
    step: u64,
}

const SECONDS: Terrain = Terrain {
    start: Tick::ZERO,
    reach: 16,
    step: 8,
};
const ALL_LEVELS: Terrain = Terrain {
    start: Tick::new(77),
    reach: 44,
    step: 36,
};
const LEVELS_WRAP: Terrain = Terrain {
    start: Tick::new((1 << 36) - 900_000),
    reach: 20,
    step: 12,
};
const END_OF_TIME: Terrain = Terrain {
    start: Tick::new(u64::MAX - 9_000_000),
    reach: 63,
    step: 9,
};

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
        let (live, places) = (self.live.len(), self.timers.places());
        assert_eq!(self.timers.len(), live);
        assert_eq!(self.timers.is_empty(), live == 0);
        assert!(places <= 2 * live + 64, "{places} places for {live} timers");
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
            if random.one_in(200) {
                assert_eq!(self.timers.next_live(), Some(first.max(self.now)));
            }
        }
    }
}

fn timers_walk(terrain: &Terrain, mut random: Random) {
    let mut model = TimersModel::new(terrain.start);
    for operation in 0..OPERATIONS {
        let when = random.tick(model.now, terrain.reach);
        // Tides: for a while more come than go, then more go than come.
        let filling = operation / 20_000 % 2 == 0;
        let key = (!model.remembered.is_empty())
            .then(|| model.remembered[random.below(model.remembered.len() as u64) as usize]);
        match (random.below(16), key) {
            (0..=4, _) if filling => model.insert(when, &mut random),
            (0..=1, _) => model.insert(when, &mut random),
            (5..=9, Some(key)) => model.move_to(key, when),
            (10..=12, Some(key)) => model.cancel(key),
            (13, _) => {
                let now = model.now.saturating_add(random.distance(terrain.step));
                let budget = random.distance(10) as usize;
                model.advance(now, budget);
            }
            (14, _) if random.one_in(50) => {
                let now = model
                    .now
                    .saturating_add(random.distance(terrain.reach.min(50)));
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

/// A bare wheel's owner: the truth about each key, and a sorted map of every place.
struct WheelModel {
    wheel: Wheel<u32>,
    /// By key: where it really is due; `None` once the place is stale.
    truth: Vec<Option<Tick>>,
    /// The places the wheel must hold.
    places: BTreeMap<(Tick, u32), ()>,
    stale: usize,
}

impl WheelModel {
    fn place(&mut self, when: Tick) {
        let key = self.truth.len() as u32;
        self.truth.push(Some(when));
        self.places.insert((when, key), ());
        self.wheel.place(when, key);
    }

    fn verdict(
        truth: &[Option<Tick>],
        places: &mut BTreeMap<(Tick, u32), ()>,
        stale: &mut usize,
        (when, key): (Tick, u32),
    ) -> Verdict {
        assert!(
            places.remove(&(when, key)).is_some(),
            "{key} at {when:?} is not held"
        );
        match truth[key as usize] {
            None => {
                *stale -= 1;
                Verdict::Lapsed
            }
            Some(later) if later > when => {
                places.insert((later, key), ());
                Verdict::Again(later)
            }
            Some(_) => Verdict::Done,
        }
    }

    /// A random key that may still be held; old ones are mostly gone.
    fn some_key(&self, random: &mut Random) -> Option<usize> {
        let recent = self.truth.len().min(REMEMBERED) as u64;
        (recent > 0).then(|| self.truth.len() - 1 - random.below(recent) as usize)
    }

    fn lapse(&mut self, key: usize, now: Tick) {
        // What has come may be spent; what has not is surely held.
        if self.truth[key].is_some_and(|when| when > now) {
            self.truth[key] = None;
            self.stale += 1;
            self.wheel.lapse();
        }
    }

    fn check(&self, unfinished: bool) {
        assert_eq!(self.wheel.len(), self.places.len());
        assert_eq!(self.wheel.stale(), self.stale);
        assert_eq!(self.wheel.is_empty(), self.places.is_empty());
        let first = self
            .places
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

fn wheel_walk(terrain: &Terrain, mut random: Random) {
    let mut wheel = Wheel::new();
    wheel.advance(terrain.start, 0, |_, _| unreachable!());
    let mut model = WheelModel {
        wheel,
        truth: vec![],
        places: BTreeMap::new(),
        stale: 0,
    };
    let (mut now, mut unfinished) = (terrain.start, false);
    for _ in 0..OPERATIONS {
        let when = random.tick(now, terrain.reach);
        let key = model.some_key(&mut random);
        match (random.below(32), key) {
            (0..=14, _) => model.place(when),
            (15..=19, Some(key)) => model.lapse(key, now),
            (20..=25, Some(key)) => {
                // Later only: a store.
                model.truth[key] = model.truth[key].map(|old| old.max(when));
            }
            (26..=29, _) => {
                now = now.saturating_add(random.distance(terrain.step));
                let budget = random.distance(12) as usize;
                let WheelModel {
                    wheel,
                    truth,
                    places,
                    stale,
                } = &mut model;
                let (floor, mut last) = (wheel.elapsed(), Tick::ZERO);
                let mut handed = 0;
                unfinished = wheel.advance(now, budget, |when, key| {
                    handed += 1;
                    let tick = when.max(floor);
                    assert!(last <= tick && tick <= now, "{last:?}, {tick:?}, {now:?}");
                    last = tick;
                    WheelModel::verdict(truth, places, stale, (when, key))
                });
                assert!(handed <= budget);
                if !unfinished {
                    assert_eq!(wheel.elapsed(), now);
                    let first = places.keys().next();
                    assert!(first.is_none_or(|&(when, _)| when > now), "late: {first:?}");
                }
            }
            (30, _) if random.one_in(40) || model.wheel.overgrown() => {
                let WheelModel {
                    wheel,
                    truth,
                    places,
                    stale,
                } = &mut model;
                wheel.compact(|when, key| {
                    let keep = truth[key as usize].is_some();
                    assert!(keep || places.remove(&(when, key)).is_some());
                    keep
                });
                *stale = 0;
                unfinished = false; // Half a cascade is exact again.
            }
            (31, _) if random.one_in(10) => {
                let WheelModel {
                    wheel,
                    truth,
                    places,
                    stale,
                } = &mut model;
                let elapsed = wheel.elapsed();
                let next = wheel.next_live(|when, key| {
                    let verdict = WheelModel::verdict(truth, places, stale, (when, key));
                    if verdict == Verdict::Done {
                        places.insert((when, key), ());
                    }
                    verdict
                });
                assert_eq!(wheel.elapsed(), elapsed);
                let live = places
                    .keys()
                    .filter(|(_, key)| truth[*key as usize].is_some());
                let due = live.map(|(_, key)| truth[*key as usize].expect("is live"));
                assert_eq!(next, due.min().map(|when| when.max(elapsed)));
                unfinished = false;
            }
            _ => {}
        }
        model.check(unfinished);
    }
}

#[test]
fn next_is_exact_and_places_come_in_order_within_seconds() {
    with_seeds(|random| wheel_walk(&SECONDS, random));
}

#[test]
fn next_is_exact_and_places_come_in_order_on_any_level() {
    with_seeds(|random| wheel_walk(&ALL_LEVELS, random));
}

#[test]
fn next_is_exact_and_places_come_in_order_where_six_levels_wrap() {
    with_seeds(|random| wheel_walk(&LEVELS_WRAP, random));
}

#[test]
fn next_is_exact_and_places_come_in_order_at_the_end_of_time() {
    with_seeds(|random| wheel_walk(&END_OF_TIME, random));
}

/// Asserts the bound that keeps the wheel small, and returns the places there are.
fn bounded<V>(timers: &Timers<V>) -> usize {
    let (places, live) = (timers.places(), timers.len());
    assert!(places <= 2 * live + 64, "{places} places for {live} timers");
    places
}

#[test]
fn places_stay_within_twice_the_live_timers_when_near_and_far_alternate() {
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
fn places_stay_within_twice_the_live_timers_when_one_keeps_coming_back_to_its_tick() {
    // Each round leaves one more place at the same tick under the same key.
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
fn places_stay_within_twice_the_live_timers_when_connections_churn() {
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
fn places_stay_within_twice_the_live_timers_when_all_are_canceled() {
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
fn places_stay_within_twice_the_live_timers_when_the_live_ones_fire() {
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
