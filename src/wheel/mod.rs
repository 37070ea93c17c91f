//! A hierarchical timer wheel: ticks go in, due keys come out. No clock, no I/O.
//!
//! [`Wheel`] is the bare thing, for an owner that keeps the truth about each deadline elsewhere.
//! [`Timers`] is such an owner: a slab of timers over a wheel.
//!
//! ```
//! use netpoller::wheel::{Tick, Timers};
//!
//! let mut timers = Timers::new();
//! timers.insert(Tick::new(5), "five");
//! timers.insert(Tick::new(3), "three");
//! let mut due = Vec::new();
//! timers.advance(Tick::new(4), 100, |value| due.push(value));
//! assert_eq!(due, ["three"]);
//! assert_eq!(timers.next(), Some(Tick::new(5)));
//! ```
// Does the work of the heap in Go's runtime/time.go: an entry is its `timerWhen`, a stale entry its
// zombie.
//
//   level 0   64 slots of    1 tick     what is in one slot is due together
//   level 1   64 slots of   64 ticks
//   level 2   64 slots of 4096 ticks    ... six levels reach 2^36 ticks, eleven all of u64
//
// # Ground rules
//
// A new entry goes to the level that reads the highest bit in which its tick differs from
// `elapsed`, and there to the slot that the tick's six bits of this level name. When the earliest
// entry of a slot falls due, the slot *cascades*: its entries go one level down. So these hold:
//
// 1. `elapsed` moves to the earliest entry held, or to a `now` before that. It passes no entry.
// 2. Above its level, an entry has the bits of `elapsed`; those of its level are not smaller.
//    So a level never wraps: its first slot in use has its earliest entry.
// 3. Levels may overlap: an entry in a wide slot may be due before a later comer in a narrow one. The
//    earliest of all is the earliest of the levels' first slots, found without search.
// 4. Nothing ever happens at the boundary of a slot, so no owner need be woken there.
// 5. A slot that is cascaded in part is like any other, but nothing more goes into it: the levels
//    below now read its ticks.

mod timers;
#[expect(clippy::module_inception, reason = "the wheel of the wheel's module")]
mod wheel;

#[cfg(test)]
mod tests;

pub use timers::{TimerKey, Timers};
pub use wheel::Wheel;

/// A point in the wheel's time, counted in ticks from the owner's beginning.
///
/// The unit is the owner's: the reactor's ticks are milliseconds.
///
/// ```
/// use netpoller::wheel::Tick;
///
/// let soon = Tick::new(5);
/// assert!(Tick::ZERO < soon && soon < Tick::MAX);
/// assert_eq!(soon.saturating_add(2).get(), 7);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(u64);

impl Tick {
    /// The beginning: the tick at which every wheel starts.
    pub const ZERO: Tick = Tick(0);

    /// The last tick. A wheel holds an entry here like any other; an owner may take it to mean
    /// "never".
    pub const MAX: Tick = Tick(u64::MAX);

    /// The tick `count` ticks after the beginning.
    ///
    /// ```
    /// # use netpoller::wheel::Tick;
    /// const SECOND: Tick = Tick::new(1_000);
    /// assert_eq!(SECOND.get(), 1_000);
    /// ```
    pub const fn new(count: u64) -> Tick {
        Tick(count)
    }

    /// How many ticks after the beginning this is.
    ///
    /// ```
    /// # use netpoller::wheel::Tick;
    /// assert_eq!(Tick::ZERO.get(), 0);
    /// ```
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The tick `ticks` later, or [`Tick::MAX`] where that would be past the end of time.
    ///
    /// ```
    /// # use netpoller::wheel::Tick;
    /// assert_eq!(Tick::new(1).saturating_add(2), Tick::new(3));
    /// assert_eq!(Tick::MAX.saturating_add(1), Tick::MAX);
    /// ```
    pub const fn saturating_add(self, ticks: u64) -> Tick {
        Tick(self.0.saturating_add(ticks))
    }
}
