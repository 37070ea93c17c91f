//! Reading from a stream.
//!
//! May touch: fd/. Mirrors `conn.Read` (`net/net.go`), `FD.Read` (`internal/poll/fd_unix.go`) and
//! `io.ReadFull`.

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Stream;
use super::read_with::ReadWith;
use crate::net::fd::{Fd, MOST_AT_ONCE, Op, Reading};
use crate::reactor::Direction;
use crate::runtime::context;
use crate::runtime::resource::Hold;
use crate::sys;

impl Fd {
    /// One read, of no more than the system takes at once.
    #[inline]
    pub(in crate::net) fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let asked = buffer.len().min(MOST_AT_ONCE);
        let got = self.receive(&mut buffer[..asked])?;
        self.moved(Direction::Read, got, asked);
        Ok(got)
    }

    /// As [`Fd::read_some`], into several buffers.
    pub(in crate::net) fn read_some_vectored(
        &self,
        buffers: &mut [IoSliceMut<'_>],
    ) -> io::Result<usize> {
        let asked: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        let got = sys::receive_vectored(&self.socket(), buffers)?;
        // Of more buffers than the system takes at once, some are not even offered.
        let offered = match buffers.len() {
            0..=sys::MOST_BUFFERS => asked,
            _ => MOST_AT_ONCE,
        };
        self.moved(Direction::Read, got, offered);
        Ok(got)
    }
}

impl<K> Stream<K> {
    /// Reads what is there, up to the buffer's length; waits while nothing is. Zero is end of
    /// file, or an empty buffer.
    ///
    /// # Errors
    ///
    /// The system's; a timeout once the read deadline has passed; closed.
    pub fn read(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> {
        let nothing = buffer.is_empty();
        let read = Op::new(Reading, &self.fd, move |fd| fd.read_some(buffer));
        self.unless(Direction::Read, nothing, read)
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
        let nothing = buffers.iter().all(|buffer| buffer.is_empty());
        let read = Op::new(Reading, &self.fd, move |fd| fd.read_some_vectored(buffers));
        self.unless(Direction::Read, nothing, read)
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
        let nothing = buffer.is_empty();
        let read = ReadExact {
            fd: &self.fd,
            hold: Hold::Free,
            buffer,
            filled: 0,
        };
        self.unless(Direction::Read, nothing, read)
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
        ReadWith::new(&self.fd, f)
    }

    /// Reads without taking the bytes out: the next read sees them again.
    ///
    /// # Errors
    ///
    /// As [`read`](Stream::read).
    pub fn peek(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> {
        let nothing = buffer.is_empty();
        let peek = Op::new(Reading, &self.fd, move |fd| {
            context::charge(0);
            sys::peek(&fd.socket(), buffer)
        });
        self.unless(Direction::Read, nothing, peek)
    }

    /// Waits until a read may succeed, or would say end of file or an error.
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

    /// Reads what is there without waiting.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if nothing is; else as [`read`](Stream::read).
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let tried = self
            .fd
            .try_once(Direction::Read, |fd| match buffer.is_empty() {
                // Asked for nothing, the system would say that it has to wait.
                true => Ok(0),
                false => fd.read_some(buffer),
            });
        tried.map_err(|failure| self.error("read", failure))
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
            let rest = &mut this.buffer[this.filled..];
            let read = |fd: &Fd| fd.read_some(rest);
            let step = this.fd.poll_step(Direction::Read, &mut this.hold, cx, read);
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
