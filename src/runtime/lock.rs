//! The locks of a socket's two directions: which operation is under way, and which is next.
//!
//! # The lock, one for each direction
//!
//! | state | meaning | moved there by | on to |
//! |---|---|---|---|
//! | Free | no operation is under way | `unlock` with an empty queue | Held by `lock` |
//! | Held | one operation has the direction; it may be one that was woken for it and has not been polled since | `lock`; `unlock` with a queue | Free or Held by `unlock`; Held by another when a woken one leaves |
//! | Open | the socket is closed: each operation has it, and learns of the close | `open_locks` | nothing |
//!
//! First come, first served. A close or a deadline wakes also the operations that are queued, so that
//! they leave the queue even if the holder is not polled. Illegal: unlocking what one does not hold.
//!
//! # The poller, one for each direction
//!
//! A caller of `poll_read` or `poll_write` has no future of ours that could keep the lock between two
//! calls, or give it up when it is dropped. So a poller holds no lock while it waits: it leaves its
//! waker.
//!
//! | state | meaning | moved there by | on to |
//! |---|---|---|---|
//! | none | no poller waits | `take_poller`; a close | Waiting |
//! | Waiting | the key of its waker is kept | `keep_poller`, after EAGAIN or behind a lock that is held | Waiting with another waker by `keep_poller`: the last wins; none when an operation locks or unlocks the direction, at a close, or when the poller is done |
//!
//! Readiness and deadlines find a poller in the descriptor's slot, if its direction is free. An
//! operation that takes the slot over wakes the poller, which then finds the lock held.
//!
//! This file and `socket.rs` import each other (a circle), and that stays: a socket carries the
//! bits of its locks, and what queues for them is in the socket's `Extra`, which most sockets do
//! without.

// Mirrors `fdMutex` in Go's `internal/poll/fd_mutex.go`.

use std::cell::Cell;
use std::task::Waker;

use super::panics::wake_quietly;
use super::parked::Parked;
use super::socket::Socket;
use super::waiters::Ticket;
use crate::reactor::Direction;

/// ```text
///   | 6    | 5 4          | 3 2               | 1 0            |
///   | open | poller waits | operations queued | direction held |   write, read
/// ```
#[derive(Default)]
pub(super) struct Locks(Cell<u8>);

const OPEN: u8 = 1 << 6;

const fn held(direction: Direction) -> u8 {
    1 << direction as u8
}

const fn queued(direction: Direction) -> u8 {
    1 << (2 + direction as u8)
}

const fn polled(direction: Direction) -> u8 {
    1 << (4 + direction as u8)
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

/// How far an operation is with its direction's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockState {
    Free,
    Queued(Ticket),
    Held,
}

impl LockState {
    #[inline]
    pub(crate) fn is_held(self) -> bool {
        self == LockState::Held
    }
}

impl Socket {
    /// Locks the direction, or queues for it. True once it is held: Go's `rwlock`.
    #[inline]
    pub(crate) fn lock(&self, direction: Direction, state: &mut LockState, waker: &Waker) -> bool {
        match state {
            LockState::Held => true,
            LockState::Free if self.is_free(direction) => {
                self.hold(direction);
                *state = LockState::Held;
                true
            }
            _ => self.queue(direction, state, waker),
        }
    }

    /// Whether no operation has the direction, and no poller waits for it.
    #[inline]
    pub(crate) fn is_free(&self, direction: Direction) -> bool {
        !self.locks.has(held(direction) | polled(direction))
    }

    /// Locks a direction that [is free](Socket::is_free).
    #[inline]
    pub(crate) fn hold(&self, direction: Direction) {
        debug_assert!(self.is_free(direction) || self.locks.has(OPEN));
        self.locks.raise(held(direction));
    }

    /// Whether an operation of this direction is under way.
    #[inline]
    pub(crate) fn is_locked(&self, direction: Direction) -> bool {
        self.locks.has(held(direction))
    }

    #[cold]
    #[inline(never)]
    fn queue(&self, direction: Direction, state: &mut LockState, waker: &Waker) -> bool {
        // First, since it may run any code, which may close the socket or unlock the direction.
        let waker = waker.clone();
        if self.locks.has(OPEN) {
            *state = LockState::Held;
            return true;
        }
        if *state == LockState::Free && !self.is_locked(direction) {
            // Only a poller waits. It is woken, and finds the direction held.
            let poller = self.take_poller(direction);
            self.locks.raise(held(direction));
            *state = LockState::Held;
            wake(poller);
            return true;
        }
        let mut ticket = match *state {
            LockState::Queued(ticket) => Some(ticket),
            _ => None,
        };
        let mut extra = self.extra().borrow_mut();
        let (turn, left_over) = extra.queues[direction as usize].poll(&mut ticket, waker);
        drop(extra);
        *state = match ticket {
            Some(ticket) => {
                self.locks.raise(queued(direction));
                LockState::Queued(ticket)
            }
            // `unlock` took it out of the queue: it is the holder.
            None => LockState::Held,
        };
        drop(left_over);
        turn.is_ready()
    }

    /// Gives the direction back, to the operation that queued first: Go's `rwunlock`.
    #[inline]
    pub(crate) fn unlock(&self, direction: Direction, state: &mut LockState) {
        debug_assert!(state.is_held(), "not held: {state:?}");
        *state = LockState::Free;
        if self.locks.has(queued(direction) | polled(direction)) {
            self.pass_on(direction);
        } else {
            self.locks.lower(held(direction));
        }
    }

    #[cold]
    #[inline(never)]
    fn pass_on(&self, direction: Direction) {
        let mut extra = self.extra().borrow_mut();
        let queue = &mut extra.queues[direction as usize];
        let next = queue.pop();
        if queue.is_empty() {
            self.locks.lower(queued(direction));
        }
        drop(extra);
        if let Some(waker) = next {
            // The direction stays held: it is the next one's.
            return wake_quietly(waker);
        }
        self.locks.lower(held(direction));
        wake(self.take_poller(direction));
    }

    /// Leaves the queue, for an operation that was given up. If the direction was passed on to it
    /// already, the next one has it.
    #[cold]
    pub(crate) fn leave_queue(&self, direction: Direction, state: &mut LockState) {
        let LockState::Queued(ticket) = *state else {
            return;
        };
        *state = LockState::Free;
        let mut extra = self.extra().borrow_mut();
        let queue = &mut extra.queues[direction as usize];
        let (was_woken, left_over) = queue.leave(&mut Some(ticket));
        if queue.is_empty() {
            self.locks.lower(queued(direction));
        }
        drop(extra);
        drop(left_over);
        if was_woken && !self.locks.has(OPEN) {
            self.pass_on(direction);
        }
    }

    /// At a close: takes all that queues or polls, and opens the locks.
    pub(crate) fn open_locks(&self, out: &mut Vec<Waker>) {
        self.locks.raise(OPEN);
        let Some(extra) = self.extra.get() else {
            return;
        };
        for direction in Direction::BOTH {
            self.locks.lower(queued(direction));
            out.extend(self.take_poller(direction).and_then(Parked::take_waker));
        }
        for queue in &mut extra.borrow_mut().queues {
            out.extend(queue.take_all());
        }
    }

    // ---- the poller ----

    /// Keeps the key of a poller's waker until its direction can be tried again.
    pub(crate) fn keep_poller(&self, direction: Direction, poller: Parked) {
        debug_assert!(poller.is_foreign(), "its waker is kept");
        self.extra().borrow_mut().pollers[direction as usize] = Some(poller);
        self.locks.raise(polled(direction));
    }

    /// Takes the key of the poller's waker. Once the waker is taken, the same key in the slot finds
    /// nothing.
    #[inline]
    pub(crate) fn take_poller(&self, direction: Direction) -> Option<Parked> {
        if !self.locks.has(polled(direction)) {
            return None;
        }
        self.locks.lower(polled(direction));
        self.extra().borrow_mut().pollers[direction as usize].take()
    }

    /// Another poller comes, or the same again: the last wins.
    pub(crate) fn drop_poller(&self, direction: Direction) {
        drop(self.take_poller(direction).and_then(Parked::take_waker));
    }

    /// Whether the direction's poller has yielded since its last operation ended; forgets it.
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

fn wake(poller: Option<Parked>) {
    let waker = poller.and_then(Parked::take_waker);
    waker.into_iter().for_each(wake_quietly);
}
