//! Sleeping, and giving things a limit, by the runtime's clock.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! use netpoller::{Runtime, time};
//! use std::time::Duration;
//! // A clock that jumps: the hour takes no time.
//! let runtime = Runtime::builder().virtual_clock().build()?;
//! runtime.block_on(async {
//!     let start = time::now();
//!     time::sleep(Duration::from_secs(3600)).await;
//!     assert_eq!(time::now() - start, Duration::from_secs(3600));
//! });
//! # Ok(())
//! # }
//! ```
//!
//! The resolution is a millisecond, rounded up: nothing is early. The sleeps and intervals of this module
//! judge no peer, and so fire by the clock, however busy the loop is.
// Mirrors Go's `time.Sleep`, `time.After` and `time.Ticker`; and the `timer` in a sleeping goroutine.
//
// | `Sleep::timer` | in the wheel | moved there by | on to |
// |---|---|---|---|
// | none | nothing | the start; a poll that is ready; a reset outside its runtime's turn | some |
// | some | its timer, unless that has fired, in the runtime that polled it last | a poll that waits | none; another, by the next poll |

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, ready};
use std::pin::{Pin, pin};
use std::task::{self, Context, Poll};
use std::time::{Duration, Instant};

use crate::runtime::context::{self, ParkKey};
use crate::runtime::scheduler::Scheduler;
use crate::runtime::{Either, select};
use crate::runtime::{Handle, current, wake_quietly};
use crate::wheel::{TimerKey, Timers};

/// Thirty years: for durations that overflow.
const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);

pub(crate) fn after(start: Instant, wait: Duration) -> Instant {
    start.checked_add(wait).unwrap_or_else(|| start + FAR)
}

/// A fresh reading: of the clock of the runtime that is entered on this thread, else of the system's.
pub(crate) fn clock() -> Instant {
    let fresh = current::try_with(|scheduler| scheduler.reactor.core.clock.read());
    fresh.unwrap_or_else(Instant::now)
}

/// A fresh reading of the runtime's clock, real or virtual.
///
/// To set a deadline some time from now, add that time to this:
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use netpoller::{TcpListener, time};
/// use std::time::Duration;
/// # netpoller::Runtime::builder().virtual_clock().build()?.block_on(async {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// listener.set_deadline(Some(time::now() + Duration::from_secs(5)))?;
/// assert!(listener.accept().await.is_err());
/// # Ok(())
/// # })
/// # }
/// ```
///
/// # Panics
///
/// Outside a runtime. A host is outside between two turns: it takes [`Instant::now`], or, if the
/// clock is not the system's, `block_on(async { time::now() })`.
#[track_caller]
pub fn now() -> Instant {
    read("time::now")
}

/// A fresh reading, or a panic that says that `what` was called outside a runtime.
#[track_caller]
fn read(what: &str) -> Instant {
    current::with(what, |scheduler| scheduler.reactor.core.clock.read())
}

/// The loop's last reading of its clock. It costs a load, and is older than now by what the turn has
/// taken since the reading. A deadline counted from it may come sooner than was asked for, by that time.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::builder().virtual_clock().build()?.block_on(async {
/// use netpoller::time;
/// use std::time::Duration;
/// let before = time::coarse_now();
/// time::sleep(Duration::from_secs(1)).await;
/// assert!(time::coarse_now() - before >= Duration::from_secs(1));
/// assert!(time::coarse_now() <= time::now());
/// # Ok(())
/// # })
/// # }
/// ```
///
/// # Panics
///
/// Outside a runtime.
#[track_caller]
pub fn coarse_now() -> Instant {
    match current::last_reading() {
        Some(reading) => reading,
        None => current::outside_a_runtime("time::coarse_now"),
    }
}

/// Sleeps for at least `wait`, counted from a fresh reading of the clock.
///
/// The resolution is a millisecond, rounded up. A wait too long to represent is thirty years.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// use std::time::Duration;
/// netpoller::time::sleep(Duration::from_millis(5)).await;
/// # Ok(())
/// # })
/// # }
/// ```
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
    sleep_until(after(read("time::sleep"), wait))
}

/// Sleeps until `deadline`. One that has passed is ready at once, though it may yield.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::builder().virtual_clock().build()?.block_on(async {
/// use netpoller::time;
/// use std::time::Duration;
/// let noon = time::now() + Duration::from_secs(3600);
/// time::sleep_until(noon).await;
/// assert!(time::now() >= noon);
/// time::sleep_until(noon).await; // has passed
/// # Ok(())
/// # })
/// # }
/// ```
///
/// # Panics
///
/// When polled on a thread that drives no runtime.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep {
        deadline,
        ends: Ends::ByTheClock,
        timer: None,
        yielded: false,
    }
}

/// A sleep under way: see [`sleep`] and [`sleep_until`].
///
/// It is plain data, and may go to any thread. Its timer is in the runtime that polled it last, which
/// forgets the timer when the sleep is dropped.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::builder().virtual_clock().build()?.block_on(async {
/// use netpoller::time::{now, sleep};
/// use std::time::Duration;
///
/// let begin = now();
/// let mut nap = std::pin::pin!(sleep(Duration::from_secs(3600)));
/// // Sooner than was planned.
/// nap.as_mut().reset(begin + Duration::from_secs(1));
/// nap.await;
/// assert!(now() - begin < Duration::from_secs(10));
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    deadline: Instant,
    ends: Ends,
    /// The runtime that polled it last, and its timer there.
    timer: Option<(Handle, TimerKey)>,
    /// The sleep is over, and has yielded once.
    yielded: bool,
}

impl Sleep {
    /// A sleep after which a peer is judged.
    pub(crate) fn judging_a_peer(deadline: Instant) -> Self {
        let mut sleep = sleep_until(deadline);
        sleep.ends = Ends::OnceSettled;
        sleep
    }

    /// When it ends.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::builder().virtual_clock().build()?.block_on(async {
    /// use netpoller::time;
    /// use std::time::Duration;
    /// let noon = time::now() + Duration::from_secs(3600);
    /// assert_eq!(time::sleep_until(noon).deadline(), noon);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Moves the end. Moving it later only stores it. A sleep that has ended sleeps again when polled.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::builder().virtual_clock().build()?.block_on(async {
    /// use netpoller::time::{now, sleep};
    /// use std::time::Duration;
    /// /// Ends a second after the last message, of which three come.
    /// let mut quiet = std::pin::pin!(sleep(Duration::from_secs(1)));
    /// for _ in 0..3 {
    ///     quiet.as_mut().reset(now() + Duration::from_secs(1));
    /// }
    /// quiet.await;
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub fn reset(&mut self, deadline: Instant) {
        self.deadline = deadline;
        let Some((home, key)) = &self.timer else {
            return;
        };
        let moved = home.if_here(|scheduler| {
            let when = scheduler.reactor.core.clock.tick_of(deadline);
            let timers = self.ends.timers(scheduler);
            timers.borrow_mut().move_to(*key, when);
            scheduler.reactor.core.wake_host();
        });
        // Outside a turn of that runtime: its next turn wakes what sleeps, which then takes a new timer.
        if moved.is_none() {
            self.take_timer(wake);
        }
    }

    /// Takes the timer out, on any thread. `then` gets what waited.
    fn take_timer(&mut self, then: fn(&Scheduler, ParkKey)) {
        let Some((home, key)) = self.timer.take() else {
            return;
        };
        let ends = self.ends;
        home.tell(move |scheduler| {
            let parked = ends.timers(scheduler).borrow_mut().cancel(key);
            if let Some(parked) = parked {
                then(scheduler, parked);
            }
        });
    }
}

fn wake(scheduler: &Scheduler, parked: ParkKey) {
    match parked.take_waker() {
        Some(waker) => wake_quietly(waker),
        None => scheduler.wake(parked.as_machine()),
    }
}

fn forget(_: &Scheduler, parked: ParkKey) {
    drop(parked.take_waker());
}

/// When a sleep ends.
#[derive(Clone, Copy, Debug)]
enum Ends {
    ByTheClock,
    /// Once its tick is settled: it judges a peer.
    OnceSettled,
}

impl Ends {
    /// The timers of such sleeps. No code of the user's may run while they are borrowed.
    fn timers(self, scheduler: &Scheduler) -> &RefCell<Timers<ParkKey>> {
        let core = &scheduler.reactor.core;
        match self {
            Ends::ByTheClock => &core.timers,
            Ends::OnceSettled => &core.peer_timers,
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        task::ready!(current::with("polling a sleep", |scheduler| {
            let core = &scheduler.reactor.core;
            let when = core.clock.tick_of(self.deadline);
            let has_passed = match self.ends {
                Ends::OnceSettled => when <= core.settled.get(),
                Ends::ByTheClock => {
                    self.deadline <= core.clock.now() || self.deadline <= core.clock.read()
                }
            };
            if has_passed {
                self.take_timer(forget);
                return Poll::Ready(());
            }
            let parked = ParkKey::of(scheduler.home(), cx.waker());
            let timers = self.ends.timers(scheduler);
            // The old timer may have fired, be another runtime's, or wake another waker.
            if let Some((home, key)) = &self.timer
                && home.if_here(|_| timers.borrow().get(*key) == Some(&parked)) == Some(true)
            {
                return Poll::Pending;
            }
            self.take_timer(forget);
            let key = timers.borrow_mut().insert(when, parked);
            core.wake_host();
            self.timer = Some((scheduler.handle(), key));
            Poll::Pending
        }));
        context::poll_yield(&mut self.yielded, cx.waker())
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.take_timer(forget);
    }
}

/// The time given to [`timeout`] passed.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::builder().virtual_clock().build()?.block_on(async {
/// use netpoller::time::{Elapsed, timeout};
/// use std::time::Duration;
///
/// let never = std::future::pending::<()>();
/// let late: Result<(), Elapsed> = timeout(Duration::from_secs(1), never).await;
/// assert!(late.is_err());
/// # Ok(())
/// # })
/// # }
/// ```
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

/// Gives a future the time `limit` to end, from the first poll on. If it does not, it is dropped.
///
/// The future is polled once more when the time is up: if it is ready then, it wins.
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
    let mut future = pin!(future);
    if let Either::First(output) = select(future.as_mut(), sleep(limit)).await {
        return Ok(output);
    }
    // What it waits for may have come since it was polled.
    match select(future, ready(())).await {
        Either::First(output) => Ok(output),
        Either::Second(()) => Err(Elapsed(())),
    }
}

/// Ticks every `period`, the first time at once.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// use netpoller::time;
/// use std::time::Duration;
/// let mut interval = time::interval(Duration::from_millis(5));
/// let first = interval.tick().await; // at once
/// assert_eq!(interval.tick().await - first, Duration::from_millis(5));
/// # Ok(())
/// # })
/// # }
/// ```
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
    let sleep = sleep_until(read("time::interval"));
    Interval { period, sleep }
}

/// A steady tick: see [`interval`].
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::builder().virtual_clock().build()?.block_on(async {
/// use netpoller::time::{interval, now};
/// use std::time::Duration;
///
/// let begin = now();
/// let mut ticks = interval(Duration::from_secs(10));
/// for _ in 0..3 {
///     ticks.tick().await;
/// }
/// assert!(now() - begin >= Duration::from_secs(20));
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug)]
pub struct Interval {
    period: Duration,
    sleep: Sleep,
}

impl Interval {
    /// Waits for the next tick and says when it was due. Ticks that were missed are skipped: the
    /// next is the first that lies ahead, in step with the others.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::builder().virtual_clock().build()?.block_on(async {
    /// use netpoller::time::{self, interval, sleep};
    /// use std::time::Duration;
    /// let second = Duration::from_secs(1);
    /// let mut ticks = interval(second);
    /// let first = ticks.tick().await; // at once
    /// sleep(second * 5 / 2).await;
    /// // The tick that was due is late, and the one after it is skipped.
    /// assert_eq!(ticks.tick().await, first + second);
    /// assert_eq!(ticks.tick().await, first + 3 * second);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping it before it is ready loses no tick.
    pub async fn tick(&mut self) -> Instant {
        (&mut self.sleep).await;
        let due = self.sleep.deadline();
        // A fresh reading: by the last one, a tick missed in this turn would seem ahead.
        let late = clock().saturating_duration_since(due).as_nanos();
        let period = self.period.as_nanos();
        let next = late - late % period + period;
        debug_assert!(next > late, "the next tick lies ahead");
        let next = u64::try_from(next).unwrap_or(u64::MAX);
        self.sleep.reset(after(due, Duration::from_nanos(next)));
        due
    }

    /// The period.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use std::time::Duration;
    /// let ticks = netpoller::time::interval(Duration::from_secs(1));
    /// assert_eq!(ticks.period(), Duration::from_secs(1));
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub fn period(&self) -> Duration {
        self.period
    }
}
