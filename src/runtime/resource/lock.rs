//! The locks of a socket's two directions: who may operate, and who is next.
//!
//! May touch: its parent. Mirrors `fdMutex` in Go's `internal/poll/fd_mutex.go`.
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

use std::task::Waker;

use super::Resource;
use crate::reactor::Direction;
use crate::runtime::wake_quietly;

const fn held_bit(direction: Direction) -> u8 {
    1 << direction as u8
}

pub(super) const fn queued_bit(direction: Direction) -> u8 {
    4 << direction as u8
}

/// Closed: the locks are open to all.
pub(super) const OPEN: u8 = 64;

pub(super) const fn poller_bit(direction: Direction) -> u8 {
    16 << direction as u8
}

/// How far an operation is with its direction's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    Free,
    Queued(u32),
    Held,
}

impl Hold {
    /// Whether the direction is held.
    #[inline]
    pub(crate) fn is_held(self) -> bool {
        self == Hold::Held
    }
}

impl Resource {
    /// Takes the direction, or queues for it. True once it is held.
    #[inline]
    pub(crate) fn acquire(&self, direction: Direction, hold: &mut Hold, waker: &Waker) -> bool {
        match hold {
            Hold::Held => true,
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
        debug_assert!(hold.is_held(), "not held: {hold:?}");
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
}
