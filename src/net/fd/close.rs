//! Closing, lending and giving out a descriptor, and the peer's hang-up.

// Mirrors `internal/poll/fd_unix.go` (`FD.Close`, `FD.destroy`, `FD.RawControl`), and `net/file.go`.

use std::fs;
use std::future::{Future, poll_fn};
use std::io;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::task::Poll;
use std::time::Duration;

use mio::event::Source;
use mio::unix::SourceFd;
use socket2::SockRef;

use super::{Failure, Fd, Name, Needs};
use crate::reactor::{Direction, Refusal};
use crate::runtime::panics::catch;
use crate::runtime::waiters::{self, Ticket};
use crate::runtime::{blocking, context, wake_quietly};
use crate::sys;

impl Fd {
    // ---- closing ----

    /// Closes for every handle, at once: what is parked is woken, and never touches the socket again.
    pub(crate) fn close(&self) -> io::Result<()> {
        // Reads both addresses now: later errors name them.
        self.learn_endpoints();
        // A child of fork gets past this check: it may close its own descriptor.
        if self.is_closed() {
            return Err(self.error("close", Failure::Refused(Refusal::Closed)));
        }
        self.shut();
        Ok(())
    }

    /// As [`Fd::close`], with a RST. In a child of fork it is refused: the RST would be the parent's.
    pub(crate) fn abort(&self) -> io::Result<()> {
        let set = self.reset_at_close();
        set.map_err(|failure| self.error("close", failure))?;
        self.close()
    }

    /// Closes a server's connection. Does not read the addresses, because no later error names them.
    pub(crate) fn close_for_good(&self) {
        if !self.is_closed() {
            self.shut();
        }
    }

    /// Sets linger zero, so that the close sends a RST. macOS refuses this after both directions have ended.
    pub(crate) fn reset_at_close(&self) -> Result<(), Failure> {
        self.with_socket(|socket| {
            if let Err(error) = socket.set_linger(Some(Duration::ZERO)) {
                log::debug!("closed without the reset that was asked for: {error}");
            }
            Ok(())
        })
    }

    /// Ends one direction, or both.
    pub(crate) fn shut_down(&self, how: Shutdown) -> io::Result<()> {
        self.option("close", |socket| socket.shutdown(how))
    }

    /// shutdown(SHUT_WR). ENOTCONN is no error: the connection has ended already.
    pub(crate) fn half_close(&self) -> io::Result<()> {
        match self.sock_ref().shutdown(Shutdown::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            ended => ended,
        }
    }

    /// [`Fd::half_close`], which queues for the write lock like a write. It does not wait as a poller,
    /// because another poller, such as a heartbeat, could displace it.
    pub(crate) fn end_writing_in_queue(&self) -> impl Future<Output = io::Result<()>> {
        let closing = self.op(Direction::Write, Fd::half_close);
        let mut closing = closing.named(Name::Close);
        closing.needs = Needs::Lock;
        closing
    }

    fn shut(&self) {
        let socket = self.socket();
        // A Unix listener's path goes before the descriptor, as in Go: while the path is there, a
        // client that connects is answered.
        self.unlink();
        self.leave(&mut SourceFd(&socket.owned.raw()));
        socket.owned.take().into_iter().for_each(close_fd);
        debug_assert!(socket.owned.raw() < 0 || socket.owned.is_lent());
        waiters::descriptor_closed();
    }

    /// Deregisters, and wakes what is parked.
    pub(crate) fn leave(&self, source: &mut dyn Source) {
        let mut wakers = Vec::new();
        self.socket().evict_beside(&mut wakers);
        // The next turn hands out what is parked. Foreign wakers are woken here: their executor may
        // never run a turn of this runtime.
        self.desc
            .parked(|_, &parked| wakers.extend(parked.take_waker()));
        // If a selector of the user's panics, what waits is woken and the socket is closed all the same.
        match catch(|| self.desc.close(source)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::debug!("can't deregister a descriptor: {error}"),
            Err(_) => log::error!("a selector panicked when a descriptor was closed"),
        }
        debug_assert!(self.is_closed(), "what parks now is never woken");
        wakers.into_iter().for_each(wake_quietly);
    }

    fn unlink(&self) {
        // In a child of fork the path is its parent's.
        if let Some(path) = self.socket().set_unlink(None)
            && !self.desc.core.is_inherited()
            && let Err(error) = fs::remove_file(&path)
        {
            log::debug!("can't remove {}: {error}", path.display());
        }
    }

    // ---- lent, given out ----

    /// Lends the descriptor: Go's `Control`. After a close inside `f` it stays open until `f`
    /// returns.
    pub(crate) fn with_fd<R>(&self, f: impl FnOnce(BorrowedFd<'_>) -> R) -> io::Result<R> {
        let lent = self.check_open().and_then(|()| {
            // The user may enable kTLS or a sockmap, which may end a read early.
            self.desc.set_short_io_inconclusive();
            let lent = self.socket().owned.with(f, close_fd);
            lent.ok_or(Failure::Refused(Refusal::Closed))
        });
        lent.map_err(|failure| self.error("raw-control", failure))
    }

    /// The number, -1 once it is closed. From here on a short read proves nothing, as after
    /// [`Fd::with_fd`].
    pub(crate) fn number(&self) -> RawFd {
        self.desc.set_short_io_inconclusive();
        match self.is_closed() {
            true => -1,
            false => self.socket().owned.raw(),
        }
    }

    /// Returns the file descriptor. Other handles see the socket as closed. The path of a Unix listener
    /// is not removed.
    pub(crate) fn give_out(&self) -> io::Result<OwnedFd> {
        let closed = || self.error("file", Failure::Refused(Refusal::Closed));
        if self.is_closed() || self.socket().owned.is_lent() {
            return Err(closed());
        }
        self.learn_endpoints();
        self.socket().set_unlink(None);
        self.leave(&mut SourceFd(&self.socket().owned.raw()));
        self.socket().owned.take().ok_or_else(closed)
    }

    // ---- hang-up ----

    /// Waits until the peer has sent FIN or RST, or reading was shut on our side.
    pub(crate) async fn hung_up(&self) -> io::Result<()> {
        struct Waiter<'a>(&'a Fd, Option<Ticket>);
        impl Drop for Waiter<'_> {
            fn drop(&mut self) {
                self.0.socket().unregister_hang_up(&mut self.1);
            }
        }
        let mut waiter = Waiter(self, None);
        let hung_up = poll_fn(|cx| {
            // The waker is kept first: cloning it may run any code, which may close the socket.
            self.socket().register_hang_up(&mut waiter.1, cx.waker());
            match self.check_open() {
                Ok(()) if !self.desc.is_hung_up() => Poll::Pending,
                checked => Poll::Ready(checked),
            }
        });
        let hung_up = hung_up.await;
        // A caller may loop on this.
        context::yield_once().await;
        hung_up.map_err(|failure| self.error("read", failure))
    }

    /// How many written bytes the peer has not acknowledged. Zero where the system can't tell, and on a
    /// closed socket.
    pub(crate) fn unacknowledged(&self) -> usize {
        let left = self.with_socket(|socket| Ok(sys::unacknowledged(socket)));
        left.unwrap_or(0)
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // The last handle goes, so no operation waits here. After the runtime's end the `PollDesc` has the
        // flag CLOSED, but the file descriptor is still open.
        if self.desc.is_last() && self.socket().owned.raw() >= 0 {
            self.shut();
        }
    }
}

/// With SO_LINGER a close may block until all is sent, even on a non-blocking socket. So a thread
/// closes such a descriptor; any other is closed here.
fn close_fd(fd: OwnedFd) {
    let linger = SockRef::from(&fd).linger();
    if matches!(linger, Ok(Some(wait)) if !wait.is_zero()) {
        blocking::closes().run(Box::new(move || drop(fd)));
    }
}
