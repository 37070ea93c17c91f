//! Reaching a runtime from other threads, and sending work to threads that may block.

// Mirrors what Go's channels and `wakep` do between threads.

#[cfg(feature = "trace")]
use std::collections::BTreeSet;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{self, Location};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread;

use super::look::noted;
use super::scheduler::Scheduler;
use super::waker::Remote;
use super::{Either, JoinError, JoinHandle, LoopStats, blocking, current, join, select, spawn_at};

/// Reaches a runtime from any thread. It does not keep the runtime alive: once the runtime is gone,
/// nothing that is sent runs, but [`stats`](Handle::stats) still answers. The pipe that wakes the loop
/// stays open as long as a handle, or a waker of a task, is there.
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
    pub(super) remote: Arc<Remote>,
}

impl Handle {
    /// Sends a closure that makes a future. The runtime calls it in its next turn (in a later one, if more
    /// than 1,024 closures wait) and spawns the future, which need not be `Send`. The sender does not learn
    /// how it ends.
    ///
    /// If the runtime is gone, the closure is dropped.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let runtime = netpoller::Runtime::new()?;
    /// let handle = runtime.handle();
    /// let (tell, told) = std::sync::mpsc::channel();
    /// let other = std::thread::spawn(move || {
    ///     handle.spawn(move || async move {
    ///         let here = std::rc::Rc::new(7); // not `Send`: it is made on the loop's thread
    ///         tell.send(*here).unwrap();
    ///     });
    /// });
    /// other.join().unwrap();
    /// runtime.turn(None)?;
    /// assert_eq!(told.try_recv(), Ok(7));
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn spawn<T: Future<Output: 'static> + 'static>(
        &self,
        make: impl FnOnce() -> T + Send + 'static,
    ) {
        let place = Location::caller();
        let job = move || drop(spawn_at(place, None, make()));
        if !self.remote.send(Box::new(job)) {
            log::debug!("a future was sent to a runtime that is gone");
        }
    }

    /// The runtime that is in a turn on this thread.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::Handle;
    /// let runtime = netpoller::Runtime::new()?;
    /// let task = runtime.spawn(async { Handle::current() });
    /// let handle = runtime.block_on(task).unwrap();
    /// assert_eq!(handle.stats().spawned(), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    #[track_caller]
    pub fn current() -> Handle {
        current::with("Handle::current", |scheduler| scheduler.handle())
    }

    /// Runs a future on the runtime, and returns a future of its result, for any thread and any executor.
    /// Only the closure and the result have to be `Send`. So a thread pool or another runtime can use
    /// what is not `Send`, such as a socket of this crate.
    ///
    /// The task begins without a poll of the returned future. Dropping the returned future aborts the
    /// task.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use netpoller::{Runtime, TcpStream, TcpListener};
    /// let runtime = Runtime::new()?;
    /// let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    /// let (address, handle) = (listener.local_addr()?, runtime.handle());
    /// let thread = std::thread::spawn(move || {
    ///     // Within a worker of another runtime: handle.run(…).await
    ///     handle.run_blocking(move || async move {
    ///         let stream = TcpStream::connect(address).await?;
    ///         stream.read_with(|bytes| bytes.len()).await
    ///     })
    /// });
    /// runtime.block_on(async {
    ///     let (stream, _) = listener.accept().await?;
    ///     stream.write_all(b"hello").await
    /// })?;
    /// while !thread.is_finished() {
    ///     runtime.turn(Some(std::time::Duration::from_millis(5)))?;
    /// }
    /// assert_eq!(thread.join().unwrap().unwrap()?, 5);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// A [`JoinError`]: the closure or the future panicked, or the runtime was dropped first.
    ///
    /// # Cancel safety
    ///
    /// Dropping the returned future aborts the task, in the runtime's next turn.
    #[track_caller]
    pub fn run<F: FnOnce() -> T + Send + 'static, T: Future<Output: Send + 'static> + 'static>(
        &self,
        make: F,
    ) -> impl Future<Output = Result<T::Output, JoinError>> + Send + use<F, T> {
        let place = Location::caller();
        let (sender, receiver) = join::channel();
        self.spawn(move || {
            let is_wanted = sender.is_wanted();
            let task = is_wanted.then(|| spawn_at(place, None, async move { make().await }));
            async move {
                let Some(mut task) = task else { return };
                let given_up = poll_fn(|cx| sender.poll_given_up(cx));
                match select(&mut task, given_up).await {
                    Either::First(result) => sender.send(result),
                    Either::Second(()) => task.abort(),
                }
            }
        });
        // If the runtime ends, or has ended, nothing is sent: the receiver gets the error "aborted".
        receiver
    }

    /// As [`run`](Handle::run), and blocks this thread until the result is there.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let runtime = netpoller::Runtime::new()?;
    /// let handle = runtime.handle();
    /// let asking = std::thread::spawn(move || handle.run_blocking(|| async { 6 * 7 }));
    /// while !asking.is_finished() {
    ///     runtime.turn(Some(std::time::Duration::from_millis(5)))?;
    /// }
    /// assert_eq!(asking.join().expect("no panic").expect("the runtime lives"), 42);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`run`](Handle::run). Also on the thread of the runtime itself, which would wait for ever:
    /// nothing is run then.
    #[track_caller]
    pub fn run_blocking<T: Future<Output: Send + 'static> + 'static>(
        &self,
        make: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T::Output, JoinError> {
        if self.remote.thread == thread::current().id() {
            return Err(JoinError::own_thread());
        }
        let place = Location::caller();
        let (tell, told) = mpsc::channel();
        self.spawn(move || {
            let task = spawn_at(place, None, async move { make().await });
            async move { tell.send(task.await) }
        });
        told.recv().unwrap_or_else(|_| Err(JoinError::aborted()))
    }

    /// What the loop has done so far, how long that took, and what lived on it when its last turn
    /// ended. It reads counters, so it works also while the loop is blocked and after the runtime has
    /// ended.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let runtime = netpoller::Runtime::new()?;
    /// let handle = runtime.handle();
    /// runtime.block_on(async { netpoller::yield_now().await });
    /// let stats = std::thread::spawn(move || handle.stats()).join().unwrap();
    /// assert_eq!((stats.turns(), stats.tasks()), (1, 0));
    /// // With the feature `observe`:
    /// println!("{:?}, by nanoseconds", stats.turn_time());
    /// # Ok(())
    /// # }
    /// ```
    pub fn stats(&self) -> LoopStats {
        self.remote.running.figures.read()
    }

    /// Calls a closure with the runtime, if it is entered on this thread.
    pub(crate) fn if_here<R>(&self, f: impl FnOnce(&Rc<Scheduler>) -> R) -> Option<R> {
        current::at_home(&self.remote, f)
    }

    /// Calls a closure with the runtime: at once if it is entered on this thread, and else in its next
    /// turn. Drops the closure if the runtime is gone.
    pub(crate) fn tell(&self, job: impl FnOnce(&Scheduler) + Send + 'static) {
        match self.if_here(Rc::clone) {
            Some(scheduler) => job(&scheduler),
            None => {
                let job = move || current::with("a job", |scheduler| job(scheduler));
                self.remote.tell(Box::new(job));
            }
        }
    }

    /// What the loop has done: the newest record of its ring, and those at most `last` older. `None` if it
    /// has no ring: see [`Builder::trace`](crate::Builder::trace). It does not hold the loop up, and works
    /// from any thread at any time: while the loop is blocked, and after the runtime has ended. Only with
    /// the feature `trace`.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::time::Duration;
    /// let runtime = netpoller::Runtime::builder().trace(1 << 20).build()?;
    /// runtime.block_on(async { netpoller::time::sleep(Duration::from_millis(5)).await });
    ///
    /// let trace = runtime.handle().trace_last(Duration::from_secs(10)).unwrap();
    /// for record in &trace.records {
    ///     println!("{:?} {record}", record.at); // 5.1ms Fired
    /// }
    /// // Open this at ui.perfetto.dev, or at chrome://tracing.
    /// let json = trace.to_json();
    /// # assert!(json.contains("traceEvents"));
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "trace")]
    pub fn trace_last(&self, last: std::time::Duration) -> Option<crate::trace::Trace> {
        let mut trace = crate::trace::Trace::of(&self.remote.trace, last)?;
        if !self.remote.is_inherited() {
            let records = trace.records.iter();
            let runs = records.filter(|record| record.kind == crate::trace::Kind::Run);
            let ids: BTreeSet<u64> = runs.map(|run| run.id).collect();
            // `known` locks for each id, so that a spawn need not wait for all of them.
            let known = |id| Some((id, self.remote.running.known(id)?));
            trace.machines = ids.into_iter().filter_map(known).collect();
        }
        Some(trace)
    }

    /// Ends the wait of the turn that is under way, else of the next one.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let runtime = netpoller::Runtime::new()?;
    /// let handle = runtime.handle();
    /// let other = std::thread::spawn(move || handle.wake());
    /// runtime.turn(None)?; // sleeps until then
    /// other.join().unwrap();
    /// # Ok(())
    /// # }
    /// ```
    pub fn wake(&self) {
        self.remote.interrupt();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

/// Runs a closure, which may block, on a thread beside the loop.
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
pub fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let place = Location::caller();
    let lane = current::with("spawn_blocking", |scheduler| scheduler.remote.lane.clone());
    let (outcome, _) = blocking::call("spawn_blocking", &lane, work);
    spawn_at(place, None, async move {
        let outcome = noted("blocking-job", outcome).await;
        outcome.unwrap_or_else(|error| panic::resume_unwind(error.into_panic()))
    })
}
