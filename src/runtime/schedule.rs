//! For tests: the choices of a seed. Machines run in an order of its choice, and the selector errs in
//! every way that its contract allows.
//!
//! What is left over of a batch keeps its place before what is woken later, so that a round ends as it
//! does without a seed. The selector splits, delays, doubles and makes up events, also for tokens whose
//! owners are gone; it never loses one, parts a hang-up from its readiness, or calls a harvest complete
//! while it holds something back, since no loop could be right under these.
// Go: `-race` builds shuffle the run queue (`randomizeScheduler` in runtime/proc.go).

use std::cell::RefCell;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use super::machine::MachineId;
use crate::reactor::{Break, Event, Harvest, Readiness, Selector, Source, Token, Traits};

/// Numbers that a seed repeats: SplitMix64.
pub struct Random(u64);

impl Random {
    /// The numbers of `seed`.
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The next number, below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// True once in `bound` times.
    pub fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// What a turn found and chose: two runs with one seed differ only where these do.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "they are printed")]
pub struct ScheduledTurn {
    /// The loop's time, in ticks.
    time: u64,
    runnable: usize,
    chosen: usize,
    /// A hash of the ids that were runnable, in their order.
    hash: u64,
}

/// The order in which machines run.
pub(super) struct Schedule {
    random: RefCell<Random>,
    pub(super) log: RefCell<Vec<ScheduledTurn>>,
}

impl Schedule {
    pub(super) fn new(seed: u64) -> Self {
        Schedule {
            // Not the numbers that the selector has.
            random: RefCell::new(Random::new(!seed)),
            log: RefCell::default(),
        }
    }

    /// Shuffles the first `round` of what is runnable. Returns how many may run: at least one, and at
    /// most `max`.
    pub(super) fn arrange(
        &self,
        ids: &mut [MachineId],
        round: usize,
        max: usize,
        time: u64,
    ) -> usize {
        let mut random = self.random.borrow_mut();
        let fnv =
            |hash: u64, id: &MachineId| (hash ^ id.bits().get()).wrapping_mul(0x0100_0000_01b3);
        let hash = ids.iter().fold(0xcbf2_9ce4_8422_2325, fnv);
        for left in (2..=round.min(ids.len())).rev() {
            ids.swap(left - 1, random.below(left as u64) as usize);
        }
        let max = max.min(ids.len());
        let chosen = match max == 0 || random.one_in(2) {
            true => max,
            false => 1 + random.below(max as u64) as usize,
        };
        self.log.borrow_mut().push(ScheduledTurn {
            time,
            runnable: ids.len(),
            chosen,
            hash,
        });
        chosen
    }
}

/// A selector that errs: see the module.
pub struct FaultySelector {
    inner: Box<dyn Selector>,
    random: Random,
    /// Harvested, and not handed out yet.
    held: Vec<Event>,
    /// Every token there ever was.
    tokens: Vec<Token>,
}

impl FaultySelector {
    /// The faults of `seed`, over another selector.
    pub fn new(inner: Box<dyn Selector>, seed: u64) -> Box<FaultySelector> {
        Box::new(FaultySelector {
            inner,
            random: Random::new(seed),
            held: Vec::new(),
            tokens: vec![Token::BREAK],
        })
    }

    /// An event on its way out: whole or in parts, now or later, once or twice.
    fn pass(&mut self, event: Event, events: &mut Vec<Event>) {
        let parts = match event.readiness == Readiness::BOTH && self.random.one_in(3) {
            true => vec![Readiness::READ, Readiness::WRITE],
            false => vec![event.readiness; 1 + usize::from(self.random.one_in(8))],
        };
        for readiness in parts {
            match self.random.one_in(4) {
                true => self.held.push(Event { readiness, ..event }),
                false => events.push(Event { readiness, ..event }),
            }
        }
    }

    /// Readiness that nothing stands behind, for any token: of the living and of the dead.
    fn made_up(&mut self) -> Event {
        let any = [Readiness::READ, Readiness::WRITE, Readiness::BOTH];
        let token = self.random.below(self.tokens.len() as u64) as usize;
        Event {
            token: self.tokens[token],
            readiness: any[self.random.below(3) as usize],
        }
    }
}

impl Selector for FaultySelector {
    fn open(&mut self, source: &mut dyn Source, token: Token) -> io::Result<()> {
        self.open_fd(source, token, None)
    }

    fn open_fd(&mut self, of: &mut dyn Source, token: Token, fd: Option<RawFd>) -> io::Result<()> {
        self.tokens.push(token);
        self.inner.open_fd(of, token, fd)
    }

    fn rearm(&mut self, of: &mut dyn Source, token: Token, wanted: Readiness) -> io::Result<()> {
        self.inner.rearm(of, token, wanted)
    }

    fn close(&mut self, source: &mut dyn Source) -> io::Result<()> {
        self.inner.close(source)
    }

    fn netpoll(&mut self, wait: Option<Duration>, out: &mut Vec<Event>) -> io::Result<Harvest> {
        if self.random.one_in(8) {
            // EINTR.
            return Ok(Harvest::Partial);
        }
        let mut found = std::mem::take(&mut self.held);
        if self.random.one_in(4) {
            found.push(self.made_up());
        }
        let wait = match found.is_empty() {
            true => wait,
            false => Some(Duration::ZERO),
        };
        let harvest = self.inner.netpoll(wait, &mut found)?;
        for event in found {
            self.pass(event, out);
        }
        match self.held.is_empty() && !self.random.one_in(8) {
            true => Ok(harvest),
            false => Ok(Harvest::Partial),
        }
    }

    fn breaker(&self) -> Arc<dyn Break> {
        self.inner.breaker()
    }

    fn traits(&self) -> Traits {
        self.inner.traits()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.inner.descriptor()
    }
}
