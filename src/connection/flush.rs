//! How what is written goes out: one write at the end of a callback, the rest when the peer takes
//! it.
//!
//! May touch: net's Fd. Mirrors the tail of `FD.Write` in Go's `internal/poll/fd_unix.go`.

use std::io;
use std::mem;

use super::conn::Conn;
use super::passed_on;
use super::standing::Asked;
use super::stats::add;
use crate::net::fd::Failure;
use crate::reactor::Direction;
use crate::runtime::context;
use crate::sys;

impl Conn {
    /// It can't be sent from where it lies.
    #[cold]
    #[inline(never)]
    pub(crate) fn gather_passed_on(&mut self, passed_on: &[u8]) {
        let mut out = self.worker.out.borrow_mut();
        out.splice(0..0, passed_on.iter().copied());
        passed_on::set_gathered(!out.is_empty());
    }

    /// Sends what was gathered, as far as the system takes it, and queues the rest.
    #[inline(never)]
    pub(crate) fn send_gathered(&mut self) {
        let waits = self.queued() > 0;
        let out = self.worker.out.borrow();
        if out.is_empty() {
            return;
        }
        let sent = match waits {
            true => Ok(0),
            false => self.fd.try_send(&out),
        };
        drop(out);
        self.send_rest(sent);
    }

    /// Queues what was not sent.
    #[cold]
    #[inline(never)]
    pub(crate) fn send_rest(&mut self, sent: Result<usize, Failure>) {
        match sent {
            Ok(gone) => {
                add(&self.worker.tally.sent, gone as u64);
                let mut out = self.worker.out.borrow_mut();
                if gone == out.len() {
                    return self.worker.clear(&mut out);
                }
                out.drain(..gone);
            }
            Err(failure) => self.note(failure),
        }
        let rest = self.worker.out.borrow().len();
        match self.worker.check_room_in_all(self.queued(), rest) {
            Ok(()) => self.gathered_to_queue(),
            Err(full) => self.drop_gathered(full),
        }
    }

    /// There is no room for it, and who wrote it can't be refused any more: the peer is dropped.
    fn drop_gathered(&mut self, full: io::Error) {
        self.worker.clear(&mut self.worker.out.borrow_mut());
        let kept = &mut self.extra.get_or_insert_default().why;
        kept.get_or_insert(full);
        self.ask(Asked::Abort);
    }

    /// The system tells of an error once; the next write fails with less of one.
    fn note(&mut self, failure: Failure) {
        let Failure::System(error) = failure else {
            return;
        };
        if error.kind() != io::ErrorKind::WouldBlock {
            let error = self.fd.error("write", Failure::System(error), 0);
            let kept = &mut self.extra.get_or_insert_default().why;
            kept.get_or_insert(error);
        }
    }

    /// A callback writes more than is gathered: what the system takes now need not be kept.
    pub(crate) fn write_early(&mut self) {
        // What goes wrong here goes wrong once more when the callback is done.
        let _ = self.flush();
    }

    /// Writes what waits, as far as the system takes it. Whether all is gone.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        self.flush_while(|| true)
    }

    /// The same, as far as the budget goes.
    pub(crate) fn flush_within_budget(&mut self) -> io::Result<bool> {
        self.flush_while(context::has_budget)
    }

    #[cold]
    #[inline(never)]
    fn flush_while(&mut self, may_go_on: fn() -> bool) -> io::Result<bool> {
        loop {
            let Some(extra) = self.extra.as_mut().filter(|extra| !extra.queue.is_empty()) else {
                return Ok(true);
            };
            if !may_go_on() {
                return Ok(false);
            }
            let slices = extra.queue.slices();
            let asked: usize = slices.iter().map(|slice| slice.len()).sum();
            let sent = self.fd.try_once(Direction::Write, |fd| {
                let sent = sys::send_vectored(&fd.sock_ref(), &slices)?;
                fd.transferred(Direction::Write, sent, asked);
                Ok(sent)
            });
            drop(slices);
            match sent {
                Ok(gone) => {
                    extra.queue.advance(gone);
                    extra.moved(Direction::Write, gone);
                    self.worker.queued_less(gone);
                    add(&self.worker.tally.sent, gone as u64);
                    self.moved_out();
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

    /// Takes in what handles have left. An error is why the connection must end.
    pub(crate) fn open_mail(&mut self) -> Option<io::Error> {
        let mail = self.extra.as_ref()?.mailbox.as_ref()?.collect()?;
        if mail.overflowed {
            let text = "the peer does not take what it is sent";
            return Some(io::Error::new(io::ErrorKind::QuotaExceeded, text));
        }
        // What was asked for meanwhile comes after it: a callback may write by its own handle, and
        // then close.
        if self.asked() < Asked::Abort && self.state().takes_writes() {
            mail.pieces
                .into_iter()
                .for_each(|piece| self.enqueue(piece));
        }
        self.worker.room_unused();
        self.ask(mail.asked);
        None
    }

    /// Whether the queue has fallen below the low mark, after it had been above the high one.
    pub(crate) fn low_again(&mut self) -> bool {
        let low = self.worker.limits.low_water;
        let Some(extra) = self.extra.as_mut() else {
            return false;
        };
        let is_low = extra.is_full && extra.queue.len() <= low;
        extra.is_full &= !is_low;
        is_low
    }

    /// What was kept, offered or not, now that so many bytes have come.
    pub(crate) fn take_unused(&mut self, came: usize) -> Option<Vec<u8>> {
        let extra = self.extra.as_mut()?;
        extra.moved(Direction::Read, came);
        extra.fresh = false;
        (!extra.unused.is_empty()).then(|| mem::take(&mut extra.unused))
    }

    /// An idle connection keeps nothing.
    pub(crate) fn let_go(&mut self) {
        let Some(extra) = &self.extra else { return };
        let needed = !extra.queue.is_empty()
            || !extra.unused.is_empty()
            || extra.why.is_some()
            || extra.mailbox.is_some();
        if !needed {
            self.extra = None;
        }
    }

    /// Tells its handles how much waits, and whether they may write.
    pub(crate) fn note_queue(&self) {
        if let Some(extra) = &self.extra
            && let Some(mailbox) = &extra.mailbox
        {
            mailbox.note(extra.queue.len(), self.state().takes_writes());
        }
    }

    /// The peer took something. Where nothing is read from it, that is its sign of life.
    fn moved_out(&self) {
        let idle = self.worker.intervals.idle();
        if idle > 0 && !self.worker.is_draining() && (!self.state().reads() || self.is_full()) {
            self.fd.set_deadline_after(Direction::Read, idle);
        }
    }
}
