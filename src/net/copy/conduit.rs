//! What a copy has in its hands between its source and its sink: a pipe, or a buffer, with bytes.
//!
//! May touch: fd/. Mirrors `spliceDrain` and `splicePump` in Go's
//! `internal/poll/splice_linux.go`, and the buffer of `io.Copy`.
//!
//! | state | meaning | who moves it there | on to |
//! |---|---|---|---|
//! | Empty | nothing is held, no pipe and no buffer either | the last byte's going | Pipe or Buffer by a read |
//! | Pipe | bytes are in the kernel, on their way between two sockets | a splice | Empty; Buffer, if the sink can't be spliced to |
//! | Buffer | bytes are in memory, from `start` to `end` | a plain read | Empty |
//!
//! Which of the two it becomes, says its [`Way`].
//!
//! It is filled only while empty, and drained to the last byte before it is filled again. So when
//! a splice says EAGAIN it is never in doubt who is meant: filling, the pipe is empty, and it is
//! the source that has nothing; draining, it is not, and it is the sink that takes nothing.

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;

use super::pipe::Pipe;
use crate::net::fd::Fd;
use crate::runtime::context;

/// How bytes get from one socket to another.
///
/// | way | meaning | on to |
/// |---|---|---|
/// | Memory | a read and a write: the cheapest for a message | Pipe, when a read brings [`MUCH`] |
/// | Pipe | spliced: the cheapest for a flood | Memory, when a splice brings less than [`LITTLE`] |
/// | MemoryOnly | one of the ends can't be spliced | nothing |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Memory,
    Pipe,
    MemoryOnly,
}

/// Two splices save copying this twice, and cost more than a read and a write do: also, a short read
/// proves that there is no more, which a splice never does.
const MUCH: usize = 16 * 1024;
const LITTLE: usize = 4 * 1024;

impl Way {
    fn after(self, moved: usize) -> Way {
        match self {
            Way::Memory if moved >= MUCH => Way::Pipe,
            Way::Pipe if moved < LITTLE => Way::Memory,
            way => way,
        }
    }
}

/// A buffer's length: half of what a machine may move before it yields.
const LENGTH: usize = 64 * 1024;

thread_local! {
    static SPARE: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

#[derive(Debug, Default)]
pub(super) enum Conduit {
    #[default]
    Empty,
    Pipe(Pipe),
    Buffer {
        bytes: Box<[u8]>,
        start: usize,
        end: usize,
    },
}

impl Conduit {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Conduit::Empty)
    }

    // ---- filling ----

    /// One read of a socket, on the way that the ones before it have led to.
    pub(super) fn read_from(fd: &Fd, way: &mut Way) -> io::Result<Conduit> {
        if *way == Way::Pipe
            && let Some(mut pipe) = Pipe::take()
        {
            let result = pipe.fill(fd.socket().as_fd());
            match result {
                Ok(1..) => {
                    context::charge(pipe.holds);
                    *way = way.after(pipe.holds);
                    return Ok(Conduit::Pipe(pipe));
                }
                // End of file; or so it says at an urgent byte, whatever comes behind that. A
                // plain read goes past it, and knows.
                Ok(0) => {}
                // Likewise: for splice, a TCP stream at an urgent byte has nothing, ever.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if fd.short_means_drained() || !fd.network().is_tcp() {
                        pipe.give_back();
                        return Err(error);
                    }
                }
                Err(error) if is_refused(&error) => *way = Way::MemoryOnly,
                Err(error) => return Err(error),
            }
            pipe.give_back();
        }
        Conduit::fill(|bytes| {
            let got = fd.read(bytes)?;
            *way = way.after(got);
            Ok(got)
        })
    }

    /// Fills a buffer with what `read` has; of nothing (end of file) an empty conduit comes.
    pub(super) fn fill(read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<Conduit> {
        let spare = SPARE.take();
        let mut bytes = spare.unwrap_or_else(|| vec![0; LENGTH].into_boxed_slice());
        match read(&mut bytes) {
            Ok(end @ 1..) => Ok(Conduit::Buffer {
                bytes,
                start: 0,
                end,
            }),
            nothing => {
                SPARE.set(Some(bytes));
                nothing.map(|_zero| Conduit::Empty)
            }
        }
    }

    // ---- draining ----

    /// One write to a socket. How much it took.
    pub(super) fn write_to(&mut self, fd: &Fd, way: &mut Way) -> io::Result<usize> {
        if let Conduit::Pipe(pipe) = self {
            match pipe.drain(fd.socket().as_fd()) {
                Ok(gone) => {
                    context::charge(gone);
                    self.settle();
                    return moving(gone);
                }
                Err(error) if is_refused(&error) => {
                    *way = Way::MemoryOnly;
                    self.spill()?;
                }
                Err(error) => return Err(error),
            }
        }
        self.drain(|bytes| fd.write(bytes))
    }

    /// Gives what is in the buffer to `write`, and takes off what that took.
    pub(super) fn drain(
        &mut self,
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let Conduit::Buffer { bytes, start, end } = self else {
            return Ok(0);
        };
        let gone = write(&bytes[*start..*end])?.min(*end - *start);
        *start += gone;
        self.settle();
        moving(gone)
    }

    /// It may be long before the sink takes more: a buffer is then no larger than what waits in it.
    pub(super) fn keep_only_rest(&mut self) {
        if let Conduit::Buffer { bytes, start, end } = self
            && bytes.len() == LENGTH
            && *end - *start <= LENGTH / 2
        {
            let rest = bytes[*start..*end].into();
            SPARE.set(Some(std::mem::replace(bytes, rest)));
            (*start, *end) = (0, bytes.len());
        }
    }

    /// Out of the pipe, into a buffer.
    fn spill(&mut self) -> io::Result<()> {
        let Conduit::Pipe(pipe) = self else {
            return Ok(());
        };
        let mut bytes = vec![0; pipe.holds].into_boxed_slice();
        let mut end = 0;
        while pipe.holds > 0 {
            end += pipe.read(&mut bytes[end..])?;
        }
        *self = Conduit::Buffer {
            bytes,
            start: 0,
            end,
        };
        Ok(())
    }

    /// What has become empty goes where the next can have it.
    fn settle(&mut self) {
        let is_spent = match self {
            Conduit::Empty => false,
            Conduit::Pipe(pipe) => pipe.holds == 0,
            Conduit::Buffer { start, end, .. } => start == end,
        };
        if !is_spent {
            return;
        }
        match std::mem::take(self) {
            Conduit::Pipe(pipe) => pipe.give_back(),
            Conduit::Buffer { bytes, .. } if bytes.len() == LENGTH => SPARE.set(Some(bytes)),
            _ => {}
        }
    }
}

/// Whether it is splice itself that there is not: for these descriptors, or in this sandbox.
fn is_refused(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    matches!(number, Some(libc::EINVAL | libc::ENOSYS | libc::EPERM))
}

/// A sink that takes nothing, and does not say that it will, never will.
fn moving(gone: usize) -> io::Result<usize> {
    match gone {
        0 => Err(io::ErrorKind::WriteZero.into()),
        gone => Ok(gone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_flood_is_spliced_and_messages_are_not() {
        let mut way = Way::Memory;
        for (moved, then) in [
            (64, Way::Memory),
            (MUCH - 1, Way::Memory),
            (MUCH, Way::Pipe),
            (LITTLE, Way::Pipe),
            (LITTLE - 1, Way::Memory),
            (1 << 20, Way::Pipe),
        ] {
            way = way.after(moved);
            assert_eq!(way, then, "{moved} bytes");
        }
        assert_eq!(Way::MemoryOnly.after(1 << 20), Way::MemoryOnly);
    }

    #[test]
    fn what_waits_in_a_buffer_takes_no_more_than_it_is() {
        let read = |bytes: &mut [u8]| {
            bytes[..10].copy_from_slice(b"0123456789");
            Ok(10)
        };
        let mut conduit = Conduit::fill(read).unwrap();
        assert_eq!(conduit.drain(|_| Ok(3)).unwrap(), 3);
        conduit.keep_only_rest();
        assert!(matches!(&conduit, Conduit::Buffer { bytes, .. } if bytes.len() == 7));
        let rest = |bytes: &[u8]| {
            assert_eq!(bytes, b"3456789");
            Ok(bytes.len())
        };
        assert_eq!(conduit.drain(rest).unwrap(), 7);
        assert!(conduit.is_empty());
    }

    #[test]
    fn what_is_in_a_pipe_can_be_spilled_into_memory() {
        let Some(mut pipe) = Pipe::take() else { return };
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(b"on their way").unwrap();
        assert_eq!(pipe.fill(theirs.as_fd()).unwrap(), 12);
        let mut conduit = Conduit::Pipe(pipe);
        conduit.spill().unwrap();
        let mut out = Vec::new();
        while !conduit.is_empty() {
            let write = |bytes: &[u8]| out.write(&bytes[..bytes.len().min(5)]);
            conduit.drain(write).unwrap();
        }
        assert_eq!(out, b"on their way");
    }
}
