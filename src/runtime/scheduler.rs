//! The loop: what is runnable, what runs, and when to ask the netpoller.
// Mirrors `schedule()`, `findRunnable()` and `execute()` in Go's runtime/proc.go.
//
// # One turn
//
//   ask the netpoller ──► open the mail ──► queue the woken ──► run a batch
//   (no wait, while            │                  ▲  │               │
//    anything is runnable)     └─────► woken ─────┘  │               │
//        │                               ▲           ▼               │
//        └─────────────────────────────────────► queue ──────────────┤
//                                        └─── wakes, spawns, yields ─┘
//
// Wakers put a machine into `woken` once. What the netpoller hands out goes into the queue as it is. A
// machine that comes up there several times runs once: see `machine.rs`.
//
// # The root: the future of `block_on`, which lies on the caller's stack
//
// | state | meaning | moved there by | on to |
// |---|---|---|---|
// | Absent | no `block_on` is under way | the end of one, a panic included | Idle |
// | Idle | it waits, or is polled | `block_on`; its id coming up | Woken by a waker; Absent |
// | Woken | it is to be polled | a waker | Idle when its id comes up; Absent |

use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::io;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use super::blocking::Lane;
use super::context;
use super::counter::Counter;
use super::current::Entered;
use super::host::Host;
use super::join::{Join, JoinError, JoinHandle};
use super::lent::Buffer;
use super::machine::{Body, Machine, MachineId, Machines};
use super::panics::{catch, wake_quietly};
use super::parked::Parked;
use super::running::{Place, Running};
use super::socket::Socket;
use super::waker::{INHERITED, MachineWaker, Remote};
use crate::reactor::{Reactor, RunQueue, Selector, TimeSource, Turn};
use crate::sys::WithWaker;
use crate::wheel::Tick;

/// Machines run between two looks at the selector, so that a long queue does not keep new readiness,
/// and with it the deadlines, waiting.
pub(super) const BATCH: usize = 1024;

/// A queue is swept once it holds more than twice as many ids as machines are alive, plus this many.
const SWEEP: usize = 64;

/// The future of `block_on`: see the table above.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Root {
    Absent,
    Idle,
    Woken,
}

/// See [`Builder::schedule`](super::Builder::schedule).
pub(super) type Schedule = Box<dyn Fn(&mut [MachineId], usize, usize, u64) -> usize>;

/// A runtime's inside: one thread's machines, and the netpoller they park on.
pub(crate) struct Scheduler {
    pub(crate) reactor: Reactor<Parked, Socket>,
    pub(crate) remote: Arc<Remote>,
    pub(super) machines: RefCell<Machines>,
    /// Runnable in this turn, first come, first served. Empty while a batch of it runs.
    queue: RefCell<Vec<Parked>>,
    /// How many ids have left `queue` and come up, ever: the number of the next.
    begun: Cell<u64>,
    /// How many had been queued when the last batch began. More than `begun` while any of them is
    /// still to come up.
    queued: Cell<u64>,
    /// Runnable from the next turn on.
    woken: RefCell<Vec<MachineId>>,
    /// How many rounds have ended: in each, everything ran that was runnable at its beginning.
    rounds: Cell<u64>,
    /// How many ids of `queue`, or of the batch that runs, belong to this round. Zero between two
    /// rounds.
    left_in_round: Cell<usize>,
    root: Cell<Root>,
    /// As a machine's `ran`: how many ids had been queued when the root was polled last.
    root_ran: Cell<u64>,
    /// The lent buffer, while the runtime is not entered.
    pub(crate) buffer: Cell<Option<Buffer>>,
    pub(crate) counters: Counters,
    /// Machines that are a server's connections.
    pub(crate) connections: Cell<usize>,
    /// A host that is called when a turn is due.
    pub(super) host: OnceCell<Host>,
    /// The order in which tests make it run.
    schedule: Option<Schedule>,
}

/// What the runtime has done, ever.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) events: Counter,
    pub(crate) expired: Counter,
    pub(crate) spawned: Counter,
}

impl Scheduler {
    pub(super) fn new(
        selector: Box<dyn Selector>,
        time: TimeSource,
        jobs: Arc<Lane>,
        schedule: Option<Schedule>,
    ) -> Self {
        let reactor = Reactor::with_clock(selector, time, Socket::unpark_beside);
        let remote = Arc::new(Remote::new(reactor.breaker(), jobs));
        Scheduler {
            reactor,
            remote,
            machines: RefCell::default(),
            queue: RefCell::default(),
            begun: Cell::new(0),
            queued: Cell::new(0),
            woken: RefCell::default(),
            rounds: Cell::new(0),
            left_in_round: Cell::new(0),
            root: Cell::new(Root::Absent),
            root_ran: Cell::new(0),
            buffer: Cell::new(None),
            counters: Counters::default(),
            connections: Cell::new(0),
            host: OnceCell::new(),
            schedule,
        }
    }

    /// The reactor's identity, as its descriptors know it.
    pub(crate) fn home(&self) -> *const () {
        Rc::as_ptr(self.reactor.core()).cast()
    }

    // ---- what is runnable ----

    /// Makes a machine, or the root, runnable from the next turn on. Once: one that was woken already
    /// stays where it is.
    #[inline]
    pub(crate) fn wake(&self, id: MachineId) {
        if self.machines.borrow_mut().wake(id) || self.wake_root(id) {
            self.woken.borrow_mut().push(id);
            self.reactor.core().hasten(Tick::ZERO);
        }
    }

    /// As [`Machines::wake`], for the root's id. The root's wakers may outlive it: then they wake
    /// nothing, which would keep a host's loop from sleeping.
    #[cold]
    fn wake_root(&self, id: MachineId) -> bool {
        let is_idle = id == MachineId::ROOT && self.root.get() == Root::Idle;
        if is_idle {
            self.root.set(Root::Woken);
        }
        is_idle
    }

    pub(crate) fn spawn<F>(
        self: &Rc<Self>,
        place: Place,
        name: Option<Arc<str>>,
        future: F,
    ) -> JoinHandle<F::Output>
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
        self.remote.running.enter(id, "task", place, name);
        log::trace!("spawn {id:?}, a future of {} bytes", size_of::<F>());
        JoinHandle::new(self, id, join)
    }

    /// Takes in a machine that is no future.
    pub(crate) fn spawn_machine(&self, place: Place, machine: Box<dyn Machine>) -> MachineId {
        let id = self.insert(|_| Pin::from(machine));
        self.remote.running.enter(id, "connection", place, None);
        id
    }

    fn insert(&self, make: impl FnOnce(MachineId) -> Body) -> MachineId {
        let id = self.machines.borrow_mut().insert(make);
        self.woken.borrow_mut().push(id);
        self.reactor.core().hasten(Tick::ZERO);
        self.counters.spawned.add(1);
        id
    }

    /// Makes every machine runnable: for news that concern some machines, where no list says which.
    /// For a task that is a spurious wake.
    pub(crate) fn wake_all(&self) {
        let all = self.machines.borrow().ids();
        all.into_iter().for_each(|id| self.wake(id));
    }

    /// A machine that may be in a queue was aborted. Its id is skipped when it comes up. Calls that
    /// spawn and abort without a turn must not pile such ids up, so they are swept out once they
    /// outnumber the machines that live.
    pub(super) fn sweep(&self) {
        let (mut woken, mut machines) = (self.woken.borrow_mut(), self.machines.borrow_mut());
        if woken.len() > 2 * machines.len() + SWEEP {
            woken.retain(|&id| id == MachineId::ROOT || machines.is_woken(id));
        }
    }

    fn has_runnable(&self) -> bool {
        self.begun.get() < self.queued.get()
            || !self.queue.borrow().is_empty()
            || !self.woken.borrow().is_empty()
            || self.remote.has_mail()
    }

    // ---- one turn, in the order of the diagram ----

    /// Runs `most` machines at most. `root` polls the future of `block_on`, if there is one.
    pub(crate) fn turn(
        &self,
        max_wait: Option<Duration>,
        most: usize,
        root: &mut dyn FnMut() -> Poll<()>,
    ) -> io::Result<Turn> {
        let mut turn = self.ask_netpoller(max_wait)?;
        self.publish_batch();
        self.open_mail();
        self.queue_woken();
        turn.machines = self.run_batch(most, root);

        // A machine that ran last may have closed a socket, or set a deadline in the past.
        let core = self.reactor.core();
        turn.more |= self.has_runnable() || core.has_pending() || core.is_due();
        self.remote.running.turns.add(1);
        self.counters.events.add(turn.events as u64);
        self.counters.expired.add(turn.expired as u64);
        Ok(turn)
    }

    /// Queues what was woken and has not run since. A machine that yielded, to let others go first,
    /// comes after what was just handed out.
    fn queue_woken(&self) {
        let (mut queue, mut woken) = (self.queue.borrow_mut(), self.woken.borrow_mut());
        let mut machines = self.machines.borrow_mut();
        let root = (MachineId::ROOT, Root::Woken);
        let is_woken = |id: &MachineId| (*id, self.root.get()) == root || machines.is_woken(*id);
        let woken = woken.drain(..).filter(is_woken).map(Parked::machine);
        match fault!("starved_machine") {
            true => drop(queue.splice(0..0, woken)),
            false => queue.extend(woken),
        }
    }

    /// Says when what runs now began: see `Running::holder`.
    #[inline]
    fn publish_batch(&self) {
        let clock = &self.reactor.core().clock;
        if clock.is_systems() {
            self.remote.running.begin_batch(clock.tick().get());
        }
    }

    /// One turn of the reactor. What it hands out is queued, also when the selector fails.
    fn ask_netpoller(&self, max_wait: Option<Duration>) -> io::Result<Turn> {
        let jobs_out = self.remote.jobs_out.load(Ordering::Acquire);
        let (max_wait, run_queue) = match self.has_runnable() {
            true => {
                let rounds = self.rounds.get();
                (Some(Duration::ZERO), RunQueue::Busy { rounds })
            }
            false if jobs_out > 0 => (max_wait, RunQueue::JobsOut),
            false => (max_wait, RunQueue::Empty),
        };
        let mut queue = self.queue.take();
        let before = queue.len();
        let turn = self.reactor.core().turn(max_wait, run_queue, &mut queue);
        // Foreign wakers are woken at once, with no borrow held: they may run any code.
        let foreign = match Parked::any_foreign(&queue[before..]) {
            true => queue
                .extract_if(before.., |parked| parked.is_foreign())
                .collect(),
            false => Vec::new(),
        };
        self.queue.replace(queue);
        foreign.into_iter().for_each(|parked| self.unpark(parked));
        turn
    }

    /// Makes runnable what was parked, or wakes the foreign waker that it stands for.
    pub(super) fn unpark(&self, parked: Parked) {
        match parked.is_foreign() {
            true => parked.take_waker().into_iter().for_each(wake_quietly),
            false => self.wake(parked.as_machine()),
        }
    }

    /// Makes runnable what other threads woke, and runs what they sent.
    #[inline]
    fn open_mail(&self) {
        let Some((woken, jobs)) = self.remote.collect() else {
            return;
        };
        for waker in woken {
            self.wake(waker.opened());
        }
        for job in jobs {
            self.remote.running.begin_job();
            // Nothing joins a job, so its panic stays here.
            if catch(job).is_err() {
                log::error!("a future sent through a Handle panicked before it was made");
            }
        }
        self.remote.running.end();
        // So that the jobs' time is not taken for that of the machines.
        self.reactor.core().clock.read();
    }

    /// Runs what is runnable, up to a bound. Returns how many machines that were, the root aside.
    // Kept apart from the rest of the turn, which shares nothing with this loop.
    #[inline(never)]
    fn run_batch(&self, mut most: usize, root: &mut dyn FnMut() -> Poll<()>) -> usize {
        let mut batch = self.queue.take();
        // A round begins with everything that is runnable now.
        if self.left_in_round.get() == 0 {
            self.left_in_round.set(batch.len());
        }
        if let Some(schedule) = &self.schedule {
            let (round, now) = (self.left_in_round.get(), self.reactor.core().clock.tick());
            let mut ids: Vec<_> = batch.iter().map(|parked| parked.as_machine()).collect();
            most = schedule(&mut ids, round, most, now.get());
            batch = ids.into_iter().map(Parked::machine).collect();
            // In another order no id may get a lower number.
            self.begun.update(|begun| begun + batch.len() as u64);
        }
        let running: &Running = &self.remote.running;
        let (mut since, runs) = (self.reactor.core().clock.last_real(), running.runs.get());
        let is_careful = running.is_careful();
        let queued = self.begun.get() + batch.len() as u64;
        self.queued.set(queued);
        for parked in &batch[..most.min(batch.len())] {
            let number = self.begun.get();
            self.begun.set(number + 1);
            let id = parked.as_machine();
            let body = self.machines.borrow_mut().start(id, number, queued);
            match body {
                Some(body) => {
                    running.begin(id);
                    self.run(id, body);
                }
                // It has run since its id was queued, or is gone; or it is the root, which is no machine.
                None if self.starts_root(id, number, queued) && root().is_ready() => break,
                None => {}
            }
            if is_careful {
                running.ran(parked, &mut since);
            }
        }
        let begun = batch.len() - (queued - self.begun.get()) as usize;
        running.end();
        running.lap(&batch[..begun], since);
        context::end();
        batch.drain(..begun);
        let meanwhile = self.queue.replace(batch);
        debug_assert!(meanwhile.is_empty(), "it is filled before a batch");

        let left = self.left_in_round.get().saturating_sub(begun);
        self.left_in_round.set(left);
        if left == 0 {
            self.rounds.set(self.rounds.get() + 1);
        }
        (running.runs.get() - runs) as usize
    }

    #[inline]
    fn run(&self, id: MachineId, mut body: Body) {
        let ended = match catch(|| body.as_mut().run(id)) {
            Ok(Poll::Pending) => {
                let aborted = self.machines.borrow_mut().suspend(id, body);
                // It was aborted while it ran.
                let Some(body) = aborted else { return };
                (body, Some(JoinError::aborted()))
            }
            Ok(Poll::Ready(())) => (body, None),
            Err(payload) => (body, Some(JoinError::panicked(payload))),
        };
        context::end();
        self.finish(id, ended.0, ended.1);
    }

    /// As [`Machines::start`], of the root.
    #[cold]
    fn starts_root(&self, id: MachineId, number: u64, queued: u64) -> bool {
        let starts = id == MachineId::ROOT && number >= self.root_ran.get();
        if starts {
            self.root_ran.set(queued);
        }
        starts
    }

    /// How long a turn may sleep.
    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        if self.has_runnable() {
            return Some(Duration::ZERO);
        }
        self.reactor.next_timeout()
    }

    // ---- block_on ----

    pub(crate) fn block_on<F: Future>(self: &Rc<Self>, future: F) -> F::Output {
        let _entered = Entered::new(self);
        let mut future = std::pin::pin!(future);
        let waker = MachineWaker::waker(MachineId::ROOT, &self.remote);
        let mut output = None;
        // A panic is passed on when the turn has come to its end.
        let mut poll = || {
            self.root.set(Root::Idle);
            self.remote.running.begin_root();
            context::begin(MachineId::ROOT, &waker);
            let polled = catch(|| future.as_mut().poll(&mut Context::from_waker(&waker)));
            context::end();
            self.remote.running.end();
            match polled {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(returned)) => output = Some(Ok(returned)),
                Err(payload) => output = Some(Err(payload)),
            }
            Poll::Ready(())
        };
        // What was sent between two calls comes first, in the order of time. And calls that never turn
        // must not leave it to pile up.
        self.publish_batch();
        self.open_mail();
        // Polled at once the first time; from then on when its id comes up in the queue, like a
        // machine.
        let mut polled = poll();
        while polled.is_pending() {
            let mut root = || {
                polled = poll();
                polled
            };
            if let Err(error) = self.turn(None, BATCH, &mut root) {
                self.end_root();
                panic!("netpoller: the selector failed, and nothing can go on: {error}");
            }
        }
        self.end_root();
        match output.expect("it was ready") {
            Ok(returned) => returned,
            Err(payload) => resume_unwind(payload.into_inner()),
        }
    }

    /// There is no root any more. Calls that never turn must not leave an id each behind.
    fn end_root(&self) {
        self.root.set(Root::Absent);
        let mut queue = self.queue.borrow_mut();
        let before = queue.len();
        queue.retain(|&parked| parked != Parked::machine(MachineId::ROOT));
        // No id may get a lower number.
        let gone = before - queue.len();
        self.begun.update(|begun| begun + gone as u64);
        self.left_in_round.update(|left| left.min(queue.len()));
        self.woken.borrow_mut().retain(|&id| id != MachineId::ROOT);
    }
}
