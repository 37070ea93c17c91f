//! One direction of a copy, as a state machine; and the ends that it runs between.
//!
//! | state | meaning | moved there by | on to |
//! |---|---|---|---|
//! | Filling | nothing is in hand: it waits for the source, with the read lock | the start; the last byte has gone | Draining by bytes; Ending by end of file |
//! | Draining | bytes are in hand: it has the sink's write lock, or queues for it | a read | Filling |
//! | Ending | the source is at its end; the sink is flushed, or its writing side closed | end of file | Done |
//! | Done | all bytes have gone, or an end has failed | `poll` | |
//!
//! The locks are held for a step, and not for the whole copy as in Go: a read, and then the writes
//! of all that it brought. Between two steps other operations have their turn, first come first
//! served, so that a heartbeat on the sink is not shut out for hours.
// Mirrors `Splice` in Go's `internal/poll/splice_linux.go`, and `io.Copy` with its hooks
// `io.WriterTo` and `io.ReaderFrom`, by which it finds out that splice(2) can do it.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};

use super::conduit::{Conduit, Way};
use crate::net::fd::{Claim, Failure, Fd};
use crate::net::stream::Stream;
use crate::reactor::{Direction, Refusal};
use crate::runtime::context;

/// What [`copy`](super::copy()) can read from: `&TcpStream`, `&UnixStream`, or `&mut` anything that
/// is [`AsyncRead`].
///
/// A shared reference to a stream of ours is an end that the kernel can copy by itself; an exclusive
/// reference is any reader. The two never overlap, so that one function serves both.
pub trait CopySource: Unpin {
    #[doc(hidden)]
    const IS_STREAM: bool;

    /// One read into the empty conduit. If that is empty afterwards, the source has ended.
    #[doc(hidden)]
    fn poll_fill(
        &mut self,
        side: &mut Side,
        conduit: &mut Conduit,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>>;

    /// Leaves its lock and its parking slot.
    #[doc(hidden)]
    fn give_up_reading(&mut self, _side: &mut Side) {}
}

/// What [`copy`](super::copy()) can write to: `&TcpStream`, `&UnixStream`, or `&mut` anything that
/// is [`AsyncWrite`].
pub trait CopySink: Unpin {
    #[doc(hidden)]
    const IS_STREAM: bool;

    /// Writes until the conduit is empty.
    #[doc(hidden)]
    fn poll_drain(
        &mut self,
        side: &mut Side,
        conduit: &mut Conduit,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>>;

    /// Passes on what the sink keeps in a buffer of its own.
    #[doc(hidden)]
    fn poll_flush(&mut self, _side: &mut Side, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends the writing side.
    #[doc(hidden)]
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Whether the connection is closed or reset, so that nothing written to it arrives.
    #[doc(hidden)]
    fn is_gone(&self) -> bool {
        false
    }

    /// The error of a write that was given up for want of time.
    #[doc(hidden)]
    fn timed_out(&self, _written: u64) -> io::Error {
        io::ErrorKind::TimedOut.into()
    }

    /// Leaves its lock and its parking slot.
    #[doc(hidden)]
    fn give_up_writing(&mut self, _side: &mut Side) {}
}

/// What a transfer keeps for one of its ends.
#[derive(Debug)]
pub struct Side {
    /// Of a stream: its lock.
    claim: Claim,
    /// Of any other end: whether it has yielded, and then proceeds without budget.
    yielded: bool,
    /// Of a sink that is no stream: whether it may keep bytes in a buffer of its own.
    unflushed: bool,
}

impl Side {
    const fn new() -> Self {
        Side {
            claim: Claim::new(),
            yielded: false,
            unflushed: false,
        }
    }
}

// ---- streams of ours ----

impl<K> CopySource for &Stream<K> {
    const IS_STREAM: bool = true;

    fn poll_fill(
        &mut self,
        side: &mut Side,
        conduit: &mut Conduit,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let read = |fd: &Fd| conduit.read_from(fd);
        let polled = self.fd.poll(Direction::Read, &mut side.claim, cx, read);
        polled.map_err(|failure| error(&self.fd, "read", failure, conduit.written))
    }

    fn give_up_reading(&mut self, side: &mut Side) {
        self.fd.give_up(Direction::Read, &mut side.claim);
    }
}

impl<K> CopySink for &Stream<K> {
    const IS_STREAM: bool = true;

    fn poll_drain(
        &mut self,
        side: &mut Side,
        conduit: &mut Conduit,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut drained = Ok(());
        while drained.is_ok() && !conduit.is_empty() {
            // The lock is kept from one write to the next.
            let write = |fd: &Fd| conduit.write_to(fd);
            let step = self
                .fd
                .poll_step(Direction::Write, &mut side.claim, cx, write);
            drained = ready!(step);
        }
        self.fd.release(Direction::Write, &mut side.claim);
        let failed = |failure| error(&self.fd, "write", failure, conduit.written);
        Poll::Ready(drained.map_err(failed))
    }

    /// A peer that has gone altogether is no error: all that came has been taken.
    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = self
            .fd
            .with_socket(|socket| socket.shutdown(Shutdown::Write));
        Poll::Ready(match shut {
            Err(Failure::System(error)) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            shut => shut.map_err(|failure| error(&self.fd, "close", failure, 0)),
        })
    }

    fn is_gone(&self) -> bool {
        let peer = self.fd.with_socket(|socket| socket.peer_addr());
        peer.is_err()
    }

    fn timed_out(&self, written: u64) -> io::Error {
        error(
            &self.fd,
            "write",
            Failure::Refused(Refusal::TimedOut),
            written,
        )
    }

    fn give_up_writing(&mut self, side: &mut Side) {
        self.fd.give_up(Direction::Write, &mut side.claim);
    }
}

/// A stream's error, with the bytes that had gone to the sink before.
fn error(fd: &Fd, op: &'static str, failure: Failure, written: u64) -> io::Error {
    fd.error(op, failure, usize::try_from(written).unwrap_or(usize::MAX))
}

// ---- any reader, any writer: they know no budget, so it is kept here ----

impl<T: AsyncRead + Unpin + ?Sized> CopySource for &mut T {
    const IS_STREAM: bool = false;

    fn poll_fill(
        &mut self,
        side: &mut Side,
        conduit: &mut Conduit,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(context::poll_yield(&mut side.yielded, cx.waker()));
        let mut pending = false;
        let filled = conduit.read(|bytes| match Pin::new(&mut **self).poll_read(cx, bytes) {
            Poll::Ready(got) => got.inspect(|got| context::charge(*got)),
            Poll::Pending => {
                pending = true;
                Ok(0)
            }
        });
        match pending {
            true => Poll::Pending,
            false => Poll::Ready(filled),
        }
    }
}

impl<T: AsyncWrite + Unpin + ?Sized> CopySink for &mut T {
    const IS_STREAM: bool = false;

    fn poll_drain(
        &mut self,
        side: &mut Side,
        conduit: &mut Conduit,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !conduit.is_empty() {
            ready!(context::poll_yield(&mut side.yielded, cx.waker()));
            let mut pending = false;
            let drained =
                conduit.write(|bytes| match Pin::new(&mut **self).poll_write(cx, bytes) {
                    Poll::Ready(taken) => taken.inspect(|taken| context::charge(*taken)),
                    Poll::Pending => {
                        pending = true;
                        Err(io::ErrorKind::WouldBlock.into())
                    }
                });
            if pending {
                return Poll::Pending;
            }
            side.unflushed = true;
            drained?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, side: &mut Side, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if side.unflushed {
            ready!(Pin::new(&mut **self).poll_flush(cx))?;
            side.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self).poll_close(cx)
    }
}

// ---- the machine ----

/// What the sink gets when the source has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtEnd {
    /// Nothing but a flush: it may get more.
    Flush,
    /// The end: half-close is carried across.
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Filling,
    Draining,
    Ending,
    Done,
}

#[derive(Debug)]
pub(super) struct Transfer {
    state: State,
    at_end: AtEnd,
    conduit: Conduit,
    source: Side,
    sink: Side,
}

impl Transfer {
    pub(super) fn new<R: CopySource, W: CopySink>(at_end: AtEnd) -> Self {
        let way = match R::IS_STREAM && W::IS_STREAM {
            true => Way::Memory,
            false => Way::MemoryOnly,
        };
        Transfer {
            state: State::Filling,
            at_end,
            conduit: Conduit::new(way),
            source: Side::new(),
            sink: Side::new(),
        }
    }

    /// Bytes that have gone to the sink.
    pub(super) fn written(&self) -> u64 {
        self.conduit.written
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Goes on until it is done, or one of the ends has to be waited for. An error is reported once.
    pub(super) fn poll<R: CopySource, W: CopySink>(
        &mut self,
        source: &mut R,
        sink: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = self.poll_states(source, sink, cx);
        if polled.is_ready() {
            self.state = State::Done;
        }
        polled
    }

    fn poll_states<R: CopySource, W: CopySink>(
        &mut self,
        source: &mut R,
        sink: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            self.state = match self.state {
                State::Filling => {
                    let filled = source.poll_fill(&mut self.source, &mut self.conduit, cx)?;
                    if filled.is_pending() {
                        // What the sink keeps back may be what the source waits for.
                        ready!(sink.poll_flush(&mut self.sink, cx))?;
                        return Poll::Pending;
                    }
                    match self.conduit.is_empty() {
                        true => State::Ending,
                        false => State::Draining,
                    }
                }
                State::Draining => {
                    let drained = sink.poll_drain(&mut self.sink, &mut self.conduit, cx);
                    if drained.is_pending() {
                        self.conduit.shrink();
                    }
                    ready!(drained)?;
                    State::Filling
                }
                State::Ending => {
                    return match self.at_end {
                        AtEnd::Flush => sink.poll_flush(&mut self.sink, cx),
                        AtEnd::Close => sink.poll_close(cx),
                    };
                }
                State::Done => return Poll::Ready(Ok(())),
            };
        }
    }

    /// The end before its time. Bytes that were read and not written are an error.
    pub(super) fn stop(&mut self, sink: &impl CopySink) -> io::Result<()> {
        self.state = State::Done;
        match self.conduit.is_empty() {
            true => Ok(()),
            false => Err(sink.timed_out(self.written())),
        }
    }

    /// Leaves its locks and its parking slots.
    pub(super) fn give_up<R: CopySource, W: CopySink>(&mut self, source: &mut R, sink: &mut W) {
        source.give_up_reading(&mut self.source);
        sink.give_up_writing(&mut self.sink);
    }
}
