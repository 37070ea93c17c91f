//! Scopes that end, by hand or at a deadline, and what runs in them.
//!
//! May touch: the runtime's clock and timers. Mirrors Go's `context`: `WithCancel`,
//! `WithDeadline`, `Done`, `Err`, `propagateCancel`.
//!
//! # A scope's life
//!
//! | state | who moves it there | on to |
//! |---|---|---|
//! | Open | `new`, `child`, `with_deadline` | Ended |
//! | Ended(Canceled) | `cancel` of it or of one above, before its deadline | nothing: the first word is the last |
//! | Ended(DeadlineExceeded) | whoever first finds that the deadline has passed | nothing |
//!
//! A child holds its parent; a parent knows its children weakly, and each leaves the list when it
//! goes. A whole tree has ended before anybody is woken, and nobody is woken under a lock.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use slab::Slab;

use crate::runtime::select::{Either, select};
use crate::runtime::{context, wake_quietly};
use crate::time::{self, Sleep};

/// Why a scope ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CancelError {
    /// Somebody cancelled it, or one above it.
    Canceled,
    /// Its deadline passed, or that of one above it.
    DeadlineExceeded,
}

impl fmt::Display for CancelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CancelError::Canceled => "context canceled",
            CancelError::DeadlineExceeded => "context deadline exceeded",
        })
    }
}

impl std::error::Error for CancelError {}

impl From<CancelError> for io::Error {
    /// Never `Interrupted`, which readers and writers would answer by trying again.
    fn from(error: CancelError) -> Self {
        let kind = match error {
            CancelError::Canceled => io::ErrorKind::Other,
            CancelError::DeadlineExceeded => io::ErrorKind::TimedOut,
        };
        io::Error::new(kind, error)
    }
}

/// A scope that many operations share, and that ends all of them: Go's `context.Context`.
///
/// Clones are the same scope, on any thread. A scope ends when it is cancelled, when one above it
/// is, or when its deadline passes; ended, it stays so. Dropping a token ends nothing.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use netpoller::{CancelError, CancelToken, time};
/// use std::time::Duration;
///
/// let runtime = netpoller::Runtime::builder().virtual_clock().build()?;
/// runtime.block_on(async {
///     let request = CancelToken::new();
///     let step = request.with_timeout(Duration::from_secs(5));
///     let hour = time::sleep(Duration::from_secs(3600));
///     assert_eq!(step.run(hour).await, Err(CancelError::DeadlineExceeded));
///
///     // The step ended, not what it is part of; that ends with its cancel, and takes what is
///     // below along.
///     assert_eq!(request.err(), None);
///     let next = request.child();
///     request.cancel();
///     assert_eq!(next.err(), Some(CancelError::Canceled));
/// });
/// # Ok(())
/// # }
/// ```
///
/// # The clock
///
/// A deadline needs no thread and no timer of its own: it is compared with the clock by whoever
/// asks. Inside a runtime that is a fresh reading of the runtime's clock, real or virtual;
/// elsewhere [`Instant::now`]. Who waits, in [`canceled`](CancelToken::canceled) or
/// [`run`](CancelToken::run), sleeps on a timer of the runtime that polls.
#[derive(Clone)]
pub struct CancelToken {
    scope: Arc<Scope>,
}

struct Scope {
    /// The earliest of its own and those above.
    deadline: Option<Instant>,
    /// The scope above, and our place in its list. Empty for a root, and below one that has ended.
    above: OnceLock<(Arc<Scope>, usize)>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ended: Option<CancelError>,
    below: Slab<Weak<Scope>>,
    waiters: Slab<Waker>,
}

impl Default for CancelToken {
    fn default() -> Self {
        CancelToken::new()
    }
}

impl CancelToken {
    /// A scope with nothing above it, and no deadline.
    #[must_use]
    pub fn new() -> Self {
        CancelToken {
            scope: Arc::new(Scope::new(None)),
        }
    }

    /// A scope within this one: it ends with it, and by itself.
    #[must_use]
    pub fn child(&self) -> Self {
        self.below(None)
    }

    /// A child that ends at `deadline`, unless one above ends sooner.
    #[must_use]
    pub fn with_deadline(&self, deadline: Instant) -> Self {
        self.below(Some(deadline))
    }

    /// A child that ends when `limit` has passed, counted from a fresh reading of the clock.
    #[must_use]
    pub fn with_timeout(&self, limit: Duration) -> Self {
        self.below(Some(time::after(time::clock(), limit)))
    }

    fn below(&self, own: Option<Instant>) -> Self {
        let inherited = self.scope.deadline;
        let deadline = own.into_iter().chain(inherited).min();
        let scope = Arc::new(Scope::new(deadline));
        scope.hang_below(&self.scope);
        CancelToken { scope }
    }

    /// When it ends by itself, if it does.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.scope.deadline
    }

    /// Ends the scope and all below it, and wakes whoever waits. One that has ended already, by its
    /// deadline too, stays as it is.
    pub fn cancel(&self) {
        Scope::end(&self.scope, CancelError::Canceled);
    }

    /// Why it ended; `None` while it has not.
    ///
    /// A scope with a deadline reads the clock: good for a loop that computes without waiting.
    #[must_use]
    pub fn err(&self) -> Option<CancelError> {
        let ended = self.scope.state().ended;
        if ended.is_some() || !self.scope.is_late(time::clock) {
            return ended;
        }
        Scope::end(&self.scope, CancelError::DeadlineExceeded);
        self.scope.state().ended
    }

    /// Waits until the scope has ended, one way or the other: Go's `<-ctx.Done()`.
    ///
    /// # Panics
    ///
    /// Polled outside a runtime, if there is a deadline: it sleeps on the runtime's timer.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it leaves nothing behind.
    pub fn canceled(&self) -> Canceled {
        Canceled {
            scope: self.scope.clone(),
            place: None,
            sleep: self.scope.deadline.map(time::sleep_until),
            yielded: false,
        }
    }

    /// Runs a future until it is ready or the scope ends, whichever comes first; what is not ready
    /// then is dropped.
    ///
    /// In a scope that has ended the future is not begun; a future that is ready in the moment
    /// the scope ends has won.
    ///
    /// # Errors
    ///
    /// Why the scope ended.
    ///
    /// # Panics
    ///
    /// As [`canceled`](CancelToken::canceled).
    pub async fn run<F: Future>(&self, future: F) -> Result<F::Output, CancelError> {
        if let Some(ended) = self.err() {
            self.canceled().await;
            return Err(ended);
        }
        let mut end = self.canceled();
        match select(future, poll_fn(|cx| end.poll_why(cx))).await {
            Either::First(output) => Ok(output),
            Either::Second(ended) => Err(ended),
        }
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.scope.state();
        let figures = (state.ended, state.below.len(), state.waiters.len());
        drop(state);
        f.debug_struct("CancelToken")
            .field("ended", &figures.0)
            .field("deadline", &self.scope.deadline)
            .field("children", &figures.1)
            .field("waiters", &figures.2)
            .finish()
    }
}

impl Scope {
    fn new(deadline: Option<Instant>) -> Self {
        Scope {
            deadline,
            above: OnceLock::new(),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing of anybody's runs under the lock, so a poisoned one is as good as ever.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_late(&self, clock: impl FnOnce() -> Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= clock())
    }

    fn hang_below(self: &Arc<Self>, parent: &Arc<Scope>) {
        let mut state = parent.state();
        match state.ended {
            Some(ended) => self.state().ended = Some(ended),
            None => {
                let place = state.below.insert(Arc::downgrade(self));
                let _ = self.above.set((parent.clone(), place));
            }
        }
    }

    /// Ends a scope and all below it. Those whose deadline has passed had ended before.
    fn end(scope: &Arc<Self>, why: CancelError) {
        let now = match why {
            CancelError::Canceled => Some(time::clock()),
            CancelError::DeadlineExceeded => None,
        };
        let mut woken = Vec::new();
        let mut open = vec![scope.clone()];
        while let Some(scope) = open.pop() {
            let mut state = scope.state();
            if state.ended.is_some() {
                continue;
            }
            let late = now.is_some_and(|now| scope.is_late(|| now));
            state.ended = Some(if late {
                CancelError::DeadlineExceeded
            } else {
                why
            });
            let waiters = mem::take(&mut state.waiters);
            woken.extend(waiters.into_iter().map(|(_, waker)| waker));
            let below = mem::take(&mut state.below);
            open.extend(below.into_iter().filter_map(|(_, below)| below.upgrade()));
        }
        woken.into_iter().for_each(wake_quietly);
    }
}

impl Drop for Scope {
    /// Leaves the parent's list. A loop, as a long chain of only children goes all at once.
    fn drop(&mut self) {
        let mut above = self.above.take();
        while let Some((parent, place)) = above {
            let left = parent.state().below.try_remove(place);
            drop(left);
            above = Arc::into_inner(parent).and_then(|mut parent| parent.above.take());
        }
    }
}

/// Waits for the end of a scope: see [`CancelToken::canceled`].
#[must_use = "futures do nothing unless awaited"]
pub struct Canceled {
    scope: Arc<Scope>,
    /// Our place among the waiters.
    place: Option<usize>,
    sleep: Option<Sleep>,
    /// It is ready, and let others have their turn first.
    yielded: bool,
}

impl Canceled {
    /// Why the scope ended, on the machine's budget.
    fn poll_why(&mut self, cx: &mut Context<'_>) -> Poll<CancelError> {
        let why = ready!(self.poll_ended(cx));
        context::poll_budget_once(&mut self.yielded, cx.waker()).map(|()| why)
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<CancelError> {
        if let Some(ended) = self.enlist(cx.waker()) {
            return Poll::Ready(ended);
        }
        let late = match &mut self.sleep {
            Some(sleep) => Pin::new(sleep).poll(cx).is_ready(),
            None => false,
        };
        if !late {
            return Poll::Pending;
        }
        Scope::end(&self.scope, CancelError::DeadlineExceeded);
        let ended = self.scope.state().ended;
        Poll::Ready(ended.unwrap_or(CancelError::DeadlineExceeded))
    }

    /// Leaves `waker` with the scope, unless that has ended.
    fn enlist(&mut self, waker: &Waker) -> Option<CancelError> {
        let state = self.scope.state();
        let known = self.place.and_then(|place| state.waiters.get(place));
        if state.ended.is_some() || known.is_some_and(|known| known.will_wake(waker)) {
            return state.ended;
        }
        // Cloning and dropping a waker may run anything: not under the lock.
        drop(state);
        let mut waker = waker.clone();
        let mut state = self.scope.state();
        if state.ended.is_none() {
            match self.place.and_then(|place| state.waiters.get_mut(place)) {
                Some(known) => mem::swap(known, &mut waker),
                None => {
                    self.place = Some(state.waiters.insert(waker));
                    return None;
                }
            }
        }
        let ended = state.ended;
        drop(state);
        drop(waker);
        ended
    }
}

impl Future for Canceled {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.get_mut().poll_why(cx).map(|_| ())
    }
}

impl Drop for Canceled {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            // One that has ended has an empty list, for good.
            let left = self.scope.state().waiters.try_remove(place);
            drop(left);
        }
    }
}

impl fmt::Debug for Canceled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceled").finish_non_exhaustive()
    }
}
