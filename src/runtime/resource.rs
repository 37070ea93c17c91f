//! What a descriptor of the runtime carries: its handle, its ends' addresses, its locks, and the
//! wakers of other people's futures.
//!
//! May touch: sys and the reactor. Mirrors `poll.FD` and `fdMutex` in Go's `internal/poll`.
//!
//! # The lock, one for each direction
//!
//! | state | meaning | who moves it there | on to |
//! |---|---|---|---|
//! | Free | no operation under way | `release` with nobody queued | Held by `acquire` |
//! | Held | one operation has the direction | `acquire` | Free or Granted by `release` |
//! | Granted(t) | ticket t has it, and has not been polled since | `release` with a queue | Held by `acquire` of t; on to the next by `forget` of t |
//!
//! First come, first served. Illegal: releasing what one does not hold.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::task::Waker;

use super::machine::MachineId;
use crate::endpoints::Endpoints;
use crate::reactor::{Direction, Token};
use crate::sys::Handle;

/// What is parked on a descriptor: a machine's id, or the note that a waker is kept beside it.
///
/// One word: the top bit tells the two apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parked(NonZeroU64);

const FOREIGN: u64 = 1 << 63;
const PLACE_SHIFT: u32 = 61;
const TOKEN_MASK: u64 = (1 << PLACE_SHIFT) - 1;

/// Which of a descriptor's places a foreign waker waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Read = 0,
    Write = 1,
    HangUp = 2,
}

impl From<Direction> for Place {
    fn from(direction: Direction) -> Place {
        match direction {
            Direction::Read => Place::Read,
            Direction::Write => Place::Write,
        }
    }
}

/// A [`Parked`] taken apart.
pub(crate) enum Who {
    Machine(MachineId),
    Foreign { token_bits: u64, place: Place },
}

impl Parked {
    #[inline]
    pub(crate) fn machine(id: MachineId) -> Self {
        Parked(id.bits())
    }

    pub(crate) fn foreign(token: Token, place: Place) -> Self {
        let bits = FOREIGN | (place as u64) << PLACE_SHIFT | Self::token_bits(token);
        Parked(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MIN))
    }

    /// As much of a token as fits: the slot, and the generation less its top three bits.
    pub(crate) fn token_bits(token: Token) -> u64 {
        token.0 as u64 & TOKEN_MASK
    }

    /// The slot in what is kept of a token.
    pub(crate) fn slot(token_bits: u64) -> usize {
        Token(token_bits as usize).slot()
    }

    #[inline]
    pub(crate) fn who(self) -> Who {
        let bits = self.0.get();
        if bits & FOREIGN == 0 {
            return Who::Machine(MachineId::from_bits(self.0));
        }
        Who::Foreign {
            token_bits: bits & TOKEN_MASK,
            place: match bits >> PLACE_SHIFT & 3 {
                0 => Place::Read,
                1 => Place::Write,
                _ => Place::HangUp,
            },
        }
    }
}

/// How far an operation is with its direction's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    Free,
    Queued(u32),
    Held,
}

/// What stays out of the common case: it is made when first needed.
#[derive(Default)]
pub(crate) struct Extra {
    /// The foreign wakers parked, by direction.
    wakers: [Option<Waker>; 2],
    /// Those who wait for the peer to go.
    hung_up: Vec<(u32, Waker)>,
    queues: [VecDeque<(u32, Waker)>; 2],
    granted: [Option<u32>; 2],
    tickets: u32,
}

pub(crate) struct Resource {
    pub(crate) handle: Handle,
    pub(crate) endpoints: Endpoints,
    /// One bit a direction: held; one more: somebody is queued.
    locks: Cell<u8>,
    /// Somebody set a linger, or had the descriptor in hand and may have.
    may_linger: Cell<bool>,
    extra: OnceCell<Box<RefCell<Extra>>>,
}

const fn held_bit(direction: Direction) -> u8 {
    1 << direction as u8
}

const fn queued_bit(direction: Direction) -> u8 {
    4 << direction as u8
}

impl Resource {
    pub(crate) fn new(handle: Handle, endpoints: Endpoints) -> Self {
        Resource {
            handle,
            endpoints,
            locks: Cell::new(0),
            may_linger: Cell::new(false),
            extra: OnceCell::new(),
        }
    }

    fn extra(&self) -> &RefCell<Extra> {
        self.extra.get_or_init(Box::default)
    }

    pub(crate) fn may_linger(&self) -> bool {
        self.may_linger.get()
    }

    /// From here on a close asks the system whether it would block.
    pub(crate) fn note_linger(&self) {
        self.may_linger.set(true);
    }

    // ---- the lock ----

    /// Takes the direction, or queues for it. True once it is held.
    #[inline]
    pub(crate) fn acquire(&self, direction: Direction, hold: &mut Hold, waker: &Waker) -> bool {
        match hold {
            Hold::Held => true,
            Hold::Free if self.locks.get() & held_bit(direction) == 0 => {
                self.locks.set(self.locks.get() | held_bit(direction));
                *hold = Hold::Held;
                true
            }
            _ => self.queue(direction, hold, waker),
        }
    }

    /// Takes a direction that is free: see [`Resource::is_held`].
    #[inline]
    pub(crate) fn hold(&self, direction: Direction) {
        self.locks.set(self.locks.get() | held_bit(direction));
    }

    #[cold]
    #[inline(never)]
    fn queue(&self, direction: Direction, hold: &mut Hold, waker: &Waker) -> bool {
        let mut extra = self.extra().borrow_mut();
        let old = match *hold {
            Hold::Queued(ticket) if extra.granted[direction as usize] == Some(ticket) => {
                extra.granted[direction as usize] = None;
                *hold = Hold::Held;
                return true;
            }
            Hold::Queued(ticket) => {
                let queue = &mut extra.queues[direction as usize];
                let waiting = queue.iter_mut().find(|(queued, _)| *queued == ticket);
                waiting.map(|(_, place)| std::mem::replace(place, waker.clone()))
            }
            _ => {
                let ticket = extra.tickets;
                extra.tickets = ticket.wrapping_add(1);
                extra.queues[direction as usize].push_back((ticket, waker.clone()));
                self.locks.set(self.locks.get() | queued_bit(direction));
                *hold = Hold::Queued(ticket);
                None
            }
        };
        drop(extra);
        drop(old);
        false
    }

    /// Gives the direction back, to whoever queued first.
    #[inline]
    pub(crate) fn release(&self, direction: Direction, hold: &mut Hold) {
        debug_assert_eq!(*hold, Hold::Held, "released a lock that was not held");
        *hold = Hold::Free;
        if self.locks.get() & queued_bit(direction) == 0 {
            self.locks.set(self.locks.get() & !held_bit(direction));
        } else {
            self.pass_on(direction);
        }
    }

    #[cold]
    #[inline(never)]
    fn pass_on(&self, direction: Direction) {
        let mut extra = self.extra().borrow_mut();
        let next = extra.queues[direction as usize].pop_front();
        if extra.queues[direction as usize].is_empty() {
            self.locks.set(self.locks.get() & !queued_bit(direction));
        }
        extra.granted[direction as usize] = next.as_ref().map(|(ticket, _)| *ticket);
        drop(extra);
        match next {
            Some((_, waker)) => waker.wake(),
            None => self.locks.set(self.locks.get() & !held_bit(direction)),
        }
    }

    /// Leaves the queue, for an operation that was given up; true if the lock had been held.
    #[cold]
    pub(crate) fn forget(&self, direction: Direction, hold: &mut Hold) {
        let Hold::Queued(ticket) = *hold else {
            return;
        };
        *hold = Hold::Free;
        let mut extra = self.extra().borrow_mut();
        if extra.granted[direction as usize] == Some(ticket) {
            extra.granted[direction as usize] = None;
            drop(extra);
            return self.pass_on(direction);
        }
        let queue = &mut extra.queues[direction as usize];
        let at = queue.iter().position(|(queued, _)| *queued == ticket);
        let gone = at.and_then(|at| queue.remove(at));
        if queue.is_empty() {
            self.locks.set(self.locks.get() & !queued_bit(direction));
        }
        drop(extra);
        drop(gone);
    }

    /// Whether an operation of this direction is under way.
    #[inline]
    pub(crate) fn is_held(&self, direction: Direction) -> bool {
        self.locks.get() & held_bit(direction) != 0
    }

    // ---- foreign wakers ----

    /// Keeps a waker for a place; the one it replaces is dropped.
    #[cold]
    pub(crate) fn keep_waker(&self, direction: Direction, waker: &Waker) {
        let place = &mut self.extra().borrow_mut().wakers[direction as usize];
        let old = place.replace(waker.clone());
        drop(old);
    }

    /// Takes out whoever waits in a place, to be woken or dropped once no borrow is held.
    #[cold]
    pub(crate) fn take_wakers(&self, place: Place) -> Vec<Waker> {
        let Some(extra) = self.extra.get() else {
            return Vec::new();
        };
        let mut extra = extra.borrow_mut();
        match place {
            Place::Read | Place::Write => extra.wakers[place as usize].take().into_iter().collect(),
            Place::HangUp => extra.hung_up.drain(..).map(|(_, waker)| waker).collect(),
        }
    }

    /// Registers one more who waits for the peer to go, or renews its waker.
    pub(crate) fn await_hang_up(&self, ticket: &mut Option<u32>, waker: &Waker) {
        let mut extra = self.extra().borrow_mut();
        let known = ticket.and_then(|ticket| {
            let mut all = extra.hung_up.iter_mut();
            all.find(|(waiting, _)| *waiting == ticket)
        });
        let old = match known {
            Some((_, place)) => Some(std::mem::replace(place, waker.clone())),
            None => {
                let fresh = extra.tickets;
                extra.tickets = fresh.wrapping_add(1);
                extra.hung_up.push((fresh, waker.clone()));
                *ticket = Some(fresh);
                None
            }
        };
        drop(extra);
        drop(old);
    }

    pub(crate) fn forget_hang_up(&self, ticket: u32) {
        let mut extra = self.extra().borrow_mut();
        let at = extra
            .hung_up
            .iter()
            .position(|(waiting, _)| *waiting == ticket);
        let gone = at.map(|at| extra.hung_up.swap_remove(at));
        drop(extra);
        drop(gone);
    }

    /// Wakers kept here, in queues too: for the runtime's figures.
    pub(crate) fn waiting(&self) -> usize {
        let Some(extra) = self.extra.get() else {
            return 0;
        };
        let extra = extra.borrow();
        let queued: usize = extra.queues.iter().map(VecDeque::len).sum();
        queued + extra.hung_up.len()
    }
}
