//! The selector that a reactor asks, and what the last call brought in.
//!
//! May touch: the selector. The system's own is asked directly and read in place, for a virtual
//! call and a copy for each event would cost as much as finding its owner; any other through
//! [`Selector`].

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Source;

use super::selector::{Break, Event, Harvest, MioSelector, Selector, Token, Traits};
use super::words::Readiness;

pub(crate) enum Poller {
    System(MioSelector),
    Given {
        selector: Box<dyn Selector>,
        events: Vec<Event>,
    },
}

impl Poller {
    pub(crate) fn given(selector: Box<dyn Selector>) -> Self {
        Poller::Given {
            selector,
            events: Vec::new(),
        }
    }

    /// For all but the harvest.
    pub(crate) fn selector(&self) -> &dyn Selector {
        match self {
            Poller::System(selector) => selector,
            Poller::Given { selector, .. } => &**selector,
        }
    }

    fn selector_mut(&mut self) -> &mut dyn Selector {
        match self {
            Poller::System(selector) => selector,
            Poller::Given { selector, .. } => &mut **selector,
        }
    }

    pub(crate) fn open(&mut self, source: &mut dyn Source, token: Token) -> io::Result<()> {
        self.selector_mut().open(source, token)
    }

    pub(crate) fn rearm(
        &mut self,
        source: &mut dyn Source,
        token: Token,
        wanted: Readiness,
    ) -> io::Result<()> {
        self.selector_mut().rearm(source, token, wanted)
    }

    pub(crate) fn close(&mut self, source: &mut dyn Source) -> io::Result<()> {
        self.selector_mut().close(source)
    }

    pub(crate) fn traits(&self) -> Traits {
        self.selector().traits()
    }

    pub(crate) fn breaker(&self) -> Arc<dyn Break> {
        self.selector().breaker()
    }

    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.selector().descriptor()
    }

    /// Waits; what comes replaces what the last call brought.
    pub(crate) fn netpoll(&mut self, max_wait: Option<Duration>) -> io::Result<Harvest> {
        match self {
            Poller::System(selector) => selector.wait(max_wait),
            Poller::Given { selector, events } => {
                events.clear();
                selector.netpoll(max_wait, events)
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Poller::System(selector) => selector.harvested().next().is_none(),
            Poller::Given { events, .. } => events.is_empty(),
        }
    }
}
