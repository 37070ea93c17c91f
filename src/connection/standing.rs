//! Where a connection stands: its state, and what was asked of it since; all in a byte.
//!
//! May touch: the state machine. Mirrors `curState` of `conn` in Go's `net/http/server.go`, which is
//! packed with a time.
//!
//! A byte, for there is room for one in what the socket has anyway; beside the connection's three
//! pointers it would cost sixteen, a twelfth of all an idle connection has.

use super::state::State;

/// What the protocol asked for; the later ones outdo the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Asked {
    Nothing,
    End,
    Close,
    Abort,
}

/// | bits | what |
/// |---|---|
/// | 0 to 2 | the state, of which `Open` is zero |
/// | 3 and 4 | what was asked for since it was last looked at |
/// | 5 | the protocol may not write: by state, and by what it asked for itself |
/// | 6 | the connection has heard that the server is being drained |
///
/// So a connection that only has to read on is zero but for the last, which one test tells.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing(u8);

const ASKED_SHIFT: u32 = 3;
const ASKED_BITS: u8 = 3 << ASKED_SHIFT;
const MAY_NOT_WRITE: u8 = 1 << 5;
const HURRIED: u8 = 1 << 6;

const ASKED: [Asked; 4] = [Asked::Nothing, Asked::End, Asked::Close, Asked::Abort];

impl Standing {
    pub(crate) const FIRST: Standing = Standing::new(State::Opening, Asked::Nothing, 0);

    const fn new(state: State, asked: Asked, hurried: u8) -> Self {
        let may_write = matches!(asked, Asked::Nothing) && state.takes_writes();
        let may_not_write = if may_write { 0 } else { MAY_NOT_WRITE };
        let state = state as u8 ^ State::Open as u8;
        Standing(state | (asked as u8) << ASKED_SHIFT | may_not_write | hurried)
    }

    pub(crate) const fn from_byte(byte: u8) -> Self {
        Standing(byte)
    }

    pub(crate) const fn byte(self) -> u8 {
        self.0
    }

    #[inline]
    pub(crate) fn state(self) -> State {
        let number = usize::from((self.0 % 8) ^ State::Open as u8);
        State::ALL.get(number).copied().unwrap_or(State::Closed)
    }

    #[inline]
    pub(crate) fn asked(self) -> Asked {
        ASKED[usize::from(self.0 >> ASKED_SHIFT) % 4]
    }

    #[inline]
    pub(crate) fn is_asked(self) -> bool {
        self.0 & ASKED_BITS != 0
    }

    /// Whether the protocol may write, by state and by what it asked for.
    #[inline]
    pub(crate) fn may_write(self) -> bool {
        self.0 & MAY_NOT_WRITE == 0
    }

    pub(crate) fn is_hurried(self) -> bool {
        self.0 & HURRIED != 0
    }

    /// Whether there is nothing to do but to read on.
    #[inline]
    pub(crate) fn is_plain(self) -> bool {
        self.0 & !HURRIED == 0
    }

    pub(crate) fn in_state(self, state: State) -> Self {
        Standing::new(state, self.asked(), self.0 & HURRIED)
    }

    pub(crate) fn with_asked(self, asked: Asked) -> Self {
        Standing::new(self.state(), asked, self.0 & HURRIED)
    }

    /// To be aborted, once the callback that comes next has ended: that may still write.
    pub(crate) fn aborting(self) -> Self {
        Standing(self.0 | (Asked::Abort as u8) << ASKED_SHIFT)
    }

    pub(crate) fn hurried(self) -> Self {
        Standing(self.0 | HURRIED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_tells_all_and_one_part_leaves_the_others() {
        for state in &State::ALL {
            for asked in ASKED {
                let standing = Standing::FIRST.with_asked(asked).in_state(*state);
                for standing in [standing, standing.hurried()] {
                    let standing = Standing::from_byte(standing.byte());
                    assert_eq!((standing.state(), standing.asked()), (*state, asked));
                    let may_write = asked == Asked::Nothing && state.takes_writes();
                    assert_eq!(standing.may_write(), may_write);
                    let plain = *state == State::Open && asked == Asked::Nothing;
                    assert_eq!(standing.is_plain(), plain);
                }
                assert_eq!(standing.aborting().asked(), Asked::Abort);
                assert_eq!(standing.aborting().may_write(), standing.may_write());
                assert!(standing.hurried().is_hurried() && !standing.is_hurried());
                assert!(standing.hurried().in_state(State::Open).is_hurried());
            }
        }
    }
}
