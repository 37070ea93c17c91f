//! Writing to a stream.
//!
//! May touch: fd/. Mirrors `conn.Write` (`net/net.go`) and `FD.Write` (`internal/poll/fd_unix.go`).

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Stream;
use crate::net::fd::{Failure, Fd, Op, Writing};
use crate::reactor::Direction;
use crate::runtime::context;
use crate::runtime::resource::Hold;
use crate::sys;

impl Fd {
    /// As [`Fd::send`], from several buffers.
    pub(in crate::net) fn send_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let gone = sys::send_vectored(&self.socket(), buffers)?;
        // Not every buffer may have been offered: only EAGAIN proves that no more is taken.
        self.moved(Direction::Write, gone, gone);
        Ok(gone)
    }
}

impl<K> Stream<K> {
    /// Writes what the kernel takes at once, waiting until it takes something: one system call.
    ///
    /// # Errors
    ///
    /// The system's; a timeout once the write deadline has passed; closed.
    #[inline]
    pub fn write(&self, bytes: &[u8]) -> impl Future<Output = io::Result<usize>> {
        let write = Op::new(Writing, &self.fd, move |fd| fd.send(bytes));
        self.unless(Direction::Write, bytes.is_empty(), write)
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
        let nothing = buffers.iter().all(|buffer| buffer.is_empty());
        let write = Op::new(Writing, &self.fd, |fd| fd.send_vectored(buffers));
        self.unless(Direction::Write, nothing, write)
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
        let write = WriteAll {
            fd: &self.fd,
            hold: Hold::Free,
            bytes,
            written: 0,
        };
        self.unless(Direction::Write, bytes.is_empty(), write)
    }

    /// Waits until a write may take something, or would fail.
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
        let tried = self.fd.try_send(bytes);
        tried.map_err(|failure| self.error("write", failure))
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
                    if this.written == this.bytes.len() {
                        Ok(())
                    } else if gone == 0 {
                        // An error in Go as well, or it would be asked for ever.
                        let zero = Failure::System(io::ErrorKind::WriteZero.into());
                        Err(fd.error("write", zero, this.written))
                    } else {
                        continue;
                    }
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
