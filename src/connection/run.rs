//! A connection as the loop runs it: no future and no waker. Its id is parked; when a turn hands it
//! out, `run` is called.
//!
//! ```text
//!   run ──► read ──► data ──► send_reply ──► park
//!    │       │         │        │
//!    │       │         │        └─ not all was sent ────────────┐
//!    │       │         └─ not all was used, or more is asked ───┤
//!    │       └─ end, error, or a full buffer ───────────────────┤
//!    └─ anything else to do ────────────────────────────────────┴─► go_on: step, step, …, come_to_rest
//! ```

// Mirrors `conn.serve` in Go's `net/http/server.go`.

use std::borrow::Cow;
use std::io;
use std::mem;
use std::net::Shutdown;
use std::pin::Pin;
use std::ptr;
use std::task::Poll;

use super::Protocol;
use super::conn::Conn;
use super::error::CloseReason;
use super::filter::Filtering;
use super::handle::ConnHandle;
use super::rate::NEVER;
use super::shared::Phase;
use super::state::{ATTEND, Drain, Event, State};
use crate::endpoints::End;
use crate::net::Cause;
use crate::reactor::{Direction, May, Refusal};
use crate::runtime::context::{self, ParkKey, Waiter};
use crate::runtime::dump::Entry;
use crate::runtime::machine::{Machine, MachineId};
use crate::runtime::stats::{Figures, SharedHistogram};
use crate::runtime::{lent, panics};

/// A connection and its protocol.
pub(crate) struct Connection<P: Protocol> {
    pub(crate) protocol: P,
    /// Dropped last: then the server has one connection less.
    pub(crate) conn: Conn,
}

/// What a step of the general loop came to.
enum Step {
    /// Something was done. There may be more to do.
    Again,
    /// There is nothing to do. The connection has parked.
    Parked,
}

/// Three pointers, a timer's key and two times.
const _: () = assert!(size_of::<Conn>() <= 6 * size_of::<u64>());

// Nothing in it is ever pinned: it is no future.
impl<P: Protocol> Unpin for Connection<P> {}

impl<P: Protocol> Machine for Connection<P> {
    fn look(&self, entry: &mut Entry) -> [Option<Waiter>; 2] {
        self.conn.look(entry);
        [None, None]
    }

    fn times<'a>(&self, figures: &'a Figures) -> &'a SharedHistogram {
        &figures.connection_time
    }

    fn run(self: Pin<&mut Self>, id: MachineId) -> Poll<()> {
        let this = self.get_mut();
        context::begin(id, ptr::null());
        let conn = &this.conn;
        debug_assert!(
            conn.shared.out.borrow().is_empty(),
            "each callback's reply was sent or queued"
        );
        // There is more to do than to read: a request, a queue, a drain, a time that has come, a
        // hang-up.
        if !conn.only_reads() || !conn.fd.desc.is_plainly_ready(Direction::Read) {
            return this.go_on();
        }
        let mut buffer = lent::take();
        let received = conn.fd.receive(&mut buffer[..]);
        let Ok(got @ 1..lent::LENGTH) = received else {
            // End of file, an error, EAGAIN, or a full buffer behind which there may be more.
            this.receive(received, &buffer[..]);
            lent::give_back(buffer);
            return this.go_on();
        };
        // A short read has emptied the socket, so the next edge announces new bytes. No EAGAIN is
        // fetched.
        conn.fd.desc.drained(Direction::Read);
        this.conn.shared.tally.received.add(got as u64);
        let used = this.protocol.data(&mut this.conn, &buffer[..got]);
        // The peer's idle time counts from here, after the callback. No timer is touched: the
        // timer looks at this time when it fires.
        this.conn.heard();
        // Input is left over, the callback asked for something, or the reply is not all sent.
        let all = matches!(used, Ok(used) if used == got);
        if !all || !this.conn.is_plain() || !this.conn.send_reply() {
            this.delivered(used, Cow::Borrowed(&buffer[..got]));
            lent::give_back(buffer);
            return this.go_on();
        }
        lent::give_back(buffer);
        let parked = ParkKey::machine(context::running_machine());
        this.conn.fd.desc.park_waiting(Direction::Read, parked);
        Poll::Pending
    }
}

impl Conn {
    /// Whether there is nothing to do for the connection but to read.
    fn only_reads(&self) -> bool {
        self.is_plain() && self.shared.phase.get() == Phase::Serving && !self.timer_has_fired()
    }

    /// Counts bytes that were read, for the log too. If the log wants them, the fast path is not taken.
    pub(super) fn received(&mut self, bytes: usize) {
        self.shared.tally.received.add(bytes as u64);
        let extra = self.extra.as_mut();
        if let Some(received) = extra.and_then(|extra| extra.received.as_mut()) {
            *received += bytes as u64;
        }
    }
}

impl<P: Protocol> Connection<P> {
    /// The general loop: goes on until the connection has to wait, or has used up its budget.
    #[cold]
    fn go_on(&mut self) -> Poll<()> {
        // Not in each pass: a thread that always writes would keep it from rest, where times are
        // judged. Later writes wake the connection again.
        self.conn.take_others_writes();
        // Whether both directions were tried in this run, whatever the selector had said of them.
        let mut tried = false;
        loop {
            if self.conn.state() == State::Closed {
                return Poll::Ready(());
            }
            // What a step leaves unused counts against the quota before anything else runs.
            self.conn.account_for_unused();
            if !context::has_budget() {
                self.conn.shared.wake(context::running_machine());
                return Poll::Pending;
            }
            match self.step(&mut tried) {
                Step::Again => {}
                Step::Parked => return Poll::Pending,
            }
        }
    }

    /// Does one thing, the most urgent. If there is nothing to do, comes to rest.
    fn step(&mut self, tried: &mut bool) -> Step {
        if let Some(event) = self.requested() {
            self.on(event);
            return Step::Again;
        }
        let conn = &mut self.conn;
        if conn.state() == State::Opening {
            if log::log_enabled!(log::Level::Debug) {
                conn.extra().received = Some(0);
            }
            conn.call_filter(|filter, _, io| filter.open(io));
            if !conn.is_asked() {
                self.tell(P::open);
            }
            self.on(Event::Opened);
        } else if conn.is_draining() && conn.drains().is_none() {
            // Once, also if the callback fails.
            conn.extra().drain = Some(Drain::WhenQuiet);
            self.tell(|protocol, conn| {
                let drain = protocol.draining(conn)?;
                conn.extra().drain = Some(drain);
                Ok(())
            });
        } else if conn.to_send() > 0 && conn.fd.desc.may_try(Direction::Write) == May::Try {
            conn.write_some();
        } else if self.conn.take_writable() {
            self.tell_and_note(P::writable);
        } else if self.conn.take_due_timer() {
            self.tell_and_note(P::timer);
        } else if self.conn.queued() == 0 && self.conn.state().flushes() {
            self.flushed();
        } else if self.conn.can_offer() {
            // A filter may turn each answer of the protocol into new input, without end.
            context::charge(0);
            self.offer_unused();
        } else if !self.conn.holds_input() && self.conn.filter_closes() {
            self.conn.close_for(CloseReason::Asked);
        } else if self.conn.reads() && self.conn.fd.desc.may_try(Direction::Read) == May::Try {
            self.read();
        } else {
            return self.come_to_rest(tried);
        }
        Step::Again
    }

    /// The next event that was asked for, or that a failure caused.
    fn requested(&mut self) -> Option<Event> {
        let conn = &mut self.conn;
        if conn.shared.phase.get() == Phase::Stopped {
            let text = "the server stops";
            let error = io::Error::new(io::ErrorKind::ConnectionAborted, text);
            conn.end_by(CloseReason::Stopped(error));
        } else if conn.fd.is_closed() {
            // Not by us: its runtime is closing all sockets.
            conn.broken(conn.fd.op_error("read", Cause::from(Refusal::Closed)));
        }
        let event = conn.take_asked()?;
        conn.blame(CloseReason::Asked);
        Some(event)
    }

    /// There is nothing to do: judges what is due, then parks.
    fn come_to_rest(&mut self, tried: &mut bool) -> Step {
        let conn = &mut self.conn;
        let due = conn.timer_has_fired();
        let drained = conn.drains().is_some() && !conn.in_flight();
        let rated = conn.judge_rates();
        if (due || drained || rated.is_err()) && !mem::replace(tried, true) {
            // Try before judging. The selector reports room only when a third of the system's buffer is
            // free, and may not have reported all that has come.
            conn.write_some();
            if conn.reads() {
                self.read();
            }
            return Step::Again;
        }
        if due && self.judge() {
            return Step::Again;
        }
        let conn = &mut self.conn;
        if drained {
            conn.close_for(CloseReason::Drained);
            return Step::Again;
        }
        match rated {
            Ok(next) => {
                let free_at = conn.free_extra();
                conn.plan(next.min(free_at));
                conn.park()
            }
            Err(error) => {
                conn.end_by(CloseReason::TooSlow(error));
                Step::Again
            }
        }
    }

    /// The queue is empty, in a state that waits for this.
    fn flushed(&mut self) {
        let is_new = |filtering: &mut Filtering| !mem::replace(&mut filtering.is_closing, true);
        if self.conn.filtering().is_some_and(is_new) {
            return self.conn.call_filter(|filter, _, io| filter.closing(io));
        }
        let closing = self.conn.state() == State::Closing;
        if closing && self.conn.has_unread_input() {
            return self.on(Event::FlushedUnread);
        }
        self.on(Event::Flushed);
    }

    // ---- what the protocol is told, and the next state ----

    /// Calls a callback, and acts on its error. While the connection closes, none is called.
    pub(super) fn tell(&mut self, call: impl FnOnce(&mut P, &mut Conn) -> io::Result<()>) {
        if self.conn.state().closes() {
            return;
        }
        debug_assert!(
            self.conn.state() != State::Closed,
            "the protocol has heard its end"
        );
        let told = call(&mut self.protocol, &mut self.conn);
        // Before the next state is entered: it may refuse what the callback wrote.
        self.conn.end_callback();
        self.heed(told);
    }

    /// As `tell`. If bytes went out, that is traffic, of which a drain has to know.
    fn tell_and_note(&mut self, call: impl FnOnce(&mut P, &mut Conn) -> io::Result<()>) {
        let before = self.conn.shared.tally.sent.get();
        self.tell(call);
        if self.conn.shared.tally.sent.get() > before {
            self.conn.note_traffic();
        }
    }

    pub(super) fn on(&mut self, event: Event) {
        let conn = &mut self.conn;
        let state = conn.state();
        let Some(next) = state.on(event) else {
            debug_assert!(false, "{event:?} in {state:?}");
            return;
        };
        log::trace!(
            "{event:?} in {state:?} -> {next:?}, machine {}",
            context::running_machine()
        );
        if next == state {
            return;
        }
        conn.enter(next);
        debug_assert!(next != State::Opening, "a connection opens once");
        match next {
            State::Open => conn.opened(),
            State::Opening | State::Finishing | State::PeerEnded => {}
            State::Finished => {
                if let Err(error) = conn.fd.shut_down(Shutdown::Write) {
                    conn.broken(error);
                }
            }
            State::Closing => {
                conn.arm();
                // Bytes that the system has room for now are written now. Written later, they would
                // count as the peer's progress.
                conn.write_some();
            }
            State::Lingering => {
                conn.arm();
                // A peer that is gone already is found by the next read.
                let _ = conn.fd.shut_down(Shutdown::Write);
            }
            State::Closed => {
                // A RST says that something may be missing.
                if matches!(event, Event::Aborted | Event::Idle) {
                    conn.reset_at_close();
                }
                self.close();
            }
        }
    }

    /// Acts on the error of a callback, if it returned one.
    pub(super) fn heed(&mut self, result: io::Result<()>) {
        let conn = &mut self.conn;
        let extra = conn.extra.as_mut();
        let refused = extra.is_some_and(|extra| mem::take(&mut extra.is_refused));
        let Err(error) = result else { return };
        if refused {
            return conn.end_by(CloseReason::Limit(error));
        }
        // As a close: what was written before still goes out.
        conn.close_for(CloseReason::Error(error));
    }

    // ---- the end ----

    fn close(&mut self) {
        let why = self.conn.leave();
        self.protocol.ended(why);
    }
}

impl Conn {
    /// Notes whether there is anything left to attend to, and frees `extra` if nothing in it is needed.
    /// Returns when to try again.
    fn free_extra(&mut self) -> u64 {
        let (now, grace) = (self.now(), self.settings().drain_grace);
        self.note().set(self.note().get() & !ATTEND);
        let Some(extra) = &mut self.extra else {
            return NEVER;
        };
        // `Conn::wait` holds for one offer alone. The fast path does not clear it.
        extra.waits = false;
        // Without another handle, nothing can be written to the connection from elsewhere.
        drop(extra.handle.take_if(|handle| handle.is_idle()));
        // Kept, however idle the connection is.
        let is_set = extra.handle.is_some() || extra.idle.is_some() || extra.old_at.is_some();
        // A drain has to know of this traffic.
        let sent_until = extra.sent_at.saturating_add(grace);
        let sent_lately = extra.sent_at > self.heard_at && sent_until > now;
        if extra.needs_attention() {
            self.attend();
        } else if !is_set && sent_lately {
            return sent_until;
        } else if !is_set {
            self.extra = None;
        }
        NEVER
    }

    /// Writes what waits, as far as the system takes it and the budget allows.
    fn write_some(&mut self) {
        while self.flush() && context::has_budget() {}
    }

    /// Parks in each slot that may wake the connection, unless there is something to do at once.
    fn park(&mut self) -> Step {
        debug_assert!(!self.is_asked() && self.shared.out.borrow().is_empty());
        debug_assert!(self.queued() <= self.peek(|extra| extra.charged));
        let machine = ParkKey::machine(context::running_machine());
        if self.to_send() > 0 {
            if self.fd.desc.may_try(Direction::Write) != May::Wait {
                return Step::Again;
            }
            self.fd.desc.park_waiting(Direction::Write, machine);
        }
        if self.fd.desc.may_try(Direction::Read) == May::Wait {
            self.fd.desc.park_waiting(Direction::Read, machine);
        } else if self.reads() {
            return Step::Again;
        } else {
            // The socket is ready, and is not read before the peer has taken what waits.
            debug_assert!(self.to_send() > 0, "only the timer would wake it");
        }
        Step::Parked
    }

    /// Whether input is unread, so that a close would send a RST, which may overtake what was written.
    /// Reads once, and discards the bytes.
    fn has_unread_input(&mut self) -> bool {
        let mut buffer = lent::take();
        let read = self.fd.receive(&mut buffer[..]);
        lent::give_back(buffer);
        let unread = matches!(read, Ok(1..));
        if unread {
            self.note_traffic();
        }
        unread
    }

    fn count(&self, why: &CloseReason) {
        let tally = &*self.shared.tally;
        let counter = match why {
            CloseReason::Peer => &tally.left,
            CloseReason::Asked => &tally.asked,
            CloseReason::Drained => &tally.drained,
            CloseReason::Idle(_) => &tally.idled,
            CloseReason::TooSlow(_) => &tally.slow,
            CloseReason::Limit(_) => &tally.limited,
            CloseReason::Stopped(_) => &tally.stopped,
            CloseReason::Error(_) => &tally.failed,
        };
        counter.add(1);
    }

    fn reset_at_close(&self) {
        let _refused_in_a_child = self.fd.reset_at_close();
    }

    /// Closes the socket and gives everything back. Returns why the connection ends.
    fn leave(&mut self) -> CloseReason {
        debug_assert_eq!(self.state(), State::Closed, "nothing runs on it any more");
        let aborts = self.take_asked() == Some(Event::Aborted);
        let others = self.peek(|extra| extra.handle.as_ref().map_or(0, ConnHandle::end));
        // A close that throws bytes away is a RST: the peer learns that the stream was cut. A callback
        // that panicked may have written some.
        let is_cut = !self.shared.out.borrow().is_empty() || self.queued() + others > 0;
        self.shared.out.borrow_mut().clear();
        if aborts || is_cut {
            self.reset_at_close();
        }
        self.fd.close_for_good();
        self.cancel_timer();
        self.set_timer(None);
        if !fault!("leaked_quota") {
            let charged = self.peek(|extra| extra.charged);
            self.shared.server.queued.give_back(charged + others);
        }
        let mut extra = self.extra.take().unwrap_or_default();
        // The protocol is told of the end whatever a filter's destructor does.
        if panics::drop_quietly(extra.filtering.take()).is_some() {
            log::error!("a filter's destructor panicked");
        }
        self.shared.keeps(self.fd.desc.token(), 0);
        if let Some(handle) = &extra.handle {
            self.shared.server.remotes.leave(handle);
        }
        let why = extra.why.unwrap_or(CloseReason::Asked);
        self.count(&why);
        if log::log_enabled!(log::Level::Debug) {
            let peer = self.fd.endpoint(End::Peer);
            let peer = peer.map_or("unknown peer".to_owned(), |peer| peer.to_string());
            let received = extra.received;
            let received = received.map_or(String::new(), |bytes| format!(" after {bytes} bytes"));
            // The error of a user may panic when it is shown.
            if panics::catch(|| log::debug!("{peer}: ended{received}: {why}")).is_err() {
                log::error!("{peer}: ended by an error that panics when it is shown");
            }
        }
        why
    }
}

impl<P: Protocol> Drop for Connection<P> {
    fn drop(&mut self) {
        if self.conn.state() == State::Closed {
            return;
        }
        self.conn.enter(State::Closed);
        let text = "a callback panicked, or the runtime ended";
        // Replaces the earlier reason.
        self.conn.extra().why = Some(CloseReason::Error(io::Error::other(text)));
        // A filter that panicked has lost what it was given.
        let filtering = self.conn.filtering();
        if filtering.is_some_and(|filtering| filtering.filter.is_none()) {
            self.conn.reset_at_close();
        }
        // Caught here: the protocol is dropped next. If its destructor panicked while this panic
        // unwinds, the process would be aborted.
        if panics::catch(|| self.close()).is_err() {
            log::error!("Protocol::ended panicked");
        }
    }
}
