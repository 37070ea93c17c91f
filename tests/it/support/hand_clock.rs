//! A clock that a test moves by hand: what stalls a loop takes no time.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use netpoller::Runtime;

/// The hand of a runtime's clock.
#[derive(Clone)]
pub struct Hand {
    start: Instant,
    passed: Rc<Cell<Duration>>,
}

impl Hand {
    /// So much time passes.
    pub fn pass(&self, time: Duration) {
        self.passed.set(self.passed.get() + time);
    }

    pub fn now(&self) -> Instant {
        self.start + self.passed.get()
    }
}

impl Default for Hand {
    fn default() -> Self {
        Hand {
            start: Instant::now(),
            passed: Rc::default(),
        }
    }
}

/// A runtime on the system's selector, and the hand of its clock.
pub fn by_hand() -> (Runtime, Hand) {
    let hand = Hand::default();
    let read = hand.clone();
    let runtime = Runtime::builder().clock(move || read.now());
    (runtime.build().unwrap(), hand)
}
