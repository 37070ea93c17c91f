//! A datagram socket, of UDP or of Unix: whole messages, each with its sender or receiver.

// Mirrors what `net.UDPConn` and `net.UnixConn` share (`net/udpsock.go`, `net/unixsock.go`), and
// `FD.ReadFrom`, `FD.WriteTo` (`internal/poll/fd_unix.go`).

use std::future::Future;
use std::io;
use std::marker::PhantomData;

use socket2::SockAddr;

use super::addr;
use super::error::{Cause, OpError};
use super::fd::Fd;
use super::kinds::Kind;
use crate::endpoints::{Addr, End};
use crate::reactor::Direction::{Read, Write};
use crate::runtime::context;

/// A datagram socket: [`UdpSocket`](crate::UdpSocket) or [`UnixDatagram`](crate::UnixDatagram).
///
/// A cheap handle: clones are the same socket, and closing one closes all. Receives queue up behind
/// each other, first come first served, and so do sends. It closes by itself when the last handle
/// is dropped. It is not `Send`: see [`Stream`](crate::net::Stream).
///
/// A message longer than the buffer is cut, and the rest of it is lost. An empty message is a
/// message: zero bytes received is not an end.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// let (ours, theirs) = netpoller::UnixDatagram::pair()?;
/// theirs.send(b"first").await?;
/// theirs.send(b"").await?;
/// let mut buffer = [0; 3];
/// assert_eq!(ours.recv(&mut buffer).await?, 3); // "st" is lost
/// assert_eq!(ours.recv(&mut buffer).await?, 0); // the empty message
/// # Ok(())
/// # })
/// # }
/// ```
///
/// # Cancel safety
///
/// An operation that is dropped leaves nothing behind, and loses no message.
pub struct Datagram<K> {
    pub(super) fd: Fd,
    pub(super) kind: PhantomData<K>,
}

impl<K: Kind> Datagram<K> {
    /// Receives a message, and says from where it comes. A sender of Unix may have no name.
    ///
    /// # Errors
    ///
    /// As [`recv`](Datagram::recv).
    pub async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, K::Addr)> {
        let received = self.fd.op(Read, |fd| fd.receive_from(buffer)).await;
        let (got, from) = received.map_err(|error| renamed(error, "recvfrom", None))?;
        let from = K::addr(&addr::from_system(&from));
        Ok((got, from.ok_or(io::ErrorKind::InvalidData)?))
    }
}

impl<K> Datagram<K> {
    // ---- receiving ----

    /// Receives a message; on a connected socket, one of its peer's.
    ///
    /// With an empty buffer it takes no message and returns at once, as in Go; `recv_from` takes
    /// one, and says from where it came.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let (ours, theirs) = netpoller::UnixDatagram::pair()?;
    /// theirs.send(b"a message").await?;
    /// let mut buffer = [0; 1500];
    /// let length = ours.recv(&mut buffer).await?;
    /// assert_eq!(&buffer[..length], b"a message");
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The system's; a timeout once the read deadline has passed; closed. A connected UDP socket
    /// whose peer's port is closed says `connection refused`, once, and lives on.
    pub fn recv(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> {
        self.fd.op_on(Read, buffer.is_empty(), move |fd| {
            fd.receive_message(buffer)
        })
    }

    /// Receives what is there without waiting.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if nothing is; else as [`recv`](Datagram::recv).
    pub fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fd.try_now(Read, |fd| fd.receive_message(buffer))
    }

    /// Receives a message without taking it out: the next receive gets it again. With an empty
    /// buffer it returns at once.
    ///
    /// # Errors
    ///
    /// As [`recv`](Datagram::recv).
    pub fn peek(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> {
        self.fd
            .op_on(Read, buffer.is_empty(), move |fd| fd.peek(buffer))
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
        self.fd.op(Write, move |fd| fd.send_message(message))
    }

    /// Sends a message to the peer without waiting.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if there is no room; else as [`send`](Datagram::send).
    pub fn try_send(&self, message: &[u8]) -> io::Result<usize> {
        self.fd.try_now(Write, |fd| fd.send_message(message))
    }

    pub(super) async fn send_to_system(
        &self,
        message: &[u8],
        to: &SockAddr,
        name: Addr,
    ) -> io::Result<usize> {
        let sent = self.fd.op(Write, |fd| fd.send_to(message, to)).await;
        sent.map_err(|error| renamed(error, "sendto", Some(name)))
    }

    /// Why a message can't be sent to `name`, before the system is asked: the socket is connected.
    pub(super) async fn check_unconnected(&self, name: &Addr) -> io::Result<()> {
        if self.fd.socket().endpoint(End::Peer).is_none() {
            return Ok(());
        }
        context::yield_once().await;
        let text = "use of send_to with a connected socket";
        let error = io::Error::new(io::ErrorKind::InvalidInput, text);
        let error = self.fd.op_error("write", Cause::Other(error));
        Err(renamed(error, "sendto", Some(name.clone())))
    }
}

/// Names the system call, and the address that was sent to.
#[cold]
fn renamed(error: io::Error, call: &'static str, to: Option<Addr>) -> io::Error {
    match error.downcast::<OpError>() {
        Ok(mut error) => {
            if let Cause::System { call: called, .. } = &mut error.cause {
                *called = call;
            }
            error.addr = to.or(error.addr);
            error.into()
        }
        Err(bare) => bare,
    }
}
