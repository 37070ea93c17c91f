//! The wakers kept beside a descriptor: of pollers, of other people's futures, and of those who
//! wait for the peer to go.
//!
//! May touch: its parent. Go has none of this: there, whatever waits is a goroutine.
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

use std::collections::VecDeque;
use std::task::Waker;

use super::lock::{OPEN, poller_bit, queued_bit};
use super::{Place, Resource};
use crate::reactor::Direction;

impl Resource {
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
    pub(super) fn take_poller_and(&self, direction: Direction, free: bool) -> Option<Waker> {
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
