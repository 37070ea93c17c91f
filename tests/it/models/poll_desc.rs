//! Descriptors of a bare `Reactor` against their table, over a scripted selector: up to four at
//! once, and events also for descriptors that are gone.
//!
//! The clock is the system's. So the model knows a reading only as a span. If a deadline lies in it, the
//! model asks the descriptor.

use std::time::{Duration, Instant};

use netpoller::reactor::{
    Descriptor, Direction, Event, Harvest, Park, Reactor, Readiness, Refusal, Token, TryIo, Turn,
};
use netpoller::wheel::TimerKey;

use super::choices::Choices;
use crate::support::scripted_selector::{Nothing, SharedPlay, scripted};
use crate::support::stall::stall;

const BOTH: [Direction; 2] = Direction::BOTH;
const TICK: Duration = Duration::from_millis(1);
const MOST: usize = 4;

/// A reading of the clock, by when it was taken at the earliest and at the latest.
#[derive(Clone, Copy)]
struct Span(Instant, Instant);

impl Span {
    /// Whether what is due at `when` was due by then, if that is certain. A tick is a millisecond: a
    /// deadline is rounded up to one, and a reading down.
    fn reaches(self, when: Instant) -> Option<bool> {
        match () {
            () if when + TICK <= self.0 => Some(true),
            () if self.1 < when => Some(false),
            () => None,
        }
    }
}

/// One direction.
#[derive(Default)]
struct Side {
    is_ready: bool,
    is_expired: bool,
    parked: Option<usize>,
    deadline: Option<Instant>,
}

/// A descriptor and what is known of it.
struct Desc {
    real: Descriptor<usize>,
    token: Token,
    sides: [Side; 2],
    is_hung_up: bool,
    is_urgent: bool,
    is_closed: bool,
}

impl Desc {
    fn side(&mut self, direction: Direction) -> &mut Side {
        &mut self.sides[direction as usize]
    }

    fn refusal(&self, direction: Direction) -> Option<Refusal> {
        match self.sides[direction as usize].is_expired {
            _ if self.is_closed => Some(Refusal::Closed),
            true => Some(Refusal::TimedOut),
            false => None,
        }
    }

    /// What a short read or write proves.
    fn is_conclusive(&self) -> bool {
        !self.is_hung_up && !self.is_urgent
    }

    fn drained(&mut self, direction: Direction) {
        self.side(direction).is_ready = false;
        self.is_urgent &= direction == Direction::Write;
    }

    fn ready(&mut self, readiness: Readiness, out: &mut Vec<usize>) {
        for direction in BOTH {
            let wanted = match direction {
                Direction::Read => Readiness::READ,
                Direction::Write => Readiness::WRITE,
            };
            if readiness.contains(wanted) {
                let side = self.side(direction);
                side.is_ready = true;
                out.extend(side.parked.take());
            }
        }
        self.is_urgent |= readiness.contains(Readiness::URGENT);
        self.is_hung_up |= readiness.contains(Readiness::HUNG_UP);
    }

    /// Everything that is parked goes to `out`.
    fn evict(&mut self, out: &mut Vec<usize>) {
        self.is_closed = true;
        for side in &mut self.sides {
            side.deadline = None;
            out.extend(side.parked.take());
        }
    }

    fn expire(&mut self, direction: Direction, out: &mut Vec<usize>) {
        let side = self.side(direction);
        (side.deadline, side.is_expired) = (None, true);
        out.extend(side.parked.take());
    }

    /// Whether its deadline has expired, where the model can't know.
    fn tells_expired(&self, direction: Direction) -> bool {
        self.real.check(direction) == Err(Refusal::TimedOut)
    }
}

struct World {
    reactor: Reactor<usize>,
    script: SharedPlay,
    open: Vec<Desc>,
    /// To be handed out by the next turn.
    released: Vec<usize>,
    timers: Vec<(TimerKey, Instant, usize)>,
    /// Everything that had come by then has been harvested.
    proven: Option<Span>,
    /// Everything that had come by then has also run.
    settled: Option<Span>,
    /// The last number that was parked. Each is parked once.
    next: usize,
}

impl World {
    fn new() -> Self {
        let (selector, script) = scripted();
        World {
            reactor: Reactor::with(selector),
            script,
            open: Vec::new(),
            released: Vec::new(),
            timers: Vec::new(),
            proven: None,
            settled: None,
            next: 0,
        }
    }

    fn fresh(&mut self) -> usize {
        self.next += 1;
        self.next
    }

    fn open(&mut self) {
        let real = self.reactor.open(&mut Nothing).expect("there are keys");
        let token = *self.script.borrow().tokens.last().expect("it was opened");
        self.open.push(Desc {
            real,
            token,
            sides: Default::default(),
            is_hung_up: false,
            is_urgent: false,
            is_closed: false,
        });
    }

    fn step(&mut self, choices: &mut Choices) {
        if self.open.is_empty() {
            self.open();
        }
        let at = choices.below(self.open.len());
        let direction = BOTH[choices.below(2)];
        let w = self.fresh();
        match choices.below(19) {
            0 if self.open.len() < MOST => self.open(),
            0 | 1 => self.close(at, choices),
            2 => {
                self.open[at].real.evict();
                self.open[at].evict(&mut self.released);
            }
            3..=5 => self.park(at, direction, w, choices),
            6 => {
                let given_up = self.open[at].real.unpark(direction);
                assert_eq!(given_up, self.open[at].side(direction).parked.take());
            }
            7 => {
                self.open[at].real.drained(direction);
                self.open[at].drained(direction);
            }
            8 => {
                let (bytes, asked) = [(0, 9), (1, 9), (9, 9)][choices.below(3)];
                let desc = &mut self.open[at];
                desc.real.transferred(direction, bytes, asked);
                if bytes == 1 && desc.is_conclusive() {
                    desc.drained(direction);
                }
            }
            9 => self.try_io(at, direction, w, choices),
            10 => self.timer(w, choices),
            11 => stall(TICK * choices.below(3) as u32),
            12..=14 => self.deadline(at, direction, choices),
            _ => self.turn(choices),
        }
        self.compare();
    }

    fn close(&mut self, at: usize, choices: &mut Choices) {
        let mut desc = self.open.swap_remove(at);
        desc.evict(&mut self.released);
        match choices.below(2) {
            0 => drop(desc.real),
            _ => {
                let kept = desc.real.clone();
                let closed = self.reactor.close(desc.real, &mut Nothing);
                closed.expect("the selector never fails");
                assert_eq!(kept.park(Direction::Read, 0), Park::Closed(0));
            }
        }
    }

    fn park(&mut self, at: usize, direction: Direction, w: usize, choices: &mut Choices) {
        let desc = &mut self.open[at];
        let is_short = choices.below(3) == 0;
        let expected = match desc.refusal(direction) {
            Some(Refusal::Closed) => Park::Closed(w),
            Some(Refusal::TimedOut) => Park::TimedOut(w),
            None if is_short && !desc.is_conclusive() => Park::Ready(w),
            None if !is_short && desc.side(direction).is_ready => Park::Ready(w),
            // A second one panics.
            None if desc.side(direction).parked.is_some() => return,
            None => Park::Parked,
        };
        if is_short {
            assert_eq!(desc.real.park_short(direction, w), expected);
            match desc.is_conclusive() {
                true => desc.drained(direction),
                false => desc.side(direction).is_ready = true,
            }
        } else {
            assert_eq!(desc.real.park(direction, w), expected);
        }
        if expected == Park::Ready(w) {
            desc.side(direction).is_ready = false;
        }
        if expected == Park::Parked {
            desc.side(direction).parked = Some(w);
        }
    }

    /// An operation that is interrupted once, and then gives 7 or would block.
    fn try_io(&mut self, at: usize, direction: Direction, w: usize, choices: &mut Choices) {
        use std::io::{Error, ErrorKind};
        let desc = &mut self.open[at];
        if desc.side(direction).parked.is_some() {
            return;
        }
        let would_block = choices.below(2) == 0;
        let mut tries = 0;
        let did = desc.real.try_io(direction, w, || {
            tries += 1;
            match tries {
                1 => Err(Error::from(ErrorKind::Interrupted)),
                _ if would_block => Err(Error::from(ErrorKind::WouldBlock)),
                _ => Ok(7),
            }
        });
        match (did, desc.refusal(direction)) {
            (TryIo::Refused(why, back), Some(refusal)) => assert_eq!((why, back), (refusal, w)),
            (TryIo::Done(Ok(7), back), None) if !would_block => assert_eq!(back, w),
            (TryIo::Parked, None) if would_block => {
                desc.drained(direction);
                desc.side(direction).parked = Some(w);
            }
            (other, refusal) => panic!("{other:?}, and {refusal:?} was expected"),
        }
    }

    fn deadline(&mut self, at: usize, direction: Direction, choices: &mut Choices) {
        let start = Instant::now();
        let when = match choices.below(8) {
            0 => None,
            1 => start.checked_sub(TICK * 5),
            2 => Some(start),
            3 => start.checked_add(Duration::from_secs(3600)),
            4 => start.checked_add(Duration::from_secs(1 << 40)),
            _ => Some(start + Duration::from_micros(choices.byte().into()) * 16),
        };
        let desc = &mut self.open[at];
        desc.real.set_deadline(direction, when);
        if desc.is_closed {
            return;
        }
        let has_passed = when.is_some_and(|when| match () {
            () if when <= start => true,
            () if Instant::now() < when => false,
            () => desc.tells_expired(direction),
        });
        if has_passed {
            desc.expire(direction, &mut self.released);
        } else {
            let side = desc.side(direction);
            (side.deadline, side.is_expired) = (when, false);
        }
    }

    fn timer(&mut self, w: usize, choices: &mut Choices) {
        let which = choices.below(self.timers.len().max(1));
        let when = Instant::now() + Duration::from_micros(choices.byte().into()) * 16;
        match (choices.below(3), self.timers.get_mut(which)) {
            (1, Some((key, at, _))) => {
                assert!(self.reactor.move_timer(*key, when));
                *at = when;
            }
            (2, Some(&mut (key, _, w))) => {
                assert_eq!(self.reactor.cancel_timer(key), Some(w));
                assert_eq!(self.reactor.cancel_timer(key), None);
                self.timers.swap_remove(which);
            }
            _ => self.timers.push((self.reactor.timer(when, w), when, w)),
        }
        assert_eq!(self.reactor.timers(), self.timers.len());
    }

    /// What the selector is to say when it is asked once.
    fn harvest(&self, choices: &mut Choices) -> (Vec<Event>, Harvest) {
        let mut events = Vec::new();
        for _ in 0..choices.below(5).saturating_sub(1) {
            let tokens = self.script.borrow().tokens.clone();
            let token = match choices.below(8) {
                // One that may be gone, a break, or one that was never open.
                0 => tokens[choices.below(tokens.len().min(256))],
                1 => Token::BREAK,
                2 => Token::from(mio::Token(usize::from(choices.byte()) << 40 | 3)),
                _ => self.open[choices.below(self.open.len())].token,
            };
            let mut readiness = Readiness::NONE;
            let bits = choices.byte();
            for (bit, one) in [Readiness::READ, Readiness::WRITE].into_iter().enumerate() {
                if bits >> bit & 1 != 0 {
                    readiness = readiness | one;
                }
            }
            // Seldom, since neither goes away by itself.
            match bits >> 2 {
                0..4 => readiness = readiness | Readiness::HUNG_UP,
                4..12 => readiness = readiness | Readiness::URGENT,
                _ => {}
            }
            events.push(Event { token, readiness });
        }
        let harvest = match choices.below(6) {
            0 => Harvest::Partial,
            _ => Harvest::Complete,
        };
        (events, harvest)
    }

    fn turn(&mut self, choices: &mut Choices) {
        let max_wait = match choices.below(4) {
            0 => Some(TICK * 2),
            1 => Some(TICK),
            _ => Some(Duration::ZERO),
        };
        let said: Vec<_> = (0..choices.below(3))
            .map(|_| self.harvest(choices))
            .collect();
        let mut play = self.script.borrow_mut();
        play.next = said.clone().into();
        play.times.clear();
        drop(play);

        let (start, mut out) = (Instant::now(), Vec::new());
        let turn = self.reactor.turn(max_wait, &mut out);
        let turn = turn.expect("the selector never fails");
        let end = Instant::now();

        let mut play = self.script.borrow_mut();
        let times = std::mem::take(&mut play.times);
        play.next.clear();
        drop(play);
        let mut said = said.into_iter();
        let mut looks = times.iter().map(|_| {
            let nothing = (Vec::new(), Harvest::Complete);
            said.next().unwrap_or(nothing)
        });

        // What was released comes first, and what has run by now is settled with it.
        let mut expected = std::mem::take(&mut self.released);
        let is_released = !expected.is_empty();
        if !is_released {
            self.settled = self.proven;
        }
        let (events, harvest) = looks.next().expect("it looks once");
        let mut found = self.ready(&events, &mut expected);
        if harvest == Harvest::Complete {
            self.proven = Some(Span(start, times[0].0));
        }
        if !is_released && harvest == Harvest::Complete && events.is_empty() {
            self.settled = self.proven;
            // It may poll again after a wait: that proves, and settles, the time after it.
            if let Some((events, harvest)) = looks.last() {
                found += self.ready(&events, &mut expected);
                if harvest == Harvest::Complete {
                    self.proven = Some(Span(times[0].1, times[1].0));
                    if events.is_empty() {
                        self.settled = self.proven;
                    }
                }
            }
        } else {
            assert_eq!(looks.count(), 0, "it polled again although something came");
        }
        assert_eq!(turn.events, found);
        let due = self.expire(&mut expected, &out, Span(times[0].1, end));
        self.account(&turn, due);
        out.sort_unstable();
        expected.sort_unstable();
        assert_eq!(out, expected, "what is handed out");
    }

    /// Counts the events that name an open descriptor.
    fn ready(&mut self, events: &[Event], out: &mut Vec<usize>) -> usize {
        let mut found = 0;
        for event in events {
            let named = self.open.iter_mut().find(|desc| desc.token == event.token);
            if let Some(desc) = named {
                desc.ready(event.readiness, out);
                found += 1;
            }
        }
        found
    }

    /// Deadlines up to what is settled, and timers by the clock. Says how many there were, and whether a
    /// deadline is due that is not settled.
    fn expire(&mut self, expected: &mut Vec<usize>, out: &[usize], now: Span) -> (usize, bool) {
        let (mut expired, mut is_due) = (0, false);
        for desc in &mut self.open {
            for direction in BOTH {
                let Some(when) = desc.side(direction).deadline else {
                    continue;
                };
                let reached = self.settled.map_or(Some(false), |span| span.reaches(when));
                if reached.unwrap_or_else(|| desc.tells_expired(direction)) {
                    desc.expire(direction, expected);
                    expired += 1;
                } else {
                    is_due |= now.reaches(when) == Some(true);
                }
            }
        }
        self.timers.retain(|&(_, when, w)| {
            let fires = now.reaches(when).unwrap_or_else(|| out.contains(&w));
            if fires {
                expected.push(w);
                expired += 1;
            }
            !fires
        });
        (expired, is_due)
    }

    fn account(&self, turn: &Turn, (expired, is_due): (usize, bool)) {
        assert_eq!((turn.machines, turn.expired), (0, expired));
        assert!(turn.more || !is_due, "a deadline is due and not settled");
    }

    /// All that can be seen from outside.
    fn compare(&self) {
        assert_eq!(self.reactor.descriptors(), self.open.len());
        for desc in &self.open {
            for direction in BOTH {
                let side = &desc.sides[direction as usize];
                assert_eq!(desc.real.check(direction).err(), desc.refusal(direction));
                if !desc.is_closed {
                    assert_eq!(
                        desc.real.is_ready(direction),
                        side.is_ready,
                        "{direction:?}"
                    );
                }
            }
            if !desc.is_closed {
                assert_eq!(desc.real.is_hung_up(), desc.is_hung_up);
                assert_eq!(desc.real.short_means_drained(), desc.is_conclusive());
            }
        }
        let mut shown = 0;
        self.reactor.for_each(|seen| {
            shown += 1;
            let desc = self.open.iter().find(|desc| desc.token == seen.token());
            let desc = desc.expect("it is open");
            assert_eq!(seen.is_closed(), desc.is_closed);
            let mut parked = Vec::new();
            seen.parked(|direction, &w| parked.push((direction, w)));
            let sides = BOTH.into_iter().zip(&desc.sides);
            let slots = sides.filter_map(|(at, side)| Some((at, side.parked?)));
            assert_eq!(parked, slots.collect::<Vec<_>>());
            for direction in BOTH {
                let seen = seen.deadline(direction);
                let when = desc.sides[direction as usize].deadline;
                assert_eq!(seen.is_some(), when.is_some());
                let year = Duration::from_secs(31_000_000);
                if let (Some(seen), Some(when)) = (seen, when)
                    && when < Instant::now() + year
                {
                    assert!((when..when + TICK).contains(&seen), "{seen:?} for {when:?}");
                }
            }
        });
        assert_eq!(shown, self.open.len());
        self.compare_timeout();
    }

    /// It may come too early, for an entry that is stale, and never too late.
    fn compare_timeout(&self) {
        let sides = self.open.iter().flat_map(|desc| &desc.sides);
        let deadlines = sides.filter_map(|side| side.deadline);
        let timers = self.timers.iter().map(|&(_, when, _)| when);
        let first = deadlines.chain(timers).min();
        let latest = first.map(|first| first.saturating_duration_since(Instant::now()) + TICK);
        let timeout = self.reactor.next_timeout();
        if !self.released.is_empty() {
            assert_eq!(timeout, Some(Duration::ZERO));
        } else if let Some(latest) = latest {
            assert!(
                timeout.is_some_and(|timeout| timeout <= latest),
                "it oversleeps"
            );
        }
        let entries = self.reactor.entries();
        assert!(
            entries.held - entries.stale <= self.open.len(),
            "one entry each"
        );
    }
}

/// Does what `bytes` spell. In the end the reactor goes, and its descriptors are closed.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut world = World::new();
    while !choices.is_empty() {
        world.step(&mut choices);
    }
    let World { reactor, open, .. } = world;
    drop(reactor);
    for desc in open {
        for direction in BOTH {
            assert_eq!(desc.real.check(direction), Err(Refusal::Closed));
            assert_eq!(desc.real.park(direction, 0), Park::Closed(0));
            assert_eq!(desc.real.unpark(direction), None);
        }
    }
}
