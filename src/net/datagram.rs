//! A datagram socket, of UDP or of Unix: whole messages, each from or to somebody.
//!
//! May touch: fd/. Mirrors what `net.UDPConn` and `net.UnixConn` share (`net/udpsock.go`,
//! `net/unixsock.go`), and `FD.ReadFrom`, `FD.WriteTo` (`internal/poll/fd_unix.go`).

use std::fmt;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::time::Instant;

use socket2::SockAddr;

use super::error::{Cause, OpError};
use super::fd::{Failure, Fd, Op, Reading, Writing};
use crate::endpoints::{Addr, End};
use crate::reactor::Direction;
use crate::runtime::context;
use crate::sys;

/// A datagram socket: [`UdpSocket`](crate::UdpSocket) or [`UnixDatagram`](crate::UnixDatagram).
///
/// A cheap handle: clones are the same socket, and closing one closes all. Those who receive queue
/// up behind each other, first come first served, and so do those who send. It closes by itself
/// when the last handle is dropped.
///
/// A message longer than the buffer is cut, and the rest of it is lost. An empty message is a
/// message: zero bytes received is not an end.
///
/// # Cancel safety
///
/// An operation that is dropped leaves nothing behind, and loses no message.
pub struct Datagram<K> {
    pub(super) fd: Fd,
    pub(super) kind: PhantomData<K>,
}

impl<K> Clone for Datagram<K> {
    fn clone(&self) -> Self {
        Datagram::new(self.fd.clone())
    }
}

impl<K> Datagram<K> {
    pub(super) fn new(fd: Fd) -> Self {
        Datagram {
            fd,
            kind: PhantomData,
        }
    }

    // ---- receiving ----

    /// Receives a message; on a connected socket, one of its peer's.
    ///
    /// # Errors
    ///
    /// The system's; a timeout once the read deadline has passed; closed. A connected UDP socket
    /// whose peer's port is closed says `connection refused`, once, and lives on.
    pub fn recv(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> {
        Op::new(Reading, &self.fd, move |fd| {
            let got = fd.receive(buffer)?;
            context::charge(got);
            Ok(got)
        })
    }

    /// Receives what is there without waiting.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if nothing is; else as [`recv`](Datagram::recv).
    pub fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let tried = self.fd.try_once(Direction::Read, |fd| {
            let got = fd.receive(buffer)?;
            context::charge(got);
            Ok(got)
        });
        tried.map_err(|failure| self.error("read", failure))
    }

    /// Receives a message without taking it out: the next one to receive gets it again.
    ///
    /// # Errors
    ///
    /// As [`recv`](Datagram::recv).
    pub fn peek(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> {
        Op::new(Reading, &self.fd, move |fd| {
            context::charge(0);
            sys::peek(&fd.socket(), buffer)
        })
    }

    /// Waits until a message is there, or an error.
    ///
    /// # Errors
    ///
    /// A timeout once the read deadline has passed; closed.
    pub fn readable(&self) -> impl Future<Output = io::Result<()>> {
        Op::new(Reading, &self.fd, |_| {
            context::charge(0);
            Ok(())
        })
    }

    pub(super) async fn recv_from_system(
        &self,
        buffer: &mut [u8],
    ) -> io::Result<(usize, SockAddr)> {
        let received = Op::new(Reading, &self.fd, move |fd| {
            let (got, from) = fd.socket().recv_from(sys::uninit(buffer))?;
            context::charge(got);
            Ok((got, from))
        });
        received
            .await
            .map_err(|error| renamed(error, "recvfrom", None))
    }

    // ---- sending ----

    /// Sends a message to the peer; waits while the system has no room for it. All of it goes, or
    /// nothing.
    ///
    /// # Errors
    ///
    /// The system's, if the socket is not connected or the message too long; a timeout once the
    /// write deadline has passed; closed.
    pub fn send(&self, message: &[u8]) -> impl Future<Output = io::Result<usize>> {
        Op::new(Writing, &self.fd, move |fd| fd.send(message))
    }

    /// Sends a message to the peer without waiting.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if there is no room; else as [`send`](Datagram::send).
    pub fn try_send(&self, message: &[u8]) -> io::Result<usize> {
        let tried = self.fd.try_once(Direction::Write, |fd| fd.send(message));
        tried.map_err(|failure| self.error("write", failure))
    }

    /// Waits until there is room to send.
    ///
    /// # Errors
    ///
    /// A timeout once the write deadline has passed; closed.
    pub fn writable(&self) -> impl Future<Output = io::Result<()>> {
        Op::new(Writing, &self.fd, |_| {
            context::charge(0);
            Ok(())
        })
    }

    pub(super) async fn send_to_system(
        &self,
        message: &[u8],
        to: &SockAddr,
        name: Addr,
    ) -> io::Result<usize> {
        let sent = Op::new(Writing, &self.fd, |fd| {
            let sent = sys::send_to(&fd.socket(), message, to)?;
            context::charge(sent);
            Ok(sent)
        });
        sent.await
            .map_err(|error| renamed(error, "sendto", Some(name)))
    }

    /// Why a message can't be sent to `name`, before the system is asked: the socket is connected.
    pub(super) async fn check_unconnected(&self, name: &Addr) -> io::Result<()> {
        if self.fd.resource().endpoint(End::Peer).is_none() {
            return Ok(());
        }
        context::take_turn().await;
        let text = "use of send_to with a connected socket";
        let error = io::Error::new(io::ErrorKind::InvalidInput, text);
        let error = self.fd.op_error("write", Cause::Other(error));
        Err(renamed(error, "sendto", Some(name.clone())))
    }

    // ---- deadlines ----

    /// Sets both deadlines: see [`Stream::set_read_deadline`](crate::net::Stream::set_read_deadline).
    ///
    /// # Errors
    ///
    /// Closed.
    pub fn set_deadline(&self, when: Option<Instant>) -> io::Result<()> {
        self.set_read_deadline(when)?;
        self.set_write_deadline(when)
    }

    /// When receiving fails with a timeout; `None` for never.
    ///
    /// # Errors
    ///
    /// Closed.
    pub fn set_read_deadline(&self, when: Option<Instant>) -> io::Result<()> {
        self.fd.set_deadline(Direction::Read, when)
    }

    /// When sending fails with a timeout; `None` for never.
    ///
    /// # Errors
    ///
    /// Closed.
    pub fn set_write_deadline(&self, when: Option<Instant>) -> io::Result<()> {
        self.fd.set_deadline(Direction::Write, when)
    }

    // ---- closing ----

    /// Closes the socket, for every handle, before it returns. What is parked on it fails with
    /// "use of closed network connection".
    ///
    /// # Errors
    ///
    /// Closed already.
    pub fn close(&self) -> io::Result<()> {
        let closed = self.fd.close();
        closed.map_err(|failure| self.error("close", failure))
    }

    #[cold]
    pub(super) fn error(&self, op: &'static str, failure: Failure) -> io::Error {
        match failure {
            Failure::System(error) if error.kind() == io::ErrorKind::WouldBlock => error,
            failure => self.fd.error(op, failure, 0),
        }
    }
}

/// Names the system call, and the address that was sent to.
#[cold]
fn renamed(error: io::Error, call: &'static str, to: Option<Addr>) -> io::Error {
    let kind = error.kind();
    let inner = match error.into_inner() {
        Some(inner) => inner.downcast::<OpError>(),
        None => return kind.into(),
    };
    match inner {
        Ok(mut error) => {
            if let Cause::System { call: called, .. } = &mut error.cause {
                *called = call;
            }
            error.addr = to.or(error.addr);
            (*error).into()
        }
        Err(other) => io::Error::new(kind, other),
    }
}

impl<K> fmt::Debug for Datagram<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Datagram");
        debug.field("network", &self.fd.network().name());
        for (name, end) in [("local", End::Local), ("peer", End::Peer)] {
            if let Some(address) = self.fd.endpoint(end) {
                debug.field(name, &format_args!("{address}"));
            }
        }
        debug.field("closed", &self.fd.is_closed()).finish()
    }
}
