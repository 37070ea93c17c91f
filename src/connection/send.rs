//! What goes out: a callback's reply in one write, and what the peer does not take at once from a
//! queue.
//!
//! Each byte that is written passes [`Conn::put`], from callbacks and from handles.

// Mirrors the tail of `FD.Write` in Go's `internal/poll/fd_unix.go`.

use std::io;
use std::rc::Rc;

use super::conn::{Conn, Extra};
use super::error::{CloseReason, direction_ended, over_limit};
use super::handle::Requests;
use super::out_queue::{OutQueue, SMALL};
use super::remote::lock;
use super::shared::GATHER;
use super::state::{Asked, State};
use crate::net::fd::Failure;
use crate::reactor::Direction;
use crate::runtime::context;

/// What is put into the queue.
enum Piece<'a> {
    Own(&'a [u8]),
    Shared(&'a Rc<[u8]>),
    /// What handles have left.
    Mail(OutQueue),
}

/// Whether flushing stops when the machine's budget is used up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Budget {
    Keep,
    Ignore,
}

impl Conn {
    // ---- a callback writes ----

    #[cold]
    #[inline(never)]
    pub(super) fn write_slow(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.check_write(bytes.len())?;
        let gathers = self.shared.out.borrow().len() + bytes.len() <= GATHER;
        if !gathers {
            // Before anything is charged: a filter may panic.
            self.put_gathered();
        }
        if !self.shared.quotas.queued.charge(bytes.len()) {
            return self.write_without_room(bytes);
        }
        // What is charged is given back behind the fast path.
        self.attend();
        if gathers {
            self.shared.out.borrow_mut().extend_from_slice(bytes);
            return Ok(());
        }
        self.put(Piece::Own(bytes));
        // Before the queue grows: the system may take it at once.
        self.flush_early();
        Ok(())
    }

    pub(super) fn write_shared_slow(&mut self, bytes: &Rc<[u8]>) -> io::Result<()> {
        if bytes.len() < SMALL {
            return self.write(bytes);
        }
        self.check_write(bytes.len())?;
        // Before anything is charged: a filter may panic.
        self.put_gathered();
        if !self.shared.quotas.queued.charge(bytes.len()) {
            return self.write_without_room(bytes);
        }
        self.put(Piece::Shared(bytes));
        Ok(())
    }

    /// Whether so many bytes may be written, behind all that was written before.
    fn check_write(&mut self, more: usize) -> io::Result<()> {
        let mailed = self.open_mail(Requests::OfHandles);
        self.ask(mailed);
        if !self.status().may_write() {
            return Err(direction_ended());
        }
        let waiting = self.queued() + self.shared.out.borrow().len();
        let most = self.shared.settings.limits.most_queued;
        if waiting.saturating_add(more) <= most {
            return Ok(());
        }
        Err(self.refuse("most_queued", most, waiting, more))
    }

    /// The limit over all leaves no room: the peer has to take the bytes at once. If it takes none,
    /// the write is refused. If it takes a part, the rest is lost, and the connection ends.
    #[cold]
    fn write_without_room(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.put_gathered();
        self.flush_early();
        let mut gone = 0;
        while self.queued() == 0 && gone < bytes.len() && !self.is_filtered() {
            match self.fd.try_send(&bytes[gone..]) {
                Ok(more) => {
                    gone += more;
                    self.sent_now(more);
                }
                Err(_) => break,
            }
        }
        if gone == bytes.len() {
            return Ok(());
        }
        let quota = &self.shared.quotas.queued;
        let (most, used) = (quota.limit(), quota.used());
        let left = bytes.len() - gone;
        let error = self.refuse("most_queued_in_all", most, used, left);
        if gone > 0 {
            self.end_over_limit("write", "most_queued_in_all", most, used, left);
        }
        Err(error)
    }

    /// The error for a write that is refused. It is noted in case the callback fails by it.
    fn refuse(&mut self, limit: &str, most: usize, kept: usize, more: usize) -> io::Error {
        let [refused, error] = [(); 2].map(|()| {
            let cause = over_limit(limit, most, kept, more);
            self.fd.op_error("write", cause)
        });
        self.extra().refused = Some(refused);
        error
    }

    /// The connection ends because more would be kept than a limit allows.
    pub(super) fn end_over_limit(
        &mut self,
        op: &'static str,
        limit: &str,
        most: usize,
        kept: usize,
        more: usize,
    ) {
        let error = self.fd.op_error(op, over_limit(limit, most, kept, more));
        self.blame(CloseReason::Limit(error));
        self.ask(Asked::Abort);
    }

    // ---- the callback's end ----

    /// Sends what the callback wrote: nothing waits before it. False if not all has gone.
    #[inline]
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

    /// The same, behind what waits already; then come the mail and the requests of handles.
    pub(super) fn end_callback(&mut self) {
        let gathered = self.shared.out.borrow().len();
        if self.queued() > 0 || self.is_filtered() {
            self.put_gathered();
        } else if self.send_reply() {
            self.shared.quotas.queued.give_back(gathered);
        }
        let mailed = self.open_mail(Requests::All);
        self.ask(mailed);
    }

    /// Queues what the system did not take of a reply at the first try.
    #[cold]
    #[inline(never)]
    fn send_rest(&mut self, sent: io::Result<usize>) {
        let sent = self.fd.try_send_after(&self.shared.out.borrow(), sent);
        match sent {
            Ok(gone) => {
                let mut out = self.shared.out.borrow_mut();
                out.drain(..gone);
                if fault!("forgotten_partial_write") {
                    out.clear();
                }
                drop(out);
                self.shared.quotas.queued.give_back(gone);
                self.sent_now(gone);
            }
            Err(Failure::System(error)) if error.kind() != io::ErrorKind::WouldBlock => {
                self.note_failure(self.fd.error("write", Failure::System(error), 0));
            }
            Err(_) => {}
        }
        self.put_gathered();
    }

    /// Writes what waits, in the midst of a callback.
    fn flush_early(&mut self) {
        if let Err(error) = self.flush(Budget::Ignore) {
            self.note_failure(error);
        }
    }

    /// A write failed. The next one will end the connection: the system reports a reset once, and a
    /// broken pipe from then on.
    fn note_failure(&mut self, error: io::Error) {
        self.blame(CloseReason::Error(error));
    }

    fn sent_now(&mut self, bytes: usize) {
        self.shared.tally.sent.add(bytes as u64);
        self.sent(bytes);
    }

    /// Moves what was gathered into the queue, where it stays charged.
    fn put_gathered(&mut self) {
        let mut out = self.shared.out.take();
        if !out.is_empty() {
            self.put(Piece::Own(&out));
            out.clear();
            out.shrink_to(GATHER);
        }
        self.shared.out.replace(out);
    }

    /// The callback did not come to its end: nothing of it is sent.
    pub(super) fn forget_reply(&mut self) {
        if let Ok(mut out) = self.shared.out.try_borrow_mut() {
            self.shared.quotas.queued.give_back(out.len());
            out.clear();
        }
    }

    // ---- the queue ----

    /// The one point that all bytes pass which are not sent at once. They are charged already.
    fn put(&mut self, piece: Piece<'_>) {
        if self.is_filtered() {
            return match piece {
                Piece::Own(bytes) => self.filter_output(bytes),
                Piece::Shared(bytes) => self.filter_output(bytes),
                // At once: a panic would lose what is charged for the rest.
                Piece::Mail(queue) => {
                    self.filter_output(&queue.pieces().collect::<Vec<_>>().concat());
                }
            };
        }
        let queue = &mut self.extra().queue;
        match piece {
            Piece::Own(bytes) => queue.push(bytes),
            Piece::Shared(bytes) => queue.push_shared(bytes),
            Piece::Mail(mail) => queue.append(mail),
        }
        self.note_grown();
    }

    /// Queues what a filter passes on to the peer.
    pub(super) fn put_filtered(&mut self, bytes: &[u8]) {
        // Behind the end of our direction nothing goes out.
        if self.state() == State::Finished {
            return;
        }
        self.shared.quotas.queued.charge_beyond(bytes.len());
        self.extra().queue.push(bytes);
        self.note_grown();
    }

    /// The queue may have grown above the high mark.
    fn note_grown(&mut self) {
        let high = self.shared.settings.limits.high_water;
        let extra = self.extra();
        extra.is_full |= extra.queue.len() > high;
        self.note_queued();
    }

    /// Tells handles and other threads how much waits.
    pub(super) fn note_queued(&self) {
        let queued = self.queued();
        self.peek(|extra| {
            let (mailbox, remote) = (&extra.mailbox, &extra.remote);
            mailbox
                .iter()
                .for_each(|mailbox| mailbox.inbox.borrow_mut().queued = queued);
            remote
                .iter()
                .for_each(|remote| lock(&remote.inbox).queued = queued);
        });
    }

    /// Writes what waits, as far as the system takes it. Returns whether all is gone.
    #[cold]
    #[inline(never)]
    pub(super) fn flush(&mut self, budget: Budget) -> io::Result<bool> {
        loop {
            let Some(extra) = self.extra.as_mut().filter(|extra| !extra.queue.is_empty()) else {
                return Ok(true);
            };
            if budget == Budget::Keep && !context::has_budget() {
                return Ok(false);
            }
            let slices = extra.queue.slices();
            let asked: usize = slices.iter().map(|slice| slice.len()).sum();
            let sent = self.fd.try_once(Direction::Write, |fd| {
                let sent = fd.write_vectored(&slices)?;
                fd.note_short(Direction::Write, sent, asked);
                Ok(sent)
            });
            drop(slices);
            match sent {
                Ok(gone) => {
                    extra.queue.advance(gone);
                    self.shared.quotas.queued.give_back(gone);
                    self.note_queued();
                    self.sent_now(gone);
                }
                Err(Failure::System(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(false);
                }
                Err(failure) => {
                    let written = extra.queue.written();
                    return Err(self.fd.error("write", failure, written));
                }
            }
        }
    }

    /// Takes in what handles and other threads have left, behind what was written before. Returns
    /// what they ask for.
    pub(super) fn open_mail(&mut self, requests: Requests) -> Asked {
        if !self.peek(Extra::has_mail) {
            return Asked::Nothing;
        }
        // Before the mail is taken: a filter may panic, and what is left there is given back.
        self.put_gathered();
        let own = |extra: &Extra| {
            let mailbox = extra.mailbox.as_ref();
            mailbox.map(|mailbox| mailbox.inbox.borrow_mut().take(Requests::All))
        };
        let sent = |extra: &Extra| {
            let remote = extra.remote.as_ref();
            remote.map(|remote| lock(&remote.inbox).take(requests))
        };
        let own = self.peek(own).unwrap_or_default();
        let sent = self.peek(sent).unwrap_or_default();
        let mut queue = own.queue;
        sent.queue
            .into_iter()
            .for_each(|bytes| queue.push_sent(bytes));
        if let Some(error) = own.over.or(sent.over) {
            self.shared.quotas.queued.give_back(queue.len());
            self.blame(CloseReason::Limit(error));
            return Asked::Abort;
        }
        // What the connection itself was asked for meanwhile comes after the mail: a callback may
        // write by its own handle and then close.
        if !queue.is_empty() && self.state().takes_writes() {
            self.put(Piece::Mail(queue));
            self.sent(0);
        } else {
            self.shared.quotas.queued.give_back(queue.len());
        }
        own.asked.max(sent.asked)
    }

    /// Our direction ends: other threads leave nothing more, and what they left until now goes out.
    pub(super) fn end_mail(&mut self) {
        self.peek(|extra| {
            extra
                .remote
                .iter()
                .for_each(|remote| lock(&remote.inbox).end())
        });
        let mailed = self.open_mail(Requests::All);
        self.ask(mailed);
    }

    /// Whether `writable` is owed and can be called now.
    pub(super) fn take_writable(&mut self) -> bool {
        let low = self.shared.settings.limits.low_water;
        let Some(extra) = self.extra.as_mut() else {
            return false;
        };
        let is_low = extra.is_full && extra.queue.len() <= low;
        extra.is_full &= !is_low;
        is_low && self.state().takes_writes()
    }
}
