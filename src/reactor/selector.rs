//! The trait `Selector`, which is what a platform must supply; its implementation with mio; the break.
// Mirrors the contract at the top of Go's runtime/netpoll.go (`netpollinit`, `netpollopen`,
// `netpollclose`, `netpoll`, `netpollBreak`), and netpoll_epoll.go and netpoll_kqueue.go.

use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use mio::event::Source;
use mio::unix::pipe;

use super::types::{Readiness, Token};

/// One event of the selector.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use netpoller::reactor::{Event, MioSelector, Readiness, Selector, Token};
/// let mut selector = MioSelector::new()?;
/// let (mut ours, theirs) = mio::net::UnixStream::pair()?;
/// let token = Token::from(mio::Token(7));
/// selector.open(&mut ours, token)?;
/// drop(theirs);
/// let mut events: Vec<Event> = Vec::new();
/// while events.is_empty() {
///     selector.netpoll(None, &mut events)?;
/// }
/// assert_eq!(events[0].token, token);
/// assert!(events[0].readiness.contains(Readiness::READ));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which source.
    pub token: Token,
    /// What it is ready for. After an error, or the end of both directions, both are ready, as in Go.
    pub readiness: Readiness,
}

/// Whether a call of [`Selector::netpoll`] returned all events that had occurred.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use netpoller::reactor::{Harvest, MioSelector, Selector};
/// let mut selector = MioSelector::new()?;
/// let harvest = selector.netpoll(Some(std::time::Duration::ZERO), &mut Vec::new())?;
/// assert_eq!(harvest, Harvest::Complete); // nothing has occurred, so nothing is missing
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harvest {
    /// All events that occurred before the call were returned.
    Complete,
    /// There may be more: the buffer was full, or a signal interrupted the wait. While each call says this,
    /// no deadline expires that comes after the last complete harvest.
    Partial,
}

/// What a selector can report.
///
/// ```
/// use netpoller::reactor::{MioSelector, Selector};
///
/// # fn main() -> std::io::Result<()> {
/// let traits = MioSelector::new()?.traits();
/// // Without edges (poll(2)), a source is armed again after each EAGAIN.
/// println!("edges: {}, urgent data: {}", traits.edges, traits.urgent);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// The selector is edge-triggered: it reports new readiness without [`rearm`](Selector::rearm).
    /// If not (poll(2)), a source is armed again after EAGAIN, and a short read proves nothing.
    pub edges: bool,
    /// Urgent data is reported. If not, a short read proves nothing.
    pub urgent: bool,
    /// Has no effect, and will be removed in 0.2.
    pub close_forgets: bool,
}

/// Ends a blocked [`Selector::netpoll`] from any thread.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use netpoller::reactor::{Break, MioSelector, Selector, Token};
/// use std::sync::Arc;
/// let mut selector = MioSelector::new()?;
/// let breaker: Arc<dyn Break> = selector.breaker();
/// let other = std::thread::spawn(move || breaker.break_netpoll());
/// let mut events = Vec::new();
/// while events.is_empty() {
///     selector.netpoll(None, &mut events)?; // sleeps until the thread breaks it
/// }
/// assert_eq!(events[0].token, Token::BREAK);
/// other.join().unwrap()?;
/// # Ok(())
/// # }
/// ```
#[doc(alias = "netpollBreak")]
pub trait Break: Send + Sync {
    /// Makes the call under way, or else the next one, return soon.
    ///
    /// # Errors
    ///
    /// The system's. Then the loop may sleep on.
    fn break_netpoll(&self) -> io::Result<()>;
}

/// The platform contract of the netpoller.
///
/// A source is registered once, for both directions, edge-triggered. A test may wrap
/// [`MioSelector`] to watch, delay or forge events: `tests/it/support/faulty.rs` does so.
///
/// These methods, and a source's `register`, `reregister` and `deregister`, must not use the reactor: it is
/// borrowed while they run.
///
/// ```
/// use netpoller::reactor::{
///     Break, Event, Harvest, MioSelector, Reactor, Readiness, Selector, Token, Traits,
/// };
/// use std::io;
/// use std::os::fd::BorrowedFd;
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// /// The system's selector, but it returns one event per call. For tests of a loop.
/// struct OneByOne {
///     system: MioSelector,
///     found: Vec<Event>,
/// }
///
/// impl Selector for OneByOne {
///     fn open(&mut self, source: &mut dyn mio::event::Source, token: Token) -> io::Result<()> {
///         self.system.open(source, token)
///     }
///     fn rearm(
///         &mut self,
///         source: &mut dyn mio::event::Source,
///         token: Token,
///         interest: Readiness,
///     ) -> io::Result<()> {
///         self.system.rearm(source, token, interest)
///     }
///     fn close(&mut self, source: &mut dyn mio::event::Source) -> io::Result<()> {
///         self.system.close(source)
///     }
///     fn netpoll(&mut self, wait: Option<Duration>, out: &mut Vec<Event>) -> io::Result<Harvest> {
///         let mut harvest = Harvest::Partial;
///         if self.found.is_empty() {
///             harvest = self.system.netpoll(wait, &mut self.found)?;
///         }
///         out.extend(self.found.pop());
///         // Complete only if this call has asked the system, and keeps nothing back.
///         Ok(match self.found.is_empty() {
///             true => harvest,
///             false => Harvest::Partial,
///         })
///     }
///     fn breaker(&self) -> Arc<dyn Break> {
///         self.system.breaker()
///     }
///     fn traits(&self) -> Traits {
///         self.system.traits()
///     }
///     fn descriptor(&self) -> Option<BorrowedFd<'_>> {
///         None // It would not be readable for the events in `found`.
///     }
/// }
///
/// # fn main() -> io::Result<()> {
/// let system = MioSelector::new()?;
/// let reactor: Reactor<usize> = Reactor::with(Box::new(OneByOne { system, found: Vec::new() }));
/// # assert_eq!(reactor.turn(Some(Duration::ZERO), &mut Vec::new())?.events, 0);
/// # Ok(())
/// # }
/// ```
pub trait Selector {
    /// Registers a source under `token`, for both directions and urgent data.
    ///
    /// # Errors
    ///
    /// The system's, such as ENOMEM or ENOSPC (fs.epoll.max_user_watches).
    #[doc(alias = "netpollopen")]
    fn open(&mut self, source: &mut dyn Source, token: Token) -> io::Result<()>;

    /// As [`Selector::open`], which it calls by default. `fd` is the source's descriptor, if the
    /// caller knows it: for a selector that makes system calls of its own.
    ///
    /// # Errors
    ///
    /// As [`Selector::open`].
    fn open_fd(
        &mut self,
        source: &mut dyn Source,
        token: Token,
        fd: Option<RawFd>,
    ) -> io::Result<()> {
        let _ = fd;
        self.open(source, token)
    }

    /// Asks for `interest` again. Called only where [`Traits::edges`] is false.
    ///
    /// # Errors
    ///
    /// The system's.
    fn rearm(
        &mut self,
        source: &mut dyn Source,
        token: Token,
        interest: Readiness,
    ) -> io::Result<()>;

    /// Forgets a source. Events that were returned already may name it: the reactor drops them.
    ///
    /// # Errors
    ///
    /// The system's.
    fn close(&mut self, source: &mut dyn Source) -> io::Result<()>;

    /// Waits up to `max_wait` (for ever if `None`) and appends what is ready to `events`.
    ///
    /// If a signal ends the wait early, this returns [`Harvest::Partial`] and no error. A break is an event
    /// of [`Token::BREAK`].
    ///
    /// # Errors
    ///
    /// The system's. The events that were appended before are handed out all the same.
    fn netpoll(
        &mut self,
        max_wait: Option<Duration>,
        events: &mut Vec<Event>,
    ) -> io::Result<Harvest>;

    /// The way to end a wait from another thread.
    fn breaker(&self) -> Arc<dyn Break>;

    /// What this selector can report.
    fn traits(&self) -> Traits;

    /// A file descriptor that is readable when `netpoll` would return events, so that another loop can wait
    /// for this one. `None`, as by default, where there is none (poll(2)).
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// The system's selector (epoll, kqueue), through mio.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use netpoller::Reactor;
/// use netpoller::reactor::MioSelector;
/// // As `Reactor::new`. A selector of your own may wrap this one.
/// let reactor: Reactor<usize> = Reactor::with(Box::new(MioSelector::new()?));
/// assert_eq!(reactor.descriptors(), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MioSelector {
    poll: mio::Poll,
    events: mio::Events,
    breaker: Arc<Pipe>,
}

/// How many events a call returns at most, to begin with. Go takes 128 events. A larger buffer needs fewer
/// calls. It delays nothing: the runtime polls again after a bounded number of machines.
const CAPACITY: usize = 1024;

/// If the buffer is full, the harvest is partial, and proves no tick: so the buffer grows, up to this size.
const MAX_CAPACITY: usize = 1 << 16;

/// The longest wait: Darwin answers much longer ones with EINVAL. Go has the same limit there.
const LONGEST: Duration = Duration::from_secs(1_000_000);

impl MioSelector {
    /// Opens the system's selector.
    ///
    /// # Errors
    ///
    /// The system's, when descriptors or memory ran out.
    #[doc(alias = "netpollinit")]
    pub fn new() -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        let (sender, mut receiver) = pipe::new()?;
        let token = Token::BREAK.into();
        poll.registry()
            .register(&mut receiver, token, mio::Interest::READABLE)?;
        Ok(MioSelector {
            poll,
            events: mio::Events::with_capacity(CAPACITY),
            breaker: Arc::new(Pipe { sender, receiver }),
        })
    }
}

fn interest(readiness: Readiness) -> mio::Interest {
    let interest = match readiness {
        Readiness::READ => mio::Interest::READABLE,
        Readiness::WRITE => mio::Interest::WRITABLE,
        _ => mio::Interest::READABLE | mio::Interest::WRITABLE,
    };
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let interest = interest | mio::Interest::PRIORITY;
    interest
}

fn readiness(event: &mio::event::Event) -> Readiness {
    let flag = |is: bool, flag: Readiness| Readiness(flag.0 * u8::from(is));
    let ready =
        flag(event.is_readable(), Readiness::READ) | flag(event.is_writable(), Readiness::WRITE);
    // A broken source is ready for both: either attempt returns the error. ERR alone is no hang-up: a UDP
    // socket gets it from an ICMP message, and stays usable.
    let broken = event.is_error() || event.is_write_closed();
    let hung_up = event.is_read_closed();
    if !(broken || hung_up || event.is_priority()) {
        return ready;
    }
    ready
        | flag(hung_up || broken, Readiness::READ)
        | flag(broken, Readiness::WRITE)
        | flag(hung_up, Readiness::HUNG_UP)
        | flag(event.is_priority(), Readiness::URGENT)
}

impl Selector for MioSelector {
    fn open(&mut self, source: &mut dyn Source, token: Token) -> io::Result<()> {
        let registry = self.poll.registry();
        registry.register(source, token.into(), interest(Readiness::BOTH))
    }

    fn rearm(
        &mut self,
        source: &mut dyn Source,
        token: Token,
        wanted: Readiness,
    ) -> io::Result<()> {
        let registry = self.poll.registry();
        match registry.reregister(source, token.into(), interest(wanted)) {
            // mio's poll(2) selector deregisters a source after an error. Register it again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                registry.register(source, token.into(), interest(wanted))
            }
            result => result,
        }
    }

    fn close(&mut self, source: &mut dyn Source) -> io::Result<()> {
        match self.poll.registry().deregister(source) {
            // As above: mio has deregistered it after an error.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn netpoll(
        &mut self,
        max_wait: Option<Duration>,
        events: &mut Vec<Event>,
    ) -> io::Result<Harvest> {
        let at_most = max_wait.map(|wait| wait.min(LONGEST));
        match self.poll.poll(&mut self.events, at_most) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                return Ok(Harvest::Partial);
            }
            result => result?,
        }
        let before = events.len();
        for event in &self.events {
            let token = Token::from(event.token());
            if token == Token::BREAK {
                // Read until EAGAIN, which under poll(2) makes mio arm it again.
                let mut receiver = &self.breaker.receiver;
                while matches!(receiver.read(&mut [0; 64]), Ok(some) if some > 0) {}
            }
            let readiness = readiness(event);
            events.push(Event { token, readiness });
        }
        let capacity = self.events.capacity();
        if events.len() - before < capacity {
            return Ok(Harvest::Complete);
        }
        if capacity < MAX_CAPACITY {
            self.events = mio::Events::with_capacity(capacity * 2);
        }
        Ok(Harvest::Partial)
    }

    fn breaker(&self) -> Arc<dyn Break> {
        self.breaker.clone()
    }

    fn traits(&self) -> Traits {
        Traits {
            edges: !cfg!(mio_unsupported_force_poll_poll),
            urgent: cfg!(any(target_os = "linux", target_os = "android")),
            close_forgets: false,
        }
    }

    #[cfg(not(mio_unsupported_force_poll_poll))]
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        use std::os::fd::AsRawFd;
        Some(crate::sys::borrow(self.poll.as_raw_fd(), &self.poll))
    }
}

/// Ends a wait from another thread: a pipe; its read end is registered like a source. mio's own waker loses
/// wakes under poll(2) (1.2.4, `modify_fds`): to register a source, mio reads the waker's bytes. If a wake
/// came just before, its byte is lost, and the next wait does not end.
///
/// Both ends live as long as a breaker does, since a write to a pipe without a reader raises SIGPIPE.
#[derive(Debug)]
struct Pipe {
    sender: pipe::Sender,
    receiver: pipe::Receiver,
}

impl Break for Pipe {
    fn break_netpoll(&self) -> io::Result<()> {
        match (&self.sender).write(&[1]) {
            // The pipe is full: a break is on its way already.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            result => result.map(drop),
        }
    }
}
