//! Joining a task: what it returned, that it panicked, or that it was aborted.
//!
//! May touch: the scheduler. Go has no counterpart: there, a `sync.WaitGroup` and a channel do it.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Weak;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use super::context;
use super::machine::MachineId;
use super::panics::Payload;
use super::scheduler::Scheduler;

/// What is known of a machine that somebody joins, by id.
pub(crate) type Joins = HashMap<MachineId, Join>;

#[derive(Default)]
pub(crate) struct Join {
    pub(crate) waiter: Option<Waker>,
    pub(crate) outcome: Option<Result<Box<dyn Any>, JoinError>>,
}

/// A spawned task, to wait for or to abort. Dropping it lets the task go on by itself.
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
pub struct JoinHandle<T> {
    scheduler: Weak<Scheduler>,
    id: MachineId,
    returns: PhantomData<fn() -> T>,
}

impl<T> JoinHandle<T> {
    pub(crate) fn new(scheduler: Weak<Scheduler>, id: MachineId) -> Self {
        JoinHandle {
            scheduler,
            id,
            returns: PhantomData,
        }
    }

    /// Ends the task at its next suspension, or now if it is suspended: its future is dropped, and
    /// joining it gives an error. A task that has ended is not changed.
    pub fn abort(&self) {
        if let Some(scheduler) = self.scheduler.upgrade() {
            // Inside its own turn, for what is dropped may spawn, or ask for the time.
            let _entered = context::Entered::to_drop(&scheduler);
            scheduler.abort(self.id);
        }
    }

    /// Whether the task has ended, one way or another.
    pub fn is_finished(&self) -> bool {
        match self.scheduler.upgrade() {
            Some(scheduler) => !scheduler.is_alive(self.id),
            None => true,
        }
    }
}

impl<T: 'static> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    ///
    /// If polled again after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(scheduler) = self.scheduler.upgrade() else {
            return Poll::Ready(Err(JoinError::aborted()));
        };
        let alive = scheduler.is_alive(self.id);
        // Cloned out of the borrow: a waker's clone may run anything.
        let waker = cx.waker().clone();
        let mut joins = scheduler.joins.borrow_mut();
        let join = joins.entry(self.id).or_default();
        let Some(outcome) = join.outcome.take() else {
            assert!(alive, "netpoller: JoinHandle polled after it was ready");
            let old = join.waiter.replace(waker);
            drop(joins);
            drop(old);
            return Poll::Pending;
        };
        let join = joins.remove(&self.id);
        drop(joins);
        drop(join);
        Poll::Ready(outcome.map(|output| match output.downcast::<T>() {
            Ok(output) => *output,
            Err(_) => unreachable!("a task's output is of the type its handle was made for"),
        }))
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        if let Some(scheduler) = self.scheduler.upgrade() {
            scheduler.detach(self.id);
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

/// Why a task returned nothing.
pub struct JoinError {
    /// `None`: aborted, or its runtime was dropped. In a mutex so that the error is `Sync`, as
    /// error types should be.
    panic: Option<Mutex<Payload>>,
}

impl JoinError {
    pub(crate) fn aborted() -> Self {
        JoinError { panic: None }
    }

    pub(crate) fn panicked(payload: Payload) -> Self {
        JoinError {
            panic: Some(Mutex::new(payload)),
        }
    }

    /// Whether the task was aborted, or went with its runtime.
    pub fn is_canceled(&self) -> bool {
        self.panic.is_none()
    }

    /// Whether the task panicked.
    pub fn is_panic(&self) -> bool {
        self.panic.is_some()
    }

    /// What it panicked with, for [`std::panic::resume_unwind`].
    ///
    /// # Panics
    ///
    /// If it did not panic; see [`JoinError::is_panic`].
    pub fn into_panic(self) -> Box<dyn Any + Send> {
        match self.panic {
            Some(payload) => {
                let payload = payload.into_inner();
                payload.unwrap_or_else(PoisonError::into_inner).into_inner()
            }
            None => panic!("netpoller: into_panic of a task that was aborted"),
        }
    }

    fn message(&self) -> Option<String> {
        let payload = self.panic.as_ref()?.lock().ok()?;
        payload.message().map(str::to_owned)
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.is_panic(), self.message()) {
            (true, Some(message)) => write!(f, "task panicked: {message}"),
            (true, None) => f.write_str("task panicked"),
            (false, _) => f.write_str("task aborted"),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinError({self})")
    }
}

impl std::error::Error for JoinError {}
