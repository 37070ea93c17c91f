//! The loop: what is runnable, what runs, and when to ask the netpoller.
//!
//! May touch: the reactor, the wheel's timers, and the files beside it. Mirrors `schedule()`,
//! `findRunnable()` and `execute()` in Go's `runtime/proc.go`.
//!
//! # One turn
//!
//! ```text
//!   how long may we sleep? ──► reactor.turn ──► timers ──► mail ──► woken ──► run a batch ─┐
//!    (not at all, while             │              │         │        ▲  │                 │
//!     anything is runnable)         └──► ids ──────┴─────────┴────────┼──┴──► batch        │
//!                                                wakes, spawns, yields └───────────────────┘
//! ```

mod backlog;
mod batch;
mod ending;
mod root;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use super::blocking::Lane;
use super::context;
use super::join::{JoinError, Joins};
use super::lent::Buffer;
use super::machine::{Body, Machine, MachineId, Machines, Output};
use super::panics::{catch, drop_quietly, wake_quietly};
use super::resource::{Parked, Place, Resource, Who};
use super::sleeper::Sleeper;
use super::waker::{MachineWaker, Remote};
use crate::reactor::{Poller, Reactor, Turn};
use crate::sys::WithWaker;
use crate::wheel::Timers;
use backlog::Backlog;
use batch::{Batch, Runnable};
use root::Root;

/// Timers fired in one turn at most.
const TIMER_BUDGET: usize = 4096;

/// A runtime's inside: one thread's machines, and the netpoller they park on.
pub(crate) struct Scheduler {
    pub(crate) reactor: Reactor<Parked, Resource>,
    pub(crate) remote: Arc<Remote>,
    pub(crate) timers: RefCell<Timers<Sleeper>>,
    machines: Machines,
    pub(crate) joins: RefCell<Joins>,
    /// Runnable from the next turn on.
    woken: RefCell<Vec<Runnable>>,
    /// Runnable in this turn, and how many of them have been run.
    batch: RefCell<Batch>,
    /// How far those have run whom the netpoller handed out.
    backlog: Cell<Backlog>,
    root: Cell<Root>,
    /// Where a machine that is done leaves what it returns.
    output: Cell<Output>,
    /// The lent buffer, between turns.
    pub(crate) buffer: Cell<Option<Buffer>>,
    pub(crate) counters: Counters,
    /// Machines that are a server's connections.
    pub(crate) connections: Cell<usize>,
}

/// What the runtime has done, ever.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) turns: Cell<u64>,
    pub(crate) events: Cell<u64>,
    pub(crate) machines: Cell<u64>,
    pub(crate) expired: Cell<u64>,
    pub(crate) spawned: Cell<u64>,
}

fn add(counter: &Cell<u64>, more: usize) {
    counter.set(counter.get().wrapping_add(more as u64));
}

impl Scheduler {
    pub(crate) fn new(poller: Poller, is_virtual: bool, jobs: Arc<Lane>) -> Self {
        let reactor = Reactor::carrying(poller, is_virtual);
        let remote = Arc::new(Remote::new(reactor.breaker(), jobs));
        Scheduler {
            reactor,
            remote,
            timers: RefCell::new(Timers::new()),
            machines: Machines::new(),
            joins: RefCell::new(HashMap::new()),
            woken: RefCell::new(Vec::new()),
            batch: RefCell::default(),
            backlog: Cell::default(),
            root: Cell::new(Root::Absent),
            output: Cell::new(None),
            buffer: Cell::new(None),
            counters: Counters::default(),
            connections: Cell::new(0),
        }
    }

    /// The reactor's identity, as its descriptors know it.
    pub(crate) fn home(&self) -> *const () {
        Rc::as_ptr(self.reactor.core()).cast()
    }

    // ---- who is runnable ----

    /// Makes a machine runnable, once.
    #[inline]
    pub(crate) fn wake(&self, id: MachineId) {
        if id == MachineId::ROOT {
            self.wake_root();
        } else if self.machines.wake(id) {
            self.woken.borrow_mut().push(Runnable::machine(id));
        }
    }

    pub(crate) fn spawn<F>(&self, future: F) -> MachineId
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let make = |id| -> Body {
            let waker = MachineWaker::waker(id, &self.remote);
            Box::pin(WithWaker::new(waker, future))
        };
        let id = self.machines.insert(make);
        self.woken.borrow_mut().push(Runnable::machine(id));
        add(&self.counters.spawned, 1);
        log::trace!("spawn {id:?}, a future of {} bytes", size_of::<F>());
        id
    }

    /// Takes in a machine that is no future. Nobody joins it.
    pub(crate) fn spawn_machine(&self, machine: Box<dyn Machine>) -> MachineId {
        let id = self.machines.insert(|_| -> Body { Pin::from(machine) });
        self.detach(id);
        self.woken.borrow_mut().push(Runnable::machine(id));
        add(&self.counters.spawned, 1);
        id
    }

    /// Runs everybody once: for news that concern machines of which nobody keeps a list. To a
    /// task it is a spurious wake.
    pub(crate) fn wake_all(&self) {
        let all = self.machines.ids();
        all.into_iter().for_each(|id| self.wake(id));
    }

    fn has_runnable(&self) -> bool {
        !self.batch.borrow().left().is_empty()
            || !self.woken.borrow().is_empty()
            || self.root.get() == Root::Woken
            || self.remote.has_mail()
    }

    // ---- one turn, in the order of the diagram ----

    pub(crate) fn turn(&self, max_wait: Option<Duration>) -> io::Result<Turn> {
        let wait = match self.has_runnable() {
            true => Some(Duration::ZERO),
            false => self.sleep_limit(max_wait),
        };
        let mut batch = self.batch.take();
        let may_jump = self.remote.jobs_out.load(Ordering::Acquire) == 0;
        let behind = self.backlog.get().behind();
        let before = batch.all.len();
        let all = &mut batch.all;
        let polled = self.reactor.turn_held(wait, may_jump, behind, all);
        let mut turn = match polled {
            Ok(turn) => turn,
            Err(error) => {
                self.batch.replace(batch);
                return Err(error);
            }
        };
        context::set_now(self.reactor.now());
        if log::log_enabled!(log::Level::Trace) {
            trace_unparked(batch.left());
        }
        let handed = batch.all.len() > before;
        self.fire_timers(&mut batch, &mut turn);
        self.open_mail();
        // Who yielded, to let others have their turn, comes after them.
        batch.all.append(&mut self.woken.borrow_mut());
        self.run_batch(&mut batch, &mut turn);
        let left = batch.left().len();
        let queued = left + self.woken.borrow().len();
        self.backlog.set(match queued {
            0 => Backlog::default(),
            _ => self.backlog.get().after(handed, turn.machines, left),
        });
        self.batch.replace(batch);
        turn.more |= self.has_runnable();
        add(&self.counters.turns, 1);
        add(&self.counters.events, turn.events);
        add(&self.counters.machines, turn.machines);
        add(&self.counters.expired, turn.expired);
        Ok(turn)
    }

    /// The caller's limit, or the next timer if that is sooner.
    fn sleep_limit(&self, max_wait: Option<Duration>) -> Option<Duration> {
        let next = {
            let mut timers = self.timers.borrow_mut();
            if self.reactor.is_virtual() {
                timers.next_live()
            } else {
                timers.next()
            }
        };
        match next {
            None => max_wait,
            Some(next) => {
                let until = self.reactor.until(next);
                Some(max_wait.map_or(until, |max_wait| max_wait.min(until)))
            }
        }
    }

    #[inline]
    fn open_mail(&self) {
        let Some((woken, jobs)) = self.remote.collect() else {
            return;
        };
        for id in woken {
            self.wake(id);
        }
        for job in jobs {
            // A panic in a job is nobody's to join: it stays here.
            if catch(job).is_err() {
                log::error!("a future sent through a Handle panicked before it was made");
            }
        }
    }

    #[inline]
    fn fire_timers(&self, batch: &mut Batch, turn: &mut Turn) {
        let now = self.reactor.tick();
        let mut timers = self.timers.borrow_mut();
        match timers.next() {
            Some(next) if next <= now => {}
            _ => return,
        }
        let mut foreign = Vec::new();
        let mut fired = 0;
        turn.more |= timers.advance(now, TIMER_BUDGET, |sleeper| {
            fired += 1;
            match sleeper {
                Sleeper::Machine(id) => batch.all.push(Runnable::machine(id)),
                Sleeper::Foreign(waker) => foreign.push(waker),
            }
        });
        turn.expired += fired;
        drop(timers);
        foreign.into_iter().for_each(wake_quietly);
    }

    #[inline]
    fn run(&self, parked: Parked) {
        let id = parked.as_machine();
        let started = self.machines.slot(id).map(|slot| (slot, slot.start()));
        let Some((slot, Some(mut body))) = started else {
            return self.run_none(parked);
        };
        let run = || body.as_mut().run(id);
        let ran = catch(run);
        if let Ok(Poll::Pending) = ran {
            if let Some(body) = slot.suspend(body) {
                self.run_aborted(id, body);
            }
        } else {
            context::end();
            self.finish(id, body, ran.err());
        }
    }

    /// What came up is no machine: the root, a waker that is kept beside a descriptor, or nobody
    /// any more.
    #[cold]
    #[inline(never)]
    fn run_none(&self, parked: Parked) {
        match parked.who() {
            Who::Machine(MachineId::ROOT) => self.wake_root(),
            Who::Machine(_) => {}
            Who::Foreign { token_bits, place } => self.wake_foreign(token_bits, place),
        }
    }

    /// It was aborted while it ran.
    #[cold]
    #[inline(never)]
    fn run_aborted(&self, id: MachineId, body: Body) {
        context::end();
        drop_quietly(body);
        let joined = self.machines.finish(id);
        self.end(id, joined, Err(JoinError::aborted()));
    }

    #[cold]
    #[inline(never)]
    fn wake_foreign(&self, token_bits: u64, place: Place) {
        // Whatever a stranger's waker does, the last machine has no part in it.
        context::end();
        let slot = Parked::slot(token_bits);
        let is_it = |token| Parked::token_bits(token) == token_bits;
        let take = |resource: &Resource| resource.take_wakers(place);
        let wakers = self.reactor.carried(slot, is_it, take);
        wakers.into_iter().flatten().for_each(wake_quietly);
    }

    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        if self.has_runnable() {
            return Some(Duration::ZERO);
        }
        self.sleep_limit(self.reactor.next_timeout())
    }
}

#[cold]
fn trace_unparked(runnable: &[Runnable]) {
    for Runnable { parked, .. } in runnable {
        log::trace!("unpark {parked:?}");
    }
}
