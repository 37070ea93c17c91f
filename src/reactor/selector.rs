//! What the netpoller asks of the operating system, as a trait; mio as its implementor; and the break.
// Mirrors the contract at the top of Go's runtime/netpoll.go (`netpollinit`, `netpollopen`,
// `netpollclose`, `netpoll`, `netpollBreak`), and netpoll_epoll.go and netpoll_kqueue.go.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use mio::event::Source;
use mio::unix::pipe;

use super::types::Readiness;

/// Names a registered source to the selector: a key and a generation.
///
/// Half the bits are the key, half the generation, which counts registrations of the whole reactor
/// and wraps: an event would have to be 2^32 registrations old (2^16 on a 32-bit machine) to reach
/// the wrong owner, and no event outlives the turn that harvested it.
///
/// A selector passes it on as it is, as a `mio::Token` if need be.
///
/// [`Selector`] has an example.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(usize);

impl Token {
    const KEY_BITS: u32 = usize::BITS / 2;

    /// The token of an event that says only that a break ended the wait.
    pub const BREAK: Token = Token(usize::MAX);

    /// How many sources one reactor can hold. The key of all bits is the break's.
    pub(crate) const KEYS: usize = (1 << Self::KEY_BITS) - 1;

    pub(super) const fn new(key: usize, generation: usize) -> Self {
        Token(key | generation << Self::KEY_BITS)
    }

    #[inline]
    pub(crate) const fn key(self) -> usize {
        self.0 & Self::KEYS
    }
}

/// `Token(key.generation)`, as in the log at trace.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Token::BREAK => f.write_str("Token(break)"),
            Token(bits) => write!(f, "Token({}.{})", self.key(), bits >> Self::KEY_BITS),
        }
    }
}

impl From<Token> for mio::Token {
    fn from(token: Token) -> mio::Token {
        mio::Token(token.0)
    }
}

impl From<mio::Token> for Token {
    fn from(token: mio::Token) -> Token {
        Token(token.0)
    }
}

/// One harvested event.
///
/// [`Selector`] has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which source.
    pub token: Token,
    /// What it is ready for. An error, or the end of both directions, makes both ready, as in Go.
    pub readiness: Readiness,
}

/// Whether a harvest brought in everything that had come.
///
/// [`Selector`] has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harvest {
    /// Nothing that had come before the call is still outside.
    Complete,
    /// There may be more: the buffer was full, or a signal interrupted the wait.
    Partial,
}

/// What a selector can tell apart.
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
    /// Readiness that comes after an attempt failed is reported without being asked for again.
    /// Where not (poll(2)), a source is armed again after EAGAIN, and a short read proves nothing.
    pub edges: bool,
    /// Urgent data is reported. Where not, a short read proves nothing.
    pub urgent: bool,
    /// A source is forgotten when its descriptor is closed: then closing it needs no
    /// [`Selector::close`] first, unless there may be a duplicate.
    pub close_forgets: bool,
}

/// Ends a blocked [`Selector::netpoll`] from any thread.
///
/// [`Breaker`](super::Breaker), which calls it, has an example.
#[doc(alias = "netpollBreak")]
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
/// A source is registered once, for both directions, edge-triggered. A test may wrap
/// [`MioSelector`] to watch, delay or forge events: `tests/it/support/faulty.rs` does so.
///
/// The reactor is borrowed while any of these runs, and so it is while a source's own `register`
/// does: neither may use the reactor.
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
/// /// The system's selector, which hands on one event in each look. A test of a loop uses it.
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
///         if self.found.is_empty() {
///             self.system.netpoll(wait, &mut self.found)?;
///         }
///         out.extend(self.found.pop());
///         // What is kept back has come already.
///         Ok(match self.found.is_empty() {
///             true => Harvest::Complete,
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
///         None // It does not tell of what is kept back.
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
    /// What the system said: usually that it is out of memory or watches.
    #[doc(alias = "netpollopen")]
    fn open(&mut self, source: &mut dyn Source, token: Token) -> io::Result<()>;

    /// As [`Selector::open`], which it calls by default, and tells the source's descriptor where
    /// the caller knows it: for a selector that makes system calls of its own.
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
    /// What the system said. What was appended before is handed out all the same.
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
///
/// [`Selector`] has an example.
#[derive(Debug)]
pub struct MioSelector {
    poll: mio::Poll,
    events: mio::Events,
    breaker: Arc<Pipe>,
    /// The last harvest filled the buffer.
    overflowed: bool,
}

/// How many events a call brings in, to begin with. Go takes 128. With more, there are fewer calls
/// for each message, and the runtime asks again after a bounded number of machines anyway.
const CAPACITY: usize = 1024;

/// A full buffer is an incomplete harvest, which holds deadlines back: it grows, up to here.
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
        let breaker = Arc::new(Pipe::new(poll.registry())?);
        Ok(MioSelector {
            poll,
            events: mio::Events::with_capacity(CAPACITY),
            breaker,
            overflowed: false,
        })
    }

    /// Waits. False if a signal cut the wait short: the caller then computes anew how long to wait.
    /// A wait of zero is repeated instead.
    fn wait(&mut self, max_wait: Option<Duration>) -> io::Result<bool> {
        loop {
            match self.poll.poll(&mut self.events, max_wait) {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                Err(_) if max_wait == Some(Duration::ZERO) => {}
                Err(_) => return Ok(false),
            }
        }
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

#[inline]
fn readiness(event: &mio::event::Event) -> Readiness {
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
    // A broken source is ready for both: either attempt will say what is wrong with it. ERR alone
    // is no hang-up: a UDP socket gets it from an ICMP message and lives on.
    if event.is_error() || event.is_write_closed() {
        readiness |= Readiness::BOTH;
    }
    if event.is_priority() {
        readiness |= Readiness::URGENT;
    }
    readiness
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
        let (token, wanted) = (token.into(), interest(wanted));
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
        if self.overflowed && self.events.capacity() < MAX_CAPACITY {
            self.events = mio::Events::with_capacity(self.events.capacity() * 2);
        }
        self.overflowed = false;
        if !self.wait(max_wait.map(|wait| wait.min(LONGEST)))? {
            return Ok(Harvest::Partial);
        }
        let before = events.len();
        for event in &self.events {
            let token = Token::from(event.token());
            if token == Token::BREAK {
                self.breaker.heard();
            }
            let readiness = readiness(event);
            events.push(Event { token, readiness });
        }
        self.overflowed = events.len() - before >= self.events.capacity();
        Ok(match self.overflowed {
            true => Harvest::Partial,
            false => Harvest::Complete,
        })
    }

    fn breaker(&self) -> Arc<dyn Break> {
        self.breaker.clone()
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

/// How a wait is ended from another thread: a pipe that is watched like any other source. mio's own
/// waker would do, but for poll(2), where it can lose a wake-up.
///
/// Both ends live as long as a breaker does: writing to a pipe that has no reader raises SIGPIPE.
#[derive(Debug)]
struct Pipe {
    sender: pipe::Sender,
    receiver: pipe::Receiver,
}

impl Pipe {
    fn new(registry: &mio::Registry) -> io::Result<Self> {
        let (sender, mut receiver) = pipe::new()?;
        let token = Token::BREAK.into();
        registry.register(&mut receiver, token, mio::Interest::READABLE)?;
        Ok(Pipe { sender, receiver })
    }

    /// Empties the pipe until EAGAIN, which under poll(2) makes mio arm it again.
    fn heard(&self) {
        let mut bytes = [0; 64];
        while matches!((&self.receiver).read(&mut bytes), Ok(some) if some > 0) {}
    }
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
