//! The small types of the reactor: a direction, readiness, how an attempt to park ended, and why an
//! operation is refused.
// Mirrors the modes 'r' and 'w', and pollErrClosing and pollErrTimeout, of Go's runtime/netpoll.go.

use std::fmt;

/// One of a source's two directions. Each has its own slot, deadline and refusal.
///
/// ```
/// use netpoller::{Direction, Runtime, Source};
/// use std::io::Read;
///
/// # fn main() -> std::io::Result<()> {
/// Runtime::new()?.block_on(async {
///     let (ours, theirs) = mio::net::UnixStream::pair()?;
///     drop(theirs);
///     let source = Source::new(ours)?;
///     let got = source.io(Direction::Read, |mut ours| ours.read(&mut [0])).await?;
///     assert_eq!(got, 0, "the end of file");
///     Ok(())
/// })
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Data, connections or end of file coming in.
    Read,
    /// Room for data going out.
    Write,
}

impl Direction {
    /// Both, in the order of a descriptor's slots.
    pub const BOTH: [Direction; 2] = [Direction::Read, Direction::Write];
}

/// What became of an attempt to park.
///
/// Except for `Parked`, this contains the `W`, and no turn will hand it out: run it yourself, now. If you
/// drop it, nothing will run it.
///
/// ```
/// use netpoller::reactor::{Descriptor, Direction, Park, Refusal};
///
/// /// Parks a machine, or makes it runnable. What is in `runnable` runs before the next turn.
/// fn wait(descriptor: &Descriptor<usize>, machine: usize, runnable: &mut Vec<usize>) -> Result<(), Refusal> {
///     match descriptor.park(Direction::Read, machine) {
///         Park::Parked => Ok(()),
///         Park::Ready(machine) => Ok(runnable.push(machine)),
///         Park::TimedOut(_) => Err(Refusal::TimedOut),
///         Park::Closed(_) => Err(Refusal::Closed),
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "no turn hands out a W that was not parked: run it"]
pub enum Park<W> {
    /// It waits. A turn will hand it out.
    Parked,
    /// The direction is ready already: try again. This used the readiness up.
    Ready(W),
    /// The direction's deadline has passed.
    TimedOut(W),
    /// The descriptor is closed.
    Closed(W),
}

/// What became of [`PollDesc::try_io`](super::PollDesc::try_io).
///
/// ```
/// use netpoller::reactor::{Descriptor, Direction, TryIo};
/// use std::io::{self, Read};
///
/// /// What was read for a machine, or `None` if it is parked.
/// fn read(
///     socket: &mut mio::net::TcpStream,
///     descriptor: &Descriptor<usize>,
///     machine: usize,
///     buffer: &mut [u8],
/// ) -> io::Result<Option<usize>> {
///     match descriptor.try_io(Direction::Read, machine, || socket.read(buffer)) {
///         TryIo::Done(read, _machine) => read.map(Some),
///         TryIo::Parked => Ok(None),
///         TryIo::Refused(refusal, _machine) => Err(io::Error::other(refusal)),
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "no turn hands out a W that was not parked: run it"]
pub enum TryIo<R, W> {
    /// The operation was called, and returned this: a value, or an error other than `WouldBlock`.
    Done(R, W),
    /// The operation has to wait, and the `W` is parked. A turn will hand it out: try again then.
    Parked,
    /// The operation did not succeed: its deadline has passed, or the descriptor is closed.
    Refused(Refusal, W),
}

/// Why an operation must not be tried.
///
/// ```
/// use netpoller::reactor::Refusal;
///
/// // The words are Go's.
/// assert_eq!(Refusal::TimedOut.to_string(), "i/o timeout");
/// assert_eq!(Refusal::Closed.to_string(), "use of closed network connection");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The direction's deadline has passed, and has not been moved since.
    TimedOut,
    /// The descriptor is closed; or this process is a child of fork, and the descriptor is its parent's.
    Closed,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::TimedOut => "i/o timeout",
            Refusal::Closed => "use of closed network connection",
        })
    }
}

impl std::error::Error for Refusal {}

/// Whether an operation may be tried now: closed, expired and ready in one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum May {
    /// It is ready, as far as is known.
    Try,
    /// Not ready, as far as is known: park.
    Wait,
    /// The descriptor is closed, or the deadline has passed.
    Refused(Refusal),
}

/// What the selector says of a source: a set of `READ`, `WRITE`, `HUNG_UP` and `URGENT`.
///
/// ```
/// use netpoller::reactor::Readiness;
///
/// // A FIN makes reading ready, and says that the peer hung up.
/// let fin = Readiness::READ | Readiness::HUNG_UP;
/// assert!(fin.contains(Readiness::READ) && !fin.contains(Readiness::WRITE));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Readiness(pub(super) u8);

impl Readiness {
    /// Nothing.
    pub const NONE: Readiness = Readiness(0);
    /// An attempt to read may succeed.
    pub const READ: Readiness = Readiness(1);
    /// An attempt to write may succeed.
    pub const WRITE: Readiness = Readiness(2);
    /// The peer sent FIN or RST, or reading was shut here: see `PollDesc::is_hung_up`.
    pub const HUNG_UP: Readiness = Readiness(4);
    /// Urgent data is in the stream. A read may stop before it, though more is there.
    pub const URGENT: Readiness = Readiness(8);

    /// Ready for both directions.
    pub(crate) const BOTH: Readiness = Readiness(3);

    /// Whether all of `other` is in this set.
    ///
    /// ```
    /// use netpoller::reactor::Readiness;
    /// let ready = Readiness::READ | Readiness::WRITE;
    /// assert!(ready.contains(Readiness::WRITE) && !ready.contains(Readiness::URGENT));
    /// assert!(ready.contains(Readiness::NONE));
    /// ```
    pub const fn contains(self, other: Readiness) -> bool {
        self.0 & other.0 == other.0
    }
}

/// `READ|WRITE|HUP`, as log level trace prints it.
impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["READ", "WRITE", "HUP", "URGENT"];
        let mut names = (0..).zip(names).filter(|(bit, _)| self.0 & (1 << bit) != 0);
        f.write_str(names.next().map_or("NONE", |(_, name)| name))?;
        names.try_for_each(|(_, name)| write!(f, "|{name}"))
    }
}

impl std::ops::BitOr for Readiness {
    type Output = Readiness;
    fn bitor(self, other: Readiness) -> Readiness {
        Readiness(self.0 | other.0)
    }
}

/// Names a registered source to the selector: a key and a generation.
///
/// Half the bits are the key. The other half are the generation, which counts all registrations of the
/// reactor and wraps. Only an event that is 2^32 registrations old (2^16 on a 32-bit machine) could reach a
/// source that it does not name.
///
/// A selector hands it on unchanged. It converts to and from `mio::Token`.
///
/// ```
/// use netpoller::reactor::Token;
///
/// let token = Token::from(mio::Token(7));
/// assert_eq!(mio::Token::from(token), mio::Token(7));
/// assert_ne!(token, Token::BREAK);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub(crate) usize);

impl Token {
    const KEY_BITS: u32 = usize::BITS / 2;

    /// The token of an event that says only that a break ended the wait.
    pub const BREAK: Token = Token(usize::MAX);

    /// How many sources one reactor can hold; also the mask of a key. The key with all bits set is that of
    /// `Token::BREAK`.
    pub(crate) const KEYS: usize = (1 << Self::KEY_BITS) - 1;

    pub(super) const fn new(key: usize, generation: usize) -> Self {
        Token(key | generation << Self::KEY_BITS)
    }

    pub(crate) const fn key(self) -> usize {
        self.0 & Self::KEYS
    }
}

/// `Token(key.generation)`, as log level trace prints it.
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
