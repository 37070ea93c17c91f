//! Why connections end, and what a write that is refused says.

use std::fmt;
use std::io;

use super::rate::Rate;
use crate::net::Cause;
use crate::net::fd::{Fd, Name};
use crate::reactor::Direction;

/// Why a connection ended: what [`Protocol::ended`](crate::Protocol::ended) hears.
///
/// The first failure counts, but a panic or the runtime's end replaces it. Without a failure, the first
/// request counts.
///
/// ```
/// use std::io;
/// use netpoller::{CloseReason, Conn, Protocol};
///
/// struct Game { away: bool }
///
/// impl Protocol for Game {
///     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
///         Ok(bytes.len())
///     }
///     fn ended(&mut self, why: CloseReason) {
///         // A player that was dropped may come back; one that left is gone.
///         self.away = matches!(why, CloseReason::Idle(_) | CloseReason::Error(_));
///     }
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer ended it, in good order.
    Peer,
    /// The protocol, its filter, a handle or an id asked for it: `close`, `close_write` or `abort`.
    Asked,
    /// The server was drained, or the connection had reached its greatest age, and nothing was in
    /// flight on it.
    Drained,
    /// The peer showed no sign of life for the [idle timeout](crate::Server::idle_timeout), or did
    /// not take the last bytes in time.
    Idle(io::Error),
    /// The peer did not meet a minimum rate.
    TooSlow(io::Error),
    /// More was to be kept in memory than the [`Limits`](crate::Limits) allow. The error says which.
    Limit(io::Error),
    /// The server was stopped, or a drain reached its limit.
    Stopped(io::Error),
    /// The connection broke, the protocol or its filter failed, a callback panicked, or the runtime
    /// ended.
    Error(io::Error),
}

impl CloseReason {
    /// The error, unless the connection ended in good order.
    ///
    /// ```
    /// use netpoller::CloseReason;
    ///
    /// assert!(CloseReason::Peer.error().is_none());
    /// let broken = CloseReason::Error(std::io::ErrorKind::ConnectionReset.into());
    /// assert!(broken.error().is_some());
    /// ```
    pub fn error(&self) -> Option<&io::Error> {
        use CloseReason::{Error, Idle, Limit, Stopped, TooSlow};
        match self {
            Idle(error) | TooSlow(error) | Limit(error) | Stopped(error) | Error(error) => {
                Some(error)
            }
            _ => None,
        }
    }

    /// `Ok` if the connection ended in good order, and else the error.
    ///
    /// ```
    /// use netpoller::CloseReason;
    ///
    /// assert!(CloseReason::Drained.into_result().is_ok());
    /// let broken = CloseReason::Error(std::io::ErrorKind::ConnectionReset.into());
    /// assert!(broken.into_result().is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// The reason's.
    pub fn into_result(self) -> io::Result<()> {
        use CloseReason::{Error, Idle, Limit, Stopped, TooSlow};
        match self {
            Idle(error) | TooSlow(error) | Limit(error) | Stopped(error) | Error(error) => {
                Err(error)
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.error()) {
            (_, Some(error)) => error.fmt(f),
            (CloseReason::Peer, _) => f.write_str("end of file"),
            (CloseReason::Drained, _) => f.write_str("drained"),
            _ => f.write_str("closed"),
        }
    }
}

/// The error of a write after our direction has ended.
pub(super) fn direction_ended() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "our direction has ended")
}

/// Returns `used`, the bytes that a protocol or a filter has used; an error if more than was offered.
pub(super) fn checked(used: usize, offered: &[u8]) -> io::Result<usize> {
    if used <= offered.len() {
        return Ok(used);
    }
    let text = format!("{used} bytes used of {}", offered.len());
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

/// The operation that meets a limit, and the field of [`Limits`](crate::Limits).
pub(super) type Limit = (&'static str, &'static str);

pub(super) const QUEUED: Limit = ("write", "most_queued");
pub(super) const QUEUED_IN_ALL: Limit = ("write", "most_queued_in_all");
pub(super) const UNUSED: Limit = ("read", "most_unused");
pub(super) const UNUSED_IN_ALL: Limit = ("read", "most_unused_in_all");

pub(super) fn over_limit((_, field): Limit) -> Cause {
    let text = format!("over the limit {field}");
    Cause::Other(io::Error::new(io::ErrorKind::QuotaExceeded, text))
}

pub(super) fn too_slow(fd: &Fd, direction: Direction, rate: Rate, moved: u64) -> io::Error {
    let window = match rate.window % 1000 {
        0 => format!("{} s", rate.window / 1000),
        _ => format!("{} ms", rate.window),
    };
    let asked = rate.min_bytes;
    let text = format!("minimum rate not met: {moved} bytes in {window}, {asked} asked");
    let error = io::Error::new(io::ErrorKind::TimedOut, text);
    fd.op_error(Name::of(direction).text(), Cause::Other(error))
}
