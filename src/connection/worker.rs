//! What the connections of one thread share: settings, the buffer their writes are gathered in,
//! and what they have done.
//!
//! May touch: the scheduler. Mirrors the fields of Go's `http.Server` that its connections read.
//!
//! | phase | who moves it there | what connections do |
//! |---|---|---|
//! | Serving | `new` | serve |
//! | Draining | `drain` | end when nothing has come for the grace |
//! | Stopped | `stop`, from either | end at once |

use std::cell::{Cell, RefCell, RefMut};
use std::fmt;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use super::conn::GATHER;
use super::limits::Limits;
use crate::runtime::machine::{Machine, MachineId};
use crate::runtime::scheduler::Scheduler;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    Draining,
    Stopped,
}

pub(super) struct Worker {
    scheduler: Weak<Scheduler>,
    /// What the callback that runs has written: first these bytes of what it was offered, which
    /// need not be copied, then `out`.
    pub(super) passed_on: PassedOn,
    /// Whether anything is in `out`.
    pub(super) has_gathered: Cell<bool>,
    pub(super) out: RefCell<Vec<u8>>,
    /// The idle timeout and the heartbeat's interval, in ticks; zero for none.
    pub(super) idle_ticks: Cell<u64>,
    pub(super) heartbeat_ticks: Cell<u64>,
    pub(super) limits: Limits,
    /// What waits to be written, on all connections.
    queued: Cell<usize>,
    pub(super) phase: Cell<Phase>,
    live: Cell<usize>,
    /// Who waits for the last connection to go.
    waiter: Cell<Option<Waker>>,
    /// Connections opened ever: spreads their heartbeats.
    opened: Cell<u32>,
    pub(super) tally: Arc<Tally>,
}

/// What a worker has done, readable from other threads. One thread writes, so that to count is a
/// load and a store.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) accepted: AtomicU64,
    pub(super) live: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) heartbeats: AtomicU64,
    pub(super) idled: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) turns: AtomicU64,
    pub(super) events: AtomicU64,
}

#[inline]
pub(super) fn add(counter: &AtomicU64, more: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(more),
        Ordering::Relaxed,
    );
}

/// A duration in the loop's ticks, rounded up; zero stays zero, for none.
pub(super) fn ticks(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Bytes that a protocol was offered and writes as they are, as an echo or a relay does: told by
/// where they lie, and sent from there.
///
/// | state | who moves it there | on to |
/// |---|---|---|
/// | Shut | `new`, `take` | Offered by `offer` |
/// | Offered | `offer`, before `data` is called | Noted by `note`; Shut by `shut`, when other bytes are written first |
/// | Noted | `note` | Shut by `take`, when `data` has returned |
#[derive(Default)]
pub(super) struct PassedOn {
    /// Where the bytes offered begin, zero if it is not Offered; and how many they are.
    offer: Cell<usize>,
    length: Cell<usize>,
    noted: Cell<bool>,
}

impl PassedOn {
    #[inline]
    pub(super) fn offer(&self, bytes: &[u8]) {
        self.offer.set(bytes.as_ptr().addr());
        self.length.set(bytes.len());
    }

    /// Whether the bytes are what is offered, all of it, and the first that are written.
    #[inline]
    pub(super) fn note(&self, bytes: &[u8]) -> bool {
        if bytes.as_ptr().addr() != self.offer.get() || bytes.len() != self.length.get() {
            return false;
        }
        self.offer.set(0);
        self.noted.set(true);
        true
    }

    pub(super) fn shut(&self) {
        self.offer.set(0);
    }

    /// Whether the offer, which is over, is to be passed on.
    #[inline]
    pub(super) fn take(&self) -> bool {
        self.offer.set(0);
        self.noted.replace(false)
    }

    /// How many bytes are noted.
    pub(super) fn len(&self) -> usize {
        match self.noted.get() {
            true => self.length.get(),
            false => 0,
        }
    }
}

impl Worker {
    pub(super) fn new(
        scheduler: &Rc<Scheduler>,
        idle: Duration,
        heartbeat: Duration,
        limits: Limits,
        tally: Arc<Tally>,
    ) -> Self {
        Worker {
            scheduler: Rc::downgrade(scheduler),
            passed_on: PassedOn::default(),
            has_gathered: Cell::new(false),
            out: RefCell::default(),
            idle_ticks: Cell::new(ticks(idle)),
            heartbeat_ticks: Cell::new(ticks(heartbeat)),
            limits,
            queued: Cell::new(0),
            phase: Cell::new(Phase::Serving),
            live: Cell::new(0),
            waiter: Cell::new(None),
            opened: Cell::new(0),
            tally,
        }
    }

    /// Whether there are deadlines to push.
    #[inline]
    pub(super) fn arms(&self) -> bool {
        self.idle_ticks.get() | self.heartbeat_ticks.get() != 0
    }

    // ---- connections come and go ----

    pub(super) fn spawn(&self, connection: Box<dyn Machine>) {
        self.live.set(self.live.get() + 1);
        add(&self.tally.accepted, 1);
        self.tally
            .live
            .store(self.live.get() as u64, Ordering::Relaxed);
        if let Some(scheduler) = self.scheduler.upgrade() {
            scheduler.connections.set(scheduler.connections.get() + 1);
            scheduler.spawn_machine(connection);
        }
    }

    pub(super) fn gone(&self) {
        self.live.set(self.live.get() - 1);
        self.tally
            .live
            .store(self.live.get() as u64, Ordering::Relaxed);
        if let Some(scheduler) = self.scheduler.upgrade() {
            scheduler.connections.set(scheduler.connections.get() - 1);
        }
        if self.live.get() == 0
            && let Some(waiter) = self.waiter.take()
        {
            waiter.wake();
        }
    }

    /// Ready when no connection is left.
    pub(super) fn poll_empty(&self, waker: &Waker) -> Poll<()> {
        if self.live.get() == 0 {
            return Poll::Ready(());
        }
        let old = self.waiter.replace(Some(waker.clone()));
        drop(old);
        Poll::Pending
    }

    pub(super) fn wake(&self, id: MachineId) {
        if let Some(scheduler) = self.scheduler.upgrade() {
            scheduler.wake(id);
        }
    }

    /// The first heartbeat comes up to an eighth of its interval later than asked for, and for a
    /// server's only connection not at all later: connections opened together have theirs apart.
    pub(super) fn first_heartbeat(&self) -> u64 {
        /// 2^32 over the golden ratio: its multiples fall into the widest gap there is.
        const GOLDEN: u32 = 0x9e37_79b9;
        let opened = match self.live.get() {
            1 => 0,
            _ => self.opened.get().wrapping_add(1),
        };
        self.opened.set(opened);
        let interval = self.heartbeat_ticks.get();
        let phase = u64::from(opened.wrapping_mul(GOLDEN)) >> 3;
        let later = (u128::from(interval) * u128::from(phase)) >> 32;
        interval.saturating_add(later as u64)
    }

    /// A callback did not come to its end: nothing of it is sent.
    pub(super) fn forget_callback(&self) {
        self.passed_on.take();
        if let Ok(mut out) = self.out.try_borrow_mut() {
            self.clear(&mut out);
        }
    }

    // ---- what waits to be written ----

    pub(super) fn queued_more(&self, bytes: usize) {
        self.queued.set(self.queued.get() + bytes);
    }

    pub(super) fn queued_less(&self, bytes: usize) {
        self.queued.set(self.queued.get() - bytes);
    }

    /// Whether a connection that has `waiting` bytes queued may queue `more`.
    pub(super) fn check_room(&self, waiting: usize, more: usize) -> io::Result<()> {
        let (whose, limit) = if waiting.saturating_add(more) > self.limits.most_queued {
            ("to this peer", self.limits.most_queued)
        } else if self.queued.get().saturating_add(more) > self.limits.most_queued_in_all {
            ("to all peers", self.limits.most_queued_in_all)
        } else {
            return Ok(());
        };
        let text = format!("{more} bytes are too many: {waiting} wait, and {limit} may, {whose}");
        Err(io::Error::new(io::ErrorKind::QuotaExceeded, text))
    }

    /// Gathers some more; what was offered can't come first any more.
    pub(super) fn put(&self, out: &mut Vec<u8>, bytes: &[u8]) {
        out.extend_from_slice(bytes);
        self.has_gathered.set(!out.is_empty());
        self.passed_on.shut();
    }

    /// Empties the gathered bytes, and gives back what a large answer took.
    #[inline]
    pub(super) fn clear(&self, out: &mut RefMut<'_, Vec<u8>>) {
        out.clear();
        self.has_gathered.set(false);
        if out.capacity() > GATHER {
            out.shrink_to(GATHER);
        }
    }

    // ---- the end ----

    pub(super) fn is_draining(&self) -> bool {
        self.phase.get() != Phase::Serving
    }

    pub(super) fn idle_timeout(&self) -> Option<Duration> {
        let ticks = self.idle_ticks.get();
        (ticks > 0).then(|| Duration::from_millis(ticks))
    }

    /// From here on connections end when nothing has come for `grace`.
    pub(super) fn drain(&self, grace: Duration) {
        self.idle_ticks.set(ticks(grace).max(1));
        self.heartbeat_ticks.set(0);
        self.enter(Phase::Draining);
    }

    /// From here on connections end when they run: they are woken, and one that is busy just then
    /// has a deadline soon.
    pub(super) fn stop(&self) {
        self.idle_ticks.set(1);
        self.enter(Phase::Stopped);
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        if let Some(scheduler) = self.scheduler.upgrade() {
            scheduler.wake_all();
        }
    }
}

/// What a server has done, by worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// One for each worker.
    pub workers: Vec<WorkerStats>,
}

/// What one thread of a server has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerStats {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections alive.
    pub live: u64,
    /// Accepts that failed because the system was short of something.
    pub refused: u64,
    /// Bytes that came.
    pub received: u64,
    /// Bytes that the system took.
    pub sent: u64,
    /// Heartbeats.
    pub heartbeats: u64,
    /// Connections closed because they were idle.
    pub idled: u64,
    /// Connections that ended with another error: reset, a protocol's own, a panic.
    pub failed: u64,
    /// Turns of its loop, known once it has ended; none of them where it ran in a runtime of yours.
    pub turns: u64,
    /// Events harvested: as `turns`.
    pub events: u64,
}

impl Tally {
    pub(super) fn read(&self) -> WorkerStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WorkerStats {
            accepted: load(&self.accepted),
            live: load(&self.live),
            refused: load(&self.refused),
            received: load(&self.received),
            sent: load(&self.sent),
            heartbeats: load(&self.heartbeats),
            idled: load(&self.idled),
            failed: load(&self.failed),
            turns: load(&self.turns),
            events: load(&self.events),
        }
    }
}

impl Stats {
    fn sum(&self, of: impl Fn(&WorkerStats) -> u64) -> u64 {
        self.workers.iter().map(of).sum()
    }

    /// Connections accepted, by all workers.
    pub fn accepted(&self) -> u64 {
        self.sum(|worker| worker.accepted)
    }

    /// Connections alive.
    pub fn live(&self) -> u64 {
        self.sum(|worker| worker.live)
    }

    /// Bytes that came.
    pub fn received(&self) -> u64 {
        self.sum(|worker| worker.received)
    }

    /// Bytes that the system took.
    pub fn sent(&self) -> u64 {
        self.sum(|worker| worker.sent)
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "accepted {}, open {}, received {}, sent {}",
            self.accepted(),
            self.live(),
            self.received(),
            self.sent()
        )
    }
}
