//! Ending a wait from another thread.
//!
//! May touch: mio. Mirrors Go's `netpollBreak` and its eventfd (`runtime/netpoll_epoll.go`).
//!
//! mio's own waker does it, but not under poll(2), where mio (1.2) can lose a wake-up: its poll
//! takes the token first and empties the eventfd afterwards, and a wake-up in between leaves a
//! token that nobody looks for. There a pipe is watched like any other source.

use std::io;
use std::sync::Arc;

use super::selector::Break;

#[cfg(not(mio_unsupported_force_poll_poll))]
#[derive(Debug)]
pub(super) struct Alarm {
    waker: Arc<mio::Waker>,
}

#[cfg(not(mio_unsupported_force_poll_poll))]
impl Alarm {
    pub(super) fn new(poll: &mio::Poll, token: mio::Token) -> io::Result<Self> {
        let waker = Arc::new(mio::Waker::new(poll.registry(), token)?);
        Ok(Alarm { waker })
    }

    pub(super) fn breaker(&self) -> Arc<dyn Break> {
        self.waker.clone()
    }

    /// It rang, and was heard.
    #[inline]
    pub(super) fn heard(&self) {}
}

#[cfg(not(mio_unsupported_force_poll_poll))]
impl Break for mio::Waker {
    fn break_netpoll(&self) -> io::Result<()> {
        self.wake()
    }
}

#[cfg(mio_unsupported_force_poll_poll)]
#[derive(Debug)]
pub(super) struct Alarm {
    pipe: Arc<Pipe>,
}

/// Both ends live as long as anybody may ring: a pipe that nobody can read raises SIGPIPE.
#[cfg(mio_unsupported_force_poll_poll)]
#[derive(Debug)]
struct Pipe {
    bell: mio::unix::pipe::Sender,
    ear: mio::unix::pipe::Receiver,
}

#[cfg(mio_unsupported_force_poll_poll)]
impl Alarm {
    pub(super) fn new(poll: &mio::Poll, token: mio::Token) -> io::Result<Self> {
        let (bell, mut ear) = mio::unix::pipe::new()?;
        let readable = mio::Interest::READABLE;
        poll.registry().register(&mut ear, token, readable)?;
        let pipe = Arc::new(Pipe { bell, ear });
        Ok(Alarm { pipe })
    }

    pub(super) fn breaker(&self) -> Arc<dyn Break> {
        self.pipe.clone()
    }

    /// It rang, and was heard: empties the pipe, which arms it again.
    pub(super) fn heard(&self) {
        let mut rings = [0; 64];
        while matches!(io::Read::read(&mut &self.pipe.ear, &mut rings), Ok(some) if some > 0) {}
    }
}

#[cfg(mio_unsupported_force_poll_poll)]
impl Break for Pipe {
    fn break_netpoll(&self) -> io::Result<()> {
        match io::Write::write(&mut &self.bell, &[1]) {
            // Full: it rings already.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            result => result.map(drop),
        }
    }
}
