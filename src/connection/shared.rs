//! What the connections of one thread share: settings, counters, and the buffer in which a
//! callback's writes are gathered.
//!
//! | phase | who moves it there | what connections do |
//! |---|---|---|
//! | Serving | `new` | serve |
//! | Draining | `begin_drain` | close as soon as nothing is in flight on them |
//! | Stopped | `stop`, from either | end at once |

// Mirrors the fields of Go's `http.Server` that its connections read.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::{Arc, Once};
use std::task::{Poll, Waker};
use std::time::Duration;

use super::limits::{Limits, Quotas};
use super::rate::Rates;
use super::remote::{RemoteConn, Remotes};
use super::state::Takes;
use super::stats::Tally;
use crate::net::fd::Fd;
use crate::net::permits::{Permit, Permits};
use crate::runtime::machine::{Machine, MachineId};
use crate::runtime::scheduler::Scheduler;
use crate::runtime::{Handle, current};

/// No time: later than every other.
pub(super) const NEVER: u64 = u64::MAX;

/// A duration in the loop's ticks, rounded up.
pub(crate) fn ticks(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(NEVER)
}

/// What a callback writes is gathered up to this size and sent at its end.
pub(crate) const GATHER: usize = 256 << 10;

/// What a server asks of its connections.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) heartbeat: Option<Duration>,
    /// Written when a heartbeat is due, in place of asking the protocol.
    pub(crate) heartbeat_bytes: Option<Arc<[u8]>>,
    /// A heartbeat that writes nothing is logged once for all workers.
    pub(crate) heartbeat_warning: Arc<Once>,
    pub(crate) rates: Rates,
    pub(crate) limits: Limits,
    /// Traffic within this time keeps a connection from being closed by a drain.
    pub(crate) drain_grace: Duration,
    /// When a connection is too old, and by how much later than that at most.
    pub(crate) max_age: Option<(Duration, Duration)>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            idle_timeout: None,
            heartbeat: None,
            heartbeat_bytes: None,
            heartbeat_warning: Arc::new(Once::new()),
            rates: Rates::default(),
            limits: Limits::default(),
            drain_grace: Duration::from_secs(1),
            max_age: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Not all workers have started: nothing is accepted.
    Starting,
    Serving,
    Draining,
    Stopped,
}

/// What the connections of one thread share.
pub(crate) struct WorkerShared {
    scheduler: Weak<Scheduler>,
    /// What the running callback has written. Empty between callbacks.
    pub(super) out: RefCell<Vec<u8>>,
    /// Up to this many gathered bytes a write is gathered without asking the quota.
    pub(super) gathers: usize,
    pub(super) limits: Limits,
    pub(super) rates: Rates,
    /// In ticks; `NEVER` for none.
    pub(super) idle: u64,
    pub(super) heartbeat: u64,
    /// Whether there is either, or a connection has an idle timeout of its own.
    pub(super) judges_by_time: Cell<bool>,
    pub(super) heartbeat_bytes: Option<Arc<[u8]>>,
    pub(super) quotas: Arc<Quotas>,
    phase: Cell<Phase>,
    /// The drain's, in ticks.
    pub(super) grace: u64,
    /// The greatest age of a connection, and by how much later it may come. `NEVER` for none.
    pub(super) max_age: u64,
    max_age_jitter: u64,
    /// Waits for the last connection to go.
    waiter: Cell<Option<Waker>>,
    /// Connections opened since one was last alone: spreads their heartbeats and ages.
    opened: Cell<u32>,
    /// See [`Settings::heartbeat_warning`].
    heartbeat_warning: Arc<Once>,
    /// The connections that keep unused bytes, where these have a limit over all.
    keepers: RefCell<Vec<Rc<Keeper>>>,
    pub(crate) tally: Arc<Tally>,
    permits: Arc<Permits>,
    /// The server's connections that other threads may write to.
    pub(super) remotes: Arc<Remotes>,
}

/// A connection that keeps unused bytes.
pub(super) struct Keeper {
    id: MachineId,
    /// What is charged for it.
    bytes: Cell<usize>,
    /// Another needed the room: the connection ends when it runs.
    pub(super) must_end: Cell<bool>,
}

impl WorkerShared {
    pub(crate) fn new(
        scheduler: &Rc<Scheduler>,
        settings: &Settings,
        quotas: Arc<Quotas>,
        tally: Arc<Tally>,
        permits: Arc<Permits>,
        remotes: Arc<Remotes>,
    ) -> Self {
        let limits = settings.limits;
        // With a limit over all, each write asks for room.
        let gathers = match quotas.queued.is_limited() {
            true => 0,
            false => GATHER.min(limits.most_queued),
        };
        WorkerShared {
            scheduler: Rc::downgrade(scheduler),
            out: RefCell::default(),
            gathers,
            limits,
            rates: settings.rates,
            idle: settings.idle_timeout.map_or(NEVER, ticks),
            heartbeat: settings.heartbeat.map_or(NEVER, ticks),
            judges_by_time: Cell::new(
                settings.idle_timeout.is_some() || settings.heartbeat.is_some(),
            ),
            heartbeat_bytes: settings.heartbeat_bytes.clone(),
            quotas,
            phase: Cell::new(Phase::Serving),
            grace: ticks(settings.drain_grace),
            max_age: settings.max_age.map_or(NEVER, |(age, _)| ticks(age)),
            max_age_jitter: settings.max_age.map_or(0, |(_, jitter)| ticks(jitter)),
            waiter: Cell::new(None),
            opened: Cell::new(0),
            heartbeat_warning: settings.heartbeat_warning.clone(),
            keepers: RefCell::default(),
            tally,
            permits,
            remotes,
        }
    }

    pub(super) fn wake(&self, id: MachineId) {
        if let Some(scheduler) = self.scheduler.upgrade() {
            scheduler.wake(id);
        }
    }

    // ---- connections come and go ----

    pub(crate) fn spawn(&self, connection: Box<dyn Machine>, permit: Permit) {
        permit.hand_over();
        self.tally.accepted.add(1);
        self.tally.live.add(1);
        if let Some(scheduler) = self.scheduler.upgrade() {
            scheduler.connections.set(scheduler.connections.get() + 1);
            scheduler.spawn_machine(connection);
        }
    }

    /// A connection has gone.
    pub(super) fn gone(&self) {
        self.permits.give_back();
        self.tally.live.sub(1);
        if let Some(scheduler) = self.scheduler.upgrade() {
            scheduler.connections.set(scheduler.connections.get() - 1);
        }
        if self.tally.live.get() == 0
            && let Some(waiter) = self.waiter.take()
        {
            waiter.wake();
        }
    }

    /// Ready when no connection is left.
    pub(crate) fn poll_empty(&self, waker: &Waker) -> Poll<()> {
        if self.tally.live.get() == 0 {
            return Poll::Ready(());
        }
        let old = self.waiter.replace(Some(waker.clone()));
        drop(old);
        Poll::Pending
    }

    /// Makes the connection whose callback runs known to other threads.
    pub(super) fn enter_remote(&self, fd: &Fd, queued: usize, takes: Takes) -> Arc<RemoteConn> {
        let thread = current::with("a server", |scheduler| {
            Handle::new(scheduler.remote.clone())
        });
        self.remotes.enter(fd, thread, queued, takes)
    }

    // ---- unused bytes, where they have a limit over all ----

    pub(super) fn new_keeper(&self, id: MachineId) -> Rc<Keeper> {
        let keeper = Rc::new(Keeper {
            id,
            bytes: Cell::new(0),
            must_end: Cell::new(false),
        });
        self.keepers.borrow_mut().push(keeper.clone());
        keeper
    }

    /// A connection keeps so many bytes now. Without room, the connection of this thread that keeps
    /// most has to end. False if that is this one.
    pub(super) fn keep(&self, keeper: &Keeper, bytes: usize) -> bool {
        let quota = &self.quotas.unused;
        quota.give_back(keeper.bytes.replace(bytes));
        if quota.charge(bytes) {
            return true;
        }
        // The largest gives its bytes back when it runs, in this turn or the next. Until then more
        // are charged than the limit allows.
        quota.charge_beyond(bytes);
        let keepers = self.keepers.borrow();
        let others = keepers.iter().filter(|other| !other.must_end.get());
        let largest = others.max_by_key(|other| other.bytes.get());
        match largest.filter(|largest| largest.bytes.get() > bytes) {
            None => false,
            Some(largest) => {
                largest.must_end.set(true);
                self.wake(largest.id);
                true
            }
        }
    }

    pub(super) fn keep_nothing(&self, keeper: &Rc<Keeper>) {
        self.quotas.unused.give_back(keeper.bytes.take());
        let mut keepers = self.keepers.borrow_mut();
        keepers.retain(|other| !Rc::ptr_eq(other, keeper));
    }

    // ---- times that are spread: connections opened together have theirs apart ----

    /// A connection has opened.
    pub(super) fn note_opened(&self) {
        let alone = self.tally.live.get() == 1;
        let opened = if alone {
            0
        } else {
            self.opened.get().wrapping_add(1)
        };
        self.opened.set(opened);
    }

    /// A part of `time` for the connection that has opened last. Nothing for a server's only one.
    fn spread(&self, time: u64) -> u64 {
        /// 2^32 over the golden ratio: its multiples fall into the widest gap there is.
        const GOLDEN: u32 = 0x9e37_79b9;
        let part = self.opened.get().wrapping_mul(GOLDEN);
        ((u128::from(time) * u128::from(part)) >> 32) as u64
    }

    /// The first heartbeat comes up to an eighth of its interval later than asked for.
    pub(super) fn heartbeat_delay(&self) -> u64 {
        match self.heartbeat {
            NEVER => 0,
            interval => self.spread(interval) / 8,
        }
    }

    /// At which age a connection is too old.
    pub(super) fn spread_age(&self) -> u64 {
        self.max_age
            .saturating_add(self.spread(self.max_age_jitter))
    }

    /// A heartbeat was due, and the protocol has the default, which writes nothing.
    pub(super) fn warn_of_heartbeats(&self) {
        self.heartbeat_warning.call_once(|| {
            log::warn!(
                "a heartbeat is set, and writes nothing: the protocol does not override \
                 Protocol::heartbeat (see Server::heartbeat_with)"
            );
        });
    }

    // ---- the end ----

    pub(super) fn is_serving(&self) -> bool {
        self.phase.get() == Phase::Serving
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.phase.get() != Phase::Serving
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.phase.get() == Phase::Stopped
    }

    /// From here on a connection closes when nothing is in flight on it. If nothing is now, and there was
    /// no traffic for `drain_grace`, it closes in its next run.
    pub(crate) fn begin_drain(&self) {
        self.enter(Phase::Draining);
    }

    /// From here on a connection ends with a RST when it runs.
    pub(crate) fn stop(&self) {
        self.enter(Phase::Stopped);
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        // Each looks at the phase when it runs. To a task this is a spurious wake.
        if let Some(scheduler) = self.scheduler.upgrade() {
            scheduler.wake_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{NEVER, ticks};
    use std::time::Duration;

    #[test]
    fn a_duration_is_rounded_up_to_ticks_and_the_longest_is_never() {
        assert_eq!(ticks(Duration::ZERO), 0);
        assert_eq!(ticks(Duration::from_micros(9_001)), 10);
        assert_eq!(ticks(Duration::MAX), NEVER);
    }
}
