//! Joining a task: what it returned, that it panicked, or that it was aborted.
//!
//! A task and its handle share a cell. The handle uses the task's id only to abort the task, and only
//! while the cell says that it has not ended: until then no other task has the id.
//!
//! | `has_ended` | `result` | meaning | moved there by |
//! |---|---|---|---|
//! | no | none | the task has not ended | `spawn` |
//! | no | its output | its body is being dropped | `set_output` |
//! | yes | the output or the error | it waits for the handle | `end` |
//! | yes | none | polling again is an error of the caller | a poll of the handle |

// Go has no counterpart: there, a `sync.WaitGroup` and a channel do it.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use super::context::{self, MachineId};
use super::current::Entered;
use super::panics::{Payload, drop_quietly, wake_quietly};
use super::parked::Waiter;
use super::scheduler::Scheduler;

/// What a task shares with its handle.
pub(crate) struct Join<T> {
    has_ended: Cell<bool>,
    result: Cell<Option<Result<T, JoinError>>>,
    /// The waker that the handle was polled with last.
    waiter: Cell<Option<Waker>>,
}

/// The scheduler's side of a [`Join`], whatever the task returns.
pub(crate) trait Joined {
    /// The task has ended and its body is gone: with this error, else with its output.
    fn end(&self, error: Option<JoinError>);
}

impl<T> Join<T> {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Join {
            has_ended: Cell::new(false),
            result: Cell::new(None),
            waiter: Cell::new(None),
        })
    }

    /// Whether the handle lives. For the task, which holds the only other reference.
    pub(crate) fn has_handle(self: &Rc<Self>) -> bool {
        Rc::strong_count(self) > 1
    }

    /// What waits for the end.
    pub(crate) fn joiner(&self) -> Option<Waiter> {
        let waker = self.waiter.take();
        let waiter = waker.as_ref().map(Waiter::waker);
        self.waiter.set(waker);
        waiter
    }

    /// The task returned. The handle sees it when the task's body is gone.
    pub(crate) fn set_output(&self, output: T) {
        debug_assert!(!self.has_ended.get());
        self.result.set(Some(Ok(output)));
    }
}

impl<T> Joined for Join<T> {
    fn end(&self, error: Option<JoinError>) {
        debug_assert!(!self.has_ended.get(), "a task ends once");
        if let Some(error) = error {
            drop_quietly(self.result.replace(Some(Err(error))));
        }
        self.has_ended.set(true);
        self.waiter.take().into_iter().for_each(wake_quietly);
    }
}

/// A spawned task, to wait for or to abort. Dropping it lets the task run on by itself.
///
/// It is not `Send`: the task runs on this thread, and what it returns need not be `Send` either.
///
/// What the task returned stays here until it is joined or the handle is dropped, also when the runtime
/// is gone. A dropped handle drops it too, inside the runtime while that lives.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let runtime = netpoller::Runtime::new()?;
/// let answer = runtime.block_on(async { netpoller::spawn(async { 6 * 7 }).await });
/// assert_eq!(answer.unwrap(), 42);
/// # Ok(())
/// # }
/// ```
///
/// # Cancel safety
///
/// Awaiting `&mut handle` in a race that it loses costs nothing: await it again.
#[doc(alias = "WaitGroup")]
pub struct JoinHandle<T> {
    /// The handle keeps nothing of the runtime alive.
    scheduler: Weak<Scheduler>,
    /// The task's until it has ended.
    id: MachineId,
    join: Rc<Join<T>>,
    /// The task has ended, and this has let others go first.
    yielded: bool,
}

impl<T> JoinHandle<T> {
    pub(crate) fn new(scheduler: &Rc<Scheduler>, id: MachineId, join: Rc<Join<T>>) -> Self {
        JoinHandle {
            scheduler: Rc::downgrade(scheduler),
            id,
            join,
            yielded: false,
        }
    }

    /// Ends the task: now if it is suspended, else when it next suspends. Its future is dropped, and
    /// joining it gives an error for which [`JoinError::is_canceled`] is true. A task that has ended
    /// is not changed.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// netpoller::Runtime::new()?.block_on(async {
    ///     let task = netpoller::spawn(std::future::pending::<()>());
    ///     task.abort();
    ///     assert!(task.await.unwrap_err().is_canceled());
    /// });
    /// # Ok(())
    /// # }
    /// ```
    pub fn abort(&self) {
        if !self.is_finished()
            && let Some(scheduler) = self.scheduler.upgrade()
        {
            // Entered, since the destructors of what the task holds may spawn or ask for the time.
            let _entered = Entered::to_drop(&scheduler);
            scheduler.abort(self.id);
        }
    }

    /// Whether the task has ended, one way or another. Then polling the handle does not wait.
    pub fn is_finished(&self) -> bool {
        self.join.has_ended.get()
    }
}

impl<T: 'static> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    ///
    /// If polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.is_finished() {
            // No borrow is held: cloning and dropping a waker may run any code. It may also end the
            // task, so the cell is looked at once more.
            let old = self.join.waiter.replace(Some(cx.waker().clone()));
            drop(old);
        }
        if !self.is_finished() {
            return Poll::Pending;
        }
        // A loop that joins tasks that have ended would keep the others waiting.
        ready!(context::poll_yield(&mut self.yielded, cx.waker()));
        let result = self.join.result.take();
        Poll::Ready(result.expect("netpoller: JoinHandle polled after it was ready"))
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        drop(self.join.waiter.take());
        if self.is_finished() {
            // Inside its runtime, as all that the task held.
            let scheduler = self.scheduler.upgrade();
            let _entered = scheduler.as_ref().and_then(Entered::to_drop);
            drop(self.join.result.take());
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}

/// Why a task returned nothing: it panicked, it was aborted, or its runtime was dropped. Or it was not
/// begun, since [`Handle::run_blocking`](crate::Handle::run_blocking) would have waited for ever.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// let task = netpoller::spawn(async { panic!("no such file") });
/// let error = task.await.unwrap_err();
/// assert!(error.is_panic() && !error.is_canceled());
/// assert!(error.to_string().contains("no such file"));
/// # Ok(())
/// # })
/// # }
/// ```
pub struct JoinError(Why);

enum Why {
    /// In a mutex so that the error is `Sync`, as error types should be.
    Panicked(Mutex<Payload>),
    Aborted,
    OwnThread,
}

impl JoinError {
    pub(crate) fn aborted() -> Self {
        JoinError(Why::Aborted)
    }

    pub(crate) fn panicked(payload: Payload) -> Self {
        JoinError(Why::Panicked(Mutex::new(payload)))
    }

    pub(crate) fn own_thread() -> Self {
        JoinError(Why::OwnThread)
    }

    /// Whether the task was aborted, or dropped with its runtime.
    pub fn is_canceled(&self) -> bool {
        matches!(self.0, Why::Aborted)
    }

    /// Whether the task panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self.0, Why::Panicked(_))
    }

    /// What it panicked with, for [`std::panic::resume_unwind`].
    ///
    /// # Panics
    ///
    /// If it did not panic; see [`JoinError::is_panic`].
    pub fn into_panic(self) -> Box<dyn Any + Send> {
        match self.0 {
            Why::Panicked(payload) => {
                let payload = payload.into_inner();
                payload.unwrap_or_else(PoisonError::into_inner).into_inner()
            }
            _ => panic!("netpoller: into_panic of a task that did not panic"),
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload = match &self.0 {
            Why::Panicked(payload) => payload,
            Why::Aborted => return f.write_str("task aborted"),
            Why::OwnThread => return f.write_str("a runtime's thread can't wait for its own task"),
        };
        let payload = payload.lock().unwrap_or_else(PoisonError::into_inner);
        match payload.message() {
            Some(message) => write!(f, "task panicked: {message}"),
            None => f.write_str("task panicked"),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinError({self})")
    }
}

impl std::error::Error for JoinError {}
