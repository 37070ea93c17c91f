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
//! | Open | the socket is closed: everybody has it, to learn that | `take_all_wakers` | nothing |
//!
//! First come, first served; but a close waits for nobody who holds it and is not polled. Illegal: releasing what one does not hold.
//!
//! # The poller, one for each direction
//!
//! Who calls `poll_read` or `poll_write` has no future of ours to hold the lock between two calls,
//! or to give it up when dropped. So a poller never holds it while it waits: it leaves its waker.
//!
//! | state | meaning | who moves it there | on to |
//! |---|---|---|---|
//! | None | no poller waits | `take_poller` | Waiting |
//! | Waiting | its waker is kept | `keep_poller`, after a try without luck or a lock that was held | Waiting with another waker by `keep_poller`: the last wins; None when an operation takes the direction over or gives it back, at a close, or when the poller is done |
//!
//! Readiness and deadlines find a poller in the descriptor's parking place, if its direction was
//! free; whoever takes the place over wakes it, so that it comes back and finds the lock held.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::task::Waker;

pub(crate) use super::parked::{Parked, Place, Who};
use super::waker::wake_quietly;
use crate::endpoints::{Addr, End, Endpoints, Network};
use crate::reactor::Direction;
use crate::sys::Handle;

/// How far an operation is with its direction's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    Free,
    Queued(u32),
    Held,
    /// Held, and parked by the short way, of which the trace tells nothing.
    Parked,
}

/// What stays out of the common case: it is made when first needed.
#[derive(Default)]
pub(crate) struct Extra {
    /// The foreign wakers parked, by direction.
    wakers: [Option<Waker>; 2],
    /// Those who wait for the peer to go.
    hung_up: Vec<(u32, Waker)>,
    /// The pollers that wait, by direction.
    pollers: [Option<Waker>; 2],
    queues: [VecDeque<(u32, Waker)>; 2],
    granted: [Option<u32>; 2],
    tickets: u32,
    /// The ends' addresses that do not fit into [`Endpoints`].
    ends: [Option<Addr>; 2],
    /// What ends with the socket.
    attached: Option<Box<dyn Any>>,
}

pub(crate) struct Resource {
    pub(crate) handle: Handle,
    endpoints: Endpoints,
    /// Bits for each direction: held, somebody is queued, a poller waits.
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

/// Closed: the locks are open to all.
const OPEN: u8 = 64;

const fn poller_bit(direction: Direction) -> u8 {
    16 << direction as u8
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

    // ---- its two ends ----

    #[inline]
    pub(crate) fn network(&self) -> Network {
        self.endpoints.network
    }

    /// An end's address, if it was noted.
    pub(crate) fn endpoint(&self, end: End) -> Option<Addr> {
        let inline = self.endpoints.get(end);
        inline.or_else(|| self.extra.get()?.borrow().ends[end as usize].clone())
    }

    /// Notes an end, once: a second address for an end that is known is dropped.
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

    pub(crate) fn may_linger(&self) -> bool {
        self.may_linger.get()
    }

    /// From here on a close asks the system whether it would block.
    pub(crate) fn note_linger(&self) {
        self.may_linger.set(true);
    }

    /// Keeps what is to be dropped when the socket is closed, such as a Unix listener's path; what
    /// was kept before comes back.
    pub(crate) fn attach(&self, attached: Option<Box<dyn Any>>) -> Option<Box<dyn Any>> {
        if attached.is_none() && self.extra.get().is_none() {
            return None;
        }
        std::mem::replace(&mut self.extra().borrow_mut().attached, attached)
    }

    // ---- the lock ----

    /// Takes the direction, or queues for it. True once it is held.
    #[inline]
    pub(crate) fn acquire(&self, direction: Direction, hold: &mut Hold, waker: &Waker) -> bool {
        match hold {
            Hold::Held => true,
            Hold::Parked => {
                *hold = Hold::Held;
                true
            }
            Hold::Free if self.locks.get() & (held_bit(direction) | poller_bit(direction)) == 0 => {
                self.locks.set(self.locks.get() | held_bit(direction));
                *hold = Hold::Held;
                true
            }
            _ => self.queue(direction, hold, waker),
        }
    }

    /// Whether no operation has the direction, and no poller waits for it.
    #[inline]
    pub(crate) fn is_free(&self, direction: Direction) -> bool {
        self.locks.get() & (held_bit(direction) | poller_bit(direction)) == 0
    }

    /// Takes a direction that is free: see [`Resource::is_free`].
    #[inline]
    pub(crate) fn hold(&self, direction: Direction) {
        self.locks.set(self.locks.get() | held_bit(direction));
    }

    #[cold]
    #[inline(never)]
    fn queue(&self, direction: Direction, hold: &mut Hold, waker: &Waker) -> bool {
        if self.locks.get() & OPEN != 0 {
            *hold = Hold::Held;
            return true;
        }
        if *hold == Hold::Free && !self.is_held(direction) {
            return self.take_over(direction, hold);
        }
        // Cloned out of the borrow: a waker's clone may run anything.
        let waker = waker.clone();
        let mut extra = self.extra().borrow_mut();
        let old = match *hold {
            Hold::Queued(ticket) if extra.granted[direction as usize] == Some(ticket) => {
                extra.granted[direction as usize] = None;
                *hold = Hold::Held;
                drop(extra);
                return true;
            }
            Hold::Queued(ticket) => {
                let queue = &mut extra.queues[direction as usize];
                let waiting = queue.iter_mut().find(|(queued, _)| *queued == ticket);
                waiting.map(|(_, place)| std::mem::replace(place, waker))
            }
            _ => {
                let ticket = extra.tickets;
                extra.tickets = ticket.wrapping_add(1);
                extra.queues[direction as usize].push_back((ticket, waker));
                self.locks.set(self.locks.get() | queued_bit(direction));
                *hold = Hold::Queued(ticket);
                None
            }
        };
        drop(extra);
        drop(old);
        false
    }

    /// Takes a direction that only a poller waits on: it will come back, and find it held.
    fn take_over(&self, direction: Direction, hold: &mut Hold) -> bool {
        // First, for dropping or waking a waker may run anything.
        self.locks.set(self.locks.get() | held_bit(direction));
        *hold = Hold::Held;
        if let Some(poller) = self.take_poller_and(direction, true) {
            wake_quietly(poller);
        }
        true
    }

    /// Gives the direction back, to whoever queued first.
    #[inline]
    pub(crate) fn release(&self, direction: Direction, hold: &mut Hold) {
        debug_assert!(
            matches!(hold, Hold::Held | Hold::Parked),
            "not held: {hold:?}"
        );
        *hold = Hold::Free;
        if self.locks.get() & (queued_bit(direction) | poller_bit(direction)) == 0 {
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
        if let Some((_, waker)) = next {
            return wake_quietly(waker);
        }
        self.locks.set(self.locks.get() & !held_bit(direction));
        if let Some(poller) = self.take_poller(direction) {
            wake_quietly(poller);
        }
    }

    /// Leaves the queue, for an operation that was given up; a lock granted meanwhile is passed on.
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

    // ---- the poller ----

    /// Keeps a poller's waker until its direction can be tried again.
    pub(crate) fn keep_poller(&self, direction: Direction, waker: &Waker) {
        let waker = waker.clone();
        let old = self.extra().borrow_mut().pollers[direction as usize].replace(waker);
        self.locks.set(self.locks.get() | poller_bit(direction));
        drop(old);
    }

    /// Takes the poller's waker out, to be woken or dropped.
    #[inline]
    pub(crate) fn take_poller(&self, direction: Direction) -> Option<Waker> {
        if self.locks.get() & poller_bit(direction) == 0 {
            return None;
        }
        self.take_poller_and(direction, !self.is_held(direction))
    }

    /// While no operation has the direction (`free`), a waker parked there is the poller's as well.
    fn take_poller_and(&self, direction: Direction, free: bool) -> Option<Waker> {
        self.locks.set(self.locks.get() & !poller_bit(direction));
        let mut extra = self.extra().borrow_mut();
        let poller = extra.pollers[direction as usize].take();
        let parked = match free {
            true => extra.wakers[direction as usize].take(),
            false => None,
        };
        drop(extra);
        drop(parked);
        poller
    }

    // ---- foreign wakers ----

    /// Keeps a waker for a place; the one it replaces is dropped.
    #[cold]
    pub(crate) fn keep_waker(&self, direction: Direction, waker: &Waker) {
        let waker = waker.clone();
        let old = self.extra().borrow_mut().wakers[direction as usize].replace(waker);
        // Out of the borrow, as all that runs anything.
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

    /// Takes out everybody, whatever they wait for, at the end, and opens the locks.
    pub(crate) fn take_all_wakers(&self, out: &mut Vec<Waker>) {
        let queued = queued_bit(Direction::Read) | queued_bit(Direction::Write);
        self.locks.set(self.locks.get() & !queued | OPEN);
        if let Some(extra) = self.extra.get() {
            let mut extra = extra.borrow_mut();
            extra.granted = [None; 2];
            for queue in &mut extra.queues {
                out.extend(queue.drain(..).map(|(_, waker)| waker));
            }
        }
        for place in [Place::Read, Place::Write, Place::HangUp] {
            out.extend(self.take_wakers(place));
        }
        for direction in [Direction::Read, Direction::Write] {
            out.extend(self.take_poller(direction));
        }
    }

    /// Registers one more who waits for the peer to go, or renews its waker.
    pub(crate) fn await_hang_up(&self, ticket: &mut Option<u32>, waker: &Waker) {
        let waker = waker.clone();
        let mut extra = self.extra().borrow_mut();
        let known = ticket.and_then(|ticket| {
            let mut all = extra.hung_up.iter_mut();
            all.find(|(waiting, _)| *waiting == ticket)
        });
        let old = match known {
            Some((_, place)) => Some(std::mem::replace(place, waker)),
            None => {
                let fresh = extra.tickets;
                extra.tickets = fresh.wrapping_add(1);
                extra.hung_up.push((fresh, waker));
                *ticket = Some(fresh);
                None
            }
        };
        drop(extra);
        drop(old);
    }

    /// One less waits for the peer to go. Whether nobody does any more.
    pub(crate) fn forget_hang_up(&self, ticket: u32) -> bool {
        let mut extra = self.extra().borrow_mut();
        let at = extra
            .hung_up
            .iter()
            .position(|(waiting, _)| *waiting == ticket);
        let gone = at.map(|at| extra.hung_up.swap_remove(at));
        let was_last = extra.hung_up.is_empty();
        drop(extra);
        drop(gone);
        was_last
    }

    /// Wakers kept here, in queues too: for the runtime's figures.
    pub(crate) fn waiting(&self) -> usize {
        let Some(extra) = self.extra.get() else {
            return 0;
        };
        let extra = extra.borrow();
        let queued: usize = extra.queues.iter().map(VecDeque::len).sum();
        // A poller whose direction is free is in the parking place, and counted there.
        let held =
            |direction| self.is_held(direction) && extra.pollers[direction as usize].is_some();
        let both = [Direction::Read, Direction::Write];
        let pollers = both
            .into_iter()
            .filter(|&direction| held(direction))
            .count();
        // The first of those who wait for a hang-up is counted as parked.
        queued + extra.hung_up.len().saturating_sub(1) + pollers
    }
}
