//! One operation as a future, which is the loop with a try of its own.
//!
//! May touch: the loop in `mod.rs`. Go has a method for each (`FD.Read`, `FD.Accept`, ...).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Fd;
use crate::reactor::Direction;
use crate::runtime::resource::Hold;

/// Which operation an [`Op`] is; mostly known to the compiler, so that it costs nothing to carry.
pub(crate) trait Kind: Copy {
    fn name(self) -> &'static str;
    fn direction(self) -> Direction;
}

#[derive(Clone, Copy)]
pub(crate) struct Reading;
#[derive(Clone, Copy)]
pub(crate) struct Writing;
#[derive(Clone, Copy)]
pub(crate) struct Accepting;
#[derive(Clone, Copy)]
pub(crate) struct Connecting;

impl Kind for Reading {
    fn name(self) -> &'static str {
        "read"
    }
    fn direction(self) -> Direction {
        Direction::Read
    }
}

impl Kind for Writing {
    fn name(self) -> &'static str {
        "write"
    }
    fn direction(self) -> Direction {
        Direction::Write
    }
}

impl Kind for Accepting {
    fn name(self) -> &'static str {
        "accept"
    }
    fn direction(self) -> Direction {
        Direction::Read
    }
}

impl Kind for Connecting {
    fn name(self) -> &'static str {
        "connect"
    }
    fn direction(self) -> Direction {
        Direction::Write
    }
}

/// Whichever the caller asks for.
impl Kind for Direction {
    fn name(self) -> &'static str {
        match self {
            Direction::Read => Reading.name(),
            Direction::Write => Writing.name(),
        }
    }
    fn direction(self) -> Direction {
        self
    }
}

/// One operation as a future: the loop above, with a try of its own.
pub(crate) struct Op<'a, K: Kind, F> {
    kind: K,
    fd: &'a Fd,
    hold: Hold,
    attempt: F,
}

impl<'a, K: Kind, F> Op<'a, K, F> {
    #[inline]
    pub(crate) fn new<R>(kind: K, fd: &'a Fd, attempt: F) -> Self
    where
        F: FnMut(&Fd) -> io::Result<R>,
    {
        Op {
            kind,
            fd,
            hold: Hold::Free,
            attempt,
        }
    }
}

// Nothing in it is ever pinned: an operation holds borrows and plain values.
impl<K: Kind, F> Unpin for Op<'_, K, F> {}

impl<K: Kind, F, R> Future for Op<'_, K, F>
where
    F: FnMut(&Fd) -> io::Result<R>,
{
    type Output = io::Result<R>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let (kind, fd) = (this.kind, this.fd);
        match fd.poll(kind.direction(), &mut this.hold, cx, &mut this.attempt) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(done)) => Poll::Ready(Ok(done)),
            Poll::Ready(Err(failure)) => Poll::Ready(Err(fd.error(kind.name(), failure, 0))),
        }
    }
}

impl<K: Kind, F> Drop for Op<'_, K, F> {
    #[inline]
    fn drop(&mut self) {
        if self.hold != Hold::Free {
            self.fd.give_up(self.kind.direction(), &mut self.hold);
        }
    }
}
