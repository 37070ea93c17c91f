//! A descriptor on a reactor against a plain model: every sequence of operations up to a depth, on
//! a scripted selector and clock, every answer compared.
//!
//! Of sequences that lead to the same state, one is continued. Each step also checks the wheel: it
//! holds one timer at most, and no deadline is without one.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use mio::{Interest, Registry};

use super::*;
use crate::reactor::{Break, Event, Harvest, RunQueue, Selector, TimeSource, Traits};
use crate::trace::{Recorder, Tape};

/// Operations in a row. The walk meets every state that so many can lead to.
const DEPTH: usize = 5;

const BOTH: [Direction; 2] = Direction::BOTH;

/// What can be done to a descriptor.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Park(Direction),
    ParkShort(Direction),
    Unpark(Direction),
    Drained(Direction),
    /// `before` ticks pass; then a turn that does not wait; and during its harvest `during` more
    /// pass.
    Turn {
        before: u64,
        during: u64,
        ready: Option<Readiness>,
    },
    /// A turn that waits in vain, for so many ticks.
    Sleep(u64),
    /// A deadline so many ticks ahead; zero is now.
    Deadline(Direction, Option<u64>),
    Evict,
}

fn steps() -> Vec<Step> {
    let hung = Readiness::BOTH | Readiness::HUNG_UP;
    let urgent = Readiness::READ | Readiness::URGENT;
    let turn = |before, during, ready| Step::Turn {
        before,
        during,
        ready,
    };
    let mut steps = vec![
        turn(1, 0, Some(Readiness::READ)),
        turn(1, 0, Some(Readiness::WRITE)),
        turn(1, 0, Some(hung)),
        turn(1, 0, Some(urgent)),
        turn(0, 2, Some(Readiness::NONE)),
        turn(1, 0, None),
        turn(0, 2, None),
        Step::Sleep(1),
        Step::Sleep(2),
        Step::Evict,
    ];
    for direction in BOTH {
        steps.extend([Step::Park(direction), Step::Drained(direction)]);
        steps.extend([Step::ParkShort(direction), Step::Unpark(direction)]);
        steps.extend([None, Some(0), Some(1), Some(3)].map(|at| Step::Deadline(direction, at)));
    }
    steps
}

// ---- the selector and the clock ----

/// What the selector and the clock say.
#[derive(Default)]
struct Script {
    now: Duration,
    /// The next harvest, and the ticks that pass while it is under way.
    ready: Vec<Event>,
    during: u64,
    looks: usize,
}

type SharedScript = Rc<RefCell<Script>>;

struct Scripted(SharedScript);

impl Selector for Scripted {
    fn open(&mut self, _: &mut dyn Source, _: Token) -> io::Result<()> {
        Ok(())
    }

    fn rearm(&mut self, _: &mut dyn Source, _: Token, _: Readiness) -> io::Result<()> {
        Ok(())
    }

    fn close(&mut self, _: &mut dyn Source) -> io::Result<()> {
        Ok(())
    }

    fn netpoll(&mut self, _: Option<Duration>, events: &mut Vec<Event>) -> io::Result<Harvest> {
        let mut script = self.0.borrow_mut();
        script.looks += 1;
        events.append(&mut script.ready);
        let during = std::mem::take(&mut script.during);
        script.now += Duration::from_millis(during);
        Ok(Harvest::Complete)
    }

    fn breaker(&self) -> Arc<dyn Break> {
        unreachable!("nothing waits here")
    }

    fn traits(&self) -> Traits {
        Traits {
            edges: true,
            urgent: true,
            close_forgets: true,
        }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

struct Nothing;

impl Source for Nothing {
    fn register(&mut self, _: &Registry, _: mio::Token, _: Interest) -> io::Result<()> {
        Ok(())
    }

    fn reregister(&mut self, _: &Registry, _: mio::Token, _: Interest) -> io::Result<()> {
        Ok(())
    }

    fn deregister(&mut self, _: &Registry) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn core() -> Rc<Core<usize, ()>> {
    scripted(SharedScript::default()).0
}

fn scripted(script: SharedScript) -> (Rc<Core<usize, ()>>, Instant) {
    let base = Instant::now();
    let clock = script.clone();
    let time = TimeSource::Given(Box::new(move || base + clock.borrow().now));
    (
        Core::new(
            Box::new(Scripted(script)),
            time,
            |(), _| {},
            Recorder::new(Tape::default(), |_| 0),
        ),
        base,
    )
}

pub(crate) fn open(core: &Rc<Core<usize, ()>>) -> Descriptor<usize> {
    let open = core.open(&mut Nothing, None, ());
    open.expect("there are slots")
}

// ---- the model ----

/// The model of one direction.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
struct Side {
    ready: bool,
    expired: bool,
    parked: bool,
    deadline: Option<u64>,
}

/// The model of a descriptor and its reactor.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
struct Model {
    now: u64,
    proven: u64,
    settled: u64,
    sides: [Side; 2],
    hung_up: bool,
    urgent: bool,
    closed: bool,
    /// To be handed out by the next turn.
    released: Vec<usize>,
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
            if u32::from(readiness.0) & ready_bit(direction) != 0 {
                side.ready = true;
                out.extend(std::mem::take(&mut side.parked).then_some(direction as usize));
            }
        }
        self.urgent |= readiness.contains(Readiness::URGENT);
        self.hung_up |= readiness.contains(Readiness::HUNG_UP);
    }

    /// A turn. All that the last one handed out has run.
    fn turn(&mut self, before: u64, during: u64, ready: Option<Readiness>) -> Vec<usize> {
        let mut out = std::mem::take(&mut self.released);
        let is_quiet = out.is_empty() && ready.is_none();
        if out.is_empty() {
            self.settled = self.proven;
        }
        self.now += before;
        self.proven = self.now;
        self.now += during;
        if let Some(readiness) = ready {
            self.ready(readiness, &mut out);
        }
        if is_quiet {
            self.settled = self.proven;
        }
        self.expire(&mut out);
        out
    }

    /// A turn that waits, and then looks again: that settles the time after the wait.
    fn sleep(&mut self, ticks: u64) -> Vec<usize> {
        let mut out = self.turn(0, ticks, None);
        (self.proven, self.settled) = (self.now, self.now);
        self.expire(&mut out);
        out
    }

    fn is_due(&self) -> bool {
        let mut deadlines = self.sides.iter().filter_map(|side| side.deadline);
        deadlines.any(|when| when <= self.now)
    }

    fn expire(&mut self, out: &mut Vec<usize>) {
        for (at, side) in self.sides.iter_mut().enumerate() {
            if side.deadline.is_some_and(|when| when <= self.settled) {
                (side.deadline, side.expired) = (None, true);
                out.extend(std::mem::take(&mut side.parked).then_some(at));
            }
        }
    }

    fn deadline(&mut self, direction: Direction, at: Option<u64>) {
        if self.closed {
            return;
        }
        let side = &mut self.sides[direction as usize];
        let is_past = at == Some(0);
        side.expired = is_past;
        side.deadline = at.filter(|_| !is_past).map(|ahead| self.now + ahead);
        if is_past && std::mem::take(&mut side.parked) {
            self.released.push(direction as usize);
        }
    }

    fn evict(&mut self) {
        self.closed = true;
        for (at, side) in self.sides.iter_mut().enumerate() {
            side.deadline = None;
            let parked = std::mem::take(&mut side.parked);
            self.released.extend(parked.then_some(at));
        }
    }
}

/// A descriptor on its reactor, and the model.
struct Pair {
    script: SharedScript,
    core: Rc<Core<usize, ()>>,
    base: Instant,
    desc: Descriptor<usize>,
    model: Model,
}

impl Pair {
    fn replay(path: &[Step]) -> Self {
        let script = SharedScript::default();
        let (core, base) = scripted(script.clone());
        let desc = open(&core);
        let mut pair = Pair {
            script,
            core,
            base,
            desc,
            model: Model::default(),
        };
        for &step in path {
            pair.step(step);
        }
        pair
    }

    /// Does one thing to both and compares what they say.
    fn step(&mut self, step: Step) {
        let (mut said, mut expected) = (Vec::new(), Vec::new());
        match step {
            Step::Park(direction) => self.park(direction, PollDesc::park),
            Step::ParkShort(direction) => self.park_short(direction),
            Step::Unpark(direction) => {
                said.extend(self.desc.unpark(direction));
                let parked = &mut self.model.sides[direction as usize].parked;
                expected.extend(std::mem::take(parked).then_some(direction as usize));
            }
            Step::Drained(direction) => {
                self.desc.drained(direction);
                self.model.sides[direction as usize].ready = false;
                self.model.urgent &= direction == Direction::Write;
            }
            Step::Turn {
                before,
                during,
                ready,
            } => {
                let mut script = self.script.borrow_mut();
                script.now += Duration::from_millis(before);
                script.during = during;
                let token = self.desc.token();
                let event = ready.map(|readiness| Event { token, readiness });
                script.ready.extend(event);
                drop(script);
                self.turn(Some(Duration::ZERO), &mut said);
                expected = self.model.turn(before, during, ready);
            }
            Step::Sleep(ticks) => {
                let mut script = self.script.borrow_mut();
                (script.during, script.looks) = (ticks, 0);
                drop(script);
                let may_wait = self.model.released.is_empty();
                self.turn(Some(Duration::from_millis(ticks)), &mut said);
                // A second look is taken if an entry of the wheel is due, stale or not.
                let looked_again = self.script.borrow().looks == 2;
                expected = match looked_again {
                    true => self.model.sleep(ticks),
                    false => self.model.turn(0, ticks, None),
                };
                assert!(may_wait || !looked_again);
                assert!(!may_wait || looked_again || !self.model.is_due());
            }
            Step::Deadline(direction, at) => {
                let now = self.base + self.script.borrow().now;
                let when = at.map(|ahead| now + Duration::from_millis(ahead));
                self.desc.set_deadline(direction, when);
                self.model.deadline(direction, at);
            }
            Step::Evict => {
                self.desc.evict();
                self.model.evict();
            }
        }
        // The order within one turn is not promised.
        said.sort_unstable();
        expected.sort_unstable();
        assert_eq!(said, expected, "what is handed out");
        self.compare();
    }

    fn turn(&self, max_wait: Option<Duration>, out: &mut Vec<usize>) {
        let turn = self.core.turn(max_wait, RunQueue::Empty, &mut |w| {
            out.push(w);
            0
        });
        let turn = turn.expect("the selector never fails");
        if self.model.is_due() && self.core.is_due() {
            assert!(turn.more, "a deadline is due, and not settled");
        }
    }

    fn park(
        &mut self,
        direction: Direction,
        park: fn(&PollDesc<usize>, Direction, usize) -> Park<usize>,
    ) {
        let side = self.model.sides[direction as usize];
        let w = direction as usize;
        let expected = match self.model.refusal(direction) {
            Some(Refusal::Closed) => Park::Closed(w),
            Some(_) => Park::TimedOut(w),
            None if side.ready => Park::Ready(w),
            // A second waiter panics: shown elsewhere.
            None if side.parked => return,
            None => Park::Parked,
        };
        assert_eq!(park(&self.desc, direction, w), expected);
        let side = &mut self.model.sides[direction as usize];
        match expected {
            Park::Ready(_) => side.ready = false,
            Park::Parked => side.parked = true,
            _ => {}
        }
    }

    fn park_short(&mut self, direction: Direction) {
        let proves_nothing = self.model.hung_up || self.model.urgent;
        let is_refused = self.model.refusal(direction).is_some();
        let side = &mut self.model.sides[direction as usize];
        if is_refused || proves_nothing || !side.parked {
            side.ready = proves_nothing;
            self.park(direction, PollDesc::park_short);
        }
    }

    fn compare(&self) {
        assert_eq!(self.core.settled.get(), Tick::new(self.model.settled));
        for direction in BOTH {
            let side = self.model.sides[direction as usize];
            let refusal = self.desc.check(direction).err();
            assert_eq!(refusal, self.model.refusal(direction), "{direction:?}");
            let may = match refusal {
                Some(refusal) => May::Refused(refusal),
                None if side.ready => May::Try,
                None => May::Wait,
            };
            assert_eq!(self.desc.may_try(direction), may, "{direction:?}");
        }
        if !self.desc.is_closed() {
            assert_eq!(self.desc.is_hung_up(), self.model.hung_up);
            let proof = !self.model.hung_up && !self.model.urgent;
            assert_eq!(self.desc.short_means_drained(), proof);
        }
        assert_eq!(self.desc.is_closed(), self.model.closed);
        assert_eq!(self.core.has_pending(), !self.model.released.is_empty());
        let parked = self.model.sides.iter().filter(|side| side.parked).count();
        let mut shown = 0;
        self.desc.parked(|_, _| shown += 1);
        assert_eq!(shown, parked);
        // The wheel holds this descriptor's one timer.
        let timers = self.core.deadlines.borrow();
        assert!(timers.len() <= usize::from(!self.model.closed));
        let sides = self.model.sides.iter();
        if let Some(deadline) = sides.filter_map(|side| side.deadline).min() {
            let due = timers.next_live().expect("a timer for the deadline");
            assert!(due <= Tick::new(deadline), "it comes up in time");
            assert_eq!(due, self.desc.due.get());
        }
    }

    /// The state, with times relative to now. Pairs with equal keys behave alike.
    fn key(&self) -> Key {
        let now = self.model.now;
        let from_now = |tick: u64| tick.wrapping_sub(now);
        let mut model = self.model.clone();
        for time in [&mut model.now, &mut model.proven, &mut model.settled] {
            *time = from_now(*time);
        }
        for side in &mut model.sides {
            side.deadline = side.deadline.map(from_now);
        }
        let timers = self.core.deadlines.borrow();
        Key {
            model,
            entries: timers.entries(),
            next: timers.next().map(|next| from_now(next.get())),
            due: from_now(self.desc.due.get().get()),
            flags: self.desc.flags.get(),
        }
    }
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    model: Model,
    entries: usize,
    next: Option<u64>,
    due: u64,
    flags: u32,
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
                let pair = Pair::replay(&path.0);
                if seen.insert(pair.key()) {
                    longer.push(std::mem::take(&mut path.0));
                }
            }
        }
        paths = longer;
    }
}

#[test]
fn a_second_waiter_in_one_slot_is_named_and_the_first_keeps_it() {
    let desc = open(&core());
    assert_eq!(desc.park(Direction::Read, 1), Park::Parked);
    let second = std::panic::AssertUnwindSafe(|| desc.park(Direction::Read, 2));
    let panic = std::panic::catch_unwind(second).unwrap_err();
    let said = panic.downcast_ref::<String>().unwrap();
    assert!(said.contains("parked already for Read"), "{said}");
    assert_eq!(desc.unpark(Direction::Read), Some(1));
}

#[test]
fn generations_of_tokens_wrap_and_tell_neighbours_apart() {
    // The generation keeps half the bits of a token; the counter runs on past them.
    let half = 1usize << (usize::BITS / 2);
    for start in [half - 2, usize::MAX - 1] {
        let core = core();
        core.generation.set(start);
        let mut old = None;
        for _ in 0..4 {
            let desc = open(&core);
            let token = desc.token();
            assert_ne!(token, Token::BREAK);
            if let Some(old) = old.replace(token) {
                assert_eq!(old.key(), token.key());
                assert_ne!(old, token);
            }
        }
        assert_eq!(core.registry.borrow().len(), 0);
    }
}

#[test]
fn no_token_is_ever_the_breaks() {
    let widest = Token::new(Token::KEYS - 1, usize::MAX);
    assert_ne!(widest, Token::BREAK);
    assert_eq!(widest.key(), Token::KEYS - 1);
    let key = Token::BREAK.key();
    assert_eq!(key, Token::KEYS, "a key that is never given out");
}
