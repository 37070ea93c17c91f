//! One direction of a copy; and the ends that it runs between.
//!
//! | step | what it does | then |
//! |---|---|---|
//! | fill | waits for the source, and reads once | empty; at the end of file, end |
//! | empty | writes until nothing is in hand | fill |
//! | end | flushes the sink, or closes its writing side | |
//!
//! The locks are held for a step, and not for the whole copy as in Go: a read, and then the writes
//! of all that it brought. Between two steps other operations have their turn, first come first
//! served, so that a heartbeat on the sink is not shut out for hours.
// Mirrors `Splice` in Go's `internal/poll/splice_linux.go`, and `io.Copy` with its hooks
// `io.WriterTo` and `io.ReaderFrom`, by which it finds out that splice(2) can do it.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, ready};

use futures_io::{AsyncRead, AsyncWrite};

use super::conduit::Conduit;
use crate::net::error::OpError;
use crate::net::fd::Fd;
use crate::net::stream::Stream;
use crate::reactor::Direction;

/// What [`copy`](super::copy()) can read from: `&TcpStream`, `&UnixStream`, or `&mut` anything that
/// is [`AsyncRead`].
///
/// A shared reference to a stream of ours is an end that the kernel can copy by itself; an exclusive
/// reference is any reader. The two never overlap, so that one function serves both:
///
/// ```
/// use netpoller::net::{self, CopySource};
/// use netpoller::TcpStream;
///
/// /// From a stream, a file or memory.
/// async fn upload(source: impl CopySource, to: &TcpStream) -> std::io::Result<u64> {
///     net::copy(source, to).await
/// }
/// ```
#[allow(private_bounds)]
pub trait CopySource: AsyncRead + CopyEnd {}

impl<T: AsyncRead + CopyEnd> CopySource for T {}

/// What [`copy`](super::copy()) can write to: `&TcpStream`, `&UnixStream`, or `&mut` anything that
/// is [`AsyncWrite`].
///
/// ```
/// use netpoller::net::{self, CopySink};
/// use netpoller::UnixStream;
///
/// /// To a stream, a file or memory.
/// async fn save(from: &UnixStream, to: impl CopySink) -> std::io::Result<u64> {
///     net::copy(from, to).await
/// }
/// ```
#[allow(private_bounds)]
pub trait CopySink: AsyncWrite + CopyEnd {}

impl<T: AsyncWrite + CopyEnd> CopySink for T {}

/// What a source or sink is. Nothing outside can implement it, so both traits are sealed.
pub(super) trait CopyEnd: Unpin {
    /// The socket of a stream of ours.
    fn fd(&self) -> Option<&Fd> {
        None
    }
}

impl<K> CopyEnd for &Stream<K> {
    fn fd(&self) -> Option<&Fd> {
        Some(&self.fd)
    }
}

impl<T: ?Sized> CopyEnd for &mut T {}

/// What the sink gets when the source has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtEnd {
    /// Nothing but a flush: it may get more.
    Flush,
    /// The end: half-close is carried across.
    Close,
}

/// Copies until the source ends. The `conduit` has what is in hand, and knows how much has gone.
pub(super) async fn transfer<R: CopySource, W: CopySink>(
    source: &RefCell<R>,
    sink: &RefCell<W>,
    conduit: &RefCell<Conduit>,
    at_end: AtEnd,
) -> io::Result<()> {
    let from = source.borrow().fd().cloned();
    let to = sink.borrow().fd().cloned();
    conduit.borrow_mut().splices = from.is_some() && to.is_some();
    let flush = |cx: &mut Context<'_>| Pin::new(&mut *sink.borrow_mut()).poll_flush(cx);
    // Whether a sink that is no stream may keep bytes in a buffer of its own.
    let mut unflushed = false;
    // For an end that is no stream: see `context::poll_yield`.
    let mut yielded = false;
    loop {
        // Fill: one read.
        let read = |fd: &Fd| conduit.borrow_mut().read_from(fd);
        let mut reading = from.as_ref().map(|fd| fd.op(Direction::Read, read));
        let fill = poll_fn(|cx| {
            let filled = match &mut reading {
                Some(reading) => Pin::new(reading).poll(cx),
                None => {
                    let mut source = source.borrow_mut();
                    conduit
                        .borrow_mut()
                        .poll_read(Pin::new(&mut *source), &mut yielded, cx)
                }
            };
            if filled.is_pending() && unflushed {
                // What the sink keeps back may be what the source waits for.
                ready!(flush(cx))?;
                unflushed = false;
            }
            filled
        });
        fill.await?;
        if conduit.borrow().is_empty() {
            break;
        }
        // Empty: as many writes as that needs. The lock is kept from one write to the next.
        let write = |fd: &Fd, _: &mut usize| {
            let mut conduit = conduit.borrow_mut();
            conduit.write_to(fd)?;
            Ok(match conduit.is_empty() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })
        };
        let mut writing = to.as_ref().map(|fd| fd.steps(Direction::Write, write));
        let empty = poll_fn(|cx| {
            let emptied = match &mut writing {
                Some(writing) => Pin::new(writing).poll(cx),
                None => {
                    let mut sink = sink.borrow_mut();
                    conduit
                        .borrow_mut()
                        .poll_write(Pin::new(&mut *sink), &mut yielded, cx)
                }
            };
            if emptied.is_pending() {
                conduit.borrow_mut().shrink();
            }
            emptied
        });
        empty.await?;
        unflushed = true;
    }
    match (at_end, &to) {
        (AtEnd::Flush, _) => poll_fn(flush).await,
        (AtEnd::Close, Some(fd)) => fd.end_writing_in_turn().await,
        (AtEnd::Close, None) => {
            poll_fn(|cx| Pin::new(&mut *sink.borrow_mut()).poll_close(cx)).await
        }
    }
}

/// A stream's error says how much had gone to the sink before.
pub(super) fn with_count(mut error: io::Error, conduit: &RefCell<Conduit>) -> io::Error {
    if let Some(inner) = error.get_mut()
        && let Some(named) = inner.downcast_mut::<OpError>()
    {
        named.written = usize::try_from(conduit.borrow().written).unwrap_or(usize::MAX);
    }
    error
}
