//! The slab of machines: everything that runs, by id.
//!
//! May touch: std, the context it runs in, sys. Mirrors Go's `allgs` and `g.atomicstatus` (`runtime/runtime2.go`).
//!
//! # A machine's life
//!
//! | state | body | who moves it there | on to |
//! |---|---|---|---|
//! | Queued | in its slot | `insert`; `wake` from Idle | Running by `start` |
//! | Idle | in its slot | `suspend` from Running | Queued by `wake`; Gone by `abort` |
//! | Running | out, on the stack | `start` | Idle or Queued by `suspend`; Gone by `finish` |
//! | Running, queued | out | `wake` while Running | Queued by `suspend` |
//! | Running, aborted | out | `abort` while Running | Gone by `finish`, after `suspend` has handed the body back |
//! | Gone | none | `finish`, `abort`, `take_all` | the slot's next owner, under another generation |
//!
//! Illegal: starting a machine that runs (the loop is one thread, and refuses to be re-entered).
//! A stale id, of an earlier owner of the slot, finds nothing, whatever is asked.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::mem;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::Poll;

use super::context;
use super::shelf::Shelf;
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

    fn new(slot: u32, generation: u32) -> Self {
        let bits = u64::from(slot) | u64::from(generation) << 32;
        MachineId(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MIN))
    }

    pub(crate) fn from_bits(bits: NonZeroU64) -> Self {
        MachineId(bits)
    }

    pub(crate) fn bits(self) -> NonZeroU64 {
        self.0
    }

    #[inline]
    fn slot(self) -> u32 {
        self.0.get() as u32
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

/// A machine's place.
pub(crate) struct Slot {
    /// Out while it runs, and in a free slot.
    body: Cell<Option<Body>>,
    /// Zero in a free slot: no machine's id has that.
    generation: Cell<u32>,
    queued: Cell<bool>,
    aborted: Cell<bool>,
    joined: Cell<bool>,
}

impl Default for Slot {
    fn default() -> Self {
        Slot {
            body: Cell::new(None),
            generation: Cell::new(0),
            queued: Cell::new(false),
            aborted: Cell::new(false),
            joined: Cell::new(false),
        }
    }
}

impl Slot {
    /// Takes a machine out to run it.
    #[inline]
    pub(crate) fn start(&self) -> Option<Body> {
        let body = self.body.take()?;
        self.queued.set(false);
        Some(body)
    }

    /// Puts a machine back that has to wait. If it was aborted while it ran it comes back, to be
    /// dropped: then `finish` has to follow.
    #[inline]
    pub(crate) fn suspend(&self, body: Body) -> Option<Body> {
        if self.aborted.get() {
            return Some(body);
        }
        // Forgotten, for it is None: to drop it would cost a check.
        mem::forget(self.body.replace(Some(body)));
        None
    }
}

/// All machines of a runtime. Nothing is borrowed while one runs.
pub(crate) struct Machines {
    slots: Shelf<Slot>,
    free: RefCell<Vec<u32>>,
    generation: Cell<u32>,
}

impl Machines {
    pub(crate) fn new() -> Self {
        Machines {
            slots: Shelf::new(),
            free: RefCell::default(),
            generation: Cell::new(MachineId::FIRST_GENERATION),
        }
    }

    /// Machines alive.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.borrow().len()
    }

    /// Takes in a machine, as Queued: the caller puts its id into the queue.
    pub(crate) fn insert(&self, make: impl FnOnce(MachineId) -> Body) -> MachineId {
        let generation = self.generation.get();
        self.generation.set(match generation {
            MachineId::LAST_GENERATION => MachineId::FIRST_GENERATION,
            generation => generation + 1,
        });
        let free = self.free.borrow_mut().pop();
        let number = free.unwrap_or_else(|| self.slots.next());
        let id = MachineId::new(number, generation);
        let body = make(id);
        let slot = self.slots.get(number).expect("it was just made");
        slot.body.set(Some(body));
        slot.generation.set(generation);
        slot.queued.set(true);
        slot.aborted.set(false);
        slot.joined.set(true);
        id
    }

    /// The place of a machine that is alive. Of an id that is none, such as the root's or a foreign
    /// waker's note, it finds none, or a free one.
    #[inline]
    pub(crate) fn slot(&self, id: MachineId) -> Option<&Slot> {
        let slot = self.slots.get(id.slot())?;
        (slot.generation.get() == id.generation()).then_some(slot)
    }

    fn free(&self, id: MachineId, slot: &Slot) {
        slot.generation.set(0);
        self.free.borrow_mut().push(id.slot());
    }

    /// Marks it queued. Whether it was not: then its id goes into the queue.
    #[inline]
    pub(crate) fn wake(&self, id: MachineId) -> bool {
        self.slot(id).is_some_and(|slot| !slot.queued.replace(true))
    }

    pub(crate) fn is_joined(&self, id: MachineId) -> bool {
        self.slot(id).is_some_and(|slot| slot.joined.get())
    }

    /// A machine that ran is done: frees its slot, and says whether it is joined.
    pub(crate) fn finish(&self, id: MachineId) -> bool {
        let Some(slot) = self.slot(id) else {
            return false;
        };
        self.free(id, slot);
        slot.joined.get()
    }

    /// Takes out a machine for good, to be dropped by the caller. One that runs goes when it
    /// suspends.
    pub(crate) fn abort(&self, id: MachineId) -> Option<Body> {
        let slot = self.slot(id)?;
        let body = slot.body.take();
        match body {
            Some(_) => self.free(id, slot),
            None => slot.aborted.set(true),
        }
        body
    }

    /// Nobody will join it any more.
    pub(crate) fn detach(&self, id: MachineId) {
        if let Some(slot) = self.slot(id) {
            slot.joined.set(false);
        }
    }

    pub(crate) fn is_alive(&self, id: MachineId) -> bool {
        self.slot(id).is_some()
    }

    /// All that are alive.
    pub(crate) fn ids(&self) -> Vec<MachineId> {
        let alive = self.slots.iter().filter_map(|(number, slot)| {
            let generation = slot.generation.get();
            (generation != 0).then(|| MachineId::new(number, generation))
        });
        alive.collect()
    }

    /// Takes out all machines, at shutdown.
    pub(crate) fn take_all(&self) -> Vec<(MachineId, Option<Body>)> {
        let ids = self.ids();
        let all = ids.into_iter().filter_map(|id| {
            let slot = self.slot(id)?;
            self.free(id, slot);
            Some((id, slot.body.take()))
        });
        all.collect()
    }
}

#[cfg(test)]
mod tests;
