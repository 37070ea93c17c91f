//! THE loop: try, EAGAIN, park, again; with the locks, the deadlines and the close around it.
//!
//! May touch: the runtime and the reactor. Every socket's every operation goes through here: as a
//! future in `op.rs`, for a poller in `poller.rs`. One system call each is in `attempt.rs`.
//! Mirrors `internal/poll/fd_unix.go` (`FD.Read`, `FD.Write`, `FD.Accept`) and `fd_mutex.go`.
//!
//! ```text
//!   acquire the direction ─► may I? (closed, expired) ─► ready? ──no──► park ─► Pending
//!                                  ▲                       │yes                   │ a turn
//!                                  └── forget readiness ◄─ try ──► done: release  │ hands us
//!                                         (EAGAIN)                                ▼ back
//!                                                            (polled again) ─► may I? …
//! ```

mod attempt;
mod close;
mod name;
mod op;
mod owned;
mod poller;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use mio::event::Source;
use mio::unix::SourceFd;
use socket2::SockRef;

use crate::endpoints::{Endpoints, Network};
use crate::reactor::{Descriptor, Direction, Readiness, Refusal};
use crate::runtime::context;
use crate::runtime::resource::{Hold, Parked, Place, Resource};
use crate::runtime::scheduler::Scheduler;
use crate::sys::Handle;

pub(crate) use attempt::MOST_AT_ONCE;
pub(crate) use name::Failure;
pub(crate) use op::{Accepting, Connecting, Op, Reading, Writing};

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
        if self.resource().handle.may_linger() {
            // An accepted socket inherits it.
            resource.handle.note_linger();
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
                    ready!(self.poll_turn(hold, cx));
                    return Poll::Ready(Err(Failure::Refused(refusal)));
                }
                self.park(direction, cx.waker());
                return Poll::Pending;
            }
            if !context::may_go_on() {
                ready!(self.poll_turn(hold, cx));
            }
            if log::log_enabled!(log::Level::Trace) {
                log::trace!("try {:?} {direction:?}", self.link.token());
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

    /// On the machine's budget, but an operation yields once, and then has its turn.
    #[cold]
    #[inline(never)]
    fn poll_turn(&self, hold: &mut Hold, cx: &Context<'_>) -> Poll<()> {
        let mut yielded = *hold == Hold::Yielded;
        let polled = context::poll_budget_once(&mut yielded, cx.waker());
        *hold = match yielded {
            true => Hold::Yielded,
            false => Hold::Held,
        };
        polled
    }

    /// Whether an operation that has parked at once may try at once.
    #[inline]
    pub(crate) fn may_try(&self, direction: Direction) -> bool {
        self.link.may_try(direction) && context::may_go_on()
    }

    /// An operation that asks for nothing gets it at once, whatever waits there; but it is charged,
    /// and yields in its turn, or a loop of such would run for ever.
    pub(crate) fn poll_nothing<T: Default>(&self, cx: &Context<'_>) -> Poll<T> {
        context::poll_budget(cx.waker()).map(|()| T::default())
    }

    /// Who loops on an error, as an accept loop may, is to yield in its turn as well.
    #[cold]
    #[inline(never)]
    pub(crate) fn poll_refused<R>(
        &self,
        refusal: Refusal,
        cx: &Context<'_>,
    ) -> Poll<Result<R, Failure>> {
        let budget = context::poll_budget(cx.waker());
        budget.map(|()| Err(Failure::Refused(refusal)))
    }

    /// Takes the direction and parks there, if it is free, nothing is ready, nothing speaks
    /// against waiting, and the waker is our own machine's: what an operation most often finds.
    #[inline]
    pub(crate) fn park_at_once(&self, direction: Direction, waker: &Waker) -> bool {
        let resource = self.link.carried();
        if !self.link.must_wait(direction) || !resource.is_free(direction) {
            return false;
        }
        let Some(id) = context::own_untraced(self.link.home(), waker) else {
            return false;
        };
        resource.hold(direction);
        self.link.park_again(direction, Parked::machine(id));
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
            io::ErrorKind::Interrupted => {
                context::charge(0);
                None
            }
            _ => {
                context::charge(0);
                Some(error)
            }
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

    /// Arms a source again that somebody else owns, after its EAGAIN.
    pub(crate) fn source_drained(
        &self,
        direction: Direction,
        source: &mut dyn Source,
    ) -> io::Result<()> {
        self.link.drained(direction);
        self.link.rearm(source)
    }

    #[inline]
    fn park(&self, direction: Direction, waker: &Waker) {
        let parked = match context::own(self.link.home(), waker) {
            Some(id) => Parked::machine(id),
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
            Hold::Held | Hold::Parked | Hold::Yielded => {
                self.link.unpark(direction);
                drop(resource.take_wakers(Place::from(direction)));
                resource.release(direction, hold);
            }
        }
    }

    // ---- deadlines ----

    #[inline(always)]
    pub(crate) fn set_deadline(
        &self,
        direction: Direction,
        when: Option<Instant>,
    ) -> io::Result<()> {
        // Of a closed one nothing is put off.
        if self.link.put_off_deadline(direction, when) {
            return Ok(());
        }
        self.set_deadline_with_care(direction, when)
    }

    #[cold]
    #[inline(never)]
    fn set_deadline_with_care(
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
}
