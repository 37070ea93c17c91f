//! The system's selector, with a change.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use mio::event::Source;
use netpoller::reactor::{Break, Event, Harvest, MioSelector, Readiness, Selector, Token, Traits};

/// What a test changes. A function is a change of `netpoll` alone.
pub trait Hook {
    /// In place of the system's, which it is given and may replace.
    fn netpoll(
        &mut self,
        system: &mut MioSelector,
        wait: Option<Duration>,
        events: &mut Vec<Event>,
    ) -> io::Result<Harvest> {
        system.netpoll(wait, events)
    }

    /// A source is about to be opened. An error refuses it.
    fn opens(&mut self, _: Token) -> io::Result<()> {
        Ok(())
    }

    /// A source is about to be closed.
    fn closes(&mut self) {}

    fn breaker(&self, system: Arc<dyn Break>) -> Arc<dyn Break> {
        system
    }

    /// Whether it has a descriptor to lend.
    fn lends(&self) -> bool {
        true
    }
}

impl<F> Hook for F
where
    F: FnMut(&mut MioSelector, Option<Duration>, &mut Vec<Event>) -> io::Result<Harvest>,
{
    fn netpoll(
        &mut self,
        system: &mut MioSelector,
        wait: Option<Duration>,
        events: &mut Vec<Event>,
    ) -> io::Result<Harvest> {
        self(system, wait, events)
    }
}

struct Hooked<H> {
    inner: MioSelector,
    hook: H,
}

/// `netpoll` is given the system's selector, and may replace it.
pub fn hooked<F>(netpoll: F) -> Box<dyn Selector>
where
    F: FnMut(&mut MioSelector, Option<Duration>, &mut Vec<Event>) -> io::Result<Harvest> + 'static,
{
    hooked_by(netpoll)
}

pub fn hooked_by(hook: impl Hook + 'static) -> Box<dyn Selector> {
    let inner = MioSelector::new().unwrap();
    Box::new(Hooked { inner, hook })
}

impl<H: Hook> Selector for Hooked<H> {
    fn open(&mut self, source: &mut dyn Source, token: Token) -> io::Result<()> {
        self.open_fd(source, token, None)
    }

    fn open_fd(&mut self, of: &mut dyn Source, token: Token, fd: Option<RawFd>) -> io::Result<()> {
        self.hook.opens(token)?;
        self.inner.open_fd(of, token, fd)
    }

    fn rearm(&mut self, of: &mut dyn Source, token: Token, wanted: Readiness) -> io::Result<()> {
        self.inner.rearm(of, token, wanted)
    }

    fn close(&mut self, source: &mut dyn Source) -> io::Result<()> {
        self.hook.closes();
        self.inner.close(source)
    }

    fn netpoll(&mut self, wait: Option<Duration>, events: &mut Vec<Event>) -> io::Result<Harvest> {
        self.hook.netpoll(&mut self.inner, wait, events)
    }

    fn breaker(&self) -> Arc<dyn Break> {
        self.hook.breaker(self.inner.breaker())
    }

    fn traits(&self) -> Traits {
        self.inner.traits()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.inner.descriptor().filter(|_| self.hook.lends())
    }
}

/// The system's selector, with room for `sources` sources.
pub fn with_room_for(sources: usize) -> Box<dyn Selector> {
    struct Full(usize);
    impl Hook for Full {
        fn opens(&mut self, _: Token) -> io::Result<()> {
            let left = self.0.checked_sub(1);
            self.0 = left.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOSPC))?;
            Ok(())
        }
    }
    hooked_by(Full(sources))
}
