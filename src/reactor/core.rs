//! The reactor's inside: the registry, the wheel, the selector, and the turn over them.
//!
//! May touch: the files beside it, and the wheel. Everything here is behind `Rc` and cells, and no
//! borrow is held while anything of the user's runs. Mirrors `pollCache` and `netpoll()` in Go's
//! `runtime/netpoll.go` and `netpoll_epoll.go`.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Turn;
use super::clock::Clock;
use super::descriptor::{Direction, Due, NEVER, Placing, Readiness, State};
use super::registry::{Registry, Tokened};
use super::selector::{Event, Harvest, Selector, Token, Traits};
use crate::wheel::{Tick, Verdict, Wheel};
use mio::event::Source;

/// Places looked at in one turn at most, so that a storm of deadlines does not hold up the rest.
const EXPIRY_BUDGET: usize = 4096;

/// How far apart the two looks are that a virtual clock takes before it jumps: loopback delivers
/// in softirq context, which on a loaded machine may be a moment later.
const VIRTUAL_GRACE: Duration = Duration::from_millis(1);

/// Shared by the reactor and all its descriptors.
pub(crate) struct Core<W, T> {
    pub(crate) clock: Clock,
    wheel: RefCell<Wheel<Token>>,
    registry: RefCell<Registry<Rc<Registered<W, T>>>>,
    /// Handed back by the next turn: evicted, or expired by a deadline set in the past.
    pending: RefCell<Vec<W>>,
    pub(crate) selector: RefCell<Box<dyn Selector>>,
    events: RefCell<Vec<Event>>,
    traits: Traits,
    /// Which harvest it is: stamps what it makes ready.
    stamp: Cell<u16>,
    /// The time of the last complete harvest: what had come by then has been handed out.
    harvested: Cell<Tick>,
    pub(crate) spin: Cell<Duration>,
    shut: Cell<bool>,
}

/// What the registry holds and a [`super::Descriptor`] points to.
pub(crate) struct Registered<W, T> {
    pub(crate) state: State<W>,
    pub(crate) token: Token,
    registered: Cell<bool>,
    pub(crate) core: Rc<Core<W, T>>,
    pub(crate) carried: T,
}

impl<W, T> Tokened for Rc<Registered<W, T>> {
    #[inline]
    fn token(&self) -> Token {
        self.token
    }
}

impl<W, T> Core<W, T> {
    pub(crate) fn new(selector: Box<dyn Selector>, is_virtual: bool) -> Self {
        Core {
            clock: Clock::new(is_virtual),
            wheel: RefCell::new(Wheel::new()),
            registry: RefCell::new(Registry::new()),
            pending: RefCell::new(Vec::new()),
            traits: selector.traits(),
            selector: RefCell::new(selector),
            events: RefCell::new(Vec::new()),
            stamp: Cell::new(0),
            harvested: Cell::new(Tick::ZERO),
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
        self.selector.borrow_mut().open(source, token)?;
        let registered = Rc::new(Registered {
            state: State::new(guarded || !(self.traits.edges && self.traits.urgent)),
            token,
            registered: Cell::new(true),
            core: self.clone(),
            carried,
        });
        self.registry.borrow_mut().insert(registered.clone());
        log::trace!("open {token:?}");
        Ok(registered)
    }

    /// The descriptor that a token names, unless its slot has another owner now.
    #[inline]
    pub(crate) fn lookup<R>(
        &self,
        token: Token,
        f: impl FnOnce(&Rc<Registered<W, T>>) -> R,
    ) -> Option<R> {
        self.registry.borrow().get(token).map(f)
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
            registered.registered.set(false);
            registered.evict();
        }
        // Out of the borrow: dropping a W or what a descriptor carries may run anything.
        drop(all);
        let parked = self.pending.take();
        drop(parked);
    }

    // ---- one turn, in the order of the diagram in mod.rs ----

    pub(crate) fn turn(
        &self,
        max_wait: Option<Duration>,
        may_jump: bool,
        out: &mut Vec<W>,
    ) -> io::Result<Turn> {
        let before = out.len();
        out.append(&mut self.pending.borrow_mut());
        let idle = out.len() == before;
        let max_wait = if idle { max_wait } else { Some(Duration::ZERO) };

        let mut events = self.events.take();
        events.clear();
        let harvest = match self.wait(max_wait, may_jump, &mut events) {
            Ok(harvest) => harvest,
            Err(error) => {
                self.events.replace(events);
                return Err(error);
            }
        };
        self.clock.read();
        self.stamp.set(self.stamp.get().wrapping_add(1));
        let mut turn = Turn {
            events: self.unpark_ready(&events, out),
            ..Turn::default()
        };
        if self.is_due() {
            self.expire(harvest, &mut events, &mut turn, out);
        }
        if harvest == Harvest::Complete {
            self.harvested.set(self.clock.tick());
        }
        self.events.replace(events);
        turn.more |= !self.pending.borrow().is_empty();
        Ok(turn)
    }

    fn is_due(&self) -> bool {
        match self.wheel.borrow().next() {
            Some(next) => next <= self.clock.tick(),
            None => false,
        }
    }

    /// Waits for the selector, no longer than the next deadline.
    fn wait(
        &self,
        max_wait: Option<Duration>,
        may_jump: bool,
        events: &mut Vec<Event>,
    ) -> io::Result<Harvest> {
        let mut selector = self.selector.borrow_mut();
        if max_wait == Some(Duration::ZERO) {
            return selector.netpoll(max_wait, events);
        }
        if self.clock.is_virtual() {
            drop(selector);
            return self.wait_virtually(max_wait, may_jump, events);
        }
        let next = self.wheel.borrow().next();
        let wait = match next {
            // A fresh reading: the machines since the last one may have taken their time.
            Some(next) => {
                self.clock.read();
                let until = self.clock.until(next);
                Some(max_wait.map_or(until, |max_wait| max_wait.min(until)))
            }
            None => max_wait,
        };
        if self.spin.get() > Duration::ZERO
            && let Some(harvest) = self.spin(&mut **selector, wait, events)?
        {
            return Ok(harvest);
        }
        if log::log_enabled!(log::Level::Trace) {
            log::trace!("turn: waiting {wait:?}");
        }
        selector.netpoll(wait, events)
    }

    #[cold]
    fn spin(
        &self,
        selector: &mut dyn Selector,
        wait: Option<Duration>,
        events: &mut Vec<Event>,
    ) -> io::Result<Option<Harvest>> {
        let spin = self.spin.get();
        let spin = wait.map_or(spin, |wait| wait.min(spin));
        let start = Instant::now();
        loop {
            let harvest = selector.netpoll(Some(Duration::ZERO), events)?;
            if !events.is_empty() {
                return Ok(Some(harvest));
            }
            if start.elapsed() >= spin {
                return Ok(None);
            }
            std::hint::spin_loop();
        }
    }

    /// Jumps to the next live deadline once the system has had nothing for us twice.
    #[cold]
    fn wait_virtually(
        &self,
        max_wait: Option<Duration>,
        may_jump: bool,
        events: &mut Vec<Event>,
    ) -> io::Result<Harvest> {
        let mut selector = self.selector.borrow_mut();
        for grace in [Duration::ZERO, VIRTUAL_GRACE] {
            let harvest = selector.netpoll(Some(grace), events)?;
            if !events.is_empty() || harvest == Harvest::Partial {
                return Ok(harvest);
            }
        }
        drop(selector);
        let next = self.next_live().map(|next| self.clock.until(next));
        let ahead = match (max_wait, next) {
            (Some(max_wait), Some(next)) => Some(max_wait.min(next)),
            (max_wait, next) => max_wait.or(next),
        };
        if may_jump && let Some(ahead) = ahead {
            self.clock.jump(ahead);
            return Ok(Harvest::Complete);
        }
        // Nothing to jump to, or somebody is out on a blocking job: only the world can go on.
        self.selector.borrow_mut().netpoll(None, events)
    }

    fn next_live(&self) -> Option<Tick> {
        self.wheel.borrow_mut().next_live(|place, token| {
            match self.lookup(token, |registered| registered.state.due(place)) {
                Some(Due::Again(when)) if when > place => Verdict::Again(when),
                Some(Due::Again(_)) => Verdict::Done,
                _ => Verdict::Lapsed,
            }
        })
    }

    /// Hands out whoever waited for what has been harvested; counts whom it concerned.
    #[inline]
    fn unpark_ready(&self, events: &[Event], out: &mut Vec<W>) -> usize {
        let registry = self.registry.borrow();
        let stamp = self.stamp.get();
        let tracing = log::log_enabled!(log::Level::Trace);
        let mut live = 0;
        for event in events {
            if tracing {
                log::trace!("ready {:?} {:?}", event.token, event.readiness);
            }
            // Else a break, or an earlier owner of the slot was meant.
            if let Some(registered) = registry.get(event.token) {
                live += 1;
                let mut unpark = |w| out.push(w);
                registered.state.ready(event.readiness, stamp, &mut unpark);
            }
        }
        live
    }

    /// Some place has come up.
    #[cold]
    #[inline(never)]
    fn expire(&self, harvest: Harvest, events: &mut Vec<Event>, turn: &mut Turn, out: &mut Vec<W>) {
        let mut quiet = events.is_empty() && harvest == Harvest::Complete;
        if quiet && !self.clock.is_virtual() {
            // We may have been stalled between the harvest and the clock: look once more, so that
            // all that had come by the clock's time has been seen.
            let again = self
                .selector
                .borrow_mut()
                .netpoll(Some(Duration::ZERO), events);
            quiet = events.is_empty() && matches!(again, Ok(Harvest::Complete));
            turn.events = self.unpark_ready(events, out);
        }
        let limit = if quiet {
            self.clock.tick()
        } else {
            self.harvested.get()
        };
        let stamp = (!events.is_empty()).then(|| self.stamp.get());
        let before = out.len();
        let more = {
            let mut unpark = |w| out.push(w);
            self.wheel
                .borrow_mut()
                .advance(limit, EXPIRY_BUDGET, |place, token| {
                    let due = self.lookup(token, |registered| {
                        registered.state.expire(place, limit, stamp, &mut unpark)
                    });
                    verdict(due.unwrap_or(Due::Lapsed))
                })
        };
        turn.expired = out.len() - before;
        turn.more = more;
        self.compact();
    }

    // ---- the wheel's upkeep ----

    fn place(&self, token: Token, placing: Placing) {
        let mut wheel = self.wheel.borrow_mut();
        match placing {
            Placing::Keep => return,
            Placing::Place { when, left_behind } => {
                wheel.place(when, token);
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

    fn compact(&self) {
        let mut wheel = self.wheel.borrow_mut();
        if wheel.overgrown() {
            wheel.compact(|place, token| {
                let due = self.lookup(token, |registered| registered.state.keeps(place));
                due.unwrap_or(false)
            });
        }
    }
}

fn verdict(due: Due) -> Verdict {
    match due {
        Due::Lapsed => Verdict::Lapsed,
        Due::Nothing => Verdict::Done,
        Due::Again(when) => Verdict::Again(when),
    }
}

impl<W, T> Registered<W, T> {
    #[inline]
    pub(crate) fn set_deadline(&self, direction: Direction, when: Option<Instant>) {
        let tick = match when {
            None => NEVER,
            Some(when) => {
                let tick = self.core.clock.tick_of(when);
                if tick <= self.core.clock.tick().saturating_add(1) {
                    return self.set_near_deadline(direction, when, tick);
                }
                tick
            }
        };
        let placing = self.state.set_deadline(direction, tick);
        if placing != Placing::Keep {
            self.place(placing);
        }
    }

    /// Within a tick of the loop's time, which may be old: only a fresh reading can tell whether
    /// it has passed.
    #[cold]
    #[inline(never)]
    fn set_near_deadline(&self, direction: Direction, when: Instant, tick: Tick) {
        if self.state.is_closed() {
            return;
        }
        if when <= self.core.clock.read() {
            if let Some(w) = self.state.expire_now(direction) {
                self.core.pending.borrow_mut().push(w);
            }
        } else {
            self.place(self.state.set_deadline(direction, tick));
        }
    }

    #[cold]
    #[inline(never)]
    fn place(&self, placing: Placing) {
        self.core.place(self.token, placing);
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
        let mut selector = self.core.selector.borrow_mut();
        selector.rearm(source, self.token, wanted)
    }

    pub(crate) fn deregister(&self, source: &mut dyn Source) -> io::Result<()> {
        if self.registered.get() {
            self.core.selector.borrow_mut().close(source)
        } else {
            Ok(())
        }
    }

    /// Frees the slot; the registry's share goes, and with it perhaps what is carried.
    pub(crate) fn unregister(&self) {
        if !self.registered.replace(false) {
            return;
        }
        self.evict();
        let ours = self.core.registry.borrow_mut().remove(self.token);
        log::trace!("close {:?}", self.token);
        // Out of the borrow: dropping what it carries may run anything.
        drop(ours);
    }
}
