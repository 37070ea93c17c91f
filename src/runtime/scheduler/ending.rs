//! How machines end: done, panicked, aborted, or with their runtime.
//!
//! May touch: what its parent does. Mirrors `goexit0` and `gdestroy` in Go's `runtime/proc.go`.

use std::any::Any;
use std::rc::Rc;

use super::Scheduler;
use crate::runtime::join::JoinError;
use crate::runtime::machine::{Body, MachineId};
use crate::runtime::panics::{Payload, drop_quietly, wake_quietly};

impl Scheduler {
    /// A task returned: kept if somebody joins it, else dropped, while it still counts as running.
    pub(crate) fn returned<T: 'static>(&self, id: MachineId, returned: T) {
        if self.machines.is_joined(id) {
            self.output.set(Some(Box::new(returned)));
        }
    }

    /// A machine is done: its body goes first, for that closes its sockets, with no borrow held.
    pub(super) fn finish(&self, id: MachineId, body: Body, panicked: Option<Payload>) {
        log::trace!("done {id:?}");
        let output = self.output.take();
        let panicked = drop_quietly(body).or(panicked);
        let joined = self.machines.finish(id);
        match (panicked, output) {
            (Some(payload), output) => {
                drop_quietly(output);
                self.end(id, joined, Err(JoinError::panicked(payload)));
            }
            (None, Some(output)) => self.end(id, joined, Ok(output)),
            // It was detached when it ended, so that nobody waits for what it returned.
            (None, None) => {}
        }
    }

    /// Leaves the outcome for whoever joins, and wakes them.
    pub(super) fn end(
        &self,
        id: MachineId,
        joined: bool,
        outcome: Result<Box<dyn Any>, JoinError>,
    ) {
        if !joined {
            if let Err(error) = &outcome
                && error.is_panic()
            {
                log::error!("a detached task panicked: {error}");
            }
            drop_quietly(outcome);
            return;
        }
        let mut joins = self.joins.borrow_mut();
        let join = joins.entry(id).or_default();
        join.outcome = Some(outcome);
        let waiter = join.waiter.take();
        drop(joins);
        if let Some(waker) = waiter {
            wake_quietly(waker);
        }
    }

    // ---- aborting and shutting down ----

    pub(crate) fn abort(&self, id: MachineId) {
        let aborted = self.machines.abort(id);
        if let Some(body) = aborted {
            drop_quietly(body);
            self.note_dead();
            self.end(id, true, Err(JoinError::aborted()));
        }
    }

    pub(crate) fn detach(&self, id: MachineId) {
        self.machines.detach(id);
        let mut joins = self.joins.borrow_mut();
        // Mostly nobody joins anything, which is cheaper to see than to look the id up.
        let gone = (!joins.is_empty()).then(|| joins.remove(&id));
        drop(joins);
        drop(gone);
    }

    pub(crate) fn is_alive(&self, id: MachineId) -> bool {
        self.machines.is_alive(id)
    }

    pub(crate) fn tasks(&self) -> usize {
        self.machines.len().saturating_sub(self.connections.get())
    }

    /// Whether it is being shut down.
    pub(crate) fn is_ending(&self) -> bool {
        self.remote.is_closed()
    }

    /// Drops all machines, one after the other, as dropping one may spawn or close anything; then
    /// shuts the reactor, so that what outlives the runtime fails instead of hanging.
    pub(crate) fn shut_down(self: &Rc<Self>) {
        self.remote.close().into_iter().for_each(drop_for_good);
        self.drop_machines();
        // Who waits elsewhere, in another runtime or on another executor, must learn of it.
        let mut strangers = Vec::new();
        self.reactor
            .each(|resource| resource.take_all_wakers(&mut strangers));
        self.reactor.shut_down();
        let sleepers = self.sleepers.take();
        strangers.extend(sleepers.into_iter().filter_map(|(_, waker)| waker));
        strangers.into_iter().for_each(wake_quietly);
        let joins = self.joins.take();
        joins.into_values().for_each(drop_for_good);
        // What a task had returned may have spawned, too.
        self.drop_machines();
    }

    fn drop_machines(&self) {
        loop {
            let all = self.machines.take_all();
            if all.is_empty() {
                break;
            }
            for (id, body) in all {
                drop_for_good(body);
                self.end(id, true, Err(JoinError::aborted()));
            }
        }
    }
}

fn drop_for_good<T>(value: T) {
    if drop_quietly(value).is_some() {
        log::error!("something panicked in being dropped with its runtime");
    }
}
