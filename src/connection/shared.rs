//! What the connections of one thread share: settings, counters, and the buffer in which a
//! callback's writes are gathered.

// Mirrors the fields of Go's `http.Server` that its connections read.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::handle::Remotes;
use super::limits::{Limits, Quota};
use super::rate::Rate;
use super::stats::Tally;
use crate::net::permits::{Permit, Permits};
use crate::reactor::Token;
use crate::runtime::machine::{Machine, MachineId};
use crate::runtime::running::Place;
use crate::runtime::{context, current};

/// A duration in the loop's ticks, rounded up.
pub(crate) fn ticks(wait: Duration) -> u64 {
    let rest = u64::from(wait.subsec_nanos().div_ceil(1_000_000));
    wait.as_secs().saturating_mul(1000).saturating_add(rest)
}

/// What a callback writes is gathered up to this size and sent at its end.
pub(crate) const GATHER: usize = 256 << 10;

/// What a server asks of its connections. Times are in ticks.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnSettings {
    pub(crate) max_connections: usize,
    pub(crate) idle_timeout: Option<u64>,
    pub(crate) heartbeat: Option<u64>,
    /// Written when a heartbeat is due, in place of asking the protocol.
    pub(crate) heartbeat_bytes: Option<Arc<[u8]>>,
    /// The minimum rates of the peers, by direction.
    pub(crate) rates: [Option<Rate>; 2],
    pub(crate) limits: Limits,
    /// Traffic within this time keeps a connection from being closed by a drain.
    pub(crate) drain_grace: u64,
    /// The age at which a connection ends, and by how much later at most.
    pub(crate) max_age: Option<(u64, u64)>,
}

/// What a server and its connections do. `server/dispatch.rs` says what moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving,
    Draining,
    Stopped,
}

/// What the connections of a server share, on all its threads.
#[derive(Debug)]
pub(crate) struct ServerShared {
    pub(super) settings: ConnSettings,
    /// A heartbeat that writes nothing was logged.
    pub(super) has_warned: AtomicBool,
    /// Charged when bytes are queued, given back when the system takes them.
    pub(super) queued: Arc<Quota>,
    /// Charged when bytes are kept unused, given back when they are used.
    pub(super) unused: Quota,
    pub(crate) permits: Arc<Permits>,
    /// The connections that were asked for their id.
    pub(crate) remotes: Remotes,
}

impl ServerShared {
    pub(crate) fn new(settings: ConnSettings) -> Self {
        ServerShared {
            has_warned: AtomicBool::new(false),
            queued: Arc::new(Quota::new(settings.limits.most_queued_in_all)),
            unused: Quota::new(settings.limits.most_unused_in_all),
            permits: Arc::new(Permits::new(settings.max_connections)),
            remotes: Remotes::default(),
            settings,
        }
    }
}

/// What the connections of one thread share.
pub(crate) struct WorkerShared {
    pub(super) server: Arc<ServerShared>,
    /// What the running callback has written. Empty between callbacks.
    pub(super) out: RefCell<Vec<u8>>,
    /// What a callback writes is gathered up to this many bytes, without asking the quota.
    pub(super) gathers: usize,
    /// Whether there is an idle timeout or a heartbeat, or a connection has an idle timeout of its own.
    pub(super) judges_by_time: Cell<bool>,
    pub(crate) phase: Cell<Phase>,
    /// Waits for the last connection to go.
    waiter: Cell<Option<Waker>>,
    /// How many unused bytes each connection keeps, if there is a limit over all connections
    /// (`most_unused_in_all`). Zero if it has made room for others: it ends when it runs.
    kept: RefCell<HashMap<Token, (MachineId, usize)>>,
    pub(crate) tally: Arc<Tally>,
}

impl WorkerShared {
    pub(crate) fn new(server: Arc<ServerShared>, tally: Arc<Tally>) -> Self {
        let settings = &server.settings;
        WorkerShared {
            out: RefCell::default(),
            // With a limit over all, each write asks for room.
            gathers: match server.queued.is_limited() {
                true => 0,
                false => GATHER.min(settings.limits.most_queued),
            },
            judges_by_time: Cell::new(
                settings.idle_timeout.is_some() || settings.heartbeat.is_some(),
            ),
            phase: Cell::new(Phase::Serving),
            waiter: Cell::new(None),
            kept: RefCell::default(),
            tally,
            server,
        }
    }

    pub(super) fn wake(&self, id: MachineId) {
        current::try_with(|scheduler| scheduler.wake(id));
    }

    // ---- connections come and go ----

    pub(crate) fn spawn(&self, place: Place, connection: Box<dyn Machine>, permit: Permit) {
        permit.hand_over();
        self.tally.accepted.add(1);
        self.tally.live.add(1);
        current::try_with(|scheduler| {
            scheduler.figures().connections.add(1);
            scheduler.spawn_machine(place, connection);
        });
    }

    /// A connection has gone.
    pub(super) fn gone(&self) {
        self.server.permits.give_back();
        self.tally.live.sub(1);
        current::try_with(|scheduler| scheduler.figures().connections.sub(1));
        if self.tally.live.get() == 0
            && let Some(waiter) = self.waiter.take()
        {
            crate::runtime::wake_quietly(waiter);
        }
    }

    /// Waits until no connection is left.
    pub(crate) async fn emptied(&self) {
        poll_fn(|cx| {
            if self.tally.live.get() == 0 {
                return Poll::Ready(());
            }
            self.waiter.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    // ---- unused bytes, where they have a limit over all ----

    /// The connection that runs keeps so many bytes now. Without room, the connections of this thread that
    /// keep most have to end. False if this one has to.
    pub(super) fn keeps(&self, token: Token, bytes: usize) -> bool {
        let quota = &self.server.unused;
        if !quota.is_limited() {
            return true;
        }
        let mut kept = self.kept.borrow_mut();
        let before = kept.remove(&token).map(|(_, bytes)| bytes);
        quota.give_back(before.unwrap_or(0));
        if bytes == 0 || before == Some(0) {
            return bytes == 0;
        }
        kept.insert(token, (context::running_machine(), bytes));
        while !quota.charge(bytes) {
            let most = kept
                .iter_mut()
                .max_by_key(|(other, (_, bytes))| (*bytes, **other == token));
            let (&most, (machine, bytes)) = most.expect("it is one of them");
            let freed = mem::take(bytes);
            if most == token {
                return false;
            }
            debug_assert!(freed > 0, "what is charged is somewhere");
            // It frees its memory when it runs.
            quota.give_back(freed);
            self.wake(*machine);
        }
        true
    }

    // ---- the end ----

    /// Draining: from here on a connection closes when nothing is in flight on it. If nothing is now,
    /// and there was no traffic for `drain_grace`, it closes in its next run. Stopped: it ends with a
    /// RST when it runs.
    pub(crate) fn enter(&self, phase: Phase) {
        debug_assert!(self.phase.get() <= phase, "phases only rise");
        self.phase.set(phase);
        // Each looks at the phase when it runs. To a task this is a spurious wake.
        current::try_with(|scheduler| scheduler.wake_all());
    }
}

#[cfg(test)]
mod tests {
    use super::ticks;
    use std::time::Duration;

    #[test]
    fn a_duration_is_rounded_up_to_ticks_and_the_longest_is_never() {
        assert_eq!(ticks(Duration::ZERO), 0);
        assert_eq!(ticks(Duration::from_micros(9_001)), 10);
        assert_eq!(ticks(Duration::MAX), u64::MAX);
    }
}
