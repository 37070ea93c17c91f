//! What a protocol's callbacks are given: writing, ending, and who the peer is.
//!
//! May touch: net's Fd, the worker. Mirrors what a Go handler does with its `net.Conn`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;

use super::handle::{ConnHandle, Mailbox};
use super::out_queue::{OutQueue, Piece};
use super::passed_on;
use super::standing::{Asked, Standing};
use super::state::State;
use super::watch::Watch;
use super::worker::Worker;
use crate::endpoints::{Addr, End};
use crate::net::fd::Fd;

/// A connection, as the callbacks of its [`Protocol`](crate::Protocol) see it.
pub struct Conn {
    pub(crate) fd: Fd,
    pub(crate) worker: Rc<Worker>,
    /// What an idle connection does without.
    pub(crate) extra: Option<Box<Extra>>,
}

/// What a connection has only while something waits, or once somebody asked for it.
#[derive(Default)]
pub(crate) struct Extra {
    pub(crate) queue: OutQueue,
    /// The queue has been above the high mark, and not below the low one since.
    pub(crate) is_full: bool,
    /// What the protocol has not used.
    pub(crate) unused: Vec<u8>,
    /// Some of that was not offered yet.
    pub(crate) fresh: bool,
    /// Why it is closing.
    pub(crate) why: Option<io::Error>,
    pub(crate) mailbox: Option<Rc<Mailbox>>,
    /// Whether the peer is fast enough, while it has reason to hurry.
    pub(crate) watch: Option<Box<Watch>>,
}

/// What a callback writes is gathered up to this size.
pub(crate) const GATHER: usize = 256 << 10;

impl Conn {
    pub(crate) fn new(fd: Fd, worker: Rc<Worker>) -> Self {
        fd.give_to_one_owner();
        fd.set_note(Standing::FIRST.byte());
        Conn {
            fd,
            worker,
            extra: None,
        }
    }

    /// Writes: all of it, at the end of the callback or whenever the peer takes it. It never waits.
    ///
    /// # Errors
    ///
    /// Too much waits already, see [`Limits`](crate::Limits): nothing of this was taken. Our
    /// direction has ended.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        // What is offered may be written: else nothing is.
        if passed_on::note(bytes) {
            return Ok(());
        }
        self.gather(bytes)
    }

    #[inline(never)]
    fn gather(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut out = self.worker.out.borrow_mut();
        let most = self.worker.gathers;
        if !self.standing().may_write() || out.len() + bytes.len() > most || self.queued() > 0 {
            drop(out);
            return self.write_with_care(bytes);
        }
        self.worker.put(&mut out, bytes);
        Ok(())
    }

    /// As [`write`](Conn::write), of bytes that are shared with other connections and not copied.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn write_shared(&mut self, bytes: &Rc<[u8]>) -> io::Result<()> {
        self.check_write(bytes.len())?;
        if passed_on::len() > 0 {
            // That comes first, and can't be queued before the callback has ended.
            self.worker.put(&mut self.worker.out.borrow_mut(), bytes);
            self.worker.room_unused();
            return Ok(());
        }
        self.gathered_to_queue();
        self.enqueue(Piece::Shared(bytes.clone()));
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn write_with_care(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.check_write(bytes.len())?;
        let mut out = self.worker.out.borrow_mut();
        if passed_on::len() > 0 || out.len() + bytes.len() <= GATHER {
            self.worker.put(&mut out, bytes);
            self.worker.room_unused();
            return Ok(());
        }
        drop(out);
        self.gathered_to_queue();
        self.enqueue(Piece::Own(bytes.to_vec()));
        // Before it grows: the system may take it at once. A failure shows at the callback's end.
        self.write_early();
        Ok(())
    }

    fn check_write(&self, more: usize) -> io::Result<()> {
        if !self.standing().may_write() {
            return Err(ended());
        }
        let gathered = passed_on::len() + self.worker.out.borrow().len();
        let waiting = self.queued() + gathered;
        self.worker.check_room(waiting, more)
    }

    /// Moves what was gathered into the queue.
    pub(crate) fn gathered_to_queue(&mut self) {
        passed_on::shut();
        let worker = self.worker.clone();
        let mut out = worker.out.borrow_mut();
        if !out.is_empty() {
            self.enqueue_bytes(&out);
            worker.clear(&mut out);
        }
    }

    pub(crate) fn enqueue_bytes(&mut self, bytes: &[u8]) {
        self.worker.queued_more(bytes.len());
        let high = self.worker.limits.high_water;
        let extra = self.extra.get_or_insert_default();
        extra.queue.push(bytes);
        extra.is_full |= extra.queue.len() > high;
    }

    pub(crate) fn enqueue(&mut self, piece: Piece) {
        self.worker.queued_more(piece.bytes().len());
        let high = self.worker.limits.high_water;
        let extra = self.extra.get_or_insert_default();
        extra.queue.push_piece(piece);
        extra.is_full |= extra.queue.len() > high;
    }

    /// Bytes that wait to be written, without those of this callback.
    pub fn queued(&self) -> usize {
        self.extra.as_ref().map_or(0, |extra| extra.queue.len())
    }

    /// Whether so much waits that nothing is read from the peer:
    /// [`drained`](crate::Protocol::drained) will say when there is room again.
    pub fn is_full(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.is_full)
    }

    /// Pushes both deadlines, which is a store each. False if that is not all.
    #[inline(always)]
    pub(crate) fn put_off_deadlines(&self) -> bool {
        let (both, soonest) = self.worker.intervals.to_add();
        self.fd.put_off_both(both, soonest)
    }

    // ---- where it stands ----

    #[inline]
    pub(crate) fn standing(&self) -> Standing {
        Standing::from_byte(self.fd.note())
    }

    pub(crate) fn state(&self) -> State {
        self.standing().state()
    }

    pub(crate) fn stand(&self, standing: Standing) {
        self.fd.set_note(standing.byte());
    }

    pub(crate) fn enter(&mut self, state: State) {
        self.stand(self.standing().in_state(state));
    }

    pub(crate) fn asked(&self) -> Asked {
        self.standing().asked()
    }

    pub(crate) fn ask(&mut self, asked: Asked) {
        let most = self.asked().max(asked);
        self.stand(self.standing().with_asked(most));
        passed_on::shut();
    }

    /// Takes up what was asked for.
    pub(crate) fn take_asked(&mut self) -> Asked {
        let asked = self.asked();
        self.stand(self.standing().with_asked(Asked::Nothing));
        asked
    }

    // ---- what the protocol asks for ----

    /// Lends the descriptor, to set options: see [`Stream::with_fd`](crate::net::Stream::with_fd).
    ///
    /// # Errors
    ///
    /// Closed.
    pub fn with_fd<R>(&self, f: impl FnOnce(BorrowedFd<'_>) -> R) -> io::Result<R> {
        let lent = self.fd.with_fd(f);
        lent.map_err(|failure| self.fd.error("raw-control", failure, 0))
    }

    /// Closes the connection once all is written. Nothing more is read.
    pub fn close(&mut self) {
        self.ask(Asked::Close);
    }

    /// Ends our direction once all is written: the peer reads end of file, and can still send.
    pub fn close_write(&mut self) {
        self.ask(Asked::End);
    }

    /// Closes with a RST: what was not sent is thrown away.
    pub fn abort(&mut self) {
        self.ask(Asked::Abort);
    }

    /// Whether the server is being drained: a protocol may want to say good-bye.
    pub fn is_draining(&self) -> bool {
        self.worker.is_draining()
    }

    /// When the server's connections on this thread count as idle. While the server is being
    /// drained that is the grace they are given.
    pub fn idle_timeout(&self) -> Option<Duration> {
        self.worker.idle_timeout()
    }

    /// The peer's address.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.end(End::Peer)
    }

    /// Our end's address.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.end(End::Local)
    }

    fn end(&self, end: End) -> io::Result<SocketAddr> {
        match self.fd.endpoint(end) {
            Some(Addr::Socket(address)) => Ok(address),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// A handle to write by from other connections and tasks of this thread.
    pub fn handle(&mut self) -> ConnHandle {
        let worker = &self.worker;
        let extra = self.extra.get_or_insert_default();
        let make = || Rc::new(Mailbox::new(worker.clone()));
        ConnHandle::new(extra.mailbox.get_or_insert_with(make).clone())
    }
}

/// What a write meets that comes too late.
pub(crate) fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "our direction has ended")
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.worker.gone();
    }
}

/// Nothing waits: `write` takes all, as [`Conn::write`] does, and `flush` has nothing to do.
impl io::Write for Conn {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Conn::write(self, bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn")
            .field("state", &self.state())
            .field("peer", &self.fd.endpoint(End::Peer))
            .field("queued", &self.queued())
            .finish_non_exhaustive()
    }
}
