//! The loop of every operation: try, EAGAIN, park, again; with the locks, the deadlines and the
//! close around it.
//!
//! Every operation that waits goes through [`Claim::poll_step`], except the fast path of `read_with.rs`,
//! [`Fd::hung_up`], and a half-close, which waits for the lock alone. A server's connection has its
//! socket to itself, and calls the system directly. All of `impl Fd` is in this folder:
//!
//! | file | what it is |
//! |---|---|
//! | `mod.rs` | registering a descriptor; the loop; deadlines |
//! | `op.rs` | an operation as a future, and as the step of a poller |
//! | `read_with.rs` | a read into the loop's own buffer, with the fast path of a task |
//! | `syscalls.rs` | one function for each system call |
//! | `close.rs` | closing; hang-up; `with_fd` and `into_std` |
//! | `name.rs` | the names in an error |
//!
//! ```text
//!   lock the direction ──► may_try ──closed, expired──► refused
//!                          ▲ ▲ │ready      │not ready
//!                          │ │ ▼           ▼
//!                          │ │ try ──► done  park ──► Pending
//!                          │ │ │EAGAIN                  │
//!                          │ │ ▼                        │
//!                          │ forget readiness           │
//!                          └── polled again ◄── a turn wakes it
//! ```

// Mirrors `internal/poll/fd_unix.go` (`FD.Read`, `FD.Write`, `FD.Accept`) and `fd_mutex.go`.

mod close;
mod name;
mod op;
mod read_with;
mod syscalls;

use std::io::{self, ErrorKind::Interrupted, ErrorKind::WouldBlock};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use mio::event::Source;
use mio::unix::SourceFd;
use socket2::SockRef;

use crate::endpoints::{Endpoints, Network};
use crate::reactor::{Core, Descriptor, Direction, May, Refusal};
use crate::runtime::context::{self, ParkKey};
use crate::runtime::current;
use crate::runtime::socket::{LockState, Socket};
use crate::sys::OwnedSocket;

pub(crate) use name::{Failure, Name};
pub(crate) use op::Needs;

/// The netpoller of a runtime.
pub(crate) type RuntimeCore = Rc<Core<ParkKey, Socket>>;

/// A socket of the runtime, shared by its handles; closed when the last goes.
#[derive(Clone)]
pub(crate) struct Fd {
    /// Go's `pd`. A server's connection, which has its socket to itself, uses it directly.
    pub(crate) desc: Descriptor<ParkKey, Socket>,
}

impl Fd {
    /// The identity of its runtime's reactor.
    fn home(&self) -> *const () {
        Rc::as_ptr(&self.desc.core).cast()
    }

    /// Registers a socket or a file with the runtime that runs this: see [`Fd::core`].
    pub(crate) fn adopt(
        what: &str,
        socket: impl Into<OwnedFd>,
        network: Network,
    ) -> io::Result<Fd> {
        Fd::register(&Fd::core(what), socket.into(), network)
    }

    /// As [`Fd::adopt`], with the runtime of `core`.
    pub(crate) fn register(core: &RuntimeCore, fd: OwnedFd, network: Network) -> io::Result<Fd> {
        let raw = fd.as_raw_fd();
        Fd::open(core, &mut SourceFd(&raw), Some(fd), network)
    }

    /// The netpoller of the runtime that runs this. Outside a runtime it panics, and says that `what` was
    /// called.
    pub(crate) fn core(what: &str) -> RuntimeCore {
        current::with(what, |scheduler| scheduler.reactor.core.clone())
    }

    /// Registers a source: `fd`, or one that the user owns.
    pub(crate) fn open(
        core: &RuntimeCore,
        source: &mut dyn Source,
        fd: Option<OwnedFd>,
        network: Network,
    ) -> io::Result<Fd> {
        let raw = fd.as_ref().map(AsRawFd::as_raw_fd);
        let socket = Socket::new(OwnedSocket::new(fd), Endpoints::new(network));
        let desc = core.open(source, raw, socket)?;
        // A short read proves nothing on datagrams, nor on a Unix stream, where a read stops before
        // passed descriptors.
        if !network.is_tcp() {
            desc.set_short_io_inconclusive();
        }
        // A new descriptor counts as ready: the first try costs less than a turn.
        desc.assume_ready();
        Ok(Fd { desc })
    }

    // ---- for the loop ----

    /// Handles the error of a try, and returns it. After EAGAIN, clears the readiness and arms the
    /// source again, so that the next try waits for an edge; if arming fails, returns that error.
    /// Charges any other error.
    #[cold]
    pub(crate) fn after_error(&self, direction: Direction, error: io::Error) -> io::Error {
        if error.kind() != WouldBlock {
            context::charge(0);
            return error;
        }
        self.trace("EAGAIN", direction);
        self.desc.drained(direction);
        match self.desc.user_data.owned.raw() {
            // A source that its user owns: `Source::io` has armed it.
            ..0 => error,
            raw => self.desc.rearm(&mut SourceFd(&raw)).err().unwrap_or(error),
        }
    }

    /// Parks the operation, after `may_try` said `Wait`. False if it has to ask `may_try` again:
    /// cloning a foreign waker may run any code, which may close the socket.
    #[inline]
    fn park(&self, direction: Direction, waker: &Waker) -> bool {
        // The running machine's own waker needs no clone: its id is parked.
        let parked = ParkKey::of(self.home(), waker);
        if parked.is_foreign() && self.desc.may_try(direction) != May::Wait {
            drop(parked.take_waker());
            return false;
        }
        // If the operation was polled without a wake, its old value is still in the slot: replace it.
        let before = self.desc.park_waiting(direction, parked);
        drop(before.and_then(ParkKey::take_waker));
        self.trace("park", direction);
        true
    }

    #[inline]
    fn trace(&self, what: &str, direction: Direction) {
        let machine = context::running_machine;
        log::trace!("{what} {direction:?}: {self:?}, machine {}", machine());
    }

    // ---- deadlines ----

    /// Moves the deadline of a direction; `None` takes it away.
    pub(crate) fn set_deadline(
        &self,
        direction: Direction,
        when: Option<Instant>,
    ) -> io::Result<()> {
        if let Err(failure) = self.check_open() {
            return Err(self.error("set", failure));
        }
        self.desc.set_deadline(direction, when);
        Ok(())
    }

    // ---- what it is ----

    pub(crate) fn network(&self) -> Network {
        self.desc.user_data.network()
    }

    /// The socket, for one system call of an attempt, or after [`Fd::check_open`].
    pub(crate) fn sock_ref(&self) -> SockRef<'_> {
        self.desc.user_data.owned.socket()
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.desc.user_data
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.desc.is_closed()
    }

    /// Returns an error if the socket is closed, whatever its deadlines.
    pub(crate) fn check_open(&self) -> Result<(), Failure> {
        match self.is_closed() || self.desc.core.is_inherited() {
            true => Err(Failure::Refused(Refusal::Closed)),
            false => Ok(()),
        }
    }

    /// Calls `f` with the socket, if it is open.
    pub(crate) fn with_socket<R>(
        &self,
        f: impl FnOnce(&SockRef<'_>) -> io::Result<R>,
    ) -> Result<R, Failure> {
        self.check_open()?;
        f(&self.sock_ref()).map_err(Failure::System)
    }

    /// As [`Fd::with_socket`], to `set` or `get` an option, or to `close` a direction.
    pub(crate) fn option<T>(
        &self,
        op: &'static str,
        call: impl FnOnce(&SockRef<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        let done = self.with_socket(call);
        done.map_err(|failure| self.error(op, failure))
    }
}

// ---- the loop ----

/// What an operation keeps between two polls: its place at a direction.
pub(crate) struct Claim<'a> {
    fd: &'a Fd,
    direction: Direction,
    /// Whether it has the direction's lock, or queues for it.
    lock: LockState,
    /// Whether it has yielded: see `context.rs`.
    yielded: bool,
}

impl<'a> Claim<'a> {
    fn new(fd: &'a Fd, direction: Direction) -> Self {
        Claim {
            fd,
            direction,
            lock: LockState::Idle,
            yielded: false,
        }
    }

    /// Locks the direction. Then calls `attempt` (one system call) again and again, until it succeeds
    /// or fails, or the operation must wait. After Ready, call `release`: the lock is held, or
    /// queued for.
    #[inline]
    fn poll_step<R>(
        &mut self,
        cx: &Context<'_>,
        mut attempt: impl FnMut(&Fd) -> io::Result<R>,
    ) -> Poll<Result<R, Failure>> {
        let (fd, direction) = (self.fd, self.direction);
        // One operation at a time in each direction, first come first served (fdMutex.rwlock).
        if !fd.socket().lock(direction, &mut self.lock, cx.waker()) {
            return self.poll_refused(cx);
        }
        loop {
            match fd.desc.may_try(direction) {
                // Closed, or the deadline has passed.
                May::Refused(_) => return self.poll_refused(cx),
                // Not ready, as far as is known (netpollblock).
                May::Wait if fd.park(direction, cx.waker()) => return Poll::Pending,
                May::Wait => continue,
                May::Try => {}
            }
            if context::has_budget() {
                // A yield is for one try: a later try without budget yields again.
                self.yielded = false;
            } else {
                // The other machines run first.
                ready!(self.poll_yield(cx));
            }
            fd.trace("try", direction);
            match attempt(fd) {
                Ok(done) => return Poll::Ready(Ok(done)),
                // After EAGAIN the loop goes on and parks, after EINTR it tries again.
                Err(error) => match fd.after_error(direction, error) {
                    error if matches!(error.kind(), WouldBlock | Interrupted) => {}
                    error => return Poll::Ready(Err(Failure::System(error))),
                },
            }
        }
    }

    /// Returns the refusal if the direction is closed or its deadline has passed; otherwise Pending:
    /// the operation waits for the lock. A queued operation checks this itself, because the holder
    /// is perhaps not polled.
    ///
    /// A caller may loop on a refusal, as an accept loop does. So a refusal costs budget, and the
    /// operation yields first if there is none.
    #[cold]
    fn poll_refused<R>(&mut self, cx: &Context<'_>) -> Poll<Result<R, Failure>> {
        let Err(refusal) = self.fd.desc.check(self.direction) else {
            debug_assert_ne!(self.lock, LockState::Holder, "a holder is refused");
            return Poll::Pending;
        };
        ready!(self.poll_yield(cx));
        Poll::Ready(Err(Failure::Refused(refusal)))
    }

    /// Charges an operation. Without budget it yields to the other machines first, once before each try.
    #[cold]
    fn poll_yield(&mut self, cx: &Context<'_>) -> Poll<()> {
        context::poll_yield(&mut self.yielded, cx.waker())
    }

    /// Unlocks the direction, or leaves its queue, when the operation ends.
    #[inline]
    fn release(&mut self) {
        self.fd.socket().release(self.direction, &mut self.lock);
    }
}

impl Drop for Claim<'_> {
    /// Of an operation that has not ended: empties the slot and unlocks, or leaves the queue.
    #[inline]
    fn drop(&mut self) {
        #[cold]
        fn give_up(claim: &mut Claim<'_>) {
            if claim.lock == LockState::Holder && !fault!("dropped_read_stays_parked") {
                let parked = claim.fd.desc.unpark(claim.direction);
                drop(parked.and_then(ParkKey::take_waker));
            }
            claim.release();
        }
        if self.lock != LockState::Idle {
            give_up(self);
        }
    }
}
