//! What one can copy from and to.
//!
//! May touch: stream/. Mirrors `io.Reader` and `io.Writer`, and the hooks `io.WriterTo` and
//! `io.ReaderFrom`, by which Go's `io.Copy` finds out that splice(2) can do it.
//!
//! A shared reference to a stream of ours is an end that the kernel can copy by itself; an
//! exclusive reference is anything that futures-io can read or write. The two never overlap, so
//! that one function serves both.

use std::fmt;

use futures_io::{AsyncRead, AsyncWrite};

use crate::net::fd::Fd;
use crate::net::stream::Stream;

/// What [`copy`](super::copy) can read from: `&TcpStream`, `&UnixStream`, or `&mut` anything that
/// is [`AsyncRead`].
pub trait CopySource: Unpin {
    /// The way to read from it.
    fn reader(&mut self) -> CopyReader<'_>;
}

/// What [`copy`](super::copy) can write to: `&TcpStream`, `&UnixStream`, or `&mut` anything that
/// is [`AsyncWrite`].
pub trait CopySink: Unpin {
    /// The way to write to it.
    fn writer(&mut self) -> CopyWriter<'_>;
}

/// How to read from a [`CopySource`].
pub struct CopyReader<'a>(pub(super) ReadEnd<'a>);

pub(super) enum ReadEnd<'a> {
    Stream(&'a Fd),
    Io(&'a mut (dyn AsyncRead + Unpin)),
}

/// How to write to a [`CopySink`].
pub struct CopyWriter<'a>(pub(super) WriteEnd<'a>);

pub(super) enum WriteEnd<'a> {
    Stream(&'a Fd),
    Io(&'a mut (dyn AsyncWrite + Unpin)),
}

impl<'a> CopyReader<'a> {
    /// By a stream of ours.
    pub fn stream<K>(stream: &'a Stream<K>) -> Self {
        CopyReader(ReadEnd::Stream(&stream.fd))
    }

    /// By anybody's reader.
    pub fn io(reader: &'a mut (dyn AsyncRead + Unpin)) -> Self {
        CopyReader(ReadEnd::Io(reader))
    }
}

impl<'a> CopyWriter<'a> {
    /// By a stream of ours.
    pub fn stream<K>(stream: &'a Stream<K>) -> Self {
        CopyWriter(WriteEnd::Stream(&stream.fd))
    }

    /// By anybody's writer.
    pub fn io(writer: &'a mut (dyn AsyncWrite + Unpin)) -> Self {
        CopyWriter(WriteEnd::Io(writer))
    }
}

impl<K> CopySource for &Stream<K> {
    fn reader(&mut self) -> CopyReader<'_> {
        CopyReader::stream(self)
    }
}

impl<K> CopySink for &Stream<K> {
    fn writer(&mut self) -> CopyWriter<'_> {
        CopyWriter::stream(self)
    }
}

impl<T: AsyncRead + Unpin + ?Sized> CopySource for &mut T {
    fn reader(&mut self) -> CopyReader<'_> {
        CopyReader::io(self)
    }
}

impl<T: AsyncWrite + Unpin + ?Sized> CopySink for &mut T {
    fn writer(&mut self) -> CopyWriter<'_> {
        CopyWriter::io(self)
    }
}

impl fmt::Debug for CopyReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            ReadEnd::Stream(_) => "CopyReader(stream)",
            ReadEnd::Io(_) => "CopyReader(io)",
        })
    }
}

impl fmt::Debug for CopyWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            WriteEnd::Stream(_) => "CopyWriter(stream)",
            WriteEnd::Io(_) => "CopyWriter(io)",
        })
    }
}
