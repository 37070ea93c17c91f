//! What `Reactor::for_each` shows of a descriptor, for a look at a loop that hangs.
// Go has no counterpart but its goroutine dump, which says `IO wait` and for how long.

use std::cell::Cell;
use std::time::Instant;

use super::selector::Token;

/// One descriptor, as [`Reactor::for_each`](super::Reactor::for_each) shows it.
///
/// ```
/// use netpoller::reactor::{Direction, Park, Reactor};
///
/// # fn main() -> std::io::Result<()> {
/// let reactor: Reactor<&str> = Reactor::new()?;
/// let (mut ours, _theirs) = mio::net::UnixStream::pair()?;
/// let descriptor = reactor.open(&mut ours)?;
/// assert_eq!(descriptor.park(Direction::Read, "reader"), Park::Parked);
/// reactor.for_each(|view| {
///     assert_eq!(view.read.parked, Some(&"reader"));
///     assert_eq!(view.write.parked, None);
///     assert!(!view.read.is_expired && view.read.deadline.is_none());
/// });
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct DescriptorView<'a, W> {
    /// Names it, in the log too.
    pub token: Token,
    /// What waits for input, and until when.
    pub read: DirectionView<'a, W>,
    /// What waits for room, and until when.
    pub write: DirectionView<'a, W>,
    /// What waits for the peer's hanging up.
    pub hang_up: Option<&'a W>,
    /// The descriptor was evicted, and waits to be closed.
    pub is_closed: bool,
}

/// One direction of a [`DescriptorView`].
///
/// That has an example.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct DirectionView<'a, W> {
    /// What is parked.
    pub parked: Option<&'a W>,
    /// Its deadline, rounded up to a millisecond of the reactor's clock.
    pub deadline: Option<Instant>,
    /// The deadline has passed, and has not been moved since.
    pub is_expired: bool,
    /// An attempt may succeed, as far as is known.
    pub is_ready: bool,
}

impl<W> DescriptorView<'_, W> {
    /// How many Ws are parked.
    pub(crate) fn parked(&self) -> usize {
        let slots = [self.read.parked, self.write.parked, self.hang_up];
        slots.iter().flatten().count()
    }
}

/// A W that is shown, and goes back into its slot, after a panic too.
pub(super) struct Lent<'a, W> {
    slot: &'a Cell<Option<W>>,
    pub(super) w: Option<W>,
}

impl<'a, W> Lent<'a, W> {
    pub(super) fn new(slot: &'a Cell<Option<W>>) -> Self {
        Lent {
            slot,
            w: slot.take(),
        }
    }
}

impl<W> Drop for Lent<'_, W> {
    fn drop(&mut self) {
        self.slot.set(self.w.take());
    }
}
