//! The reactor's inside, and its turn: the boxes of the diagram in mod.rs. Two boxes are no
//! functions: "pending" is a few lines of `turn`, and "fire timers" is the end of `expire`.
// Mirrors `netpoll` in Go's runtime/netpoll_epoll.go; `poll_runtime_pollOpen`, and the timers that call
// `netpolldeadlineimpl`, in runtime/netpoll.go; and the part of `findRunnable` in runtime/proc.go that
// asks how long it may sleep.
//
// This file and poll_desc.rs import one another (a circle): the core holds its descriptors, and a
// descriptor sets its timer in the core. In Go they are one file.

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Range;
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

/// Entries of a wheel looked at in one turn at most, so that a storm of deadlines does not hold up
/// the rest.
const EXPIRY_BUDGET: usize = 4096;

/// A virtual clock looks twice before it jumps. The second look waits this long at most: loopback
/// delivers in softirq context, which on a loaded machine may be a moment later.
const VIRTUAL_GRACE: Duration = Duration::from_millis(1);

/// How many times one look asks the selector at most, if signals end it.
const MAX_SIGNALS: usize = 8;

/// While the run queue is never empty, a proven reading is settled this many turns, and this many
/// rounds, after it was noted.
const SETTLING_TURNS: u32 = 16;
const SETTLING_ROUNDS: u64 = 3;

/// What a reactor says in a child of fork.
const INHERITED: &str = "netpoller: this reactor belongs to the parent process: after fork(2), make a \
                         new one in the child";

/// The run queue of a reactor's caller, at the beginning of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunQueue {
    /// All that was handed out has run, and all that this woke.
    Empty,
    /// As `Empty`, with blocking jobs under way. A virtual clock does not jump before they have
    /// ended.
    JobsOut,
    /// Something is still to run. This many rounds have ended: a round ends when everything that
    /// was runnable at its beginning has run.
    Busy { rounds: u64 },
}

/// Called with a descriptor's user data when its deadline passes or its peer hangs up: hands out
/// what waits beside the slots. It must not use the reactor.
pub(crate) type Behind<W, T> = fn(&T, &mut dyn FnMut(W));

/// A proven reading that is to be settled, how many rounds had ended when it was noted, and the turns
/// since.
#[derive(Clone, Copy)]
struct Settling {
    reading: Tick,
    round: u64,
    turns: u32,
}

/// Shared by the reactor and its descriptors. No borrow is held while code of the user's runs,
/// except for code that must not use the reactor: a selector, a source's `register`, the closures
/// of `for_each` and `with_fd`.
pub(crate) struct Core<W, T> {
    pub(crate) clock: Clock,
    pub(super) selector: RefCell<Box<dyn Selector>>,
    /// What the last look at the selector found.
    events: RefCell<Vec<Event>>,
    pub(super) traits: Traits,
    /// All open descriptors, by the keys of their tokens: Go's `pollCache`.
    pub(super) registry: RefCell<Slab<Rc<PollDesc<W, T>>>>,
    /// Counts the tokens given out, and wraps: see [`Token`].
    pub(super) generation: Cell<usize>,
    /// To be handed out by the next turn: released by a close, or by a deadline set in the past.
    pub(super) pending: RefCell<Vec<W>>,
    /// The timers of descriptors, by their keys: see `poll_desc.rs`.
    pub(super) deadlines: RefCell<Timers<usize>>,
    /// Timers that judge a peer: like deadlines, they fire up to the settled reading.
    pub(crate) peer_timers: RefCell<Timers<W>>,
    /// Timers that judge no peer: they fire by the clock.
    pub(crate) timers: RefCell<Timers<W>>,
    /// Everything that had arrived by this reading has been harvested: the latest such reading.
    proven: Cell<Tick>,
    /// Everything that had arrived by this reading has had its effect: deadlines up to it may expire.
    pub(crate) settled: Cell<Tick>,
    /// The next reading to be settled, while the run queue is never empty.
    settling: Cell<Option<Settling>>,
    pub(super) spin: Cell<Duration>,
    is_shut: Cell<bool>,
    /// The process that made it. A child of fork shares the selector's registrations with its
    /// parent, and leaves them alone.
    pub(super) process: Process,
    pub(super) behind: Behind<W, T>,
    pub(crate) trace: Recorder<W>,
    /// Whether a host that is called by a thread sleeps between two turns: see runtime/host.rs. Not during
    /// a turn, after a break of that sleep, nor without such a host.
    pub(crate) host_sleeps: Cell<bool>,
}

impl<W, T> Core<W, T> {
    // Go: netpollGenericInit.
    pub(super) fn new(
        selector: Box<dyn Selector>,
        time: TimeSource,
        behind: Behind<W, T>,
        trace: Recorder<W>,
    ) -> Self {
        Core {
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
            spin: Cell::default(),
            is_shut: Cell::default(),
            process: Process::current(),
            behind,
            trace,
            host_sleeps: Cell::default(),
        }
    }

    // Go has no counterpart to these two: there, a child of fork(2) executes another program.

    /// Whether it belongs to an ancestor of this process.
    #[inline]
    pub(crate) fn is_inherited(&self) -> bool {
        !self.process.is_current()
    }

    /// Refuses to be used by another process.
    fn check_process(&self) -> io::Result<()> {
        match self.is_inherited() {
            true => Err(io::Error::other(INHERITED)),
            false => Ok(()),
        }
    }

    /// Registers a source. `fd` is its descriptor, where that is known.
    // Go: poll_runtime_pollOpen, which calls netpollopen.
    pub(crate) fn open(
        self: &Rc<Self>,
        source: &mut dyn Source,
        fd: Option<RawFd>,
        user_data: T,
    ) -> io::Result<Descriptor<W, T>> {
        if self.is_shut.get() {
            return Err(io::Error::other("the runtime is gone"));
        }
        self.check_process()?;
        let key = self.registry.borrow().vacant_key();
        if key >= Token::KEYS {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let generation = self.generation.get();
        self.generation.set(generation.wrapping_add(1));
        let token = Token::new(key, generation);
        self.selector.borrow_mut().open_fd(source, token, fd)?;
        let desc = Rc::new(PollDesc::new(self.clone(), token, user_data));
        // Without edges, or where urgent data can't be seen, a short read proves nothing.
        if !(self.traits.edges && self.traits.urgent) {
            desc.short_io_is_inconclusive();
        }
        let inserted = self.registry.borrow_mut().insert(desc.clone());
        debug_assert_eq!(inserted, key, "the source's register used the reactor");
        log::trace!("open {token:?}");
        Ok(Descriptor(desc))
    }

    /// Shows the descriptors of these keys. `look` must not use the reactor. Returns whether there are more
    /// keys.
    pub(crate) fn for_each_in(
        &self,
        keys: Range<usize>,
        mut look: impl FnMut(&PollDesc<W, T>),
    ) -> bool {
        let by_key = self.registry.borrow();
        let descs = keys.clone().filter_map(|key| by_key.get(key));
        descs.for_each(|desc| look(desc));
        keys.end < by_key.capacity()
    }

    // ---- the turn ----

    /// Calls `out` with each W that is handed out, for its number in the trace. `out` must not use the
    /// reactor.
    // Go: netpoll, and the list of goroutines that it returns.
    pub(crate) fn turn(
        &self,
        max_wait: Option<Duration>,
        run_queue: RunQueue,
        mut out: impl FnMut(W) -> u64,
    ) -> io::Result<Turn> {
        self.check_process()?;
        self.trace.put(Kind::Turn, NOTHING, 0);
        self.settle(run_queue);

        // Waiters released by a close, or by a deadline set in the past. If there are any, do not
        // wait.
        let released = self.has_pending();
        let max_wait = match released {
            true => Some(Duration::ZERO),
            false => max_wait,
        };

        // Readiness first: bytes that have arrived may still move their deadline. If the selector
        // fails, what it has found is handed out all the same.
        self.read_clock();
        let at_most = max_wait.map_or(u64::MAX, |wait| wait.as_nanos() as u64);
        self.trace.put(Kind::Wait, NOTHING, at_most);
        let waited = self.wait(max_wait, run_queue);
        self.trace.put(Kind::WaitEnd, NOTHING, 0);
        // After the wait: a selector that panics must not lose them.
        for w in self.pending.borrow_mut().drain(..) {
            out(w);
        }
        let mut turn = Turn {
            events: self.unpark_ready(&mut out),
            ..Turn::default()
        };
        let found_nothing = waited?;
        self.read_clock();

        // Nothing was runnable and nothing has come: what is proven has had its effect.
        let is_busy = matches!(run_queue, RunQueue::Busy { .. });
        if found_nothing && !released && !is_busy {
            self.settled.set(self.proven.get());
            // But that reading is older than the wait, and what came meanwhile was not looked for.
            if max_wait != Some(Duration::ZERO) && self.is_due() {
                turn.events += self.look_again(&mut out)?;
            }
        }

        if self.is_due() {
            turn.more = self.expire(&mut turn.expired, &mut out);
            // A deadline may be due that is not settled.
            turn.more |= self.is_due();
        }
        // A waiter may have been released in the meantime.
        turn.more |= self.has_pending();
        Ok(turn)
    }

    /// Reads the clock, for the trace too.
    // Go: nanotime.
    #[inline]
    pub(crate) fn read_clock(&self) {
        let now = self.clock.read();
        self.trace.read(|| self.clock.since_base(now));
    }

    // ---- settle ----
    //
    // Go has no counterpart to these two: its timers fire by the clock, before the network is polled.

    /// Moves the settled reading up. With an empty run queue, everything handed out before this
    /// turn has run: what is proven is settled. Otherwise it settles a reading that was proven at
    /// least sixteen turns and three rounds ago.
    fn settle(&self, run_queue: RunQueue) {
        let RunQueue::Busy { rounds } = run_queue else {
            self.settling.set(None);
            // What was released is still to be handed out.
            if !self.has_pending() {
                self.settled.set(self.proven.get());
            }
            return;
        };
        let mut next = Settling {
            reading: self.proven.get(),
            round: rounds,
            turns: 0,
        };
        if let Some(noted) = self.settling.get() {
            debug_assert!(noted.reading <= next.reading && noted.round <= rounds);
            let turns = noted.turns + 1;
            match turns < SETTLING_TURNS || rounds - noted.round < SETTLING_ROUNDS {
                true => next = Settling { turns, ..noted },
                false => self.settled.set(noted.reading),
            }
        }
        self.settling.set(Some(next));
    }

    /// After a wait in vain: asks the selector once more, without waiting. If that finds nothing, the
    /// reading after the wait is settled. Returns how many events it found.
    fn look_again(&self, out: impl FnMut(W) -> u64) -> io::Result<usize> {
        let looked = self.look(Duration::ZERO);
        let events = self.unpark_ready(out);
        if looked? {
            self.settled.set(self.proven.get());
        }
        Ok(events)
    }

    // ---- wait ----

    /// Asks the selector. Its events replace those of the last call. Returns whether the harvest is
    /// complete and empty. A complete harvest proves the reading that was taken before it.
    // Go: the call of epoll_wait in netpoll.
    fn poll(&self, max_wait: Option<Duration>) -> io::Result<bool> {
        let reading = self.clock.tick();
        let mut events = self.events.borrow_mut();
        events.clear();
        let harvest = self.selector.borrow_mut().netpoll(max_wait, &mut events)?;
        debug_assert!(self.proven.get() <= reading, "the clock goes forward");
        if harvest == Harvest::Complete {
            self.proven.set(reading);
        }
        Ok(harvest == Harvest::Complete && events.is_empty())
    }

    /// Polls the selector for `moment`. A signal ends a poll before it has looked at anything: then
    /// it is repeated, a few times, so that a stream of signals does not hold a deadline back.
    // Go: netpoll goes to `retry` after EINTR, or returns from a timed wait.
    fn look(&self, moment: Duration) -> io::Result<bool> {
        for _ in 1..MAX_SIGNALS {
            let found_nothing = self.poll(Some(moment))?;
            if found_nothing || !self.events.borrow().is_empty() {
                return Ok(found_nothing);
            }
        }
        self.poll(Some(Duration::ZERO))
    }

    /// Waits for the selector, no longer than until the next deadline.
    // Go: the delay in findRunnable, from pollUntil.
    fn wait(&self, max_wait: Option<Duration>, run_queue: RunQueue) -> io::Result<bool> {
        if max_wait == Some(Duration::ZERO) {
            return self.poll(max_wait);
        }
        if self.clock.is_virtual() {
            return self.wait_virtually(max_wait, run_queue);
        }
        let mut wait = soonest(max_wait, self.until_next());
        let spin = self.spin.get();
        if spin > Duration::ZERO {
            let end = Instant::now() + wait.map_or(spin, |wait| wait.min(spin));
            while Instant::now() < end {
                if !self.poll(Some(Duration::ZERO))? {
                    return Ok(false);
                }
                std::hint::spin_loop();
            }
            wait = wait.map(|wait| wait.saturating_sub(spin));
        }
        log::trace!("turn: waiting {wait:?}");
        self.poll(wait)
    }

    /// As [`Core::wait`], on a virtual clock: jumps to the next deadline once two looks have found
    /// nothing.
    // Go: testing/synctest jumps when all goroutines of a bubble wait.
    #[cold]
    fn wait_virtually(&self, max_wait: Option<Duration>, run_queue: RunQueue) -> io::Result<bool> {
        for grace in [Duration::ZERO, VIRTUAL_GRACE] {
            if !self.look(grace)? {
                return Ok(false);
            }
        }
        let next = self.next_live().map(|next| self.clock.until(next));
        match soonest(max_wait, next) {
            Some(ahead) if run_queue == RunQueue::Empty => {
                self.clock.jump(ahead);
                Ok(true)
            }
            // Nothing to jump to, or not allowed: wait for readiness or another thread.
            _ => self.poll(max_wait),
        }
    }

    // ---- unpark the ready ----

    /// Hands out what is parked on the sources that the events name. Returns how many events named an
    /// open descriptor.
    // Go: the loop of netpoll over its events.
    fn unpark_ready(&self, mut out: impl FnMut(W) -> u64) -> usize {
        let events = self.events.borrow();
        if log::log_enabled!(log::Level::Trace) {
            for Event { token, readiness } in events.iter() {
                log::trace!("ready {token:?} {readiness:?}");
            }
        }
        let registry = self.registry.borrow();
        let mut strays = 0;
        for event in events.iter() {
            match registry.get(event.token.key()) {
                Some(desc) if desc.token() == event.token || fault!("stale_event") => {
                    desc.netpollready(event.readiness, &mut out);
                }
                // The token of a break, or of an earlier owner of the key, names no descriptor.
                _ => {
                    let bits = event.readiness.0.into();
                    self.trace.put(Kind::Stale, event.token.0 as u64, bits);
                    strays += 1;
                }
            }
        }
        events.len() - strays
    }

    // ---- expire ----

    /// Expires deadlines, and fires timers that judge a peer, up to the settled reading; then fires the
    /// other timers, by the clock. Returns whether the budget was used up with more to do.
    // Go: the timers of descriptors, which call netpolldeadlineimpl. `Wheel::advance`, which finds
    // them, is timers.check.
    fn expire(&self, expired: &mut usize, mut out: impl FnMut(W) -> u64) -> bool {
        let limit = match fault!("early_after_stall") {
            true => self.clock.tick(),
            false => self.settled.get(),
        };
        let mut due = Vec::new();
        let mut deadlines = self.deadlines.borrow_mut();
        let mut more = deadlines.advance(limit, EXPIRY_BUDGET, |key| due.push(key));
        drop(deadlines);
        let registry = self.registry.borrow();
        for key in due {
            *expired += registry[key].netpolldeadlineimpl(limit, &mut out);
        }
        let mut hand_out = |w| {
            let number = out(w);
            self.trace.handed(Kind::Fired, NOTHING, 0, number);
            *expired += 1;
        };
        let mut peers = self.peer_timers.borrow_mut();
        more |= peers.advance(limit, EXPIRY_BUDGET, &mut hand_out);
        let mut timers = self.timers.borrow_mut();
        more | timers.advance(self.clock.tick(), EXPIRY_BUDGET, hand_out)
    }

    // ---- what is to come ----
    //
    // Go has a counterpart where one is named.

    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.borrow().is_empty()
    }

    /// Whether something in a wheel is due by the last reading. It may turn out to be stale.
    pub(crate) fn is_due(&self) -> bool {
        self.next().is_some_and(|next| next <= self.clock.tick())
    }

    /// The next tick at which a wheel holds anything.
    // Go: timers.wakeTime.
    pub(crate) fn next(&self) -> Option<Tick> {
        let timers = soonest(
            self.timers.borrow().next(),
            self.peer_timers.borrow().next(),
        );
        soonest(timers, self.deadlines.borrow().next())
    }

    /// The next tick at which a timer fires: exact, since stale entries do not count.
    pub(super) fn next_live(&self) -> Option<Tick> {
        let timers = [&self.timers, &self.peer_timers].map(|timers| timers.borrow().next_live());
        let next = timers.into_iter().flatten();
        next.chain(self.deadlines.borrow().next_live()).min()
    }

    /// Entries of the wheels, stale ones too.
    pub(crate) fn entries(&self) -> usize {
        let timers = self.timers.borrow().entries() + self.peer_timers.borrow().entries();
        timers + self.deadlines.borrow().entries()
    }

    /// How long from the last reading to `next`.
    // Go: pollUntil, less the time now.
    pub(super) fn until_next(&self) -> Option<Duration> {
        self.next().map(|next| self.clock.until(next))
    }

    /// A turn may be due sooner than it was: ends the sleep of the host, which turns and asks anew.
    // Go: wakeNetPoller.
    #[inline]
    pub(crate) fn hasten(&self) {
        if self.host_sleeps.replace(false)
            && let Err(error) = self.breaker().break_netpoll()
        {
            log::error!("can't tell the host that a turn is due: {error}");
        }
    }

    // Go: netpollBreak, which any thread may call.
    pub(super) fn breaker(&self) -> Breaker {
        Breaker {
            inner: self.selector.borrow().breaker(),
            process: self.process,
        }
    }

    // ---- figures, and the end ----

    /// The descriptor of a token's key, for dumps.
    // Go has no counterpart.
    pub(crate) fn by_key(&self, key: usize) -> Option<Rc<PollDesc<W, T>>> {
        self.registry.borrow().get(key).cloned()
    }

    /// Evicts everything, when the reactor is dropped: I/O on a descriptor that outlives it is an
    /// error. What was parked comes back: dropping a W may run anything, and so waits for the end of
    /// all borrows.
    // Go has no counterpart: its poller lives as long as the process.
    pub(crate) fn evict_all(&self) -> Vec<W> {
        self.is_shut.set(true);
        let all: Vec<_> = self.registry.borrow_mut().drain().collect();
        for desc in &all {
            desc.evict();
        }
        let mut released = self.pending.take();
        for timers in [&self.timers, &self.peer_timers] {
            let mut timers = timers.take();
            timers.advance(Tick::MAX, usize::MAX, |w| released.push(w));
        }
        released
    }
}

/// The smaller of two. `None` is later than all.
fn soonest<V: Ord>(one: Option<V>, other: Option<V>) -> Option<V> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
