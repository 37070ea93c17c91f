//! Sweeping the wheel: places that no longer count are taken out before their tick.
//!
//! Touches the levels and nothing else. Mirrors `adjust` and `cleanHead` in Go's runtime/time.go,
//! which removes zombies once they are a quarter of the heap; here they may be half.

use super::level::LEVELS;
use super::{AHEAD, Owner, Tick, Verdict, Wheel};

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
    /// Only if `keep` does; places that it was to be asked about may then be lost.
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
        self.sweep(&mut |when, key| match keep(when, key) {
            true => Verdict::Done,
            false => Verdict::Lapsed,
        });
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
    /// Only if `check` does; places that it was to be asked about may then be lost.
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
        self.sweep_front(&mut check)
    }

    /// As [`compact`](Wheel::compact), for any owner; moved places move.
    pub(super) fn sweep(&mut self, owner: &mut impl Owner<K>) {
        for level in 0..self.levels.len() {
            for slot in self.levels[level].in_use() {
                self.sweep_slot(level, slot, owner);
            }
        }
        self.stale = 0;
        self.front();
    }

    /// As [`next_live`](Wheel::next_live), for any owner.
    pub(super) fn sweep_front(&mut self, owner: &mut impl Owner<K>) -> Option<Tick> {
        // The slots with live places only, a bitmap a level. What moves there is live as well.
        let mut swept = [0u64; LEVELS];
        loop {
            let front = self.front()?;
            if swept[front.level] >> front.slot & 1 == 1 {
                return Some(front.tick);
            }
            self.sweep_slot(front.level, front.slot, owner);
            swept[front.level] |= 1 << front.slot;
        }
    }

    /// Asks about every place of a slot, and puts those that count where they belong by now:
    /// here, or on a level below, or wherever they moved.
    fn sweep_slot(&mut self, level: usize, slot: usize, owner: &mut impl Owner<K>) {
        for block in self.levels[level].take(slot) {
            for places in block.chunks(AHEAD) {
                owner.ahead(places);
                for &(when, key) in places {
                    match owner.check(when, key) {
                        Verdict::Done => self.put(when, key),
                        Verdict::Again(later) => self.put(later.max(when), key),
                        Verdict::Lapsed => {
                            self.len -= 1;
                            self.stale = self.stale.saturating_sub(1);
                        }
                    }
                }
            }
            self.spare.give(block);
        }
    }
}
