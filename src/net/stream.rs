//! A connected byte stream, of TCP or of Unix.
//!
//! May touch: fd/. Mirrors `net.conn` and `net.TCPConn` (`net/net.go`, `net/tcpsock.go`).
//!
//! | file | what it is |
//! |---|---|
//! | `read.rs`, `write.rs` | moving bytes |
//! | `read_with.rs` | reading into the loop's own buffer |
//! | `close.rs` | ending it, by us or by the peer |

mod close;
mod read;
mod read_with;
mod write;

use std::fmt;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use super::fd::{Failure, Fd};
use crate::endpoints::End;
use crate::reactor::Direction;

/// A connected byte stream: [`TcpStream`](crate::TcpStream) or [`UnixStream`](crate::UnixStream).
///
/// A cheap handle: clones are the same connection, and closing one closes all. Reads queue up
/// behind each other, first come first served, and so do writes; the two directions are apart. It
/// closes by itself when the last handle is dropped.
///
/// # Cancel safety
///
/// An operation that is dropped leaves nothing behind and loses no byte, but those which move data
/// in several steps ([`write_all`](Stream::write_all), [`read_exact`](Stream::read_exact)) may
/// have moved some.
pub struct Stream<K> {
    pub(super) fd: Fd,
    pub(super) kind: PhantomData<K>,
}

impl<K> Clone for Stream<K> {
    fn clone(&self) -> Self {
        Stream::new(self.fd.clone())
    }
}

impl<K> Stream<K> {
    pub(super) fn new(fd: Fd) -> Self {
        Stream {
            fd,
            kind: PhantomData,
        }
    }

    /// Sets both deadlines: see [`set_read_deadline`](Stream::set_read_deadline).
    ///
    /// # Errors
    ///
    /// Closed.
    #[inline]
    pub fn set_deadline(&self, when: Option<Instant>) -> io::Result<()> {
        self.set_read_deadline(when)?;
        self.set_write_deadline(when)
    }

    /// When reads fail with a timeout; `None` for never. One that is parked is bound by it too.
    ///
    /// "Now" and the past expire at once, even with data waiting. Expired stays expired until the
    /// deadline is moved. Moving it later costs a store: do it on every byte.
    ///
    /// # Errors
    ///
    /// Closed.
    #[inline]
    pub fn set_read_deadline(&self, when: Option<Instant>) -> io::Result<()> {
        self.fd.set_deadline(Direction::Read, when)
    }

    /// When writes fail with a timeout: see [`set_read_deadline`](Stream::set_read_deadline).
    ///
    /// # Errors
    ///
    /// Closed.
    #[inline]
    pub fn set_write_deadline(&self, when: Option<Instant>) -> io::Result<()> {
        self.fd.set_deadline(Direction::Write, when)
    }

    /// The operation, unless it is on no bytes: that waits for nothing, as in Go. There, a write of
    /// no bytes heeds the deadline, and a read of none does not.
    #[inline]
    fn unless<O>(&self, direction: Direction, nothing: bool, operation: O) -> Unless<'_, O> {
        Unless {
            fd: &self.fd,
            nothing: nothing.then_some(direction),
            operation,
        }
    }

    #[cold]
    pub(super) fn error(&self, op: &'static str, failure: Failure) -> io::Error {
        match failure {
            // What a try asks for: not an error of the operation, and looked at on every round.
            Failure::System(error) if error.kind() == io::ErrorKind::WouldBlock => error,
            failure => self.fd.error(op, failure, 0),
        }
    }
}

impl<K> fmt::Debug for Stream<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Stream");
        debug.field("network", &self.fd.network().name());
        for (name, end) in [("local", End::Local), ("peer", End::Peer)] {
            if let Some(address) = self.fd.endpoint(end) {
                debug.field(name, &format_args!("{address}"));
            }
        }
        debug.field("closed", &self.fd.is_closed()).finish()
    }
}

/// See [`Stream::unless`].
struct Unless<'a, O> {
    fd: &'a Fd,
    nothing: Option<Direction>,
    operation: O,
}

impl<O> Unless<'_, O> {
    fn has_nothing_to_do(&self) -> bool {
        match self.nothing {
            None => false,
            Some(Direction::Read) => !self.fd.is_closed(),
            Some(Direction::Write) => self.fd.refusal(Direction::Write).is_none(),
        }
    }
}

impl<T: Default, O: Future<Output = io::Result<T>> + Unpin> Future for Unless<'_, O> {
    type Output = io::Result<T>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.has_nothing_to_do() {
            return this.fd.poll_nothing(cx).map(Ok);
        }
        Pin::new(&mut this.operation).poll(cx)
    }
}
