//! What is parked on a descriptor of the runtime, in one word.
//!
//! May touch: the reactor's tokens. Mirrors the `g` in `pollDesc.rg` and `wg`.

use std::num::NonZeroU64;

use super::machine::MachineId;
use crate::reactor::{Direction, Token};

/// What is parked on a descriptor: a machine's id, or the note that a waker is kept beside it.
///
/// One word: the top bit tells the two apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parked(NonZeroU64);

const FOREIGN: u64 = 1 << 63;
const PLACE_SHIFT: u32 = 61;
/// In place of a `Place`: no descriptor is meant, but a sleep.
const SLEEPER: u64 = 3;
const TOKEN_MASK: u64 = (1 << PLACE_SHIFT) - 1;

/// Which of a descriptor's places a foreign waker waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Read = 0,
    Write = 1,
    HangUp = 2,
}

impl From<Direction> for Place {
    fn from(direction: Direction) -> Place {
        match direction {
            Direction::Read => Place::Read,
            Direction::Write => Place::Write,
        }
    }
}

/// A [`Parked`] taken apart.
pub(crate) enum Who {
    Machine,
    /// A sleep that another executor polls: where its waker is kept.
    Sleeper(usize),
    Foreign {
        token_bits: u64,
        place: Place,
    },
}

impl Parked {
    #[inline]
    pub(crate) fn machine(id: MachineId) -> Self {
        Parked(id.bits())
    }

    pub(crate) fn foreign(token: Token, place: Place) -> Self {
        let bits = FOREIGN | (place as u64) << PLACE_SHIFT | Self::token_bits(token);
        Parked(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MIN))
    }

    /// A note that the waker of a sleep is kept under `key`.
    pub(crate) fn sleeper(key: usize) -> Self {
        let bits = FOREIGN | SLEEPER << PLACE_SHIFT | key as u64 & TOKEN_MASK;
        Parked(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MIN))
    }

    /// As much of a token as fits: the slot, and the generation less its top three bits.
    pub(crate) fn token_bits(token: Token) -> u64 {
        mio::Token::from(token).0 as u64 & TOKEN_MASK
    }

    /// The slot in what is kept of a token.
    pub(crate) fn slot(token_bits: u64) -> usize {
        Token::from(mio::Token(token_bits as usize)).slot()
    }

    /// The machine, if it is one. Of a note for a foreign waker this makes the id of none, for the
    /// generation of a machine has no top bit.
    #[inline]
    pub(crate) fn as_machine(self) -> MachineId {
        MachineId::from_bits(self.0)
    }

    #[inline]
    pub(crate) fn who(self) -> Who {
        let bits = self.0.get();
        if bits & FOREIGN == 0 {
            return Who::Machine;
        }
        if bits >> PLACE_SHIFT & 3 == SLEEPER {
            return Who::Sleeper((bits & TOKEN_MASK) as usize);
        }
        Who::Foreign {
            token_bits: bits & TOKEN_MASK,
            place: match bits >> PLACE_SHIFT & 3 {
                0 => Place::Read,
                1 => Place::Write,
                _ => Place::HangUp,
            },
        }
    }
}
