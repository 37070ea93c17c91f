//! A descriptor's two deadlines, and the one place in the wheel that stands for the sooner.
//!
//! May touch: its parent's state. Mirrors `rd`, `wd` and `rseq`, `wseq` of Go's `pollDesc`, and
//! `netpolldeadlineimpl` in `runtime/netpoll.go`.
//!
//! # The place
//!
//! | state | meaning | who moves it there | on to |
//! |---|---|---|---|
//! | None | the wheel holds nothing that counts | `new`, `evict`, `keeps` of an idle one | Held by `set_deadline` |
//! | Held(tick) | no deadline lies before it, but for one that was spared | `set_deadline`, `due` and `expire` that go on | Held elsewhere, earlier by `set_deadline`, later when it comes up; Idle; None |
//! | Idle(tick) | the wheel holds it, and it stands for nothing | the last deadline cleared | Held by a deadline set; None when it comes up |
//!
//! A deadline that moves later leaves the place where it is: the wheel comes by, and finds out.

use super::{BOTH, Direction, IDLE_PLACE, NEVER, ONE_OWNER, STAMP_SHIFT, State, expired_bit};
use crate::wheel::Tick;

/// Where the tick of an idle place is kept.
const IDLE_TICK: usize = Direction::Write as usize;

/// What the wheel should do with a place of this descriptor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The place had been left behind.
    Lapsed,
    /// No deadline is left.
    Nothing,
    /// A deadline stands at this later tick.
    Again(Tick),
}

/// What the wheel must hear of a deadline that was set.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Placing {
    /// Nothing: the place it holds comes up early enough.
    Keep,
    /// It needs an earlier place; the one it held, if any, is left behind.
    Place { when: Tick, left_behind: bool },
    /// The place it holds no longer stands for a deadline.
    Idle,
    /// The place it holds stands for a deadline again.
    Revive,
}

impl<W> State<W> {
    /// Moves a deadline later, which is a store. False if that is not all: the place that is held,
    /// if any, comes too late for it, or stands for nothing.
    #[inline]
    pub(crate) fn put_off(&self, direction: Direction, when: Tick) -> bool {
        // A closed descriptor holds no place.
        let keeps = when >= self.placed.get();
        if keeps {
            self.deadline[direction as usize].set(when);
            self.lower(expired_bit(direction));
        }
        keeps
    }

    /// As `put_off`, for reading and writing; `soonest` is the sooner of both.
    #[inline]
    pub(crate) fn put_off_both(&self, soonest: Tick, when: impl FnOnce() -> [Tick; 2]) -> bool {
        let keeps = soonest >= self.placed.get();
        if keeps {
            let [read, write] = when();
            self.deadline[Direction::Read as usize].set(read);
            self.deadline[Direction::Write as usize].set(write);
            self.lower(expired_bit(Direction::Read) | expired_bit(Direction::Write));
        }
        keeps
    }

    /// Stores any deadline that has not passed, [`NEVER`] for none, and says what the wheel must
    /// hear of it.
    pub(crate) fn set_deadline(&self, direction: Direction, when: Tick) -> Placing {
        if self.is_closed() {
            return Placing::Keep;
        }
        let idle = self.take_up_place();
        self.deadline[direction as usize].set(when);
        self.lower(expired_bit(direction));
        if self.next_deadline() == NEVER {
            return match self.lay_down_place() {
                true if !idle => Placing::Idle,
                _ => Placing::Keep,
            };
        }
        // Not the earlier of both deadlines: one that was spared lies before its place, and waits.
        if when >= self.placed.get() {
            return if idle { Placing::Revive } else { Placing::Keep };
        }
        let held = self.placed.replace(when) != NEVER;
        Placing::Place {
            when,
            left_behind: held && !idle,
        }
    }

    /// No deadline needs the place that is held: its tick is kept where a deadline was, so that
    /// whatever is set next finds no place, and thus comes to look. False if none is held.
    fn lay_down_place(&self) -> bool {
        let placed = self.placed.replace(NEVER);
        if placed != NEVER {
            self.deadline[IDLE_TICK].set(placed);
            self.raise(IDLE_PLACE);
        }
        placed != NEVER
    }

    /// The place that was held for nothing counts again. False if there is none.
    pub(super) fn take_up_place(&self) -> bool {
        let idle = self.flags.get() & IDLE_PLACE != 0;
        if idle {
            self.lower(IDLE_PLACE);
            self.placed.set(self.deadline[IDLE_TICK].replace(NEVER));
        }
        idle
    }

    fn next_deadline(&self) -> Tick {
        self.deadline[0].get().min(self.deadline[1].get())
    }

    /// A deadline in the past: expires at once, even with data waiting.
    pub(crate) fn expire_now(&self, direction: Direction) -> (Option<W>, Placing) {
        let placing = self.set_deadline(direction, NEVER);
        (self.expire_one(direction), placing)
    }

    fn expire_one(&self, direction: Direction) -> Option<W> {
        self.deadline[direction as usize].set(NEVER);
        self.raise(expired_bit(direction));
        self.unpark(direction)
    }

    /// The place that was just put into the wheel has this number.
    pub(crate) fn number_place(&self, number: u32) {
        self.number.set(number);
    }

    /// Whether the place of this number is the one that counts.
    fn holds(&self, number: u32) -> bool {
        let held = self.placed.get() != NEVER || self.flags.get() & IDLE_PLACE != 0;
        held && number == self.number.get()
    }

    /// The wheel reached a place; deadlines up to `limit` have passed. A direction that this very
    /// harvest (`stamp`) made ready is spared, once: its bytes had come, and its owner has had no
    /// turn to move the deadline. A deadline that lies before its place has been spared.
    pub(crate) fn expire(
        &self,
        number: u32,
        limit: Tick,
        stamp: Option<u16>,
        out: &mut impl FnMut(W),
    ) -> Due {
        if !self.holds(number) {
            return Due::Lapsed;
        }
        let idle = self.take_up_place();
        let fresh = stamp.is_some_and(|stamp| self.flags.get() >> STAMP_SHIFT == u32::from(stamp));
        let mut next = NEVER;
        let mut passed = false;
        for direction in BOTH {
            let mut when = self.deadline[direction as usize].get();
            if when <= limit {
                if fresh && self.is_ready(direction) && when >= self.placed.get() {
                    when = limit.saturating_add(1);
                } else {
                    passed = true;
                    if let Some(w) = self.expire_one(direction) {
                        out(w);
                    }
                    continue;
                }
            }
            next = next.min(when);
        }
        if passed && self.flags.get() & ONE_OWNER != 0 {
            BOTH.into_iter()
                .filter_map(|place| self.unpark(place))
                .for_each(out);
        }
        self.replace_place(idle, next)
    }

    /// How many directions' deadlines have passed.
    pub(crate) fn expired(&self) -> usize {
        let directions = BOTH.into_iter();
        let bits = directions.fold(0, |bits, direction| bits | expired_bit(direction));
        (self.flags.get() & bits).count_ones() as usize
    }

    /// Whether a place still counts, and for when: for a virtual clock, which stops nowhere else.
    pub(crate) fn due(&self, number: u32) -> Due {
        if !self.holds(number) {
            return Due::Lapsed;
        }
        let idle = self.take_up_place();
        match self.next_deadline() {
            NEVER => self.replace_place(idle, NEVER),
            // One that was spared comes up at its place, not before.
            next => self.replace_place(idle, next.max(self.placed.get())),
        }
    }

    /// The held place is coming out of the wheel, and goes back in at `next` if there is one.
    fn replace_place(&self, idle: bool, next: Tick) -> Due {
        self.placed.set(next);
        match next {
            NEVER if idle => Due::Lapsed,
            NEVER => Due::Nothing,
            next => Due::Again(next),
        }
    }

    /// Whether the wheel should keep a place when it throws out what is stale.
    pub(crate) fn keeps(&self, number: u32) -> bool {
        if !self.holds(number) {
            return false;
        }
        let idle = self.take_up_place();
        if idle {
            self.placed.set(NEVER);
        }
        !idle
    }
}
