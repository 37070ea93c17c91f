//! What a copy has in hand between its source and its sink: bytes in a pipe, or in memory.
//!
//! | state | meaning | moved there by | on to |
//! |---|---|---|---|
//! | Empty | no byte is in hand | `settle`, after the last byte | Pipe by `splice_from`; Memory by `read` |
//! | Pipe | bytes are in the kernel, on their way between two sockets | `splice_from` | Empty; Memory by `spill`, if the sink can't be spliced to |
//! | Memory | bytes are in a buffer, from `start` to `end` | `read`, `spill` | Empty |
//!
//! It is filled only while it is Empty. So a splice that says EAGAIN leaves no doubt which end it
//! means: in filling the pipe is empty, so it is the source; in emptying it is not, so it is the
//! sink.
//!
//! The pipe is made for the first splice and closed as soon as the source has no more, so that a
//! copy which waits for its source holds no descriptor.
// Mirrors `spliceDrain` and `splicePump` in Go's `internal/poll/splice_linux.go`, and the buffer of
// `io.Copy`. Go keeps idle pipes for the collector to close.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::mem;
use std::os::fd::AsFd;

use crate::net::fd::Fd;
use crate::runtime::{context, lent, shortage};
use crate::sys;

/// How bytes get from one end to the other.
///
/// | route | meaning | on to |
/// |---|---|---|
/// | Memory | a read and a write: the cheapest for a message | Pipe, when a read brings [`MUCH`] |
/// | Pipe | spliced: the cheapest for a flood | Memory, when a splice brings less than [`LITTLE`] |
/// | MemoryOnly | one of the ends can't be spliced | nothing |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Memory,
    Pipe,
    MemoryOnly,
}

/// From `MUCH` bytes on, two splices are cheaper than a read and a write, since they save two copies.
/// Below `LITTLE` they are dearer: also, a short read proves that there is no more, which a splice
/// never does.
const MUCH: usize = 16 * 1024;
const LITTLE: usize = 4 * 1024;

/// What is asked of one splice: more than a pipe holds by default (64 KiB), so that the pipe sets
/// the limit.
const MAX_SPLICE: usize = 1 << 20;

impl Route {
    fn after(self, moved: usize) -> Route {
        match self {
            Route::Memory if moved >= MUCH => Route::Pipe,
            Route::Pipe if moved < LITTLE => Route::Memory,
            route => route,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Conduit {
    route: Route,
    pipe: Option<Pipe>,
    /// Bytes are in hand from `start` to `end`. A buffer of `lent::LENGTH` is the loop's.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes that have gone to the sink.
    pub(super) written: u64,
}

#[derive(Debug)]
struct Pipe {
    reader: PipeReader,
    writer: PipeWriter,
    /// Bytes in it.
    held: usize,
}

impl Conduit {
    pub(super) fn new(route: Route) -> Self {
        Conduit {
            route: if sys::SPLICES {
                route
            } else {
                Route::MemoryOnly
            },
            pipe: None,
            buffer: Box::default(),
            start: 0,
            end: 0,
            written: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end && self.pipe.as_ref().is_none_or(|pipe| pipe.held == 0)
    }

    // ---- filling ----

    /// One read of a socket, by the route that the last one has chosen. At the end of file nothing is
    /// in hand afterwards.
    pub(super) fn read_from(&mut self, fd: &Fd) -> io::Result<()> {
        if self.route == Route::Pipe && self.splice_from(fd)? {
            return Ok(());
        }
        self.read(|bytes| fd.read(bytes))?;
        self.route = self.route.after(self.end - self.start);
        Ok(())
    }

    /// Whether a splice has brought bytes. If not, a plain read tells why.
    fn splice_from(&mut self, fd: &Fd) -> io::Result<bool> {
        if self.pipe.is_none() {
            self.pipe = io::pipe().ok().map(|(reader, writer)| Pipe {
                reader,
                writer,
                held: 0,
            });
        }
        // Without descriptors to spare, memory does.
        let Some(pipe) = &mut self.pipe else {
            return Ok(false);
        };
        debug_assert_eq!(pipe.held, 0, "EAGAIN could mean the pipe");
        match sys::splice(fd.sock_ref().as_fd(), pipe.writer.as_fd(), MAX_SPLICE) {
            // End of file; or an urgent byte, with any number of bytes behind it.
            Ok(0) => Ok(false),
            Ok(moved) => {
                context::charge(moved);
                pipe.held = moved;
                self.route = self.route.after(moved);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.close_pipe();
                // At an urgent byte splice finds nothing, ever.
                match fd.short_means_drained() || !fd.network().is_tcp() {
                    true => Err(error),
                    false => Ok(false),
                }
            }
            Err(error) if is_unsupported(&error) => {
                self.route = Route::MemoryOnly;
                self.close_pipe();
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Fills the buffer with what `read` has. At the end of file nothing is in hand afterwards.
    pub(super) fn read(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        debug_assert!(self.is_empty(), "bytes in hand would be overwritten");
        self.buffer = lent::take();
        (self.start, self.end) = (0, 0);
        let got = read(&mut self.buffer);
        self.end = *got.as_ref().unwrap_or(&0);
        self.settle();
        got.map(|_| ())
    }

    // ---- emptying ----

    /// One write to a socket.
    pub(super) fn write_to(&mut self, fd: &Fd) -> io::Result<()> {
        if let Some(pipe) = &mut self.pipe
            && pipe.held > 0
        {
            match sys::splice_to_socket(pipe.reader.as_fd(), fd.sock_ref().as_fd(), pipe.held) {
                Ok(moved) => {
                    context::charge(moved);
                    pipe.held -= moved;
                    if fault!("copy_loses_its_pipe") {
                        pipe.held = 0;
                    }
                    return self.moved(moved);
                }
                Err(error) if is_unsupported(&error) => self.spill()?,
                Err(error) => return Err(error),
            }
        }
        self.write(|bytes| fd.write(bytes))
    }

    /// Gives the bytes in the buffer to `write`, and removes those that it took.
    pub(super) fn write(
        &mut self,
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        let bytes = &self.buffer[self.start..self.end];
        let moved = write(bytes)?.min(bytes.len());
        self.start += moved;
        self.moved(moved)
    }

    fn moved(&mut self, bytes: usize) -> io::Result<()> {
        self.written += bytes as u64;
        self.settle();
        match bytes {
            // The sink takes zero bytes and does not say WouldBlock: it will never take any.
            0 => Err(io::ErrorKind::WriteZero.into()),
            _ => Ok(()),
        }
    }

    /// The sink may take no more for long: until then a buffer is not much larger than what is in it.
    pub(super) fn shrink(&mut self) {
        if self.end - self.start <= self.buffer.len() / 2 {
            let rest = self.buffer[self.start..self.end].into();
            give_back(mem::replace(&mut self.buffer, rest));
            (self.start, self.end) = (0, self.buffer.len());
        }
    }

    /// Out of the pipe, into a buffer: the sink can't be spliced to.
    fn spill(&mut self) -> io::Result<()> {
        self.route = Route::MemoryOnly;
        if let Some(mut pipe) = self.pipe.take() {
            self.buffer = vec![0; pipe.held].into_boxed_slice();
            (self.start, self.end) = (0, self.buffer.len());
            // As much is in it, so this does not wait.
            pipe.reader.read_exact(&mut self.buffer)?;
            shortage::descriptor_closed();
        }
        Ok(())
    }

    /// Gives back what is no longer needed.
    fn settle(&mut self) {
        if self.start == self.end {
            give_back(mem::take(&mut self.buffer));
            (self.start, self.end) = (0, 0);
        }
        if self.route != Route::Pipe && self.is_empty() {
            self.close_pipe();
        }
    }

    fn close_pipe(&mut self) {
        if self.pipe.take().is_some() {
            shortage::descriptor_closed();
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
        let mut route = Route::Memory;
        for (moved, then) in [
            (64, Route::Memory),
            (MUCH - 1, Route::Memory),
            (MUCH, Route::Pipe),
            (LITTLE, Route::Pipe),
            (LITTLE - 1, Route::Memory),
            (1 << 20, Route::Pipe),
        ] {
            route = route.after(moved);
            assert_eq!(route, then, "{moved} bytes");
        }
        assert_eq!(Route::MemoryOnly.after(1 << 20), Route::MemoryOnly);
    }

    #[test]
    fn what_waits_in_a_buffer_takes_little_more_than_its_length() {
        let mut conduit = Conduit::new(Route::MemoryOnly);
        let read = |bytes: &mut [u8]| {
            bytes[..10].copy_from_slice(b"0123456789");
            Ok(10)
        };
        conduit.read(read).unwrap();
        conduit.write(|_| Ok(3)).unwrap();
        conduit.shrink();
        assert_eq!(conduit.buffer.len(), 7);
        let rest = |bytes: &[u8]| {
            assert_eq!(bytes, b"3456789");
            Ok(bytes.len())
        };
        conduit.write(rest).unwrap();
        assert!(conduit.is_empty() && conduit.buffer.is_empty());
        assert_eq!(conduit.written, 10);
    }

    #[test]
    fn what_is_in_a_pipe_can_be_spilled_into_memory() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"on their way").unwrap();
        let mut conduit = Conduit::new(Route::Pipe);
        conduit.pipe = Some(Pipe {
            reader,
            writer,
            held: 12,
        });
        conduit.spill().unwrap();
        let mut out = Vec::new();
        while !conduit.is_empty() {
            let write = |bytes: &[u8]| out.write(&bytes[..bytes.len().min(5)]);
            conduit.write(write).unwrap();
        }
        assert_eq!(out, b"on their way");
        assert!(conduit.pipe.is_none());
    }
}
