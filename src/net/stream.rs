//! A connected byte stream, of TCP or of Unix: reading, writing, deadlines, closing.
//!
//! May touch: fd.rs. Mirrors `net.conn` and `net.TCPConn` (`net/net.go`, `net/tcpsock.go`).

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::error::Cause;
use super::fd::{Failure, Fd, MOST_AT_ONCE, Op, Reading, Writing};
use crate::endpoints::End;
use crate::reactor::Direction;
use crate::runtime::resource::Hold;
use crate::sys;

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

/// Room to read into, lent to one read after the other on this thread.
type Buffer = Box<[u8; BUFFER]>;

/// What one read takes at most: half of what a socket's receive buffer holds by default, and no
/// more than the caches like.
const BUFFER: usize = 64 * 1024;

thread_local! {
    static LENT: Cell<Option<Buffer>> = const { Cell::new(None) };
}

/// Takes the buffer, for a borrow would not do: a closure that reads again gets another.
#[inline]
fn take_buffer() -> Buffer {
    LENT.take().unwrap_or_else(new_buffer)
}

#[cold]
fn new_buffer() -> Buffer {
    match vec![0; BUFFER].into_boxed_slice().try_into() {
        Ok(buffer) => buffer,
        Err(_) => unreachable!("it is of that length"),
    }
}

impl<K> Stream<K> {
    pub(super) fn new(fd: Fd) -> Self {
        Stream {
            fd,
            kind: PhantomData,
        }
    }

    // ---- reading ----

    /// Reads what is there, up to the buffer's length; waits while nothing is. Zero is end of
    /// file, or an empty buffer.
    ///
    /// # Errors
    ///
    /// The system's; a timeout once the read deadline has passed; closed.
    pub fn read(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> {
        Op::new(Reading, &self.fd, move |fd| {
            if buffer.is_empty() {
                return Ok(0);
            }
            let asked = buffer.len().min(MOST_AT_ONCE);
            let got = sys::receive(&fd.socket(), &mut buffer[..asked])?;
            fd.moved(Direction::Read, got, asked);
            Ok(got)
        })
    }

    /// Reads into several buffers, one after the other, with one system call.
    ///
    /// # Errors
    ///
    /// As [`read`](Stream::read).
    pub fn read_vectored(
        &self,
        buffers: &mut [IoSliceMut<'_>],
    ) -> impl Future<Output = io::Result<usize>> {
        Op::new(Reading, &self.fd, move |fd| {
            let asked: usize = buffers.iter().map(|buffer| buffer.len()).sum();
            if asked == 0 {
                return Ok(0);
            }
            let got = sys::receive_vectored(&fd.socket(), buffers)?;
            // Of more buffers than the system takes at once, some are not even offered.
            let offered = if buffers.len() <= 1024 {
                asked
            } else {
                MOST_AT_ONCE
            };
            fd.moved(Direction::Read, got, offered);
            Ok(got)
        })
    }

    /// Fills the whole buffer.
    ///
    /// # Errors
    ///
    /// As [`read`](Stream::read); [`io::ErrorKind::UnexpectedEof`] if the stream ends first.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, it has taken bytes from the stream.
    pub fn read_exact<'a>(
        &'a self,
        buffer: &'a mut [u8],
    ) -> impl Future<Output = io::Result<()>> + 'a {
        ReadExact {
            fd: &self.fd,
            hold: Hold::Free,
            buffer,
            filled: 0,
        }
    }

    /// Reads into the loop's own buffer and lends what came to `f`: a connection that waits holds
    /// no buffer. At end of file, `f` gets an empty slice.
    ///
    /// `f` may do anything but wait: no borrow is held while it runs.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{TcpListener, TcpStream};
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let client = TcpStream::connect(listener.local_addr()?).await?;
    /// let (server, _) = listener.accept().await?;
    /// client.write_all(b"hello").await?;
    /// assert_eq!(server.read_with(|bytes| bytes.to_vec()).await?, b"hello");
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`read`](Stream::read).
    pub fn read_with<R>(&self, f: impl FnOnce(&[u8]) -> R) -> impl Future<Output = io::Result<R>> {
        let mut f = Some(f);
        Op::new(Reading, &self.fd, move |fd| {
            let mut buffer = take_buffer();
            let got = sys::receive(&fd.socket(), &mut buffer[..]);
            let result = got.map(|got| {
                fd.moved(Direction::Read, got, BUFFER);
                let f = f.take().expect("an operation that is done is not polled");
                f(&buffer[..got])
            });
            LENT.set(Some(buffer));
            result
        })
    }

    /// Reads without taking the bytes out: the next read sees them again.
    ///
    /// # Errors
    ///
    /// As [`read`](Stream::read).
    pub fn peek(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> {
        Op::new(Reading, &self.fd, move |fd| {
            sys::peek(&fd.socket(), buffer)
        })
    }

    /// Waits until a read may succeed, or would say end of file or an error.
    ///
    /// # Errors
    ///
    /// A timeout once the read deadline has passed; closed.
    pub fn readable(&self) -> impl Future<Output = io::Result<()>> {
        Op::new(Reading, &self.fd, |_| Ok(()))
    }

    /// Reads what is there without waiting.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if nothing is; else as [`read`](Stream::read).
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let asked = buffer.len().min(MOST_AT_ONCE);
        let tried = self.fd.try_once(Direction::Read, |fd| {
            let got = sys::receive(&fd.socket(), &mut buffer[..asked])?;
            fd.moved(Direction::Read, got, asked);
            Ok(got)
        });
        tried.map_err(|failure| self.error("read", failure))
    }

    // ---- writing ----

    /// Writes what the kernel takes at once, waiting until it takes something: one system call.
    ///
    /// # Errors
    ///
    /// The system's; a timeout once the write deadline has passed; closed.
    #[inline]
    pub fn write(&self, bytes: &[u8]) -> impl Future<Output = io::Result<usize>> {
        Op::new(Writing, &self.fd, move |fd| {
            fd.send(bytes)
        })
    }

    /// Writes several buffers, one after the other, with one system call.
    ///
    /// # Errors
    ///
    /// As [`write`](Stream::write).
    pub fn write_vectored(
        &self,
        buffers: &[IoSlice<'_>],
    ) -> impl Future<Output = io::Result<usize>> {
        Op::new(Writing, &self.fd, move |fd| {
            let gone = sys::send_vectored(&fd.socket(), buffers)?;
            // Not every buffer may have been offered: only EAGAIN proves that no more is taken.
            fd.moved(Direction::Write, gone, gone);
            Ok(gone)
        })
    }

    /// Writes everything: Go's `Write`. Nobody else's writes come between.
    ///
    /// # Errors
    ///
    /// As [`write`](Stream::write); the [`OpError`](crate::OpError) says how much had gone.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, some of it has been written.
    #[inline]
    pub fn write_all<'a>(&'a self, bytes: &'a [u8]) -> impl Future<Output = io::Result<()>> + 'a {
        WriteAll {
            fd: &self.fd,
            hold: Hold::Free,
            bytes,
            written: 0,
        }
    }

    /// Waits until a write may take something, or would fail.
    ///
    /// # Errors
    ///
    /// A timeout once the write deadline has passed; closed.
    pub fn writable(&self) -> impl Future<Output = io::Result<()>> {
        Op::new(Writing, &self.fd, |_| Ok(()))
    }

    /// Writes what the kernel takes without waiting.
    ///
    /// It goes past those who queue to write: [`writable`](Stream::writable) or the only writer
    /// should come before.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if it takes nothing; else as [`write`](Stream::write).
    #[inline]
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let tried = self.fd.try_once(Direction::Write, |fd| fd.send(bytes));
        tried.map_err(|failure| self.error("write", failure))
    }

    // ---- the peer's going ----

    /// Waits until the peer has sent FIN or RST, whether or not anybody reads.
    ///
    /// # Errors
    ///
    /// Closed, on our side.
    pub fn hung_up(&self) -> impl Future<Output = io::Result<()>> {
        HungUp {
            fd: &self.fd,
            ticket: None,
        }
    }

    // ---- deadlines ----

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
        let set = self.fd.set_deadline(Direction::Read, when);
        set.map_err(|failure| self.error("set", failure))
    }

    /// When writes fail with a timeout: see [`set_read_deadline`](Stream::set_read_deadline).
    ///
    /// # Errors
    ///
    /// Closed.
    #[inline]
    pub fn set_write_deadline(&self, when: Option<Instant>) -> io::Result<()> {
        let set = self.fd.set_deadline(Direction::Write, when);
        set.map_err(|failure| self.error("set", failure))
    }

    // ---- closing ----

    /// Closes the connection, for every handle, before it returns. What is parked on it fails with
    /// "use of closed network connection".
    ///
    /// What was written is still sent, by the system; with a linger set, on the blocking pool.
    ///
    /// # Errors
    ///
    /// Closed already.
    pub fn close(&self) -> io::Result<()> {
        self.fd
            .close()
            .map_err(|failure| self.error("close", failure))
    }

    /// Closes with a RST: what was not sent is thrown away, and no TIME_WAIT stays behind.
    ///
    /// # Errors
    ///
    /// Closed already.
    pub fn abort(&self) -> io::Result<()> {
        let zero = Some(Duration::ZERO);
        let set = self.fd.with_socket(|socket| socket.set_linger(zero));
        set.map_err(|failure| self.error("close", failure))?;
        self.close()
    }

    /// Ends reading: a parked read gets end of file. What the peer still sends is the system's
    /// business.
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn close_read(&self) -> io::Result<()> {
        self.shut_down(Shutdown::Read)
    }

    /// Ends writing: the peer reads end of file, and can still answer.
    ///
    /// # Errors
    ///
    /// The system's; closed.
    pub fn close_write(&self) -> io::Result<()> {
        self.shut_down(Shutdown::Write)
    }

    fn shut_down(&self, how: Shutdown) -> io::Result<()> {
        let done = self.fd.with_socket(|socket| socket.shutdown(how));
        done.map_err(|failure| match failure {
            Failure::System(error) => self.fd.op_error("close", Cause::system("shutdown", error)),
            refused => self.error("close", refused),
        })
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

/// [`Stream::write_all`]: holds the direction from the first byte to the last.
struct WriteAll<'a> {
    fd: &'a Fd,
    hold: Hold,
    bytes: &'a [u8],
    written: usize,
}

impl Future for WriteAll<'_> {
    type Output = io::Result<()>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let fd = this.fd;
        loop {
            let rest = &this.bytes[this.written..];
            let step = fd.poll_step(Direction::Write, &mut this.hold, cx, |fd| fd.send(rest));
            let result = match step {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(gone)) => {
                    this.written += gone;
                    if this.written < this.bytes.len() {
                        continue;
                    }
                    Ok(())
                }
                Poll::Ready(Err(failure)) => Err(fd.error("write", failure, this.written)),
            };
            fd.resource().release(Direction::Write, &mut this.hold);
            return Poll::Ready(result);
        }
    }
}

impl Drop for WriteAll<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.hold != Hold::Free {
            self.fd.give_up(Direction::Write, &mut self.hold);
        }
    }
}

/// [`Stream::read_exact`]: holds the direction until the buffer is full.
struct ReadExact<'a> {
    fd: &'a Fd,
    hold: Hold,
    buffer: &'a mut [u8],
    filled: usize,
}

impl Future for ReadExact<'_> {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            let length = this
                .buffer
                .len()
                .min(this.filled.saturating_add(MOST_AT_ONCE));
            let rest = &mut this.buffer[this.filled..length];
            let step = this
                .fd
                .poll_step(Direction::Read, &mut this.hold, cx, |fd| {
                    if rest.is_empty() {
                        return Ok(0);
                    }
                    let got = sys::receive(&fd.socket(), rest)?;
                    fd.moved(Direction::Read, got, rest.len());
                    Ok(got)
                });
            let result = match step {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(got)) => {
                    this.filled += got;
                    if this.filled == this.buffer.len() {
                        Ok(())
                    } else if got == 0 {
                        Err(io::ErrorKind::UnexpectedEof.into())
                    } else {
                        continue;
                    }
                }
                Poll::Ready(Err(failure)) => Err(this.fd.error("read", failure, 0)),
            };
            this.fd.resource().release(Direction::Read, &mut this.hold);
            return Poll::Ready(result);
        }
    }
}

impl Drop for ReadExact<'_> {
    fn drop(&mut self) {
        if self.hold != Hold::Free {
            self.fd.give_up(Direction::Read, &mut self.hold);
        }
    }
}

/// [`Stream::hung_up`].
struct HungUp<'a> {
    fd: &'a Fd,
    ticket: Option<u32>,
}

impl Future for HungUp<'_> {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let polled = this.fd.poll_hung_up(&mut this.ticket, cx);
        polled.map_err(|failure| this.fd.error("read", failure, 0))
    }
}

impl Drop for HungUp<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.fd.forget_hang_up(ticket);
        }
    }
}
