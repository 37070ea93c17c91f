//! What a descriptor of the runtime carries: the open socket, the addresses of its ends, the locks of its
//! two directions (`lock.rs`), and what waits beside its slots.

// Mirrors `poll.FD` in Go's `internal/poll`.

use std::cell::{Cell, OnceCell, RefCell};
use std::path::PathBuf;
use std::task::Waker;

use super::lock::Locks;
use super::park_key::{ParkKey, Waiter};
use super::waiters::{Ticket, Waiters};
use crate::endpoints::{self, Addr, End, Endpoints, Network};
use crate::reactor::Direction;
use crate::sys::OwnedSocket;

/// A socket, or another source of readiness, with its addresses, its locks and their queues.
// The fields that are seldom used come first, so that those of the fast path share a cache line.
#[repr(C)]
pub(crate) struct Socket {
    pub(super) extra: OnceCell<Box<RefCell<Extra>>>,
    endpoints: Endpoints,
    /// A byte for a server's connection, which is the only user of its socket: it stores its status here.
    pub(crate) note: Cell<u8>,
    pub(super) locks: Locks,
    pub(crate) owned: OwnedSocket,
}

/// With `PollDesc` and the counts of `Rc` that is an allocation of 112 bytes; glibc's has room for 120.
const _: () = assert!(size_of::<Socket>() <= 32);

/// What most sockets do without. It is made when it is first needed.
#[derive(Default)]
pub(super) struct Extra {
    /// The operations that queue for a lock, by direction; and what waits for the peer to hang up.
    pub(super) queues: [Waiters; 3],
    /// The pollers that wait, by direction: see `lock.rs`.
    pub(super) pollers: [Option<ParkKey>; 2],
    /// Whether that poller has yielded: see `Claim` in net/fd.
    pub(super) poller_yielded: [bool; 2],
    /// The addresses that do not fit into [`Endpoints`].
    ends: [Option<Addr>; 2],
    /// The path that is removed when the socket is closed: a Unix listener's.
    unlink: Option<PathBuf>,
}

impl Drop for Extra {
    /// A poller that has yielded may register again after the close.
    fn drop(&mut self) {
        let pollers = self.pollers.into_iter().flatten();
        pollers.for_each(|poller| drop(poller.take_waker()));
    }
}

/// The queue of what waits for the peer to hang up.
const HANG_UP: usize = 2;

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

    pub(super) fn extra(&self) -> &RefCell<Extra> {
        self.extra.get_or_init(Box::default)
    }

    // ---- its two ends ----

    #[inline]
    pub(crate) fn network(&self) -> Network {
        self.endpoints.network
    }

    /// An end's address, if it is known.
    pub(crate) fn endpoint(&self, end: End) -> Option<Addr> {
        let inline = self.endpoints.get(end);
        inline.or_else(|| self.extra.get()?.borrow().ends[end as usize].clone())
    }

    /// Returns an end's known address, or asks the system. Stores the answer if it fits into [`Endpoints`].
    pub(crate) fn ask_endpoint(&self, end: End) -> Option<Addr> {
        let known = self.endpoint(end);
        // A file, and a source that its user owns, need not be a socket.
        if known.is_some() || self.owned.raw() < 0 || self.network() == Network::File {
            return known;
        }
        let system = self.owned.socket();
        let address = match end {
            End::Local => system.local_addr(),
            End::Peer => system.peer_addr(),
        };
        let address = endpoints::from_system(&address.ok()?);
        drop(self.endpoints.set(end, address.clone()));
        Some(address)
    }

    /// Sets an end's address. A second address for an end that is known is dropped.
    pub(crate) fn set_endpoint(&self, end: End, address: Addr) {
        if self.endpoint(end).is_some() {
            return;
        }
        if let Some(address) = self.endpoints.set(end, address) {
            self.extra().borrow_mut().ends[end as usize] = Some(address);
        }
    }

    /// Forgets both addresses, when a socket was connected: a datagram socket's own may change with the peer's.
    pub(crate) fn forget_endpoints(&self) {
        self.endpoints.forget();
        if let Some(extra) = self.extra.get() {
            extra.borrow_mut().ends = [None, None];
        }
    }

    /// Keeps the path that is removed at the close. What was kept before is handed back.
    pub(crate) fn set_unlink(&self, unlink: Option<PathBuf>) -> Option<PathBuf> {
        if unlink.is_none() && self.extra.get().is_none() {
            return None;
        }
        std::mem::replace(&mut self.extra().borrow_mut().unlink, unlink)
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

    /// Calls `look` with the number of the queue and the waiter, for each that is not parked.
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
