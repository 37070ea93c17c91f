//! A socket that one machine has to itself: no locks, no wakers, its id in both parking places.

// Go has no counterpart: it would be a goroutine parked on both `pd.rg` and `pd.wg`.

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::time::Duration;

use super::{Failure, Fd};
use crate::reactor::{Direction, May};
use crate::runtime::context;
use crate::runtime::machine::MachineId;
use crate::runtime::socket::Parked;
use crate::sys;
use crate::wheel::{Tick, Timers};

impl Fd {
    /// What its owner noted of the socket.
    #[inline]
    pub(crate) fn note(&self) -> u8 {
        self.socket().note.get()
    }

    pub(crate) fn set_note(&self, note: u8) {
        self.socket().note.set(note);
    }

    /// Whether a try may succeed.
    #[inline]
    pub(crate) fn is_ready(&self, direction: Direction) -> bool {
        self.desc.may_try(direction) == May::Try
    }

    /// Ready to read, with nothing against it and nothing else to be told: a read that takes less
    /// than it might then proves that there is no more.
    #[inline]
    pub(crate) fn is_plainly_ready(&self) -> bool {
        self.desc.is_plainly_ready(Direction::Read)
    }

    /// Whether there is nothing to do but wait.
    #[inline]
    pub(crate) fn must_wait(&self, direction: Direction) -> bool {
        self.desc.may_try(direction) == May::Wait
    }

    /// As [`Fd::park_owner`], of the machine that runs.
    #[inline]
    pub(crate) fn park_running(&self, direction: Direction) {
        let running = Parked::machine(context::running_machine());
        self.desc.park_waiting(direction, running);
    }

    /// Parks the owner. Call it only after [`Fd::must_wait`] returned true.
    #[inline]
    pub(crate) fn park_owner(&self, direction: Direction, id: MachineId) {
        self.desc.park_waiting(direction, Parked::machine(id));
    }

    /// The loop's time, rounded down: what has passed for sure.
    #[inline]
    pub(crate) fn tick(&self) -> Tick {
        self.desc.core().clock.tick()
    }

    /// The loop's time, rounded up: a time that counts from here is never early.
    #[inline]
    pub(crate) fn tick_ceiling(&self) -> Tick {
        self.desc.core().clock.tick_after(0)
    }

    /// Reads the clock anew, and makes that the loop's time.
    #[inline]
    pub(crate) fn read_clock(&self) {
        self.desc.core().clock.read();
    }

    /// Timers that judge a peer.
    pub(crate) fn peer_timers(&self) -> &RefCell<Timers<Parked>> {
        &self.desc.core().peer_timers
    }

    /// What of the bytes written the peer has not acknowledged; `None` where the system can't tell.
    pub(crate) fn unacknowledged(&self) -> Option<usize> {
        let left = self.with_socket(|socket| Ok(sys::unacknowledged(socket)));
        left.ok().flatten()
    }

    /// After end of file nothing more is read; the next edge can only be a reset.
    pub(crate) fn forget_readiness(&self) {
        self.desc.drained(Direction::Read);
    }

    /// Sends a FIN.
    pub(crate) fn finish_writing(&self) -> io::Result<()> {
        self.shut_down(Shutdown::Write)
    }

    /// Closes at the end of the owner. No later error names the ends, so they are not asked for.
    pub(crate) fn close_for_good(&self, with_reset: bool) {
        if self.is_closed() {
            return;
        }
        if with_reset {
            let zero = Some(Duration::ZERO);
            let set = self.with_socket(|socket| socket.set_linger(zero));
            if let Err(Failure::System(error)) = set {
                log::debug!("a close that was to be a reset is none: {error}");
            }
        }
        self.shut();
    }
}
