//! What came: read, offered to the protocol, and kept as far as that has not used it.
//!
//! May touch: net's Fd, the lent buffer. Mirrors the reader of `conn.serve` in Go's
//! `net/http/server.go`.

use std::io;

use super::passed_on;
use super::protocol::Protocol;
use super::run::Connection;
use super::state::{Event, State};
use crate::net::fd::{Failure, Fd};
use crate::reactor::Direction;
use crate::runtime::{context, lent};

impl<P: Protocol> Connection<P> {
    pub(crate) fn read(&mut self) {
        let mut buffer = lent::take();
        let read = self.conn.fd.receive(&mut buffer[..]);
        self.take(read, &buffer[..]);
        lent::give_back(buffer);
    }

    /// What came of a read.
    #[cold]
    #[inline(never)]
    pub(crate) fn take(&mut self, read: io::Result<usize>, buffer: &[u8]) {
        if matches!(&read, Err(error) if error.kind() == io::ErrorKind::Interrupted) {
            return;
        }
        let mut read = Some(read);
        let attempt = |_: &Fd| read.take().unwrap_or(Ok(0));
        match self.conn.fd.try_once(Direction::Read, attempt) {
            Ok(0) => self.ended(),
            Ok(got) => {
                context::charge(got);
                self.came(got);
                if self.conn.state().on(Event::Bytes).is_none() {
                    // After its end of file: no system does that.
                } else if let Some(mut unused) = self.conn.take_unused(got) {
                    unused.extend_from_slice(&buffer[..got]);
                    self.offer(unused);
                } else {
                    self.deliver(&buffer[..got]);
                }
            }
            Err(Failure::System(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(Failure::Refused(_)) => {}
            Err(failure) => {
                let error = self.conn.fd.error("read", failure, 0);
                self.on(Event::Reset, Some(error));
            }
        }
    }

    /// What came is all there is to offer: as the straight way does, with what that leaves out.
    fn deliver(&mut self, came: &[u8]) {
        // What waits already counts against the limit: there, `write` asks for room.
        if self.conn.standing().may_write() && self.conn.queued() == 0 {
            passed_on::offer(came);
        }
        let used = self.protocol.data(&mut self.conn, came);
        let all = matches!(used, Ok(used) if used == came.len());
        if !all || self.conn.is_concerned() || !self.conn.send_at_once(came) {
            self.used_otherwise(used, came);
        }
    }

    /// End of file, or once more: after that a read never tells of a reset, and the system must be
    /// asked.
    fn ended(&mut self) {
        self.conn.fd.forget_readiness();
        if self.conn.state() != State::PeerEnded {
            return self.on(Event::PeerEnded, None);
        }
        if let Ok(Some(error)) = self.conn.fd.with_socket(|socket| socket.take_error()) {
            let error = self.conn.fd.error("read", Failure::System(error), 0);
            self.on(Event::Reset, Some(error));
        }
    }

    /// Offers bytes that were kept.
    pub(crate) fn offer(&mut self, bytes: Vec<u8>) {
        match self.protocol.data(&mut self.conn, &bytes) {
            Ok(0) => {
                // Part of a long frame: nothing to copy.
                self.conn.send_gathered();
                self.keep(bytes, false);
            }
            used => self.go_on_offering(used, &bytes),
        }
    }

    /// The protocol used some: as long as it does, it is offered the rest. All that it writes
    /// meanwhile goes out in one write.
    #[cold]
    #[inline(never)]
    pub(crate) fn go_on_offering(&mut self, mut used: io::Result<usize>, bytes: &[u8]) {
        let mut rest = bytes;
        let fresh = loop {
            match used {
                Ok(used) if used <= rest.len() => {
                    rest = &rest[used..];
                    if rest.is_empty() || used == 0 {
                        break false;
                    }
                }
                Ok(used) => {
                    let text = format!("{used} bytes used of {}", rest.len());
                    return self.failed(io::Error::new(io::ErrorKind::InvalidInput, text));
                }
                Err(error) => return self.failed(error),
            }
            if self.conn.standing().is_asked() || self.conn.is_full() {
                break true;
            }
            used = self.protocol.data(&mut self.conn, rest);
        };
        self.conn.send_gathered();
        if !rest.is_empty() {
            self.keep(rest.to_vec(), fresh);
        }
    }

    /// What is `fresh` was not offered yet: it is not for the protocol to answer for.
    fn keep(&mut self, unused: Vec<u8>, fresh: bool) {
        let most = self.conn.worker.limits.most_unused;
        if unused.len() > most && !fresh {
            let text = format!("{} bytes are unused, and {most} may be", unused.len());
            let error = io::Error::new(io::ErrorKind::QuotaExceeded, text);
            return self.on(Event::Reset, Some(error));
        }
        let extra = self.conn.extra.get_or_insert_default();
        extra.unused = unused;
        extra.fresh = fresh;
    }
}
