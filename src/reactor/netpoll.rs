//! The reactor's inside, and its turn: a function for each line of the diagram in mod.rs.
// Mirrors `netpoll` in Go's runtime/netpoll_epoll.go; `poll_runtime_pollOpen`, and the timers that call
// `netpolldeadlineimpl`, in runtime/netpoll.go; and the part of `findRunnable` in runtime/proc.go that
// calls `netpoll` and `timers.check`.
//
// This file and poll_desc.rs import one another (a circle): the core holds its descriptors, and a
// descriptor sets its timer in the core. In Go both are in netpoll.go.
//
// # Proven and settled
//
// A deadline at tick T must not expire before the bytes that arrived before T have been read, since the
// reader may move it. So T passes two steps, and the deadline expires after the second.
//
// | T is | what holds for the events before T | set by |
// |---|---|---|
// | proven | the selector has returned all of them | `poll`: the clock showed T, and then the selector returned all that it had |
// | settled | the same, and all Ws handed out for them have run, with all that those Ws woke (or the bound below has passed) | `settle`: T is proven, the run queue is empty, and nothing is pending |
//
// T is settled in two more cases. If the run queue is empty and the selector returns nothing, no W is on its
// way, so what this poll proves is settled at once (`turn`, `poll_again`). If each turn begins with
// something runnable or pending, `settle` settles T after `SETTLING_TURNS` and `SETTLING_ROUNDS`, so that
// deadlines expire under load too.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::event::Source;
use slab::Slab;

use super::clock::{Clock, TimeSource};
use super::poll_desc::{Descriptor, PollDesc};
use super::selector::{Event, Harvest, Selector, Traits};
use super::types::Token;
use super::{Breaker, Turn};
use crate::sys::Process;
use crate::trace::{Kind, NOTHING, Recorder};
use crate::wheel::{Tick, Timers};

/// The budget of each wheel in one turn: see `Wheel::advance`. It bounds how long many deadlines delay
/// everything else.
const EXPIRY_BUDGET: usize = 4096;

/// Before a virtual clock jumps, the selector is polled twice. The second poll waits this long: the
/// loopback delivers in a softirq, which on a loaded machine may run a moment later.
const VIRTUAL_GRACE: Duration = Duration::from_millis(1);

/// How many times the selector is polled at most, if signals interrupt the polls.
const MAX_POLLS: usize = 8;

/// While something is runnable or pending, a proven tick is settled this many turns, and this many rounds,
/// after it was noted.
const SETTLING_TURNS: u32 = 16;
const SETTLING_ROUNDS: u64 = 3;

/// The run queue of a reactor's caller, at the beginning of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunQueue {
    /// All Ws that were handed out have run, and all that they woke.
    Empty,
    /// As `Empty`, with blocking work under way. A virtual clock does not jump before it has
    /// ended.
    WorkOut,
    /// Something is still to run.
    Busy,
}

/// What a poll of the selector came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Polled {
    /// The harvest is complete and empty.
    Nothing,
    /// Events came; or a signal interrupted the poll, so that there may be some.
    Something,
}

/// The reactor calls this with a descriptor's user data when a deadline of the descriptor expires, or the
/// peer hangs up. It hands out the Ws that are in no slot: those of queued operations, of `poll_read`'s
/// callers that wait for the lock, and of all that wait for a hang-up. It must not use the reactor.
pub(crate) type HandOutOthers<W, T> = fn(&T, &mut dyn FnMut(W));

/// A proven tick that will be settled later.
#[derive(Clone, Copy)]
struct Settling {
    tick: Tick,
    /// How many rounds had ended when it was noted.
    rounds: u64,
    /// How many turns there were since, that one included.
    turns: u32,
}

/// Shared by the reactor and its descriptors. No borrow is held while the user's code runs, except for
/// code that must not use the reactor: a selector, a source's `register`, `reregister` and `deregister`, the
/// closures of `for_each` and `with_fd`, the `name` of a trace, and a logger.
pub(crate) struct Core<W, T> {
    pub(crate) clock: Clock,
    pub(super) selector: RefCell<Box<dyn Selector>>,
    /// What the last poll of the selector has returned.
    events: RefCell<Vec<Event>>,
    pub(super) traits: Traits,
    /// All open descriptors, by the keys of their tokens.
    pub(crate) registry: RefCell<Slab<Rc<PollDesc<W, T>>>>,
    /// How many tokens were made. It wraps: see [`Token`].
    pub(super) generation: Cell<usize>,
    /// What a close, or a deadline set in the past, has released. The next turn hands it out.
    pub(super) pending: RefCell<Vec<W>>,
    /// The timers of descriptors. Each has its descriptor's key as its value.
    pub(super) deadlines: RefCell<Timers<usize>>,
    /// Timers that judge a peer. Like a deadline, each fires once its tick is settled.
    pub(crate) peer_timers: RefCell<Timers<W>>,
    /// Timers that judge no peer. Each fires once the clock has reached its tick.
    pub(crate) timers: RefCell<Timers<W>>,
    /// The latest tick that is proven. It is not after the last reading of the clock.
    proven: Cell<Tick>,
    /// The latest tick that is settled. It is not after `proven`.
    pub(crate) settled: Cell<Tick>,
    /// The tick to be settled next, while something is runnable or pending.
    settling: Cell<Option<Settling>>,
    /// How many rounds have ended. A round ends when everything that was runnable at its beginning has run.
    pub(crate) rounds: Cell<u64>,
    /// The last poll returned events, and there may be more.
    pub(super) found_more: Cell<bool>,
    pub(super) spin: Cell<Duration>,
    is_shut: Cell<bool>,
    /// The process that made it. A child of fork shares the selector's registrations with its parent, so
    /// it must not change them.
    pub(super) process: Process,
    pub(super) hand_out_others: HandOutOthers<W, T>,
    pub(crate) trace: Recorder<W>,
    /// True while a host of `Runtime::notify_host` waits between two turns. False during a turn, after
    /// `wake_host`, and without such a host. See runtime/host.rs.
    pub(crate) host_sleeps: Cell<bool>,
}

impl<W, T> Core<W, T> {
    // Go: netpollGenericInit.
    pub(crate) fn new(
        selector: Box<dyn Selector>,
        time: TimeSource,
        hand_out_others: HandOutOthers<W, T>,
        trace: Recorder<W>,
    ) -> Rc<Self> {
        Rc::new(Core {
            clock: Clock::new(time),
            traits: selector.traits(),
            selector: RefCell::new(selector),
            events: RefCell::default(),
            registry: RefCell::default(),
            generation: Cell::default(),
            pending: RefCell::default(),
            deadlines: RefCell::default(),
            peer_timers: RefCell::default(),
            timers: RefCell::default(),
            proven: Cell::default(),
            settled: Cell::default(),
            settling: Cell::default(),
            rounds: Cell::default(),
            found_more: Cell::default(),
            spin: Cell::default(),
            is_shut: Cell::default(),
            process: Process::current(),
            hand_out_others,
            trace,
            host_sleeps: Cell::default(),
        })
    }

    /// Whether this process is a child of the one that made it.
    // Go has no counterpart: there, a child of fork(2) executes another program.
    pub(crate) fn is_inherited(&self) -> bool {
        !self.process.is_current()
    }

    /// Registers a source. `fd` is its file descriptor, if the caller knows it.
    // Go: poll_runtime_pollOpen, which calls netpollopen.
    pub(crate) fn open(
        self: &Rc<Self>,
        source: &mut dyn Source,
        fd: Option<RawFd>,
        user_data: T,
    ) -> io::Result<Descriptor<W, T>> {
        if self.is_shut.get() {
            return Err(io::Error::other("the reactor, or its runtime, is gone"));
        }
        self.process.check("reactor")?;
        let key = self.registry.borrow().vacant_key();
        if key >= Token::KEYS {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let generation = self.generation.get();
        self.generation.set(generation.wrapping_add(1));
        let token = Token::new(key, generation);
        self.selector.borrow_mut().open_fd(source, token, fd)?;
        let desc = Rc::new(PollDesc::new(self.clone(), token, user_data));
        // If the selector reports no edges, or no urgent data, a short read does not prove that the kernel
        // has no more.
        if !(self.traits.edges && self.traits.urgent) {
            desc.set_short_io_inconclusive();
        }
        let inserted = self.registry.borrow_mut().insert(desc.clone());
        debug_assert_eq!(inserted, key, "the source's register used the reactor");
        let descriptor = Descriptor(desc);
        log::trace!("open {token:?}");
        Ok(descriptor)
    }

    // ---- the turn ----

    /// One turn: waits for the selector, hands out what is ready, and expires what is due. Calls `out` with
    /// each W that it hands out; `out` returns its number in the trace, and must not use the reactor.
    // Go: the part of findRunnable that calls netpoll and timers.check.
    pub(crate) fn turn(
        &self,
        max_wait: Option<Duration>,
        run_queue: RunQueue,
        out: &mut impl FnMut(W) -> u64,
    ) -> io::Result<Turn> {
        self.process.check("reactor")?;
        self.trace.put(Kind::Turn, NOTHING, 0);
        let is_idle = run_queue != RunQueue::Busy && !self.has_pending();
        self.settle(is_idle);
        let max_wait = match is_idle {
            true => max_wait,
            false => Some(Duration::ZERO),
        };

        // Poll the selector before expiring deadlines: a waiter that gets its bytes may move its deadline.
        self.read_clock();
        let at_most = max_wait.map_or(u64::MAX, |wait| wait.as_nanos() as u64);
        self.trace.put(Kind::Wait, NOTHING, at_most);
        let mut turn = Turn::default();
        let waited = self.wait(max_wait, run_queue);
        self.trace.put(Kind::WaitEnd, NOTHING, 0);
        // If the selector fails, the events that it returned before are handed out all the same. Called
        // after the wait: if the selector panics, what is pending stays for the next turn.
        turn.events = self.unpark_ready(out);
        let polled = waited?;
        self.read_clock();

        // Nothing was runnable and no event came, so nothing has to run: the proven tick is settled.
        if polled == Polled::Nothing && is_idle {
            self.settled.set(self.proven.get());
            // That tick is from before the wait. To expire a deadline that became due during the wait, poll
            // again.
            if max_wait != Some(Duration::ZERO) && self.is_due() {
                turn.events += self.poll_again(out)?;
            }
        }

        if self.is_due() {
            self.expire(&mut turn.expired, out);
            // What is due by the clock may not be settled yet, or a budget is used up. Then the next turn must
            // not wait.
            turn.more = self.is_due();
        }
        // A clock of the user's may have closed a descriptor, or set a deadline in the past, though it must not.
        turn.more |= self.has_pending() || self.found_more.get();
        Ok(turn)
    }

    /// Reads the clock, and gives the trace its time.
    // Go: nanotime.
    pub(crate) fn read_clock(&self) {
        let now = self.clock.read();
        self.trace.read(|| now - self.clock.base);
    }

    // ---- settle ----
    //
    // Go has no counterpart to these two: its timers fire by the clock, before the network is polled.

    /// Advances `settled`. If the run queue is empty and nothing is pending, everything handed out before
    /// this turn has run, and the proven tick is settled. Otherwise notes a proven tick, and settles it
    /// `SETTLING_TURNS` and `SETTLING_ROUNDS` later.
    fn settle(&self, is_idle: bool) {
        if is_idle {
            self.settling.set(None);
            self.settled.set(self.proven.get());
            return;
        }
        let new = Settling {
            tick: self.proven.get(),
            rounds: self.rounds.get(),
            turns: 0,
        };
        let mut note = self.settling.get().unwrap_or(new);
        debug_assert!(note.tick <= new.tick && note.rounds <= new.rounds);
        if note.turns >= SETTLING_TURNS && new.rounds - note.rounds >= SETTLING_ROUNDS {
            self.settled.set(note.tick);
            note = new;
        }
        note.turns += 1;
        self.settling.set(Some(note));
    }

    /// After a wait that found nothing: polls the selector again, without waiting. If it returns
    /// nothing, the tick at the end of the wait is settled. Returns how many events named a descriptor.
    fn poll_again(&self, out: &mut impl FnMut(W) -> u64) -> io::Result<usize> {
        let polled = self.poll_past_signals(Duration::ZERO);
        let events = self.unpark_ready(out);
        if polled? == Polled::Nothing {
            self.settled.set(self.proven.get());
        }
        Ok(events)
    }

    // ---- wait ----

    /// Polls the selector. Its events replace those of the last call. If the harvest is complete, the last
    /// reading of the clock, which was before the poll, is proven.
    // Go: the call of epoll_wait in netpoll.
    fn poll(&self, max_wait: Option<Duration>) -> io::Result<Polled> {
        let tick = self.clock.tick();
        let mut events = self.events.borrow_mut();
        events.clear();
        let harvest = self.selector.borrow_mut().netpoll(max_wait, &mut events)?;
        debug_assert!(self.proven.get() <= tick, "the clock goes forward");
        if harvest == Harvest::Complete {
            self.proven.set(tick);
        }
        // A signal brings no event, and is no sign of more.
        let found_more = harvest == Harvest::Partial && !events.is_empty();
        self.found_more.set(found_more);
        match harvest {
            Harvest::Complete if events.is_empty() => Ok(Polled::Nothing),
            _ => Ok(Polled::Something),
        }
    }

    /// As `poll`. If a signal interrupts the poll, repeats it, `MAX_POLLS` polls in all. An interrupted
    /// poll proves no tick: without the repetition, many signals would delay a deadline.
    // Go: netpoll goes to `retry` after EINTR, or returns from a timed wait.
    fn poll_past_signals(&self, max_wait: Duration) -> io::Result<Polled> {
        for _ in 1..MAX_POLLS {
            let polled = self.poll(Some(max_wait))?;
            if polled == Polled::Nothing || !self.events.borrow().is_empty() {
                return Ok(polled);
            }
        }
        // The last poll does not wait: a signal hardly interrupts it, however often signals come.
        self.poll(Some(Duration::ZERO))
    }

    /// Waits for the selector until the next entry of a wheel is due, but for `max_wait` at most. Returns as
    /// [`Core::poll`].
    // Go: the delay in findRunnable, from pollUntil.
    fn wait(&self, max_wait: Option<Duration>, run_queue: RunQueue) -> io::Result<Polled> {
        if max_wait == Some(Duration::ZERO) {
            return self.poll(max_wait);
        }
        if self.clock.is_virtual() {
            return self.wait_virtually(max_wait, run_queue);
        }
        let mut wait = max_wait.into_iter().chain(self.until_next()).min();
        let spin = self.spin.get();
        if spin > Duration::ZERO {
            let start = Instant::now();
            while start.elapsed() < wait.map_or(spin, |wait| wait.min(spin)) {
                if self.poll(Some(Duration::ZERO))? == Polled::Something {
                    return Ok(Polled::Something);
                }
                std::hint::spin_loop();
            }
            wait = wait.map(|wait| wait.saturating_sub(spin));
        }
        log::trace!("turn: waiting {wait:?}");
        self.poll(wait)
    }

    /// As [`Core::wait`], on a virtual clock: if two polls find nothing, jumps to the next deadline or
    /// timer, or to the end of `max_wait` if that is sooner.
    // Go: testing/synctest jumps when all goroutines of a bubble are durably blocked.
    #[cold]
    fn wait_virtually(&self, max_wait: Option<Duration>, queue: RunQueue) -> io::Result<Polled> {
        for grace in [Duration::ZERO, VIRTUAL_GRACE] {
            if self.poll_past_signals(grace)? == Polled::Something {
                return Ok(Polled::Something);
            }
        }
        let next = self.next_live().map(|next| self.clock.until(next));
        match max_wait.into_iter().chain(next).min() {
            Some(ahead) if queue == RunQueue::Empty => {
                self.clock.jump(ahead);
                Ok(Polled::Nothing)
            }
            // There is nothing to jump to, or a job is under way: wait for an event or a break.
            _ => self.poll(max_wait),
        }
    }

    // ---- unpark the ready ----

    /// Hands out what is pending, and what is parked on the sources that the events name. Returns how many
    /// events named an open descriptor.
    // Go: the loop of netpoll over its events. For what is pending: the netpollgoready of pollUnblock and
    // pollSetDeadline.
    fn unpark_ready(&self, out: &mut impl FnMut(W) -> u64) -> usize {
        for w in self.pending.borrow_mut().drain(..) {
            out(w);
        }
        let events = self.events.borrow();
        let registry = self.registry.borrow();
        let mut strays = 0;
        for event in events.iter() {
            match registry.get(event.token.key()) {
                Some(desc) if desc.token() == event.token || fault!("stale_event") => {
                    desc.netpollready(event.readiness, out);
                }
                // The token of a break, or of an earlier owner of the key, names no descriptor.
                _ => {
                    let bits = event.readiness.0.into();
                    self.trace.put(Kind::Stale, event.token.0 as u64, bits);
                    strays += 1;
                }
            }
        }
        // After the loop: a logger that panics silences no waiter.
        if log::log_enabled!(log::Level::Trace) {
            for Event { token, readiness } in events.iter() {
                log::trace!("ready {token:?} {readiness:?}");
            }
        }
        events.len() - strays
    }

    // ---- expire ----

    /// Expires deadlines, and fires timers that judge a peer, up to the settled tick. Then fires the other
    /// timers, up to the clock's tick. Counts them. What a budget leaves is still due.
    // Go: the timers of descriptors, which call netpolldeadlineimpl. `Wheel::advance`, which finds
    // them, is timers.check.
    fn expire(&self, expired: &mut usize, out: &mut impl FnMut(W) -> u64) {
        let limit = match fault!("early_after_stall") {
            true => self.clock.tick(),
            false => self.settled.get(),
        };
        let mut due = Vec::new();
        let mut deadlines = self.deadlines.borrow_mut();
        deadlines.advance(limit, EXPIRY_BUDGET, |key| due.push(key));
        drop(deadlines);
        let registry = self.registry.borrow();
        for key in due {
            *expired += registry[key].netpolldeadlineimpl(limit, out);
        }
        let mut hand_out = |w| {
            let number = out(w);
            self.trace.handed(Kind::Fired, NOTHING, 0, number);
            *expired += 1;
        };
        let mut peers = self.peer_timers.borrow_mut();
        peers.advance(limit, EXPIRY_BUDGET, &mut hand_out);
        let mut timers = self.timers.borrow_mut();
        timers.advance(self.clock.tick(), EXPIRY_BUDGET, hand_out);
    }

    // ---- what is to come ----
    //
    // Only those with a `Go:` line have a counterpart.

    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.borrow().is_empty()
    }

    /// Whether an entry of a wheel is due by the last reading of the clock. It may be stale.
    pub(crate) fn is_due(&self) -> bool {
        self.next_entry().is_some_and(|at| at <= self.clock.tick())
    }

    /// The tick of the next entry of a wheel. It may be stale.
    // Go: timers.wakeTime.
    pub(crate) fn next_entry(&self) -> Option<Tick> {
        let timers = [&self.timers, &self.peer_timers].map(|timers| timers.borrow().next());
        let next = timers.into_iter().flatten();
        next.chain(self.deadlines.borrow().next()).min()
    }

    /// The tick at which the next timer fires: exact, and O(timers).
    pub(super) fn next_live(&self) -> Option<Tick> {
        let timers = [&self.timers, &self.peer_timers].map(|timers| timers.borrow().next_live());
        let next = timers.into_iter().flatten();
        next.chain(self.deadlines.borrow().next_live()).min()
    }

    /// How long from the last reading of the clock to `next_entry`.
    // Go: pollUntil, less the time now.
    pub(super) fn until_next(&self) -> Option<Duration> {
        self.next_entry().map(|next| self.clock.until(next))
    }

    /// If a host sleeps, ends its sleep, so that it takes a turn and asks for `next_timeout` again. Call it
    /// when the next turn may be due sooner than before.
    // Go: wakeNetPoller.
    pub(crate) fn wake_host(&self) {
        if self.host_sleeps.replace(false)
            && let Err(error) = self.breaker().break_netpoll()
        {
            log::error!("can't tell the host that a turn is due: {error}");
        }
    }

    // `Breaker::break_netpoll` is Go's netpollBreak.
    pub(super) fn breaker(&self) -> Breaker {
        Breaker {
            inner: self.selector.borrow().breaker(),
            process: self.process,
        }
    }

    // ---- the rest ----

    /// Evicts everything, when the reactor or its runtime ends: I/O on a descriptor that outlives it is an
    /// error. Returns what was parked, and the Ws of timers. The caller drops or wakes them with no borrow
    /// held, since that may run any code.
    // Go has no counterpart: its poller lives as long as the process.
    pub(crate) fn evict_all(&self) -> Vec<W> {
        self.is_shut.set(true);
        let all = self.registry.take();
        all.iter().for_each(|(_, desc)| desc.evict());
        let mut released = self.pending.take();
        for mut timers in [self.timers.take(), self.peer_timers.take()] {
            timers.advance(Tick::MAX, usize::MAX, |w| released.push(w));
        }
        released
    }
}
