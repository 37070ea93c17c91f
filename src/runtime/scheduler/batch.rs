//! The machines of one turn, run one after the other, and those ahead brought closer.
//!
//! May touch: its parent, the reactor, sys. Mirrors the local run queue of a `p` in Go's
//! `runtime/proc.go`.
//!
//! Between two runs of a machine the kernel has handled a thousand other packets, and of ten
//! thousand connections nothing is left in the caches: each machine would wait for its slot, its
//! body and its descriptor, one after the other. So a long batch is run by groups, and whatever the
//! next group begins with is asked for before this one is run.

use std::mem;

use super::Scheduler;
use crate::reactor::{Handed, Reactor, Turn};
use crate::runtime::context;
use crate::runtime::machine::MachineId;
use crate::runtime::socket::{Parked, Socket};
use crate::sys::Whereabouts;

/// Machines run between two looks at the selector, so that a long queue does not keep new
/// readiness, and with it everybody's deadlines, waiting.
const BATCH: usize = 1024;

/// Machines brought closer at once: so few that they are still there when they are run.
const GROUP: usize = 16;

/// With fewer than these to come, what they need is in the caches anyway.
const MANY: usize = 64;

/// Who is to run, and the descriptor that it was parked on, if there is one.
pub(super) struct Runnable {
    pub(super) parked: Parked,
    descriptor: Whereabouts,
}

impl Runnable {
    pub(super) fn machine(id: MachineId) -> Self {
        Runnable::handed(Parked::machine(id), Whereabouts::NOWHERE)
    }
}

impl Handed<Parked> for Runnable {
    #[inline]
    fn handed(parked: Parked, descriptor: Whereabouts) -> Self {
        Runnable { parked, descriptor }
    }
}

#[derive(Default)]
pub(super) struct Batch {
    pub(super) all: Vec<Runnable>,
    /// How many of them have been run.
    done: usize,
}

impl Batch {
    /// Those that have not been run.
    pub(super) fn left(&self) -> &[Runnable] {
        &self.all[self.done..]
    }

    fn settle(&mut self, done: usize) {
        self.done = done;
        if self.done == self.all.len() {
            self.all.clear();
            self.done = 0;
        } else if self.done > self.all.len() / 2 {
            self.all.drain(..mem::take(&mut self.done));
        }
    }
}

impl Scheduler {
    pub(super) fn run_batch(&self, batch: &mut Batch, turn: &mut Turn) {
        let mut left = batch.left();
        left = &left[..left.len().min(BATCH)];
        turn.machines = left.len();
        while left.len() >= GROUP + MANY {
            let (group, rest) = left.split_at(GROUP);
            self.look_ahead(&rest[..GROUP]);
            self.run_all(group);
            left = rest;
        }
        self.run_all(left);
        context::end();
        batch.settle(batch.done + turn.machines);
    }

    /// Out of line, for there are two who call it, and a run should be inlined in its loop.
    #[inline(never)]
    fn run_all(&self, group: &[Runnable]) {
        for runnable in group {
            self.run(runnable.parked);
        }
    }

    #[cold]
    #[inline(never)]
    fn look_ahead(&self, group: &[Runnable]) {
        for Runnable { descriptor, .. } in group {
            descriptor.prefetch(Reactor::<Parked, Socket>::BUSY);
        }
    }
}
