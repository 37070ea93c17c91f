//! A timer that a future holds: in the wheel of the runtime that polls it, while it lives.
// Mirrors Go's `timer` in a sleeping goroutine (`g.timer`).
//
// | state | in the wheel | moved there by | on to |
// |---|---|---|---|
// | none | nothing | the start; its timer having fired; its runtime having gone | registered by a poll |
// | registered | its timer, in the runtime that polled it last | a poll | none when it fires or is dropped; registered anew by the next poll |

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
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
    /// Whether what sleeps is woken when the timer is taken out, since its deadline has moved.
    wakes: bool,
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
            // It may have fired, be another runtime's, or wake another waker.
            *this = None;
            if scheduler.has_passed(judges, deadline) {
                return Poll::Ready(());
            }
            let (parked, sleeper) = scheduler.keep_sleeper(cx);
            let when = scheduler.reactor.core().clock.tick_of(deadline);
            let key = scheduler.timers(judges).borrow_mut().insert(when, parked);
            *this = Some(Registration {
                home: scheduler.remote.clone(),
                judges,
                key,
                sleeper,
                wakes: false,
            });
            Poll::Pending
        })
    }

    /// The deadline moves. Elsewhere than in its runtime the timer is taken out, and what sleeps is
    /// woken in the runtime's next turn, to ask for another.
    pub(crate) fn move_to(this: &mut Option<Registration>, deadline: Instant) {
        let Some(registration) = this else { return };
        match registration.home() {
            Some(scheduler) => {
                let when = scheduler.reactor.core().clock.tick_of(deadline);
                let mut timers = scheduler.timers(registration.judges).borrow_mut();
                timers.move_to(registration.key, when);
            }
            None => {
                registration.wakes = true;
                *this = None;
            }
        }
    }

    /// Its runtime, if this thread is in a turn of it.
    fn home(&self) -> Option<Rc<Scheduler>> {
        let home = |scheduler: &Rc<Scheduler>| {
            Arc::ptr_eq(&self.home, &scheduler.remote).then(|| scheduler.clone())
        };
        current::try_with(home).flatten()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let (key, judges, sleeper, wakes) = (self.key, self.judges, self.sleeper, self.wakes);
        let take_out = move |scheduler: &Scheduler| {
            let parked = scheduler.timers(judges).borrow_mut().cancel(key);
            if wakes && let Some(parked) = parked {
                scheduler.unpark(parked);
            }
            drop(scheduler.forget_sleeper(sleeper));
        };
        match self.home() {
            Some(scheduler) => take_out(&scheduler),
            // A runtime that is gone has no timers: then the job comes back.
            None => drop(self.home.send(Box::new(move || {
                current::try_with(|scheduler| take_out(scheduler));
            }))),
        }
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
