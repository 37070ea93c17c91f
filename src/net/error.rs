//! Errors that say which operation, on which network, from and to which address, and what the
//! system said.
// Mirrors Go's `net.OpError`, `os.SyscallError`, `net.Error` and `poll.ErrNetClosing`.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind::TimedOut, ErrorKind::WouldBlock};

use crate::cancel::CancelError;
use crate::endpoints::Addr;
use crate::reactor::Refusal;
use crate::sys;

/// What went wrong, whichever operation it was.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// use netpoller::{Cause, NetError, TcpStream};
/// let error = TcpStream::connect("nosuch.invalid:80").await.unwrap_err();
/// match &error.op_error().unwrap().cause {
///     Cause::Lookup { name, temporary, .. } => {
///         assert_eq!((name.as_str(), *temporary), ("nosuch.invalid", false));
///     }
///     other => panic!("{other}"),
/// }
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Cause {
    /// The deadline passed: `i/o timeout`.
    Timeout,
    /// The socket is closed: `use of closed network connection`.
    Closed,
    /// A cancel scope ended: `operation was canceled`.
    Canceled,
    /// This process is a child of fork(2), and the socket is its parent's.
    Inherited,
    /// A system call failed.
    System {
        /// Which, as Go names it: `connect`, `bind`, `read`.
        call: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// A name did not resolve, or a service's: `lookup nosuch.invalid: no such host`.
    Lookup {
        /// What was looked up: a host, or `tcp/http`.
        name: String,
        /// Why it was not found.
        cause: Box<Cause>,
        /// Asking again may help.
        temporary: bool,
    },
    /// What was asked for is no address: `address 127.0.0.1: missing port in address`.
    Address {
        /// The part that is wrong; empty if nothing was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// What was asked for is no network: `unknown network foo`.
    UnknownNetwork(String),
    /// Several addresses were tried, and each failed; the first error is the one that counts. See
    /// [`OpError::attempts`].
    Attempts(Vec<OpError>),
    /// Anything else.
    Other(io::Error),
}

impl Cause {
    /// The innermost cause: of several attempts the first one's, of a look-up the one that stopped it.
    fn root(&self) -> &Cause {
        match self {
            Cause::Lookup { cause, .. } => cause.root(),
            Cause::Attempts(all) => all.first().map_or(self, |first| first.cause.root()),
            root => root,
        }
    }

    /// The `io::Error` of the innermost cause, if it has one.
    fn io(&self) -> Option<&io::Error> {
        match self.root() {
            Cause::System { error, .. } | Cause::Other(error) => Some(error),
            _ => None,
        }
    }

    fn kind(&self) -> io::ErrorKind {
        match self.root() {
            Cause::Timeout => io::ErrorKind::TimedOut,
            Cause::Closed => io::ErrorKind::NotConnected,
            // Never `Interrupted`: read_to_end and its like would try again for ever.
            Cause::Canceled | Cause::Inherited => io::ErrorKind::Other,
            Cause::System { error, .. } | Cause::Other(error) => error.kind(),
            Cause::Address { .. } | Cause::UnknownNetwork(_) => io::ErrorKind::InvalidInput,
            // `Attempts` is its own root only if there was no address at all.
            Cause::Lookup { .. } | Cause::Attempts(_) => io::ErrorKind::NotFound,
        }
    }

    /// The error of this system call, for `map_err`.
    pub(crate) fn by(call: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Cause::System { call, error }
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

impl From<CancelError> for Cause {
    fn from(ended: CancelError) -> Self {
        match ended {
            CancelError::Canceled => Cause::Canceled,
            CancelError::DeadlineExceeded => Cause::Timeout,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Timeout => f.write_str("i/o timeout"),
            Cause::Closed => f.write_str("use of closed network connection"),
            Cause::Canceled => f.write_str("operation was canceled"),
            Cause::Inherited => f.write_str(
                "the socket belongs to the parent process: after fork(2), open one in the child",
            ),
            Cause::System { call, error } => write!(f, "{call}: {}", system_text(error)),
            Cause::Lookup { name, cause, .. } => write!(f, "lookup {name}: {cause}"),
            Cause::Address { text, reason } if text.is_empty() => f.write_str(reason),
            Cause::Address { text, reason } => write!(f, "address {text}: {reason}"),
            Cause::UnknownNetwork(name) => write!(f, "unknown network {name}"),
            Cause::Attempts(all) => match all.first() {
                Some(first) => first.cause.fmt(f),
                None => f.write_str("missing address"),
            },
            Cause::Other(error) => f.write_str(&system_text(error)),
        }
    }
}

/// The system's text as Go writes it: with a small first letter, unless the second is a capital too,
/// and without the number.
fn system_text(error: &io::Error) -> String {
    let mut text = error.to_string();
    if let Some(number) = error.raw_os_error() {
        let bare = text.strip_suffix(&format!(" (os error {number})"));
        text.truncate(bare.unwrap_or(&text).len());
        let has_several = text.chars().nth(1).is_some_and(char::is_uppercase);
        if let Some(first) = text.get_mut(..1).filter(|_| !has_several) {
            first.make_ascii_lowercase();
        }
    }
    text
}

/// A failed operation on the network: Go's `net.OpError`.
///
/// The [`io::Error`]s of this crate's sockets carry one: see [`NetError::op_error`]. Those that are no
/// failed operation carry none: `UnexpectedEof` of a `read_exact`, `WouldBlock` of a try,
/// `NotConnected` of a `peer_addr` without a peer.
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
    /// As Go names it: `dial`, `listen`, `read`, `set`, …
    pub op: &'static str,
    /// The network: `tcp`, `tcp4`, `udp`, `unix`, …
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
    /// The error of an operation that names one end, or none.
    pub(crate) fn new(
        op: &'static str,
        net: &'static str,
        addr: Option<Addr>,
        cause: Cause,
    ) -> Self {
        OpError {
            op,
            net,
            source: None,
            addr,
            written: 0,
            cause,
        }
    }

    /// The system's error number, if a system call failed.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{NetError, TcpStream};
    /// let error = TcpStream::connect("127.0.0.1:1").await.unwrap_err();
    /// assert_eq!(error.op_error().unwrap().raw_os_error(), Some(libc::ECONNREFUSED));
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub fn raw_os_error(&self) -> Option<i32> {
        self.cause.io()?.raw_os_error()
    }

    /// The errors of all addresses that were tried; the one that counts is the first. If only one
    /// was tried, this is the error itself.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::{Dialer, NetError};
    /// let both = |_: &str| Ok(vec![[127, 0, 0, 1].into(), [127, 0, 0, 1].into()]);
    /// netpoller::Runtime::new()?.block_on(async {
    ///     let error = Dialer::new().resolver(both).dial("twice.test:1").await.unwrap_err();
    ///     let tried = error.op_error().unwrap().attempts();
    ///     assert_eq!(tried.len(), 2);
    ///     assert_eq!(tried[1].to_string(), "dial tcp 127.0.0.1:1: connect: connection refused");
    /// });
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn attempts(&self) -> &[OpError] {
        match &self.cause {
            Cause::Attempts(all) => all,
            _ => std::slice::from_ref(self),
        }
    }
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let net = match &self.cause {
            Cause::UnknownNetwork(name) => name,
            _ => self.net,
        };
        write!(f, "{} {net}", self.op)?;
        // Some causes name what was asked for.
        let is_named = matches!(
            self.cause,
            Cause::Lookup { .. } | Cause::Address { .. } | Cause::UnknownNetwork(_)
        );
        match (&self.source, &self.addr) {
            _ if is_named => {}
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
        self.cause.io().map(|error| error as _)
    }
}

impl From<OpError> for io::Error {
    fn from(error: OpError) -> Self {
        io::Error::new(error.cause.kind(), error)
    }
}

/// What Go's `net.Error` tells of an error, for [`io::Error`].
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// use netpoller::{NetError, TcpListener, time};
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// listener.set_deadline(Some(time::now()))?;
/// let error = listener.accept().await.unwrap_err();
/// assert!(error.is_timeout() && error.is_temporary() && !error.is_closed());
/// listener.close()?;
/// assert!(listener.accept().await.unwrap_err().is_closed());
/// # Ok(())
/// # })
/// # }
/// ```
pub trait NetError {
    /// A deadline or limit passed, or it is `WouldBlock`.
    ///
    /// ```
    /// use netpoller::{NetError, TcpStream, time};
    /// use std::time::Duration;
    ///
    /// /// What comes within a second, if anything does.
    /// async fn read_soon(stream: &TcpStream, buffer: &mut [u8]) -> std::io::Result<Option<usize>> {
    ///     stream.set_read_deadline(Some(time::now() + Duration::from_secs(1)))?;
    ///     match stream.read(buffer).await {
    ///         Err(error) if error.is_timeout() => Ok(None),
    ///         read => read.map(Some),
    ///     }
    /// }
    /// ```
    fn is_timeout(&self) -> bool;
    /// Trying again may help, as after a timeout or a shortage.
    ///
    /// ```
    /// use netpoller::NetError;
    /// use std::io;
    /// let shortage = io::Error::from_raw_os_error(libc::EMFILE);
    /// assert!(shortage.is_temporary());
    /// assert!(!io::Error::from_raw_os_error(libc::EINVAL).is_temporary());
    /// ```
    fn is_temporary(&self) -> bool;
    /// The socket was closed on our side.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{NetError, UnixStream};
    /// let (ours, theirs) = UnixStream::pair()?;
    /// ours.close()?;
    /// assert!(ours.read(&mut [0; 8]).await.unwrap_err().is_closed());
    /// // That the peer has closed is no error of a read: it is the end.
    /// assert_eq!(theirs.read(&mut [0; 8]).await?, 0);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    fn is_closed(&self) -> bool;
    /// A cancel scope ended the operation.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{CancelToken, Dialer, NetError};
    /// let scope = CancelToken::new();
    /// scope.cancel();
    /// let error = Dialer::new().cancel(&scope).dial("127.0.0.1:1").await.unwrap_err();
    /// assert!(error.is_canceled() && !error.is_timeout());
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    fn is_canceled(&self) -> bool;
    /// The operation that failed, with its addresses.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{NetError, TcpStream};
    /// let error = TcpStream::connect("127.0.0.1:1").await.unwrap_err();
    /// let failed = error.op_error().unwrap();
    /// assert_eq!((failed.op, failed.net), ("dial", "tcp"));
    /// assert_eq!(failed.addr.as_ref().unwrap().to_string(), "127.0.0.1:1");
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    fn op_error(&self) -> Option<&OpError>;
}

impl NetError for io::Error {
    fn is_timeout(&self) -> bool {
        matches!(self.kind(), TimedOut | WouldBlock)
    }

    fn is_temporary(&self) -> bool {
        use libc::{ECONNABORTED, ECONNRESET, EINTR};
        let Some(failed) = self.op_error() else {
            let is_interrupted = self.raw_os_error() == Some(EINTR);
            return self.is_timeout() || is_interrupted || sys::is_shortage(self);
        };
        // On accept these are the peer's doing, not the listener's.
        let is_aborted = matches!(failed.raw_os_error(), Some(ECONNRESET | ECONNABORTED));
        let may_be_found = matches!(failed.cause, Cause::Lookup { temporary, .. } if temporary);
        self.is_timeout()
            || (is_aborted && failed.op == "accept")
            || may_be_found
            || failed.cause.io().is_some_and(NetError::is_temporary)
    }

    fn is_closed(&self) -> bool {
        matches!(cause(self), Some(Cause::Closed))
    }

    fn is_canceled(&self) -> bool {
        matches!(cause(self), Some(Cause::Canceled))
    }

    fn op_error(&self) -> Option<&OpError> {
        self.get_ref()?.downcast_ref()
    }
}

/// Changes the failed operation that an error carries, if it carries one.
pub(super) fn amended(mut error: io::Error, change: impl FnOnce(&mut OpError)) -> io::Error {
    if let Some(failed) = error.get_mut().and_then(|inner| inner.downcast_mut()) {
        change(failed);
    }
    error
}

/// Says in an error how much had been written before it.
pub(crate) fn with_written(error: io::Error, bytes: usize) -> io::Error {
    amended(error, |failed| failed.written = bytes)
}

/// The innermost cause of a failed operation.
fn cause(error: &io::Error) -> Option<&Cause> {
    Some(error.op_error()?.cause.root())
}
