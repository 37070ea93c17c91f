//! How far those have run whom the netpoller handed out.
//!
//! May touch: the reactor's word for it. Go has no counterpart: there, a deadline may pass before a
//! goroutine that was made ready has run.

use crate::reactor::Behind;

/// How far those have run whom the netpoller handed out: until they have, nobody's deadline
/// passes, for they may have bytes to move it by.
///
/// | step | meaning | on to |
/// |---|---|---|
/// | Settled | all of the last harvest that counts have run, and whom they woke | Handed, when a turn leaves any |
/// | Handed(n) | n machines to run, theirs among them | Woken |
/// | Woken(n) | n machines to run, whom foreign wakers woke among them | Settled |
///
/// The queue is first in, first out, but for one thing: who was woken in a turn comes behind those
/// whom the next one hands out. So how many are to run is known only when that one has been.
#[derive(Clone, Copy, Default)]
pub(super) struct Backlog {
    step: Step,
    /// More were handed out before the last step was done: of them nothing is known.
    more: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Settled,
    Handed(usize),
    Woken(usize),
}

/// All whom the next turn finds in its queue.
const ALL: usize = usize::MAX;

impl Backlog {
    pub(super) fn behind(self) -> Behind {
        match (self.step, self.more) {
            (Step::Settled, false) => Behind::Nobody,
            (Step::Settled, true) => Behind::Newcomers,
            _ => Behind::Somebody,
        }
    }

    /// A turn that leaves anybody ran so many, and left `left` of its batch. `handed`: the netpoller
    /// handed out some of them.
    #[cold]
    pub(super) fn after(self, handed: bool, ran: usize, left: usize) -> Backlog {
        let step = match self.step {
            Step::Settled => Step::Handed(left),
            Step::Handed(behind) => Step::Handed(behind.saturating_sub(ran)),
            Step::Woken(behind) => Step::Woken(behind.min(ran + left).saturating_sub(ran)),
        };
        Backlog {
            step: match step {
                Step::Handed(0) => Step::Woken(ALL),
                Step::Woken(0) => Step::Settled,
                step => step,
            },
            more: self.step != Step::Settled && (self.more || handed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Backlog, Behind};

    #[test]
    fn who_was_woken_has_run_when_all_before_and_behind_have() {
        // Two were woken; a thousand and more are handed out before they run.
        let backlog = Backlog::default().after(true, 5, 0);
        assert_eq!(backlog.behind(), Behind::Somebody);
        let backlog = backlog.after(true, 1024, 78);
        assert_eq!(
            backlog.behind(),
            Behind::Somebody,
            "they are among those left"
        );
        let backlog = backlog.after(false, 78, 0);
        assert_eq!(
            backlog.behind(),
            Behind::Newcomers,
            "whom the crowd woke is not known"
        );
        // Somebody yields for ever, and nobody else comes.
        let backlog = backlog.after(false, 1, 0).after(false, 1, 0);
        assert_eq!(backlog.behind(), Behind::Nobody);
    }

    #[test]
    fn who_is_handed_out_in_every_turn_holds_nobodys_deadline_back_for_long() {
        let mut backlog = Backlog::default();
        for _ in 0..100 {
            backlog = backlog.after(true, 10, 0).after(true, 10, 0);
            assert_eq!(backlog.behind(), Behind::Newcomers);
        }
    }
}
