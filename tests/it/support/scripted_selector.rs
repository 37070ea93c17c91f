//! A selector that says what a test tells it, with no system behind it.
#![allow(dead_code, reason = "each test file uses some")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Source;
use mio::{Interest, Registry};
use netpoller::reactor::{Break, Event, Harvest, Readiness, Selector, Token, Traits};

use super::stall::stall;

#[derive(Default)]
pub struct Play {
    /// Every token ever opened, in order.
    pub tokens: Vec<Token>,
    /// What the next calls say. When nothing is left, they find nothing at once.
    pub next: VecDeque<(Vec<Event>, Harvest)>,
    /// How long the next calls are held up between their harvest and their return.
    pub stalls: VecDeque<Duration>,
    /// How long the calls were ready to wait.
    pub waits: Vec<Option<Duration>>,
    /// When each call began, and when it returned.
    pub times: Vec<(Instant, Instant)>,
}

/// Shared, so that a test can go on writing while it plays.
pub type SharedPlay = Rc<RefCell<Play>>;

struct Scripted(SharedPlay);

struct NoBreak;

impl Break for NoBreak {
    fn break_netpoll(&self) -> io::Result<()> {
        Ok(())
    }
}

pub fn scripted() -> (Box<dyn Selector>, SharedPlay) {
    let script = SharedPlay::default();
    (Box::new(Scripted(script.clone())), script)
}

/// The harvest of one event, complete.
pub fn harvest(token: Token, readiness: Readiness) -> (Vec<Event>, Harvest) {
    (vec![Event { token, readiness }], Harvest::Complete)
}

/// A source that is nothing.
pub struct Nothing;

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

impl Selector for Scripted {
    fn open(&mut self, _: &mut dyn Source, token: Token) -> io::Result<()> {
        self.0.borrow_mut().tokens.push(token);
        Ok(())
    }

    fn rearm(&mut self, _: &mut dyn Source, _: Token, _: Readiness) -> io::Result<()> {
        Ok(())
    }

    fn close(&mut self, _: &mut dyn Source) -> io::Result<()> {
        Ok(())
    }

    fn netpoll(
        &mut self,
        max_wait: Option<Duration>,
        events: &mut Vec<Event>,
    ) -> io::Result<Harvest> {
        let start = Instant::now();
        let mut play = self.0.borrow_mut();
        play.waits.push(max_wait);
        let (said, harvest) = play
            .next
            .pop_front()
            .unwrap_or((Vec::new(), Harvest::Complete));
        let held_up = play.stalls.pop_front().unwrap_or_default();
        drop(play);
        stall(held_up);
        if said.is_empty() {
            // As a selector does: it has waited by then.
            stall(max_wait.unwrap_or_default().min(Duration::from_millis(50)));
        }
        events.extend(said);
        self.0.borrow_mut().times.push((start, Instant::now()));
        Ok(harvest)
    }

    fn breaker(&self) -> Arc<dyn Break> {
        Arc::new(NoBreak)
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
