//! How machines end: done, panicked, aborted, or with their runtime.

// Mirrors `goexit0` and `gdestroy` in Go's `runtime/proc.go`.

use std::rc::Rc;

use super::join::JoinError;
use super::machine::{Body, MachineId};
use super::panics::{drop_quietly, wake_quietly};
use super::scheduler::Scheduler;

/// Rounds in which a runtime ends what the round before has brought about.
const ROUNDS: usize = 4;

impl Scheduler {
    /// Ends a machine that has run for the last time, or was aborted. `error` is how, unless it is
    /// done.
    pub(super) fn finish(&self, id: MachineId, mut body: Body, error: Option<JoinError>) {
        log::trace!("done {id:?}");
        let join = body.as_mut().joined();
        // The body goes first, with no borrow held: that closes its sockets. Until then the machine
        // counts as alive.
        let panicked = drop_quietly(body);
        self.machines.finish(id);
        let error = error.or_else(|| panicked.map(JoinError::panicked));
        // The handle may have gone with the body.
        match join.filter(|join| Rc::strong_count(join) > 1) {
            Some(join) => {
                self.outcomes.keep(join.clone());
                join.end(error);
            }
            None => {
                if let Some(error) = error
                    && error.is_panic()
                {
                    log::error!("a detached task panicked: {error}");
                }
            }
        }
    }

    pub(crate) fn abort(&self, id: MachineId) {
        if let Some(body) = self.machines.abort(id) {
            self.finish(id, body, Some(JoinError::aborted()));
            self.note_dead();
        }
    }

    pub(crate) fn tasks(&self) -> usize {
        self.machines.len().saturating_sub(self.connections.get())
    }

    /// Whether it is being shut down.
    pub(crate) fn is_ending(&self) -> bool {
        self.remote.is_closed()
    }

    /// Ends all that lives here, in rounds: a destructor may spawn another task, and an executor that
    /// polls while it is woken may wait anew.
    ///
    /// Call [`end_round`](Scheduler::end_round) once more outside the runtime. What never comes to an
    /// end by itself finds no runtime there: it panics, and the panic is caught.
    pub(crate) fn shut_down(&self) {
        self.remote.close().into_iter().for_each(drop_for_good);
        for _ in 0..ROUNDS {
            self.end_round();
        }
    }

    /// Drops all machines, then shuts the reactor, so that what outlives the runtime fails instead of
    /// hanging; then wakes what waits for any of it on other executors.
    pub(crate) fn end_round(&self) {
        self.drop_machines();
        self.outcomes.discard_all();
        let mut foreign = Vec::new();
        self.reactor
            .each(|socket| socket.take_all_wakers(&mut foreign));
        self.reactor.shut_down();
        let sleepers = self.sleepers.take();
        foreign.extend(sleepers.into_iter().filter_map(|(_, waker)| waker));
        foreign.into_iter().for_each(wake_quietly);
    }

    /// Drops the machines that are alive. Those that they spawn meanwhile stay.
    fn drop_machines(&self) {
        let ids = self.machines.ids();
        let mut bodies: Vec<Body> = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(body) = self.machines.abort(id) {
                bodies.push(body);
                self.machines.finish(id);
            }
        }
        // All have ended before any is dropped: a destructor that asks for another task learns so.
        for body in &mut bodies {
            if let Some(join) = body.as_mut().joined() {
                join.end(Some(JoinError::aborted()));
            }
        }
        bodies.into_iter().for_each(drop_for_good);
    }
}

fn drop_for_good<T>(value: T) {
    if drop_quietly(value).is_some() {
        log::error!("a destructor panicked while its runtime was dropped");
    }
}
