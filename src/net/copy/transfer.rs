//! One direction of a copy, as a state machine; and the ends that it runs between.
//!
//! | state | meaning | moved there by | on to |
//! |---|---|---|---|
//! | Filling | nothing is in hand: it waits for the source, with the read lock | the start; the last byte has gone | Emptying by bytes; Ending by end of file |
//! | Emptying | bytes are in hand: it has the sink's write lock, or queues for it | a read | Filling |
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

use super::conduit::{Conduit, Route};
use crate::net::fd::{Claim, Failure, Fd};
use crate::net::stream::Stream;
use crate::reactor::{Direction, Refusal};
use crate::runtime::context;

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
pub trait CopySource: Unpin {
    #[doc(hidden)]
    const IS_STREAM: bool;

    /// One read into the empty conduit. If that is empty afterwards, the source has ended.
    #[doc(hidden)]
    fn poll_fill(&mut self, flow: &mut Flow, cx: &mut Context<'_>) -> Polled;

    /// Leaves its lock and its parking slot.
    #[doc(hidden)]
    fn give_up_reading(&mut self, _flow: &mut Flow) {}
}

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
pub trait CopySink: Unpin {
    #[doc(hidden)]
    const IS_STREAM: bool;

    /// Writes until the conduit is empty.
    #[doc(hidden)]
    fn poll_empty(&mut self, flow: &mut Flow, cx: &mut Context<'_>) -> Polled;

    /// Passes on what the sink keeps in a buffer of its own.
    #[doc(hidden)]
    fn poll_flush(&mut self, _flow: &mut Flow, _cx: &mut Context<'_>) -> Polled {
        Poll::Ready(Ok(()))
    }

    /// Ends the writing side.
    #[doc(hidden)]
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Polled;

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
    fn give_up_writing(&mut self, _flow: &mut Flow) {}
}

type Polled = Poll<io::Result<()>>;

/// What a transfer keeps between two polls of its ends.
#[derive(Debug)]
pub struct Flow {
    conduit: Conduit,
    reading: Claim,
    writing: Claim,
    /// Whether a sink that is no stream may keep bytes in a buffer of its own.
    unflushed: bool,
}

// ---- streams of ours ----

impl<K> CopySource for &Stream<K> {
    const IS_STREAM: bool = true;

    fn poll_fill(&mut self, flow: &mut Flow, cx: &mut Context<'_>) -> Polled {
        let read = |fd: &Fd| flow.conduit.read_from(fd);
        let claim = &mut flow.reading;
        let polled = self.fd.poll_step(Direction::Read, claim, cx, read);
        if polled.is_ready() {
            self.fd.release(Direction::Read, claim);
        }
        polled.map_err(|failure| error(&self.fd, "read", failure, flow.conduit.written))
    }

    fn give_up_reading(&mut self, flow: &mut Flow) {
        self.fd.give_up(Direction::Read, &mut flow.reading);
    }
}

impl<K> CopySink for &Stream<K> {
    const IS_STREAM: bool = true;

    fn poll_empty(&mut self, flow: &mut Flow, cx: &mut Context<'_>) -> Polled {
        let (conduit, claim) = (&mut flow.conduit, &mut flow.writing);
        let mut emptied = Ok(());
        while emptied.is_ok() && !conduit.is_empty() {
            // The lock is kept from one write to the next.
            let write = |fd: &Fd| conduit.write_to(fd);
            emptied = ready!(self.fd.poll_step(Direction::Write, claim, cx, write));
        }
        self.fd.release(Direction::Write, claim);
        let failed = |failure| error(&self.fd, "write", failure, conduit.written);
        Poll::Ready(emptied.map_err(failed))
    }

    /// A peer that has gone altogether is no error: all that came has been taken.
    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Polled {
        let ended = self
            .fd
            .with_socket(|socket| socket.shutdown(Shutdown::Write));
        Poll::Ready(match ended {
            Err(Failure::System(error)) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            ended => ended.map_err(|failure| error(&self.fd, "close", failure, 0)),
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

    fn give_up_writing(&mut self, flow: &mut Flow) {
        self.fd.give_up(Direction::Write, &mut flow.writing);
    }
}

/// A stream's error, with the bytes that had gone to the sink before.
fn error(fd: &Fd, op: &'static str, failure: Failure, written: u64) -> io::Error {
    fd.error(op, failure, usize::try_from(written).unwrap_or(usize::MAX))
}

// ---- any reader, any writer: they know no budget, so it is kept here ----

impl<T: AsyncRead + Unpin + ?Sized> CopySource for &mut T {
    const IS_STREAM: bool = false;

    fn poll_fill(&mut self, flow: &mut Flow, cx: &mut Context<'_>) -> Polled {
        ready!(context::poll_yield(&mut flow.reading.yielded, cx.waker()));
        let mut pending = false;
        let filled = flow
            .conduit
            .read(|bytes| match Pin::new(&mut **self).poll_read(cx, bytes) {
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

    fn poll_empty(&mut self, flow: &mut Flow, cx: &mut Context<'_>) -> Polled {
        while !flow.conduit.is_empty() {
            ready!(context::poll_yield(&mut flow.writing.yielded, cx.waker()));
            let mut pending = false;
            let emptied =
                flow.conduit
                    .write(|bytes| match Pin::new(&mut **self).poll_write(cx, bytes) {
                        Poll::Ready(taken) => taken.inspect(|taken| context::charge(*taken)),
                        Poll::Pending => {
                            pending = true;
                            Err(io::ErrorKind::WouldBlock.into())
                        }
                    });
            if pending {
                return Poll::Pending;
            }
            flow.unflushed = true;
            emptied?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, flow: &mut Flow, cx: &mut Context<'_>) -> Polled {
        if flow.unflushed {
            ready!(Pin::new(&mut **self).poll_flush(cx))?;
            flow.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Polled {
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
    Emptying,
    Ending,
    Done,
}

#[derive(Debug)]
pub(super) struct Transfer {
    state: State,
    at_end: AtEnd,
    flow: Flow,
}

impl Transfer {
    pub(super) fn new<R: CopySource, W: CopySink>(at_end: AtEnd) -> Self {
        let route = match R::IS_STREAM && W::IS_STREAM {
            true => Route::Memory,
            false => Route::MemoryOnly,
        };
        Transfer {
            state: State::Filling,
            at_end,
            flow: Flow {
                conduit: Conduit::new(route),
                reading: Claim::new(),
                writing: Claim::new(),
                unflushed: false,
            },
        }
    }

    /// Bytes that have gone to the sink.
    pub(super) fn written(&self) -> u64 {
        self.flow.conduit.written
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
    ) -> Polled {
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
    ) -> Polled {
        loop {
            self.state = match self.state {
                State::Filling => {
                    let filled = source.poll_fill(&mut self.flow, cx)?;
                    if filled.is_pending() {
                        // What the sink keeps back may be what the source waits for.
                        ready!(sink.poll_flush(&mut self.flow, cx))?;
                        return Poll::Pending;
                    }
                    match self.flow.conduit.is_empty() {
                        true => State::Ending,
                        false => State::Emptying,
                    }
                }
                State::Emptying => {
                    let emptied = sink.poll_empty(&mut self.flow, cx);
                    if emptied.is_pending() {
                        self.flow.conduit.shrink();
                    }
                    ready!(emptied)?;
                    State::Filling
                }
                State::Ending => {
                    return match self.at_end {
                        AtEnd::Flush => sink.poll_flush(&mut self.flow, cx),
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
        match self.flow.conduit.is_empty() {
            true => Ok(()),
            false => Err(sink.timed_out(self.written())),
        }
    }

    /// Leaves its locks and its parking slots.
    pub(super) fn give_up<R: CopySource, W: CopySink>(&mut self, source: &mut R, sink: &mut W) {
        source.give_up_reading(&mut self.flow);
        sink.give_up_writing(&mut self.flow);
    }
}
