//! The slab of machines: all that the loop runs, by id.
//!
//! # A machine's life
//!
//! | body | `is_queued` | meaning | on to |
//! |---|---|---|---|
//! | in the slot | yes | its id is in a queue, since `insert` or `wake` | running by `take_body`; aborted |
//! | in the slot | no | it waits | queued by `wake`; aborted |
//! | taken | no | it runs | waiting by `put_back`; woken by `wake`; aborted; gone by `free` |
//! | taken | yes | it runs, and was woken meanwhile | queued by `put_back`; aborted; gone by `free` |
//! | taken, `is_aborted` | yes | its body is being dropped; or it runs, and is dropped afterwards | gone by `free` |
//!
//! The root, the future of `block_on`, lies on the caller's stack. It has the first slot for ever, and its
//! body is always taken. Between two calls of `block_on` it counts as queued, so that no waker queues it.
//!
//! `abort` takes the body. If the machine runs, `put_back` returns the body in place of keeping it. In
//! both cases the caller drops the body and then calls `free`. A free slot keeps nothing. Its next
//! machine has another generation, so that an id of an earlier machine does not match.

// Mirrors Go's `allgs` and `g.atomicstatus` (`runtime/runtime2.go`).

use std::future::Future;
use std::mem;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use slab::Slab;

pub(crate) use super::context::MachineId;
use super::context::{self, Waiter};
use super::dump::Entry;
use super::join::{Join, Joined, joiner, set_output};
use super::stats::{Figures, SharedHistogram};
use crate::sys::WithWaker;

/// Something that the loop runs when its id comes up.
pub(crate) trait Machine {
    /// Runs the machine until it has to wait (`Pending`) or is done (`Ready`).
    fn run(self: Pin<&mut Self>, id: MachineId) -> Poll<()>;

    /// Where the times of its runs are counted.
    fn times<'a>(&self, figures: &'a Figures) -> &'a SharedHistogram {
        &figures.task_time
    }

    /// Adds what a dump says of it. Returns its own waker, and the waker of what joins it.
    fn look(&self, _entry: &mut Entry) -> [Option<Waiter>; 2] {
        [None, None]
    }

    /// The cell of its `JoinHandle`, if there is one that may want to know how the machine ends.
    fn joined(self: Pin<&mut Self>) -> Option<Arc<dyn Joined>> {
        None
    }
}

pub(crate) type Body = Pin<Box<dyn Machine>>;

/// A task is a machine made of a future. It has a waker for what is polled in it, and the cell that it
/// shares with its `JoinHandle`.
pub(crate) type Task<F> = WithWaker<F, Option<Join<<F as Future>::Output>>>;

impl<F: Future<Output: 'static>> Machine for Task<F> {
    fn run(mut self: Pin<&mut Self>, id: MachineId) -> Poll<()> {
        // The handle is gone: an idle task needs no cell.
        let join = self.as_mut().data();
        drop(join.take_if(|join| !has_handle(join)));
        context::begin(id, &self.waker);
        let output = ready!(self.as_mut().poll());
        match self.data() {
            Some(join) if has_handle(join) => set_output(join, output),
            // Dropped while the task still counts as running.
            _ => drop(output),
        }
        Poll::Ready(())
    }

    fn look(&self, _entry: &mut Entry) -> [Option<Waiter>; 2] {
        let joiner = self.data.as_ref().and_then(joiner);
        [Some(Waiter::waker(&self.waker)), joiner]
    }

    fn joined(self: Pin<&mut Self>) -> Option<Arc<dyn Joined>> {
        let join = self.data().as_ref().filter(|join| has_handle(join))?;
        Some(join.clone())
    }
}

fn has_handle<T>(join: &Join<T>) -> bool {
    Arc::strong_count(join) > 1
}

struct Slot {
    /// `None` while it is taken: the machine runs, or is being dropped.
    body: Option<Body>,
    /// The part of the id that tells this machine from earlier ones in the slot.
    generation: u32,
    /// Whether its id is in a queue. Also set for an aborted machine, so that its id is not queued again.
    is_queued: bool,
    is_aborted: bool,
}

/// An entry of the slab is as large as a `Slot`: an unused value of a `bool` marks a free one.
const _: () = assert!(size_of::<Slot>() == 24 && size_of::<Option<Slot>>() == 24);

/// All machines of a runtime. Nothing is borrowed while one runs.
pub(crate) struct Machines {
    slots: Slab<Slot>,
    /// How many machines there have ever been.
    inserted: u64,
}

impl Machines {
    pub(crate) fn new() -> Self {
        let root = Slot {
            body: None,
            generation: MachineId::ROOT.generation(),
            is_queued: true,
            is_aborted: false,
        };
        Machines {
            slots: Slab::from_iter([(MachineId::ROOT.slot() as usize, root)]),
            inserted: 0,
        }
    }

    /// How many slots are in use: by the machines that are alive, and by the root.
    pub(crate) fn slots_used(&self) -> usize {
        self.slots.len()
    }

    /// Takes in a machine, with `is_queued` set: the caller puts its id into a queue.
    ///
    /// # Panics
    ///
    /// When 2^32 machines are alive.
    pub(crate) fn insert(&mut self, make: impl FnOnce(MachineId) -> Body) -> MachineId {
        let entry = self.slots.vacant_entry();
        let slot = u32::try_from(entry.key()).expect("2^32 machines are alive");
        let generation = 1 + (self.inserted % u64::from(MachineId::MAX_GENERATION)) as u32;
        self.inserted += 1;
        let id = MachineId::new(slot, generation);
        entry.insert(Slot {
            body: Some(make(id)),
            generation,
            is_queued: true,
            is_aborted: false,
        });
        id
    }

    /// The slot of a machine that is alive, or of the root. For a stale id there is no slot, or one with
    /// another generation.
    fn find(&mut self, id: MachineId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(id.slot() as usize)?;
        (slot.generation == id.generation() || fault!("stale_machine")).then_some(slot)
    }

    /// Whether it is alive. The root always is.
    pub(crate) fn is_alive(&mut self, id: MachineId) -> bool {
        self.find(id).is_some()
    }

    /// Marks a machine as queued. Returns whether its id has to go into the queue now: the machine
    /// is alive and was not queued.
    pub(crate) fn wake(&mut self, id: MachineId) -> bool {
        let slot = self.find(id);
        slot.is_some_and(|slot| !mem::replace(&mut slot.is_queued, true))
    }

    /// Takes a machine's body to run it.
    pub(crate) fn take_body(&mut self, id: MachineId) -> Option<Body> {
        let slot = self.find(id)?;
        slot.is_queued = false;
        slot.body.take()
    }

    /// Puts the body of a machine that has to wait back into its slot. If the machine was aborted while it
    /// ran, returns the body: the caller drops it and calls `free`.
    pub(crate) fn put_back(&mut self, id: MachineId, body: Body) -> Option<Body> {
        // Only `free` frees the slot of a machine that runs.
        let slot = &mut self.slots[id.slot() as usize];
        debug_assert_eq!(slot.generation, id.generation(), "the slot is its own");
        if slot.is_aborted {
            return Some(body);
        }
        debug_assert!(slot.body.is_none(), "its body was taken");
        slot.body = Some(body);
        None
    }

    /// Frees the slot of a machine whose body is taken and dropped.
    pub(crate) fn free(&mut self, id: MachineId) {
        let slot = self.slots.remove(id.slot() as usize);
        debug_assert!(slot.body.is_none(), "its body is taken");
    }

    /// Takes a machine's body: the caller drops it and calls `free`. If the machine runs, returns `None`,
    /// and `put_back` returns the body later.
    pub(crate) fn abort(&mut self, id: MachineId) -> Option<Body> {
        let slot = self.find(id)?;
        slot.is_aborted = true;
        slot.is_queued = true;
        slot.body.take()
    }

    /// Calls `look` with each machine in these slots, its body (`None` while it is taken), and whether it
    /// is queued. Returns whether there are more slots.
    pub(super) fn for_each_in(
        &self,
        keys: Range<usize>,
        mut look: impl FnMut(MachineId, Option<&dyn Machine>, bool),
    ) -> bool {
        for key in keys.clone() {
            let Some(slot) = self.slots.get(key) else {
                continue;
            };
            let id = MachineId::new(key as u32, slot.generation);
            look(id, slot.body.as_deref(), slot.is_queued);
        }
        keys.end < self.slots.capacity()
    }

    /// The ids of all machines that are alive, and of the root.
    pub(crate) fn ids(&self) -> Vec<MachineId> {
        let ids = self.slots.iter();
        ids.map(|(key, slot)| MachineId::new(key as u32, slot.generation))
            .collect()
    }
}

#[cfg(test)]
mod tests;
