//! The wheel's time: a count of ticks, typed so that nobody passes a duration for it.
//!
//! Touches nothing. How long a tick is, is the owner's business (here: a millisecond).
//! Mirrors the `when int64` of Go's runtime/time.go.

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

    /// The end of time: a wheel holds a place here as any other, and its owner calls it never.
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
