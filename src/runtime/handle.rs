//! Reaching a runtime from other threads, and sending work to threads that may block.

// Mirrors what Go's channels and `wakep` do between threads.

use std::fmt;
use std::future::Future;
use std::panic;
use std::sync::Arc;

use super::waker::Remote;
use super::{JoinHandle, blocking, current, spawn};

/// Reaches a runtime from any thread. It keeps nothing alive: once the runtime is gone, its calls do
/// nothing.
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

    /// Sends a closure that makes a future. The runtime calls it in its next turn and spawns the
    /// future, which need not be `Send`. Nothing tells how it ends.
    ///
    /// If the runtime is gone, the closure is dropped.
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

    /// Sends a closure that the runtime calls in its next turn; dropped if the runtime is gone.
    pub(crate) fn send(&self, job: impl FnOnce() + Send + 'static) {
        let _ = self.remote.send(Box::new(job));
    }

    /// Ends the wait of the turn that is under way, else of the next one.
    pub fn wake(&self) {
        self.remote.interrupt();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

/// Runs a closure that may block on a thread beside the loop.
///
/// A runtime has 64 such threads at most, or as many as
/// [`Builder::blocking_threads`](crate::Builder::blocking_threads) allows; further jobs wait for
/// one, first come first served. Name look-ups and lingering closes have threads of their own.
///
/// Aborting or dropping the handle lets the closure run on, since nothing can stop it. So does
/// dropping the runtime; [`Runtime::shutdown`](crate::Runtime::shutdown) waits for it.
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
/// Outside a runtime. A panic of the closure is in the [`JoinError`](crate::JoinError) of the handle.
#[track_caller]
pub fn spawn_blocking<F, T>(work: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let lane = current::with("spawn_blocking", |scheduler| scheduler.remote.jobs.clone());
    let call = blocking::call("spawn_blocking", &lane, work);
    spawn(async move {
        match call.await {
            Ok(value) => value,
            Err(payload) => panic::resume_unwind(payload.into_inner()),
        }
    })
}
