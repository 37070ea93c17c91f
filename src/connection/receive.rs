//! What comes in: it is read and delivered to the protocol, and what the protocol has not used is kept.

// Mirrors the reader of `conn.serve` in Go's `net/http/server.go`.

use std::borrow::Cow;
use std::io::{self, ErrorKind};
use std::mem;

use super::Protocol;
use super::conn::Conn;
use super::error::{CloseReason, UNUSED, UNUSED_IN_ALL, checked};
use super::filter::{Filtering, offer, without};
use super::run::Connection;
use super::state::{Event, State};
use crate::net::fd::Failure;
use crate::reactor::Direction;
use crate::runtime::{context, lent};

impl<P: Protocol> Connection<P> {
    pub(super) fn read(&mut self) {
        let mut buffer = lent::take();
        let read = self.conn.fd.receive(&mut buffer[..]);
        self.receive(read, &buffer[..]);
        lent::give_back(buffer);
    }

    /// Handles the result of a read into the buffer.
    #[cold]
    pub(super) fn receive(&mut self, read: io::Result<usize>, buffer: &[u8]) {
        debug_assert!(self.conn.reads());
        match read {
            Ok(0) => self.end_of_file(),
            Ok(got) => {
                context::charge(got);
                self.conn.fd.note_short(Direction::Read, got, lent::LENGTH);
                self.came(&buffer[..got]);
            }
            Err(error) => {
                let fd = &self.conn.fd;
                let error = fd.after_error(Direction::Read, error);
                // If a signal came first, the socket is as ready as it was, and the next step reads.
                if !matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) {
                    self.conn.broken(fd.error("read", Failure::System(error)));
                }
            }
        }
    }

    fn came(&mut self, bytes: &[u8]) {
        let conn = &mut self.conn;
        let filters = conn.is_filtered() && conn.state() != State::Lingering;
        if !filters && !conn.state().delivers() {
            // Lingering: input is discarded, and is no sign that the peer takes anything.
            return conn.note_traffic();
        }
        conn.received(bytes.len());
        conn.moved(Direction::Read, bytes.len());
        if filters {
            conn.filter_input(bytes);
            // While it closes, what the peer takes is its sign of life.
            if conn.state() == State::Closing {
                return;
            }
        } else if conn.unused() == 0 && !conn.needs_more_than(bytes.len()) {
            self.offer(Cow::Borrowed(bytes));
        } else {
            conn.extra().unused.extend_from_slice(bytes);
        }
        if !self.conn.is_asked() && self.conn.can_offer() {
            self.offer_unused();
        }
        // After the callbacks: their time is not the peer's.
        self.conn.heard_at = self.conn.fresh_tick();
    }

    /// End of file. After it a read does not report a reset; SO_ERROR does.
    fn end_of_file(&mut self) {
        if self.conn.state() == State::Closing {
            // Nothing will release what the filter holds back.
            return self.conn.broken(ErrorKind::UnexpectedEof.into());
        }
        if self.conn.state().delivers() && !self.conn.peek(|extra| extra.is_last) {
            self.conn.call_filter(|filter, _, io| filter.end(io));
        }
        // What is kept for a protocol that needs more is offered once more before the end is told.
        // The next read finds the end of file again.
        if self.conn.state().delivers() && self.conn.has_unseen() {
            self.conn.extra().is_last = true;
            return self.offer_unused();
        }
        // The next edge can only be a reset.
        self.conn.fd.desc.drained(Direction::Read);
        if self.conn.state() != State::PeerEnded {
            if self.conn.state() != State::Lingering {
                self.conn.blame(CloseReason::Peer);
            }
            self.tell(P::end);
            return self.on(Event::PeerEnded);
        }
        if let Ok(Some(error)) = self.conn.fd.with_socket(|socket| socket.take_error()) {
            let error = self.conn.fd.error("read", Failure::System(error));
            self.conn.broken(error);
        }
    }

    pub(super) fn offer_unused(&mut self) {
        let extra = self.conn.extra();
        extra.seen = 0;
        let unused = mem::take(&mut extra.unused);
        self.offer(Cow::Owned(unused));
    }

    fn offer(&mut self, bytes: Cow<'_, [u8]>) {
        self.conn.need_no_more();
        let used = self.protocol.data(&mut self.conn, &bytes);
        self.delivered(used, bytes);
    }

    /// Called after `data` was offered all of the input. While `data` uses bytes, offers it the rest.
    /// All that it writes meanwhile goes out in one write.
    #[cold]
    pub(super) fn delivered(&mut self, mut used: io::Result<usize>, all: Cow<'_, [u8]>) {
        let mut at = 0;
        // How many bytes of what is left it has seen.
        let seen = loop {
            let taken = match used.and_then(|used| checked(used, &all[at..])) {
                Ok(taken) => taken,
                failed => break failed,
            };
            at += taken;
            let rest = all.len() - at;
            // The protocol called `need`: the rest is offered with more, or when the peer has ended.
            if self.conn.needs_more_than(rest) {
                break Ok(0);
            }
            // All is used, or nothing more, or the protocol called `wait`.
            if rest == 0 || taken == 0 || self.conn.peek(|extra| extra.waits) {
                break Ok(rest);
            }
            // It asked to close, or too much output waits, which must go first.
            if self.conn.is_asked() || self.conn.holds_input() {
                break Ok(0);
            }
            self.conn.need_no_more();
            used = self.protocol.data(&mut self.conn, &all[at..]);
        };
        self.conn.keep(all, at, *seen.as_ref().unwrap_or(&0));
        self.conn.end_callback();
        self.heed(seen.map(drop));
    }
}

impl Conn {
    /// How many bytes the protocol has not used, or its filter.
    pub(super) fn unused(&self) -> usize {
        self.peek(|extra| extra.unused.len()) + self.peek_filter(|filtering| filtering.raw.len())
    }

    /// Whether there are bytes that the protocol has not been offered.
    pub(super) fn has_unseen(&self) -> bool {
        self.peek(|extra| extra.unused.len() > extra.seen)
    }

    /// Whether there are kept bytes to offer now: some are unseen, there are as many as the protocol
    /// needs, and the peer does not have to take its answers first.
    pub(super) fn can_offer(&self) -> bool {
        let kept = self.peek(|extra| extra.unused.len());
        debug_assert!(
            self.peek(|extra| extra.seen) <= kept,
            "only what is kept was seen"
        );
        let is_wanted = self.has_unseen() && !self.needs_more_than(kept);
        is_wanted && self.state().delivers() && !self.holds_input()
    }

    /// Whether the protocol needs more than this. When the peer has ended, what is left is all that it
    /// gets.
    fn needs_more_than(&self, bytes: usize) -> bool {
        self.peek(|extra| !extra.is_last && extra.need > bytes)
    }

    fn need_no_more(&mut self) {
        if let Some(extra) = &mut self.extra {
            (extra.need, extra.waits) = (0, false);
        }
    }

    /// Input goes through the filter. Then what the filter had held back may go out.
    fn filter_input(&mut self, bytes: &[u8]) {
        self.call_filter(|filter, Filtering { raw, .. }, io| {
            raw.extend_from_slice(bytes);
            offer(raw, |bytes| filter.incoming(bytes, io))
        });
        let left = self.peek_filter(|filtering| filtering.raw.len());
        if left > self.settings().limits.most_unused {
            self.end_over_limit(UNUSED);
        }
        self.filter_output(&[]);
    }

    /// Keeps what is left of the input behind the first `used` bytes; `seen` of it was offered.
    fn keep(&mut self, input: Cow<'_, [u8]>, used: usize, seen: usize) {
        let mut unused = match input {
            Cow::Borrowed(bytes) if used == bytes.len() => return,
            Cow::Borrowed(bytes) => bytes[used..].to_vec(),
            Cow::Owned(bytes) => without(bytes, used),
        };
        debug_assert!(seen <= unused.len(), "only what is kept was seen");
        let extra = self.extra();
        // What a filter has passed on meanwhile comes behind it.
        unused.append(&mut extra.unused);
        (extra.unused, extra.seen) = (unused, seen);
        // Bytes that the protocol was not offered do not count.
        if seen > self.settings().limits.most_unused {
            self.end_over_limit(UNUSED);
        }
    }

    /// What is kept unused counts under the limit over all.
    pub(super) fn account_for_unused(&mut self) {
        if !self.shared.keeps(self.fd.desc.token(), self.unused()) {
            self.end_over_limit(UNUSED_IN_ALL);
        }
    }
}
