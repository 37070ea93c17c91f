//! Seeds, and a selector that errs by them in every way that the contract of a selector allows.
//!
//! It splits, delays, doubles and makes up events, also for tokens whose owners are gone. It never
//! loses one, separates a hang-up from its readiness, or calls a harvest complete while it holds
//! something back, since no loop could be right under these.

use std::io;
use std::time::Duration;

use netpoller::reactor::{Event, Harvest, MioSelector, Readiness, Selector, Token};

use super::hooked::{Hook, hooked_by};
use super::random::Random;

/// The system's selector, with the faults of `seed`.
pub fn faulty(seed: u64) -> Box<dyn Selector> {
    hooked_by(Faulty {
        random: Random::new(seed),
        held: Vec::new(),
        tokens: vec![Token::BREAK],
    })
}

/// Runs a test for many seeds, for as many as `SEEDS` says, or for the one in `SEED`; one that fails is
/// named.
pub fn with_seeds(count: u64, test: impl Fn(u64)) {
    struct Named(u64);
    impl Drop for Named {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("to repeat: SEED={} cargo test", self.0);
            }
        }
    }
    let number = |name| std::env::var(name).map(|text| text.parse().expect("a number"));
    let seeds = match number("SEED") {
        Ok(seed) => seed..seed + 1,
        Err(_) => 0..number("SEEDS").unwrap_or(count),
    };
    for seed in seeds {
        let _named = Named(seed);
        test(seed);
    }
}

/// See the module.
struct Faulty {
    random: Random,
    /// Harvested, and not handed out yet.
    held: Vec<Event>,
    /// Every token there ever was.
    tokens: Vec<Token>,
}

impl Faulty {
    /// An event on its way out: whole or in parts, now or later, once or twice.
    fn pass(&mut self, event: Event, events: &mut Vec<Event>) {
        let both = Readiness::READ | Readiness::WRITE;
        let parts = match event.readiness == both && self.random.one_in(3) {
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

    /// Readiness that nothing stands behind, for any token: open and closed.
    fn made_up(&mut self) -> Event {
        let any = [
            Readiness::READ,
            Readiness::WRITE,
            Readiness::READ | Readiness::WRITE,
        ];
        let token = self.random.below(self.tokens.len() as u64) as usize;
        Event {
            token: self.tokens[token],
            readiness: any[self.random.below(3) as usize],
        }
    }
}

impl Hook for Faulty {
    fn opens(&mut self, token: Token) -> io::Result<()> {
        self.tokens.push(token);
        Ok(())
    }

    fn netpoll(
        &mut self,
        system: &mut MioSelector,
        wait: Option<Duration>,
        out: &mut Vec<Event>,
    ) -> io::Result<Harvest> {
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
        let harvest = system.netpoll(wait, &mut found)?;
        for event in found {
            self.pass(event, out);
        }
        match self.held.is_empty() && !self.random.one_in(8) {
            true => Ok(harvest),
            false => Ok(Harvest::Partial),
        }
    }
}
