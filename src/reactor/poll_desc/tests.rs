//! The descriptor against a plain model: every sequence of operations up to a depth, over a real
//! wheel, every answer compared.
//!
//! Sequences that lead to the same state are walked on once. Each step also checks the wheel: the
//! number of places that no longer count is known exactly, and no deadline is without a place.

use std::collections::HashSet;

use super::*;
use crate::wheel::{Verdict, Wheel};

/// Operations in a row. The walk meets every state that so many can lead to.
const DEPTH: usize = 6;

const HUNG: Readiness = Readiness(Readiness::READ.0 | Readiness::WRITE.0 | Readiness::HUNG_UP.0);
const URGENT_READ: Readiness = Readiness(Readiness::READ.0 | Readiness::URGENT.0);

/// What can be done to a descriptor.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Park(Direction),
    ParkShort(Direction),
    Unpark(Direction),
    ParkHangUp,
    Drained(Direction),
    /// The selector's word, and a turn that expires up to the harvest before.
    Busy(Readiness),
    /// A turn without readiness, so many ticks later.
    Quiet(u64),
    /// A deadline so many ticks ahead; zero is now.
    Deadline(Direction, Option<u64>),
    /// Both deadlines, as a connection pushes them.
    Both([Option<u64>; 2]),
    Evict,
    Compact,
    NextLive,
}

fn steps() -> Vec<Step> {
    let mut steps = vec![
        Step::ParkHangUp,
        Step::Busy(Readiness::READ),
        Step::Busy(Readiness::WRITE),
        Step::Busy(HUNG),
        Step::Busy(URGENT_READ),
        Step::Busy(Readiness::NONE),
        Step::Quiet(1),
        Step::Quiet(2),
        Step::Both([Some(1), Some(3)]),
        Step::Both([Some(3), None]),
        Step::Evict,
        Step::Compact,
        Step::NextLive,
    ];
    for direction in BOTH {
        steps.extend([Step::Park(direction), Step::Drained(direction)]);
        steps.extend([Step::ParkShort(direction), Step::Unpark(direction)]);
        steps.extend([None, Some(0), Some(1), Some(3)].map(|at| Step::Deadline(direction, at)));
    }
    steps
}

/// One direction, told plainly.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
struct Side {
    ready: bool,
    expired: bool,
    parked: bool,
    deadline: Option<u64>,
    /// The turn's limit at which it was spared.
    spared: Option<u64>,
}

/// The descriptor, told plainly.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
struct Model {
    sides: [Side; 2],
    hang_up_parked: bool,
    hung_up: bool,
    urgent: bool,
    closed: bool,
}

impl Model {
    fn refusal(&self, direction: Direction) -> Option<Refusal> {
        match self.sides[direction as usize] {
            _ if self.closed => Some(Refusal::Closed),
            Side { expired: true, .. } => Some(Refusal::TimedOut),
            _ => None,
        }
    }

    fn ready(&mut self, readiness: Readiness, out: &mut Vec<usize>) {
        if self.closed {
            return;
        }
        for direction in BOTH {
            let side = &mut self.sides[direction as usize];
            if readiness.contains(Readiness::of(direction)) {
                side.ready = true;
                out.extend(std::mem::take(&mut side.parked).then_some(direction as usize));
            }
        }
        self.urgent |= readiness.contains(Readiness::URGENT);
        if readiness.contains(Readiness::HUNG_UP) {
            self.hung_up = true;
            out.extend(std::mem::take(&mut self.hang_up_parked).then_some(HANG_UP));
        }
    }

    /// Deadlines up to `limit` have passed; `fresh` if this turn's harvest named the descriptor.
    fn expire(&mut self, limit: u64, fresh: bool, out: &mut Vec<usize>) {
        for (at, side) in self.sides.iter_mut().enumerate() {
            let passed = side.deadline.is_some_and(|when| when <= limit);
            let looked_at = side.spared.is_some_and(|spared| limit <= spared);
            if !passed || looked_at {
                continue;
            }
            if fresh && side.ready && side.spared.is_none() {
                side.spared = Some(limit);
                continue;
            }
            (side.deadline, side.spared, side.expired) = (None, None, true);
            out.extend(std::mem::take(&mut side.parked).then_some(at));
        }
    }

    fn evict(&mut self, out: &mut Vec<usize>) {
        self.closed = true;
        for (at, side) in self.sides.iter_mut().enumerate() {
            (side.deadline, side.spared) = (None, None);
            out.extend(std::mem::take(&mut side.parked).then_some(at));
        }
        out.extend(std::mem::take(&mut self.hang_up_parked).then_some(HANG_UP));
    }
}

/// A descriptor with its wheel, as the reactor keeps them, and the model.
struct Pair {
    state: State<usize>,
    wheel: Wheel<u32>,
    placings: u32,
    stamp: u16,
    now: u64,
    /// The time of the last complete harvest.
    harvested: u64,
    model: Model,
}

impl Pair {
    fn new() -> Self {
        Pair {
            state: State::new(false),
            wheel: Wheel::new(),
            placings: 0,
            stamp: 0,
            now: 0,
            harvested: 0,
            model: Model::default(),
        }
    }

    fn replay(path: &[Step]) -> Self {
        let mut pair = Pair::new();
        for &step in path {
            pair.step(step);
        }
        pair
    }

    /// Does one thing to both and compares what they say.
    fn step(&mut self, step: Step) {
        let (mut said, mut expected) = (Vec::new(), Vec::new());
        match step {
            Step::Park(direction) => self.park(direction),
            Step::ParkShort(direction) => self.park_short(direction),
            Step::Unpark(direction) => {
                said.extend(self.state.unpark(direction));
                let parked = &mut self.model.sides[direction as usize].parked;
                expected.extend(std::mem::take(parked).then_some(direction as usize));
            }
            Step::ParkHangUp => self.park_hang_up(),
            Step::Drained(direction) => {
                self.state.drained(direction);
                self.model.sides[direction as usize].ready = false;
                self.model.urgent &= direction == Direction::Write;
            }
            Step::Busy(readiness) => {
                self.turn(1, Some(readiness), &mut said);
                self.model.ready(readiness, &mut expected);
                self.model.expire(self.harvested, true, &mut expected);
                self.harvested = self.now;
            }
            Step::Quiet(ticks) => {
                self.turn(ticks, None, &mut said);
                self.model.expire(self.now, false, &mut expected);
                self.harvested = self.now;
            }
            Step::Deadline(direction, at) => self.deadline(direction, at, &mut said, &mut expected),
            Step::Both(at) => self.both(at),
            Step::Evict => {
                if self.state.evict(&mut |w| said.push(w)) {
                    self.wheel.lapse();
                }
                self.model.evict(&mut expected);
            }
            Step::Compact => self.wheel.compact(|_, number| self.state.keeps(number)),
            Step::NextLive => self.next_live(),
        }
        // Who comes first within one event is nobody's promise.
        said.sort_unstable();
        expected.sort_unstable();
        assert_eq!(said, expected, "who is handed back");
        self.compare();
    }

    fn park(&mut self, direction: Direction) {
        let side = self.model.sides[direction as usize];
        let w = direction as usize;
        let expected = match self.model.refusal(direction) {
            Some(Refusal::Closed) => Park::Closed(w),
            Some(Refusal::TimedOut) => Park::TimedOut(w),
            None if side.ready => Park::Ready(w),
            // A second waiter panics: shown elsewhere.
            None if side.parked => return,
            None => Park::Parked,
        };
        assert_eq!(self.state.park(direction, w), expected);
        let side = &mut self.model.sides[direction as usize];
        match expected {
            Park::Ready(_) => side.ready = false,
            Park::Parked => side.parked = true,
            _ => {}
        }
    }

    fn park_short(&mut self, direction: Direction) {
        let side = self.model.sides[direction as usize];
        let w = direction as usize;
        let proves_nothing = self.model.hung_up || self.model.urgent;
        let expected = match self.model.refusal(direction) {
            Some(Refusal::Closed) => Park::Closed(w),
            Some(Refusal::TimedOut) => Park::TimedOut(w),
            None if proves_nothing => Park::Ready(w),
            None if side.parked => return,
            None => Park::Parked,
        };
        assert_eq!(self.state.park_short(direction, w), expected);
        if expected == Park::Parked {
            let side = &mut self.model.sides[direction as usize];
            (side.ready, side.parked) = (false, true);
        }
    }

    fn park_hang_up(&mut self) {
        let (park, earlier) = self.state.park_hang_up(HANG_UP);
        let expected = match () {
            () if self.model.closed => Park::Closed(HANG_UP),
            () if self.model.hung_up => Park::Ready(HANG_UP),
            () => Park::Parked,
        };
        assert_eq!(park, expected);
        assert_eq!(earlier.is_some(), self.model.hang_up_parked);
        self.model.hang_up_parked |= park == Park::Parked;
    }

    /// As the reactor: unpark the ready, then expire.
    fn turn(&mut self, ticks: u64, readiness: Option<Readiness>, out: &mut Vec<usize>) {
        self.now += ticks;
        self.stamp = self.stamp.wrapping_add(1);
        let (limit, stamp) = match readiness {
            Some(readiness) => {
                let reader = self.state.ready(readiness, self.stamp, out);
                out.extend(reader);
                (self.harvested, Some(self.stamp))
            }
            None => (self.now, None),
        };
        let mut unpark = |w| out.push(w);
        let limit = Tick::new(limit);
        let state = &self.state;
        self.wheel.advance(limit, 100, |_, number| {
            match state.expire(number, limit, stamp, &mut unpark) {
                Due::Lapsed => Verdict::Lapsed,
                Due::Nothing => Verdict::Done,
                Due::Again(when) => Verdict::Again(when),
            }
        });
    }

    fn deadline(
        &mut self,
        direction: Direction,
        at: Option<u64>,
        said: &mut Vec<usize>,
        expected: &mut Vec<usize>,
    ) {
        let when = at.map(|ahead| self.now + ahead);
        if at == Some(0) {
            if self.model.closed {
                return;
            }
            let (w, placing) = self.state.expire_now(direction);
            said.extend(w);
            self.place(placing);
        } else {
            // As the reactor: a store, if that will do.
            let when = when.map_or(NEVER, Tick::new);
            if when == NEVER || !self.state.put_off(direction, when) {
                let placing = self.state.set_deadline(direction, when);
                self.place(placing);
            }
        }
        if self.model.closed {
            return;
        }
        let side = &mut self.model.sides[direction as usize];
        side.spared = None;
        side.expired = at == Some(0);
        side.deadline = if at == Some(0) { None } else { when };
        if side.expired {
            expected.extend(std::mem::take(&mut side.parked).then_some(direction as usize));
        }
    }

    fn both(&mut self, at: [Option<u64>; 2]) {
        let when = at.map(|at| at.map(|ahead| self.now + ahead));
        let ticks = when.map(|when| when.map_or(NEVER, Tick::new));
        let put_off = self.state.put_off_both(ticks[0].min(ticks[1]), || ticks);
        for direction in BOTH {
            let (when, tick) = (when[direction as usize], ticks[direction as usize]);
            // As a connection: if that is not all, each that there is.
            if !put_off && (when.is_none() || self.model.closed) {
                continue;
            }
            if !put_off && !self.state.put_off(direction, tick) {
                let placing = self.state.set_deadline(direction, tick);
                self.place(placing);
            }
            let side = &mut self.model.sides[direction as usize];
            (side.deadline, side.spared, side.expired) = (when, None, false);
        }
    }

    fn place(&mut self, placing: Placing) {
        match placing {
            Placing::Keep => {}
            Placing::Idle => self.wheel.lapse(),
            Placing::Revive => self.wheel.revive(),
            Placing::Place { when, left_behind } => {
                self.placings += 1;
                self.state.number_place(self.placings);
                self.wheel.place(when, self.placings);
                if left_behind {
                    self.wheel.lapse();
                }
            }
        }
    }

    fn next_live(&mut self) {
        let state = &self.state;
        let next = self
            .wheel
            .next_live(|when, number| match state.due(number) {
                Due::Again(later) if later > when => Verdict::Again(later),
                Due::Again(_) => Verdict::Done,
                _ => Verdict::Lapsed,
            });
        let deadlines = self.model.sides.iter().filter_map(|side| {
            // One that was spared is looked at again when its limit has passed.
            side.deadline
                .map(|when| side.spared.map_or(when, |limit| limit + 1))
        });
        let elapsed = self.wheel.elapsed();
        let expected = deadlines.min().map(|when| Tick::new(when).max(elapsed));
        assert_eq!(next, expected, "where a virtual clock would stop");
    }

    fn compare(&self) {
        for direction in BOTH {
            let side = self.model.sides[direction as usize];
            // Of what is closed nobody asks whether it is ready.
            let ready = self.state.is_ready(direction);
            assert!(
                ready == side.ready || self.state.is_closed(),
                "{direction:?}"
            );
            let refusal = self.state.check(direction).err();
            assert_eq!(refusal, self.model.refusal(direction), "{direction:?}");
        }
        if !self.state.is_closed() {
            assert_eq!(self.state.is_hung_up(), self.model.hung_up);
            let proof = !self.model.hung_up && !self.model.urgent;
            assert_eq!(self.state.short_means_drained(), proof);
        }
        assert_eq!(self.state.is_closed(), self.model.closed);
        let parked = self.model.sides.iter().filter(|side| side.parked).count();
        let parked = parked + usize::from(self.model.hang_up_parked);
        assert_eq!(self.state.waiting(), parked);
        // The wheel: what is not stale is this descriptor's one place, and only if it has a deadline.
        let armed = self.model.sides.iter().any(|side| side.deadline.is_some());
        assert_eq!(self.wheel.len() - self.wheel.stale(), usize::from(armed));
        if armed {
            let next = self.wheel.next().expect("a place stands for the deadline");
            let deadlines = self.model.sides.iter().filter_map(|side| side.deadline);
            let earliest = deadlines.min().unwrap_or(u64::MAX);
            let spared = self.model.sides.iter().filter_map(|side| side.spared).max();
            let latest = earliest.max(spared.map_or(0, |limit| limit + 1));
            assert!(
                next <= Tick::new(latest).max(self.wheel.elapsed()),
                "it comes up in time"
            );
        }
    }

    /// The whole of it, with times from now: two pairs of one key go on alike.
    fn key(&mut self) -> Key {
        let now = self.now;
        let from_now = |tick: u64| tick.wrapping_sub(now);
        let mut model = self.model.clone();
        for side in &mut model.sides {
            side.deadline = side.deadline.map(from_now);
            side.spared = side.spared.map(from_now);
        }
        let mut places = Vec::new();
        // Looking changes nothing: everything is kept.
        let stale = self.wheel.stale();
        self.wheel.compact(|when, number| {
            places.push((from_now(when.get()), number == self.state.number.get()));
            true
        });
        (0..stale).for_each(|_| self.wheel.lapse());
        places.sort_unstable();
        let fresh = self.state.flags.get() >> STAMP_SHIFT == u32::from(self.stamp);
        Key {
            model,
            places,
            placed: from_now(self.state.placed.get().get()),
            flags: self.state.flags.get() & 0xffff,
            fresh,
            harvested: from_now(self.harvested),
            elapsed: from_now(self.wheel.elapsed().get()),
        }
    }
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    model: Model,
    places: Vec<(u64, bool)>,
    placed: u64,
    flags: u32,
    fresh: bool,
    harvested: u64,
    elapsed: u64,
}

/// Says which sequence failed, when one does.
struct Path(Vec<Step>);

impl Drop for Path {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the sequence: {:?}", self.0);
        }
    }
}

#[test]
fn every_short_sequence_of_operations_does_as_the_plain_model() {
    let steps = steps();
    let mut seen = HashSet::new();
    let mut paths = vec![Vec::new()];
    for _ in 0..DEPTH {
        let mut longer = Vec::new();
        for path in paths {
            for &step in &steps {
                let mut path = Path([&path[..], &[step]].concat());
                let mut pair = Pair::replay(&path.0);
                if seen.insert(pair.key()) {
                    longer.push(std::mem::take(&mut path.0));
                }
            }
        }
        paths = longer;
    }
}

#[test]
fn a_second_waiter_in_one_place_is_named_and_the_first_keeps_it() {
    let state = State::new(false);
    assert_eq!(state.park(Direction::Read, 1), Park::Parked);
    let second = std::panic::AssertUnwindSafe(|| state.park(Direction::Read, 2));
    let panic = std::panic::catch_unwind(second).unwrap_err();
    let said = panic.downcast_ref::<String>().unwrap();
    assert!(said.contains("parked already for Read"), "{said}");
    assert_eq!(state.unpark(Direction::Read), Some(1));
}

#[test]
fn a_harvest_stamp_that_wraps_spares_a_deadline_once_at_most() {
    let state: State<usize> = State::new(false);
    // Made ready 65,536 harvests ago, and never drained: the stamp is the same again.
    assert_eq!(state.ready(Readiness::READ, 7, &mut Vec::new()), None);
    let _ = state.set_deadline(Direction::Read, Tick::new(5));
    state.number_place(1);
    let again = state.expire(1, Tick::new(9), Some(7), &mut |_| {});
    assert_eq!(again, Due::Again(Tick::new(10)));
    assert_eq!(
        state.expire(1, Tick::new(10), Some(7), &mut |_| {}),
        Due::Nothing
    );
    assert_eq!(state.check(Direction::Read), Err(Refusal::TimedOut));
}
