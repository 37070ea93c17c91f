//! Watching whether a peer meets the minimum rates: when it parks, and by a timer meanwhile.
//!
//! May touch: the worker, the scheduler's timers. Judged by `progress.rs`. Go has no counterpart.
//!
//! Reading is judged while a message has begun and is not whole, that is, while the protocol keeps
//! bytes that it has not used; writing, while bytes wait that the peer has not taken. It is at the
//! parking that one judges: then all that the loop knows of has been read and written.

use std::fmt;
use std::io;
use std::rc::Rc;

use super::conn::{Conn, Extra};
use super::progress::{Expected, Progress, Rate, TooSlow};
use super::worker::Worker;
use crate::net::Cause;
use crate::reactor::Direction;
use crate::runtime::machine::MachineId;
use crate::runtime::scheduler::Scheduler;
use crate::runtime::sleeper::Judges;
use crate::runtime::socket::Parked;
use crate::wheel::TimerKey;

/// The minimum rates of a server's peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    pub(crate) read: Option<Rate>,
    pub(crate) write: Option<Rate>,
}

impl Rates {
    pub(crate) fn any(self) -> bool {
        self.read.is_some() || self.write.is_some()
    }
}

/// A peer under watch. It has a timer of its own, for both of the connection's deadlines are taken,
/// by idleness and heartbeat.
pub(crate) struct Watch {
    worker: Rc<Worker>,
    read: Progress,
    write: Progress,
    /// The next look, and its tick.
    next: Option<(TimerKey, u64)>,
    /// This look comes by the timer, and what is queued was tried once more for it.
    tried: bool,
}

impl Watch {
    pub(crate) fn moved(&mut self, direction: Direction, bytes: usize) {
        match direction {
            Direction::Read => self.read.moved(bytes),
            Direction::Write => self.write.moved(bytes),
        }
    }

    fn cancel(&mut self, scheduler: &Scheduler) {
        if let Some((key, _)) = self.next.take() {
            scheduler.timers(Judges::Peer).borrow_mut().cancel(key);
        }
    }

    /// Plans a look in so many ticks, unless one comes sooner.
    fn plan(&mut self, scheduler: &Scheduler, id: MachineId, ticks: u64) {
        let when = scheduler.reactor.core().clock.tick_after(ticks);
        let mut timers = scheduler.timers(Judges::Peer).borrow_mut();
        match &mut self.next {
            Some((_, planned)) if *planned <= when.get() => {}
            Some((key, planned)) => {
                timers.move_to(*key, when);
                *planned = when.get();
            }
            None => {
                let key = timers.insert(when, Parked::machine(id));
                self.next = Some((key, when.get()));
            }
        }
    }

    fn look(&mut self, rates: Rates, expected: [Expected; 2], now: u64) -> Look {
        let planned = self.next.map_or(now, |(_, planned)| planned);
        let mut soonest = None;
        let judged = [
            (Direction::Read, rates.read, &mut self.read, expected[0]),
            (Direction::Write, rates.write, &mut self.write, expected[1]),
        ];
        for (direction, rate, progress, expected) in judged {
            let Some(rate) = rate else { continue };
            match progress.look(rate, expected, now, planned) {
                Ok(None) => {}
                Ok(Some(next)) => {
                    soonest = Some(soonest.map_or(next, |soonest: u64| soonest.min(next)));
                }
                Err(slow) => return Look::TooSlow(direction, rate, slow),
            }
        }
        Look::Again(soonest)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(scheduler) = self.worker.scheduler() {
            self.cancel(&scheduler);
        }
    }
}

enum Look {
    /// In so many ticks.
    Again(Option<u64>),
    TooSlow(Direction, Rate, TooSlow),
}

impl Extra {
    pub(crate) fn moved(&mut self, direction: Direction, bytes: usize) {
        if let Some(watch) = &mut self.watch {
            watch.moved(direction, bytes);
        }
    }
}

impl Conn {
    /// Whether it is time for a look, and what waits is to be tried first, whatever the selector
    /// said. It says that a peer has taken something when that is a third of the system's buffer,
    /// and a peer may be slower; and it may not have come to tell of all that has arrived.
    pub(crate) fn tries_before_look(&mut self) -> bool {
        let watch = self.extra.as_mut().and_then(|extra| extra.watch.as_mut());
        let Some(watch) = watch else { return false };
        let Some(scheduler) = self.worker.scheduler() else {
            return false;
        };
        let now = scheduler.reactor.core().clock.tick().get();
        let due = watch.next.is_some_and(|(_, planned)| planned <= now);
        due && !std::mem::replace(&mut watch.tried, true)
    }

    /// It is about to park: judges the peer, and plans the next look. An error is why it must end.
    #[cold]
    #[inline(never)]
    pub(crate) fn judge_peer(&mut self, id: MachineId) -> Option<io::Error> {
        let rates = self.worker.rates;
        let reads = self.state().reads();
        let extra = self.extra.as_mut()?;
        let expected = [
            match (reads && !extra.unused.is_empty(), extra.is_full) {
                (false, _) => Expected::Nothing,
                (true, false) => Expected::Bytes,
                (true, true) => Expected::BytesLater,
            },
            match extra.queue.is_empty() {
                true => Expected::Nothing,
                false => Expected::Bytes,
            },
        ];
        if expected == [Expected::Nothing; 2] {
            extra.watch = None;
            return None;
        }
        let scheduler = self.worker.scheduler()?;
        let worker = &self.worker;
        let watch = extra.watch.get_or_insert_with(|| Watch::new(worker));
        let clock = &scheduler.reactor.core().clock;
        let now = clock.tick().get();
        match watch.look(rates, expected, now) {
            Look::Again(soonest) => {
                if soonest.is_none() || watch.next.is_some_and(|(_, planned)| planned <= now) {
                    watch.cancel(&scheduler);
                }
                watch.tried = false;
                if let Some(ticks) = soonest {
                    watch.plan(&scheduler, id, ticks);
                }
                None
            }
            Look::TooSlow(direction, rate, slow) => {
                let op = match direction {
                    Direction::Read => "read",
                    Direction::Write => "write",
                };
                let cause = Cause::Other(missed(rate, slow));
                Some(self.fd.op_error(op, cause))
            }
        }
    }
}

impl Watch {
    fn new(worker: &Rc<Worker>) -> Box<Watch> {
        Box::new(Watch {
            worker: worker.clone(),
            read: Progress::default(),
            write: Progress::default(),
            next: None,
            tried: false,
        })
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("read", &self.read)
            .field("write", &self.write)
            .finish_non_exhaustive()
    }
}

fn missed(rate: Rate, slow: TooSlow) -> io::Error {
    let window = match rate.window % 1000 {
        0 => format!("{} s", rate.window / 1000),
        _ => format!("{} ms", rate.window),
    };
    let text = format!(
        "minimum rate not met: {} bytes in {window}, {} asked",
        slow.moved, rate.least
    );
    io::Error::new(io::ErrorKind::TimedOut, text)
}
