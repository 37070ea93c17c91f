//! Sweeping the wheel: places that no longer count are taken out before their tick.
//!
//! Touches the levels and nothing else. Mirrors `adjust` and `cleanHead` in Go's runtime/time.go,
//! which removes zombies once they are a quarter of the heap; here they may be half.

use super::level::LEVELS;
use super::slot::Place;
use super::{Tick, Verdict, Wheel};

/// How many stale places are free: below this, sweeping a small wheel is not worth the while.
const SLACK: usize = 64;

impl<K: Copy> Wheel<K> {
    /// Whether stale places outnumber the live ones by more than 64: time to
    /// [`compact`](Wheel::compact). An owner who does so at once, whenever a place lapses or
    /// fires, never has more than 2 x live + 64 places.
    ///
    /// O(1).
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Wheel};
    /// let mut wheel = Wheel::new();
    /// for key in 0..65 {
    ///     wheel.place(Tick::new(9), key);
    ///     assert!(!wheel.overgrown());
    ///     wheel.lapse();
    /// }
    /// assert!(wheel.overgrown());
    /// wheel.compact(|_, _| false);
    /// assert!(wheel.is_empty() && !wheel.overgrown());
    /// ```
    #[inline]
    pub fn overgrown(&self) -> bool {
        self.stale > self.len.saturating_sub(self.stale) + SLACK
    }

    /// Drops every place that `keep` does not want; none is stale after it.
    ///
    /// O(places), without a budget. An owner who calls it only when the wheel is
    /// [`overgrown`](Wheel::overgrown) has less than two places looked at for each that lapsed.
    ///
    /// # Panics
    ///
    /// Only if `keep` does; places that were kept may then come out twice.
    ///
    /// ```
    /// # use netpoller::wheel::{Tick, Wheel};
    /// let mut wheel = Wheel::new();
    /// wheel.place(Tick::new(1), 'a');
    /// wheel.place(Tick::new(2), 'b');
    /// wheel.compact(|_, key| key == 'b');
    /// assert_eq!((wheel.len(), wheel.next()), (1, Some(Tick::new(2))));
    /// ```
    pub fn compact(&mut self, mut keep: impl FnMut(Tick, K) -> bool) {
        for level in &mut self.levels {
            for slot in level.in_use() {
                let keep = |&(when, key): &Place<K>| keep(when, key);
                self.len -= level.retain(slot, self.elapsed, keep, &mut self.spare);
            }
        }
        self.stale = 0;
        self.front();
    }

    /// As [`compact`](Wheel::compact), for an owner whose `keep` may keep what does not count;
    /// `live` places do.
    pub(super) fn compact_roughly(&mut self, live: usize, keep: impl FnMut(Tick, K) -> bool) {
        self.compact(keep);
        self.stale = self.len.saturating_sub(live);
    }

    /// The earliest place that counts, after removing those before it that do not. Nothing
    /// fires, [`elapsed`](Wheel::elapsed) stays, and the answer is never before it. For a
    /// virtual clock, which must not stop where only a stale place lies.
    ///
    /// `check` answers [`Done`](Verdict::Done) for a live place, which stays. It is asked in no
    /// order, and about some later places too. An [`Again`](Verdict::Again) that names no later
    /// tick counts as `Done`.
    ///
    /// O(places in the first slots); amortised O(levels) a place for an owner who advances to
    /// the answer.
    ///
    /// # Panics
    ///
    /// Only if `check` does; live places may then come out twice.
    ///
    /// ```
    /// use netpoller::wheel::{Tick, Verdict, Wheel};
    ///
    /// let mut wheel = Wheel::new();
    /// wheel.place(Tick::new(10), "canceled");
    /// wheel.place(Tick::new(20), "live");
    /// wheel.lapse();
    /// let next = wheel.next_live(|_, key| match key {
    ///     "live" => Verdict::Done,
    ///     _ => Verdict::Lapsed,
    /// });
    /// assert_eq!(next, Some(Tick::new(20)));
    /// assert_eq!((wheel.len(), wheel.stale()), (1, 0));
    /// ```
    pub fn next_live(&mut self, mut check: impl FnMut(Tick, K) -> Verdict) -> Option<Tick> {
        // The slots with live places only, a bitmap a level. What moves there is live as well.
        let mut swept = [0u64; LEVELS];
        let mut moved = Vec::new();
        loop {
            let front = self.front()?;
            if swept[front.level] >> front.slot & 1 == 1 {
                return Some(self.earliest);
            }
            swept[front.level] |= 1 << front.slot;
            let keep = |&(when, key): &Place<K>| {
                let verdict = check(when, key);
                if let Verdict::Again(later) = verdict {
                    moved.push((later.max(when), key));
                }
                verdict == Verdict::Done
            };
            let level = &mut self.levels[front.level];
            let gone = level.retain(front.slot, self.elapsed, keep, &mut self.spare);
            self.len -= gone;
            self.stale = self.stale.saturating_sub(gone - moved.len());
            for (later, key) in moved.drain(..) {
                self.place(later, key);
            }
        }
    }
}
