//! What a copy has in hand between its source and its sink: bytes in a pipe, or in a buffer, never in
//! both.
//!
//! It is filled only while it is empty. So the EAGAIN of a splice is never in doubt: in filling,
//! the pipe is empty, so the source says it; in emptying, it is not, so the sink says it.
//!
//! The pipe is made for the first splice and closed as soon as the source has no more, so that a
//! copy which waits for its source holds no descriptor.
// Mirrors `spliceDrain` and `splicePump` in Go's `internal/poll/splice_linux.go`, and the buffer of
// `io.Copy`. Go keeps idle pipes for the collector to close.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::mem;
use std::ops::Range;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};

use crate::net::fd::Fd;
use crate::runtime::{context, lent, shortage};
use crate::sys;

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
    /// The loop's buffer if it has `lent::LENGTH` bytes; else the copy's own.
    buffer: Box<[u8]>,
    /// Which bytes of the buffer are in hand.
    held: Range<usize>,
    pipe: Option<Pipe>,
    /// Bytes in the pipe.
    piped: usize,
    /// Both ends can be spliced, as far as is known.
    pub(super) splices: bool,
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
        shortage::descriptor_closed();
    }
}

/// Whether the next read is a splice, after one that brought so many bytes.
fn floods(flooded: bool, bytes: usize) -> bool {
    bytes >= if flooded { LITTLE } else { MUCH }
}

impl Conduit {
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.piped == 0
    }

    // ---- filling: at the end of file nothing is in hand afterwards ----

    /// One read of a socket: a splice if there is a flood. If that brings nothing, a plain read
    /// tells why: an end of file, or an urgent byte, where a splice never finds anything.
    pub(super) fn read_from(&mut self, fd: &Fd) -> io::Result<()> {
        if self.splices && self.floods {
            self.piped = self.splice_from(fd)?;
            if self.piped > 0 {
                context::charge(self.piped);
                self.floods = floods(true, self.piped);
                return Ok(());
            }
        }
        let got = fd.read(self.room());
        match self.filled(*got.as_ref().unwrap_or(&0)) {
            0 => self.pipe = None,
            bytes => self.floods = floods(false, bytes),
        }
        got.map(|_| ())
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
                Ok(0)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            moved => moved,
        }
    }

    /// One read of any other source. Such a source charges no budget, so this does.
    pub(super) fn poll_read(
        &mut self,
        source: Pin<&mut impl AsyncRead>,
        yielded: &mut bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(context::poll_yield(yielded, cx.waker()));
        let got = source.poll_read(cx, self.room());
        let bytes = match &got {
            Poll::Ready(Ok(bytes)) => *bytes,
            _ => 0,
        };
        context::charge(self.filled(bytes));
        got.map_ok(|_| ())
    }

    /// The loop's buffer, for one read. [`Conduit::filled`] follows.
    fn room(&mut self) -> &mut [u8] {
        debug_assert!(self.is_empty(), "bytes in hand would be overwritten");
        self.buffer = lent::take();
        &mut self.buffer
    }

    fn filled(&mut self, bytes: usize) -> usize {
        // A reader may claim more than it was given room for: it is not believed.
        let bytes = bytes.min(self.buffer.len());
        self.held = 0..bytes;
        self.settle();
        bytes
    }

    // ---- emptying ----

    /// One write to a socket.
    pub(super) fn write_to(&mut self, fd: &Fd) -> io::Result<()> {
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
        let sent = fd.write(&self.buffer[self.held.clone()])?;
        self.taken(sent)
    }

    /// Writes to any other sink until nothing is in hand, within the budget.
    pub(super) fn poll_write(
        &mut self,
        mut sink: Pin<&mut impl AsyncWrite>,
        yielded: &mut bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            ready!(context::poll_yield(yielded, cx.waker()));
            let bytes = &self.buffer[self.held.clone()];
            let sent = ready!(sink.as_mut().poll_write(cx, bytes))?;
            context::charge(sent);
            self.taken(sent)?;
        }
        Poll::Ready(Ok(()))
    }

    /// The sink has taken bytes out of the buffer.
    fn taken(&mut self, bytes: usize) -> io::Result<()> {
        let bytes = bytes.min(self.held.len());
        self.held.start += bytes;
        self.settle();
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

    /// The sink may take nothing for long: a buffer at least half empty shrinks to what is in it.
    pub(super) fn shrink(&mut self) {
        if self.held.len() <= self.buffer.len() / 2 {
            let rest = self.buffer[self.held.clone()].into();
            give_back(mem::replace(&mut self.buffer, rest));
            self.held = 0..self.buffer.len();
        }
    }

    /// Out of the pipe into the buffer, since the sink can't be spliced to.
    fn spill(&mut self) -> io::Result<()> {
        self.splices = false;
        if let Some(mut pipe) = self.pipe.take() {
            self.buffer = vec![0; mem::take(&mut self.piped)].into_boxed_slice();
            self.held = 0..self.buffer.len();
            // As much is in it, so this does not wait.
            pipe.reader.read_exact(&mut self.buffer)?;
        }
        Ok(())
    }

    /// Gives back a buffer that is no longer needed.
    fn settle(&mut self) {
        if self.held.is_empty() {
            give_back(mem::take(&mut self.buffer));
            self.held = 0..0;
        }
    }
}

/// Gives a buffer back to the loop, if it is the loop's.
fn give_back(buffer: Box<[u8]>) {
    if let Ok(buffer) = buffer.try_into() {
        lent::give_back(buffer);
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
    use std::io::Write;

    #[test]
    fn a_flood_is_spliced_and_messages_are_not() {
        let mut flooded = false;
        for (bytes, then) in [
            (64, false),
            (MUCH - 1, false),
            (MUCH, true),
            (LITTLE, true),
            (LITTLE - 1, false),
            (1 << 20, true),
        ] {
            flooded = floods(flooded, bytes);
            assert_eq!(flooded, then, "{bytes} bytes");
        }
    }

    #[test]
    fn what_waits_in_a_buffer_takes_little_more_than_its_length() {
        let mut conduit = Conduit::default();
        conduit.room()[..10].copy_from_slice(b"0123456789");
        conduit.filled(10);
        conduit.taken(3).unwrap();
        conduit.shrink();
        assert_eq!(&*conduit.buffer, b"3456789");
        conduit.taken(7).unwrap();
        assert!(conduit.is_empty() && conduit.buffer.is_empty());
        assert_eq!(conduit.written, 10);
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
        assert_eq!(&conduit.buffer[conduit.held.clone()], b"on their way");
        assert!(conduit.pipe.is_none() && !conduit.is_empty());
    }
}
