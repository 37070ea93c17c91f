//! What a descriptor of the runtime carries, and what is parked on it.
//!
//! A [`Socket`] is the descriptor's user data: the open socket, the addresses of its ends, the locks
//! of its two directions (`lock.rs`), and the wakers of futures that are no tasks of this runtime.
//! A [`Parked`] is the one word that the reactor parks and hands out.

// Mirrors `poll.FD` in Go's `internal/poll`, and the `g` in `pollDesc.rg` and `wg`.

use std::cell::{Cell, OnceCell, RefCell};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::task::Waker;

use super::context::MachineId;
use super::lock::Locks;
use super::waiters::{Left, Ticket, Waiters};
use crate::endpoints::{Addr, End, Endpoints, Network};
use crate::reactor::{Direction, Token};
use crate::sys::{OwnedSocket, Process};

// ---- what is parked ----

/// What is parked on a descriptor: a machine's id, or a note that wakers are kept beside it.
///
/// ```text
///   | 63      | 62 61 | 60 ... 32               | 31 ... 0         |
///   | foreign | slot  | generation of the token | key of the token |   a note
///   | foreign | where the sleep's waker is      | all ones         |   a sleep
///   | 0       | generation of the machine       | its slot         |   a machine's id
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parked(NonZeroU64);

const FOREIGN: u64 = 1 << 63;
const SLOT_SHIFT: u32 = 61;
const TOKEN_MASK: u64 = (1 << SLOT_SHIFT) - 1;
/// In place of a token's key: no token has it.
const SLEEP: u64 = 0xffff_ffff;

/// Which of the wakers that are kept beside a descriptor a note stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Read = 0,
    Write = 1,
    HangUp = 2,
    /// The queues of both directions' locks.
    Queues = 3,
}

impl From<Direction> for Slot {
    fn from(direction: Direction) -> Slot {
        match direction {
            Direction::Read => Slot::Read,
            Direction::Write => Slot::Write,
        }
    }
}

/// A [`Parked`] taken apart.
pub(crate) enum Who {
    Machine,
    Foreign {
        token_bits: u64,
        slot: Slot,
    },
    /// A sleep that another executor polls: where its waker is kept.
    Sleeper(usize),
}

impl Parked {
    #[inline]
    pub(crate) fn machine(id: MachineId) -> Self {
        Parked(id.bits())
    }

    pub(crate) fn foreign(token: Token, slot: Slot) -> Self {
        let bits = FOREIGN | (slot as u64) << SLOT_SHIFT | Self::token_bits(token);
        Parked(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MIN))
    }

    /// A note that the waker of a sleep is kept under `key`.
    pub(crate) fn sleeper(key: usize) -> Self {
        debug_assert!(key < 1 << 31);
        let bits = FOREIGN | (key as u64) << 32 | SLEEP;
        Parked(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MIN))
    }

    /// As much of a token as fits: its key, and its generation without the top three bits.
    pub(crate) fn token_bits(token: Token) -> u64 {
        token.to_bits() as u64 & TOKEN_MASK
    }

    /// The key of the token.
    pub(crate) fn token_key(token_bits: u64) -> usize {
        Token::from_bits(token_bits as usize).key()
    }

    /// The machine, if it is one. For a note the id matches no live machine, since no machine's
    /// generation has the top bit.
    #[inline]
    pub(crate) fn as_machine(self) -> MachineId {
        MachineId::from_bits(self.0)
    }

    #[inline]
    pub(crate) fn who(self) -> Who {
        let bits = self.0.get();
        if bits & FOREIGN == 0 {
            return Who::Machine;
        }
        if bits & SLEEP == SLEEP {
            return Who::Sleeper((bits & !FOREIGN) as usize >> 32);
        }
        Who::Foreign {
            token_bits: bits & TOKEN_MASK,
            slot: match bits >> SLOT_SHIFT & 3 {
                0 => Slot::Read,
                1 => Slot::Write,
                2 => Slot::HangUp,
                _ => Slot::Queues,
            },
        }
    }
}

// ---- what is carried ----

/// A socket, or another source of readiness, with what belongs to it.
// The fields that are seldom used come first, so that those of the fast path share a cache line.
#[repr(C)]
pub(crate) struct Socket {
    extra: OnceCell<Box<RefCell<Extra>>>,
    endpoints: Endpoints,
    /// A byte for a socket's sole owner (`Fd::close_for_good`): a server's connection keeps its state
    /// here.
    pub(crate) note: Cell<u8>,
    pub(super) locks: Locks,
    pub(crate) owned: OwnedSocket,
}

/// With the poll descriptor and a reference count that is 120 bytes of malloc's 128.
const _: () = assert!(size_of::<Socket>() <= 32);

/// What most sockets do without. It is made when it is first needed.
#[derive(Default)]
pub(super) struct Extra {
    /// The foreign wakers that are parked, by direction.
    wakers: [Option<Waker>; 2],
    /// What waits for the peer to hang up.
    hang_up: Waiters,
    /// The operations that queue for a lock, by direction.
    pub(super) queues: [Waiters; 2],
    /// The pollers that wait, by direction: see `lock.rs`.
    pub(super) pollers: [Option<Waker>; 2],
    /// Whether that poller has yielded: see `Claim` in net/fd.
    pub(super) poller_yielded: [bool; 2],
    /// The addresses that do not fit into [`Endpoints`].
    ends: [Option<Addr>; 2],
    /// The path that is removed when the socket is closed: a Unix listener's.
    unlink: Option<(PathBuf, Process)>,
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

    pub(super) fn extra(&self) -> &RefCell<Extra> {
        self.extra.get_or_init(Box::default)
    }

    pub(super) fn extra_if_made(&self) -> Option<&RefCell<Extra>> {
        self.extra.get().map(|extra| &**extra)
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

    /// Sets an end's address. A second address for an end that is known is dropped.
    pub(crate) fn set_endpoint(&self, end: End, address: Addr) {
        if self.endpoint(end).is_some() {
            return;
        }
        if let Some(address) = self.endpoints.set(end, address) {
            self.extra().borrow_mut().ends[end as usize] = Some(address);
        }
    }

    /// Forgets both, when a datagram socket is connected: its own may change with the peer's.
    pub(crate) fn forget_endpoints(&self) {
        self.endpoints.forget();
        if let Some(extra) = self.extra.get() {
            extra.borrow_mut().ends = [None, None];
        }
    }

    /// Keeps the path that is removed at the close, and which process made it. What was kept before is
    /// handed back.
    pub(crate) fn set_unlink(
        &self,
        unlink: Option<(PathBuf, Process)>,
    ) -> Option<(PathBuf, Process)> {
        if unlink.is_none() && self.extra.get().is_none() {
            return None;
        }
        std::mem::replace(&mut self.extra().borrow_mut().unlink, unlink)
    }

    // ---- wakers kept beside the descriptor ----

    /// Keeps a foreign waker for a direction, in place of the one that was kept before.
    #[cold]
    pub(crate) fn keep_waker(&self, direction: Direction, waker: &Waker) {
        let waker = waker.clone();
        let old = self.extra().borrow_mut().wakers[direction as usize].replace(waker);
        // After the borrow: dropping a waker may run any code.
        drop(old);
    }

    /// Takes the foreign waker of a direction, to be woken or dropped after any borrow.
    pub(crate) fn take_waker(&self, direction: Direction) -> Option<Waker> {
        self.extra.get()?.borrow_mut().wakers[direction as usize].take()
    }

    /// Takes the wakers that a note stands for, to be woken after any borrow. Operations that queue
    /// keep their places.
    #[cold]
    pub(crate) fn take_wakers(&self, slot: Slot) -> Vec<Waker> {
        match slot {
            Slot::Read => self.take_waker(Direction::Read).into_iter().collect(),
            Slot::Write => self.take_waker(Direction::Write).into_iter().collect(),
            Slot::HangUp => self.take_hang_up_waiters(),
            Slot::Queues => self.nudge_queues(),
        }
    }

    fn take_hang_up_waiters(&self) -> Vec<Waker> {
        let extra = self.extra.get();
        let waiters = extra.map(|extra| extra.borrow_mut().hang_up.take_all());
        waiters.into_iter().flatten().collect()
    }

    /// At the close: takes all wakers, whatever they wait for, and opens the locks.
    pub(crate) fn take_all_wakers(&self, out: &mut Vec<Waker>) {
        self.open_locks(out);
        for direction in Direction::BOTH {
            out.extend(self.take_waker(direction));
        }
        out.extend(self.take_hang_up_waiters());
    }

    /// Waits for the peer to hang up, or renews the waker that does.
    pub(crate) fn await_hang_up(&self, ticket: &mut Option<Ticket>, waker: &Waker) {
        let waker = waker.clone();
        let mut extra = self.extra().borrow_mut();
        let (woken, mut left_over) = extra.hang_up.poll(ticket, waker);
        // Woken without cause: it waits again.
        if woken.is_ready()
            && let Some(waker) = left_over.take()
        {
            let (_pending, none) = extra.hang_up.poll(ticket, waker);
            left_over = none;
        }
        drop(extra);
        drop(left_over);
    }

    /// No longer waits for the peer to hang up. Returns whether nothing else waits for that.
    pub(crate) fn forget_hang_up(&self, ticket: &mut Option<Ticket>) -> bool {
        let mut extra = self.extra().borrow_mut();
        let left: Left = extra.hang_up.leave(ticket);
        let was_last = extra.hang_up.is_empty();
        drop(extra);
        drop(left);
        was_last
    }

    /// How many wakers are kept here that are not parked as well: for the runtime's figures.
    pub(crate) fn waiting(&self) -> usize {
        let Some(extra) = self.extra.get() else {
            return 0;
        };
        let extra = extra.borrow();
        let queued: usize = extra.queues.iter().map(Waiters::len).sum();
        // Not counted here: a poller whose direction is free, which is parked as well; and one of those
        // that wait for a hang-up, for which one note is parked.
        let pollers = Direction::BOTH.into_iter();
        let pollers = pollers.filter(|&direction| {
            self.is_locked(direction) && extra.pollers[direction as usize].is_some()
        });
        queued + pollers.count() + extra.hang_up.len().saturating_sub(1)
    }
}
