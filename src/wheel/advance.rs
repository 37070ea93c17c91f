//! Turning the wheel: due places come out in the order of their ticks, a bounded number at a time.
//!
//! Touches the levels and nothing else. Mirrors `check` and `run` in Go's runtime/time.go.

use super::{Tick, Verdict, Wheel, level};

/// How many places may cascade for the price of handing one out.
const CASCADED_FOR_ONE: usize = 16;

impl<K: Copy> Wheel<K> {
    /// Moves to tick `now` and hands every place due by then to `check`, tick by tick (in any
    /// order within a tick), until `budget` is used up. Returns whether it was, with more due:
    /// then call again, with the same `now` or a later one.
    ///
    /// A place handed out costs one of the budget, and so do 16 that cascade, so a call's work
    /// is bounded by the budget however full a slot is. A `now` before
    /// [`elapsed`](Wheel::elapsed) counts as `elapsed`.
    ///
    /// An [`Again`](Verdict::Again) that names no later tick than the one handed out is taken as
    /// one tick after `now`, or an owner that errs would keep the wheel here for ever. (At
    /// [`Tick::MAX`] there is no such tick, and only the budget ends it.)
    ///
    /// O(1) when nothing is due; a place costs O(1) for each level that it comes down.
    ///
    /// ```
    /// use netpoller::wheel::{Tick, Verdict, Wheel};
    ///
    /// let mut wheel = Wheel::new();
    /// for key in 0..3 {
    ///     wheel.place(Tick::new(5), key);
    /// }
    /// let mut seen = 0;
    /// let mut check = |_, _| {
    ///     seen += 1;
    ///     Verdict::Done
    /// };
    /// assert!(wheel.advance(Tick::new(9), 2, &mut check)); // one is left
    /// assert!(!wheel.advance(Tick::new(9), 2, &mut check));
    /// assert_eq!(seen, 3);
    /// ```
    pub fn advance(
        &mut self,
        now: Tick,
        mut budget: usize,
        mut check: impl FnMut(Tick, K) -> Verdict,
    ) -> bool {
        let now = now.max(self.elapsed);
        // The common turn: nothing is due, and no slot is looked at.
        while self.earliest <= now {
            let Some(front) = self.front() else {
                self.earliest = Tick::MAX;
                break;
            };
            self.earliest = front.tick;
            if front.tick > now {
                break;
            }
            if budget == 0 {
                return true;
            }
            // Nothing held is earlier, so nothing is passed.
            self.elapsed = front.tick;
            if front.level == 0 {
                self.hand_out(front.slot, now, &mut budget, &mut check);
            } else {
                self.cascade(front.level, front.slot, &mut budget);
            }
        }
        self.elapsed = now;
        false
    }

    /// Hands out the places of one tick, as far as the budget goes.
    fn hand_out(
        &mut self,
        slot: usize,
        now: Tick,
        budget: &mut usize,
        check: &mut impl FnMut(Tick, K) -> Verdict,
    ) {
        while *budget > 0 {
            // Taken out before the call: whatever the owner does, even panic, it is handed out once.
            let Some((when, key)) = self.levels[0].slot(slot).places.pop() else {
                break;
            };
            *budget -= 1;
            self.len -= 1;
            match check(when, key) {
                Verdict::Done => {}
                Verdict::Lapsed => self.stale = self.stale.saturating_sub(1),
                Verdict::Again(later) if later > when => self.place(later, key),
                Verdict::Again(_) => self.place(now.saturating_add(1), key),
            }
        }
        self.levels[0].settle(slot);
    }

    /// Spreads the places of a slot over the levels below, as far as the budget goes.
    /// `elapsed` is the earliest of them, so every one moves down (ground rule 1).
    fn cascade(&mut self, level: usize, slot: usize, budget: &mut usize) {
        let (below, above) = self.levels.split_at_mut(level);
        let places = &mut above[0].slot(slot).places;
        let moving = places.len().min(budget.saturating_mul(CASCADED_FOR_ONE));
        for (when, key) in places.drain(places.len() - moving..) {
            level::put(below, self.elapsed, when, key);
        }
        // Rounded down: the earliest of them falls due now, and pays for a handful.
        *budget -= moving / CASCADED_FOR_ONE;
        above[0].settle(slot);
    }
}
