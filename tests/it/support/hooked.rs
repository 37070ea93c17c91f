//! The system's selector, with a function of a test's in place of its `netpoll`.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Source;
use netpoller::reactor::{Break, Event, Harvest, MioSelector, Readiness, Selector, Token, Traits};

struct Hooked<F> {
    inner: MioSelector,
    netpoll: F,
}

/// `netpoll` is given the system's selector, and may replace it.
pub fn hooked<F>(netpoll: F) -> Box<dyn Selector>
where
    F: FnMut(&mut MioSelector, Option<Duration>, &mut Vec<Event>) -> io::Result<Harvest> + 'static,
{
    let inner = MioSelector::new().unwrap();
    Box::new(Hooked { inner, netpoll })
}

impl<F> Selector for Hooked<F>
where
    F: FnMut(&mut MioSelector, Option<Duration>, &mut Vec<Event>) -> io::Result<Harvest>,
{
    fn open(&mut self, source: &mut dyn Source, token: Token) -> io::Result<()> {
        self.inner.open(source, token)
    }

    fn rearm(
        &mut self,
        source: &mut dyn Source,
        token: Token,
        wanted: Readiness,
    ) -> io::Result<()> {
        self.inner.rearm(source, token, wanted)
    }

    fn close(&mut self, source: &mut dyn Source) -> io::Result<()> {
        self.inner.close(source)
    }

    fn netpoll(&mut self, wait: Option<Duration>, events: &mut Vec<Event>) -> io::Result<Harvest> {
        (self.netpoll)(&mut self.inner, wait, events)
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
