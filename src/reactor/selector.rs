//! What the netpoller asks of the operating system, as a trait, and mio as its implementor.
//!
//! May touch: mio. Knows tokens and readiness, not who waits.
//! Mirrors the contract at the top of Go's `runtime/netpoll.go` (`netpollinit`, `netpollopen`,
//! `netpollclose`, `netpoll`, `netpollBreak`) and `netpoll_epoll.go`, `netpoll_kqueue.go`.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Source;

use super::alarm::Alarm;
use super::words::Readiness;
use crate::sys::{SystemEvent, SystemEvents};

/// Names a registered source to the selector: a slot and a generation.
///
/// Half the bits are the slot, half the generation, which counts registrations of the whole
/// reactor and wraps: an event would have to be 2^32 registrations old (2^16 on a 32-bit machine)
/// to reach the wrong owner, and no event outlives the turn that harvested it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub usize);

impl Token {
    const SLOT_BITS: u32 = usize::BITS / 2;

    /// Of an event that says only that somebody ended the wait.
    pub const BREAK: Token = Token(usize::MAX);

    /// The most sources that one reactor can hold, less one that is kept for the break.
    pub(crate) const MOST: usize = (1 << Self::SLOT_BITS) - 1;

    pub(crate) const fn new(slot: usize, generation: usize) -> Self {
        Token(slot | generation << Self::SLOT_BITS)
    }

    #[inline]
    pub(crate) const fn slot(self) -> usize {
        self.0 & Self::MOST
    }
}

/// One harvested event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which source.
    pub token: Token,
    /// What it is ready for. An error or a hang-up makes both directions ready, as in Go.
    pub readiness: Readiness,
}

/// Whether a harvest brought in everything that had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harvest {
    /// Nothing that had come before the call is still outside.
    Complete,
    /// There may be more: the buffer was full, or a signal interrupted the wait.
    Partial,
}

/// What a selector can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// Readiness that comes after an attempt failed is reported without being asked for again.
    /// Where not (poll(2)), a source is armed again after EAGAIN, and a short read proves nothing.
    pub edges: bool,
    /// Urgent data is reported. Where not, a short read proves nothing.
    pub urgent: bool,
    /// A source is forgotten when its descriptor is closed: then closing it needs no
    /// [`Selector::close`] first, unless somebody may hold a duplicate.
    pub close_forgets: bool,
}

/// Ends a blocked [`Selector::netpoll`] from any thread.
pub trait Break: Send + Sync {
    /// Makes the call under way, or else the next one, return soon.
    ///
    /// # Errors
    ///
    /// What the system said; the loop may then sleep on.
    fn break_netpoll(&self) -> io::Result<()>;
}

/// The platform contract of the netpoller.
///
/// A source is registered once, for both directions, edge-triggered. Wrap [`MioSelector`] to
/// watch, delay or forge events in a test.
pub trait Selector {
    /// Registers a source under `token`, for both directions and urgent data.
    ///
    /// # Errors
    ///
    /// What the system said: usually that it is out of memory or watches.
    fn open(&mut self, source: &mut dyn Source, token: Token) -> io::Result<()>;

    /// Asks for `interest` again. Called only where [`Traits::edges`] is false.
    ///
    /// # Errors
    ///
    /// What the system said.
    fn rearm(
        &mut self,
        source: &mut dyn Source,
        token: Token,
        interest: Readiness,
    ) -> io::Result<()>;

    /// Forgets a source. Events already harvested may still name it: the reactor drops them.
    ///
    /// # Errors
    ///
    /// What the system said.
    fn close(&mut self, source: &mut dyn Source) -> io::Result<()>;

    /// Waits up to `max_wait` (for ever if `None`) and appends what is ready to `events`.
    ///
    /// A signal ends the wait early, as [`Harvest::Partial`], and is no error. A break shows as an
    /// event of [`Token::BREAK`].
    ///
    /// # Errors
    ///
    /// What the system said.
    fn netpoll(
        &mut self,
        max_wait: Option<Duration>,
        events: &mut Vec<Event>,
    ) -> io::Result<Harvest>;

    /// The way to end a wait from another thread.
    fn breaker(&self) -> Arc<dyn Break>;

    /// What this selector can tell apart.
    fn traits(&self) -> Traits;

    /// The descriptor that becomes readable when `netpoll` would return events, to nest this loop
    /// in another. `None` where there is none (poll(2)).
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
}

/// The system's selector (epoll, kqueue), through mio.
#[derive(Debug)]
pub struct MioSelector {
    poll: mio::Poll,
    events: SystemEvents,
    alarm: Alarm,
    /// The last harvest filled the buffer.
    overflowed: bool,
}

const BREAK: mio::Token = mio::Token(Token::BREAK.0);

/// Events a call brings in, to begin with. Go takes 128; a larger batch costs less a message, and
/// the runtime looks at the selector again after a bounded number of machines anyway.
const CAPACITY: usize = 1024;

/// A full buffer is an incomplete harvest, which holds deadlines back: it grows, up to here.
const MOST_CAPACITY: usize = 1 << 16;

impl MioSelector {
    /// Opens the system's selector.
    ///
    /// # Errors
    ///
    /// The system's, when descriptors or memory ran out.
    pub fn new() -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        let alarm = Alarm::new(&poll, BREAK)?;
        Ok(MioSelector {
            poll,
            events: SystemEvents::with_capacity(CAPACITY),
            alarm,
            overflowed: false,
        })
    }
}

impl MioSelector {
    /// Waits, and keeps what comes, for [`MioSelector::harvested`].
    pub(crate) fn wait(&mut self, max_wait: Option<Duration>) -> io::Result<Harvest> {
        if self.overflowed && self.events.capacity() < MOST_CAPACITY {
            self.events = SystemEvents::with_capacity(self.events.capacity() * 2);
        }
        if let Err(error) = self.events.wait(&mut self.poll, max_wait)
            && self.interrupted(error, max_wait)?
        {
            return Ok(Harvest::Partial);
        }
        self.overflowed = self.events.iter().count() >= self.events.capacity();
        if cfg!(mio_unsupported_force_poll_poll)
            && self
                .events
                .iter()
                .any(|event| event.token() == Token::BREAK.0)
        {
            self.alarm.heard();
        }
        Ok(if self.overflowed {
            Harvest::Partial
        } else {
            Harvest::Complete
        })
    }

    /// Who would have waited must reckon anew for how long: true. Who only looks, looks again.
    #[cold]
    #[inline(never)]
    fn interrupted(
        &mut self,
        mut error: io::Error,
        max_wait: Option<Duration>,
    ) -> io::Result<bool> {
        while error.kind() == io::ErrorKind::Interrupted {
            if max_wait != Some(Duration::ZERO) {
                self.events.clear();
                self.overflowed = false;
                return Ok(true);
            }
            match self.events.wait(&mut self.poll, max_wait) {
                Ok(()) => return Ok(false),
                Err(again) => error = again,
            }
        }
        Err(error)
    }

    /// What the last wait brought in.
    #[inline]
    pub(crate) fn harvested(&self) -> impl Iterator<Item = Event> + Clone {
        self.events.iter().map(|event| Event {
            token: Token(event.token()),
            readiness: readiness(&event),
        })
    }
}

fn interest(readiness: Readiness) -> mio::Interest {
    let both = mio::Interest::READABLE | mio::Interest::WRITABLE;
    let interest = match (
        readiness.contains(Readiness::READ),
        readiness.contains(Readiness::WRITE),
    ) {
        (true, false) => mio::Interest::READABLE,
        (false, true) => mio::Interest::WRITABLE,
        _ => both,
    };
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let interest = interest | mio::Interest::PRIORITY;
    interest
}

#[inline]
fn readiness(event: &SystemEvent) -> Readiness {
    if event.is_usual() {
        return Readiness::BOTH;
    }
    rarer_readiness(event)
}

#[cold]
#[inline(never)]
fn rarer_readiness(event: &SystemEvent) -> Readiness {
    let mut readiness = Readiness::NONE;
    if event.is_readable() {
        readiness |= Readiness::READ;
    }
    if event.is_writable() {
        readiness |= Readiness::WRITE;
    }
    if event.is_read_closed() {
        readiness |= Readiness::READ | Readiness::HUNG_UP;
    }
    // A broken source is ready for both: either attempt will say what is wrong with it. ERR
    // alone is no hang-up (a UDP socket gets it from an ICMP message and lives on).
    if event.is_error() || event.is_write_closed() {
        readiness |= Readiness::READ | Readiness::WRITE;
    }
    if event.is_priority() {
        readiness |= Readiness::URGENT;
    }
    readiness
}

impl Selector for MioSelector {
    fn open(&mut self, source: &mut dyn Source, token: Token) -> io::Result<()> {
        let both = interest(Readiness::READ | Readiness::WRITE);
        let token = mio::Token(token.0);
        self.poll.registry().register(source, token, both)
    }

    fn rearm(
        &mut self,
        source: &mut dyn Source,
        token: Token,
        wanted: Readiness,
    ) -> io::Result<()> {
        let (token, wanted) = (mio::Token(token.0), interest(wanted));
        let registry = self.poll.registry();
        match registry.reregister(source, token, wanted) {
            // mio's poll(2) drops a source after an error; it may be in use all the same.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                registry.register(source, token, wanted)
            }
            result => result,
        }
    }

    fn close(&mut self, source: &mut dyn Source) -> io::Result<()> {
        match self.poll.registry().deregister(source) {
            // As above: dropped after an error, so there is nothing left to forget.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn netpoll(
        &mut self,
        max_wait: Option<Duration>,
        events: &mut Vec<Event>,
    ) -> io::Result<Harvest> {
        let harvest = self.wait(max_wait)?;
        events.extend(self.harvested());
        Ok(harvest)
    }

    fn breaker(&self) -> Arc<dyn Break> {
        self.alarm.breaker()
    }

    fn traits(&self) -> Traits {
        Traits {
            edges: !cfg!(mio_unsupported_force_poll_poll),
            urgent: cfg!(any(target_os = "linux", target_os = "android")),
            close_forgets: !cfg!(mio_unsupported_force_poll_poll),
        }
    }

    #[cfg(not(mio_unsupported_force_poll_poll))]
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        use std::os::fd::AsRawFd;
        Some(crate::sys::borrow(self.poll.as_raw_fd(), &self.poll))
    }

    #[cfg(mio_unsupported_force_poll_poll)]
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
