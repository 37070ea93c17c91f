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
mod root;

use std::cell::{Cell, RefCell};
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
use super::counter::Counter;
use super::join::{Join, JoinError, JoinHandle, Outcomes};
use super::lent::Buffer;
use super::machine::{Body, Machine, MachineId, Machines};
use super::panics::{catch, wake_quietly};
use super::sleeper::Sleeper;
use super::socket::{Parked, Slot, Socket, Who};
use super::waker::{INHERITED, MachineWaker, Remote};
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
    pub(crate) reactor: Reactor<Parked, Socket>,
    pub(crate) remote: Arc<Remote>,
    pub(crate) timers: RefCell<Timers<Sleeper>>,
    pub(super) machines: Machines,
    pub(super) outcomes: Outcomes,
    /// Runnable from the next turn on.
    woken: RefCell<Vec<Runnable>>,
    /// Runnable in this turn, and how many of them have been run.
    batch: RefCell<Batch>,
    /// How far those have run whom the netpoller handed out.
    backlog: Cell<Backlog>,
    root: Cell<Root>,
    /// The lent buffer, between turns.
    pub(crate) buffer: Cell<Option<Buffer>>,
    pub(crate) counters: Counters,
    /// Machines that are a server's connections.
    pub(crate) connections: Cell<usize>,
}

/// What the runtime has done, ever.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) turns: Counter,
    pub(crate) events: Counter,
    pub(crate) machines: Counter,
    pub(crate) expired: Counter,
    pub(crate) spawned: Counter,
}

impl Scheduler {
    pub(crate) fn new(poller: Poller, is_virtual: bool, jobs: Arc<Lane>) -> Self {
        let reactor = Reactor::carrying(poller, is_virtual);
        let remote = Arc::new(Remote::new(reactor.breaker(), jobs));
        Scheduler {
            reactor,
            remote,
            timers: RefCell::new(Timers::new()),
            machines: Machines::default(),
            outcomes: Outcomes::default(),
            woken: RefCell::new(Vec::new()),
            batch: RefCell::default(),
            backlog: Cell::default(),
            root: Cell::new(Root::Absent),
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

    pub(crate) fn spawn<F>(self: &Rc<Self>, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        assert!(!self.remote.is_inherited(), "{INHERITED}");
        let join = Join::new();
        let id = self.insert(|id| {
            let waker = MachineWaker::waker(id, &self.remote);
            Box::pin(WithWaker::new(waker, Some(join.clone()), future))
        });
        log::trace!("spawn {id:?}, a future of {} bytes", size_of::<F>());
        JoinHandle::new(self, id, join)
    }

    /// Takes in a machine that is no future.
    pub(crate) fn spawn_machine(&self, machine: Box<dyn Machine>) -> MachineId {
        self.insert(|_| Pin::from(machine))
    }

    fn insert(&self, make: impl FnOnce(MachineId) -> Body) -> MachineId {
        let id = self.machines.insert(make);
        self.woken.borrow_mut().push(Runnable::machine(id));
        self.counters.spawned.add(1);
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
        context::set_now(Some(self.reactor.now()));
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
        self.counters.turns.add(1);
        self.counters.events.add(turn.events as u64);
        self.counters.machines.add(turn.machines as u64);
        self.counters.expired.add(turn.expired as u64);
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
        for waker in woken {
            self.wake(waker.opened());
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
        let Some(mut body) = self.machines.start(id) else {
            return self.run_none(parked);
        };
        let ended = match catch(|| body.as_mut().run(id)) {
            Ok(Poll::Pending) => match self.machines.suspend(id, body) {
                None => return,
                // It was aborted while it ran.
                Some(body) => (body, Some(JoinError::aborted())),
            },
            Ok(Poll::Ready(())) => (body, None),
            Err(payload) => (body, Some(JoinError::panicked(payload))),
        };
        context::end();
        self.finish(id, ended.0, ended.1);
    }

    /// What came up is no machine: the root, a waker that is kept beside a descriptor, or nobody
    /// any more.
    #[cold]
    #[inline(never)]
    fn run_none(&self, parked: Parked) {
        match parked.who() {
            Who::Machine(MachineId::ROOT) => self.wake_root(),
            Who::Machine(_) => {}
            Who::Foreign { token_bits, slot } => self.wake_foreign(token_bits, slot),
        }
    }

    #[cold]
    #[inline(never)]
    fn wake_foreign(&self, token_bits: u64, slot: Slot) {
        // Whatever a stranger's waker does, the last machine has no part in it.
        context::end();
        let token_slot = Parked::token_slot(token_bits);
        let is_it = |token| Parked::token_bits(token) == token_bits;
        let take = |socket: &Socket| socket.take_wakers(slot);
        let wakers = self.reactor.carried(token_slot, is_it, take);
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
