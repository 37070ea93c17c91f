//! The system's selector, asked by mio.
//!
//! May touch: mio. Mirrors `netpoll` in Go's `runtime/netpoll_kqueue.go`.

use std::io;
use std::time::Duration;

/// Darwin takes much longer waits for a mistake, and says EINVAL; Go goes as far as this.
const LONGEST: Duration = Duration::from_secs(1_000_000);

/// One event, as mio shows it.
#[derive(Clone, Copy)]
pub(crate) struct Event<'a>(&'a mio::event::Event);

impl Event<'_> {
    /// Under which token it was registered.
    #[inline]
    pub(crate) fn token(&self) -> usize {
        self.0.token().0
    }

    /// Ready for both, and nothing else.
    #[inline]
    pub(crate) fn is_usual(&self) -> bool {
        let both = self.is_readable() && self.is_writable();
        let closed = self.is_read_closed() || self.is_write_closed();
        both && !closed && !self.is_error() && !self.is_priority()
    }

    pub(crate) fn is_readable(&self) -> bool {
        self.0.is_readable()
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.0.is_writable()
    }

    pub(crate) fn is_error(&self) -> bool {
        self.0.is_error()
    }

    pub(crate) fn is_priority(&self) -> bool {
        self.0.is_priority()
    }

    pub(crate) fn is_read_closed(&self) -> bool {
        self.0.is_read_closed()
    }

    pub(crate) fn is_write_closed(&self) -> bool {
        self.0.is_write_closed()
    }
}

/// Room for the events of one wait, and those of the last.
#[derive(Debug)]
pub(crate) struct Events {
    events: mio::Events,
}

impl Events {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Events {
            events: mio::Events::with_capacity(capacity),
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.events.capacity()
    }

    pub(crate) fn clear(&mut self) {
        self.events.clear();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Event<'_>> + Clone {
        self.events.iter().map(Event)
    }

    /// Waits for something, up to `max_wait` or eleven days, whichever is less.
    pub(crate) fn wait(
        &mut self,
        poll: &mut mio::Poll,
        max_wait: Option<Duration>,
    ) -> io::Result<()> {
        poll.poll(&mut self.events, max_wait.map(|wait| wait.min(LONGEST)))
    }
}
