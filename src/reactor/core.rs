//! The reactor's inside: the registry, the wheel, the selector, and the turn over them.
//!
//! May touch: the files beside it, and the wheel. Everything here is behind `Rc` and cells, and no
//! borrow is held while anything of the user's runs. Mirrors `pollCache` and `netpoll()` in Go's
//! `runtime/netpoll.go` and `netpoll_epoll.go`.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem::offset_of;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::clock::Clock;
use super::descriptor::{NEVER, Placing, State};
use super::poller::Poller;
use super::registry::{Registry, Tokened};
use super::selector::{Token, Traits};
use super::words::{Direction, Readiness};
use crate::wheel::{Tick, Wheel};
use mio::event::Source;

/// Shared by the reactor and all its descriptors.
pub(crate) struct Core<W, T> {
    pub(crate) clock: Clock,
    pub(super) wheel: RefCell<Wheel<Place>>,
    /// Counts placings, and wraps: at worst an old place is then taken for a live one, finds the
    /// truth, and moves there or goes.
    placings: Cell<u32>,
    pub(super) registry: RefCell<Registry<Rc<Registered<W, T>>>>,
    /// Handed back by the next turn: evicted, or expired by a deadline set in the past.
    pub(super) pending: RefCell<Vec<W>>,
    pub(crate) poller: RefCell<Poller>,
    traits: Traits,
    /// Which harvest it is: stamps what it makes ready.
    pub(super) stamp: Cell<u16>,
    /// The time of a complete harvest: what had come by then has been handed out, and has run.
    pub(super) harvested: Cell<Tick>,
    /// The time of the last complete harvest: what had come by then has been handed out.
    pub(super) latest: Cell<Tick>,
    pub(crate) spin: Cell<Duration>,
    shut: Cell<bool>,
}

/// What the wheel holds for a descriptor.
#[derive(Clone, Copy)]
pub(super) struct Place {
    slot: u32,
    pub(super) number: u32,
}

/// What the registry holds and a [`super::Descriptor`] points to.
///
/// In this order, for what a busy read touches lies together: the end of what is carried, and the
/// beginning of the state.
#[repr(C)]
pub(crate) struct Registered<W, T> {
    pub(crate) carried: T,
    pub(crate) core: Rc<Core<W, T>>,
    pub(crate) token: Token,
    pub(crate) state: State<W>,
}

impl<W, T> Tokened for Rc<Registered<W, T>> {
    #[inline]
    fn token(&self) -> Token {
        self.token
    }
}

impl<W, T> Core<W, T> {
    pub(crate) fn new(poller: Poller, is_virtual: bool) -> Self {
        Core {
            clock: Clock::new(is_virtual),
            wheel: RefCell::new(Wheel::new()),
            placings: Cell::new(0),
            registry: RefCell::new(Registry::new()),
            pending: RefCell::new(Vec::new()),
            traits: poller.traits(),
            poller: RefCell::new(poller),
            stamp: Cell::new(0),
            harvested: Cell::new(Tick::ZERO),
            latest: Cell::new(Tick::ZERO),
            spin: Cell::new(Duration::ZERO),
            shut: Cell::new(false),
        }
    }

    pub(crate) fn open(
        self: &Rc<Self>,
        source: &mut dyn Source,
        carried: T,
        guarded: bool,
    ) -> io::Result<Rc<Registered<W, T>>> {
        if self.shut.get() {
            return Err(io::Error::other("the runtime is gone"));
        }
        let token = self.registry.borrow_mut().next_token();
        let token = token.ok_or(io::ErrorKind::OutOfMemory)?;
        self.poller.borrow_mut().open(source, token)?;
        let registered = Rc::new(Registered {
            state: State::new(guarded || !(self.traits.edges && self.traits.urgent)),
            token,
            core: self.clone(),
            carried,
        });
        self.registry.borrow_mut().insert(registered.clone());
        log::trace!("open {token:?}, {} bytes", size_of::<Registered<W, T>>());
        Ok(registered)
    }

    /// What the owner of a place in the wheel says, if the slot has one.
    pub(super) fn ask<R>(&self, place: Place, f: impl FnOnce(&State<W>) -> R) -> Option<R> {
        let registry = self.registry.borrow();
        let registered = registry.in_slot(place.slot as usize)?;
        Some(f(&registered.state))
    }

    /// What a descriptor carries, if the owner of the slot is the one that is meant.
    pub(crate) fn carried<R>(
        &self,
        slot: usize,
        is_it: impl FnOnce(Token) -> bool,
        f: impl FnOnce(&T) -> R,
    ) -> Option<R> {
        // The clone ends the borrow: `f` may be anything.
        let registered = self.registry.borrow().in_slot(slot).cloned()?;
        is_it(registered.token).then(|| f(&registered.carried))
    }

    pub(crate) fn each(&self, mut look: impl FnMut(&T)) {
        let registry = self.registry.borrow();
        registry
            .iter()
            .for_each(|registered| look(&registered.carried));
    }

    pub(crate) fn descriptors(&self) -> usize {
        self.registry.borrow().len()
    }

    /// How many are parked, and what `count` says of what the descriptors carry.
    pub(crate) fn waiting(&self, count: impl Fn(&T) -> usize) -> usize {
        let registry = self.registry.borrow();
        let all = registry.iter();
        all.map(|registered| registered.state.waiting() + count(&registered.carried))
            .sum()
    }

    pub(crate) fn places(&self) -> (usize, usize) {
        let wheel = self.wheel.borrow();
        (wheel.len(), wheel.stale())
    }

    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        if !self.pending.borrow().is_empty() {
            return Some(Duration::ZERO);
        }
        let next = self.wheel.borrow().next()?;
        self.clock.read();
        Some(self.clock.until(next))
    }

    /// Evicts everybody: the reactor is going, and I/O on what outlives it is an error.
    pub(crate) fn shut_down(&self) {
        self.shut.set(true);
        let all = self.registry.borrow_mut().take_all();
        for registered in &all {
            registered.state.leave();
            registered.evict();
        }
        // Out of the borrow: dropping a W or what a descriptor carries may run anything.
        drop(all);
        let parked = self.pending.take();
        drop(parked);
    }

    // ---- the wheel's upkeep ----

    fn place(&self, registered: &Registered<W, T>, placing: Placing) {
        let mut wheel = self.wheel.borrow_mut();
        match placing {
            Placing::Keep => return,
            Placing::Place { when, left_behind } => {
                let number = self.placings.get().wrapping_add(1);
                self.placings.set(number);
                registered.state.number_place(number);
                let slot = registered.token.slot() as u32;
                wheel.place(when, Place { slot, number });
                if !left_behind {
                    return;
                }
                wheel.lapse();
            }
            Placing::Idle => wheel.lapse(),
            Placing::Revive => return wheel.revive(),
        }
        drop(wheel);
        self.compact();
    }

    fn lapse(&self) {
        self.wheel.borrow_mut().lapse();
        self.compact();
    }

    pub(super) fn compact(&self) {
        let mut wheel = self.wheel.borrow_mut();
        if wheel.overgrown() {
            wheel.compact(|_, place| {
                let keeps = self.ask(place, |state| state.keeps(place.number));
                keeps.unwrap_or(false)
            });
        }
    }
}

impl<W, T> Registered<W, T> {
    /// The part of it that a busy read looks at: from the last word of what is carried on.
    pub(crate) const BUSY: Range<usize> =
        offset_of!(Self, core).saturating_sub(8)..size_of::<Self>();

    /// Two compares and two stores when it moves later, to where the last one of this turn went.
    #[inline(always)]
    pub(crate) fn set_deadline(&self, direction: Direction, when: Option<Instant>) {
        if !self.put_off_deadline(direction, when) {
            self.set_deadline_with_care(direction, when);
        }
    }

    /// The short way of [`Registered::set_deadline`]. False if it does not lead there.
    #[inline(always)]
    pub(crate) fn put_off_deadline(&self, direction: Direction, when: Option<Instant>) -> bool {
        let known = when.and_then(|when| self.core.clock.known_tick_of(when));
        known.is_some_and(|tick| self.state.put_off(direction, tick))
    }

    #[cold]
    #[inline(never)]
    fn set_deadline_with_care(&self, direction: Direction, when: Option<Instant>) {
        let placing = match when {
            None => self.state.set_deadline(direction, NEVER),
            Some(when) => match self.core.clock.far_tick_of(when) {
                Some(tick) if self.state.put_off(direction, tick) => return,
                Some(tick) => self.state.set_deadline(direction, tick),
                None => return self.set_near_deadline(direction, when),
            },
        };
        self.core.place(self, placing);
    }

    /// Close to the loop's time, which may be old: only a fresh reading can tell whether it has
    /// passed.
    fn set_near_deadline(&self, direction: Direction, when: Instant) {
        if self.state.is_closed() {
            return;
        }
        let placing = if when <= self.core.clock.read() {
            let (parked, placing) = self.state.expire_now(direction);
            self.core.pending.borrow_mut().extend(parked);
            placing
        } else {
            let tick = self.core.clock.tick_of(when);
            self.state.set_deadline(direction, tick)
        };
        self.core.place(self, placing);
    }

    /// As [`Registered::set_deadline`], for a tick that lies ahead.
    #[inline]
    pub(crate) fn set_far_deadline(&self, direction: Direction, tick: Tick) {
        if !self.state.put_off(direction, tick) {
            self.set_far_deadline_with_care(direction, tick);
        }
    }

    #[cold]
    #[inline(never)]
    fn set_far_deadline_with_care(&self, direction: Direction, tick: Tick) {
        let placing = self.state.set_deadline(direction, tick);
        self.core.place(self, placing);
    }

    pub(crate) fn evict(&self) {
        let mut pending = self.core.pending.borrow_mut();
        let left_behind = self.state.evict(&mut |w| pending.push(w));
        drop(pending);
        if left_behind {
            self.core.lapse();
        }
    }

    pub(crate) fn short_means_drained(&self) -> bool {
        self.state.short_means_drained()
    }

    /// After EAGAIN, where the selector reports a level only once: asks again for what is not
    /// known to be ready.
    #[inline]
    pub(crate) fn rearm(&self, source: &mut dyn Source) -> io::Result<()> {
        if self.core.traits.edges || self.state.is_closed() {
            return Ok(());
        }
        let mut wanted = Readiness::NONE;
        for direction in [Direction::Read, Direction::Write] {
            if !self.state.is_ready(direction) {
                wanted |= Readiness::of(direction);
            }
        }
        let mut poller = self.core.poller.borrow_mut();
        poller.rearm(source, self.token, wanted)
    }

    pub(crate) fn close_forgets(&self) -> bool {
        self.core.traits.close_forgets
    }

    pub(crate) fn deregister(&self, source: &mut dyn Source) -> io::Result<()> {
        if self.state.is_registered() {
            self.core.poller.borrow_mut().close(source)
        } else {
            Ok(())
        }
    }

    /// Frees the slot; the registry's share goes, and with it perhaps what is carried.
    pub(crate) fn unregister(&self) {
        if !self.state.leave() {
            return;
        }
        self.evict();
        let ours = self.core.registry.borrow_mut().remove(self.token);
        log::trace!("close {:?}", self.token);
        // Out of the borrow: dropping what it carries may run anything.
        drop(ours);
    }
}
