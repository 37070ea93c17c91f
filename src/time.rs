//! Sleeping, and giving things a limit, by the loop's clock.
//!
//! May touch: the runtime. Mirrors Go's `time.Sleep`, `time.After` and `time.Ticker`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::runtime::context;
use crate::runtime::scheduler::Scheduler;
use crate::runtime::select::{Either, select};
use crate::runtime::sleeper::Registration;

const NANOS: u128 = 1_000_000_000;

/// A deadline that never comes within anybody's life, for durations that overflow.
const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);

pub(crate) fn after(start: Instant, wait: Duration) -> Instant {
    start.checked_add(wait).unwrap_or_else(|| start + FAR)
}

/// A fresh reading: of the runtime's clock if this thread is in a turn of one, else the system's.
pub(crate) fn clock() -> Instant {
    let fresh = context::try_with(|scheduler| scheduler.reactor.read_clock());
    fresh.unwrap_or_else(Instant::now)
}

/// The loop's time: the reading that this turn took. Costs a load; good for absolute deadlines.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use netpoller::time;
/// netpoller::Runtime::new()?.block_on(async {
///     assert_eq!(time::now(), time::now());
/// });
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// Outside a runtime.
#[inline]
#[track_caller]
pub fn now() -> Instant {
    match context::now() {
        Some(now) => now,
        None => context::outside_a_runtime("time::now"),
    }
}

/// Sleeps for at least `wait`, counted from a fresh reading of the clock.
///
/// The resolution is a millisecond, rounded up. A wait too long to represent is thirty years.
///
/// # Panics
///
/// Outside a runtime, when called or when polled on a thread that drives none.
///
/// # Cancel safety
///
/// Dropping it takes its timer away.
#[track_caller]
pub fn sleep(wait: Duration) -> Sleep {
    context::with("time::sleep", |scheduler| Sleep {
        deadline: after(scheduler.reactor.read_clock(), wait),
        registration: None,
        yielded: false,
    })
}

/// Sleeps until `deadline`; one that has passed is ready at once.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep {
        deadline,
        registration: None,
        yielded: false,
    }
}

/// A sleep under way: see [`sleep`] and [`sleep_until`].
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    deadline: Instant,
    /// Its timer, in the runtime that first polled it.
    registration: Option<Registration>,
    /// It is over, and let others have their turn first.
    yielded: bool,
}

impl Sleep {
    pub(crate) fn judging_a_peer(deadline: Instant) -> Self {
        sleep_until(deadline)
    }

    /// When it ends.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Moves the end; moving it later is a store. A sleep that has ended sleeps again.
    pub fn reset(&mut self, deadline: Instant) {
        self.deadline = deadline;
        if let Some(registration) = &mut self.registration {
            registration.move_to(deadline);
        }
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        if let Some(registration) = &mut self.registration {
            return registration.poll(deadline, cx);
        }
        let scheduler: Rc<Scheduler> = context::with("polling a sleep", Rc::clone);
        if scheduler.reactor.has_passed(deadline) {
            return Poll::Ready(());
        }
        self.registration = Some(Registration::new(scheduler, deadline, cx));
        Poll::Pending
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll_end(cx));
        context::poll_budget_once(&mut self.yielded, cx.waker())
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep")
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// The time given to [`timeout`] passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed(());

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("deadline has elapsed")
    }
}

impl std::error::Error for Elapsed {}

impl From<Elapsed> for std::io::Error {
    fn from(elapsed: Elapsed) -> Self {
        std::io::Error::new(std::io::ErrorKind::TimedOut, elapsed)
    }
}

/// Gives a future so long to end, from when this is first polled; it is dropped if it does not.
///
/// A future that is ready when the time is up wins.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use netpoller::time::{sleep, timeout};
/// use std::time::Duration;
/// let runtime = netpoller::Runtime::builder().virtual_clock().build()?;
/// runtime.block_on(async {
///     let hour = Duration::from_secs(3600);
///     assert!(timeout(hour, sleep(2 * hour)).await.is_err());
///     assert!(timeout(2 * hour, sleep(hour)).await.is_ok());
/// });
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`Elapsed`], when the time passed first.
///
/// # Panics
///
/// Outside a runtime.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    match select(future, sleep(limit)).await {
        Either::First(output) => Ok(output),
        Either::Second(()) => Err(Elapsed(())),
    }
}

/// Ticks every `period`, the first time at once.
///
/// # Panics
///
/// If `period` is zero, or outside a runtime.
#[track_caller]
pub fn interval(period: Duration) -> Interval {
    assert!(
        !period.is_zero(),
        "netpoller: an interval's period can't be zero"
    );
    let start = context::with("time::interval", |scheduler| scheduler.reactor.read_clock());
    Interval {
        period,
        sleep: sleep_until(start),
    }
}

/// A steady tick: see [`interval`].
#[derive(Debug)]
pub struct Interval {
    period: Duration,
    sleep: Sleep,
}

impl Interval {
    /// Waits for the next tick and says when it was due. Ticks that were missed are skipped: the
    /// next is the first that lies ahead, in step with the others.
    ///
    /// # Cancel safety
    ///
    /// A tick that was not waited for to its end is not lost.
    pub async fn tick(&mut self) -> Instant {
        (&mut self.sleep).await;
        let due = self.sleep.deadline();
        // Not the loop's time: by that, what this turn has missed would still lie ahead.
        let late = clock().saturating_duration_since(due).as_nanos();
        let period = self.period.as_nanos();
        let next = late - late % period + period;
        let next = Duration::new((next / NANOS) as u64, (next % NANOS) as u32);
        self.sleep.reset(after(due, next));
        due
    }

    /// The period.
    pub fn period(&self) -> Duration {
        self.period
    }
}
