//! What runs on this thread just now: which runtime, which machine, on how much of its budget.
//!
//! May touch: the other files of the runtime. Mirrors Go's `getg()` and `g.m.p` (the goroutine
//! that runs, and the processor it runs on).
//!
//! Ground rules: `RUNNING` is plain words, so that the hot path reads it without a borrow, a
//! reference count or a check for destruction; `CURRENT` is the runtime itself, for the rest.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::ptr;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::lent;
use super::machine::MachineId;
use super::resource::Parked;
use super::scheduler::Scheduler;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Scheduler>>> = const { RefCell::new(None) };
    static RUNNING: Running = const { Running::idle() };
}

struct Running {
    /// The reactor of the runtime that is in a turn, by identity.
    home: Cell<*const ()>,
    /// The same, unless somebody reads the trace: then nothing takes the short way round it.
    untraced_home: Cell<*const ()>,
    id: Cell<MachineId>,
    /// Where the running machine's own waker lies.
    waker: Cell<*const Waker>,
    budget: Cell<i64>,
}

/// What a machine may do before others have their turn, in bytes: those that it moved, and
/// [`OPERATION`] for each time that it did. One read of 64 KiB, or 64 small ones: enough to
/// amortise a run, and eight such machines pass in a few hundred microseconds.
const BUDGET: i64 = 64 * 1024;

/// What an operation costs besides its bytes.
const OPERATION: i64 = 1024;

impl Running {
    const fn idle() -> Self {
        Running {
            home: Cell::new(ptr::null()),
            untraced_home: Cell::new(ptr::null()),
            id: Cell::new(MachineId::ROOT),
            waker: Cell::new(ptr::null()),
            budget: Cell::new(BUDGET),
        }
    }
}

/// A runtime is in a turn on this thread while this lives.
pub(crate) struct Entered {
    /// Whose turn it was, and goes on being.
    outer: Option<Rc<Scheduler>>,
    untraced_home: *const (),
    waker: *const Waker,
}

impl Entered {
    /// # Panics
    ///
    /// If a runtime is in a turn on this thread already.
    pub(crate) fn new(scheduler: &Rc<Scheduler>) -> Self {
        let inside = CURRENT.with_borrow(Option::is_some);
        assert!(
            !inside,
            "netpoller: a runtime can't be driven from inside a runtime: this thread is in a turn \
             (await the future, or spawn it)"
        );
        Entered::enter(scheduler)
    }

    /// Enters even inside another's turn: for a runtime that is dropped, wherever that happens.
    /// `None` where the thread is ending.
    pub(crate) fn to_drop(scheduler: &Rc<Scheduler>) -> Option<Self> {
        let there = CURRENT.try_with(|_| ());
        there.is_ok().then(|| Entered::enter(scheduler))
    }

    fn enter(scheduler: &Rc<Scheduler>) -> Self {
        // Much time may have passed outside.
        scheduler.reactor.core().clock.read();
        let outer = CURRENT.replace(Some(scheduler.clone()));
        if let Some(buffer) = scheduler.buffer.take() {
            lent::give_back(buffer);
        }
        RUNNING.with(|running| {
            running.home.set(scheduler.home());
            let untraced_home = running.untraced_home.get();
            if !log::log_enabled!(log::Level::Trace) {
                running.untraced_home.set(scheduler.home());
            }
            Entered {
                outer,
                untraced_home,
                waker: running.waker.replace(ptr::null()),
            }
        })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let outer = self.outer.take();
        RUNNING.with(|running| {
            let home = outer.as_ref().map_or(ptr::null(), |outer| outer.home());
            running.home.set(home);
            running.untraced_home.set(self.untraced_home);
            running.waker.set(self.waker);
        });
        let outside = outer.is_none();
        let left = CURRENT.replace(outer);
        // Inside another's turn, it is that one's now.
        if outside && let (Some(scheduler), Some(buffer)) = (&left, lent::collect()) {
            scheduler.buffer.set(Some(buffer));
        }
        drop(left);
    }
}

/// A machine begins to run, with a fresh budget.
#[inline]
pub(crate) fn begin(id: MachineId, waker: &Waker) {
    RUNNING.with(|running| {
        running.id.set(id);
        running.waker.set(waker);
        running.budget.set(BUDGET);
    });
}

/// As [`begin`], for a machine that is no future: nothing in it is polled with a waker of its own,
/// and its budget is set when it goes on for longer.
#[inline]
pub(crate) fn begin_machine(id: MachineId) {
    RUNNING.with(|running| {
        running.id.set(id);
        running.waker.set(ptr::null());
    });
}

/// The machine that runs, and is no future, goes on for longer, with a fresh budget.
pub(crate) fn set_budget() {
    RUNNING.with(|running| running.budget.set(BUDGET));
}

/// The machine that runs, or did last.
pub(crate) fn running_machine() -> MachineId {
    RUNNING.with(|running| running.id.get())
}

/// Whether the machine that runs, and is no future, has budget left.
#[inline]
pub(crate) fn has_budget() -> bool {
    RUNNING.with(|running| running.budget.get() > 0)
}

/// No machine runs: whoever parks now is a stranger.
#[inline]
pub(crate) fn end() {
    RUNNING.with(|running| running.waker.set(ptr::null()));
}

/// The id to park, if `waker` is the running machine's own and `home` its reactor. It is its own if
/// it is the very same object: it lives as long as the machine runs, so nothing else can lie there.
/// A clone is taken for a stranger's, and does as well, if not as fast.
#[inline]
pub(crate) fn own(home: *const (), waker: &Waker) -> Option<Parked> {
    RUNNING.with(|running| {
        let own = ptr::eq(running.waker.get(), waker) && ptr::eq(running.home.get(), home);
        own.then(|| Parked::machine(running.id.get()))
    })
}

/// As [`own`], and `None` too while the trace is read.
#[inline]
pub(crate) fn own_untraced(home: *const (), waker: &Waker) -> Option<Parked> {
    RUNNING.with(|running| {
        let own = ptr::eq(running.waker.get(), waker) && ptr::eq(running.untraced_home.get(), home);
        own.then(|| Parked::machine(running.id.get()))
    })
}

/// Charges an operation to the machine that runs; [`may_go_on`] says when it must yield.
#[inline]
pub(crate) fn charge(bytes: usize) {
    RUNNING.with(|running| {
        let spent = OPERATION + bytes as i64;
        running.budget.set(running.budget.get() - spent);
    });
}

/// Whether the machine that runs may go on.
#[inline]
pub(crate) fn may_go_on() -> bool {
    RUNNING.with(|running| running.budget.get() > 0) || outside()
}

/// Lets the machine that runs go on, at the price of an operation, or has it yield: for what is
/// ready without having waited, that a loop of it does not run for ever.
///
/// It wakes the very waker, not our machine's id: within a join of many futures only that one
/// knows which of them to poll again.
pub(crate) fn poll_budget(waker: &Waker) -> Poll<()> {
    if !may_go_on() {
        waker.wake_by_ref();
        return Poll::Pending;
    }
    charge(0);
    Poll::Ready(())
}

/// As [`poll_budget`], for what ends something else: it yields once, and no more. Who is polled
/// after somebody that uses the budget up in every run would otherwise never be ready.
pub(crate) fn poll_budget_once(yielded: &mut bool, waker: &Waker) -> Poll<()> {
    if !*yielded && poll_budget(waker).is_pending() {
        *yielded = true;
        return Poll::Pending;
    }
    *yielded = false;
    Poll::Ready(())
}

/// As [`poll_budget_once`], to be awaited.
pub(crate) async fn take_turn() {
    let mut yielded = false;
    poll_fn(|cx| poll_budget_once(&mut yielded, cx.waker())).await;
}

/// Futures polled by somebody else's executor are not ours to be fair to.
#[cold]
fn outside() -> bool {
    RUNNING.with(|running| {
        let outside = running.waker.get().is_null();
        if outside {
            running.budget.set(BUDGET);
        }
        outside
    })
}

/// Runs `f` on the runtime that is in a turn on this thread, if one is.
pub(crate) fn try_with<R>(f: impl FnOnce(&Rc<Scheduler>) -> R) -> Option<R> {
    // The clone keeps the borrow short: `f` may do anything, even end the thread's turn.
    let current = CURRENT.try_with(|current| current.borrow().clone());
    current.ok().flatten().map(|scheduler| f(&scheduler))
}

/// As [`try_with`].
///
/// # Panics
///
/// Outside a runtime, saying what was called.
#[track_caller]
pub(crate) fn with<R>(what: &str, f: impl FnOnce(&Rc<Scheduler>) -> R) -> R {
    match try_with(f) {
        Some(result) => result,
        None => outside_a_runtime(what),
    }
}

#[cold]
#[track_caller]
pub(crate) fn outside_a_runtime(what: &str) -> ! {
    panic!(
        "netpoller: {what} was called outside a runtime: call it from a future that runs in \
         Runtime::block_on or was spawned on a Runtime"
    )
}
