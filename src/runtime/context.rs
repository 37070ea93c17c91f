//! What runs on this thread now, and what is parked for it.
//!
//! What runs is in thread-local `Cell`s: which machine, with which waker, on how much budget. The hot path
//! reads these without a borrow, a reference count, or a check for destruction. `current.rs` has the
//! runtime itself.
//!
//! What is parked is a [`ParkKey`]: the id of the running machine, or the key of a foreign waker. A foreign
//! waker is kept on this thread until its key is handed out, or until the operation that parked the key
//! removes the waker. A key that is still in a slot then finds nothing.
//!
//! # The budget
//!
//! A machine may move 64 KiB, or do 64 small operations, before the other machines run. An
//! operation calls [`charge`]. A future that may be ready without a wait calls [`has_budget`] before it
//! goes on, or yields with [`poll_yield`] or [`yield_once`].
//!
//! Each such future yields once and then proceeds, with budget or without: it remembers that it has
//! yielded. Otherwise it would never be ready in a task whose other futures use up the budget in
//! every run.

// Mirrors Go's `getg()`: the goroutine that runs. Go parks a `g` in all cases: it has one scheduler.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::num::NonZeroU64;
use std::ptr;
use std::task::{Poll, Waker};

use slab::Slab;

// ---- machines ----

/// Names a machine: 32 bits of slot, 31 of generation; never zero.
///
/// An id is used for waking. A task that was spawned 2^31 - 1 spawns later into the same slot has the
/// same id: an id that was kept for so long wakes it without cause, which is legal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MachineId(NonZeroU64);

impl MachineId {
    /// The future of `block_on`, which lives on the caller's stack.
    pub(crate) const ROOT: MachineId = MachineId(NonZeroU64::new(1 << 32).unwrap());

    pub(super) const MAX_GENERATION: u32 = (1 << 31) - 1;

    pub(super) fn new(slot: u32, generation: u32) -> Self {
        debug_assert!((1..=Self::MAX_GENERATION).contains(&generation));
        let bits = u64::from(slot) | u64::from(generation) << 32;
        MachineId(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MIN))
    }

    pub(crate) fn from_bits(bits: NonZeroU64) -> Self {
        MachineId(bits)
    }

    pub(crate) fn bits(self) -> NonZeroU64 {
        self.0
    }

    pub(super) fn slot(self) -> u32 {
        self.0.get() as u32
    }

    pub(super) fn generation(self) -> u32 {
        (self.0.get() >> 32) as u32
    }
}

/// `slot.generation`.
impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot(), self.generation())
    }
}

impl fmt::Debug for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// ---- what runs ----

/// What a machine may spend before the others run: each byte that it moves costs one, and each
/// operation [`OPERATION`]. Enough to amortise a run; eight machines that use all of it take a few hundred
/// microseconds.
const BUDGET: i64 = 64 * 1024;

/// What an operation costs besides its bytes.
const OPERATION: i64 = 1024;

/// The budget while no machine runs: a future that another executor polls is not limited by ours.
const NO_LIMIT: i64 = i64::MAX;

thread_local! {
    /// The address of the entered runtime's reactor; null outside a runtime.
    static HOME: Cell<*const ()> = const { Cell::new(ptr::null()) };
    /// The machine that runs, or ran last.
    static ID: Cell<MachineId> = const { Cell::new(MachineId::ROOT) };
    /// The address of the running future's own waker; null if none runs.
    static WAKER: Cell<*const Waker> = const { Cell::new(ptr::null()) };
    /// What the running machine may still spend; `NO_LIMIT` while no machine runs.
    static LEFT: Cell<i64> = const { Cell::new(NO_LIMIT) };
}

/// The values of all four.
pub(super) type Run = (*const (), MachineId, *const Waker, i64);

// ---- entering a runtime: for current.rs alone ----

/// The runtime of reactor `home` is entered, and no machine runs yet. Returns what ran
/// before.
pub(super) fn enter(home: *const ()) -> Run {
    debug_assert!(!home.is_null());
    let before = (HOME.replace(home), ID.get(), WAKER.get(), LEFT.get());
    end();
    before
}

pub(super) fn leave((home, id, waker, left): Run) {
    HOME.set(home);
    ID.set(id);
    WAKER.set(waker);
    LEFT.set(left);
}

// ---- a run ----

/// A machine begins to run, with a fresh budget. `waker` is its own if it is a future, else null.
pub(crate) fn begin(id: MachineId, waker: *const Waker) {
    debug_assert!(!HOME.get().is_null(), "a runtime is entered");
    ID.set(id);
    WAKER.set(waker);
    LEFT.set(BUDGET);
}

/// The machine that runs, or ran last.
pub(crate) fn running_machine() -> MachineId {
    ID.get()
}

/// Called when no machine runs: a waker that is parked from now on counts as foreign.
pub(crate) fn end() {
    WAKER.set(ptr::null());
    LEFT.set(NO_LIMIT);
}

/// The id to park, if `waker` is the running machine's own and `home` its reactor.
///
/// A waker counts as the machine's own only at the same address: the machine's waker stays there while the
/// machine runs, so no other waker can be there. A clone counts as foreign, which is correct but slower.
pub(crate) fn own(home: *const (), waker: &Waker) -> Option<MachineId> {
    let own = ptr::eq(WAKER.get(), waker) && ptr::eq(HOME.get(), home);
    own.then(|| ID.get())
}

// ---- what is parked ----

/// ```text
///   | 63      | 62 ... 32                 | 31 ... 0            |
///   | foreign | how many were kept so far | its key in `wakers` |   a waker's key
///   | 0       | generation of the machine | its slot            |   a machine's id
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ParkKey(NonZeroU64);

const FOREIGN: u64 = 1 << 63;

/// What waits, as a dump knows it: a machine, or the address that a waker shares with its clones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Waiter {
    Machine(MachineId),
    Address(usize),
}

impl Waiter {
    pub(crate) fn waker(waker: &Waker) -> Self {
        Waiter::Address(waker.data() as usize)
    }
}

#[derive(Default)]
struct Kept {
    /// Each with its key. Once `count` has wrapped, an old key may wake another waker without cause,
    /// which is legal.
    wakers: Slab<(ParkKey, Waker)>,
    count: u64,
}

thread_local! {
    static KEPT: RefCell<Kept> = RefCell::default();
}

impl ParkKey {
    pub(crate) fn machine(id: MachineId) -> Self {
        ParkKey(id.bits())
    }

    /// What to park for `waker` on the reactor `home`. If `waker` is the running machine's own, that is
    /// the machine's id. Otherwise keeps a clone, and returns its key.
    pub(crate) fn of(home: *const (), waker: &Waker) -> Self {
        match own(home, waker) {
            Some(id) => ParkKey::machine(id),
            None => ParkKey::keep(waker.clone()),
        }
    }

    /// Keeps a foreign waker.
    #[cold]
    pub(crate) fn keep(waker: Waker) -> Self {
        let kept = KEPT.try_with(|kept| {
            let kept = &mut *kept.borrow_mut();
            kept.count += 1;
            let entry = kept.wakers.vacant_entry();
            debug_assert!(u32::try_from(entry.key()).is_ok(), "it has half of the key");
            let key = ParkKey::foreign(kept.count << 32 | entry.key() as u64);
            entry.insert((key, waker));
            key
        });
        // The thread is ending: no turn will hand this key out.
        kept.unwrap_or(ParkKey::foreign(0))
    }

    fn foreign(bits: u64) -> Self {
        ParkKey(NonZeroU64::new(FOREIGN | bits).unwrap_or(NonZeroU64::MIN))
    }

    /// Calls `f` with the kept wakers and the index of the one that this stands for, if it is still kept.
    /// No key in the table is a machine's id.
    fn kept<R>(self, f: impl FnOnce(&mut Slab<(ParkKey, Waker)>, usize) -> R) -> Option<R> {
        let found = KEPT.try_with(|kept| {
            let wakers = &mut kept.borrow_mut().wakers;
            let index = self.as_machine().slot() as usize;
            let is_kept = wakers.get(index).is_some_and(|(key, _)| *key == self);
            is_kept.then(|| f(wakers, index))
        });
        found.ok().flatten()
    }

    /// Takes the waker of this key, if it is still kept. Wake or drop it with nothing borrowed.
    pub(crate) fn take_waker(self) -> Option<Waker> {
        self.kept(|wakers, index| wakers.remove(index).1)
    }

    /// The machine or the waker that this stands for; `None` if the waker is no longer kept.
    pub(super) fn waiter(self) -> Option<Waiter> {
        match self.is_foreign() {
            true => self.kept(|wakers, index| Waiter::waker(&wakers[index].1)),
            false => Some(Waiter::Machine(self.as_machine())),
        }
    }

    pub(crate) fn is_foreign(self) -> bool {
        self.0.get() & FOREIGN != 0
    }

    /// The machine's id. For a waker's key it matches no machine, since no machine's generation has the
    /// top bit.
    pub(crate) fn as_machine(self) -> MachineId {
        MachineId::from_bits(self.0)
    }
}

// ---- the budget ----

/// Charges an operation and its bytes to the machine that runs.
pub(crate) fn charge(bytes: usize) {
    LEFT.set(LEFT.get() - (OPERATION + bytes as i64));
}

/// Whether the machine that runs may go on. Always, if none runs.
pub(crate) fn has_budget() -> bool {
    LEFT.get() > 0 || fault!("endless_budget")
}

/// Charges an operation, or yields if the budget is used up. `yielded` belongs to the future that
/// calls this, and starts as false.
///
/// A yield wakes `waker` itself and not the machine's id: in a join of many futures, that waker alone
/// knows which of them to poll again.
pub(crate) fn poll_yield(yielded: &mut bool, waker: &Waker) -> Poll<()> {
    if !*yielded && !has_budget() {
        *yielded = true;
        waker.wake_by_ref();
        return Poll::Pending;
    }
    *yielded = false;
    charge(0);
    Poll::Ready(())
}

/// As [`poll_yield`], to be awaited.
pub(crate) async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| poll_yield(&mut yielded, cx.waker())).await;
}
