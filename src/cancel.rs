//! Scopes: they end when they are canceled or at a deadline, and end what runs in them.
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
// A scope has two values, each set once: its deadline, and when it was ended. These, and those of
// the scopes above, say whether it ended and why:
//
// | the time in `ended`; if empty, the earliest `ended` above | its deadline | the scope |
// |---|---|---|
// | none | none, or ahead | is open |
// | none | has passed | ended by its deadline; the call that notices it stores the deadline in `ended` |
// | some | at or before that time | ended by its deadline |
// | some | after that time, or none | is canceled |
//
// A child holds its parent, and a parent knows no child: what waits for a scope's end stands in its
// queue, and in that of each scope above. So one store ends a whole tree, before anything is woken, and nothing
// is woken under a lock.

use std::fmt;
use std::future::Future;
use std::io;
use std::iter;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::runtime::context;
use crate::runtime::look::Note;
use crate::runtime::panics::wake_quietly;
use crate::runtime::sync::lock;
use crate::runtime::waiters::{Ticket, Waiters};
use crate::runtime::{Either, select};
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
#[must_use = "a token that is dropped ends nothing"]
#[derive(Clone, Default)]
pub struct CancelToken {
    scope: Arc<Scope>,
}

#[derive(Default)]
struct Scope {
    /// The earliest of its own deadline and those above.
    deadline: Option<Instant>,
    above: Option<Arc<Scope>>,
    /// When it was canceled, or its deadline once that was found to have passed.
    ended: OnceLock<Instant>,
    /// The futures that wait for its end, or for that of a scope below.
    waiters: Mutex<Waiters>,
}

impl CancelToken {
    /// A scope with nothing above it, and no deadline.
    ///
    /// ```
    /// use netpoller::CancelToken;
    /// let request = CancelToken::new();
    /// assert_eq!((request.err(), request.deadline()), (None, None));
    /// ```
    pub fn new() -> Self {
        CancelToken::default()
    }

    /// A scope within this one: it ends when this one does, or when it is canceled itself.
    ///
    /// ```
    /// use netpoller::CancelToken;
    /// let request = CancelToken::new();
    /// let (step, next) = (request.child(), request.child());
    /// step.cancel();
    /// assert!(step.err().is_some() && next.err().is_none() && request.err().is_none());
    /// ```
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
    #[doc(alias = "WithDeadline")]
    pub fn with_deadline(&self, deadline: Instant) -> Self {
        self.below(Some(deadline))
    }

    /// A child that ends when `limit` has passed, counted from a fresh reading of the clock.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::{CancelError, CancelToken};
    /// use std::time::Duration;
    /// let runtime = netpoller::Runtime::builder().virtual_clock().build()?;
    /// runtime.block_on(async {
    ///     let step = CancelToken::new().with_timeout(Duration::from_secs(5));
    ///     step.canceled().await;
    ///     assert_eq!(step.err(), Some(CancelError::DeadlineExceeded));
    /// });
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "WithTimeout")]
    pub fn with_timeout(&self, limit: Duration) -> Self {
        self.below(Some(time::after(time::clock(), limit)))
    }

    fn below(&self, own: Option<Instant>) -> Self {
        // A child of a scope that has ended ends by that, and by no deadline of its own.
        let own = own.filter(|_| self.scope.ended().is_none());
        let scope = Scope {
            deadline: own.into_iter().chain(self.scope.deadline).min(),
            above: Some(self.scope.clone()),
            ended: OnceLock::new(),
            waiters: Mutex::default(),
        };
        CancelToken {
            scope: Arc::new(scope),
        }
    }

    /// The deadline: the earliest of its own and those above. `None` if it has none.
    ///
    /// ```
    /// use netpoller::CancelToken;
    /// use std::time::{Duration, Instant};
    /// let soon = Instant::now() + Duration::from_secs(1);
    /// let request = CancelToken::new().with_deadline(soon);
    /// let step = request.with_timeout(Duration::from_secs(60));
    /// assert_eq!(step.deadline(), Some(soon)); // the request's is earlier
    /// ```
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.scope.deadline
    }

    /// Ends the scope and all below it, and wakes what waits for that. A scope that has ended already,
    /// also by its deadline, is not changed.
    ///
    /// ```
    /// use netpoller::{CancelError, CancelToken};
    /// let request = CancelToken::new();
    /// let step = request.child();
    /// request.cancel();
    /// assert_eq!(step.err(), Some(CancelError::Canceled));
    /// ```
    pub fn cancel(&self) {
        if self.err().is_some() {
            return;
        }
        self.scope.end(time::clock());
        let waiters = lock(&self.scope.waiters).take_all();
        // Under no lock: waking may run any code.
        waiters.for_each(wake_quietly);
    }

    /// Why it ended, or `None` if it has not. A scope with a deadline reads the clock, so this suits
    /// a loop that computes without waiting.
    ///
    /// ```
    /// use netpoller::{CancelError, CancelToken};
    ///
    /// /// Computes without waiting, and looks now and then.
    /// fn sum(numbers: &[u64], scope: &CancelToken) -> Result<u64, CancelError> {
    ///     let mut sum = 0;
    ///     for part in numbers.chunks(1000) {
    ///         scope.err().map_or(Ok(()), Err)?;
    ///         sum += part.iter().sum::<u64>();
    ///     }
    ///     Ok(sum)
    /// }
    /// let scope = CancelToken::new();
    /// assert_eq!(sum(&[1, 2], &scope), Ok(3));
    /// scope.cancel();
    /// assert_eq!(sum(&[1, 2], &scope), Err(CancelError::Canceled));
    /// ```
    #[must_use]
    #[doc(alias = "Err")]
    pub fn err(&self) -> Option<CancelError> {
        let scope = &self.scope;
        scope.ended().or_else(|| {
            let passed = scope.deadline.filter(|&deadline| deadline <= time::clock());
            passed.map(|deadline| scope.end(deadline))
        })
    }

    /// Waits until the scope has ended, one way or the other: Go's `<-ctx.Done()`.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let token = netpoller::CancelToken::new();
    /// let flush = netpoller::spawn({
    ///     let token = token.clone();
    ///     async move {
    ///         token.canceled().await;
    ///         "flushed"
    ///     }
    /// });
    /// token.cancel();
    /// assert_eq!(flush.await.unwrap(), "flushed");
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If the scope has a deadline, and the future is polled outside a runtime, whose timer it needs.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    #[doc(alias = "Done")]
    pub fn canceled(&self) -> Canceled {
        Canceled {
            scope: self.scope.clone(),
            tickets: self.scope.and_above().map(|_| None).collect(),
            sleep: self.scope.deadline.map(time::sleep_until),
            note: Note::default(),
            yielded: false,
        }
    }

    /// Runs a future until it is ready or the scope ends, whichever comes first. If the scope ends
    /// first, the future is dropped.
    ///
    /// In a scope that has ended the future is never polled. If both come in the same poll, the
    /// future wins.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// use netpoller::{CancelError, CancelToken};
    /// use std::{future::pending, time::Duration};
    /// let scope = CancelToken::new();
    /// assert_eq!(scope.run(async { 42 }).await, Ok(42));
    /// let soon = scope.with_timeout(Duration::from_millis(5));
    /// assert_eq!(soon.run(pending::<()>()).await, Err(CancelError::DeadlineExceeded));
    /// # Ok(())
    /// # })
    /// # }
    /// ```
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
        match select(future, self.canceled()).await {
            Either::First(output) => Ok(output),
            Either::Second(()) => Err(self.scope.ended().expect("its end is stored")),
        }
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiters = lock(&self.scope.waiters).len();
        f.debug_struct("CancelToken")
            .field("ended", &self.scope.ended())
            .field("deadline", &self.scope.deadline)
            .field("waiters", &waiters)
            .finish()
    }
}

impl Scope {
    /// This scope, the one above it, and so on.
    fn and_above(&self) -> impl Iterator<Item = &Scope> {
        iter::successors(Some(self), |scope| scope.above.as_deref())
    }

    /// Why it ended, if that is known without a look at the clock: see the table above.
    fn ended(&self) -> Option<CancelError> {
        let ends = self.and_above().filter_map(|scope| scope.ended.get());
        Some(self.end(*ends.min()?))
    }

    /// It ended at `when`, unless an end was found before: that stays, whatever another clock says later.
    /// Returns why it ended. Wakes nothing: at a deadline, each waiter has a timer of its own.
    fn end(&self, when: Instant) -> CancelError {
        let ended = self.ended.get_or_init(|| when);
        match self.deadline.is_some_and(|deadline| deadline <= *ended) {
            true => CancelError::DeadlineExceeded,
            false => CancelError::Canceled,
        }
    }
}

impl Drop for Scope {
    /// A loop: a recursion down a long chain would overflow the stack.
    fn drop(&mut self) {
        let mut above = self.above.take();
        while let Some(scope) = above {
            above = Arc::into_inner(scope).and_then(|mut scope| scope.above.take());
        }
    }
}

/// Waits for the end of a scope: see [`CancelToken::canceled`].
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::builder().virtual_clock().build()?.block_on(async {
/// use netpoller::{CancelToken, cancel::Canceled, time};
/// use std::time::Duration;
/// let begin = time::now();
/// let end: Canceled = CancelToken::new().with_timeout(Duration::from_secs(5)).canceled();
/// end.await;
/// assert!(time::now() - begin >= Duration::from_secs(5));
/// # Ok(())
/// # })
/// # }
/// ```
#[must_use = "futures do nothing unless awaited"]
pub struct Canceled {
    scope: Arc<Scope>,
    /// A ticket in the queue of the scope, then one in the queue of each scope above it.
    tickets: Vec<Option<Ticket>>,
    /// Ends at the deadline, if there is one.
    sleep: Option<Sleep>,
    note: Note,
    /// The scope has ended, and this has let others go first.
    yielded: bool,
}

impl Canceled {
    /// Ready once the scope has ended. Then its end is stored.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        debug_assert_eq!(self.tickets.len(), self.scope.and_above().count());
        // It registers first and checks then: a cancel on another thread is either seen here or wakes this.
        for (scope, ticket) in self.scope.and_above().zip(&mut self.tickets) {
            // Cloned before the lock and dropped after it: both may run any code.
            let waker = cx.waker().clone();
            let (_woken, left_over) = lock(&scope.waiters).poll(ticket, waker);
            drop(left_over);
        }
        if self.scope.ended().is_some() {
            return Poll::Ready(());
        }
        self.note.waits(cx.waker(), "scope");
        let Some(sleep) = &mut self.sleep else {
            return Poll::Pending;
        };
        ready!(Pin::new(&mut *sleep).poll(cx));
        self.scope.end(sleep.deadline());
        Poll::Ready(())
    }
}

impl Future for Canceled {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        ready!(this.poll_ended(cx));
        context::poll_yield(&mut this.yielded, cx.waker())
    }
}

impl Drop for Canceled {
    fn drop(&mut self) {
        let scopes = self.scope.and_above().zip(&mut self.tickets);
        // Wakers. Each is dropped after the lock, and after all queues were left: a drop may panic.
        let _left: Vec<_> = scopes
            .map(|(scope, ticket)| lock(&scope.waiters).leave(ticket))
            .collect();
    }
}

impl fmt::Debug for Canceled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceled").finish_non_exhaustive()
    }
}
