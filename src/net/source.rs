//! Any other descriptor, or mio source, in the runtime.

// Mirrors Go's `os.File` on the netpoller and `syscall.RawConn`.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io;
use std::time::Instant;

use super::fd::Fd;
use crate::reactor::Direction;
use crate::runtime::context;

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
    /// # Errors
    ///
    /// The selector's, or those of the source's `register`.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn new(mut source: S) -> io::Result<Self> {
        let fd = Fd::open_source("Source::new", &mut source)?;
        Ok(Source {
            fd,
            source: RefCell::new(source),
        })
    }

    /// Waits until reading may succeed. The read may still say `WouldBlock`: make it by
    /// [`Source::io`], which then waits on.
    ///
    /// # Errors
    ///
    /// Closed, with its runtime.
    pub fn readable(&self) -> impl Future<Output = io::Result<()>> {
        self.fd.readiness(Direction::Read)
    }

    /// Waits until writing may succeed: see [`Source::readable`].
    ///
    /// # Errors
    ///
    /// Closed, with its runtime.
    pub fn writable(&self) -> impl Future<Output = io::Result<()>> {
        self.fd.readiness(Direction::Write)
    }

    /// Moves a direction's deadline, after which operations fail with `TimedOut`. `None` takes it away.
    ///
    /// # Errors
    ///
    /// Closed, with its runtime.
    pub fn set_deadline(&self, direction: Direction, when: Option<Instant>) -> io::Result<()> {
        self.fd.set_deadline(direction, when)
    }

    /// Tries `attempt` whenever the direction is ready, until it says something other than
    /// `WouldBlock`.
    ///
    /// # Errors
    ///
    /// Those of `attempt`; closed, with its runtime.
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

    /// Looks at the source; do not close it.
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
