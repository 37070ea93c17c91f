//! The traits that helpers of other crates know: `futures_io::{AsyncRead, AsyncWrite}`.
//!
//! One waker a direction, and the last poller wins: the traits have no place for a queue. A poller
//! holds no lock between two polls, so it waits while one of our own operations holds its direction
//! (`poll_write` never comes between the pieces of a `write_all`), and gives way to those that come
//! while it waits for the system.

// Go's counterpart is that `net.Conn` is an `io.Reader` and an `io.Writer`.

use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};

use super::pipe::Pipe;
use super::stream::Stream;
use crate::reactor::Direction;

impl<K> AsyncRead for &Stream<K> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let empty = buffer.is_empty();
        self.fd
            .poll_unheld(Direction::Read, empty, cx, |fd| fd.read(buffer))
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let empty = buffers.iter().all(|buffer| buffer.is_empty());
        self.fd
            .poll_unheld(Direction::Read, empty, cx, |fd| fd.read_vectored(buffers))
    }
}

/// Closing shuts down writing: the peer reads end of file, and can still answer. The socket is
/// closed by `close`, or with its last handle.
impl<K> AsyncWrite for &Stream<K> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let empty = bytes.is_empty();
        self.fd
            .poll_unheld(Direction::Write, empty, cx, |fd| fd.write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let empty = buffers.iter().all(|buffer| buffer.is_empty());
        self.fd
            .poll_unheld(Direction::Write, empty, cx, |fd| fd.write_vectored(buffers))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.fd.poll_release(Direction::Write, cx));
        match self.close_write() {
            // A second time, and the peer is gone since: it is as closed as can be.
            Err(error) if error.kind() == io::ErrorKind::NotConnected && !self.fd.is_closed() => {
                Poll::Ready(Ok(()))
            }
            closed => Poll::Ready(closed),
        }
    }
}

/// A handle by itself, as a reference to it.
macro_rules! by_value {
    ($($Handle:ident $(<$K:ident>)?;)*) => { $(
        impl$(<$K>)? AsyncRead for $Handle$(<$K>)? {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: &mut [u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut &*self).poll_read(cx, buffer)
            }

            fn poll_read_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffers: &mut [IoSliceMut<'_>],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut &*self).poll_read_vectored(cx, buffers)
            }
        }

        /// As for a reference: see there what closing does.
        impl$(<$K>)? AsyncWrite for $Handle$(<$K>)? {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut &*self).poll_write(cx, bytes)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffers: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut &*self).poll_write_vectored(cx, buffers)
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut &*self).poll_flush(cx)
            }

            fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut &*self).poll_close(cx)
            }
        }
    )* };
}

by_value! { Stream<K>; Pipe; }
