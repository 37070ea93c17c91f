//! What is no socket of ours: a [`Pipe`], read and written by descriptor; and any other mio source.

// Mirrors Go's `os.File` on the netpoller (`os/file_unix.go`, `newFile`) and `syscall.RawConn`.

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use mio::unix::pipe;

use super::error::{Cause, OpError};
use super::fd::Fd;
use crate::endpoints::Network;
use crate::reactor::Direction::{self, Read, Write};
use crate::runtime::{context, lent};

/// A pipe, a fifo, a terminal, a child's end, an inotify or event descriptor: whatever is read and
/// written by read(2) and write(2), and can be waited for. Reads, writes, deadlines and closing are
/// those of a [`Stream`](crate::net::Stream).
///
/// A write with no reader left fails with [`BrokenPipe`](io::ErrorKind::BrokenPipe) where
/// SIGPIPE is ignored, as it is in a Rust program. A C host has to ignore it first.
///
/// A cheap handle: clones are the same descriptor, and closing one closes all. Reads queue up
/// behind each other, first come first served, and so do writes. It closes by itself when the last
/// handle is dropped. It is not `Send`: it belongs to the runtime, and so to the thread, that made
/// it.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// use netpoller::Pipe;
/// use std::process::{Command, Stdio};
/// let mut child = Command::new("cat")
///     .stdin(Stdio::piped())
///     .stdout(Stdio::piped())
///     .spawn()?;
/// let input = Pipe::new(child.stdin.take().unwrap())?;
/// let output = Pipe::new(child.stdout.take().unwrap())?;
///
/// input.write_all(b"hello").await?;
/// input.close()?; // the child reads end of file
/// let mut hello = [0; 5];
/// output.read_exact(&mut hello).await?;
/// assert_eq!(&hello, b"hello");
/// assert_eq!(output.read(&mut hello).await?, 0); // the end
/// # child.wait()?;
/// # Ok(())
/// # })
/// # }
/// ```
///
/// # Cancel safety
///
/// An operation that is dropped leaves nothing behind and loses no byte, but those which move data
/// in several steps ([`write_all`](Pipe::write_all), [`read_exact`](Pipe::read_exact)) may have
/// moved some.
pub struct Pipe {
    pub(super) fd: Fd,
}

impl Pipe {
    /// Takes over a descriptor: a [`File`] that was opened on a fifo or a terminal, a
    /// [`ChildStdout`](std::process::ChildStdout), a [`PipeReader`](std::io::PipeReader), an
    /// [`OwnedFd`].
    ///
    /// It becomes non-blocking, for each process that shares it: open a terminal anew by its path
    /// (`/dev/tty`), since the standard input is often shared with a shell. Opening a fifo for
    /// reading blocks until there is a writer, and the other way round: open it with `O_NONBLOCK`,
    /// or for both.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::Pipe;
    /// use std::process::{Command, Stdio};
    /// let mut child = Command::new("echo").arg("hello").stdout(Stdio::piped()).spawn()?;
    /// let output = Pipe::new(child.stdout.take().unwrap())?;
    /// assert_eq!(output.read_with(|bytes| bytes.to_vec()).await?, b"hello\n");
    /// child.wait()?;
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] for a regular file or a directory, which the system can't wait
    /// for. Else the system's.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn new(fd: impl Into<OwnedFd>) -> io::Result<Pipe> {
        let opened = open(File::from(fd.into()));
        opened.map_err(|cause| OpError::new("open", Network::File.name(), None, cause).into())
    }

    /// A new pipe: what is written to the second can be read from the first.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let (reader, writer) = netpoller::Pipe::pair()?;
    /// writer.write_all(b"hello").await?;
    /// assert_eq!(reader.read_with(|bytes| bytes.to_vec()).await?, b"hello");
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The system's.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn pair() -> io::Result<(Pipe, Pipe)> {
        let (writer, reader) = pipe::new()?;
        Ok((Pipe::new(reader)?, Pipe::new(writer)?))
    }

    /// Gives the descriptor out. It stays non-blocking, and for other handles it is closed.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use std::io::Write;
    /// let (reader, writer) = netpoller::Pipe::pair()?;
    /// let mut file = std::fs::File::from(writer.into_fd()?);
    /// file.write_all(b"hello")?;
    /// assert_eq!(reader.read(&mut [0; 8]).await?, 5);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Closed; lent just now by `with_fd`.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        self.fd.give_out()
    }

    /// Reads what is there, up to the buffer's length; waits while nothing is. Zero means that no
    /// writer is left; or that the buffer is empty: then it does not wait.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let (reader, writer) = netpoller::Pipe::pair()?;
    /// writer.write_all(b"hello").await?;
    /// writer.close()?;
    /// let mut buffer = [0; 8];
    /// assert_eq!(reader.read(&mut buffer).await?, 5);
    /// assert_eq!(reader.read(&mut buffer).await?, 0); // no writer is left
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The system's; a timeout once the read deadline has passed; closed.
    pub fn read(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> {
        self.fd
            .op_on(Read, buffer.is_empty(), move |fd| fd.read_file(buffer))
    }

    /// Fills the whole buffer.
    ///
    /// # Errors
    ///
    /// As [`read`](Pipe::read); [`io::ErrorKind::UnexpectedEof`] if the end comes first.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, it has taken bytes from the pipe.
    pub fn read_exact<'a>(
        &'a self,
        buffer: &'a mut [u8],
    ) -> impl Future<Output = io::Result<()>> + 'a {
        self.fd.move_all(Read, buffer.len(), |fd, from| {
            fd.read_file(&mut buffer[from..])
        })
    }

    /// Reads into the loop's own buffer and lends what came to `f`, which may do anything but wait.
    /// At the end, `f` gets an empty slice.
    ///
    /// # Errors
    ///
    /// As [`read`](Pipe::read).
    pub fn read_with<R>(&self, f: impl FnOnce(&[u8]) -> R) -> impl Future<Output = io::Result<R>> {
        let read = |fd: &Fd| lent::fill(|buffer| fd.read_file(buffer));
        let read = self.fd.op(Read, read);
        async {
            let (buffer, got) = read.await?;
            // The lock is free by now, because `f` may read from the same pipe.
            let result = f(&buffer[..got]);
            lent::give_back(buffer);
            Ok(result)
        }
    }

    /// Reads what is there without waiting.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let (reader, writer) = netpoller::Pipe::pair()?;
    /// let error = reader.try_read(&mut [0; 8]).unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    /// assert_eq!(writer.try_write(b"hello")?, 5);
    /// reader.readable().await?;
    /// assert_eq!(reader.try_read(&mut [0; 8])?, 5);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if nothing is; else as [`read`](Pipe::read).
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fd.try_now(Read, |fd| fd.read_file(buffer))
    }

    /// Writes what is taken at once, waiting until something is: one system call.
    ///
    /// # Errors
    ///
    /// The system's: a broken pipe, if no reader is left; a timeout once the write deadline has
    /// passed; closed.
    pub fn write(&self, bytes: &[u8]) -> impl Future<Output = io::Result<usize>> {
        self.fd
            .op_on(Write, bytes.is_empty(), move |fd| fd.write_file(bytes))
    }

    /// Writes everything. No other write through these handles comes between its pieces, but a `try_write`
    /// or a `try_io`.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let (reader, writer) = netpoller::Pipe::pair()?;
    /// let writing = netpoller::spawn(async move { writer.write_all(&[7; 1 << 20]).await });
    /// let mut all = vec![0; 1 << 20];
    /// reader.read_exact(&mut all).await?;
    /// writing.await.unwrap()?;
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`write`](Pipe::write); the [`OpError`] says how much had gone.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, some of it has been written.
    pub fn write_all<'a>(&'a self, bytes: &'a [u8]) -> impl Future<Output = io::Result<()>> + 'a {
        self.fd
            .move_all(Write, bytes.len(), |fd, from| fd.write_file(&bytes[from..]))
    }

    /// Writes what is taken without waiting.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if nothing is taken; else as [`write`](Pipe::write).
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.fd.try_now(Write, |fd| fd.write_file(bytes))
    }
}

fn open(file: File) -> Result<Pipe, Cause> {
    let kind = file.metadata().map_err(Cause::by("fstat"))?.file_type();
    if kind.is_file() || kind.is_dir() {
        let text = "a regular file is always ready, so it can't be waited for: \
                    read and write it in spawn_blocking";
        let error = io::Error::new(io::ErrorKind::InvalidInput, text);
        return Err(Cause::Other(error));
    }
    let fd = Fd::adopt("Pipe::new", file, Network::File).map_err(Cause::by("epoll_ctl"))?;
    // After it is registered: a refused descriptor must not change, since others may share it.
    let set = fd.socket().owned.socket().set_nonblocking(true);
    set.map_err(Cause::by("fcntl"))?;
    Ok(Pipe::of(fd))
}

/// Waits for any [`mio::event::Source`] that is not one of our sockets: a pipe, a tty, an inotify
/// descriptor ([`mio::unix::SourceFd`]), a socket of mio's own.
///
/// It must be non-blocking. Operations of one direction queue up behind each other. It is not
/// `Send`: it is registered with the runtime, and so with the thread, that made it.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use netpoller::{Direction, Source};
/// use std::io::{Read, Write};
/// # netpoller::Runtime::new()?.block_on(async {
/// let (ours, mut theirs) = mio::net::UnixStream::pair()?;
/// let ours = Source::new(ours)?;
/// theirs.write_all(b"!")?;
/// let mut byte = [0];
/// let got = ours.io(Direction::Read, |source| source.read(&mut byte)).await?;
/// assert_eq!((got, byte), (1, *b"!"));
/// # Ok(())
/// # })
/// # }
/// ```
pub struct Source<S: mio::event::Source> {
    fd: Fd,
    source: RefCell<S>,
}

impl<S: mio::event::Source> Source<S> {
    /// Registers a source with the runtime that runs this. The source's `register` must not use the
    /// runtime itself.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::Source;
    /// let listener = mio::net::UdpSocket::bind("127.0.0.1:0".parse().unwrap())?;
    /// let source = Source::new(listener)?;
    /// let address = source.with(|socket| socket.local_addr())?;
    /// assert_ne!(address.port(), 0);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The selector's, or those of the source's `register`.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn new(mut source: S) -> io::Result<Self> {
        let fd = Fd::open(&Fd::core("Source::new"), &mut source, None, Network::File)?;
        Ok(Source {
            fd,
            source: RefCell::new(source),
        })
    }

    /// Waits until reading may succeed. The read may still say `WouldBlock`: make it by
    /// [`Source::io`], which then waits on.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{Direction, Source};
    /// use std::io::{Read, Write};
    /// let (ours, mut theirs) = mio::net::UnixStream::pair()?;
    /// let ours = Source::new(ours)?;
    /// theirs.write_all(b"!")?;
    /// ours.readable().await?;
    /// let got = ours.io(Direction::Read, |source| source.read(&mut [0])).await?;
    /// assert_eq!(got, 1);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Closed, once its runtime is gone; a timeout, once the deadline has passed.
    pub fn readable(&self) -> impl Future<Output = io::Result<()>> {
        self.fd.readiness(Read)
    }

    /// Waits until writing may succeed: see [`Source::readable`].
    ///
    /// # Errors
    ///
    /// Closed, once its runtime is gone; a timeout, once the deadline has passed.
    pub fn writable(&self) -> impl Future<Output = io::Result<()>> {
        self.fd.readiness(Write)
    }

    /// Moves a direction's deadline, after which operations fail with `TimedOut`. `None` takes it away.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{Direction, NetError, Source, time};
    /// use std::io::Read;
    /// let (ours, _theirs) = mio::net::UnixStream::pair()?;
    /// let ours = Source::new(ours)?;
    /// ours.set_deadline(Direction::Read, Some(time::now()))?;
    /// let read = ours.io(Direction::Read, |source| source.read(&mut [0]));
    /// assert!(read.await.unwrap_err().is_timeout());
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Closed, once its runtime is gone.
    pub fn set_deadline(&self, direction: Direction, when: Option<Instant>) -> io::Result<()> {
        self.fd.set_deadline(direction, when)
    }

    /// Tries `attempt` whenever the direction is ready, until it says something other than
    /// `WouldBlock` or `Interrupted`.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{Direction, Source};
    /// let ours = Source::new(mio::net::UdpSocket::bind("127.0.0.1:0".parse().unwrap())?)?;
    /// let address = ours.with(|socket| socket.local_addr())?;
    /// ours.io(Direction::Write, |socket| socket.send_to(b"ping", address)).await?;
    /// let mut buffer = [0; 8];
    /// let got = ours.io(Direction::Read, |socket| socket.recv_from(&mut buffer)).await?;
    /// assert_eq!(got, (4, address));
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of `attempt`; closed, once its runtime is gone; a timeout, once the deadline has passed.
    ///
    /// # Panics
    ///
    /// If `attempt` uses this very source again.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, it has done nothing.
    pub fn io<R>(
        &self,
        direction: Direction,
        mut attempt: impl FnMut(&mut S) -> io::Result<R>,
    ) -> impl Future<Output = io::Result<R>> {
        self.fd.op(direction, move |fd| {
            let source = &mut *self.source.borrow_mut();
            context::charge(0);
            let result = attempt(source);
            if matches!(&result, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                fd.desc.drained(direction);
                fd.desc.rearm(source)?;
            }
            result
        })
    }

    /// Calls `f` with the source, which `f` must not close.
    ///
    /// # Panics
    ///
    /// From inside an attempt of [`Source::io`].
    pub fn with<R>(&self, f: impl FnOnce(&mut S) -> R) -> R {
        f(&mut self.source.borrow_mut())
    }
}

impl<S: mio::event::Source> Drop for Source<S> {
    fn drop(&mut self) {
        self.fd.leave(self.source.get_mut());
    }
}

impl<S: mio::event::Source> fmt::Debug for Source<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}
