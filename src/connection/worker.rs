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
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::allowance::{Account, Purse};
use super::conn::GATHER;
use super::intervals::{Intervals, ticks};
use super::limits::Limits;
use super::passed_on;
use super::stats::{Tally, add};
use super::watch::Rates;
use crate::net::accept_loop::{Permit, Permits};
use crate::runtime::machine::{Machine, MachineId};
use crate::runtime::scheduler::Scheduler;
use crate::server::builder::Settings;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving,
    Draining,
    Stopped,
}

pub(crate) struct Worker {
    scheduler: Weak<Scheduler>,
    /// What the callback that runs has written, behind what it passed on: see `passed_on.rs`.
    pub(crate) out: RefCell<Vec<u8>>,
    pub(crate) intervals: Intervals,
    pub(crate) limits: Limits,
    /// What a callback may write where nothing waits, before it is asked whether there is room.
    pub(crate) gathers: usize,
    pub(crate) rates: Rates,
    /// Pays for what waits to be written, on all connections.
    purse: Purse,
    pub(crate) phase: Cell<Phase>,
    live: Cell<usize>,
    /// Who waits for the last connection to go.
    waiter: Cell<Option<Waker>>,
    /// Connections opened ever: spreads their heartbeats.
    opened: Cell<u32>,
    pub(crate) tally: Arc<Tally>,
    permits: Arc<Permits>,
}

impl Worker {
    pub(crate) fn new(
        scheduler: &Rc<Scheduler>,
        settings: &Settings,
        account: Option<Arc<Account>>,
        tally: Arc<Tally>,
        permits: Arc<Permits>,
    ) -> Self {
        Worker {
            scheduler: Rc::downgrade(scheduler),
            out: RefCell::default(),
            intervals: Intervals::new(settings.idle, settings.heartbeat),
            limits: settings.limits,
            gathers: GATHER.min(settings.limits.most_queued),
            rates: settings.rates,
            purse: Purse::new(account),
            phase: Cell::new(Phase::Serving),
            live: Cell::new(0),
            waiter: Cell::new(None),
            opened: Cell::new(0),
            tally,
            permits,
        }
    }

    // ---- connections come and go ----

    pub(crate) fn spawn(&self, connection: Box<dyn Machine>, permit: Permit) {
        permit.hand_over();
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

    pub(crate) fn gone(&self) {
        self.permits.connection_gone();
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
    pub(crate) fn poll_empty(&self, waker: &Waker) -> Poll<()> {
        if self.live.get() == 0 {
            return Poll::Ready(());
        }
        let old = self.waiter.replace(Some(waker.clone()));
        drop(old);
        Poll::Pending
    }

    pub(crate) fn scheduler(&self) -> Option<Rc<Scheduler>> {
        self.scheduler.upgrade()
    }

    pub(crate) fn wake(&self, id: MachineId) {
        if let Some(scheduler) = self.scheduler.upgrade() {
            scheduler.wake(id);
        }
    }

    /// The first heartbeat comes up to an eighth of its interval later than asked for, and for a
    /// server's only connection not at all later: connections opened together have theirs apart.
    pub(crate) fn first_heartbeat(&self) -> u64 {
        /// 2^32 over the golden ratio: its multiples fall into the widest gap there is.
        const GOLDEN: u32 = 0x9e37_79b9;
        let opened = match self.live.get() {
            1 => 0,
            _ => self.opened.get().wrapping_add(1),
        };
        self.opened.set(opened);
        let interval = self.intervals.heartbeat();
        let phase = u64::from(opened.wrapping_mul(GOLDEN)) >> 3;
        let later = (u128::from(interval) * u128::from(phase)) >> 32;
        interval.saturating_add(later as u64)
    }

    /// A callback did not come to its end: nothing of it is sent.
    pub(crate) fn forget_callback(&self) {
        // A connection that goes with its runtime has none under way; who drops that may be in one.
        if self
            .scheduler()
            .is_none_or(|scheduler| scheduler.is_ending())
        {
            return;
        }
        passed_on::take();
        if let Ok(mut out) = self.out.try_borrow_mut() {
            self.clear(&mut out);
        }
    }

    // ---- what waits to be written ----

    pub(crate) fn queued_more(&self, bytes: usize) {
        self.purse.pay(bytes);
    }

    pub(crate) fn queued_less(&self, bytes: usize) {
        self.purse.pay_back(bytes);
    }

    /// They go from one queue to another.
    pub(crate) fn queued_elsewhere(&self, bytes: usize) {
        self.purse.take_back(bytes);
    }

    /// What there was room for is not queued after all, or not yet.
    pub(crate) fn room_unused(&self) {
        self.purse.trim();
    }

    /// Whether a connection that has `waiting` bytes queued may queue `more`, which is then kept
    /// for it.
    pub(crate) fn check_room(&self, waiting: usize, more: usize) -> io::Result<()> {
        let limit = self.limits.most_queued;
        if waiting.saturating_add(more) > limit {
            return Err(too_many(more, waiting, limit, "to this peer"));
        }
        self.check_room_in_all(waiting, more)
    }

    /// The same, by the limit of the server alone.
    pub(crate) fn check_room_in_all(&self, waiting: usize, more: usize) -> io::Result<()> {
        if self.purse.reserve(more) {
            return Ok(());
        }
        let limit = self.limits.most_queued_in_all;
        Err(too_many(more, waiting, limit, "to all peers"))
    }

    /// Gathers some more; what was offered can't come first any more.
    pub(crate) fn put(&self, out: &mut Vec<u8>, bytes: &[u8]) {
        out.extend_from_slice(bytes);
        passed_on::set_gathered(!out.is_empty());
        passed_on::shut();
    }

    /// Empties the gathered bytes, and gives back what a large answer took.
    #[inline]
    pub(crate) fn clear(&self, out: &mut RefMut<'_, Vec<u8>>) {
        out.clear();
        passed_on::set_gathered(false);
        if out.capacity() > GATHER {
            out.shrink_to(GATHER);
        }
    }

    // ---- the end ----

    pub(crate) fn is_draining(&self) -> bool {
        self.phase.get() != Phase::Serving
    }

    pub(crate) fn idle_timeout(&self) -> Option<Duration> {
        let ticks = self.intervals.idle();
        (ticks > 0).then(|| Duration::from_millis(ticks))
    }

    /// From here on connections end when nothing has come for `grace`.
    pub(crate) fn drain(&self, grace: Duration) {
        self.intervals.set(ticks(grace).max(1), 0);
        self.enter(Phase::Draining);
    }

    /// From here on connections end when they run. They are woken; one that has its turn coming
    /// already, and goes the straight way, can't put off its deadlines, and leaves it.
    pub(crate) fn stop(&self) {
        let now = |scheduler: Rc<Scheduler>| scheduler.reactor.core().clock.tick().get();
        self.intervals.end(self.scheduler.upgrade().map_or(0, now));
        self.enter(Phase::Stopped);
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        if let Some(scheduler) = self.scheduler.upgrade() {
            scheduler.wake_all();
        }
    }
}

fn too_many(more: usize, waiting: usize, limit: usize, whose: &str) -> io::Error {
    let text = format!("{more} bytes are too many: {waiting} wait, and {limit} may, {whose}");
    io::Error::new(io::ErrorKind::QuotaExceeded, text)
}
