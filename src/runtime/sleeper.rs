//! A timer that a future holds: in the wheel of the runtime that polls it, while it lives.
// Mirrors Go's `timer` in a sleeping goroutine (`g.timer`).
//
// | state | in the wheel | moved there by | on to |
// |---|---|---|---|
// | none | nothing | the start; its timer having fired; its runtime having gone | registered by a poll |
// | registered | its timer, in the runtime that polled it last | a poll | none when it fires, is dropped, or is polled in another runtime |

use std::cell::RefCell;
use std::mem;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::context;
use super::current;
use super::scheduler::Scheduler;
use super::socket::Parked;
use super::waker::Remote;
use crate::wheel::{TimerKey, Timers};

/// What makes a timer fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judges {
    /// By the clock, for it judges no peer.
    NoPeer,
    /// When everything that had arrived by then has had its effect.
    Peer,
}

/// A live timer. Dropping it takes it out, from whatever thread.
pub(crate) struct Registration {
    /// The runtime that has it.
    home: Arc<Remote>,
    judges: Judges,
    key: TimerKey,
    /// Where its waker is kept, if that is not the machine's own.
    sleeper: Option<usize>,
    /// The deadline that a job on its way home will set, after a reset on another thread. One job
    /// is on its way at most, however often the deadline moves.
    moved: Option<Arc<Mutex<Option<Instant>>>>,
}

impl Registration {
    /// Ready once `deadline` has passed. Until then the waker of `cx` is woken when it does.
    pub(crate) fn poll(
        this: &mut Option<Registration>,
        judges: Judges,
        deadline: Instant,
        cx: &Context<'_>,
    ) -> Poll<()> {
        current::with("polling a sleep", |scheduler| {
            if let Some(registration) = this
                && registration.renew(scheduler, cx)
            {
                return Poll::Pending;
            }
            *this = None;
            if scheduler.has_passed(judges, deadline) {
                return Poll::Ready(());
            }
            *this = Some(Registration::new(scheduler, judges, deadline, cx));
            Poll::Pending
        })
    }

    fn new(
        scheduler: &Scheduler,
        judges: Judges,
        deadline: Instant,
        cx: &Context<'_>,
    ) -> Registration {
        let (parked, sleeper) = scheduler.keep_sleeper(cx);
        let when = scheduler.reactor.core().clock.tick_of(deadline);
        let key = scheduler.timers(judges).borrow_mut().insert(when, parked);
        Registration {
            home: scheduler.remote.clone(),
            judges,
            key,
            sleeper,
            moved: None,
        }
    }

    /// Has the timer wake `cx` when it fires. False if it has fired, or is another runtime's.
    fn renew(&mut self, scheduler: &Scheduler, cx: &Context<'_>) -> bool {
        let timers = scheduler.timers(self.judges);
        if !Arc::ptr_eq(&self.home, &scheduler.remote) || timers.borrow().get(self.key).is_none() {
            return false;
        }
        let (parked, sleeper) = scheduler.keep_sleeper(cx);
        if let Some(known) = timers.borrow_mut().get_mut(self.key) {
            *known = parked;
        }
        let old = mem::replace(&mut self.sleeper, sleeper);
        drop(scheduler.forget_sleeper(old));
        true
    }

    /// The deadline moves: now in a turn of its runtime, else in the runtime's next turn.
    pub(crate) fn move_to(&mut self, deadline: Instant) {
        let (key, judges) = (self.key, self.judges);
        let set = move |scheduler: &Scheduler, deadline| {
            let when = scheduler.reactor.core().clock.tick_of(deadline);
            scheduler.timers(judges).borrow_mut().move_to(key, when);
        };
        if self.is_at_home() {
            // What is on its way is older.
            if let Some(moved) = &self.moved {
                *moved.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
            return self.at_home(move |scheduler| set(scheduler, deadline));
        }
        let moved = self.moved.get_or_insert_default().clone();
        let mut latest = moved.lock().unwrap_or_else(PoisonError::into_inner);
        let is_on_its_way = latest.replace(deadline).is_some();
        drop(latest);
        if !is_on_its_way {
            self.at_home(move |scheduler| {
                let latest = moved.lock().unwrap_or_else(PoisonError::into_inner).take();
                latest
                    .into_iter()
                    .for_each(|deadline| set(scheduler, deadline));
            });
        }
    }

    fn is_at_home(&self) -> bool {
        current::try_with(|scheduler| Arc::ptr_eq(&self.home, &scheduler.remote)) == Some(true)
    }

    /// Runs `f` in the timer's runtime: now, if this thread is in a turn of it, else in its next
    /// turn.
    fn at_home(&self, f: impl FnOnce(&Scheduler) + Send + 'static) {
        let home = |scheduler: &Rc<Scheduler>| {
            Arc::ptr_eq(&self.home, &scheduler.remote).then(|| scheduler.clone())
        };
        match current::try_with(home).flatten() {
            Some(scheduler) => f(&scheduler),
            // A runtime that is gone has no timers: then the job comes back.
            None => drop(self.home.send(Box::new(move || {
                current::try_with(|scheduler| f(scheduler));
            }))),
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let (key, judges, sleeper) = (self.key, self.judges, self.sleeper);
        self.at_home(move |scheduler| {
            scheduler.timers(judges).borrow_mut().cancel(key);
            drop(scheduler.forget_sleeper(sleeper));
        });
    }
}

impl Scheduler {
    /// The timers of a kind. No code of the user's may run while they are borrowed.
    pub(crate) fn timers(&self, judges: Judges) -> &RefCell<Timers<Parked>> {
        match judges {
            Judges::NoPeer => &self.reactor.core().timers,
            Judges::Peer => &self.reactor.core().peer_timers,
        }
    }

    fn has_passed(&self, judges: Judges, deadline: Instant) -> bool {
        let core = self.reactor.core();
        match judges {
            Judges::NoPeer => core.clock.has_passed(deadline),
            Judges::Peer => core.clock.tick_of(deadline) <= core.settled(),
        }
    }

    /// What a timer hands out to wake `cx`: the machine that runs, or a note that the waker is kept.
    fn keep_sleeper(&self, cx: &Context<'_>) -> (Parked, Option<usize>) {
        if let Some(id) = context::own(self.home(), cx.waker()) {
            return (Parked::machine(id), None);
        }
        // Before the borrow: cloning a waker may run anything.
        let waker = cx.waker().clone();
        let key = self.sleepers.borrow_mut().insert(Some(waker));
        (Parked::sleeper(key), Some(key))
    }

    /// The waker that was kept, to be dropped without a borrow.
    fn forget_sleeper(&self, sleeper: Option<usize>) -> Option<Waker> {
        self.sleepers.borrow_mut().try_remove(sleeper?).flatten()
    }
}
