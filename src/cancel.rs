//! Scopes that end, by hand or at a deadline, and what runs in them.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! use netpoller::{CancelError, CancelToken};
//! # netpoller::Runtime::new()?.block_on(async {
//! let token = CancelToken::new();
//! let worker = netpoller::spawn({
//!     let token = token.clone();
//!     async move { token.run(std::future::pending::<()>()).await }
//! });
//! token.cancel();
//! assert_eq!(worker.await.unwrap(), Err(CancelError::Canceled));
//! # });
//! # Ok(())
//! # }
//! ```

// Mirrors Go's `context`: `WithCancel`, `WithDeadline`, `Done`, `Err`, `propagateCancel`.
//
// A scope's life:
//
// | state | moved there by | on to |
// |---|---|---|
// | Open | `new`, `child`, `with_deadline` | Ended |
// | Ended(Canceled) | `cancel` of it or of one above, before its deadline | nothing: the first reason stays |
// | Ended(DeadlineExceeded) | the first that finds that the deadline has passed | nothing |
//
// A child holds its parent. A parent knows its children weakly, and each leaves the parent's list
// when it is dropped. A whole tree has ended before anything is woken, and nothing is woken under a
// lock.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use slab::Slab;

use crate::runtime::context;
use crate::runtime::panics::wake_quietly;
use crate::runtime::select::{Either, select};
use crate::runtime::waiters::{Ticket, Waiters};
use crate::time::{self, Sleep};

/// Why a scope ended.
///
/// ```
/// use netpoller::{CancelError, CancelToken};
///
/// let token = CancelToken::new();
/// assert_eq!(token.err(), None);
/// token.cancel();
/// assert_eq!(token.err(), Some(CancelError::Canceled));
/// assert_eq!(CancelError::DeadlineExceeded.to_string(), "context deadline exceeded");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CancelError {
    /// `cancel` was called on it or on one above it.
    Canceled,
    /// Its deadline passed, or the deadline of one above it.
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
    /// The kind is `Other` or `TimedOut`. It is never `Interrupted`, after which readers and writers
    /// try again.
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
/// A clone is the same scope. It may be used on any thread and in any runtime. A scope ends when it
/// is canceled, when one above it ends, or when its deadline passes; then it has ended for ever.
/// Dropping a token ends nothing.
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
///     // The step has ended, and the request it is part of has not. A cancel of the request ends all
///     // that is below it.
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
/// A deadline has no thread and no timer of its own: each call compares it with the clock. Inside a
/// runtime that is a fresh reading of the runtime's clock, real or virtual; elsewhere it is
/// [`Instant::now`]. [`canceled`](CancelToken::canceled) and [`run`](CancelToken::run) sleep on a
/// timer of the runtime that polls them.
#[doc(alias = "Context")]
#[derive(Clone)]
pub struct CancelToken {
    scope: Arc<Scope>,
}

struct Scope {
    /// The earliest of its own deadline and those above.
    deadline: Option<Instant>,
    /// The scope above, and the key in its list. Empty for a root, and below one that has ended.
    above: OnceLock<(Arc<Scope>, usize)>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Set once.
    ended: Option<CancelError>,
    /// The children. Empty once it has ended.
    below: Slab<Weak<Scope>>,
    /// The futures that wait for the end. Empty once it has ended.
    waiters: Waiters,
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

    /// A scope within this one: it ends when this one does, or when it is canceled itself.
    #[must_use]
    #[doc(alias = "WithCancel")]
    pub fn child(&self) -> Self {
        self.below(None)
    }

    /// A child that ends at `deadline`, unless one above ends sooner.
    ///
    /// ```
    /// use netpoller::{CancelError, CancelToken};
    /// use std::time::Instant;
    /// let late = CancelToken::new().with_deadline(Instant::now());
    /// assert_eq!(late.err(), Some(CancelError::DeadlineExceeded));
    /// ```
    #[must_use]
    #[doc(alias = "WithDeadline")]
    pub fn with_deadline(&self, deadline: Instant) -> Self {
        self.below(Some(deadline))
    }

    /// A child that ends when `limit` has passed, counted from a fresh reading of the clock.
    #[must_use]
    #[doc(alias = "WithTimeout")]
    pub fn with_timeout(&self, limit: Duration) -> Self {
        self.below(Some(time::after(time::clock(), limit)))
    }

    fn below(&self, own: Option<Instant>) -> Self {
        let inherited = self.scope.deadline;
        let deadline = own.into_iter().chain(inherited).min();
        let scope = Arc::new(Scope::new(deadline));
        let mut parent = self.scope.state();
        match parent.ended {
            Some(ended) => scope.state().ended = Some(ended),
            None => {
                let place = parent.below.insert(Arc::downgrade(&scope));
                let _ = scope.above.set((self.scope.clone(), place));
            }
        }
        drop(parent);
        CancelToken { scope }
    }

    /// The deadline: the earliest of its own and those above. `None` if it has none.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.scope.deadline
    }

    /// Ends the scope and all below it, and wakes what waits for that. A scope that has ended already,
    /// also by its deadline, is not changed.
    pub fn cancel(&self) {
        Scope::end(&self.scope, CancelError::Canceled);
    }

    /// Why it ended, or `None` if it has not. A scope with a deadline reads the clock, so this suits
    /// a loop that computes without waiting.
    #[must_use]
    #[doc(alias = "Err")]
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
    /// If there is a deadline and it is polled outside a runtime: it sleeps on the runtime's timer.
    ///
    /// # Cancel safety
    ///
    /// A drop leaves nothing behind.
    #[doc(alias = "Done")]
    pub fn canceled(&self) -> Canceled {
        Canceled {
            scope: self.scope.clone(),
            ticket: None,
            sleep: self.scope.deadline.map(time::sleep_until),
            yielded: false,
        }
    }

    /// Runs a future until it is ready or the scope ends, whichever comes first. If the scope ends
    /// first, the future is dropped.
    ///
    /// In a scope that has ended the future is never polled. If both come in the same poll, the
    /// future wins.
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
        // No code of the user runs under the lock, so a poisoned one is intact.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_late(&self, clock: impl FnOnce() -> Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= clock())
    }

    /// Ends a scope and all below it. A scope whose deadline has passed ends with `DeadlineExceeded`,
    /// whatever ends the others.
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
            woken.extend(state.waiters.take_all());
            let below = mem::take(&mut state.below);
            open.extend(below.into_iter().filter_map(|(_, below)| below.upgrade()));
        }
        // Last, and under no lock: waking may run any code.
        woken.into_iter().for_each(wake_quietly);
    }
}

impl Drop for Scope {
    /// Leaves the parent's list. It is a loop, since a long chain of only children goes all at once
    /// and would overflow the stack.
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
///
/// That has an example.
#[must_use = "futures do nothing unless awaited"]
pub struct Canceled {
    scope: Arc<Scope>,
    /// Its ticket among the waiters of the scope.
    ticket: Option<Ticket>,
    /// Until the deadline, if there is one.
    sleep: Option<Sleep>,
    /// The scope has ended, and this has let others go first.
    yielded: bool,
}

impl Canceled {
    /// Why the scope ended, on the machine's budget.
    fn poll_why(&mut self, cx: &mut Context<'_>) -> Poll<CancelError> {
        let why = ready!(self.poll_ended(cx));
        context::poll_yield(&mut self.yielded, cx.waker()).map(|()| why)
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<CancelError> {
        // Cloned before the lock and dropped after it: both may run any code.
        let waker = cx.waker().clone();
        let mut state = self.scope.state();
        if let Some(ended) = state.ended {
            return Poll::Ready(ended);
        }
        let (woken, left_over) = state.waiters.poll(&mut self.ticket, waker);
        debug_assert!(woken.is_pending(), "only the end wakes");
        drop(state);
        drop(left_over);
        let Some(sleep) = &mut self.sleep else {
            return Poll::Pending;
        };
        ready!(Pin::new(sleep).poll(cx));
        Scope::end(&self.scope, CancelError::DeadlineExceeded);
        let ended = self.scope.state().ended;
        Poll::Ready(ended.unwrap_or(CancelError::DeadlineExceeded))
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
        if self.ticket.is_some() {
            let left = self.scope.state().waiters.leave(&mut self.ticket);
            // After the lock, since it may hold a waker.
            drop(left);
        }
    }
}

impl fmt::Debug for Canceled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceled").finish_non_exhaustive()
    }
}
