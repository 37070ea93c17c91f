//! The words for what is said of a source: which half, how an attempt to park ended, why not to try,
//! and what it is ready for.
//!
//! May touch: std. Mirrors the modes and the `pollErr*` codes of Go's `runtime/netpoll.go`.

/// Which half of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Data, connections or end of file coming in.
    Read,
    /// Room for data going out.
    Write,
}

/// What became of an attempt to park.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Park<W> {
    /// It waits: a turn will hand it back.
    Parked,
    /// Readiness had come already: try again. The readiness is used up.
    Ready(W),
    /// The direction's deadline has passed.
    TimedOut(W),
    /// The descriptor is closed.
    Closed(W),
}

/// Why an operation must not be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The direction's deadline has passed, and has not been moved since.
    TimedOut,
    /// The descriptor is closed.
    Closed,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Refusal::TimedOut => "i/o timeout",
            Refusal::Closed => "use of closed network connection",
        })
    }
}

impl std::error::Error for Refusal {}

/// What the selector says of a source: a set of `READ`, `WRITE`, `HUNG_UP` and `URGENT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Readiness(pub(super) u8);

impl Readiness {
    /// Nothing.
    pub const NONE: Readiness = Readiness(0);
    /// An attempt to read may succeed.
    pub const READ: Readiness = Readiness(1);
    /// An attempt to write may succeed.
    pub const WRITE: Readiness = Readiness(2);
    /// The peer sent FIN or RST.
    pub const HUNG_UP: Readiness = Readiness(4);
    /// Urgent data stands in the stream: a read may stop short of what is there.
    pub const URGENT: Readiness = Readiness(8);

    /// Room to write and something to read, as a rule.
    pub(crate) const BOTH: Readiness = Readiness(3);

    /// Whether all of `other` is in this set.
    pub const fn contains(self, other: Readiness) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing is in this set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn bits(self) -> u32 {
        self.0 as u32
    }

    pub(crate) const fn of(direction: Direction) -> Readiness {
        match direction {
            Direction::Read => Readiness::READ,
            Direction::Write => Readiness::WRITE,
        }
    }
}

impl std::ops::BitOr for Readiness {
    type Output = Readiness;
    fn bitor(self, other: Readiness) -> Readiness {
        Readiness(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Readiness {
    fn bitor_assign(&mut self, other: Readiness) {
        self.0 |= other.0;
    }
}
