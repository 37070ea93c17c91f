//! THE loop: try, EAGAIN, park, again; with the locks, the deadlines and the close around it.
//!
//! May touch: the runtime and the reactor. Every socket's every operation goes through here.
//! Mirrors `internal/poll/fd_unix.go` (`FD.Read`, `FD.Write`, `FD.Accept`) and `fd_mutex.go`.
//!
//! ```text
//!   acquire the direction ─► may I? (closed, expired) ─► ready? ──no──► park ─► Pending
//!                                  ▲                       │yes                   │ a turn
//!                                  └── forget readiness ◄─ try ──► done: release  │ hands us
//!                                         (EAGAIN)                                ▼ back
//!                                                            (polled again) ─► may I? …
//! ```

use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use mio::event::Source;
use mio::unix::SourceFd;
use socket2::SockRef;

use super::error::{Cause, OpError};
use crate::endpoints::{Addr, End, Endpoints, Network};
use crate::reactor::{Descriptor, Direction, Park, Readiness, Refusal};
use crate::runtime::blocking;
use crate::runtime::context;
use crate::runtime::resource::{Hold, Parked, Place, Resource};
use crate::runtime::scheduler::Scheduler;
use crate::runtime::shortage;
use crate::sys::Handle;

/// The most that one system call is given: some systems fail, or truncate, above 1 GiB.
pub(crate) const MOST_AT_ONCE: usize = 1 << 30;

/// A socket of the runtime, shared by its handles; closed when the last goes.
#[derive(Clone)]
pub(crate) struct Fd {
    link: Descriptor<Parked, Resource>,
}

impl Fd {
    /// Takes a non-blocking socket into a runtime. Nothing is known of it: the first try tells.
    pub(crate) fn open(scheduler: &Rc<Scheduler>, fd: OwnedFd, network: Network) -> io::Result<Fd> {
        let raw = fd.as_raw_fd();
        let resource = Resource::new(Handle::new(fd), Endpoints::new(network));
        let link =
            scheduler
                .reactor
                .open_carrying(&mut SourceFd(&raw), resource, !network.is_tcp())?;
        link.assume_ready(Readiness::READ | Readiness::WRITE);
        Ok(Fd { link })
    }

    /// Takes in a source that somebody else owns and reads.
    pub(crate) fn open_source(scheduler: &Scheduler, source: &mut dyn Source) -> io::Result<Fd> {
        let resource = Resource::new(Handle::none(), Endpoints::new(Network::File));
        let link = scheduler.reactor.open_carrying(source, resource, true)?;
        link.assume_ready(Readiness::READ | Readiness::WRITE);
        Ok(Fd { link })
    }

    /// As [`Fd::open`], beside this one: for what a listener accepts.
    pub(crate) fn open_beside(&self, fd: OwnedFd, network: Network) -> io::Result<Fd> {
        let raw = fd.as_raw_fd();
        let resource = Resource::new(Handle::new(fd), Endpoints::new(network));
        if self.resource().may_linger() {
            // An accepted socket inherits it.
            resource.note_linger();
        }
        let link = self
            .link
            .open_beside(&mut SourceFd(&raw), resource, !network.is_tcp())?;
        link.assume_ready(Readiness::READ | Readiness::WRITE);
        Ok(Fd { link })
    }

    // ---- the loop ----

    /// One operation, as far as it gets. `attempt` makes one system call; `hold` is the
    /// operation's own, and says whether it has the direction.
    #[inline]
    pub(crate) fn poll<R>(
        &self,
        direction: Direction,
        hold: &mut Hold,
        cx: &Context<'_>,
        attempt: impl FnMut(&Fd) -> io::Result<R>,
    ) -> Poll<Result<R, Failure>> {
        let polled = self.poll_step(direction, hold, cx, attempt);
        if polled.is_ready() {
            self.link.carried().release(direction, hold);
        }
        polled
    }

    /// As [`Fd::poll`], but what is ready keeps the direction, for operations of several steps.
    #[inline]
    pub(crate) fn poll_step<R>(
        &self,
        direction: Direction,
        hold: &mut Hold,
        cx: &Context<'_>,
        mut attempt: impl FnMut(&Fd) -> io::Result<R>,
    ) -> Poll<Result<R, Failure>> {
        let resource = self.link.carried();
        if !resource.acquire(direction, hold, cx.waker()) {
            return Poll::Pending;
        }
        loop {
            if !self.link.may_try(direction) {
                if let Err(refusal) = self.link.check(direction) {
                    return Poll::Ready(Err(Failure::Refused(refusal)));
                }
                self.park(direction, cx.waker());
                return Poll::Pending;
            }
            if !context::may_go_on() {
                // The very waker, not our machine's id: within a join of many futures only that
                // one knows which of them to poll again.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match attempt(self) {
                Ok(done) => return Poll::Ready(Ok(done)),
                Err(error) => {
                    if let Some(error) = self.try_failed(direction, error) {
                        return Poll::Ready(Err(Failure::System(error)));
                    }
                }
            }
        }
    }

    /// One operation of a poller, which has no future to hold the direction between two polls: it
    /// waits while an operation holds it, and else parks without holding it.
    pub(crate) fn poll_unheld<R>(
        &self,
        direction: Direction,
        cx: &Context<'_>,
        attempt: impl FnMut(&Fd) -> io::Result<R>,
    ) -> Poll<Result<R, Failure>> {
        let resource = self.link.carried();
        if let Err(refusal) = self.link.check(direction) {
            drop(resource.take_poller(direction));
            return Poll::Ready(Err(Failure::Refused(refusal)));
        }
        if self.poll_release(direction, cx).is_pending() {
            return Poll::Pending;
        }
        let mut hold = Hold::Free;
        let polled = self.poll_step(direction, &mut hold, cx, attempt);
        resource.release(direction, &mut hold);
        if polled.is_pending() {
            resource.keep_poller(direction, cx.waker());
        }
        polled
    }

    /// Waits until no operation holds the direction. The last poller wins: an earlier one's waker
    /// goes.
    pub(crate) fn poll_release(&self, direction: Direction, cx: &Context<'_>) -> Poll<()> {
        let resource = self.link.carried();
        drop(resource.take_poller(direction));
        if self.is_closed() || !resource.is_held(direction) {
            return Poll::Ready(());
        }
        resource.keep_poller(direction, cx.waker());
        Poll::Pending
    }

    /// Whether an operation that holds the direction may try at once.
    #[inline]
    pub(crate) fn may_try(&self, direction: Direction) -> bool {
        self.link.may_try(direction) && context::may_go_on()
    }

    /// An operation that asks for nothing gets it at once, whatever waits there; but it is charged,
    /// and yields in its turn, or a loop of such would run for ever.
    pub(crate) fn poll_nothing<T: Default>(&self, cx: &Context<'_>) -> Poll<T> {
        if !context::may_go_on() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        context::charge(0);
        Poll::Ready(T::default())
    }

    /// Takes the direction and parks there, if it is free, nothing is ready, nothing speaks
    /// against waiting, and the waker is our own machine's: what an operation most often finds.
    #[inline]
    pub(crate) fn park_at_once(&self, direction: Direction, waker: &Waker) -> bool {
        let resource = self.link.carried();
        if !self.link.must_wait(direction) || !resource.is_free(direction) {
            return false;
        }
        let Some(parked) = context::own_untraced(self.link.home(), waker) else {
            return false;
        };
        resource.hold(direction);
        self.link.park_again(direction, parked);
        true
    }

    /// EAGAIN and EINTR are no errors: `None`, go round again.
    #[cold]
    #[inline(never)]
    fn try_failed(&self, direction: Direction, error: io::Error) -> Option<io::Error> {
        match error.kind() {
            io::ErrorKind::WouldBlock => {
                log::trace!("EAGAIN {:?} {direction:?}", self.link.token());
                self.drained(direction).err()
            }
            io::ErrorKind::Interrupted => None,
            _ => Some(error),
        }
    }

    fn drained(&self, direction: Direction) -> io::Result<()> {
        self.link.drained(direction);
        let raw = self.link.carried().handle.raw();
        if raw < 0 {
            // Somebody else's source, which they arm again themselves.
            return Ok(());
        }
        self.link.rearm(&mut SourceFd(&raw))
    }

    #[inline]
    fn park(&self, direction: Direction, waker: &Waker) {
        let parked = match context::own(self.link.home(), waker) {
            Some(parked) => parked,
            None => self.keep_foreign(direction, waker),
        };
        // A poll that nothing called for finds itself parked: it parks anew, under this waker.
        self.link.park_again(direction, parked);
        if log::log_enabled!(log::Level::Trace) {
            log::trace!("park {:?} {direction:?} {parked:?}", self.link.token());
        }
    }

    #[cold]
    #[inline(never)]
    fn keep_foreign(&self, direction: Direction, waker: &Waker) -> Parked {
        self.link.carried().keep_waker(direction, waker);
        Parked::foreign(self.link.token(), Place::from(direction))
    }

    /// An operation is given up: it leaves its parking place, its lock or its queue.
    #[cold]
    #[inline(never)]
    pub(crate) fn give_up(&self, direction: Direction, hold: &mut Hold) {
        let resource = self.link.carried();
        match hold {
            Hold::Free => {}
            Hold::Queued(_) => resource.forget(direction, hold),
            Hold::Held => {
                self.link.unpark(direction);
                drop(resource.take_wakers(Place::from(direction)));
                resource.release(direction, hold);
            }
        }
    }

    /// Notes what a read or write moved. One that moved less than it might have shows that the
    /// kernel has no more, or takes no more: the next try can wait for an edge, and a system call
    /// is saved. That holds on TCP alone (a Unix stream's read stops at passed descriptors).
    #[inline]
    pub(crate) fn moved(&self, direction: Direction, bytes: usize, asked: usize) {
        context::charge(bytes);
        self.fell_short(direction, bytes, asked);
    }

    #[inline]
    fn fell_short(&self, direction: Direction, bytes: usize, asked: usize) {
        if bytes < asked && asked < MOST_AT_ONCE && bytes > 0 && self.link.short_means_drained() {
            self.link.drained(direction);
        }
    }

    /// Whether nothing can lie behind what the kernel shows: no urgent byte, no hang-up.
    pub(crate) fn short_means_drained(&self) -> bool {
        self.link.short_means_drained()
    }

    /// One read.
    #[inline]
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.resource().handle.receive(buffer)
    }

    /// One write without waiting. It is not charged: it follows on a read that was.
    #[inline]
    pub(crate) fn try_send(&self, bytes: &[u8]) -> Result<usize, Failure> {
        if self.link.check(Direction::Write).is_ok()
            && bytes.len() < MOST_AT_ONCE
            && let Ok(gone) = self.resource().handle.send(bytes)
        {
            self.fell_short(Direction::Write, gone, bytes.len());
            return Ok(gone);
        }
        self.try_send_with_care(bytes)
    }

    #[cold]
    #[inline(never)]
    fn try_send_with_care(&self, bytes: &[u8]) -> Result<usize, Failure> {
        self.try_once(Direction::Write, |fd| fd.send(bytes))
    }

    /// One write, of no more than the system takes at once, and never a SIGPIPE.
    #[inline]
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(MOST_AT_ONCE)];
        let gone = self.resource().handle.send(bytes)?;
        self.moved(Direction::Write, gone, bytes.len());
        Ok(gone)
    }

    /// One try, no waiting: `WouldBlock` if it would have to.
    pub(crate) fn try_once<R>(
        &self,
        direction: Direction,
        mut attempt: impl FnMut(&Fd) -> io::Result<R>,
    ) -> Result<R, Failure> {
        self.link.check(direction).map_err(Failure::Refused)?;
        loop {
            match attempt(self) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if error.kind() == io::ErrorKind::WouldBlock {
                        self.drained(direction).map_err(Failure::System)?;
                    }
                    return Err(Failure::System(error));
                }
                Ok(done) => return Ok(done),
            }
        }
    }

    // ---- the peer's going ----

    pub(crate) fn poll_hung_up(
        &self,
        ticket: &mut Option<u32>,
        cx: &Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        let parked = Parked::foreign(self.link.token(), Place::HangUp);
        match self.link.park_hang_up(parked).0 {
            Park::Ready(_) => Poll::Ready(Ok(())),
            Park::Parked => {
                self.link.carried().await_hang_up(ticket, cx.waker());
                Poll::Pending
            }
            Park::TimedOut(_) | Park::Closed(_) => {
                Poll::Ready(Err(Failure::Refused(Refusal::Closed)))
            }
        }
    }

    pub(crate) fn forget_hang_up(&self, ticket: u32) {
        if self.link.carried().forget_hang_up(ticket) {
            self.link.unpark_hang_up();
        }
    }

    // ---- deadlines ----

    #[inline(always)]
    pub(crate) fn set_deadline(
        &self,
        direction: Direction,
        when: Option<Instant>,
    ) -> io::Result<()> {
        if self.is_closed() {
            return Err(self.error("set", Failure::Refused(Refusal::Closed), 0));
        }
        self.link.set_deadline(direction, when);
        Ok(())
    }

    // ---- closing ----

    pub(crate) fn is_closed(&self) -> bool {
        self.link.is_closed()
    }

    /// Closes for every handle, at once: who is parked is woken and never touches it again.
    pub(crate) fn close(&self) -> Result<(), Failure> {
        if self.is_closed() {
            return Err(Failure::Refused(Refusal::Closed));
        }
        // While the socket can still tell: later errors will want to name it.
        self.learn_endpoints();
        self.shut();
        Ok(())
    }

    fn shut(&self) {
        let resource = self.link.carried();
        // Before the descriptor goes, as Go does it: whoever finds the path finds us there.
        drop(resource.attach(None));
        match self.detach() {
            Some(fd) if resource.may_linger() => close_fd(fd),
            closed => drop(closed),
        }
        shortage::descriptor_closed();
    }

    /// Takes the socket out of the runtime; the other handles find it closed.
    pub(crate) fn detach(&self) -> Option<OwnedFd> {
        let raw = self.resource().handle.raw();
        self.leave(&mut SourceFd(&raw));
        self.resource().handle.take()
    }

    /// Deregisters, and wakes whoever is parked.
    pub(crate) fn leave(&self, source: &mut dyn Source) {
        let mut wakers = Vec::new();
        self.link.carried().take_all_wakers(&mut wakers);
        if let Err(error) = self.link.close(source) {
            log::debug!("the selector would not forget a descriptor: {error}");
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Arms a source again that somebody else owns, after its EAGAIN.
    pub(crate) fn source_drained(
        &self,
        direction: Direction,
        source: &mut dyn Source,
    ) -> io::Result<()> {
        self.link.drained(direction);
        self.link.rearm(source)
    }

    // ---- what it is ----

    #[inline]
    pub(crate) fn network(&self) -> Network {
        self.link.carried().network()
    }

    /// The socket, for one system call: only an attempt may ask, or who has checked it is open.
    #[inline]
    pub(crate) fn socket(&self) -> SockRef<'_> {
        self.link.carried().handle.socket()
    }

    pub(crate) fn resource(&self) -> &Resource {
        self.link.carried()
    }

    /// Calls on the open socket: options and the like.
    pub(crate) fn with_socket<R>(
        &self,
        f: impl FnOnce(&SockRef<'_>) -> io::Result<R>,
    ) -> Result<R, Failure> {
        if self.is_closed() {
            return Err(Failure::Refused(Refusal::Closed));
        }
        f(&self.socket()).map_err(Failure::System)
    }

    /// Lends the descriptor itself; a close that comes meanwhile is put off until it is back.
    pub(crate) fn with_fd<R>(&self, f: impl FnOnce(BorrowedFd<'_>) -> R) -> Result<R, Failure> {
        if self.is_closed() {
            return Err(Failure::Refused(Refusal::Closed));
        }
        self.resource().note_linger();
        let lent = self.resource().handle.with(f, close_fd);
        lent.ok_or(Failure::Refused(Refusal::Closed))
    }

    /// An end's address: known, or asked of the system.
    pub(crate) fn endpoint(&self, end: End) -> Option<Addr> {
        let resource = self.resource();
        if let Some(known) = resource.endpoint(end) {
            return Some(known);
        }
        if self.is_closed() {
            return None;
        }
        let socket = self.socket();
        let address = match end {
            End::Local => socket.local_addr(),
            End::Peer => socket.peer_addr(),
        };
        let address = super::addr::from_system(&address.ok()?)?;
        resource.set_endpoint(end, address.clone());
        Some(address)
    }

    pub(crate) fn learn_endpoints(&self) {
        self.endpoint(End::Local);
        self.endpoint(End::Peer);
    }

    /// The error for a failed operation, with both ends.
    #[cold]
    #[inline(never)]
    pub(crate) fn error(&self, op: &'static str, failure: Failure, written: usize) -> io::Error {
        let call = match op {
            "set" => "setsockopt",
            "get" => "getsockopt",
            op => op,
        };
        OpError {
            written,
            ..self.name_error(op, failure.cause(call))
        }
        .into()
    }

    /// As [`Fd::error`], for a system call that is not named like the operation.
    #[cold]
    pub(crate) fn op_error(&self, op: &'static str, cause: Cause) -> io::Error {
        self.name_error(op, cause).into()
    }

    fn name_error(&self, op: &'static str, cause: Cause) -> OpError {
        let (source, addr) = match op {
            // A listener has one end, and Go names that as the address.
            "accept" | "set" | "get" | "raw-control" => (None, self.endpoint(End::Local)),
            _ => (self.endpoint(End::Local), self.endpoint(End::Peer)),
        };
        OpError {
            op,
            net: self.network().name(),
            source,
            addr,
            written: 0,
            cause,
        }
    }
}

impl Drop for Fd {
    #[inline]
    fn drop(&mut self) {
        // The registry's and ours: the last handle goes, so nothing can be parked here.
        if self.link.handles() <= 2 && !self.is_closed() {
            self.shut();
        }
    }
}

/// Why an operation failed, before its names are added: that is done once, out of the hot path.
#[derive(Debug)]
pub(crate) enum Failure {
    Refused(Refusal),
    System(io::Error),
}

/// Whether closing it may block until what was written has been sent.
fn lingers(fd: &OwnedFd) -> bool {
    let linger = SockRef::from(fd).linger();
    matches!(linger, Ok(Some(wait)) if !wait.is_zero())
}

impl Failure {
    pub(crate) fn cause(self, call: &'static str) -> Cause {
        match self {
            Failure::Refused(refusal) => Cause::from(refusal),
            Failure::System(error) => Cause::system(call, error),
        }
    }
}

/// A lingering close blocks even on a non-blocking socket: not in the loop.
fn close_fd(fd: OwnedFd) {
    if lingers(&fd) {
        blocking::run(Box::new(move || drop(fd)));
    }
}

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
