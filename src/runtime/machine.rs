//! The slab of machines: everything that runs, by id.
//!
//! May touch: std and the slab. Mirrors Go's `allgs` and `g.atomicstatus` (`runtime/runtime2.go`).
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
//! | Gone | none | `finish`, `abort`, `clear` | the slot's next owner, under another generation |
//!
//! Illegal: starting a machine that runs (the loop is one thread, and refuses to be re-entered).
//! A stale id, of an earlier owner of the slot, finds nothing, whatever is asked.

use std::any::Any;
use std::future::Future;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use slab::Slab;

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
    /// Goes on until it has to wait (`Pending`) or is done (`Ready`). What it returns goes to
    /// `output` if it is `joined`; `waker` is for other people's futures in it.
    fn run(self: Pin<&mut Self>, waker: &Waker, joined: bool, output: &mut Output) -> Poll<()>;
}

/// A task is a future: a machine that the compiler wrote.
impl<F: Future> Machine for F
where
    F::Output: 'static,
{
    #[inline]
    fn run(self: Pin<&mut Self>, waker: &Waker, joined: bool, output: &mut Output) -> Poll<()> {
        match self.poll(&mut Context::from_waker(waker)) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(returned) => {
                if joined {
                    *output = Some(Box::new(returned));
                }
                Poll::Ready(())
            }
        }
    }
}

pub(crate) type Body = Pin<Box<dyn Machine>>;

struct Slot {
    /// Out while it runs.
    body: Option<(Body, Waker)>,
    generation: u32,
    queued: bool,
    aborted: bool,
    joined: bool,
}

/// All machines of a runtime.
pub(crate) struct Machines {
    slots: Slab<Slot>,
    generation: u32,
}

/// What `suspend` found on putting a machine back.
pub(crate) enum Suspended {
    Kept,
    /// It was aborted while it ran: drop its body once no borrow is held.
    Aborted {
        joined: bool,
        body: (Body, Waker),
    },
}

impl Machines {
    pub(crate) fn new() -> Self {
        let mut slots = Slab::new();
        // Slot zero is the root's, for good: it is never looked up here.
        slots.insert(Slot {
            body: None,
            generation: 0,
            queued: true,
            aborted: false,
            joined: false,
        });
        Machines {
            slots,
            generation: MachineId::FIRST_GENERATION,
        }
    }

    /// Machines alive.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - 1
    }

    /// Takes in a machine, as Queued: the caller puts its id into the queue.
    pub(crate) fn insert(
        &mut self,
        body: Body,
        waker: impl FnOnce(MachineId) -> Waker,
    ) -> MachineId {
        let entry = self.slots.vacant_entry();
        let id = MachineId::new(entry.key(), self.generation);
        self.generation = match self.generation {
            MachineId::LAST_GENERATION => MachineId::FIRST_GENERATION,
            generation => generation + 1,
        };
        entry.insert(Slot {
            body: Some((body, waker(id))),
            generation: id.generation(),
            queued: true,
            aborted: false,
            joined: true,
        });
        id
    }

    #[inline]
    fn slot(&mut self, id: MachineId) -> Option<&mut Slot> {
        self.slots
            .get_mut(id.slot())
            .filter(|slot| slot.generation == id.generation())
    }

    /// Marks it queued. Whether it was not: then its id goes into the queue.
    #[inline]
    pub(crate) fn wake(&mut self, id: MachineId) -> bool {
        match self.slot(id) {
            Some(slot) => !std::mem::replace(&mut slot.queued, true),
            None => false,
        }
    }

    /// Takes a machine out to run it; the flag says whether it is joined.
    #[inline]
    pub(crate) fn start(&mut self, id: MachineId) -> Option<(Body, Waker, bool)> {
        let slot = self.slot(id)?;
        slot.queued = false;
        let (body, waker) = slot.body.take()?;
        Some((body, waker, slot.joined))
    }

    /// Puts a machine back that has to wait.
    #[inline]
    pub(crate) fn suspend(&mut self, id: MachineId, body: Body, waker: Waker) -> Suspended {
        match self.slot(id) {
            Some(slot) if !slot.aborted => {
                slot.body = Some((body, waker));
                Suspended::Kept
            }
            _ => Suspended::Aborted {
                joined: self.finish(id),
                body: (body, waker),
            },
        }
    }

    /// A machine that ran is done: frees its slot, and says whether it is joined.
    pub(crate) fn finish(&mut self, id: MachineId) -> bool {
        match self.slot(id) {
            Some(_) => self.slots.remove(id.slot()).joined,
            None => false,
        }
    }

    /// Takes out a machine for good, to be dropped once no borrow is held. One that runs goes when
    /// it suspends.
    pub(crate) fn abort(&mut self, id: MachineId) -> Option<(Body, Waker)> {
        let slot = self.slot(id)?;
        match slot.body.take() {
            Some(body) => {
                self.slots.remove(id.slot());
                Some(body)
            }
            None => {
                slot.aborted = true;
                None
            }
        }
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

    /// Takes out one machine after the other, at shutdown.
    pub(crate) fn pop(&mut self) -> Option<(MachineId, Option<(Body, Waker)>)> {
        let key = self
            .slots
            .iter()
            .map(|(key, _)| key)
            .find(|&key| key != 0)?;
        let slot = self.slots.remove(key);
        Some((MachineId::new(key, slot.generation), slot.body))
    }
}
