//! The way of a busy connection, written straight: woken, read, deliver, write, park.
//!
//! May touch: the scheduler's machines, net's Fd. Mirrors the loop of `conn.serve` in Go's
//! `net/http/server.go`. Whatever is not as it mostly is leaves it, once and for all, for the round
//! in `run.rs`; that is why each such call here is the last.
//!
//! ```text
//!   run ──► read ──► data ──► send ──► park
//!    │       │         │        │
//!    │       │         │        └─ not all of it: sent_otherwise ─┐
//!    │       │         └─ not all, or more is asked: go_on_using ◄┘ ─► used_otherwise ─┐
//!    │       └─ end, error, or a full buffer: took_otherwise ─► take (offer.rs) ───────┤
//!    └─ anything else to do: run_with_care ────────────────────────────────────────────┴─► go_on (run.rs)
//! ```

use std::io;
use std::pin::Pin;
use std::task::Poll;

use super::conn::Conn;
use super::passed_on::{self, Written};
use super::protocol::Protocol;
use super::run::Connection;
use super::stats::add;
use crate::reactor::Direction;
use crate::runtime::context;
use crate::runtime::lent::{self, Buffer};
use crate::runtime::machine::{Machine, MachineId};

impl<P: Protocol> Machine for Connection<P> {
    #[inline]
    fn run(self: Pin<&mut Self>, id: MachineId) -> Poll<()> {
        let this = self.get_mut();
        context::begin_machine(id);
        let conn = &this.conn;
        if !conn.standing().is_plain() || conn.extra.is_some() || !conn.fd.is_plainly_ready() {
            return this.run_with_care(id);
        }
        let mut buffer = lent::take();
        let received = conn.fd.receive(&mut buffer[..]);
        let got = match received {
            Ok(got @ 1..lent::LENGTH) => got,
            received => return this.took_otherwise(received, buffer),
        };
        // Less than there was room for, of a stream that is well: the kernel has no more.
        conn.fd.forget_readiness();
        add(&conn.worker.tally.received, got as u64);
        if conn.worker.intervals.are_set() && !conn.put_off_deadlines() {
            this.arm();
        }
        let offered = &buffer[..got];
        passed_on::offer(offered);
        let used = this.protocol.data(&mut this.conn, offered);
        let all = matches!(used, Ok(used) if used == got);
        if !all || this.conn.is_concerned() || !this.conn.send_at_once(offered) {
            return this.go_on_using(used, buffer, got);
        }
        lent::give_back(buffer);
        this.conn.fd.park_running(Direction::Read);
        Poll::Pending
    }
}

impl<P: Protocol> Connection<P> {
    /// End of file, an error, EAGAIN, or so much that there may be more.
    #[cold]
    #[inline(never)]
    fn took_otherwise(&mut self, received: io::Result<usize>, buffer: Buffer) -> Poll<()> {
        context::set_budget();
        // The system tells of an error once.
        self.take(received, &buffer[..]);
        lent::give_back(buffer);
        self.go_on(context::running_machine())
    }

    #[cold]
    #[inline(never)]
    fn go_on_using(&mut self, used: io::Result<usize>, buffer: Buffer, got: usize) -> Poll<()> {
        context::set_budget();
        self.used_otherwise(used, &buffer[..got]);
        lent::give_back(buffer);
        self.go_on(context::running_machine())
    }

    /// The protocol used a part, or asked for something, or what it wrote is not all gone.
    pub(crate) fn used_otherwise(&mut self, used: io::Result<usize>, offered: &[u8]) {
        if passed_on::take() {
            self.conn.gather_passed_on(offered);
        }
        self.go_on_offering(used, offered);
    }
}

impl Conn {
    /// Whether there is more to do for it than to read on.
    #[inline]
    pub(crate) fn is_concerned(&self) -> bool {
        self.extra.is_some() || self.standing().is_asked()
    }

    /// Sends what the callback wrote. False if something is left, or went wrong.
    #[inline(always)]
    pub(crate) fn send_at_once(&mut self, offered: &[u8]) -> bool {
        if passed_on::written() != Written::PassedOn {
            return self.send_at_last();
        }
        passed_on::sent();
        let sent = self.fd.send(offered);
        if !matches!(sent, Ok(sent) if sent == offered.len()) {
            return self.sent_otherwise(sent, offered);
        }
        add(&self.worker.tally.sent, offered.len() as u64);
        true
    }

    /// As `send_at_once`, of an answer of its own.
    #[inline(never)]
    fn send_at_last(&mut self) -> bool {
        passed_on::shut();
        match passed_on::written() {
            Written::Nothing => true,
            Written::Gathered => {
                self.send_gathered();
                self.extra.is_none()
            }
            Written::PassedOn | Written::Both => false,
        }
    }

    /// A part of what is passed on, or nothing.
    #[cold]
    #[inline(never)]
    fn sent_otherwise(&mut self, sent: io::Result<usize>, offered: &[u8]) -> bool {
        let sent = self.fd.try_send_after(offered, Some(sent));
        self.gather_passed_on(offered);
        self.send_rest(sent);
        self.extra.is_none()
    }
}
