//! Whether a peer is fast enough: so many bytes in a window. Pure: no I/O and no clock.
//!
//! | state | meaning | on to |
//! |---|---|---|
//! | Resting | nothing is expected of the peer | Judged, when bytes are wanted |
//! | Judged | time and bytes count; a full window is judged, and the next begins | Resting; Held |
//! | Held | as Judged, but we make the peer wait: time stands still | Judged; Resting |
//!
//! # Ground rules
//!
//! Only time in which the loop was not held up counts. A look is planned once in each
//! [slice](Rate::slice) of the window, or sooner. A look that comes late shows that the loop was
//! held up, but not since when: so nothing of its slice is counted. Bytes always count.

// Go has no counterpart: `http.Server` bounds the time of a request, not its rate.

use crate::reactor::Direction;

/// The least a peer must move within a window, in bytes and in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) min_bytes: u64,
    pub(crate) window: u64,
}

/// The minimum rates of a server's peers; `None` asks for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    pub(crate) read: Option<Rate>,
    pub(crate) write: Option<Rate>,
}

impl Rates {
    pub(crate) fn any(self) -> bool {
        self.read.is_some() || self.write.is_some()
    }
}

/// Looks in a window. A stall shorter than a slice may go unnoticed.
const SLICES: u64 = 8;

/// How late a look may be and still count as on time, beside a quarter of its slice, in ticks.
const TOLERANCE: u64 = 4;

impl Rate {
    /// `None` if nothing is asked for, or within no time.
    pub(crate) fn new(bytes_a_second: u64, window: u64) -> Option<Rate> {
        let bytes = u128::from(bytes_a_second) * u128::from(window) / 1000;
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        (bytes_a_second > 0 && window > 0).then_some(Rate {
            min_bytes: bytes.max(1),
            window,
        })
    }

    fn slice(self) -> u64 {
        (self.window / SLICES).max(1)
    }
}

/// What is expected of a peer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Nothing,
    Bytes,
    /// Bytes, but not before we let the peer go on.
    BytesLater,
}

/// What a peer has done in the window under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The last look, while in Judged.
    looked: Option<u64>,
    /// Attentive time in this window: never more than a window and a slice.
    charged: u64,
    /// Bytes in this window.
    moved: u64,
}

impl Progress {
    pub(crate) fn moved(&mut self, bytes: usize) {
        self.moved = self.moved.saturating_add(bytes as u64);
    }

    /// Looks at tick `now`; a look was planned for `planned` at the latest. Returns the ticks until
    /// the next look, `None` if something else must happen first. The error says how many bytes
    /// moved in a full window, if those were too few.
    pub(crate) fn look(
        &mut self,
        rate: Rate,
        expected: Expected,
        now: u64,
        planned: u64,
    ) -> Result<Option<u64>, u64> {
        if expected == Expected::Nothing {
            *self = Progress::default();
            return Ok(None);
        }
        if let Some(looked) = self.looked {
            let late = now.saturating_sub(planned);
            if late <= rate.slice() / 4 + TOLERANCE {
                self.charged += now.min(planned).saturating_sub(looked);
            }
        }
        self.looked = (expected == Expected::Bytes).then_some(now);
        if self.charged >= rate.window {
            let moved = self.moved;
            (self.charged, self.moved) = (0, 0);
            if moved < rate.min_bytes {
                return Err(moved);
            }
        }
        let left = rate.window - self.charged;
        Ok(self.looked.map(|_| left.min(rate.slice())))
    }
}

/// Whether the peer meets the minimum rates. It exists while bytes are expected of the peer.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) read: Progress,
    pub(super) write: Progress,
    /// The next look; `u64::MAX` if none is planned, zero before the first.
    pub(super) next: u64,
}

impl Watch {
    pub(super) fn moved(&mut self, direction: Direction, bytes: usize) {
        match direction {
            Direction::Read => self.read.moved(bytes),
            Direction::Write => self.write.moved(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Expected::{Bytes, BytesLater, Nothing};
    use super::{Progress, Rate};

    /// 100 bytes a second over ten seconds.
    const RATE: Rate = Rate {
        min_bytes: 1000,
        window: 10_000,
    };

    /// A peer under a loop that looks when it planned to.
    struct Watched {
        progress: Progress,
        now: u64,
        next: Option<u64>,
    }

    impl Watched {
        fn new() -> Self {
            let mut progress = Progress::default();
            let next = progress.look(RATE, Bytes, 0, 0).unwrap();
            Watched {
                progress,
                now: 0,
                next,
            }
        }

        /// Looks `late` ticks after the plan.
        fn look(&mut self, late: u64) -> Result<(), u64> {
            let planned = self.now + self.next.expect("a look is planned");
            self.now = planned + late;
            self.next = self.progress.look(RATE, Bytes, self.now, planned)?;
            Ok(())
        }
    }

    #[test]
    fn a_rate_of_nothing_or_over_no_time_is_none() {
        assert_eq!(Rate::new(0, 1000), None);
        assert_eq!(Rate::new(1000, 0), None);
        assert_eq!(Rate::new(100, 10_000), Some(RATE));
        assert_eq!(Rate::new(1, 10).unwrap().min_bytes, 1, "never nothing");
        assert_eq!(Rate::new(u64::MAX, u64::MAX).unwrap().min_bytes, u64::MAX);
    }

    #[test]
    fn too_few_bytes_are_found_when_the_window_is_full_and_not_before() {
        let mut peer = Watched::new();
        peer.progress.moved(999);
        let error = loop {
            if let Err(error) = peer.look(0) {
                break error;
            }
        };
        assert_eq!((peer.now, error), (10_000, 999));
    }

    #[test]
    fn just_enough_in_each_window_is_enough() {
        let mut peer = Watched::new();
        for _ in 0..5 {
            peer.progress.moved(1000);
            (0..8).for_each(|_| peer.look(0).unwrap());
        }
        assert_eq!(peer.now, 50_000);
        let ended = (0..8).find_map(|_| peer.look(0).err());
        assert_eq!(ended, Some(0), "windows are apart");
    }

    #[test]
    fn a_look_that_comes_late_charges_nothing_and_counts_the_bytes() {
        let mut peer = Watched::new();
        for _ in 0..100 {
            peer.look(5000).unwrap();
        }
        peer.progress.moved(7);
        let looks = (0..).take_while(|_| peer.look(0).is_ok()).count();
        assert_eq!(looks, 7, "eight slices on time make the window");
    }

    #[test]
    fn a_little_late_is_on_time_and_not_charged_for_it() {
        let mut peer = Watched::new();
        let looks = (0..).take_while(|_| peer.look(10).is_ok()).count();
        assert_eq!((looks, peer.now), (7, 10_080));
    }

    #[test]
    fn while_we_make_the_peer_wait_time_stands_still() {
        let mut progress = Progress::default();
        progress.look(RATE, Bytes, 0, 0).unwrap();
        let next = progress.look(RATE, BytesLater, 1000, 1250).unwrap();
        assert_eq!(next, None);
        let next = progress.look(RATE, Bytes, 900_000, 900_000).unwrap();
        assert_eq!((next, progress.charged), (Some(1250), 1000));
        let next = progress.look(RATE, Nothing, 901_000, 901_250).unwrap();
        assert_eq!((next, progress), (None, Progress::default()));
    }

    #[test]
    fn looks_between_planned_ones_change_nothing() {
        let mut progress = Progress::default();
        let mut planned = progress.look(RATE, Bytes, 0, 0).unwrap().unwrap();
        for now in 1..10_000 {
            let next = progress.look(RATE, Bytes, now, planned).unwrap();
            planned = now + next.unwrap();
        }
        let ended = progress.look(RATE, Bytes, 10_000, planned);
        assert_eq!(ended, Err(0));
    }
}
