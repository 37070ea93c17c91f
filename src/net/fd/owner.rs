//! A socket that one machine has to itself: no locks, no wakers, its id in both slots. The machine
//! uses the poll descriptor directly; here is what it needs of the socket besides.

// Go has no counterpart: it would be a goroutine parked on both `pd.rg` and `pd.wg`.

use super::{Failure, Fd};
use crate::sys;

impl Fd {
    /// What of the bytes written the peer has not acknowledged; `None` where the system can't tell.
    pub(crate) fn unacknowledged(&self) -> Option<usize> {
        let left = self.with_socket(|socket| Ok(sys::unacknowledged(socket)));
        left.ok().flatten()
    }

    /// Closes at the end of the owner. No later error names the ends, so they are not asked for.
    pub(crate) fn close_for_good(&self, with_reset: bool) {
        if self.is_closed() {
            return;
        }
        if with_reset && let Err(Failure::System(error)) = self.reset_on_close() {
            log::debug!("closed without the reset that was asked for: {error}");
        }
        self.shut();
    }
}
