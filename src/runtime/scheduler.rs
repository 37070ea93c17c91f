//! The loop: what is runnable, what runs, and when to ask the netpoller.
// Mirrors `schedule()`, `findRunnable()` and `execute()` in Go's runtime/proc.go.
//
// # One turn
//
//   1. ask the netpoller: what it hands out goes into `queue` (no wait while anything is runnable)
//   2. open the mail: what other threads woke goes to the front of `woken`, and the jobs that they sent run
//   3. move `woken` to the end of `queue`
//   4. run a batch from the front of `queue`
//
// A wake or a spawn puts the machine's id into `woken`, also during a batch: then it runs in the next
// turn, or later if more than a batch is queued before it. An id is in at most one of the two queues, and
// only once: its slot's `is_queued` ensures it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use slab::Slab;

use super::blocking::Lane;
use super::context::{self, ParkKey, Waiter};
use super::current::{self, Entered};
use super::handle::Handle;
use super::host::Host;
use super::join::{self, JoinError, JoinHandle};
use super::look::Noted;
use super::machine::{Body, Machine, MachineId, Machines};
use super::panics::{catch, wake_quietly};
use super::running::{Place, Running};
use super::socket::Socket;
use super::stats::{Figures, OBSERVES, Stopwatch};
use super::waker::{MachineWaker, Remote};
use crate::reactor::{Core, Reactor, RunQueue, Selector, TimeSource, Turn};
use crate::sys::{FdCopy, WithWaker};
use crate::trace::{JOB, Kind, NOTHING, Recorder, THREAD, Tape};

/// The largest number of machines that run between two polls of the selector. So new readiness and
/// deadlines do not wait for all of a long queue.
pub(super) const BATCH: usize = 1024;

/// See [`Builder::schedule`](super::Builder::schedule).
pub(super) type Schedule = Box<dyn Fn(&mut [MachineId], usize, usize, u64) -> usize>;

/// A runtime's inside: one thread's machines, and the netpoller they park on.
pub(crate) struct Scheduler {
    pub(crate) reactor: Reactor<ParkKey, Socket>,
    pub(crate) remote: Arc<Remote>,
    pub(super) machines: RefCell<Machines>,
    /// Runnable, in the order in which they run. Empty while a batch of it runs.
    pub(super) queue: RefCell<Vec<MachineId>>,
    /// Runnable, and moved to the end of `queue` before the next batch.
    pub(super) woken: RefCell<Vec<MachineId>>,
    /// How many ids of `queue`, or of the batch that runs, belong to this round. Zero between two rounds.
    left_in_round: Cell<usize>,
    /// The root's waker, as a dump knows it, while there is a root.
    pub(super) root_waker: Cell<Option<Waiter>>,
    /// The `Runtime` was dropped. If the thread is still inside it, `current::try_with` finds no runtime.
    pub(super) is_gone: Cell<bool>,
    /// What a dump shows that is in no other table.
    pub(super) notes: RefCell<Slab<Noted>>,
    pub(super) stopwatch: Stopwatch,
    /// The host that is called when a turn is due, if there is one.
    pub(super) host: RefCell<Option<Host>>,
    /// For tests: orders the runnable machines, and says how many of them run.
    schedule: Option<Schedule>,
}

impl Scheduler {
    pub(super) fn new(
        selector: Box<dyn Selector>,
        copy: Option<FdCopy>,
        time: TimeSource,
        lane: Arc<Lane>,
        schedule: Option<Schedule>,
        tape: Tape,
    ) -> Self {
        let trace = Recorder::new(tape.clone(), |parked: &ParkKey| {
            parked.as_machine().bits().get()
        });
        let core = Core::new(selector, time, Socket::unpark_beside, trace);
        let reactor = Reactor { core, copy };
        let stopwatch = Stopwatch::new(reactor.core.clock.now());
        let remote = Arc::new(Remote::new(reactor.breaker(), lane, tape));
        Scheduler {
            reactor,
            remote,
            machines: RefCell::new(Machines::new()),
            queue: RefCell::default(),
            woken: RefCell::default(),
            left_in_round: Cell::new(0),
            root_waker: Cell::default(),
            is_gone: Cell::new(false),
            notes: RefCell::default(),
            stopwatch,
            host: RefCell::default(),
            schedule,
        }
    }

    pub(crate) fn handle(&self) -> Handle {
        let remote = self.remote.clone();
        Handle { remote }
    }

    fn trace(&self) -> &Recorder<ParkKey> {
        &self.reactor.core.trace
    }

    pub(super) fn record(&self, kind: Kind, id: MachineId, detail: u64) {
        self.trace().put(kind, id.bits().get(), detail);
    }

    /// Figures that any thread may read.
    pub(crate) fn figures(&self) -> &Figures {
        &self.remote.running.figures
    }

    /// The core's address, by which a descriptor or a waker is known as this runtime's.
    pub(crate) fn home(&self) -> *const () {
        Rc::as_ptr(&self.reactor.core).cast()
    }

    // ---- what is runnable ----

    /// Puts the id of a machine, or of the root, into `woken`. If the id is queued already, nothing
    /// changes.
    pub(crate) fn wake(&self, id: MachineId) {
        if self.machines.borrow_mut().wake(id) {
            self.make_runnable(id, Kind::Wake);
        }
    }

    /// Puts a machine into `woken`. The caller has marked its slot as queued.
    fn make_runnable(&self, id: MachineId, kind: Kind) {
        let core = &self.reactor.core;
        self.stopwatch.queued(id, || core.clock.peek());
        self.record(kind, id, self.trace().by());
        self.woken.borrow_mut().push(id);
        core.wake_host();
    }

    pub(crate) fn spawn<F: Future<Output: 'static> + 'static>(
        self: &Rc<Self>,
        place: Place,
        name: Option<Arc<str>>,
        future: F,
    ) -> JoinHandle<F::Output> {
        if let Err(error) = self.remote.process.check("runtime") {
            panic!("{error}");
        }
        let join = join::cell();
        let id = self.insert(|id| {
            let waker = MachineWaker::waker(id, &self.remote);
            Box::pin(WithWaker::new(waker, Some(join.clone()), future))
        });
        self.remote.running.enter(id, "task", place, name);
        log::trace!("spawn machine {id}, a future of {} bytes", size_of::<F>());
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
        self.make_runnable(id, Kind::Spawn);
        self.figures().spawned.add(1);
        id
    }

    /// Makes every machine runnable: for a change that concerns some of them, where it is not known which.
    /// The others wake without cause, which is legal.
    pub(crate) fn wake_all(&self) {
        let all = self.machines.borrow().ids();
        all.into_iter().for_each(|id| self.wake(id));
    }

    fn has_runnable(&self) -> bool {
        !self.queue.borrow().is_empty() || !self.woken.borrow().is_empty() || self.remote.has_mail()
    }

    // ---- one turn, in the order of its steps ----

    /// One turn: asks the netpoller, opens the mail, runs `most` machines at most, and publishes the
    /// figures. `root` polls the future of `block_on`, if there is one, and returns whether it is done.
    pub(crate) fn turn(
        &self,
        max_wait: Option<Duration>,
        most: usize,
        root: &mut dyn FnMut() -> bool,
    ) -> io::Result<Turn> {
        let (core, figures) = (&self.reactor.core, self.figures());
        let due = OBSERVES.then(|| core.next_entry()).flatten();
        let mut turn = self.ask_netpoller(max_wait)?;
        let due = due.filter(|_| turn.expired > 0);
        self.stopwatch.wait_ended(&core.clock, figures, due);
        self.remote.running.begin_batch(&core.clock);
        self.open_mail();
        // A machine that yielded, to let others go first, comes after what was just handed out.
        let (mut queue, mut woken) = (self.queue.borrow_mut(), self.woken.borrow_mut());
        if fault!("starved_machine") {
            std::mem::swap(&mut *queue, &mut *woken);
        }
        queue.append(&mut woken);
        drop((queue, woken));
        turn.machines = self.run_batch(most, root);

        // A machine of the batch may have closed a socket, or set a deadline in the past.
        turn.more |= self.has_runnable() || core.has_pending() || core.is_due();
        core.trace.put(Kind::TurnEnd, NOTHING, 0);
        figures.turns.add(1);
        figures.turn_events.add(turn.events as u64);
        figures.expired.add(turn.expired as u64);
        self.publish_counts();
        self.stopwatch.turn_ends(&core.clock, figures);
        Ok(turn)
    }

    /// Publishes the numbers of tasks, of descriptors, and of the wheels' entries.
    pub(super) fn publish_counts(&self) {
        let (core, figures) = (&self.reactor.core, self.figures());
        // The root is no task.
        let machines = self.machines.borrow().slots_used() as u64 - 1;
        let connections = figures.connections.get();
        figures.tasks.set(machines.saturating_sub(connections));
        figures.descriptors.set(self.reactor.descriptors() as u64);
        let timers = core.timers.borrow().entries() + core.peer_timers.borrow().entries();
        let entries = timers + self.reactor.entries().held;
        figures.entries.set(entries as u64);
    }

    /// One turn of the reactor. What it hands out is queued, also when the selector fails.
    fn ask_netpoller(&self, max_wait: Option<Duration>) -> io::Result<Turn> {
        let work_out = self.remote.work_out.load(Ordering::Acquire);
        let run_queue = match self.has_runnable() {
            true => RunQueue::Busy,
            false if work_out > 0 => RunQueue::WorkOut,
            false => RunQueue::Empty,
        };
        let core = &self.reactor.core;
        let (mut queue, mut foreign) = (self.queue.borrow_mut(), Vec::new());
        let before = queue.len();
        let mut hand_out = |parked: ParkKey| {
            let id = parked.as_machine();
            if self.machines.borrow_mut().wake(id) {
                queue.push(id);
            } else if parked.is_foreign() {
                foreign.push(parked);
            }
            id.bits().get()
        };
        // A clock of the user's may panic: what was handed out is woken all the same.
        let turn = catch(|| core.turn(max_wait, run_queue, &mut hand_out));
        // The clock was read after the wait.
        for &id in &queue[before..] {
            self.stopwatch.queued(id, || core.clock.now());
        }
        drop(queue);
        // With no borrow held: a waker may run any code.
        for parked in foreign {
            if let Some(waker) = parked.take_waker() {
                self.record(Kind::Foreign, parked.as_machine(), 0);
                wake_quietly(waker);
            }
        }
        turn.unwrap_or_else(|payload| resume_unwind(payload.into_inner()))
    }

    /// Makes runnable what other threads woke, and runs what they sent.
    fn open_mail(&self) {
        let Some((woken, jobs)) = self.remote.take_mail() else {
            return;
        };
        self.trace().put(Kind::Mail, THREAD, 0);
        // A machine that yielded comes after what other threads woke.
        let mut before = self.woken.take();
        for waker in woken {
            self.wake(waker.unmail());
        }
        let running = &self.remote.running;
        for job in jobs {
            running.begin(JOB, &running.others);
            self.trace().put(Kind::Run, JOB, 0);
            // A job has no `JoinHandle`, so its panic is only logged.
            if catch(job).is_err() {
                log::error!("a closure sent through a Handle panicked");
            }
        }
        running.end();
        self.woken.borrow_mut().append(&mut before);
        // So that the time of the jobs is not counted as that of the machines.
        self.reactor.core.read_clock();
    }

    /// Runs at most `most` of the runnable machines. Returns how many ran, without the root.
    // Not inlined: the rest of the turn uses none of this loop's locals.
    #[inline(never)]
    fn run_batch(&self, mut most: usize, root: &mut dyn FnMut() -> bool) -> usize {
        let mut batch = self.queue.take();
        // A round begins with everything that is runnable now.
        if self.left_in_round.get() == 0 {
            self.left_in_round.set(batch.len());
        }
        if let Some(schedule) = &self.schedule {
            let (round, now) = (self.left_in_round.get(), self.reactor.core.clock.tick());
            most = schedule(&mut batch, round, most, now.get());
        }
        let running: &Running = &self.remote.running;
        let (core, figures) = (&self.reactor.core, self.figures());
        let mut since = match core.clock.is_systems() {
            true => core.clock.now(),
            false => Instant::now(),
        };
        let runs = figures.machines.get();
        self.stopwatch.last.set(core.clock.now());
        let is_careful = running.is_careful.load(Ordering::Relaxed);
        let mut begun = 0;
        // A logger of the user's may panic: the rest of the batch runs in the next turn all the same.
        let ran = catch(|| {
            for id in &batch[..most.min(batch.len())] {
                begun += 1;
                // The root is no machine. A machine that was aborted while it was queued is gone.
                let body = self.machines.borrow_mut().take_body(*id);
                if let Some(body) = body {
                    running.begin(id.bits().get(), &figures.machines);
                    let times = OBSERVES.then(|| body.times(figures));
                    self.stopwatch.begins(*id, figures);
                    self.record(Kind::Run, *id, 0);
                    self.run(*id, body);
                    self.stopwatch.ends(*id, &core.clock, times);
                } else if *id == MachineId::ROOT && root() {
                    break;
                }
                if is_careful {
                    since = running.lap(std::slice::from_ref(id), since);
                }
            }
            let end = running.lap(&batch[..begun], since);
            if core.clock.is_systems() {
                core.trace.read(|| end - core.clock.base);
            }
        });
        running.end();
        context::end();
        batch.drain(..begun);
        let meanwhile = self.queue.replace(batch);
        debug_assert!(meanwhile.is_empty(), "it is filled before a batch");

        self.shorten_round(begun);
        ran.unwrap_or_else(|payload| resume_unwind(payload.into_inner()));
        (figures.machines.get() - runs) as usize
    }

    /// `gone` ids have left the front of the queue, which is this round.
    fn shorten_round(&self, gone: usize) {
        let left = self.left_in_round.get().saturating_sub(gone);
        debug_assert!(left <= self.queue.borrow().len());
        self.left_in_round.set(left);
        if left == 0 {
            let core = &self.reactor.core;
            core.rounds.update(|rounds| rounds + 1);
        }
    }

    /// Removes all ids from the queues but those to `keep`.
    pub(super) fn retain_queued(&self, mut keep: impl FnMut(MachineId) -> bool) {
        let (mut queue, mut woken) = (self.queue.borrow_mut(), self.woken.borrow_mut());
        let of_round = queue.iter().take(self.left_in_round.get());
        let gone = of_round.filter(|&&id| !keep(id)).count();
        queue.retain(|&id| keep(id));
        woken.retain(|&id| keep(id));
        drop((queue, woken));
        // A batch that runs is not in the queue: its round stays as it is.
        if gone > 0 {
            self.shorten_round(gone);
        }
    }

    fn run(&self, id: MachineId, mut body: Body) {
        let ended = match catch(|| body.as_mut().run(id)) {
            Ok(Poll::Pending) => {
                let aborted = self.machines.borrow_mut().put_back(id, body);
                // It was aborted while it ran.
                let Some(body) = aborted else { return };
                (body, Some(JoinError::aborted()))
            }
            Ok(Poll::Ready(())) => (body, None),
            Err(payload) => (body, Some(JoinError::panicked(payload))),
        };
        context::end();
        self.end_machine(id, ended.0, ended.1);
    }

    /// How long a host may sleep before the next turn.
    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        // Inside a turn, what is left of its batch is in no queue, and the queue is borrowed while the
        // netpoller is asked.
        if current::at_home(&self.remote, |_| ()).is_some() || self.has_runnable() {
            return Some(Duration::ZERO);
        }
        self.reactor.next_timeout()
    }

    // ---- block_on ----

    pub(crate) fn block_on<F: Future>(self: &Rc<Self>, future: F) -> F::Output {
        let _entered = Entered::new(self).unwrap_or_else(|error| panic!("{error}"));
        let mut future = std::pin::pin!(future);
        let waker = MachineWaker::waker(MachineId::ROOT, &self.remote);
        self.root_waker.set(Some(Waiter::waker(&waker)));
        // Marks the root as not queued, so that its waker queues it.
        let body = self.machines.borrow_mut().take_body(MachineId::ROOT);
        debug_assert!(body.is_none(), "the root has no body");
        let (running, clock) = (&self.remote.running, &self.reactor.core.clock);
        let mut output = None;
        // A panic is passed on when the turn has come to its end.
        let mut poll = || {
            running.begin(MachineId::ROOT.bits().get(), &running.others);
            self.stopwatch.begins(MachineId::ROOT, self.figures());
            self.record(Kind::Run, MachineId::ROOT, 0);
            context::begin(MachineId::ROOT, &waker);
            let polled = catch(|| future.as_mut().poll(&mut Context::from_waker(&waker)));
            context::end();
            let times = Some(&self.figures().root_time);
            self.stopwatch.ends(MachineId::ROOT, clock, times);
            running.end();
            output = match polled {
                Ok(Poll::Pending) => None,
                Ok(Poll::Ready(output)) => Some(Ok(output)),
                Err(payload) => Some(Err(payload)),
            };
            output.is_some()
        };
        // The mail is opened before the first poll. Otherwise repeated calls with futures that are ready
        // would never open it.
        running.begin_batch(clock);
        self.open_mail();
        let now = clock.now();
        self.stopwatch.queued(MachineId::ROOT, || now);
        self.stopwatch.last.set(now);
        // The root is polled once here, and then each time that its id comes up in the queue.
        let mut is_done = poll();
        while !is_done {
            let mut root = || {
                is_done = poll();
                is_done
            };
            if let Err(error) = self.turn(None, BATCH, &mut root) {
                self.end_root();
                panic!("netpoller: the selector failed: {error}");
            }
        }
        self.end_root();
        let output = output.expect("it is done");
        output.unwrap_or_else(|payload| resume_unwind(payload.into_inner()))
    }

    /// Marks the root as queued, so that no waker queues it any more, and removes its id from the queues:
    /// otherwise a root that was woken would leave an id behind.
    fn end_root(&self) {
        self.root_waker.set(None);
        if !self.machines.borrow_mut().wake(MachineId::ROOT) {
            self.retain_queued(|id| id != MachineId::ROOT);
        }
    }
}
