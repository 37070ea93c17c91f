//! A connection's one timer: idle timeout, heartbeat, minimum rate, the time to close, the grace of
//! a drain.
//!
//! A connection notes when it last heard from its peer, and no more. The timer stands at the earliest
//! of its times, as they were when it was placed. When it fires, the connection tries its socket,
//! judges what is due, and places the timer anew: a time that moved later costs one such run.

// Mirrors what Go's `http.Server` does by deadlines of the socket: `IdleTimeout`, `ReadTimeout`.

use std::io;
use std::time::Duration;

use super::conn::Conn;
use super::error::{CloseReason, too_slow};
use super::rate::{Expected, Progress};
use super::state::{Event, State};
use crate::net::fd::Failure;
use crate::reactor::{Direction, Refusal};
use crate::runtime::machine::MachineId;
use crate::runtime::socket::Parked;
use crate::wheel::{Tick, TimerKey};

/// No time: later than every other.
pub(super) const NEVER: u64 = u64::MAX;

/// How long a connection that closes waits for a peer that takes nothing, without an idle timeout.
const LAST_BYTES: u64 = 30_000;

/// How often a connection that waits for acknowledgements looks for them, at most. Go's
/// `rstAvoidanceDelay`.
const LOOK: u64 = 500;

/// A duration in the loop's ticks, rounded up.
pub(crate) fn ticks(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(NEVER)
}

/// The connection's times, in ticks.
#[derive(Debug)]
pub(super) struct Timers {
    /// `None` if no timer was placed. It may have fired.
    key: Option<TimerKey>,
    /// Where the timer stands; `NEVER` without one.
    planned: u64,
    /// The last sign of life: bytes that came; bytes that the peer took, where it is not read from.
    heard: u64,
    /// The last heartbeat.
    beat: u64,
    /// Bytes last went out, or were queued from elsewhere.
    sent: u64,
}

/// Whether the peer meets the minimum rates. It exists while bytes are expected of the peer.
#[derive(Debug, Default)]
pub(super) struct Watch {
    read: Progress,
    write: Progress,
    /// The next look; `NEVER` if none is planned.
    next: u64,
}

impl Watch {
    pub(super) fn moved(&mut self, direction: Direction, bytes: usize) {
        match direction {
            Direction::Read => self.read.moved(bytes),
            Direction::Write => self.write.moved(bytes),
        }
    }
}

impl Timers {
    pub(super) const fn new() -> Self {
        Timers {
            key: None,
            planned: NEVER,
            heard: 0,
            beat: 0,
            sent: 0,
        }
    }
}

impl Conn {
    /// The loop's time, rounded down: what has passed for sure.
    fn now(&self) -> u64 {
        self.fd.tick().get()
    }

    /// The peer gave a sign of life.
    #[inline]
    pub(super) fn heard(&mut self) {
        // What a callback took before is not the peer's time.
        if self.shared.judges_by_time() {
            self.fd.read_clock();
        }
        // Rounded up, so that no time that counts from here is early.
        self.timers.heard = self.fd.tick_ceiling().get();
    }

    /// Bytes went out.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.timers.sent = self.fd.tick_ceiling().get();
        // Where nothing is read from the peer, this is its sign of life.
        if !self.state().delivers() || self.is_full() {
            self.timers.heard = self.timers.sent;
        }
        self.moved(Direction::Write, bytes);
    }

    /// For the minimum rates.
    pub(super) fn moved(&mut self, direction: Direction, bytes: usize) {
        let extra = self.extra.as_mut();
        if let Some(watch) = extra.and_then(|extra| extra.watch.as_mut()) {
            watch.moved(direction, bytes);
        }
    }

    /// The peer's time begins anew: the connection was opened, or begins to close or to linger.
    pub(super) fn arm(&mut self, event: Event) {
        self.heard();
        self.timers.beat = self.timers.heard;
        if event == Event::Opened {
            self.timers.sent = self.timers.heard;
            self.timers.beat = self
                .timers
                .beat
                .saturating_add(self.shared.heartbeat_delay());
        }
    }

    // ---- what is due, and when the next is ----

    /// When a peer without a sign of life is given up.
    fn idle_at(&self) -> u64 {
        let idle = match self.state() {
            State::Closing | State::Lingering if self.shared.idle == NEVER => LAST_BYTES,
            _ => self.shared.idle,
        };
        self.timers.heard.saturating_add(idle)
    }

    fn heartbeat_at(&self) -> u64 {
        let beats = matches!(self.state(), State::Open | State::PeerEnded);
        // A heartbeat would keep a drained connection alive.
        if !beats || self.shared.is_draining() {
            return NEVER;
        }
        let last = self.timers.heard.max(self.timers.beat);
        last.saturating_add(self.shared.heartbeat)
    }

    fn look_at(&self) -> u64 {
        let Some(extra) = &self.extra else {
            return NEVER;
        };
        let watch = extra.watch.as_ref().map_or(NEVER, |watch| watch.next);
        match extra.acknowledged_look {
            0 => watch,
            look => watch.min(look),
        }
    }

    /// Plans a look for acknowledgements. What is on its way now is acknowledged by then, so that a
    /// later acknowledgement shows that the peer goes on taking.
    pub(super) fn await_acknowledgements(&mut self) {
        let (now, idle) = (self.now(), self.idle_at());
        let extra = self.extra.get_or_insert_default();
        extra.acknowledged_look = match idle {
            NEVER => 0,
            idle => now + (idle.saturating_sub(now) / 16).clamp(1, LOOK),
        };
    }

    /// When traffic no longer keeps a drained connection open.
    fn grace_at(&self) -> u64 {
        if !self.shared.is_draining() {
            return NEVER;
        }
        let last = self.timers.heard.max(self.timers.sent);
        last.saturating_add(self.shared.grace)
    }

    /// The timer may have fired: the connection has to judge what is due.
    #[inline]
    pub(super) fn timer_is_due(&self) -> bool {
        self.timers.planned <= self.now()
    }

    /// Whether a drain has to wait for this connection: bytes are queued or unused, a call of
    /// `writable` is owed, it is marked busy, it closes already, or there was traffic within the
    /// grace. Called when all that is ready has been read and written.
    pub(super) fn in_flight(&self) -> bool {
        let holds = self.extra.as_ref().is_some_and(|extra| {
            extra.is_full
                || !extra.queue.is_empty()
                || !extra.unused.is_empty()
                || extra
                    .mailbox
                    .as_ref()
                    .is_some_and(|mailbox| mailbox.is_busy())
        });
        holds
            || matches!(self.state(), State::Closing | State::Lingering)
            || self.grace_at() > self.now()
    }

    /// What is due, after the socket was tried.
    pub(super) fn judge(&mut self) -> Option<(Event, Option<CloseReason>)> {
        let now = self.now();
        if let Some(extra) = &mut self.extra
            && (1..=now).contains(&extra.acknowledged_look)
        {
            extra.acknowledged_look = 0;
            self.note_acknowledgements();
            if self.state() == State::Lingering {
                // Where the system can't tell, this time is all the peer gets.
                if self.fd.unacknowledged().unwrap_or(0) == 0 {
                    return Some((Event::Acknowledged, None));
                }
                self.await_acknowledgements();
            }
        }
        if self.idle_at() <= now && matches!(self.state(), State::Closing | State::Lingering) {
            self.note_acknowledgements();
        }
        if self.idle_at() <= now {
            let timeout = Failure::Refused(Refusal::TimedOut);
            let error = self.fd.error("read", timeout, 0);
            return Some((Event::Idle, Some(CloseReason::Idle(error))));
        }
        if self.heartbeat_at() <= now {
            self.timers.beat = now;
            return Some((Event::HeartbeatDue, None));
        }
        None
    }

    /// A connection that closes only waits for its last bytes to be taken: what the peer has
    /// acknowledged since the last look is a sign of life.
    pub(super) fn note_acknowledgements(&mut self) {
        let (now, left) = (self.now(), self.fd.unacknowledged());
        let (Some(extra), Some(left)) = (&mut self.extra, left) else {
            return;
        };
        if left < extra.unacknowledged {
            self.timers.heard = now;
        }
        extra.unacknowledged = left;
    }

    /// Judges the rates of a peer of which bytes are expected, and plans the next look.
    pub(super) fn judge_rates(&mut self) -> Result<(), io::Error> {
        let (rates, delivers) = (self.shared.rates, self.state().delivers());
        let Some(extra) = self.extra.as_mut().filter(|_| rates.any()) else {
            return Ok(());
        };
        let reading = match (delivers && !extra.unused.is_empty(), extra.is_full) {
            (false, _) => Expected::Nothing,
            (true, false) => Expected::Bytes,
            (true, true) => Expected::BytesLater,
        };
        let writing = match extra.queue.is_empty() {
            true => Expected::Nothing,
            false => Expected::Bytes,
        };
        if (reading, writing) == (Expected::Nothing, Expected::Nothing) {
            extra.watch = None;
            return Ok(());
        }
        let now = self.fd.tick().get();
        let watch = extra.watch.get_or_insert_default();
        let planned = match watch.next {
            0 | NEVER => now,
            next => next,
        };
        watch.next = NEVER;
        let judged = [
            (Direction::Read, rates.read, &mut watch.read, reading),
            (Direction::Write, rates.write, &mut watch.write, writing),
        ];
        for (direction, rate, progress, expected) in judged {
            let Some(rate) = rate else { continue };
            match progress.look(rate, expected, now, planned) {
                Ok(next) => {
                    let next = next.map_or(NEVER, |ticks| now.saturating_add(ticks));
                    watch.next = watch.next.min(next);
                }
                Err(slow) => return Err(too_slow(&self.fd, direction, rate, slow)),
            }
        }
        Ok(())
    }

    // ---- the timer ----

    /// Places the timer at the earliest of the times. One that stands earlier is left: it finds out.
    pub(super) fn plan(&mut self, id: MachineId) {
        let times = [
            self.idle_at(),
            self.heartbeat_at(),
            self.look_at(),
            self.grace_at(),
        ];
        // What lies in the past was judged, and something else keeps the connection open.
        let now = self.now();
        let due = times.into_iter().filter(|&time| time > now).min();
        let Some(due) = due.filter(|&due| due != NEVER) else {
            return self.cancel_timer();
        };
        if due >= self.timers.planned && self.timers.planned > now {
            return;
        }
        let mut timers = self.fd.peer_timers().borrow_mut();
        let when = Tick::new(due);
        let moved = self.timers.key.is_some_and(|key| timers.move_to(key, when));
        if !moved {
            self.timers.key = Some(timers.insert(when, Parked::machine(id)));
        }
        self.timers.planned = due;
    }

    pub(super) fn cancel_timer(&mut self) {
        self.timers.planned = NEVER;
        let Some(key) = self.timers.key.take() else {
            return;
        };
        // What comes out is plain data.
        self.fd.peer_timers().borrow_mut().cancel(key);
    }
}

#[cfg(test)]
mod tests {
    use super::{NEVER, ticks};
    use std::time::Duration;

    #[test]
    fn a_duration_is_rounded_up_to_ticks_and_the_longest_is_never() {
        assert_eq!(ticks(Duration::ZERO), 0);
        assert_eq!(ticks(Duration::from_micros(9_001)), 10);
        assert_eq!(ticks(Duration::MAX), NEVER);
    }
}
