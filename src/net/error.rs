//! Errors that say which operation, on which network, from and to which address, and what the
//! system said.
//!
//! May touch: the endpoints. Mirrors Go's `net.OpError`, `os.SyscallError`, `net.Error` and
//! `poll.ErrNetClosing`.

use std::error::Error;
use std::fmt;
use std::io;

use crate::endpoints::Addr;
use crate::reactor::Refusal;

/// What went wrong, whichever operation it was.
#[derive(Debug)]
#[non_exhaustive]
pub enum Cause {
    /// The deadline passed: `i/o timeout`.
    Timeout,
    /// The socket is closed: `use of closed network connection`.
    Closed,
    /// A cancel scope ended: `operation was canceled`.
    Canceled,
    /// A system call failed.
    System {
        /// Which, as Go names it: `connect`, `bind`, `read`.
        call: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// Anything else: a name that did not resolve, an address that does not parse.
    Other(io::Error),
}

impl Cause {
    fn kind(&self) -> io::ErrorKind {
        match self {
            Cause::Timeout => io::ErrorKind::TimedOut,
            Cause::Closed => io::ErrorKind::NotConnected,
            // Never `Interrupted`: read_to_end and its like would try again for ever.
            Cause::Canceled => io::ErrorKind::Other,
            Cause::System { error, .. } | Cause::Other(error) => error.kind(),
        }
    }

    pub(crate) fn system(call: &'static str, error: io::Error) -> Self {
        Cause::System { call, error }
    }
}

impl From<Refusal> for Cause {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TimedOut => Cause::Timeout,
            Refusal::Closed => Cause::Closed,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Timeout => f.write_str("i/o timeout"),
            Cause::Closed => f.write_str("use of closed network connection"),
            Cause::Canceled => f.write_str("operation was canceled"),
            Cause::System { call, error } => write!(f, "{call}: {}", system_text(error)),
            Cause::Other(error) => f.write_str(&system_text(error)),
        }
    }
}

/// The system's words as Go writes them: without a capital, and without the number.
fn system_text(error: &io::Error) -> String {
    let text = error.to_string();
    let Some(number) = error.raw_os_error() else {
        return text;
    };
    let text = text
        .strip_suffix(&format!(" (os error {number})"))
        .unwrap_or(&text);
    let mut letters = text.chars();
    let second_is_small = text.chars().nth(1).is_some_and(|c| !c.is_uppercase());
    match letters.next() {
        Some(first) if second_is_small => {
            first.to_lowercase().collect::<String>() + letters.as_str()
        }
        _ => text.to_owned(),
    }
}

/// A failed operation on the network: Go's `net.OpError`.
///
/// Every [`io::Error`] of this crate's sockets carries one: see [`NetError::op_error`].
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use netpoller::{NetError, TcpStream};
/// netpoller::Runtime::new()?.block_on(async {
///     let error = TcpStream::connect("127.0.0.1:1").await.unwrap_err();
///     assert_eq!(
///         error.to_string(),
///         "dial tcp 127.0.0.1:1: connect: connection refused"
///     );
///     assert_eq!(error.op_error().unwrap().op, "dial");
/// });
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct OpError {
    /// `dial`, `listen`, `accept`, `read`, `write`, `close`, `set`.
    pub op: &'static str,
    /// The network: `tcp`, `udp4`, `unix`, …
    pub net: &'static str,
    /// Our end, where there are two.
    pub source: Option<Addr>,
    /// The peer's end; or the listener's own address; or what was asked for.
    pub addr: Option<Addr>,
    /// Bytes that had gone out before a write failed.
    pub written: usize,
    /// What went wrong.
    pub cause: Cause,
}

impl OpError {
    /// The system's error number, if a system call failed.
    pub fn raw_os_error(&self) -> Option<i32> {
        match &self.cause {
            Cause::System { error, .. } | Cause::Other(error) => error.raw_os_error(),
            _ => None,
        }
    }

    fn is_timeout(&self) -> bool {
        match &self.cause {
            Cause::Timeout => true,
            Cause::System { error, .. } | Cause::Other(error) => error.is_timeout(),
            _ => false,
        }
    }

    fn is_temporary(&self) -> bool {
        match &self.cause {
            Cause::Timeout => true,
            Cause::System { error, .. } | Cause::Other(error) => {
                // On accept these are the peer's doing, not the listener's.
                let aborted = matches!(
                    error.raw_os_error(),
                    Some(libc::ECONNRESET | libc::ECONNABORTED)
                );
                error.is_temporary() || (self.op == "accept" && aborted)
            }
            _ => false,
        }
    }
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.op, self.net)?;
        match (&self.source, &self.addr) {
            (Some(source), Some(addr)) => write!(f, " {source}->{addr}")?,
            (Some(one), None) | (None, Some(one)) => write!(f, " {one}")?,
            (None, None) => {}
        }
        write!(f, ": {}", self.cause)?;
        if self.written > 0 {
            write!(f, " ({} bytes written)", self.written)?;
        }
        Ok(())
    }
}

impl Error for OpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.cause {
            Cause::System { error, .. } | Cause::Other(error) => Some(error),
            _ => None,
        }
    }
}

impl From<OpError> for io::Error {
    fn from(error: OpError) -> Self {
        io::Error::new(error.cause.kind(), error)
    }
}

/// What Go's `net.Error` tells of an error, for [`io::Error`].
pub trait NetError {
    /// A deadline or a time limit passed.
    fn is_timeout(&self) -> bool;
    /// Trying again may help: timeouts, and the system's being short of something.
    fn is_temporary(&self) -> bool;
    /// The socket was closed on our side.
    fn is_closed(&self) -> bool;
    /// A cancel scope ended the operation.
    fn is_canceled(&self) -> bool;
    /// The operation that failed, with its addresses.
    fn op_error(&self) -> Option<&OpError>;
}

impl NetError for io::Error {
    fn is_timeout(&self) -> bool {
        match self.op_error() {
            Some(error) => error.is_timeout(),
            None => matches!(
                self.kind(),
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
            ),
        }
    }

    fn is_temporary(&self) -> bool {
        match self.op_error() {
            Some(error) => error.is_temporary(),
            None => {
                let short = [
                    libc::EINTR,
                    libc::EMFILE,
                    libc::ENFILE,
                    libc::ENOBUFS,
                    libc::ENOMEM,
                ];
                self.is_timeout() || self.raw_os_error().is_some_and(|n| short.contains(&n))
            }
        }
    }

    fn is_closed(&self) -> bool {
        matches!(
            self.op_error(),
            Some(OpError {
                cause: Cause::Closed,
                ..
            })
        )
    }

    fn is_canceled(&self) -> bool {
        matches!(
            self.op_error(),
            Some(OpError {
                cause: Cause::Canceled,
                ..
            })
        )
    }

    fn op_error(&self) -> Option<&OpError> {
        self.get_ref()?.downcast_ref()
    }
}
