//! One turn of the netpoller, in the order of the diagram in mod.rs.
//!
//! May touch: the files beside it, and the wheel. Mirrors `netpoll()` in Go's `netpoll_epoll.go`
//! and `netpolldeadlineimpl` in `runtime/netpoll.go`.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Turn;
use super::core::{Core, Registered};
use super::descriptor::Due;
use super::poller::Poller;
use super::registry::Registry;
use super::selector::{Event, Harvest};
use super::words::Readiness;
use crate::sys::{Whereabouts, append};
use crate::wheel::{Tick, Verdict};

/// Places looked at in one turn at most, so that a storm of deadlines does not hold up the rest.
const EXPIRY_BUDGET: usize = 4096;

/// How far apart the two looks are that a virtual clock takes before it jumps: loopback delivers
/// in softirq context, which on a loaded machine may be a moment later.
const VIRTUAL_GRACE: Duration = Duration::from_millis(1);

/// How many signals in a row may end a look before the turn goes on without it.
const MOST_SIGNALS: usize = 8;

/// Who has not run of those whom earlier turns handed out, and of those whom they woke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behind {
    Nobody,
    /// Those of the last harvest that counts have; of later ones some may not.
    Newcomers,
    /// Some of the last harvest that counts.
    Somebody,
}

/// What a turn hands out for a `W` that was parked: the `W`, or more of what is known of it.
pub(crate) trait Handed<W> {
    /// Of a W that was parked for reading, the descriptor is told, too.
    fn handed(w: W, descriptor: Whereabouts) -> Self;
}

impl<W> Handed<W> for W {
    #[inline]
    fn handed(w: W, _descriptor: Whereabouts) -> W {
        w
    }
}

impl<W, T> Core<W, T> {
    /// Who is `behind` may yet move deadlines.
    pub(crate) fn turn<H: Handed<W>>(
        &self,
        max_wait: Option<Duration>,
        may_jump: bool,
        behind: Behind,
        out: &mut Vec<H>,
    ) -> io::Result<Turn> {
        if behind != Behind::Somebody {
            self.harvested.set(self.latest.get());
        }
        let before = out.len();
        if !self.pending.borrow().is_empty() {
            out.extend(self.pending.borrow_mut().drain(..).map(alone));
        }
        let idle = out.len() == before;
        let max_wait = if idle { max_wait } else { Some(Duration::ZERO) };

        let mut harvest = self.wait(max_wait, may_jump)?;
        self.clock.read();
        self.stamp.set(self.stamp.get().wrapping_add(1));
        let mut turn = Turn {
            events: self.unpark_ready(out),
            ..Turn::default()
        };
        if self.is_due() {
            harvest = self.expire(harvest, behind, &mut turn, out);
        }
        if harvest == Harvest::Complete && behind != Behind::Somebody {
            self.latest.set(self.clock.tick());
        }
        turn.more |= !self.pending.borrow().is_empty();
        Ok(turn)
    }

    fn is_due(&self) -> bool {
        match self.wheel.borrow().next() {
            Some(next) => next <= self.clock.tick(),
            None => false,
        }
    }

    // ---- wait ----

    fn poll(&self, max_wait: Option<Duration>) -> io::Result<Harvest> {
        self.poller.borrow_mut().netpoll(max_wait)
    }

    /// Waits for the selector, no longer than the next deadline.
    fn wait(&self, max_wait: Option<Duration>, may_jump: bool) -> io::Result<Harvest> {
        if max_wait == Some(Duration::ZERO) {
            return self.poll(max_wait);
        }
        if self.clock.is_virtual() {
            return self.wait_virtually(max_wait, may_jump);
        }
        let next = self.wheel.borrow().next();
        let mut wait = match next {
            // A fresh reading: the machines since the last one may have taken their time.
            Some(next) => {
                self.clock.read();
                let until = self.clock.until(next);
                Some(max_wait.map_or(until, |max_wait| max_wait.min(until)))
            }
            None => max_wait,
        };
        if self.spin.get() > Duration::ZERO {
            if let Some(harvest) = self.spin(wait)? {
                return Ok(harvest);
            }
            wait = wait.map(|wait| wait.saturating_sub(self.spin.get()));
        }
        if log::log_enabled!(log::Level::Trace) {
            log::trace!("turn: waiting {wait:?}");
        }
        self.poll(wait)
    }

    #[cold]
    fn spin(&self, wait: Option<Duration>) -> io::Result<Option<Harvest>> {
        let spin = self.spin.get();
        let spin = wait.map_or(spin, |wait| wait.min(spin));
        let start = Instant::now();
        loop {
            let harvest = self.poll(Some(Duration::ZERO))?;
            if !self.poller.borrow().is_empty() {
                return Ok(Some(harvest));
            }
            if start.elapsed() >= spin {
                return Ok(None);
            }
            std::hint::spin_loop();
        }
    }

    /// Waits for a moment, or not at all. Where a signal ends that nothing has been looked at, and
    /// signals that keep coming must not keep the time from passing: then it looks again.
    #[cold]
    fn look(&self, moment: Duration) -> io::Result<Harvest> {
        let start = Instant::now();
        let mut left = moment;
        for _ in 0..MOST_SIGNALS {
            let harvest = self.poll(Some(left))?;
            if harvest == Harvest::Complete || !self.poller.borrow().is_empty() {
                return Ok(harvest);
            }
            left = moment.saturating_sub(start.elapsed());
        }
        Ok(Harvest::Partial)
    }

    /// Jumps to the next live deadline once the system has had nothing for us twice.
    #[cold]
    fn wait_virtually(&self, max_wait: Option<Duration>, may_jump: bool) -> io::Result<Harvest> {
        for grace in [Duration::ZERO, VIRTUAL_GRACE] {
            let harvest = self.look(grace)?;
            if !self.poller.borrow().is_empty() || harvest == Harvest::Partial {
                return Ok(harvest);
            }
        }
        let next = self.next_live().map(|next| self.clock.until(next));
        let ahead = match (max_wait, next) {
            (Some(max_wait), Some(next)) => Some(max_wait.min(next)),
            (max_wait, next) => max_wait.or(next),
        };
        if may_jump && let Some(ahead) = ahead {
            self.clock.jump(ahead);
            return Ok(Harvest::Complete);
        }
        // Nothing to jump to, or somebody is out on a blocking job: only the world can go on.
        self.poll(max_wait)
    }

    fn next_live(&self) -> Option<Tick> {
        let mut wheel = self.wheel.borrow_mut();
        wheel.next_live(
            |tick, place| match self.ask(place, |state| state.due(place.number)) {
                Some(Due::Again(when)) if when > tick => Verdict::Again(when),
                Some(Due::Again(_)) => Verdict::Done,
                _ => Verdict::Lapsed,
            },
        )
    }

    // ---- unpark the ready ----

    /// Hands out whoever waited for what has been harvested; counts whom it concerned.
    fn unpark_ready<H: Handed<W>>(&self, out: &mut Vec<H>) -> usize {
        match &*self.poller.borrow() {
            Poller::System(selector) => self.unpark_all(selector.harvested(), out),
            Poller::Given { events, .. } => self.unpark_all(events.iter().copied(), out),
        }
    }

    fn unpark_all<H: Handed<W>>(
        &self,
        events: impl Iterator<Item = Event> + Clone,
        out: &mut Vec<H>,
    ) -> usize {
        if log::log_enabled!(log::Level::Trace) {
            events.clone().for_each(trace_ready);
        }
        let registry = self.registry.borrow();
        let stamp = self.stamp.get();
        let strays = Cell::new(0);
        let mut others = Vec::new();
        let count = events.clone().count();
        append(out, count, |mut readers| {
            for event in events {
                if event.readiness != Readiness::BOTH {
                    unpark_rarer(&registry, event, stamp, &mut others, &strays);
                    continue;
                }
                let Some(registered) = registry.get(event.token) else {
                    note_stray(&strays);
                    continue;
                };
                if let Some(w) = registered.state.ready(event.readiness, stamp, &mut others) {
                    readers.put(H::handed(w, Whereabouts::of(&**registered)));
                }
            }
            readers
        });
        if !others.is_empty() {
            out.extend(others.into_iter().map(alone));
        }
        count - strays.get()
    }

    // ---- expire ----

    /// Some place has come up. Whether the harvest, with a second look, is complete.
    #[cold]
    #[inline(never)]
    fn expire<H: Handed<W>>(
        &self,
        mut harvest: Harvest,
        behind: Behind,
        turn: &mut Turn,
        out: &mut Vec<H>,
    ) -> Harvest {
        let complete = self.poller.borrow().is_empty() && harvest == Harvest::Complete;
        let mut quiet = complete && behind == Behind::Nobody;
        if quiet && !self.clock.is_virtual() {
            // We may have been stalled between the harvest and the clock: look once more, so that
            // all that had come by the clock's time has been seen.
            let again = self.look(Duration::ZERO);
            harvest = again.unwrap_or(Harvest::Partial);
            quiet = self.poller.borrow().is_empty() && harvest == Harvest::Complete;
            turn.events = self.unpark_ready(out);
        }
        let limit = if quiet {
            self.clock.tick()
        } else {
            self.harvested.get()
        };
        let stamp = (turn.events > 0).then(|| self.stamp.get());
        let mut passed = 0;
        let mut unpark = |w| out.push(alone(w));
        let mut wheel = self.wheel.borrow_mut();
        turn.more = wheel.advance(limit, EXPIRY_BUDGET, |_, place| {
            let expire = |state: &super::descriptor::State<W>| {
                let before = state.expired();
                let due = state.expire(place.number, limit, stamp, &mut unpark);
                passed += state.expired() - before;
                due
            };
            verdict(self.ask(place, expire).unwrap_or(Due::Lapsed))
        });
        drop(wheel);
        turn.expired = passed;
        self.compact();
        harvest
    }
}

fn alone<W, H: Handed<W>>(w: W) -> H {
    H::handed(w, Whereabouts::NOWHERE)
}

/// As for most events, for those that are not ready for both.
#[cold]
#[inline(never)]
fn unpark_rarer<W, T>(
    registry: &Registry<Rc<Registered<W, T>>>,
    event: Event,
    stamp: u16,
    out: &mut Vec<W>,
    strays: &Cell<usize>,
) {
    let Some(registered) = registry.get(event.token) else {
        return note_stray(strays);
    };
    let reader = registered.state.ready(event.readiness, stamp, out);
    out.extend(reader);
}

/// A break, or an earlier owner of the slot was meant: it concerns nobody.
#[cold]
#[inline(never)]
fn note_stray(strays: &Cell<usize>) {
    strays.set(strays.get() + 1);
}

fn trace_ready(event: Event) {
    log::trace!("ready {:?} {:?}", event.token, event.readiness);
}

fn verdict(due: Due) -> Verdict {
    match due {
        Due::Lapsed => Verdict::Lapsed,
        Due::Nothing => Verdict::Done,
        Due::Again(when) => Verdict::Again(when),
    }
}
