//! The system's selector, counted: how often the loop asks, how long it means to wait, and how
//! often it is interrupted.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use netpoller::reactor::{Break, Event, Harvest, MioSelector, Selector};

use super::hooked::{Hook, hooked_by};

#[derive(Default)]
pub struct Counts {
    pub netpolls: AtomicUsize,
    pub breaks: AtomicUsize,
    /// A signal ends one wait in so many; none if zero.
    pub signals: AtomicUsize,
    /// What the next breaks fail with, the last of them first.
    pub failures: Mutex<Vec<io::ErrorKind>>,
    /// What each call was ready to wait; `None` is for ever.
    pub waits: Mutex<Vec<Option<Duration>>>,
}

#[allow(dead_code, reason = "each test file uses some")]
impl Counts {
    pub fn netpolls(&self) -> usize {
        self.netpolls.load(Ordering::Relaxed)
    }

    pub fn breaks(&self) -> usize {
        self.breaks.load(Ordering::Relaxed)
    }

    /// Calls that meant to sleep.
    pub fn sleeps(&self) -> usize {
        let waits = self.waits.lock().unwrap();
        waits
            .iter()
            .filter(|&&wait| wait != Some(Duration::ZERO))
            .count()
    }
}

struct Counting(Arc<Counts>);

struct CountingBreak {
    inner: Arc<dyn Break>,
    counts: Arc<Counts>,
}

impl Break for CountingBreak {
    fn break_netpoll(&self) -> io::Result<()> {
        self.counts.breaks.fetch_add(1, Ordering::Relaxed);
        if let Some(failure) = self.counts.failures.lock().unwrap().pop() {
            return Err(failure.into());
        }
        self.inner.break_netpoll()
    }
}

pub fn counting() -> (Box<dyn Selector>, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    (hooked_by(Counting(counts.clone())), counts)
}

impl Hook for Counting {
    fn netpoll(
        &mut self,
        system: &mut MioSelector,
        wait: Option<Duration>,
        events: &mut Vec<Event>,
    ) -> io::Result<Harvest> {
        let before = self.0.netpolls.fetch_add(1, Ordering::Relaxed);
        self.0.waits.lock().unwrap().push(wait);
        let signals = self.0.signals.load(Ordering::Relaxed);
        if signals > 0 && before.is_multiple_of(signals) {
            return Ok(Harvest::Partial);
        }
        system.netpoll(wait, events)
    }

    fn breaker(&self, inner: Arc<dyn Break>) -> Arc<dyn Break> {
        let counts = self.0.clone();
        Arc::new(CountingBreak { inner, counts })
    }
}
