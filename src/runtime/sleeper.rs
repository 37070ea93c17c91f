//! A timer that a future holds: in the runtime's wheel while it lives.
//!
//! May touch: the scheduler. Mirrors Go's `timer` in a sleeping goroutine (`g.timer`).

use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use super::context;
use super::machine::MachineId;
use super::scheduler::Scheduler;
use crate::wheel::TimerKey;
use std::task::Waker;

/// Who sleeps on a timer.
pub(crate) enum Sleeper {
    Machine(MachineId),
    Foreign(Waker),
}

impl Sleeper {
    fn of(scheduler: &Scheduler, cx: &Context<'_>) -> Self {
        let own = context::own(scheduler.home(), cx.waker());
        match own {
            Some(id) => Sleeper::Machine(id),
            None => Sleeper::Foreign(cx.waker().clone()),
        }
    }
}

/// A live timer; dropping it takes it out.
pub(crate) struct Registration {
    scheduler: Weak<Scheduler>,
    /// `None` once it fired.
    key: Option<TimerKey>,
}

impl Registration {
    pub(crate) fn new(scheduler: Rc<Scheduler>, deadline: Instant, cx: &Context<'_>) -> Self {
        let mut registration = Registration {
            scheduler: Rc::downgrade(&scheduler),
            key: None,
        };
        registration.insert(&scheduler, deadline, cx);
        registration
    }

    fn insert(&mut self, scheduler: &Scheduler, deadline: Instant, cx: &Context<'_>) {
        let when = scheduler.reactor.tick_of(deadline);
        let sleeper = Sleeper::of(scheduler, cx);
        let key = scheduler.timers.borrow_mut().insert(when, sleeper);
        self.key = Some(key);
    }

    /// Ready once the timer has fired and its deadline was not moved since. A runtime that is gone
    /// wakes nobody any more: then the sleep is over.
    pub(crate) fn poll(&mut self, deadline: Instant, cx: &Context<'_>) -> Poll<()> {
        let Some(scheduler) = self.scheduler.upgrade() else {
            return Poll::Ready(());
        };
        // Made before the borrow: cloning a waker may run anything.
        let sleeper = Sleeper::of(&scheduler, cx);
        let mut timers = scheduler.timers.borrow_mut();
        let live = self.key.and_then(|key| timers.get_mut(key));
        if let Some(place) = live {
            let old = std::mem::replace(place, sleeper);
            drop(timers);
            drop(old);
            return Poll::Pending;
        }
        drop(timers);
        self.key = None;
        if scheduler.reactor.has_passed(deadline) {
            return Poll::Ready(());
        }
        self.insert(&scheduler, deadline, cx);
        Poll::Pending
    }

    pub(crate) fn move_to(&mut self, deadline: Instant) {
        if let (Some(scheduler), Some(key)) = (self.scheduler.upgrade(), self.key) {
            let when = scheduler.reactor.tick_of(deadline);
            scheduler.timers.borrow_mut().move_to(key, when);
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let (Some(scheduler), Some(key)) = (self.scheduler.upgrade(), self.key.take()) {
            let gone = scheduler.timers.borrow_mut().cancel(key);
            // Out of the borrow: dropping a waker may run anything.
            drop(gone);
        }
    }
}
