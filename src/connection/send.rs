//! What goes out. A callback's reply goes out in one write. What the peer does not take at once is queued.
//!
//! Bytes of a callback that are not sent at once are queued by [`Conn::put`].

// Mirrors the tail of `FD.Write` in Go's `internal/poll/fd_unix.go`.

use std::io::{self, ErrorKind};
use std::mem;

use super::conn::{Conn, Extra};
use super::error::{CloseReason, Limit, QUEUED, QUEUED_IN_ALL, direction_ended, over_limit};
use super::filter::{Filter, FilterIo, Filtering, offer, with_framing};
use super::handle::ConnHandle;
use super::out_queue::OutQueue;
use super::shared::GATHER;
use super::state::{ABORT, CLOSE, State};
use crate::net::fd::{Failure, Fd};
use crate::net::with_written;
use crate::reactor::Direction;
use crate::runtime::lent;

impl Conn {
    // ---- a callback writes ----

    #[cold]
    pub(super) fn write_slow(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.check_write(bytes.len())?;
        let mut out = self.shared.out.borrow_mut();
        if out.len() + bytes.len() <= self.shared.gathers {
            out.extend_from_slice(bytes);
            return Ok(());
        }
        drop(out);
        self.write_queued(bytes, |queue| queue.push(bytes))
    }

    /// Whether `more` bytes may be written, behind all that was written before.
    pub(super) fn check_write(&mut self, more: usize) -> io::Result<()> {
        self.take_others_writes();
        if !self.may_write() {
            return Err(direction_ended());
        }
        let waiting = self.queued() + self.shared.out.borrow().len();
        if waiting.saturating_add(more) <= self.settings().limits.most_queued {
            return Ok(());
        }
        Err(self.refuse(QUEUED))
    }

    /// Writes behind what was gathered, as far as the limit over all leaves room.
    pub(super) fn write_queued(
        &mut self,
        bytes: &[u8],
        push: impl FnOnce(&mut OutQueue),
    ) -> io::Result<()> {
        debug_assert!(self.may_write(), "`check_write` was asked");
        self.put_gathered();
        let charge = |conn: &Conn| conn.shared.server.queued.charge(bytes.len());
        // A small amount is queued until the callback ends, so that it goes out in few writes. Before a
        // larger amount, or without room over all, the queue is flushed.
        let little = GATHER.min(self.settings().limits.high_water);
        let mut is_charged = self.queued() + bytes.len() <= little && charge(self);
        if !is_charged {
            while self.flush() {}
            is_charged = charge(self);
        }
        if is_charged {
            self.extra().charged += bytes.len();
            self.put(bytes, push);
            return Ok(());
        }
        // Without room, the peer has to take the bytes at once. If it takes none, the write is refused.
        // If it takes a part, the rest is lost, and the connection ends. What a filter has used counts as
        // taken.
        let taken = match (self.queued(), self.is_filtered()) {
            (0, false) => self.went(self.fd.try_once(Direction::Write, |fd| fd.write(bytes)), 0),
            (0, true) => {
                self.put(bytes, push);
                while self.flush() {}
                let held = self
                    .filtering()
                    .map(|filtering| mem::take(&mut filtering.held));
                self.note_queued();
                bytes.len() - held.map_or(0, |held| held.len())
            }
            _ => 0,
        };
        if taken == bytes.len() && self.queued() == 0 {
            return Ok(());
        }
        if taken > 0 {
            self.end_over_limit(QUEUED_IN_ALL);
        }
        Err(self.refuse(QUEUED_IN_ALL))
    }

    /// Writes the server's heartbeat. If a limit refuses it, it is left out: bytes wait already, for this
    /// peer or for others, and the connection goes on.
    pub(super) fn beat_by(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.write(bytes);
        let extra = self.extra.as_mut();
        match extra.is_some_and(|extra| mem::take(&mut extra.is_refused)) {
            true => Ok(()),
            false => written,
        }
    }

    /// The error of a refused write. If the callback then fails, the reason is `Limit`.
    fn refuse(&mut self, limit: Limit) -> io::Error {
        self.extra().is_refused = true;
        self.fd.op_error(limit.0, over_limit(limit))
    }

    // ---- the callback's end ----

    /// Sends what the callback wrote: nothing waits before it. False if not all has gone.
    pub(super) fn send_reply(&mut self) -> bool {
        let mut out = self.shared.out.borrow_mut();
        if out.is_empty() {
            return true;
        }
        match self.fd.send(&out) {
            Ok(gone) if gone == out.len() => {
                self.shared.tally.sent.add(gone as u64);
                out.clear();
                true
            }
            sent => {
                drop(out);
                self.send_rest(sent);
                false
            }
        }
    }

    /// Sends what the callback wrote, or queues it behind what waits; then takes in what handles and other
    /// threads have put there.
    pub(super) fn end_callback(&mut self) {
        if self.queued() > 0 || self.is_filtered() {
            self.put_gathered();
        } else {
            self.send_reply();
        }
        self.take_others_writes();
    }

    /// Queues what the system did not take of a reply at the first try.
    #[cold]
    fn send_rest(&mut self, sent: io::Result<usize>) {
        debug_assert!(self.queued() == 0 && !self.is_filtered());
        let asked = self.shared.out.borrow().len();
        if let Ok(gone) = sent {
            self.fd.note_short(Direction::Write, gone, asked);
        }
        let after = |error| Failure::System(self.fd.after_error(Direction::Write, error));
        let sent = sent.map_err(after);
        let gone = self.went(sent, 0);
        let mut out = self.shared.out.borrow_mut();
        out.drain(..gone);
        if fault!("forgotten_partial_write") {
            out.clear();
        }
        drop(out);
        self.put_gathered();
    }

    /// Notes the result of a write, before which `before` bytes had gone. Returns how many have gone now.
    fn went(&mut self, sent: Result<usize, Failure>, before: usize) -> usize {
        match sent {
            Ok(gone) => {
                self.shared.tally.sent.add(gone as u64);
                self.sent(gone);
                return gone;
            }
            Err(Failure::System(error))
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(failure) => self.broken(with_written(self.fd.error("write", failure), before)),
        }
        0
    }

    /// Moves what was gathered into the queue. Where there is a limit over all, nothing is gathered.
    fn put_gathered(&mut self) {
        let mut out = self.shared.out.take();
        if !out.is_empty() {
            debug_assert!(!self.shared.server.queued.is_limited());
            self.put(&out, |queue| queue.push(&out));
            out.clear();
            out.shrink_to(GATHER);
        }
        self.shared.out.replace(out);
    }

    // ---- the queue ----

    /// Queues bytes that are not sent at once, by `push`; a filter gets them in place of the queue.
    fn put(&mut self, bytes: &[u8], push: impl FnOnce(&mut OutQueue)) {
        if self.is_filtered() {
            return self.filter_output(bytes);
        }
        push(&mut self.extra().queue);
        self.note_queued();
    }

    /// What waits has changed: it is charged to the limit over all, reading may have to stop, and handles
    /// and other threads are told.
    fn note_queued(&mut self) {
        let high = self.settings().limits.high_water;
        let queued = self.queued();
        let Some(extra) = &mut self.extra else { return };
        let held = queued - extra.queue.len() + extra.queue.held();
        let charged = mem::replace(&mut extra.charged, held);
        self.shared.server.queued.recharge(charged, held);
        extra.is_full |= extra.queue.len() > high;
        if let Some(mut inbox) = extra.inbox() {
            inbox.queued = queued;
        }
    }

    /// Writes once from the queue. Returns whether more is left that the system may take.
    #[cold]
    pub(super) fn flush(&mut self) -> bool {
        let Some(extra) = self.extra.as_ref().filter(|extra| !extra.queue.is_empty()) else {
            return false;
        };
        let slices = extra.queue.slices();
        let attempt = |fd: &Fd| fd.write_vectored(&slices);
        let sent = self.fd.try_once(Direction::Write, attempt);
        let before = extra.queue.written();
        let gone = self.went(sent, before);
        self.extra().queue.advance(gone);
        self.note_queued();
        gone > 0 && self.to_send() > 0
    }

    /// Takes in what handles and other threads have put there, behind what was written before.
    pub(super) fn take_others_writes(&mut self) {
        if !self.peek(Extra::has_others_writes) {
            return;
        }
        self.put_gathered();
        let take = |extra: &Extra| extra.handle.as_ref().map(ConnHandle::take);
        let Some((queue, put)) = self.peek(take) else {
            return;
        };
        self.extra().charged += put.bytes;
        if put.was_busy && !self.state().closes() {
            self.heard();
        }
        if put.is_over {
            self.end_over_limit(QUEUED);
        } else if put.bytes > 0 && self.state().takes_writes() {
            match self.is_filtered() {
                true => self.filter_output(&queue.concat()),
                false => self.extra().queue.append(queue),
            }
            self.note_traffic();
        }
        self.note_queued();
    }

    /// Whether `writable` is owed and can be called now.
    pub(super) fn take_writable(&mut self) -> bool {
        let low = self.settings().limits.low_water;
        let is_low = self.peek(|extra| extra.is_full && extra.queue.len() <= low);
        if is_low {
            self.extra().is_full = false;
        }
        is_low && self.state().takes_writes()
    }

    // ---- the filter ----

    /// Passes output through the filter.
    pub(super) fn filter_output(&mut self, bytes: &[u8]) {
        self.call_filter(|filter, Filtering { held, .. }, io| {
            held.extend_from_slice(bytes);
            offer(held, |bytes| filter.outgoing(bytes, io))
        });
        if self.queued() > with_framing(self.settings().limits.most_queued) {
            self.end_over_limit(QUEUED);
        }
    }

    /// Calls the filter, if there is one that has not failed, and passes on what comes of it.
    pub(super) fn call_filter(
        &mut self,
        call: impl FnOnce(&mut dyn Filter, &mut Filtering, &mut FilterIo) -> io::Result<()>,
    ) {
        let limits = self.settings().limits;
        let (kept, queued) = (self.peek(|extra| extra.unused.len()), self.to_send());
        // Room for at least what one read brings.
        let room = |most: usize, held| most.saturating_sub(held).max(lent::LENGTH);
        let unused = room(limits.most_unused, kept);
        let output = room(with_framing(limits.most_queued), queued);
        let mut io = FilterIo {
            to_protocol: Vec::new(),
            to_peer: Vec::new(),
            room: [unused, output],
            over: None,
            closes: false,
        };
        let Some(filtering) = self.filtering() else {
            return;
        };
        let Some(mut filter) = filtering.filter.take() else {
            return;
        };
        let called = call(&mut *filter, filtering, &mut io);
        match called {
            Ok(()) => filtering.filter = Some(filter),
            Err(_) => (filtering.raw, filtering.held) = (Vec::new(), Vec::new()),
        }
        if let Some(limit) = io.over {
            return self.end_over_limit(limit);
        }
        // Once the connection closes, or the peer has ended, nothing is offered.
        if self.state() == State::Opening || self.state().delivers() {
            self.extra().unused.extend_from_slice(&io.to_protocol);
        }
        // Once our direction has ended, nothing goes out.
        if self.state() != State::Finished {
            self.extra().queue.push(&io.to_peer);
        }
        self.note_queued();
        if io.closes && self.can_offer() {
            self.extra().closes = true;
        } else if io.closes {
            self.close_for(CloseReason::Asked);
        }
        if let Err(error) = called {
            self.close_for(CloseReason::Error(error));
        }
    }

    /// Whether the filter closed the connection, and it is still to be done.
    pub(super) fn filter_closes(&mut self) -> bool {
        let extra = self.extra.as_mut();
        extra.is_some_and(|extra| mem::take(&mut extra.closes))
    }

    // ---- why it ends ----

    /// The connection closes once all is written.
    pub(super) fn close_for(&mut self, why: CloseReason) {
        self.blame(why);
        self.ask(CLOSE);
    }

    /// The connection ends with a RST, whatever is left.
    pub(super) fn end_by(&mut self, why: CloseReason) {
        self.blame(why);
        self.ask(ABORT);
    }

    /// The connection ends, since more would be kept than a limit allows.
    pub(super) fn end_over_limit(&mut self, limit: Limit) {
        let error = self.fd.op_error(limit.0, over_limit(limit));
        self.end_by(CloseReason::Limit(error));
    }

    /// The connection ends, since the peer reset it or a system call failed.
    pub(super) fn broken(&mut self, error: io::Error) {
        // A connection that lingers has a reason already, and has sent everything.
        match self.state() {
            State::Lingering => self.ask(ABORT),
            _ => self.end_by(CloseReason::Error(error)),
        }
    }
}
