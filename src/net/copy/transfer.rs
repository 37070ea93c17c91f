//! One direction of a copy, as a state machine.
//!
//! May touch: fd/. Mirrors `Splice` in Go's `internal/poll/splice_linux.go`, and `io.Copy`.
//!
//! | state | meaning | who moves it there | on to |
//! |---|---|---|---|
//! | Filling | nothing in hand: it waits for the source, with its read lock | the start; the last byte's going | Draining by bytes; Ending by end of file |
//! | Draining | bytes in hand: it has the sink's write lock, or queues for it | a read | Filling |
//! | Ending | the source is at its end; a sink of somebody else's is flushed, or closed | end of file | Done |
//! | Done | all that came has gone | | |
//!
//! The locks are held for a step, not for the whole copy as in Go: a read, and then everything
//! that it brought is written without anybody's coming between. Between two steps others have
//! their turn, first come first served, so that a heartbeat on the sink is not shut out for hours.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};

use super::conduit::{Conduit, Way};
use super::ends::{CopyReader, CopyWriter, ReadEnd, WriteEnd};
use super::pipe::Membership;
use crate::net::fd::{Claim, Failure, Fd};
use crate::reactor::{Direction, Refusal};
use crate::runtime::context;

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
    reading: Claim,
    writing: Claim,
    /// Bytes that have gone to the sink.
    written: u64,
    /// A sink of somebody else's may have them in a buffer of its own.
    unflushed: bool,
    way: Way,
    /// While it may need pipes.
    pipes: Option<Membership>,
}

impl Transfer {
    pub(super) fn new(at_end: AtEnd) -> Self {
        Transfer {
            state: State::Filling,
            at_end,
            conduit: Conduit::Empty,
            reading: Claim::new(),
            writing: Claim::new(),
            written: 0,
            unflushed: false,
            way: Way::Memory,
            pipes: None,
        }
    }

    pub(super) fn written(&self) -> u64 {
        self.written
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Goes on until it is done, or one of the ends has to be waited for.
    pub(super) fn poll(
        &mut self,
        mut reader: CopyReader<'_>,
        mut writer: CopyWriter<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            self.state = match self.state {
                State::Filling => match self.poll_fill(&mut reader, &writer, cx)? {
                    Poll::Ready(()) if self.conduit.is_empty() => State::Ending,
                    Poll::Ready(()) => State::Draining,
                    Poll::Pending => {
                        // What the sink keeps back may be what the source waits for.
                        ready!(self.poll_flush(&mut writer, cx))?;
                        return Poll::Pending;
                    }
                },
                State::Draining => {
                    let drained = self.poll_drain(&mut writer, cx);
                    if drained.is_pending() {
                        self.conduit.keep_only_rest();
                    }
                    ready!(drained)?;
                    State::Filling
                }
                State::Ending => {
                    ready!(self.poll_end(&mut writer, cx))?;
                    self.pipes = None;
                    State::Done
                }
                State::Done => return Poll::Ready(Ok(())),
            };
        }
    }

    /// One read. Ready with nothing in hand is end of file.
    fn poll_fill(
        &mut self,
        reader: &mut CopyReader<'_>,
        writer: &CopyWriter<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = match &mut reader.0 {
            ReadEnd::Stream(fd) => {
                if !matches!(writer.0, WriteEnd::Stream(_)) {
                    self.way = Way::MemoryOnly;
                }
                if self.way == Way::Pipe && self.pipes.is_none() {
                    self.pipes = Some(Membership::new());
                }
                let read = |fd: &Fd| Conduit::read_from(fd, &mut self.way);
                let polled = fd.poll(Direction::Read, &mut self.reading, cx, read);
                ready!(polled).map_err(|failure| self.error(fd, "read", failure))?
            }
            ReadEnd::Io(reader) => {
                ready!(poll_budget(cx));
                let mut pending = false;
                let filled = Conduit::fill(|bytes| match Pin::new(reader).poll_read(cx, bytes) {
                    Poll::Ready(got) => got.inspect(|got| context::charge(*got)),
                    Poll::Pending => {
                        pending = true;
                        Ok(0)
                    }
                });
                if pending {
                    return Poll::Pending;
                }
                filled?
            }
        };
        self.conduit = filled;
        Poll::Ready(Ok(()))
    }

    /// Writes until nothing is in hand.
    fn poll_drain(
        &mut self,
        writer: &mut CopyWriter<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.conduit.is_empty() {
            let gone = match &mut writer.0 {
                WriteEnd::Stream(fd) => {
                    let conduit = &mut self.conduit;
                    let way = &mut self.way;
                    let write = |fd: &Fd| conduit.write_to(fd, way);
                    let step = fd.poll_step(Direction::Write, &mut self.writing, cx, write);
                    match ready!(step) {
                        Ok(gone) => gone,
                        Err(failure) => {
                            fd.release(Direction::Write, &mut self.writing);
                            return Poll::Ready(Err(self.error(fd, "write", failure)));
                        }
                    }
                }
                WriteEnd::Io(writer) => {
                    ready!(poll_budget(cx));
                    let mut pending = false;
                    let drained =
                        self.conduit
                            .drain(|bytes| match Pin::new(writer).poll_write(cx, bytes) {
                                Poll::Ready(gone) => gone.inspect(|gone| context::charge(*gone)),
                                Poll::Pending => {
                                    pending = true;
                                    Err(io::ErrorKind::WouldBlock.into())
                                }
                            });
                    if pending {
                        return Poll::Pending;
                    }
                    self.unflushed = true;
                    drained?
                }
            };
            self.written += gone as u64;
        }
        if let (WriteEnd::Stream(fd), true) = (&writer.0, self.writing.is_held()) {
            fd.release(Direction::Write, &mut self.writing);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(
        &mut self,
        writer: &mut CopyWriter<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if let (WriteEnd::Io(writer), true) = (&mut writer.0, self.unflushed) {
            ready!(Pin::new(writer).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_end(
        &mut self,
        writer: &mut CopyWriter<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        match (&mut writer.0, self.at_end) {
            (_, AtEnd::Flush) => self.poll_flush(writer, cx),
            (WriteEnd::Stream(fd), AtEnd::Close) => Poll::Ready(close_write(fd)),
            (WriteEnd::Io(writer), AtEnd::Close) => Pin::new(writer).poll_close(cx),
        }
    }

    /// A stream's error, with the bytes that had gone before.
    fn error(&self, fd: &Fd, op: &'static str, failure: Failure) -> io::Error {
        fd.error(
            op,
            failure,
            usize::try_from(self.written).unwrap_or(usize::MAX),
        )
    }

    /// What to say when it is stopped: bytes that were read and not written are an error.
    pub(super) fn stop(&self, writer: CopyWriter<'_>) -> io::Result<()> {
        match writer.0 {
            _ if self.conduit.is_empty() => Ok(()),
            WriteEnd::Stream(fd) => {
                Err(self.error(fd, "write", Failure::Refused(Refusal::TimedOut)))
            }
            WriteEnd::Io(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Leaves its locks and its parking places.
    pub(super) fn give_up(&mut self, reader: CopyReader<'_>, writer: CopyWriter<'_>) {
        if let ReadEnd::Stream(fd) = reader.0 {
            fd.give_up(Direction::Read, &mut self.reading);
        }
        if let WriteEnd::Stream(fd) = writer.0 {
            fd.give_up(Direction::Write, &mut self.writing);
        }
    }
}

/// Half-closes a stream. The peer's having gone altogether is no error: all that came was taken.
fn close_write(fd: &Fd) -> io::Result<()> {
    match fd.with_socket(|socket| socket.shutdown(std::net::Shutdown::Write)) {
        Err(Failure::System(error)) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        closed => closed.map_err(|failure| fd.error("close", failure, 0)),
    }
}

/// Ends that are not ours know no budget: it is kept here.
fn poll_budget(cx: &Context<'_>) -> Poll<()> {
    if context::may_go_on() {
        return Poll::Ready(());
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}
