//! Turning the wheel: due places come out in the order of their ticks, a bounded number at a time.
//!
//! Touches the levels and nothing else. Mirrors `check` and `run` in Go's runtime/time.go.

use super::level::slot_of;
use super::{Owner, Tick, Verdict, Wheel};

/// How many places an owner is told of in advance.
const AHEAD: usize = 64;

/// How many places may cascade for the price of handing one out.
const CASCADED_FOR_ONE: usize = 16;

impl<K: Copy> Wheel<K> {
    /// Moves to tick `now` and hands every place due by then to `check`, tick by tick (in any
    /// order within a tick), until `budget` is used up. Returns whether it was, with more to
    /// do: then call again, with the same `now` or a later one.
    ///
    /// A place handed out costs one of the budget, and so do 16 that cascade: a call's work is
    /// bounded by it, however full a slot is. A `now` before [`elapsed`](Wheel::elapsed) counts
    /// as `elapsed`.
    ///
    /// An [`Again`](Verdict::Again) that names no later tick than the one handed out counts as
    /// one tick after `now`: an owner that errs would else keep the wheel here for ever. (At
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
    /// assert!(!wheel.advance(Tick::new(9), 1, &mut check));
    /// assert_eq!(seen, 3);
    /// ```
    pub fn advance(
        &mut self,
        now: Tick,
        budget: usize,
        mut check: impl FnMut(Tick, K) -> Verdict,
    ) -> bool {
        self.turn(now, budget, &mut check)
    }

    /// As [`advance`](Wheel::advance), for any owner.
    #[inline]
    pub(super) fn turn(&mut self, now: Tick, mut budget: usize, owner: &mut impl Owner<K>) -> bool {
        let now = now.max(self.elapsed);
        // The common turn ends here: nothing is due, and no slot is looked at.
        while self.earliest <= now {
            let Some(front) = self.front() else { break };
            if self.earliest > now {
                break;
            }
            if budget == 0 {
                return true;
            }
            // Nothing held is earlier, so nothing is passed.
            self.elapsed = self.earliest;
            if front.level == 0 {
                self.hand_out(front.slot, now, &mut budget, owner);
            } else {
                self.cascade(front.level, front.slot, &mut budget);
            }
        }
        self.elapsed = now;
        false
    }

    /// Hands out the places of one tick, as far as the budget goes.
    fn hand_out(&mut self, slot: usize, now: Tick, budget: &mut usize, owner: &mut impl Owner<K>) {
        let mut told = 0;
        loop {
            let tail = self.levels[0].tail(slot, &mut self.spare);
            let Some(&(when, key)) = tail.last() else {
                return self.levels[0].settle(slot, &mut self.spare);
            };
            if *budget == 0 {
                return;
            }
            if told == 0 {
                told = tail.len().min(AHEAD);
                owner.ahead(&tail[tail.len() - told..]);
            }
            // Taken out before the owner is asked: even if that panics, it comes out once.
            tail.pop();
            told -= 1;
            *budget -= 1;
            self.len -= 1;
            match owner.check(when, key) {
                Verdict::Done => {}
                Verdict::Lapsed => self.stale = self.stale.saturating_sub(1),
                Verdict::Again(later) if later > when => self.place(later, key),
                Verdict::Again(_) => self.place(now.saturating_add(1), key),
            }
        }
    }

    /// Spreads the places of a slot over the level below, as far as the budget goes.
    /// `elapsed` is the earliest of them, so the level below reads where they belong.
    fn cascade(&mut self, level: usize, slot: usize, budget: &mut usize) {
        let (below, here) = self.levels.split_at_mut(level);
        let (below, here) = (&mut below[level - 1], &mut here[0]);
        let allowed = budget.saturating_mul(CASCADED_FOR_ONE);
        let mut moved = 0;
        loop {
            let tail = here.tail(slot, &mut self.spare);
            if tail.is_empty() {
                here.settle(slot, &mut self.spare);
                break;
            }
            let moving = tail.len().min(allowed - moved);
            if moving == 0 {
                break;
            }
            moved += moving;
            for place in tail.drain(tail.len() - moving..) {
                let slot = slot_of(level - 1, place.0);
                below.make_room(slot, &mut self.spare);
                below.push(slot, place.0, place);
            }
        }
        // Rounded down: the earliest of them is handed out next, and pays for a few.
        *budget -= moved / CASCADED_FOR_ONE;
    }
}
