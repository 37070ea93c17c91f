//! How far those have run whom the netpoller handed out.
//!
//! May touch: nothing. Go has no counterpart: there, a deadline may pass before a goroutine that was
//! made ready has run.

/// How far those have run whom the netpoller handed out: until they have, nobody's deadline
/// passes, for they may have bytes to move it by.
///
/// | state | meaning | on to |
/// |---|---|---|
/// | Settled | all have run | Handed, when a turn leaves any |
/// | Handed(n) | n machines to run, theirs among them | Woken |
/// | Woken(n) | n machines to run, whom foreign wakers woke among them | Settled |
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Backlog {
    Settled,
    Handed(usize),
    Woken(usize),
}

impl Backlog {
    /// A turn ran so many, left `left` of its batch, and `queued` in all.
    #[cold]
    pub(super) fn after(self, ran: usize, left: usize, queued: usize) -> Backlog {
        let next = match self {
            Backlog::Settled => Backlog::Handed(left),
            Backlog::Handed(behind) => Backlog::Handed(behind.saturating_sub(ran)),
            Backlog::Woken(behind) => Backlog::Woken(behind.saturating_sub(ran)),
        };
        match next {
            Backlog::Handed(0) => Backlog::Woken(queued),
            Backlog::Woken(0) => Backlog::Settled,
            next => next,
        }
    }
}
