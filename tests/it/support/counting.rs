//! The system's selector, counted: how often the loop asks, how long it means to wait, and how
//! often it is broken in upon.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mio::event::Source;
use netpoller::reactor::{Break, Event, Harvest, MioSelector, Readiness, Selector, Token, Traits};

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

pub struct Counting {
    inner: MioSelector,
    counts: Arc<Counts>,
}

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

pub fn counting() -> (Box<Counting>, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let selector = Counting {
        inner: MioSelector::new().unwrap(),
        counts: counts.clone(),
    };
    (Box::new(selector), counts)
}

impl Selector for Counting {
    fn open(&mut self, source: &mut dyn Source, token: Token) -> io::Result<()> {
        self.inner.open(source, token)
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
        let before = self.counts.netpolls.fetch_add(1, Ordering::Relaxed);
        self.counts.waits.lock().unwrap().push(max_wait);
        let signals = self.counts.signals.load(Ordering::Relaxed);
        if signals > 0 && before.is_multiple_of(signals) {
            return Ok(Harvest::Partial);
        }
        self.inner.netpoll(max_wait, events)
    }

    fn breaker(&self) -> Arc<dyn Break> {
        Arc::new(CountingBreak {
            inner: self.inner.breaker(),
            counts: self.counts.clone(),
        })
    }

    fn traits(&self) -> Traits {
        self.inner.traits()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.inner.descriptor()
    }
}
