//! Whether a peer is fast enough: so many bytes in a window. Pure: no I/O and no clock.
//!
//! | state | meaning | on to |
//! |---|---|---|
//! | Resting: there is no [`Progress`] | nothing is expected of the peer | Counting, when bytes are expected |
//! | Counting | time and bytes count; a full window is judged, and the next begins | Resting; Held |
//! | Held | as Counting, but we make the peer wait: time does not count | Counting; Resting |
//!
//! Only time in which the loop was not held up counts. The loop checks once in each
//! [slice](Rate::slice) of the window, or sooner, so that more than a slice between two checks shows
//! that it was held up. At most a slice is charged then, and bytes always count, from the first check in
//! Counting.

// Go has no counterpart: `http.Server` bounds the time of a request, not its rate.

/// No time, in ticks: later than every other.
pub(super) const NEVER: u64 = u64::MAX;

/// The least a peer must move within a window, in bytes and in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) min_bytes: u64,
    pub(crate) window: u64,
}

/// How many checks there are in a window.
const SLICES: u64 = 8;

impl Rate {
    /// `None` if no bytes are asked for, or the window is zero.
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

/// What a peer has done in the window under way. The default is at its begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// The last check; `None` while in Held.
    checked: Option<u64>,
    /// Time charged in this window: never more than a window.
    charged: u64,
    /// Bytes in this window.
    moved: u64,
}

impl Progress {
    /// Counts bytes that moved.
    pub(super) fn count(&mut self, bytes: usize) {
        self.moved = self.moved.saturating_add(bytes as u64);
    }

    /// Checks at tick `now`. Returns when to check again. The error says how many bytes moved in a full
    /// window, fewer than were asked; the window goes on, so that a try and another check may follow.
    pub(super) fn check(&mut self, rate: Rate, now: u64) -> Result<u64, u64> {
        if let Some(checked) = self.checked {
            // A full window that waits for another check grows no longer.
            let charged = self.charged + (now - checked).min(rate.slice());
            self.charged = charged.min(rate.window);
        }
        self.checked = Some(now);
        if self.charged == rate.window {
            if self.moved < rate.min_bytes {
                return Err(self.moved);
            }
            (self.charged, self.moved) = (0, 0);
        }
        debug_assert!(self.charged < rate.window, "a full window was judged");
        let next = rate.slice().min(rate.window - self.charged);
        Ok(now.saturating_add(next))
    }

    /// We make the peer wait: until the next check, time does not count.
    pub(super) fn hold(&mut self) {
        self.checked = None;
    }
}

#[cfg(test)]
mod tests {
    use super::{Progress, Rate};

    /// 100 bytes a second over ten seconds.
    const RATE: Rate = Rate {
        min_bytes: 1000,
        window: 10_000,
    };

    /// A peer under a loop that checks when it planned to.
    struct Watched {
        progress: Progress,
        now: u64,
        next: u64,
    }

    impl Watched {
        fn new() -> Self {
            let mut progress = Progress::default();
            let next = progress.check(RATE, 0).unwrap();
            Watched {
                progress,
                now: 0,
                next,
            }
        }

        /// Checks `late` ticks after the plan.
        fn check(&mut self, late: u64) -> Result<(), u64> {
            self.now = self.next + late;
            self.next = self.progress.check(RATE, self.now)?;
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
        peer.progress.moved = 999;
        let error = loop {
            if let Err(error) = peer.check(0) {
                break error;
            }
        };
        assert_eq!((peer.now, error), (10_000, 999));
    }

    #[test]
    fn just_enough_in_each_window_is_enough() {
        let mut peer = Watched::new();
        for _ in 0..5 {
            peer.progress.moved = 1000;
            (0..8).for_each(|_| peer.check(0).unwrap());
        }
        assert_eq!(peer.now, 50_000);
        let ended = (0..8).find_map(|_| peer.check(0).err());
        assert_eq!(ended, Some(0), "windows are apart");
    }

    #[test]
    fn a_window_that_was_not_met_is_judged_again_after_a_try_finds_more() {
        let mut progress = Progress::default();
        let slices = (0..=8).map(|slice| progress.check(RATE, slice * 1250));
        assert_eq!(slices.last(), Some(Err(0)));
        progress.count(999);
        assert_eq!(progress.check(RATE, 10_000), Err(999));
        progress.count(1);
        assert_eq!(progress.check(RATE, 10_000), Ok(11_250));
    }

    #[test]
    fn a_full_window_is_judged_as_often_as_tries_need_and_the_next_one_is_whole() {
        let mut progress = Progress::default();
        for slice in 0..8 {
            progress.check(RATE, slice * 1250).unwrap();
        }
        // Tries that use up the budget of a run, each with a part of the bytes.
        for slice in 8..12 {
            let found = progress.moved;
            assert_eq!(progress.check(RATE, slice * 1250), Err(found));
            progress.count(250);
        }
        assert_eq!(progress.check(RATE, 15_000), Ok(16_250));
        assert_eq!((progress.charged, progress.moved), (0, 0));
    }

    #[test]
    fn a_stall_charges_a_slice_however_long_it_is_and_the_bytes_count() {
        let mut peer = Watched::new();
        peer.check(1_000_000).unwrap();
        peer.progress.moved = 7;
        let checks = (0..).take_while(|_| peer.check(0).is_ok()).count();
        assert_eq!(checks, 6, "eight slices make the window");
        let mut peer = Watched::new();
        peer.progress.moved = 1000;
        (0..8).for_each(|_| peer.check(5000).unwrap());
        let checks = (0..).take_while(|_| peer.check(5000).is_ok()).count();
        assert_eq!(checks, 7, "of the next window");
    }

    #[test]
    fn while_we_make_the_peer_wait_time_stands_still() {
        let mut progress = Progress::default();
        progress.check(RATE, 0).unwrap();
        progress.check(RATE, 1000).unwrap();
        progress.hold();
        assert_eq!(progress.check(RATE, 900_000), Ok(901_250));
        assert_eq!(progress.charged, 1000);
    }

    #[test]
    fn looks_between_planned_ones_change_nothing() {
        let mut progress = Progress::default();
        for now in 0..10_000 {
            progress.check(RATE, now).unwrap();
        }
        assert_eq!(progress.check(RATE, 10_000), Err(0));
    }
}
