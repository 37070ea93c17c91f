//! The loop: what is runnable, what runs, and when to ask the netpoller.
// Mirrors `schedule()`, `findRunnable()` and `execute()` in Go's runtime/proc.go.
//
// # One turn
//
//   reactor.turn ──► queue what it hands out ──► mail ──► woken ──► run a batch ─┐
//   (no wait, while        │                       │        ▲  │        │        │
//    anything is           │                       └────────┤  │        │        │
//    runnable)             └──────────► queue ◄─────────────┼──┘        │        │
//                                                           └───────────┘        │
//            wakes, spawns and yields of a batch run from the next turn on ◄─────┘
//
// A machine stands in one of the two queues, `queue` or `woken`, and once: its `queued` bit says
// so, whatever comes for it.

mod ending;
mod root;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};
use std::time::Duration;

use slab::Slab;

use super::blocking::Lane;
use super::context;
use super::join::{JoinError, Joins};
use super::lent::Buffer;
use super::machine::{Body, Machine, MachineId, Machines, Output};
use super::panics::{catch, drop_quietly, wake_quietly};
use super::resource::{Parked, Resource, Who};
use super::waker::{MachineWaker, Remote};
use crate::reactor::{Jump, Reactor, RunQueue, Selector, TimeSource, Turn};
use crate::sys::WithWaker;
use root::Root;

/// Machines run between two looks at the selector, so that a long queue does not keep new
/// readiness, and with it everybody's deadlines, waiting.
const BATCH: usize = 1024;

/// So many ids of machines that have ended may stand in the queues before these are swept.
const DEAD: usize = 64;

/// A runtime's inside: one thread's machines, and the netpoller they park on.
pub(crate) struct Scheduler {
    pub(crate) reactor: Reactor<Parked, Resource>,
    pub(crate) remote: Arc<Remote>,
    /// The wakers of sleeps that another executor polls. `None` once it has been woken.
    pub(crate) sleepers: RefCell<Slab<Option<Waker>>>,
    machines: Machines,
    pub(crate) joins: RefCell<Joins>,
    /// Runnable in this turn, first come, first served.
    queue: RefCell<VecDeque<MachineId>>,
    /// Runnable from the next turn on.
    woken: RefCell<VecDeque<MachineId>>,
    /// At most so many ids in the two queues are of machines that were aborted.
    dead: Cell<usize>,
    /// So many rounds have ended: in each, all ran that were runnable at its beginning.
    rounds: Cell<u64>,
    /// So many machines have still to run in the round under way. Zero between two rounds.
    left_in_round: Cell<usize>,
    /// What the reactor handed out, kept between turns for its memory. Empty.
    handed_out: Cell<Vec<Parked>>,
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
    pub(crate) fn new(selector: Box<dyn Selector>, time: TimeSource, jobs: Arc<Lane>) -> Self {
        let reactor = Reactor::with_clock(selector, time);
        let remote = Arc::new(Remote::new(reactor.breaker(), jobs));
        Scheduler {
            reactor,
            remote,
            sleepers: RefCell::default(),
            machines: Machines::new(),
            joins: RefCell::new(HashMap::new()),
            queue: RefCell::default(),
            woken: RefCell::default(),
            dead: Cell::new(0),
            rounds: Cell::new(0),
            left_in_round: Cell::new(0),
            handed_out: Cell::default(),
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
        if self.mark_queued(id) {
            self.woken.borrow_mut().push_back(id);
        }
    }

    /// Whether a machine is alive and in no queue. From here on it counts as queued.
    #[inline]
    fn mark_queued(&self, id: MachineId) -> bool {
        match id {
            MachineId::ROOT => self.mark_root_queued(),
            id => self.machines.wake(id),
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
        self.woken.borrow_mut().push_back(id);
        add(&self.counters.spawned, 1);
        log::trace!("spawn {id:?}, a future of {} bytes", size_of::<F>());
        id
    }

    /// Takes in a machine that is no future. Nobody joins it.
    pub(crate) fn spawn_machine(&self, machine: Box<dyn Machine>) -> MachineId {
        let id = self.machines.insert(|_| -> Body { Pin::from(machine) });
        self.detach(id);
        self.woken.borrow_mut().push_back(id);
        add(&self.counters.spawned, 1);
        id
    }

    /// Runs everybody once: for news that concern machines of which nobody keeps a list. To a
    /// task it is a spurious wake.
    pub(crate) fn wake_all(&self) {
        let all = self.machines.ids();
        all.into_iter().for_each(|id| self.wake(id));
    }

    /// A machine that may stand in a queue was aborted. Its id is swept out with others.
    pub(crate) fn note_dead(&self) {
        let dead = self.dead.get() + 1;
        self.dead.set(dead);
        let (mut queue, mut woken) = (self.queue.borrow_mut(), self.woken.borrow_mut());
        if dead > DEAD && dead > (queue.len() + woken.len()) / 2 {
            let lives = |&id: &MachineId| id == MachineId::ROOT || self.machines.is_alive(id);
            queue.retain(lives);
            woken.retain(lives);
            self.dead.set(0);
        }
    }

    fn has_runnable(&self) -> bool {
        !self.queue.borrow().is_empty() || !self.woken.borrow().is_empty() || self.remote.has_mail()
    }

    // ---- one turn, in the order of the diagram ----

    /// `root` polls the future of `block_on`, if there is one.
    pub(crate) fn turn(
        &self,
        max_wait: Option<Duration>,
        root: &mut dyn FnMut() -> Poll<()>,
    ) -> io::Result<Turn> {
        let mut turn = self.ask_netpoller(max_wait)?;
        self.open_mail();
        // A machine that yielded, to let others go first, comes after what was just handed out.
        self.queue.borrow_mut().append(&mut self.woken.borrow_mut());
        turn.machines = self.run_batch(root);

        // Whoever ran last may have closed a socket, or set a deadline in the past.
        let core = self.reactor.core();
        turn.more |= self.has_runnable() || core.has_pending() || core.is_due();
        add(&self.counters.turns, 1);
        add(&self.counters.events, turn.events);
        add(&self.counters.expired, turn.expired);
        Ok(turn)
    }

    /// One turn of the reactor. What it hands out is queued, also when the selector fails.
    fn ask_netpoller(&self, max_wait: Option<Duration>) -> io::Result<Turn> {
        let (max_wait, run_queue) = match self.has_runnable() {
            true => {
                let rounds = self.rounds.get();
                (Some(Duration::ZERO), RunQueue::Busy { rounds })
            }
            false => (max_wait, RunQueue::Empty),
        };
        // A virtual clock waits for the blocking jobs.
        let jump = match self.remote.jobs_out.load(Ordering::Acquire) {
            0 => Jump::Allowed,
            _ => Jump::Held,
        };
        let mut handed_out = self.handed_out.take();
        let turn = self
            .reactor
            .turn_beside(max_wait, run_queue, jump, &mut handed_out);
        self.queue_handed_out(&mut handed_out);
        self.handed_out.set(handed_out);
        turn
    }

    /// Queues the machines that the reactor handed out, and wakes the foreign wakers.
    #[inline]
    fn queue_handed_out(&self, handed_out: &mut Vec<Parked>) {
        let mut foreign = Vec::new();
        let mut queue = self.queue.borrow_mut();
        for parked in handed_out.drain(..) {
            if log::log_enabled!(log::Level::Trace) {
                log::trace!("unpark {parked:?}");
            }
            let id = parked.as_machine();
            if self.mark_queued(id) {
                queue.push_back(id);
            } else {
                self.take_foreign(parked, &mut foreign);
            }
        }
        drop(queue);
        // Without a borrow: a waker may run anything.
        foreign.into_iter().for_each(wake_quietly);
    }

    /// What was parked is a machine that is queued or gone, or none at all.
    #[cold]
    #[inline(never)]
    fn take_foreign(&self, parked: Parked, foreign: &mut Vec<Waker>) {
        match parked.who() {
            Who::Machine => {}
            Who::Foreign { token_bits, place } => {
                let desc = self.reactor.in_slot(Parked::slot(token_bits));
                let desc = desc.filter(|desc| Parked::token_bits(desc.token()) == token_bits);
                foreign.extend(
                    desc.into_iter()
                        .flat_map(|desc| desc.user_data.take_wakers(place)),
                );
            }
            Who::Sleeper(key) => {
                let mut sleepers = self.sleepers.borrow_mut();
                foreign.extend(sleepers.get_mut(key).and_then(Option::take));
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

    /// Runs what is runnable, up to a bound. Returns how many machines that were, the root aside.
    fn run_batch(&self, root: &mut dyn FnMut() -> Poll<()>) -> usize {
        let queued = self.queue.borrow().len();
        // A round begins with all that are runnable now.
        if self.left_in_round.get() == 0 {
            self.left_in_round.set(queued);
        }
        let (mut ran, mut machines) = (0, 0);
        while ran < queued.min(BATCH) {
            let Some(id) = self.queue.borrow_mut().pop_front() else {
                break;
            };
            ran += 1;
            if id != MachineId::ROOT {
                machines += 1;
                // At once: the root may ask for the figures in the midst of a batch.
                add(&self.counters.machines, 1);
                self.run(id);
            } else if self.run_root(root).is_ready() {
                break;
            }
        }
        context::end();
        let left = self.left_in_round.get().saturating_sub(ran);
        self.left_in_round.set(left);
        if left == 0 {
            self.rounds.set(self.rounds.get() + 1);
        }
        machines
    }

    #[inline]
    fn run(&self, id: MachineId) {
        let started = self.machines.slot(id).map(|slot| (slot, slot.start()));
        let Some((slot, Some(mut body))) = started else {
            // It was aborted while it was queued.
            return;
        };
        let ran = catch(|| body.as_mut().run(id));
        if let Ok(Poll::Pending) = ran {
            if let Some(body) = slot.suspend(body) {
                self.run_aborted(id, body);
            }
        } else {
            context::end();
            self.finish(id, body, ran.err());
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

    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        if self.has_runnable() {
            return Some(Duration::ZERO);
        }
        self.reactor.next_timeout()
    }
}
