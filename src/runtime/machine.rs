//! The slab of machines: everything that runs, by id.
//!
//! May touch: std, the context it runs in, sys. Mirrors Go's `allgs` and `g.atomicstatus` (`runtime/runtime2.go`).
//!
//! # A machine's life
//!
//! | state | body | who moves it there | on to |
//! |---|---|---|---|
//! | Queued | in the slab | `insert`; `wake` from Idle | Running by `start` |
//! | Idle | in the slab | `suspend` from Running | Queued by `wake`; Gone by `abort` |
//! | Running | out, on the stack | `start` | Idle or Queued by `suspend`; Gone by `finish` |
//! | Running, queued | out | `wake` while Running | Queued by `suspend` |
//! | Running, aborted | out | `abort` while Running | Gone by `suspend`, which hands the body back |
//! | Gone | none | `finish`, `abort`, `take_all` | the slot's next owner, under another generation |
//!
//! Illegal: starting a machine that runs (the loop is one thread, and refuses to be re-entered).
//! A stale id, of an earlier owner of the slot, finds nothing, whatever is asked.

use std::any::Any;
use std::future::Future;
use std::mem;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::Poll;

use super::context;
use crate::sys::WithWaker;

/// Names a machine: 32 bits of slot, 31 of generation; never zero.
///
/// The generation counts all machines of the runtime and wraps after 2^31: an id would have to be
/// kept for two thousand million spawns to wake the wrong machine, and a spurious wake is legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MachineId(NonZeroU64);

impl MachineId {
    /// The future of `block_on`, which lives on the caller's stack.
    pub(crate) const ROOT: MachineId = MachineId(NonZeroU64::MIN);

    const FIRST_GENERATION: u32 = 1;
    const LAST_GENERATION: u32 = (1 << 31) - 1;

    fn new(slot: usize, generation: u32) -> Self {
        let bits = slot as u64 | u64::from(generation) << 32;
        MachineId(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MIN))
    }

    pub(crate) fn from_bits(bits: NonZeroU64) -> Self {
        MachineId(bits)
    }

    pub(crate) fn bits(self) -> NonZeroU64 {
        self.0
    }

    #[inline]
    fn slot(self) -> usize {
        self.0.get() as u32 as usize
    }

    #[inline]
    fn generation(self) -> u32 {
        (self.0.get() >> 32) as u32
    }
}

/// What a task returned, for whoever joins it.
pub(crate) type Output = Option<Box<dyn Any>>;

/// Something the loop runs when its id comes up.
pub(crate) trait Machine {
    /// Goes on until it has to wait (`Pending`) or is done (`Ready`). What it returns is left with
    /// the scheduler, if somebody joins it.
    fn run(self: Pin<&mut Self>, id: MachineId) -> Poll<()>;
}

/// A task is a future, a machine that the compiler wrote, with a waker for what is polled in it.
impl<F: Future> Machine for WithWaker<F>
where
    F::Output: 'static,
{
    #[inline]
    fn run(self: Pin<&mut Self>, id: MachineId) -> Poll<()> {
        context::begin(id, &self.waker);
        match self.poll() {
            Poll::Pending => Poll::Pending,
            Poll::Ready(returned) => {
                context::with("ending a task", |scheduler| {
                    scheduler.returned(id, returned)
                });
                Poll::Ready(())
            }
        }
    }
}

pub(crate) type Body = Pin<Box<dyn Machine>>;

struct Slot {
    /// Out while it runs, and in a free slot.
    body: Option<Body>,
    /// Zero in a free slot: no id has that.
    generation: u32,
    queued: bool,
    aborted: bool,
    joined: bool,
}

/// All machines of a runtime.
pub(crate) struct Machines {
    slots: Vec<Slot>,
    free: Vec<u32>,
    generation: u32,
}

/// What `suspend` found on putting a machine back.
pub(crate) enum Suspended {
    Kept,
    /// It was aborted while it ran: drop its body once no borrow is held.
    Aborted {
        joined: bool,
        body: Body,
    },
}

impl Machines {
    pub(crate) fn new() -> Self {
        // Slot zero is the root's, for good: it is never looked up here.
        let root = Slot {
            body: None,
            generation: 0,
            queued: true,
            aborted: false,
            joined: false,
        };
        Machines {
            slots: vec![root],
            free: Vec::new(),
            generation: MachineId::FIRST_GENERATION,
        }
    }

    /// Machines alive.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - 1 - self.free.len()
    }

    /// Takes in a machine, as Queued: the caller puts its id into the queue.
    pub(crate) fn insert(&mut self, make: impl FnOnce(MachineId) -> Body) -> MachineId {
        let generation = self.generation;
        self.generation = match generation {
            MachineId::LAST_GENERATION => MachineId::FIRST_GENERATION,
            generation => generation + 1,
        };
        let free = self.free.pop();
        let at = free.map_or(self.slots.len(), |slot| slot as usize);
        let id = MachineId::new(at, generation);
        let slot = Slot {
            body: Some(make(id)),
            generation,
            queued: true,
            aborted: false,
            joined: true,
        };
        match free {
            Some(_) => self.slots[at] = slot,
            None => self.slots.push(slot),
        }
        id
    }

    #[inline]
    fn slot(&mut self, id: MachineId) -> Option<&mut Slot> {
        match self.slots.get_mut(id.slot()) {
            Some(slot) if slot.generation == id.generation() => Some(slot),
            _ => None,
        }
    }

    fn free(&mut self, id: MachineId) {
        self.slots[id.slot()].generation = 0;
        self.free.push(id.slot() as u32);
    }

    /// Marks it queued. Whether it was not: then its id goes into the queue.
    #[inline]
    pub(crate) fn wake(&mut self, id: MachineId) -> bool {
        match self.slot(id) {
            Some(slot) => !std::mem::replace(&mut slot.queued, true),
            None => false,
        }
    }

    /// Takes a machine out to run it.
    #[inline]
    pub(crate) fn start(&mut self, id: MachineId) -> Option<Body> {
        let slot = self.slot(id)?;
        slot.queued = false;
        slot.body.take()
    }

    pub(crate) fn is_joined(&mut self, id: MachineId) -> bool {
        self.slot(id).is_some_and(|slot| slot.joined)
    }

    /// Puts a machine back that has to wait.
    #[inline]
    pub(crate) fn suspend(&mut self, id: MachineId, body: Body) -> Suspended {
        // It kept its slot while it ran, so there is no generation to compare.
        let slot = &mut self.slots[id.slot()];
        if !slot.aborted {
            // Forgotten, for it is None: to drop it would cost a check.
            mem::forget(slot.body.replace(body));
            return Suspended::Kept;
        }
        let joined = self.finish(id);
        Suspended::Aborted { joined, body }
    }

    /// A machine that ran is done: frees its slot, and says whether it is joined.
    pub(crate) fn finish(&mut self, id: MachineId) -> bool {
        let joined = self.slot(id).is_some_and(|slot| slot.joined);
        self.free(id);
        joined
    }

    /// Takes out a machine for good, to be dropped once no borrow is held. One that runs goes when
    /// it suspends.
    pub(crate) fn abort(&mut self, id: MachineId) -> Option<Body> {
        let slot = self.slot(id)?;
        let body = slot.body.take();
        match body {
            Some(_) => self.free(id),
            None => slot.aborted = true,
        }
        body
    }

    /// Nobody will join it any more.
    pub(crate) fn detach(&mut self, id: MachineId) {
        if let Some(slot) = self.slot(id) {
            slot.joined = false;
        }
    }

    pub(crate) fn is_alive(&mut self, id: MachineId) -> bool {
        self.slot(id).is_some()
    }

    /// All that are alive.
    pub(crate) fn ids(&self) -> Vec<MachineId> {
        let slots = self.slots.iter().enumerate();
        let alive = slots.filter(|(_, slot)| slot.generation != 0);
        alive
            .map(|(at, slot)| MachineId::new(at, slot.generation))
            .collect()
    }

    /// Takes out all machines, at shutdown.
    pub(crate) fn take_all(&mut self) -> Vec<(MachineId, Option<Body>)> {
        let mut all = Vec::with_capacity(self.len());
        for (at, slot) in self.slots.iter_mut().enumerate() {
            if slot.generation != 0 {
                let generation = std::mem::take(&mut slot.generation);
                all.push((MachineId::new(at, generation), slot.body.take()));
                self.free.push(at as u32);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests;
