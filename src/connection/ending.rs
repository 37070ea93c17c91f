//! How a connection ends: closed in good order, broken, or dropped with its machine.
//!
//! May touch: net's Fd. Mirrors the deferred part of `conn.serve`, and `conn.close`, in Go's
//! `net/http/server.go`.
//!
//! Whichever way it ends, the socket goes first, what others have of it is closed, and `closed` is
//! the protocol's last call.

use std::io;

use super::conn::Conn;
use super::protocol::Protocol;
use super::run::Connection;
use super::standing::Asked;
use super::state::{Event, State};
use super::stats::add;
use crate::net::{Cause, NetError};

impl<P: Protocol> Connection<P> {
    /// The protocol, or a system call, failed: what was written has one more try.
    pub(crate) fn failed(&mut self, error: io::Error) {
        if self.conn.asked() == Asked::Abort {
            self.on(Event::AbortAsked, Some(error));
        } else if self.conn.state() != State::Closed {
            self.conn.send_gathered();
            let _ = self.conn.open_mail();
            let _ = self.conn.flush();
            self.on(Event::Reset, Some(error));
        }
    }

    pub(crate) fn close(&mut self, with_reset: bool) {
        let why = self.conn.leave(with_reset);
        if why.as_ref().is_some_and(|error| !error.is_timeout()) {
            add(&self.conn.worker.tally.failed, 1);
        }
        log::debug!("{:?} is closed: {why:?}", self.conn);
        self.protocol.closed(why.map_or(Ok(()), Err));
    }
}

impl Conn {
    /// Leaves everything. Why it closes, if something is to blame.
    fn leave(&mut self, with_reset: bool) -> Option<io::Error> {
        self.fd.close_for_good(with_reset);
        self.worker.forget_callback();
        let extra = self.extra.take()?;
        self.worker.queued_less(extra.queue.len());
        extra.mailbox.inspect(|mailbox| mailbox.close());
        extra.why
    }

    /// What it broke by, when the descriptor says so.
    pub(crate) fn broken(&mut self) -> io::Error {
        let kept = self.extra.as_mut().and_then(|extra| extra.why.take());
        kept.unwrap_or_else(|| self.fd.op_error("read", Cause::Closed))
    }
}

impl<P: Protocol> Drop for Connection<P> {
    fn drop(&mut self) {
        if self.conn.state() == State::Closed {
            return;
        }
        // A callback panicked, or the runtime goes.
        self.conn.enter(State::Closed);
        let error = io::Error::other("a callback panicked, or the runtime ended");
        self.conn.leave(false);
        add(&self.conn.worker.tally.failed, 1);
        self.protocol.closed(Err(error));
    }
}
