//! The traits that helpers of other crates know: `futures_io::{AsyncRead, AsyncWrite}`.
//!
//! One waker a direction, and the last poller wins: the traits have no place for a queue. A poller
//! holds no lock between two polls, so it waits while one of our own operations holds its direction
//! (`poll_write` never comes between the pieces of a `write_all`), and gives way to those that come
//! while it waits for the system.

// Go's counterpart is that `net.Conn` is an `io.Reader` and an `io.Writer`.

use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};

use super::fd::{Fd, Needs};
use super::source::Pipe;
use super::stream::Stream;
use crate::reactor::Direction;

macro_rules! futures_io {
    ($($Handle:ty $(, $K:ident)?: $read:path, $write:path, $close:path
        $(, vectored $read_vectored:path, $write_vectored:path)?;)*) => { $(
        impl$(<$K>)? AsyncRead for $Handle {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: &mut [u8],
            ) -> Poll<io::Result<usize>> {
                let needs = Needs::of(buffer.is_empty());
                self.fd
                    .poll_unheld(Direction::Read, "read", needs, cx, |fd| $read(fd, buffer))
            }

            $(fn poll_read_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffers: &mut [IoSliceMut<'_>],
            ) -> Poll<io::Result<usize>> {
                let needs = Needs::of(buffers.iter().all(|buffer| buffer.is_empty()));
                self.fd
                    .poll_unheld(Direction::Read, "read", needs, cx, |fd| $read_vectored(fd, buffers))
            })?
        }

        /// Closing shuts down a stream's writing: the peer reads end of file, and can still answer.
        /// The socket is closed by `close`, or with its last handle. A pipe, which has no half-close,
        /// is closed.
        impl$(<$K>)? AsyncWrite for $Handle {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                let needs = Needs::of(bytes.is_empty());
                self.fd
                    .poll_unheld(Direction::Write, "write", needs, cx, |fd| $write(fd, bytes))
            }

            $(fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffers: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                let needs = Needs::of(buffers.iter().all(|buffer| buffer.is_empty()));
                self.fd
                    .poll_unheld(Direction::Write, "write", needs, cx, |fd| $write_vectored(fd, buffers))
            })?

            fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                $close(&self.fd, cx)
            }
        }
    )* };
}

futures_io! {
    Stream<K>, K: Fd::read, Fd::write, poll_close_write, vectored Fd::read_vectored, Fd::write_vectored;
    &Stream<K>, K: Fd::read, Fd::write, poll_close_write, vectored Fd::read_vectored, Fd::write_vectored;
    Pipe: Fd::read_file, Fd::write_file, poll_close;
    &Pipe: Fd::read_file, Fd::write_file, poll_close;
}

fn poll_close_write(fd: &Fd, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    fd.poll_unheld(Direction::Write, "close", Needs::Lock, cx, Fd::half_close)
}

fn poll_close(fd: &Fd, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    match fd.is_closed() {
        true => Poll::Ready(Ok(())),
        false => Poll::Ready(fd.close()),
    }
}
