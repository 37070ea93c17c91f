//! What a descriptor of the runtime carries: the open socket, the addresses of its ends, the locks of its
//! two directions, and what waits beside its slots.
//!
//! # The lock, one for each direction
//!
//! | state | meaning | moved there by | on to |
//! |---|---|---|---|
//! | Free | no operation holds the lock | `unlock` or `release` with an empty queue | Held by `lock` |
//! | Held | one operation holds the lock. If `unlock` gave it the lock, it learns that at its next poll | `lock`; `unlock` or `release` with a queue | Free; Held by the next in the queue |
//!
//! Operations hold the lock in the order in which they come. A close, a deadline or a hang-up also wakes
//! the operations that queue, so that they leave the queue even if the holder is not polled. After a close
//! several may hold the lock: they only learn of the close. Illegal: unlocking a lock that the operation
//! does not hold.
//!
//! # The poller, one for each direction
//!
//! A caller of `poll_read` or `poll_write` has no future of ours, so nothing keeps the lock between
//! two calls, and nothing releases it when the caller gives up. Therefore a poller holds no lock while
//! it waits: it leaves its waker.
//!
//! | state | meaning | moved there by | on to |
//! |---|---|---|---|
//! | none | no poller waits | `take_poller`, also at a close | Waiting by `keep_poller` |
//! | Waiting | the key of its waker is kept | `keep_poller`, after EAGAIN, after a yield, or while an operation holds the lock | Waiting with another waker by `keep_poller`: the last wins; none when an operation locks the direction, or unlocks it with an empty queue; when a deadline or a hang-up comes to a locked direction; at a close; when the poller is polled |
//!
//! Readiness and deadlines find a poller in the descriptor's slot, if no operation holds the lock. An
//! operation that locks the direction wakes the poller. The poller is polled, finds the lock held, and
//! registers again.

// Mirrors `poll.FD` and `fdMutex` in Go's `internal/poll` (`fd_unix.go`, `fd_mutex.go`).

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::mem;
use std::path::PathBuf;
use std::task::Waker;

use super::context::{ParkKey, Waiter};
use super::panics::wake_quietly;
use super::waiters::{Ticket, Waiters};
use crate::endpoints::{self, Addr, End, Endpoints, Network};
use crate::reactor::Direction;
use crate::sys::OwnedSocket;

/// A socket, or another source of readiness, with its addresses, its locks and their queues.
// The fields that are seldom used come first, so that those of the fast path share a cache line.
#[repr(C)]
pub(crate) struct Socket {
    extra: OnceCell<Box<RefCell<SocketExtra>>>,
    endpoints: Endpoints,
    /// A byte for a server's connection, which is the only user of its socket: it stores its status here.
    pub(crate) note: Cell<u8>,
    locks: Locks,
    pub(crate) owned: OwnedSocket,
}

/// With `PollDesc` and the counts of `Rc` that is an allocation of 112 bytes; glibc's has room for 120.
const _: () = assert!(size_of::<Socket>() <= 32);

/// What most sockets do without. It is made when it is first needed.
#[derive(Default)]
struct SocketExtra {
    /// The operations that queue for a lock, by direction; and what waits for the peer to hang up.
    queues: [Waiters; 3],
    /// The pollers that wait, by direction.
    pollers: [Option<ParkKey>; 2],
    /// The addresses that do not fit into [`Endpoints`].
    ends: [Option<Addr>; 2],
    /// The path that is removed when the socket is closed: a Unix listener's.
    unlink: Option<PathBuf>,
}

impl Drop for SocketExtra {
    /// Drops the wakers of the pollers: after the close, one that had yielded may have registered again.
    fn drop(&mut self) {
        let pollers = self.pollers.into_iter().flatten();
        pollers.for_each(|poller| drop(poller.take_waker()));
    }
}

/// The queue of what waits for the peer to hang up.
const HANG_UP: usize = 2;

/// ```text
///   | 5 4                  | 3 2                                 | 1 0            |
///   | a poller has yielded | an operation queues, a poller waits | direction held |   write, read
/// ```
#[derive(Default)]
struct Locks(Cell<u8>);

/// The bits of reading. Those of writing are one higher.
const HELD: u8 = 1;
/// May stay raised when the last operation leaves the queue, until the direction is unlocked.
const WAITS: u8 = 1 << 2;
/// Raised when the direction's poller yields, until its next poll.
const YIELDED: u8 = 1 << 4;

impl Locks {
    fn has(&self, direction: Direction, bits: u8) -> bool {
        self.0.get() & (bits << direction as u8) != 0
    }

    fn raise(&self, direction: Direction, bit: u8) {
        self.0.set(self.0.get() | (bit << direction as u8));
    }

    fn lower(&self, direction: Direction, bit: u8) {
        self.0.set(self.0.get() & !(bit << direction as u8));
    }
}

/// How an operation stands to its direction's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockState {
    /// It neither holds the lock nor queues for it.
    Idle,
    Queued(Ticket),
    Holder,
}

impl Socket {
    pub(crate) fn new(owned: OwnedSocket, endpoints: Endpoints) -> Self {
        Socket {
            owned,
            endpoints,
            locks: Locks::default(),
            note: Cell::new(0),
            extra: OnceCell::new(),
        }
    }

    fn extra(&self) -> &RefCell<SocketExtra> {
        self.extra.get_or_init(Box::default)
    }

    // ---- its two ends ----

    pub(crate) fn network(&self) -> Network {
        self.endpoints.network
    }

    /// An end's address, if it is known.
    pub(crate) fn endpoint(&self, end: End) -> Option<Addr> {
        let inline = self.endpoints.get(end);
        inline.or_else(|| self.extra.get()?.borrow().ends[end as usize].clone())
    }

    /// An end's address: known, or asked of the system, and kept.
    pub(crate) fn find_endpoint(&self, end: End) -> io::Result<Addr> {
        if let Some(known) = self.endpoint(end) {
            return Ok(known);
        }
        let address = self.ask_endpoint(end)?;
        self.set_endpoint(end, address.clone());
        Ok(address)
    }

    /// Asks the system for an end's address.
    pub(crate) fn ask_endpoint(&self, end: End) -> io::Result<Addr> {
        // A file, and a source that its user owns, need not be a socket.
        if self.owned.raw() < 0 || self.network() == Network::File {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let system = self.owned.socket();
        let address = match end {
            End::Local => system.local_addr(),
            End::Peer => system.peer_addr(),
        };
        Ok(endpoints::from_system(&address?))
    }

    /// Keeps an end's address, in place of the one that was known.
    pub(crate) fn set_endpoint(&self, end: End, address: Addr) {
        if let Some(address) = self.endpoints.set(end, address) {
            self.extra().borrow_mut().ends[end as usize] = Some(address);
        }
    }

    /// Keeps the path that is removed at the close. What was kept before is handed back.
    pub(crate) fn set_unlink(&self, unlink: Option<PathBuf>) -> Option<PathBuf> {
        if unlink.is_none() && self.extra.get().is_none() {
            return None;
        }
        mem::replace(&mut self.extra().borrow_mut().unlink, unlink)
    }

    // ---- the locks ----

    /// Locks the direction, or queues for it. Returns whether the operation holds the lock now: Go's
    /// `rwlock`.
    pub(crate) fn lock(&self, direction: Direction, state: &mut LockState, waker: &Waker) -> bool {
        match state {
            LockState::Holder => true,
            LockState::Idle if self.is_uncontended(direction) => {
                self.lock_uncontended(direction);
                *state = LockState::Holder;
                true
            }
            _ => self.lock_slow(direction, state, waker),
        }
    }

    /// Whether no operation holds the lock, and nothing waits for the direction.
    pub(crate) fn is_uncontended(&self, direction: Direction) -> bool {
        !self.locks.has(direction, HELD | WAITS)
    }

    /// Locks a direction that [is uncontended](Socket::is_uncontended).
    pub(crate) fn lock_uncontended(&self, direction: Direction) {
        debug_assert!(self.is_uncontended(direction));
        self.locks.raise(direction, HELD);
    }

    /// Whether an operation holds the lock of this direction.
    pub(crate) fn is_locked(&self, direction: Direction) -> bool {
        self.locks.has(direction, HELD)
    }

    #[cold]
    fn lock_slow(&self, direction: Direction, state: &mut LockState, waker: &Waker) -> bool {
        // First, since cloning may run any code, which may close the socket or unlock the direction.
        let waker = waker.clone();
        if *state == LockState::Idle && !self.is_locked(direction) {
            // Only a poller waits. It is woken, and finds the lock held.
            let poller = self.take_poller(direction);
            self.locks.raise(direction, HELD);
            *state = LockState::Holder;
            wake(poller);
            return true;
        }
        let mut ticket = match *state {
            LockState::Queued(ticket) => Some(ticket),
            _ => None,
        };
        let mut extra = self.extra().borrow_mut();
        let (polled, left_over) = extra.queues[direction as usize].poll(&mut ticket, waker);
        drop(extra);
        self.locks.raise(direction, WAITS);
        // If the ticket was taken out of the queue, by `unlock` or a close, this operation holds the lock.
        *state = ticket.map_or(LockState::Holder, LockState::Queued);
        debug_assert_eq!(polled.is_ready(), *state == LockState::Holder);
        drop(left_over);
        polled.is_ready()
    }

    /// Unlocks the direction. If operations queue, the first of them holds the lock now: Go's `rwunlock`.
    pub(crate) fn unlock(&self, direction: Direction, state: &mut LockState) {
        debug_assert_eq!(*state, LockState::Holder);
        *state = LockState::Idle;
        if self.locks.has(direction, WAITS) {
            self.pass_on(direction);
        } else {
            self.locks.lower(direction, HELD);
        }
    }

    /// Gives the lock to the first operation in the queue. If the queue is empty, unlocks the direction
    /// and wakes the poller.
    #[cold]
    fn pass_on(&self, direction: Direction) {
        let next = self.extra().borrow_mut().queues[direction as usize].pop();
        if let Some(waker) = next {
            // The bits stay raised: that operation holds the lock.
            return wake_quietly(waker);
        }
        self.locks.lower(direction, HELD);
        wake(self.take_poller(direction));
    }

    /// For an operation that ends: unlocks the direction, or leaves its queue.
    pub(crate) fn release(&self, direction: Direction, state: &mut LockState) {
        match *state {
            LockState::Idle => {}
            LockState::Holder => self.unlock(direction, state),
            LockState::Queued(ticket) => {
                *state = LockState::Idle;
                self.leave_queue(direction, ticket);
            }
        }
    }

    /// Leaves the queue. If `unlock` has already given the operation the lock, passes the lock on.
    #[cold]
    fn leave_queue(&self, direction: Direction, ticket: Ticket) {
        let mut extra = self.extra().borrow_mut();
        let (was_woken, left_over) = extra.queues[direction as usize].leave(&mut Some(ticket));
        drop(extra);
        drop(left_over);
        if was_woken {
            self.pass_on(direction);
        }
    }

    /// At a close: takes out the wakers of all operations that queue, of the pollers, and of all that wait
    /// for the peer to hang up.
    pub(crate) fn evict_beside(&self, out: &mut Vec<Waker>) {
        let Some(extra) = self.extra.get() else {
            return;
        };
        for direction in Direction::BOTH {
            out.extend(self.take_poller(direction).and_then(ParkKey::take_waker));
        }
        for queue in &mut extra.borrow_mut().queues {
            out.extend(queue.take_all());
        }
    }

    // ---- the poller ----

    /// Keeps the key of a poller's waker until its direction can be tried again.
    pub(crate) fn keep_poller(&self, direction: Direction, poller: ParkKey) {
        debug_assert!(poller.is_foreign(), "its waker is kept");
        self.extra().borrow_mut().pollers[direction as usize] = Some(poller);
        self.locks.raise(direction, WAITS);
    }

    /// Takes the key of the poller's waker. Once the waker is taken, the same key in the slot finds
    /// nothing.
    pub(crate) fn take_poller(&self, direction: Direction) -> Option<ParkKey> {
        if !self.locks.has(direction, WAITS) {
            return None;
        }
        debug_assert!(self.extra.get().is_some(), "what waits is there");
        let mut extra = self.extra().borrow_mut();
        if extra.queues[direction as usize].is_empty() {
            self.locks.lower(direction, WAITS);
        }
        extra.pollers[direction as usize].take()
    }

    /// Returns whether the direction's poller yielded in its last poll, and forgets it.
    pub(crate) fn take_poller_yielded(&self, direction: Direction) -> bool {
        let yielded = self.locks.has(direction, YIELDED);
        self.locks.lower(direction, YIELDED);
        yielded
    }

    /// The direction's poller has yielded: it proceeds when it is polled again.
    pub(crate) fn note_poller_yielded(&self, direction: Direction) {
        self.locks.raise(direction, YIELDED);
    }

    // ---- what waits beside the slots ----

    /// Called when a deadline passes or the peer hangs up. Hands out the operations that queue for a lock,
    /// the pollers that wait for a lock, and all that wait for a hang-up. They learn of it even if the
    /// holder of the lock is not polled. Operations keep their places in the queue.
    pub(crate) fn unpark_beside(&self, out: &mut dyn FnMut(ParkKey)) {
        let Some(extra) = self.extra.get() else {
            return;
        };
        for direction in Direction::BOTH {
            if self.is_locked(direction) {
                self.take_poller(direction).into_iter().for_each(&mut *out);
            }
        }
        for queue in &mut extra.borrow_mut().queues {
            queue.nudge().map(ParkKey::keep).for_each(&mut *out);
        }
    }

    /// Registers `waker` for the peer's hang-up, or replaces the waker that `ticket` stands for.
    pub(crate) fn register_hang_up(&self, ticket: &mut Option<Ticket>, waker: &Waker) {
        let waker = waker.clone();
        let (_woken, left_over) = self.extra().borrow_mut().queues[HANG_UP].poll(ticket, waker);
        drop(left_over);
    }

    /// Removes the waker that `ticket` stands for.
    pub(crate) fn unregister_hang_up(&self, ticket: &mut Option<Ticket>) {
        let left = self.extra().borrow_mut().queues[HANG_UP].leave(ticket);
        drop(left);
    }

    /// Calls `look` for each waiter that is in no slot, with the number of its queue.
    pub(super) fn waiting(&self, mut look: impl FnMut(usize, Waiter)) {
        let Some(extra) = self.extra.get() else {
            return;
        };
        let extra = extra.borrow();
        for (number, queue) in extra.queues.iter().enumerate() {
            queue.each(|waker| look(number, Waiter::waker(waker)));
        }
        // If no operation holds the lock, the poller is in the descriptor's slot, and is shown there.
        for direction in Direction::BOTH {
            let poller = extra.pollers[direction as usize].filter(|_| self.is_locked(direction));
            if let Some(poller) = poller.and_then(ParkKey::waiter) {
                look(direction as usize, poller);
            }
        }
    }
}

fn wake(poller: Option<ParkKey>) {
    let waker = poller.and_then(ParkKey::take_waker);
    waker.into_iter().for_each(wake_quietly);
}
