//! How machines end: done, panicked, aborted, or with their runtime.

// Mirrors `goexit0` and `gdestroy` in Go's `runtime/proc.go`.

use std::mem;
use std::sync::Arc;

use super::context::ParkKey;
use super::join::JoinError;
use super::machine::{Body, MachineId};
use super::panics::{drop_quietly, wake_quietly};
use super::scheduler::Scheduler;
use crate::trace::Kind;

/// How many times a runtime that ends drops its machines: their destructors may spawn others.
const ATTEMPTS: usize = 4;

/// `abort` sweeps the queues if they are longer than twice the slots in use, plus this.
const SWEEP: usize = 64;

impl Scheduler {
    /// Ends a machine that has run for the last time, or was aborted. `error` says how it ended, if it
    /// is not done.
    // Kept out of the loop that runs machines, which calls it once for each of them.
    #[inline(never)]
    pub(super) fn end_machine(&self, id: MachineId, mut body: Body, error: Option<JoinError>) {
        self.record(Kind::Done, id, 0);
        let join = body.as_mut().joined();
        // The body is dropped first, with no borrow held: that closes its sockets. Until then the
        // machine counts as alive.
        let panicked = drop_quietly(body).map(JoinError::panicked);
        self.machines.borrow_mut().free(id);
        let (error, also) = match error {
            None => (panicked, None),
            error => (error, panicked),
        };
        if error.as_ref().is_some_and(JoinError::is_panic) {
            self.figures().panicked.add(1);
        }
        match join {
            Some(join) if Arc::strong_count(&join) > 1 => join.end(error),
            // There is no handle, or it was dropped with the body. Dropping the cell drops the output.
            join => {
                let error = error.or_else(|| drop_quietly(join).map(JoinError::panicked));
                if let Some(error) = error
                    && error.is_panic()
                {
                    log::error!("machine {id} panicked, and nothing joins it: {error}");
                }
            }
        }
        // Last, since a logger of the user's may panic.
        if let Some(panicked) = also {
            log::error!("a destructor of machine {id} panicked: {panicked}");
        }
        log::trace!("done machine {id}");
    }

    pub(crate) fn abort(&self, id: MachineId) {
        let body = self.machines.borrow_mut().abort(id);
        let Some(body) = body else { return };
        self.end_machine(id, body, Some(JoinError::aborted()));
        // A turn skips the ids of machines that have ended. But calls that spawn and abort faster than the
        // turns run would lengthen the queues, and delay what is behind such ids.
        // A clock of the user's may abort while the netpoller is asked.
        let Ok(queued) = self.queue.try_borrow().map(|queue| queue.len()) else {
            return;
        };
        let mut machines = self.machines.borrow_mut();
        if queued + self.woken.borrow().len() > 2 * machines.slots_used() + SWEEP {
            self.retain_queued(|id| machines.is_alive(id));
            let queued = self.queue.borrow().len() + self.woken.borrow().len();
            debug_assert!(queued <= machines.slots_used(), "each once");
        }
    }

    /// Ends all machines and all waiters. It does so several times: a destructor may spawn another task,
    /// and an executor that polls inside `wake` may wait again.
    ///
    /// Then leave the runtime, and call [`wake_foreign_waiters`](Scheduler::wake_foreign_waiters) once
    /// more: outside, a poll finds no runtime and can't wait.
    pub(crate) fn shut_down(&self) {
        self.remote.close().into_iter().for_each(drop_for_good);
        for _ in 0..ATTEMPTS {
            // The machines go first, since that closes their sockets. Then what waits in other executors is
            // woken, and fails. It would else wait for ever.
            self.take_machines().into_iter().for_each(drop_for_good);
            self.wake_foreign_waiters();
        }
        // Tasks whose destructors spawn tasks like them never come to an end, so the rest is
        // leaked. A panic here would run more such destructors while it unwinds.
        let rest = self.take_machines();
        if !rest.is_empty() {
            log::error!("{} tasks that destructors spawned are leaked", rest.len());
            rest.into_iter().for_each(mem::forget);
        }
    }

    /// Shuts the reactor, and wakes the operations that other executors poll on it.
    pub(crate) fn wake_foreign_waiters(&self) {
        let mut foreign = Vec::new();
        self.reactor
            .for_each(|desc| desc.user_data.evict_beside(&mut foreign));
        let parked = self.reactor.core.evict_all().into_iter();
        foreign.extend(parked.filter_map(ParkKey::take_waker));
        foreign.into_iter().for_each(wake_quietly);
    }

    /// Ends the machines that are alive, and hands out their bodies.
    fn take_machines(&self) -> Vec<Body> {
        let mut machines = self.machines.borrow_mut();
        let ids = machines.ids();
        let mut bodies: Vec<Body> = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(body) = machines.abort(id) {
                bodies.push(body);
                machines.free(id);
            }
        }
        drop(machines);
        // All are marked as ended before any is dropped, since a destructor may poll another task's handle.
        for body in &mut bodies {
            if let Some(join) = body.as_mut().joined() {
                join.end(Some(JoinError::aborted()));
            }
        }
        bodies
    }
}

fn drop_for_good<T>(value: T) {
    if drop_quietly(value).is_some() {
        log::error!("a destructor panicked while its runtime was dropped");
    }
}
