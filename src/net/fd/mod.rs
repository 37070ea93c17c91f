//! The loop of every operation: try, EAGAIN, park, again; with the locks, the deadlines and the
//! close around it.
//!
//! Every operation that waits goes through [`Fd::poll_step`], except the fast path of `read_with.rs`,
//! [`Fd::hung_up`], and what waits for a lock alone: a half-close, a poller. A server's connection has its
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

/// What an operation keeps between two polls.
#[derive(Debug)]
pub(crate) struct Claim {
    /// Whether it has its direction's lock, or queues for it.
    lock: LockState,
    /// Whether it has yielded: see `context.rs`.
    pub(crate) yielded: bool,
}

impl Claim {
    pub(crate) const fn new() -> Self {
        Claim {
            lock: LockState::Idle,
            yielded: false,
        }
    }

    /// Whether it neither holds the lock nor queues for it.
    fn is_idle(&self) -> bool {
        self.lock == LockState::Idle
    }
}

impl Fd {
    /// The identity of its runtime's reactor.
    fn home(&self) -> *const () {
        Rc::as_ptr(self.desc.core()).cast()
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
        current::with(what, |scheduler| scheduler.reactor.core().clone())
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

    // ---- the loop ----

    /// Locks the direction. Then calls `attempt` (one system call) again and again, until it succeeds
    /// or fails, or the operation must wait. After Ready, call `release`: the lock is held, or
    /// queued for.
    pub(crate) fn poll_step<R>(
        &self,
        direction: Direction,
        claim: &mut Claim,
        cx: &Context<'_>,
        mut attempt: impl FnMut(&Fd) -> io::Result<R>,
    ) -> Poll<Result<R, Failure>> {
        // One operation at a time in each direction, first come first served (fdMutex.rwlock).
        let socket = &self.desc.user_data;
        if !socket.lock(direction, &mut claim.lock, cx.waker()) {
            return self.poll_refused(direction, claim, cx);
        }
        debug_assert!(claim.lock.is_holder());
        loop {
            match self.desc.may_try(direction) {
                // Closed, or the deadline has passed.
                May::Refused(_) => return self.poll_refused(direction, claim, cx),
                // Not ready, as far as is known (netpollblock).
                May::Wait if self.park(direction, cx.waker()) => return Poll::Pending,
                May::Wait => continue,
                May::Try => {}
            }
            match context::has_budget() {
                // If it has yielded, that was for this try: a later one without budget yields again.
                true => claim.yielded = false,
                // The other machines run first.
                false => ready!(poll_yield(claim, cx)),
            }
            self.trace("try", direction);
            match attempt(self) {
                Ok(done) => return Poll::Ready(Ok(done)),
                // After EAGAIN the loop goes on and parks, after EINTR it tries again.
                Err(error) => match self.after_error(direction, error) {
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
    fn poll_refused<R>(
        &self,
        direction: Direction,
        claim: &mut Claim,
        cx: &Context<'_>,
    ) -> Poll<Result<R, Failure>> {
        let Err(refusal) = self.desc.check(direction) else {
            debug_assert!(
                !claim.lock.is_holder(),
                "a holder comes here only if it is refused"
            );
            return Poll::Pending;
        };
        ready!(poll_yield(claim, cx));
        Poll::Ready(Err(Failure::Refused(refusal)))
    }

    /// Unlocks the direction, or leaves its queue, when an operation ends.
    pub(crate) fn release(&self, direction: Direction, claim: &mut Claim) {
        match claim.lock {
            LockState::Idle => {}
            LockState::Queued(_) => self.socket().leave_queue(direction, &mut claim.lock),
            _ => self.socket().unlock(direction, &mut claim.lock),
        }
    }

    /// For a dropped operation: empties the slot and unlocks, or leaves the queue.
    #[cold]
    pub(crate) fn give_up(&self, direction: Direction, claim: &mut Claim) {
        if claim.lock.is_holder() && !fault!("dropped_read_stays_parked") {
            drop(self.desc.unpark(direction).and_then(ParkKey::take_waker));
        }
        self.release(direction, claim);
        debug_assert!(claim.is_idle(), "what is given up holds nothing");
    }

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
            return Err(self.error("set", failure, 0));
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
        match self.is_closed() || self.desc.core().is_inherited() {
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
        done.map_err(|failure| self.error(op, failure, 0))
    }
}

/// Charges an operation, or yields to the other machines if the budget is used up: once before each try.
#[cold]
fn poll_yield(claim: &mut Claim, cx: &Context<'_>) -> Poll<()> {
    context::poll_yield(&mut claim.yielded, cx.waker())
}
