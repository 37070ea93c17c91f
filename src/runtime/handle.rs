//! Reaching a runtime from other threads, and sending work to threads that may block.
//!
//! May touch: the waker's mailbox, the blocking pool. Mirrors what Go's channels and `wakep` do
//! between threads.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::thread;

use super::waker::Remote;
use super::{JoinHandle, blocking, context, spawn};

/// Reaches a runtime from any thread.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use std::sync::mpsc;
/// let runtime = netpoller::Runtime::new()?;
/// let handle = runtime.handle();
/// let (tell, told) = mpsc::channel();
/// std::thread::spawn(move || handle.spawn(move || async move { tell.send(42).unwrap() }));
/// while told.try_recv() != Ok(42) {
///     runtime.turn(None)?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Handle {
    remote: Arc<Remote>,
}

impl Handle {
    pub(crate) fn new(remote: Arc<Remote>) -> Self {
        Handle { remote }
    }

    /// Sends a closure that makes a future, which is then spawned there, and forgets it. The
    /// future itself need not be `Send`. Dropped if the runtime is gone.
    pub fn spawn<F, T>(&self, make: F)
    where
        F: FnOnce() -> T + Send + 'static,
        T: Future + 'static,
        T::Output: 'static,
    {
        let sent = self.remote.send(Box::new(move || drop(spawn(make()))));
        if sent.is_err() {
            log::debug!("a future was sent to a runtime that is gone");
        }
    }

    /// Ends the wait of the turn under way, or else of the next one.
    pub fn wake(&self) {
        self.remote.interrupt();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

/// What passes between a blocking job and who waits for it.
struct Outcome<T> {
    result: Option<thread::Result<T>>,
    waiter: Option<Waker>,
}

/// Counts a blocking job as out, until whoever waits for it has been woken.
struct Out(Arc<Remote>);

impl Drop for Out {
    fn drop(&mut self) {
        self.0.jobs_out.fetch_sub(1, Ordering::AcqRel);
        // A virtual clock that was held back looks again.
        self.0.interrupt();
    }
}

/// Runs a closure that may block on a thread of the blocking pool.
///
/// Aborting the handle, or dropping it, lets the closure run on: nothing can stop it.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// netpoller::Runtime::new()?.block_on(async {
///     let text = netpoller::spawn_blocking(|| std::fs::read_to_string("Cargo.toml")).await;
///     assert!(text.unwrap().unwrap().contains("netpoller"));
/// });
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// Outside a runtime. A panic of the closure reaches whoever joins.
#[track_caller]
pub fn spawn_blocking<F, T>(work: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let remote = context::with("spawn_blocking", |scheduler| scheduler.remote.clone());
    let outcome = Arc::new(Mutex::new(Outcome {
        result: None,
        waiter: None,
    }));
    remote.jobs_out.fetch_add(1, Ordering::AcqRel);
    let out = Out(remote);
    let theirs = outcome.clone();
    blocking::run(Box::new(move || {
        let result = panic::catch_unwind(AssertUnwindSafe(work));
        let mut outcome = theirs.lock().unwrap_or_else(PoisonError::into_inner);
        outcome.result = Some(result);
        let waiter = outcome.waiter.take();
        drop(outcome);
        if let Some(waiter) = waiter {
            waiter.wake();
        }
        drop(out);
    }));
    spawn(poll_fn(move |cx| {
        // Cloned out of the lock: a waker's clone may run anything.
        let waker = cx.waker().clone();
        let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome.result.take() {
            Some(Ok(value)) => Poll::Ready(value),
            Some(Err(payload)) => {
                drop(outcome);
                panic::resume_unwind(payload)
            }
            None => {
                let old = outcome.waiter.replace(waker);
                drop(outcome);
                drop(old);
                Poll::Pending
            }
        }
    }))
}
