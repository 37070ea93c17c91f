//! What the reactor parks and hands out: a machine's id, or the key of a foreign waker.
//!
//! A foreign waker is kept on this thread until its key is handed out, or until the
//! operation that parked the key removes the waker. A key that is still in a slot then finds nothing.

// Go parks a `g` in all cases: it has one scheduler.

use std::cell::RefCell;
use std::num::NonZeroU64;
use std::task::Waker;

use slab::Slab;

use super::context::{self, MachineId};

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
    #[inline]
    pub(crate) fn machine(id: MachineId) -> Self {
        ParkKey(id.bits())
    }

    /// What to park for `waker` on the reactor `home`. If `waker` is the running machine's own, that is
    /// the machine's id. Otherwise keeps a clone, and returns its key.
    #[inline]
    pub(crate) fn of(home: *const (), waker: &Waker) -> Self {
        match context::own(home, waker) {
            Some(id) => ParkKey::machine(id),
            None => ParkKey::keep(waker.clone()),
        }
    }

    /// Keeps a foreign waker.
    #[cold]
    #[inline(never)]
    pub(crate) fn keep(waker: Waker) -> Self {
        let kept = KEPT.try_with(|kept| {
            let kept = &mut *kept.borrow_mut();
            kept.count += 1;
            let entry = kept.wakers.vacant_entry();
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

    #[inline]
    pub(crate) fn is_foreign(self) -> bool {
        self.0.get() & FOREIGN != 0
    }

    /// The machine's id. For a waker's key it matches no machine, since no machine's generation has the
    /// top bit.
    #[inline]
    pub(crate) fn as_machine(self) -> MachineId {
        MachineId::from_bits(self.0)
    }
}
