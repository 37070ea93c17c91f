//! Sweeping the wheel: places that no longer count are taken out before their tick.
//!
//! Touches the levels and nothing else. Mirrors `adjust` and `cleanHead` in Go's runtime/time.go,
//! which removes zombies once they are a quarter of the heap; here they may be half.

use super::level::{LEVELS, Slot};
use super::{SLACK, Tick, Verdict, Wheel};

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
    /// O(places) and not bounded by a budget. When called only if the wheel is
    /// [`overgrown`](Wheel::overgrown): at most two places looked at for each that lapsed.
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
                let Slot { places, earliest } = level.slot(slot);
                let mut kept = Tick::MAX;
                places.retain(|&(when, key)| {
                    let keeping = keep(when, key);
                    if keeping {
                        kept = kept.min(when.max(self.elapsed));
                    } else {
                        self.len -= 1;
                    }
                    keeping
                });
                *earliest = kept;
                level.settle(slot);
            }
        }
        self.stale = 0;
        self.earliest = self.front().map_or(Tick::MAX, |front| front.tick);
    }

    /// The earliest place that counts, after removing those before it that do not; nothing
    /// fires, and [`elapsed`](Wheel::elapsed) stays. Never before `elapsed`. For a virtual
    /// clock, which must not stop where only a stale place lies.
    ///
    /// `check` answers [`Done`](Verdict::Done) for a live place, which stays, and is asked in
    /// no order, about places after the earliest too. An [`Again`](Verdict::Again) that names no
    /// later tick counts as `Done`.
    ///
    /// O(the places of the first slots), and amortised O(levels) a place for an owner that
    /// advances to the answer.
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
        // Slots whose places are all live, a bitmap a level. What is moved to them is live too.
        let mut swept = [0u64; LEVELS];
        loop {
            let Some(front) = self.front() else {
                self.earliest = Tick::MAX;
                return None;
            };
            if swept[front.level] >> front.slot & 1 == 1 {
                self.earliest = front.tick;
                return Some(front.tick);
            }
            self.sweep(front.level, front.slot, &mut check);
            swept[front.level] |= 1 << front.slot;
        }
    }

    /// Asks about every place of a slot: stale ones go, moved ones move.
    fn sweep(&mut self, level: usize, slot: usize, check: &mut impl FnMut(Tick, K) -> Verdict) {
        let mut earliest = Tick::MAX;
        let mut index = 0;
        while let Some(&(when, key)) = self.levels[level].slot(slot).places.get(index) {
            match check(when, key) {
                Verdict::Lapsed => {
                    self.levels[level].slot(slot).places.swap_remove(index);
                    self.len -= 1;
                    self.stale = self.stale.saturating_sub(1);
                }
                Verdict::Again(later) if later > when => {
                    self.levels[level].slot(slot).places.swap_remove(index);
                    self.put(later, key);
                }
                Verdict::Done | Verdict::Again(_) => {
                    earliest = earliest.min(when.max(self.elapsed));
                    index += 1;
                }
            }
        }
        self.levels[level].slot(slot).earliest = earliest;
        self.levels[level].settle(slot);
    }
}
