//! The locks of a socket's two directions: which operation is under way, and which is next.
//!
//! # The lock, one for each direction
//!
//! | state | meaning | moved there by | on to |
//! |---|---|---|---|
//! | Free | no operation holds the lock | `unlock` or `leave_queue` with an empty queue | Held by `lock`; Disabled |
//! | Held | one operation holds the lock. If `unlock` gave it the lock, it learns that at its next poll | `lock`; `unlock` or `leave_queue` with a queue | Free; Held by the next in the queue; Disabled |
//! | Disabled | the socket is closed: the lock excludes nothing, and each operation goes on and learns of the close | `disable_locks` | nothing |
//!
//! Operations hold the lock in the order in which they come. A close or a deadline also wakes the
//! operations that queue, so that they leave the queue even if the holder is not polled. Illegal:
//! unlocking a lock that the operation does not hold.
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
//! | Waiting | the key of its waker is kept | `keep_poller`, after EAGAIN or while an operation holds the lock | Waiting with another waker by `keep_poller`: the last wins; none when an operation locks the direction, or unlocks it with an empty queue, at a close, or when the poller is done |
//!
//! Readiness and deadlines find a poller in the descriptor's slot, if no operation holds the lock. An
//! operation that locks the direction wakes the poller. The poller is polled, finds the lock held, and
//! registers again.
//!
//! This file and `socket.rs` import each other (a circle): a socket carries the bits of its locks, and its
//! `Extra`, which most sockets do without, holds the queues.

// Mirrors `fdMutex` in Go's `internal/poll/fd_mutex.go`.

use std::cell::Cell;
use std::task::Waker;

use super::panics::wake_quietly;
use super::park_key::ParkKey;
use super::socket::Socket;
use super::waiters::Ticket;
use crate::reactor::Direction;

/// ```text
///   | 4        | 3 2                                 | 1 0            |
///   | disabled | an operation queues, a poller waits | direction held |   write, read
/// ```
#[derive(Default)]
pub(super) struct Locks(Cell<u8>);

const DISABLED: u8 = 1 << 4;

const fn held_bit(direction: Direction) -> u8 {
    1 << direction as u8
}

/// Stays raised when the last operation leaves the queue, until the direction is unlocked.
const fn waits_bit(direction: Direction) -> u8 {
    1 << (2 + direction as u8)
}

impl Locks {
    #[inline]
    fn has(&self, bits: u8) -> bool {
        self.0.get() & bits != 0
    }

    #[inline]
    fn raise(&self, bits: u8) {
        self.0.set(self.0.get() | bits);
    }

    #[inline]
    fn lower(&self, bits: u8) {
        self.0.set(self.0.get() & !bits);
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

impl LockState {
    #[inline]
    pub(crate) fn is_holder(self) -> bool {
        self == LockState::Holder
    }
}

impl Socket {
    /// Locks the direction, or queues for it. Returns whether the operation holds the lock now: Go's
    /// `rwlock`.
    #[inline]
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
    #[inline]
    pub(crate) fn is_uncontended(&self, direction: Direction) -> bool {
        !self.locks.has(held_bit(direction) | waits_bit(direction))
    }

    /// Locks a direction that [is uncontended](Socket::is_uncontended).
    #[inline]
    pub(crate) fn lock_uncontended(&self, direction: Direction) {
        debug_assert!(self.is_uncontended(direction) || self.locks.has(DISABLED));
        self.locks.raise(held_bit(direction));
    }

    /// Whether an operation holds the lock of this direction.
    #[inline]
    pub(crate) fn is_locked(&self, direction: Direction) -> bool {
        self.locks.has(held_bit(direction))
    }

    #[cold]
    #[inline(never)]
    fn lock_slow(&self, direction: Direction, state: &mut LockState, waker: &Waker) -> bool {
        // First, since cloning may run any code, which may close the socket or unlock the direction.
        let waker = waker.clone();
        if self.locks.has(DISABLED) {
            *state = LockState::Holder;
            return true;
        }
        if *state == LockState::Idle && !self.is_locked(direction) {
            // Only a poller waits. It is woken, and finds the lock held.
            let poller = self.take_poller(direction);
            self.locks.raise(held_bit(direction));
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
        self.locks.raise(waits_bit(direction));
        // If `unlock` took the ticket out of the queue, this operation holds the lock.
        *state = ticket.map_or(LockState::Holder, LockState::Queued);
        drop(left_over);
        polled.is_ready()
    }

    /// Unlocks the direction. If operations queue, the first of them holds the lock now: Go's `rwunlock`.
    #[inline]
    pub(crate) fn unlock(&self, direction: Direction, state: &mut LockState) {
        debug_assert!(state.is_holder(), "not held: {state:?}");
        *state = LockState::Idle;
        if self.locks.has(waits_bit(direction)) {
            self.pass_on(direction);
        } else {
            self.locks.lower(held_bit(direction));
        }
    }

    /// Gives the lock to the first operation in the queue. If the queue is empty, unlocks the direction
    /// and wakes the poller.
    #[cold]
    #[inline(never)]
    fn pass_on(&self, direction: Direction) {
        let next = self.extra().borrow_mut().queues[direction as usize].pop();
        if let Some(waker) = next {
            // The bits stay raised: that operation holds the lock.
            return wake_quietly(waker);
        }
        self.locks.lower(held_bit(direction));
        wake(self.take_poller(direction));
    }

    /// Leaves the queue, for an operation that was given up. If `unlock` has already given it the lock,
    /// passes the lock on.
    #[cold]
    pub(crate) fn leave_queue(&self, direction: Direction, state: &mut LockState) {
        let LockState::Queued(ticket) = *state else {
            return;
        };
        *state = LockState::Idle;
        let mut extra = self.extra().borrow_mut();
        let (was_woken, left_over) = extra.queues[direction as usize].leave(&mut Some(ticket));
        drop(extra);
        drop(left_over);
        if was_woken && !self.locks.has(DISABLED) {
            self.pass_on(direction);
        }
    }

    /// At a close: disables the locks, and takes out the wakers of all operations that queue, of the
    /// pollers, and of all that wait for the peer to hang up.
    pub(crate) fn disable_locks(&self, out: &mut Vec<Waker>) {
        self.locks.raise(DISABLED);
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
        self.locks.raise(waits_bit(direction));
    }

    /// Takes the key of the poller's waker. Once the waker is taken, the same key in the slot finds
    /// nothing.
    #[inline]
    pub(crate) fn take_poller(&self, direction: Direction) -> Option<ParkKey> {
        if !self.locks.has(waits_bit(direction)) {
            return None;
        }
        let mut extra = self.extra().borrow_mut();
        if extra.queues[direction as usize].is_empty() {
            self.locks.lower(waits_bit(direction));
        }
        extra.pollers[direction as usize].take()
    }

    /// Returns whether the direction's poller has yielded since its last operation ended, and resets that.
    pub(crate) fn take_poller_yielded(&self, direction: Direction) -> bool {
        self.extra.get().is_some_and(|extra| {
            std::mem::take(&mut extra.borrow_mut().poller_yielded[direction as usize])
        })
    }

    /// The direction's poller has yielded: it proceeds when it is polled again.
    pub(crate) fn note_poller_yielded(&self, direction: Direction) {
        self.extra().borrow_mut().poller_yielded[direction as usize] = true;
    }
}

fn wake(poller: Option<ParkKey>) {
    let waker = poller.and_then(ParkKey::take_waker);
    waker.into_iter().for_each(wake_quietly);
}
