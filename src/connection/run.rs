//! A connection as the loop runs it: no future, no waker; its id is parked, and this comes round.
//!
//! May touch: the scheduler's machines, net's Fd. Mirrors `conn.serve` in Go's `net/http/server.go`.
//!
//! The way of a busy connection is in `straight.rs`. All else goes round with care: what is due,
//! what was asked for, what waits, and then it parks.

use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::conn::Conn;
use super::protocol::Protocol;
use super::standing::Asked;
use super::state::{Actions, Event, State};
use super::stats::add;
use super::worker::{Phase, Worker};
use crate::net::fd::{Failure, Fd};
use crate::reactor::{Direction, Refusal};
use crate::runtime::context;
use crate::runtime::lent;
use crate::runtime::machine::MachineId;

/// How long a connection that closes may take to write what is left, if nothing else bounds it.
const LAST_WRITE: Duration = Duration::from_secs(30);

pub(crate) struct Connection<P: Protocol> {
    pub(crate) protocol: P,
    /// Goes last: then the server has one connection less.
    pub(crate) conn: Conn,
}

/// Three pointers, and what the protocol itself holds: with malloc's word that is 32 bytes, and one
/// more byte would make it 48.
const _: () = assert!(size_of::<Conn>() == 3 * size_of::<usize>());

// Nothing in it is ever pinned: it is no future.
impl<P: Protocol> Unpin for Connection<P> {}

/// What a round leaves to do.
enum Round {
    Again,
    Wait,
}

impl<P: Protocol> Connection<P> {
    pub(crate) fn new(fd: Fd, worker: Rc<Worker>, protocol: P) -> Self {
        Connection {
            conn: Conn::new(fd, worker),
            protocol,
        }
    }

    /// So many bytes came: pushes the deadlines.
    pub(crate) fn came(&mut self, got: usize) {
        let conn = &self.conn;
        conn.fd.note_short(Direction::Read, got, lent::LENGTH);
        add(&conn.worker.tally.received, got as u64);
        if conn.worker.intervals.are_set() {
            self.arm();
        }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn arm(&mut self) {
        let conn = &self.conn;
        let worker = &*conn.worker;
        if worker.phase.get() == Phase::Stopped {
            conn.stand(conn.standing().aborting());
        }
        let (idle, heartbeat) = (worker.intervals.idle(), worker.intervals.heartbeat());
        // The sooner first: the other then needs no place of its own in the wheel.
        if heartbeat > 0 {
            conn.fd.set_deadline_after(Direction::Write, heartbeat);
        }
        if idle > 0 {
            conn.fd.set_deadline_after(Direction::Read, idle);
        }
    }

    // ---- the round ----

    #[cold]
    #[inline(never)]
    pub(crate) fn run_with_care(&mut self, id: MachineId) -> Poll<()> {
        context::set_budget();
        self.go_on(id)
    }

    /// Goes round until it has to wait, or others have their turn first.
    pub(crate) fn go_on(&mut self, id: MachineId) -> Poll<()> {
        loop {
            if self.conn.state() == State::Closed {
                return Poll::Ready(());
            }
            if !context::has_budget() {
                self.conn.worker.wake(id);
                return Poll::Pending;
            }
            match self.round() {
                Round::Again => {}
                Round::Wait if self.park(id) => return Poll::Pending,
                Round::Wait => {}
            }
        }
    }

    /// One thing at a time, the most urgent first.
    fn round(&mut self) -> Round {
        match self.due().or_else(|| self.asked()) {
            Some(Event::Reset) => {
                let why = self.conn.broken();
                self.on(Event::Reset, Some(why));
            }
            Some(event) => self.on(event, None),
            None if self.conn.tries_before_look() => self.try_both(),
            None => return self.move_bytes(),
        }
        Round::Again
    }

    /// What the clock or the server's end calls for.
    fn due(&mut self) -> Option<Event> {
        let conn = &mut self.conn;
        let phase = conn.worker.phase.get();
        if conn.state() == State::Opening {
            return Some(Event::Opened);
        }
        if phase == Phase::Stopped {
            return Some(Event::AbortAsked);
        }
        if let Some(refusal) = conn.fd.refusal(Direction::Read) {
            if refusal == Refusal::Closed {
                return Some(Event::Reset);
            }
            // Moved before anybody can ask to be idle again; what comes then is the last.
            conn.fd.clear_deadline(Direction::Read);
            if phase == Phase::Draining && conn.state() != State::Closing {
                return Some(Event::CloseAsked);
            }
            return Some(Event::Idle);
        }
        if conn.fd.refusal(Direction::Write).is_some() {
            match conn.worker.intervals.heartbeat() {
                0 => conn.fd.clear_deadline(Direction::Write),
                ticks => conn.fd.set_deadline_after(Direction::Write, ticks),
            }
            return Some(Event::HeartbeatDue);
        }
        if phase == Phase::Draining
            && conn.state() != State::Closing
            && !conn.standing().is_hurried()
        {
            conn.stand(conn.standing().hurried());
            conn.fd.clear_deadline(Direction::Write);
            let grace = conn.worker.intervals.idle();
            conn.fd.set_deadline_after(Direction::Read, grace);
        }
        None
    }

    /// What the protocol, or a handle, asks for.
    fn asked(&mut self) -> Option<Event> {
        let conn = &mut self.conn;
        if let Some(error) = conn.open_mail() {
            conn.extra.get_or_insert_default().why = Some(error);
            return Some(Event::Reset);
        }
        match conn.take_asked() {
            Asked::Nothing => None,
            Asked::End => Some(Event::EndAsked),
            Asked::Close => Some(Event::CloseAsked),
            Asked::Abort => Some(Event::AbortAsked),
        }
    }

    /// Writes what waits, then offers what was left over, then reads.
    fn move_bytes(&mut self) -> Round {
        if self.conn.queued() > 0 && self.conn.fd.is_ready(Direction::Write) {
            self.on(Event::CanWrite, None);
            return Round::Again;
        }
        if self.conn.low_again() {
            self.on(Event::Drained, None);
            return Round::Again;
        }
        if self.conn.is_full() {
            return Round::Wait;
        }
        if self.conn.state().reads() && self.conn.extra.as_ref().is_some_and(|extra| extra.fresh) {
            let unused = self.conn.take_unused(0).unwrap_or_default();
            self.offer(unused);
            return Round::Again;
        }
        self.conn.let_go();
        if self.conn.fd.is_ready(Direction::Read) && self.conn.state() != State::Closing {
            self.read();
            return Round::Again;
        }
        Round::Wait
    }

    /// As [`Connection::move_bytes`], whatever is said to be ready.
    #[cold]
    fn try_both(&mut self) {
        if self.conn.queued() > 0 {
            self.on(Event::CanWrite, None);
        }
        if self.conn.state().reads() && !self.conn.is_full() {
            self.read();
        }
    }

    /// Parks wherever it may be woken from. False if there is something to do at once.
    fn park(&mut self, id: MachineId) -> bool {
        let conn = &self.conn;
        conn.note_queue();
        if conn.queued() > 0 {
            if !conn.fd.must_wait(Direction::Write) {
                return false;
            }
            conn.fd.park_owner(Direction::Write, id);
        }
        let reads = conn.state() != State::Closing && !conn.is_full();
        if conn.fd.must_wait(Direction::Read) {
            conn.fd.park_owner(Direction::Read, id);
        } else if reads {
            return false;
        } else if conn.queued() == 0 {
            // It waits for its deadline alone, and bytes are there which it does not want.
            conn.fd.forget_readiness();
            return false;
        }
        if conn.extra.is_some()
            && conn.worker.rates.any()
            && let Some(why) = self.conn.judge_peer(id)
        {
            self.on(Event::TooSlow, Some(why));
            return false;
        }
        true
    }

    // ---- the table's actions ----

    pub(crate) fn on(&mut self, event: Event, why: Option<io::Error>) {
        let Some((next, actions)) = self.conn.state().on(event) else {
            log::debug!("{event:?} in {:?} of {:?}", self.conn.state(), self.conn);
            return;
        };
        log::trace!("{event:?} in {:?} -> {next:?}", self.conn.state());
        let mut why = why;
        if event == Event::Idle {
            add(&self.conn.worker.tally.idled, 1);
            let timeout = Failure::Refused(Refusal::TimedOut);
            why = Some(self.conn.fd.error("read", timeout, 0));
        } else if event == Event::TooSlow {
            add(&self.conn.worker.tally.slow, 1);
        } else if event == Event::AbortAsked && self.conn.worker.phase.get() == Phase::Stopped {
            why = Some(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the server stops",
            ));
        }
        let told = self.tell(actions);
        let aborts = self.conn.asked() == Asked::Abort;
        self.conn.enter(next);
        if let Some(error) = why {
            let kept = &mut self.conn.extra.get_or_insert_default().why;
            kept.get_or_insert(error);
        }
        if let Err(error) = told
            && self.conn.state() != State::Closed
        {
            return self.failed(error);
        }
        // One that is to be aborted has nothing written, and its close is a RST.
        if actions.has(Actions::WRITE) && !aborts {
            self.write();
        }
        // What was all written may have closed it: then there is nothing to wait for.
        if actions.has(Actions::ARM) && self.conn.state() != State::Closed {
            self.arm_for(event);
        }
        if actions.has(Actions::SHUT_DOWN)
            && let Err(error) = self.conn.fd.finish_writing()
        {
            return self.failed(error);
        }
        if actions.has(Actions::CLOSE) {
            self.close(aborts || actions.has(Actions::RESET));
        }
    }

    /// The callbacks, each with its write at its end.
    fn tell(&mut self, actions: Actions) -> io::Result<()> {
        let (protocol, conn) = (&mut self.protocol, &mut self.conn);
        let told = if actions.has(Actions::TELL_OPEN) {
            protocol.open(conn)
        } else if actions.has(Actions::TELL_END) {
            protocol.end(conn)
        } else if actions.has(Actions::TELL_HEARTBEAT) {
            add(&conn.worker.tally.heartbeats, 1);
            protocol.heartbeat(conn)
        } else if actions.has(Actions::TELL_IDLE) {
            protocol.idle(conn)
        } else if actions.has(Actions::TELL_DRAINED) {
            protocol.drained(conn)
        } else {
            return Ok(());
        };
        conn.send_gathered();
        // Before the next state, which may take nothing more.
        match conn.open_mail() {
            Some(full) => told.and(Err(full)),
            None => told,
        }
    }

    fn arm_for(&mut self, event: Event) {
        self.arm();
        let conn = &self.conn;
        if event == Event::Opened && conn.worker.intervals.heartbeat() > 0 {
            let first = conn.worker.first_heartbeat();
            conn.fd.set_deadline_after(Direction::Write, first);
        }
        if conn.state() == State::Closing {
            conn.fd.clear_deadline(Direction::Write);
            if conn.worker.intervals.idle() == 0 || conn.worker.is_draining() {
                let last = super::intervals::ticks(LAST_WRITE);
                conn.fd.set_deadline_after(Direction::Read, last);
            }
        }
    }

    fn write(&mut self) {
        match self.conn.flush_within_budget() {
            Ok(true) => self.on(Event::Flushed, None),
            Ok(false) => {}
            Err(error) => self.on(Event::Reset, Some(error)),
        }
    }
}
