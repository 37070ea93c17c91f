//! Which runtime is entered on this thread: for a turn, for a `block_on`, or to drop something.
//!
//! This file and `scheduler.rs` import each other (a circle): `block_on` enters the scheduler here, and code
//! in a machine finds it here. In Go `getg()` does the same.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::context::{self, Run};
use super::panics::catch;
use super::scheduler::Scheduler;
use super::waker::Remote;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Scheduler>>> = const { RefCell::new(None) };
}

/// While this lives, a runtime is entered on this thread.
pub(crate) struct Entered {
    /// The runtime that was entered before, and is again afterwards.
    outer: Option<Rc<Scheduler>>,
    /// What ran before.
    before: Run,
    /// It is entered for a turn, and not only to drop something.
    is_turn: bool,
}

impl Entered {
    /// Enters for a turn, or for several. An error if the runtime belongs to an ancestor of this process.
    ///
    /// # Panics
    ///
    /// If a runtime is entered on this thread already.
    pub(crate) fn new(scheduler: &Rc<Scheduler>) -> io::Result<Self> {
        scheduler.remote.process.check("runtime")?;
        // The process may have forked inside a turn. That turn is the parent's.
        let inside = try_with(|current| !current.remote.is_inherited());
        assert!(
            inside != Some(true),
            "netpoller: a runtime can't be driven from inside a runtime: this thread is in a turn \
             (await the future, or spawn it)"
        );
        // Much time may have passed outside.
        scheduler.reactor.core.read_clock();
        let mut entered = Entered::enter(scheduler);
        entered.is_turn = true;
        scheduler.turn_began();
        Ok(entered)
    }

    /// Enters also inside another runtime's turn, to drop what belongs to `scheduler`: the destructors
    /// of that may spawn or ask for the time. `None` where the thread is ending.
    pub(crate) fn to_drop(scheduler: &Rc<Scheduler>) -> Option<Self> {
        let there = CURRENT.try_with(|_| ());
        // A clock of the user's may panic, and a panic may be unwinding: then the last reading counts.
        drop(catch(|| scheduler.reactor.core.read_clock()));
        there.is_ok().then(|| Entered::enter(scheduler))
    }

    fn enter(scheduler: &Rc<Scheduler>) -> Self {
        Entered {
            outer: CURRENT.replace(Some(scheduler.clone())),
            before: context::enter(scheduler.home()),
            is_turn: false,
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        context::leave(self.before);
        let left = CURRENT.replace(self.outer.take());
        debug_assert!(left.is_some(), "only this leaves what was entered");
        if let Some(scheduler) = left.as_ref().filter(|_| self.is_turn) {
            scheduler.turn_ended();
        }
        // Last, for it may be the last reference to the runtime.
        drop(left);
    }
}

/// Runs `f` on the runtime that is entered on this thread, if one is and was not dropped.
pub(crate) fn try_with<R>(f: impl FnOnce(&Rc<Scheduler>) -> R) -> Option<R> {
    // The clone keeps the borrow short: `f` may run any code, and end the turn.
    let current = CURRENT.try_with(|current| current.borrow().clone());
    let current = current.ok().flatten();
    let current = current.filter(|scheduler| !scheduler.is_gone.get());
    current.map(|scheduler| f(&scheduler))
}

/// As [`try_with`], if the runtime is that of `remote`.
pub(crate) fn at_home<R>(remote: &Arc<Remote>, f: impl FnOnce(&Rc<Scheduler>) -> R) -> Option<R> {
    try_with(|scheduler| Arc::ptr_eq(&scheduler.remote, remote).then(|| f(scheduler))).flatten()
}

/// The last reading of the clock of the runtime that is entered on this thread. Called for each
/// message. It calls no other code, so it borrows without the clone of [`try_with`].
pub(crate) fn last_reading() -> Option<Instant> {
    let reading =
        |current: &RefCell<Option<Rc<Scheduler>>>| Some(current.borrow().as_ref()?.reactor.now());
    CURRENT.try_with(reading).ok().flatten()
}

/// As [`try_with`].
///
/// # Panics
///
/// Outside a runtime, saying that `what` was called.
#[track_caller]
pub(crate) fn with<R>(what: &str, f: impl FnOnce(&Rc<Scheduler>) -> R) -> R {
    // Not in a closure: the panic names the caller's line.
    let Some(done) = try_with(f) else {
        outside_a_runtime(what)
    };
    done
}

#[cold]
#[track_caller]
pub(crate) fn outside_a_runtime(what: &str) -> ! {
    panic!(
        "netpoller: {what} was called outside a runtime: call it from a future that runs in \
         Runtime::block_on or was spawned on a Runtime"
    )
}
