//! For tests: a selector with every fault that the contract allows, by a seed. Events are held back,
//! doubled, split, made up, and come for tokens whose owners are gone; a signal ends waits; harvests
//! are not whole.
//!
//! What it never does is lose an event, part a hang-up from its readiness, or call a harvest
//! complete while it holds something back: no platform does, and nothing could stand it.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use mio::event::Source;

use super::selector::{Break, Event, Harvest, Selector, Token, Traits};
use super::types::Readiness;

/// Numbers that a seed repeats: SplitMix64.
#[derive(Debug)]
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

/// See the module.
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
            tokens: Vec::new(),
        })
    }

    /// One event on its way out: whole or in parts, now or later, once or twice.
    fn pass(&mut self, event: Event, events: &mut Vec<Event>) {
        if event.readiness == Readiness::BOTH && self.random.one_in(3) {
            for readiness in [Readiness::READ, Readiness::WRITE] {
                self.hand(Event { readiness, ..event }, events);
            }
            return;
        }
        self.hand(event, events);
        if self.random.one_in(8) {
            self.hand(event, events);
        }
    }

    fn hand(&mut self, event: Event, events: &mut Vec<Event>) {
        match self.random.one_in(4) {
            true => self.held.push(event),
            false => events.push(event),
        }
    }

    /// Readiness that nothing stands behind, for any token: of the living, the dead, and such
    /// as never lived.
    fn made_up(&mut self) -> Event {
        let readiness = match self.random.below(4) {
            0 => Readiness::READ,
            1 => Readiness::WRITE,
            2 => Readiness::BOTH,
            _ => Readiness::READ | Readiness::URGENT,
        };
        let token = match self.random.below(8) {
            0 => Token::from_bits(self.random.below(1 << 36) as usize),
            1 => Token::BREAK,
            _ if self.tokens.is_empty() => Token::BREAK,
            _ => self.tokens[self.random.below(self.tokens.len() as u64) as usize],
        };
        Event { token, readiness }
    }
}

impl Selector for FaultySelector {
    fn open(&mut self, source: &mut dyn Source, token: Token) -> io::Result<()> {
        self.tokens.push(token);
        self.inner.open(source, token)
    }

    fn open_fd(
        &mut self,
        source: &mut dyn Source,
        token: Token,
        fd: Option<RawFd>,
    ) -> io::Result<()> {
        self.tokens.push(token);
        self.inner.open_fd(source, token, fd)
    }

    fn rearm(
        &mut self,
        source: &mut dyn Source,
        token: Token,
        interest: Readiness,
    ) -> io::Result<()> {
        self.inner.rearm(source, token, interest)
    }

    fn close(&mut self, source: &mut dyn Source) -> io::Result<()> {
        self.inner.close(source)
    }

    fn netpoll(
        &mut self,
        max_wait: Option<Duration>,
        events: &mut Vec<Event>,
    ) -> io::Result<Harvest> {
        if self.random.one_in(8) {
            // EINTR.
            return Ok(Harvest::Partial);
        }
        let held = std::mem::take(&mut self.held);
        let made_up = self.random.one_in(4);
        let max_wait = match made_up || !held.is_empty() {
            true => Some(Duration::ZERO),
            false => max_wait,
        };
        let mut fresh = Vec::new();
        let harvest = self.inner.netpoll(max_wait, &mut fresh)?;
        // What was held may be held again, but not for ever; and no order is promised.
        for event in held {
            self.hand(event, events);
        }
        for event in fresh {
            self.pass(event, events);
        }
        if made_up {
            let event = self.made_up();
            let at = self.random.below(events.len() as u64 + 1) as usize;
            events.insert(at, event);
        }
        if !self.held.is_empty() || self.random.one_in(8) {
            return Ok(Harvest::Partial);
        }
        Ok(harvest)
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
