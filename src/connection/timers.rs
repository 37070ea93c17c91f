//! A connection's one timer, which waits for the settled tick: idle timeout, heartbeat, minimum rate, the
//! time to close, the grace of a drain, the greatest age. And the protocol's own, which judges nothing.
//!
//! When a connection hears from its peer, it stores the time, and touches no timer. When it comes to
//! rest, it sets the timer to the earliest of its times. When that fires, the connection tries its
//! socket, judges what is due, and sets the timer anew: a time that moved later costs one such run.

// Mirrors what Go's `http.Server` does by deadlines of the socket: `IdleTimeout`, `ReadTimeout`.

use std::io;
use std::mem;
use std::time::Duration;

use super::Protocol;
use super::conn::Conn;
use super::error::{CloseReason, too_slow};
use super::rate::NEVER;
use super::run::Connection;
use super::state::{Drain, Event, State};
use crate::net::fd::Failure;
use crate::reactor::{Direction, Refusal};
use crate::runtime::context::{self, ParkKey};
use crate::runtime::dump::{Entry, Value};
use crate::wheel::{Tick, TimerKey};

/// How long a closing connection without an idle timeout waits for a peer that takes nothing.
const LAST_BYTES: u64 = 30_000;

/// How long the input of a lingering connection has to be quiet. Go's `rstAvoidanceDelay`.
const RST_AVOIDANCE: u64 = 500;

/// No event tells of acknowledgements, so a closing connection asks for them: this many times within
/// the peer's time, and at least once in [`RST_AVOIDANCE`].
const CHECKS: u64 = 256;

impl<P: Protocol> Connection<P> {
    /// Judges what is due, after the socket was tried. Returns whether it acted: then there may be
    /// more to do.
    pub(super) fn judge(&mut self) -> bool {
        let conn = &mut self.conn;
        let now = conn.now();
        if conn.check_acknowledged(now) {
            self.on(Event::Acknowledged);
            return true;
        }
        let beats = conn.heartbeat_at() <= now;
        let idle = conn.idle_at() <= now;
        if idle && conn.is_busy() && !conn.state().closes() {
            // The peer waits for our answer: its time begins anew.
            conn.heard_at = now;
        } else if idle {
            let timeout = Failure::Refused(Refusal::TimedOut);
            let error = conn.fd.error("read", timeout);
            conn.blame(CloseReason::Idle(error));
            self.tell(P::idle);
            self.on(Event::Idle);
            return true;
        }
        if beats {
            conn.beat = now;
            conn.shared.tally.heartbeats.add(1);
            self.tell(
                |protocol, conn| match conn.settings().heartbeat_bytes.clone() {
                    Some(bytes) => conn.beat_by(&bytes),
                    None => protocol.heartbeat(conn),
                },
            );
        }
        beats
    }
}

impl Conn {
    /// The loop's time, rounded down: what has passed for sure.
    pub(super) fn now(&self) -> u64 {
        self.fd.desc.core.clock.tick().get()
    }

    /// The time by a fresh reading, rounded up: a time that counts from here is never early.
    pub(super) fn fresh_tick(&self) -> u64 {
        let clock = &self.fd.desc.core.clock;
        clock.read();
        clock.tick_ceiling().get()
    }

    /// The peer gave a sign of life.
    pub(super) fn heard(&mut self) {
        // If times are judged, the clock is read anew: the callback's time is not the peer's.
        self.heard_at = match self.shared.judges_by_time.get() {
            true => self.fresh_tick(),
            false => self.fd.desc.core.clock.tick_ceiling().get(),
        };
    }

    /// Bytes went out, from the queue or as a part of a reply.
    pub(super) fn sent(&mut self, bytes: usize) {
        let now = self.fresh_tick();
        // Where nothing is read from the peer, this is its sign of life.
        if !self.state().delivers() || self.is_full() {
            self.heard_at = now;
        }
        if let Some(extra) = &mut self.extra {
            extra.sent_at = now;
        }
        self.moved(Direction::Write, bytes);
    }

    /// There was traffic that is no sign of life, such as bytes that were queued from elsewhere.
    pub(super) fn note_traffic(&mut self) {
        self.extra().sent_at = self.fresh_tick();
    }

    /// Counts bytes that moved, for the minimum rates.
    pub(super) fn moved(&mut self, direction: Direction, bytes: usize) {
        let progress = self.extra.as_mut().map(|extra| &mut extra.progress);
        if let Some(Some(progress)) = progress.map(|by| &mut by[direction as usize]) {
            progress.count(bytes);
        }
    }

    /// The peer's time begins anew: the connection was opened, or begins to close or to linger.
    pub(super) fn arm(&mut self) {
        self.heard_at = self.fresh_tick();
        self.beat = self.heard_at;
    }

    pub(super) fn opened(&mut self) {
        self.arm();
        if let Some(interval) = self.settings().heartbeat {
            self.beat += self.spread(interval) / 8;
        }
        if let Some((age, jitter)) = self.settings().max_age {
            let age = age.saturating_add(self.spread(jitter));
            self.extra().old_at = Some(self.heard_at.saturating_add(age));
        }
    }

    /// A part of `time`, another for each connection of a worker, so that connections that were opened
    /// together do not act together. Zero for a worker's only connection.
    fn spread(&self, time: u64) -> u64 {
        /// 2^32 over the golden ratio: its multiples, modulo 2^32, lie evenly, however many there are.
        const GOLDEN: u32 = 0x9e37_79b9;
        if self.shared.tally.live.get() == 1 {
            return 0;
        }
        let part = GOLDEN.wrapping_mul(self.fd.desc.token().key() as u32);
        ((u128::from(time) * u128::from(part)) >> 32) as u64
    }

    // ---- what is due, and when the next is ----

    /// When the idle timeout passes.
    fn idle_at(&self) -> u64 {
        self.heard_at.saturating_add(self.patience())
    }

    /// How long the peer may show no sign of life.
    fn patience(&self) -> u64 {
        match self.idle_ticks() {
            NEVER if self.state().closes() => LAST_BYTES,
            idle => idle,
        }
    }

    pub(super) fn idle_ticks(&self) -> u64 {
        let own = self.peek(|extra| extra.idle);
        own.or(self.settings().idle_timeout).unwrap_or(NEVER)
    }

    /// Adds what a dump says of the connection.
    pub(super) fn look(&self, entry: &mut Entry) {
        let now = self.now();
        let after = |tick: u64| Value::Time(Duration::from_millis(tick.saturating_sub(now)));
        let due = |tick| (tick != NEVER).then(|| after(tick));
        entry.put("state", Value::shown(format_args!("{:?}", self.state())));
        self.fd.socket().look(entry);
        let quiet = Duration::from_millis(now.saturating_sub(self.heard_at));
        entry
            .put("queued_bytes", Value::Number(self.queued()))
            .put("unused_bytes", Value::Number(self.unused()))
            .put("quiet_seconds", Value::Time(quiet))
            .put("idle_in_seconds", due(self.idle_at()))
            .put("heartbeat_in_seconds", due(self.heartbeat_at()));
    }

    fn heartbeat_at(&self) -> u64 {
        let beats = matches!(self.state(), State::Open | State::PeerEnded);
        // In a drain, an answer to a heartbeat would keep the connection alive.
        if !beats || (self.drains().is_some() && !self.is_busy()) {
            return NEVER;
        }
        let last = self.heard_at.max(self.beat);
        let interval = self.settings().heartbeat.unwrap_or(NEVER);
        last.saturating_add(interval)
    }

    /// The next check of the acknowledgements.
    fn check_at(&self) -> u64 {
        match self.state().closes() {
            true => self.beat + (self.patience() / CHECKS).clamp(1, RST_AVOIDANCE),
            false => NEVER,
        }
    }

    /// When traffic no longer keeps a draining connection open. Zero if it does not keep it at all.
    fn grace_at(&self) -> u64 {
        if self.drains() != Some(Drain::WhenQuiet) {
            return 0;
        }
        let last = self.heard_at.max(self.peek(|extra| extra.sent_at));
        last.saturating_add(self.settings().drain_grace)
    }

    /// When the connection has reached its greatest age.
    pub(super) fn old_at(&self) -> u64 {
        self.peek(|extra| extra.old_at).unwrap_or(NEVER)
    }

    /// The timer has fired: the connection has to judge what is due.
    pub(super) fn timer_has_fired(&self) -> bool {
        let fired = |key| self.fd.desc.core.peer_timers.borrow().get(key).is_none();
        self.judge_timer.is_some_and(fired)
    }

    /// Whether a drain has to wait for this connection: bytes are queued or unused, a call of
    /// `writable` is owed, it is marked busy, it closes already, or there was traffic within the
    /// grace. Ask this when all that is ready has been read and written.
    pub(super) fn in_flight(&self) -> bool {
        let holds = self.is_full() || self.queued() > 0 || self.unused() > 0;
        let had_traffic = self.grace_at() > self.now();
        holds || self.is_busy() || self.state().closes() || had_traffic
    }

    fn is_busy(&self) -> bool {
        self.peek(|extra| extra.inbox().is_some_and(|inbox| inbox.is_busy))
    }

    /// Asks what the peer has not acknowledged: less than at the last check is a sign of life. Returns
    /// whether a lingering connection may close: all is acknowledged, and the peer is quiet. Input
    /// after the close would be answered with a RST, which the peer would read as an error.
    fn check_acknowledged(&mut self, now: u64) -> bool {
        if !self.state().closes() {
            return false;
        }
        self.beat = now;
        let left = self.fd.unacknowledged();
        if left < mem::replace(&mut self.extra().unacknowledged, left) {
            self.heard_at = now;
        }
        let input = self.peek(|extra| extra.sent_at);
        let is_quiet = now >= input.saturating_add(RST_AVOIDANCE);
        self.state() == State::Lingering && left == 0 && is_quiet
    }

    /// Judges the rates of a peer from which bytes are expected. Returns when to check again.
    pub(super) fn judge_rates(&mut self) -> io::Result<u64> {
        let rates = self.settings().rates;
        let reads = self.state().delivers() && self.unused() > 0;
        let (expected, now) = ([reads, self.to_send() > 0], self.now());
        // The peer waits for us.
        let is_held = self.is_full() || self.is_busy();
        let mut soonest = NEVER;
        let Some(extra) = &mut self.extra else {
            return Ok(soonest);
        };
        for direction in Direction::BOTH {
            let progress = &mut extra.progress[direction as usize];
            let Some(rate) = rates[direction as usize].filter(|_| expected[direction as usize])
            else {
                *progress = None;
                continue;
            };
            let progress = progress.get_or_insert_default();
            let next = progress.check(rate, now);
            let next = next.map_err(|moved| too_slow(&self.fd, direction, rate, moved))?;
            match direction {
                Direction::Read if is_held => progress.hold(),
                _ => soonest = soonest.min(next),
            }
        }
        Ok(soonest)
    }

    // ---- the timer ----

    /// Sets the timer to the earliest of the times; `rate_at` is the next check of the rates. Moving the
    /// timer later only stores the time.
    pub(super) fn plan(&mut self, rate_at: u64) {
        let now = self.now();
        let mut timers = self.fd.desc.core.peer_timers.borrow_mut();
        let placed = self.judge_timer.and_then(|key| timers.when(key));
        // It is due, but its tick is not settled yet. It will fire, and the connection judges then.
        if placed.is_some_and(|placed| placed <= Tick::new(now)) {
            return;
        }
        let times = [
            // An idle timeout that was shortened may have passed, and is not judged yet.
            self.idle_at().max(now + 1),
            // A drain stops heartbeats, and `set_busy` resumes them: then one may be overdue.
            self.heartbeat_at().max(now + 1),
            self.check_at(),
            rate_at,
            self.grace_at(),
            self.old_at(),
        ];
        // Any other time in the past has been judged already, and did not end the connection.
        let due = times.into_iter().filter(|&time| time > now).min();
        let Some(due) = due.filter(|&due| due != NEVER).map(Tick::new) else {
            drop(timers);
            return self.cancel_timer();
        };
        let key = self.judge_timer;
        if !key.is_some_and(|key| timers.move_to(key, due)) {
            let parked = ParkKey::machine(context::running_machine());
            self.judge_timer = Some(timers.insert(due, parked));
        }
    }

    pub(super) fn cancel_timer(&mut self) {
        let Some(key) = self.judge_timer.take() else {
            return;
        };
        // What comes out is plain data.
        self.fd.desc.core.peer_timers.borrow_mut().cancel(key);
    }

    // ---- the protocol's own timer, which fires by the clock ----

    /// Whether the protocol's timer has fired. It is forgotten.
    pub(super) fn take_due_timer(&mut self) -> bool {
        let timers = self.fd.desc.core.timers.borrow();
        let fired = |key: &mut TimerKey| timers.get(*key).is_none();
        let extra = self.extra.as_mut();
        extra.is_some_and(|extra| extra.timer.take_if(fired).is_some())
    }
}
