//! A timer that a future holds: in the wheel of the runtime that polls it, while it lives.
// Mirrors Go's `timer` in a sleeping goroutine (`g.timer`).
//
// | state | in the wheel | moved there by | on to |
// |---|---|---|---|
// | none | nothing | the start; its timer having fired; its runtime having gone | registered by a poll |
// | registered | its timer, in the runtime that polled it last | a poll | none when it fires or is dropped; registered anew by the next poll |

use std::cell::RefCell;
use std::task::{Context, Poll};
use std::time::Instant;

use super::current;
use super::handle::Handle;
use super::parked::Parked;
use super::scheduler::Scheduler;
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
    home: Handle,
    judges: Judges,
    key: TimerKey,
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
            let parked = Parked::of(scheduler.home(), cx.waker());
            let when = scheduler.reactor.core().clock.tick_of(deadline);
            let key = scheduler.timers(judges).borrow_mut().insert(when, parked);
            scheduler.reactor.core().hasten(when);
            *this = Some(Registration {
                home: Handle::new(scheduler.remote.clone()),
                judges,
                key,
                wakes: false,
            });
            Poll::Pending
        })
    }

    /// Moves the deadline. Outside the timer's runtime it takes the timer out; in the next turn of
    /// that runtime what sleeps is woken, and asks for another.
    pub(crate) fn move_to(this: &mut Option<Registration>, deadline: Instant) {
        let Some(registration) = this else { return };
        let (judges, key) = (registration.judges, registration.key);
        let moved = registration.home.if_here(|scheduler| {
            let when = scheduler.reactor.core().clock.tick_of(deadline);
            scheduler.timers(judges).borrow_mut().move_to(key, when);
            scheduler.reactor.core().hasten(when);
        });
        if moved.is_none() {
            registration.wakes = true;
            *this = None;
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let (key, judges, wakes) = (self.key, self.judges, self.wakes);
        self.home.tell(move |scheduler| {
            let parked = scheduler.timers(judges).borrow_mut().cancel(key);
            match parked {
                Some(parked) if wakes => scheduler.unpark(&[parked]),
                parked => drop(parked.and_then(Parked::take_waker)),
            }
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
}
