//! One direction of a copy; the ends that it runs between; and the bytes that were read and are not
//! written yet: in a pipe, or in memory, never in both.
//!
//! | step | what it does | then |
//! |---|---|---|
//! | fill | waits for the source, and reads once | empty; at the end of file, end |
//! | empty | writes until nothing is in hand | fill |
//! | end | flushes the sink; a relay then closes its writing side | |
//!
//! Each lock is held for a step: one read, or the writes of all that it brought. Go holds both for the
//! whole copy. Between two steps other operations have their turn, first come first served, so that a
//! heartbeat on the sink is not shut out for hours.
//!
//! It fills only while nothing is in hand. So an EAGAIN of splice comes from the source when filling, and
//! from the sink when emptying.
//!
//! The pipe is made for the first splice and closed as soon as the source has no more, so that a
//! copy which waits for its source holds no descriptor.
// Mirrors `Splice`, `spliceDrain` and `splicePump` in Go's `internal/poll/splice_linux.go`, and `io.Copy`
// with its buffer and its hooks `io.WriterTo` and `io.ReaderFrom`, by which it finds out that splice(2)
// can do it. Go keeps idle pipes for the collector to close.

use std::cell::RefCell;
use std::convert::identity;
use std::future::{Future, poll_fn};
use std::io::{self, PipeReader, PipeWriter, Read};
use std::mem;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};

use crate::net::error::with_written;
use crate::net::fd::Fd;
use crate::net::stream::Stream;
use crate::reactor::Direction;
use crate::runtime::{context, lent, waiters};
use crate::sys;

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

/// Copies until the source ends. The `conduit` has what is in hand, and knows how much has gone.
pub(super) async fn transfer<R: CopySource, W: CopySink>(
    source: &RefCell<R>,
    sink: &RefCell<W>,
    conduit: &RefCell<Conduit>,
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
        let write = |fd: &Fd, _| {
            let mut conduit = conduit.borrow_mut();
            conduit.write_to(fd)?;
            match conduit.is_empty() {
                true => Ok(ControlFlow::Break(())),
                false => Ok(ControlFlow::Continue(0)),
            }
        };
        match &to {
            Some(fd) => fd.steps(Direction::Write, write).await?,
            None => {
                let write = |cx: &mut Context<'_>| {
                    let mut sink = sink.borrow_mut();
                    let mut conduit = conduit.borrow_mut();
                    conduit.poll_write(Pin::new(&mut *sink), &mut yielded, cx)
                };
                poll_fn(write).await?;
            }
        }
        unflushed = true;
    }
    debug_assert!(conduit.borrow().pipe.is_none(), "a pipe is left over");
    poll_fn(flush).await
}

/// As [`transfer`], and then ends the sink: a half-close is passed on.
pub(super) async fn transfer_to_the_end<R: CopySource, W: CopySink>(
    source: &RefCell<R>,
    sink: &RefCell<W>,
    conduit: &RefCell<Conduit>,
) -> io::Result<()> {
    transfer(source, sink, conduit).await?;
    let to = sink.borrow().fd().cloned();
    match to {
        Some(fd) => fd.end_writing_in_queue().await,
        None => poll_fn(|cx| Pin::new(&mut *sink.borrow_mut()).poll_close(cx)).await,
    }
}

/// A stream's error says how much had gone to the sink before.
pub(super) fn with_count(error: io::Error, conduit: &RefCell<Conduit>) -> io::Error {
    let written = usize::try_from(conduit.borrow().written);
    with_written(error, written.unwrap_or(usize::MAX))
}

/// From `MUCH` bytes on, two splices are cheaper than a read and a write, since they save two copies.
/// Below `LITTLE` they are dearer, also because a short read proves that there is no more, and a splice
/// never does.
const MUCH: usize = 16 * 1024;
const LITTLE: usize = 4 * 1024;

/// What is asked of one splice: more than a pipe holds by default (64 KiB), so that the pipe sets
/// the limit.
const MAX_SPLICE: usize = 1 << 20;

/// What a copy has in hand.
#[derive(Debug, Default)]
pub(super) struct Conduit {
    /// Bytes in memory.
    held: Vec<u8>,
    /// How many of them are written: 0 if none is held.
    at: usize,
    pipe: Option<Pipe>,
    /// Bytes in the pipe.
    piped: usize,
    /// Both ends can be spliced, as far as is known.
    splices: bool,
    /// The last read brought so much that the next one is a splice.
    floods: bool,
    /// Bytes that have gone to the sink.
    pub(super) written: u64,
}

#[derive(Debug)]
struct Pipe {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Drop for Pipe {
    fn drop(&mut self) {
        waiters::descriptor_closed();
    }
}

impl Conduit {
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.piped == 0
    }

    // ---- filling: at the end of file nothing is in hand afterwards ----

    /// One read of a socket: a splice if there is a flood. If that brings nothing, a plain read follows: it
    /// meets what a splice does not tell (an end of file, an urgent byte, EAGAIN).
    fn read_from(&mut self, fd: &Fd) -> io::Result<()> {
        if self.splices && self.floods {
            self.piped = self.splice_from(fd)?;
            if self.piped > 0 {
                context::charge(self.piped);
                self.floods = self.piped >= LITTLE;
                return Ok(());
            }
        }
        let read = self.fill(|room| fd.read(room));
        match self.held.len() {
            0 => self.pipe = None,
            bytes => self.floods = bytes >= MUCH,
        }
        read
    }

    /// Zero if nothing can be spliced, also without a descriptor to spare: then a buffer is used.
    fn splice_from(&mut self, fd: &Fd) -> io::Result<usize> {
        debug_assert!(self.is_empty(), "EAGAIN could mean the pipe");
        if self.pipe.is_none() {
            let made = io::pipe().ok();
            self.pipe = made.map(|(reader, writer)| Pipe { reader, writer });
        }
        let Some(pipe) = &self.pipe else {
            return Ok(0);
        };
        match sys::splice(fd.sock_ref().as_fd(), pipe.writer.as_fd(), MAX_SPLICE) {
            Err(error) if is_unsupported(&error) => {
                self.splices = false;
                self.pipe = None;
                Ok(0)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            moved => moved,
        }
    }

    /// One read of any other source. Such a source charges no budget, so this does.
    fn poll_read(
        &mut self,
        source: Pin<&mut impl AsyncRead>,
        yielded: &mut bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(context::poll_yield(yielded, cx.waker()));
        let filled = self.fill(|room| match source.poll_read(cx, room) {
            Poll::Ready(Ok(bytes)) => Ok(bytes),
            unfilled => Err(unfilled.map_ok(drop)),
        });
        context::charge(self.held.len());
        filled.map_or_else(identity, |()| Poll::Ready(Ok(())))
    }

    /// One read by way of the loop's buffer.
    fn fill<E>(&mut self, read: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<(), E> {
        debug_assert!(self.is_empty(), "bytes in hand come before later ones");
        let (buffer, got) = lent::fill(read)?;
        // A reader may claim more than it was given room for: it is not believed.
        self.held
            .extend_from_slice(&buffer[..got.min(lent::LENGTH)]);
        lent::give_back(buffer);
        Ok(())
    }

    // ---- emptying ----

    /// One write to a socket.
    fn write_to(&mut self, fd: &Fd) -> io::Result<()> {
        debug_assert!(self.held.is_empty() || self.piped == 0);
        if let Some(pipe) = &mut self.pipe
            && self.piped > 0
        {
            match sys::splice_to_socket(pipe.reader.as_fd(), fd.sock_ref().as_fd(), self.piped) {
                Ok(moved) => {
                    context::charge(moved);
                    self.piped -= moved;
                    if fault!("copy_loses_its_pipe") {
                        self.piped = 0;
                    }
                    return self.moved(moved);
                }
                Err(error) if is_unsupported(&error) => self.spill()?,
                Err(error) => return Err(error),
            }
        }
        let sent = fd.write(&self.held[self.at..])?;
        self.taken(sent)
    }

    /// Writes to any other sink until nothing is in hand, within the budget.
    fn poll_write(
        &mut self,
        mut sink: Pin<&mut impl AsyncWrite>,
        yielded: &mut bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            ready!(context::poll_yield(yielded, cx.waker()));
            let sent = ready!(sink.as_mut().poll_write(cx, &self.held[self.at..]))?;
            context::charge(sent);
            self.taken(sent)?;
        }
        Poll::Ready(Ok(()))
    }

    /// The sink has taken bytes out of memory. A copy that waits for its source holds none.
    fn taken(&mut self, bytes: usize) -> io::Result<()> {
        let bytes = bytes.min(self.held.len() - self.at);
        self.at += bytes;
        if self.at == self.held.len() {
            (self.held, self.at) = (Vec::new(), 0);
        }
        self.moved(bytes)
    }

    fn moved(&mut self, bytes: usize) -> io::Result<()> {
        self.written += bytes as u64;
        match bytes {
            // The sink takes zero bytes and does not say WouldBlock: it will never take any.
            0 => Err(io::ErrorKind::WriteZero.into()),
            _ => Ok(()),
        }
    }

    /// Out of the pipe into memory, since the sink can't be spliced to.
    fn spill(&mut self) -> io::Result<()> {
        debug_assert!(self.held.is_empty(), "bytes in memory would be overwritten");
        self.splices = false;
        if let Some(mut pipe) = self.pipe.take() {
            self.held.resize(mem::take(&mut self.piped), 0);
            // As much is in it, so this does not wait.
            pipe.reader.read_exact(&mut self.held)?;
        }
        Ok(())
    }
}

/// Whether splice itself is refused: for these descriptors, or in this sandbox.
fn is_unsupported(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    matches!(number, Some(libc::EINVAL | libc::ENOSYS | libc::EPERM))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Runtime, UnixStream};
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::OwnedFd;

    #[test]
    fn a_flood_is_spliced_and_messages_are_not() {
        Runtime::new().unwrap().block_on(async {
            for (floods, bytes, then) in [
                (false, 64, false),
                (false, MUCH - 1, false),
                (false, MUCH, true),
                (true, LITTLE, cfg!(target_os = "linux")),
                (true, LITTLE - 1, false),
                (false, lent::LENGTH, true),
            ] {
                let (stream, peer) = UnixStream::pair().unwrap();
                peer.write_all(&vec![0; bytes]).await.unwrap();
                let mut conduit = Conduit {
                    splices: true,
                    floods,
                    ..Conduit::default()
                };
                conduit.read_from(&stream.fd).unwrap();
                assert_eq!(conduit.held.len() + conduit.piped, bytes);
                assert_eq!(conduit.floods, then, "{bytes} bytes");
            }
        });
    }

    #[test]
    fn what_waits_in_memory_is_what_the_sink_has_not_taken() {
        let mut conduit = Conduit::default();
        for round in 1..=2 {
            let read = |room: &mut [u8]| {
                room[..10].copy_from_slice(b"0123456789");
                io::Result::Ok(10)
            };
            conduit.fill(read).unwrap();
            let begin = conduit.held.as_ptr();
            conduit.taken(3).unwrap();
            assert_eq!(&conduit.held[conduit.at..], b"3456789");
            // Moving the rest to the front for each piece would be quadratic.
            assert_eq!(conduit.held[conduit.at..].as_ptr(), begin.wrapping_add(3));
            conduit.taken(7).unwrap();
            assert!(conduit.is_empty() && conduit.held.capacity() == 0);
            assert_eq!(conduit.written, 10 * round);
        }
    }

    #[test]
    fn a_pipe_that_nothing_can_be_spliced_into_is_closed() {
        Runtime::new().unwrap().block_on(async {
            let (stream, _peer) = UnixStream::pair().unwrap();
            let no_pipe = File::options().write(true).open("/dev/null").unwrap();
            let mut conduit = Conduit {
                pipe: Some(Pipe {
                    reader: io::pipe().unwrap().0,
                    writer: OwnedFd::from(no_pipe).into(),
                }),
                splices: true,
                ..Conduit::default()
            };
            assert_eq!(conduit.splice_from(&stream.fd).unwrap(), 0);
            assert!(conduit.pipe.is_none() && !conduit.splices);
        });
    }

    #[test]
    fn what_is_in_a_pipe_can_be_spilled_into_memory() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"on their way").unwrap();
        let mut conduit = Conduit {
            pipe: Some(Pipe { reader, writer }),
            piped: 12,
            ..Conduit::default()
        };
        conduit.spill().unwrap();
        assert_eq!(conduit.held, b"on their way");
        assert!(conduit.pipe.is_none() && !conduit.is_empty());
    }
}
