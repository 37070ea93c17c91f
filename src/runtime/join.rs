//! How the output of a task, or of work on another thread, comes back.
//!
//! Two sides share a cell: the sender, which is a task or work on another thread, and the receiver, which
//! waits for the value. A task's handle uses the task's id only to abort it, and only while the cell is
//! open: later the id may be another task's.
//!
//! | `value` | open | meaning | moved there by |
//! |---|---|---|---|
//! | none | yes | the value has not come yet | `channel`; the spawn of a task |
//! | here | yes | the sender is about to end: the body of the task is being dropped | `Sender::send`; a task that is ready |
//! | here | no | it waits for the receiver | `end` of the task; the drop of the sender |
//! | none | no | it was taken, or will not come: a poll returns the error "aborted" | a poll; the drop of either side |

// Go has no counterpart: there, a `sync.WaitGroup` and a channel do it.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use super::context::{self, MachineId, Waiter};
use super::current::Entered;
use super::panics::{Payload, drop_quietly, wake_quietly};
use super::scheduler::Scheduler;
use super::sync::lock;

// ---- the cell ----

pub(crate) struct Shared<T> {
    value: Option<Result<T, JoinError>>,
    /// Whether both sides are there.
    is_open: bool,
    /// By side, the receiver's and the sender's: the waker of a side that waits for the other.
    wakers: [Option<Waker>; 2],
}

const RECEIVER: usize = 0;
const SENDER: usize = 1;

pub(crate) type Join<T> = Arc<Mutex<Shared<T>>>;

pub(crate) struct Sender<T>(Join<T>);

/// A future of the value.
pub(crate) struct Receiver<T>(Join<T>);

pub(crate) fn cell<T>() -> Join<T> {
    Arc::new(Mutex::new(Shared {
        value: None,
        is_open: true,
        wakers: [None, None],
    }))
}

pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let cell = cell();
    (Sender(cell.clone()), Receiver(cell))
}

// No code of the user runs under the lock: a waker is cloned before it, and dropped or woken after.

/// Closes the cell, for a side that ends: drops its waker, and wakes `other`.
fn close<T>(cell: &Mutex<Shared<T>>, other: usize) {
    let mut shared = lock(cell);
    shared.is_open = false;
    let mut wakers = mem::take(&mut shared.wakers);
    drop(shared);
    // Before this side's own waker is dropped, which may panic.
    let woken = wakers[other].take();
    woken.into_iter().for_each(wake_quietly);
}

/// Pending while the cell is open. Then returns what `found` returns.
fn poll<T, R>(
    cell: &Mutex<Shared<T>>,
    side: usize,
    cx: &Context<'_>,
    found: impl FnOnce(&mut Shared<T>) -> R,
) -> Poll<R> {
    let waker = cx.waker().clone();
    let mut shared = lock(cell);
    if !shared.is_open {
        return Poll::Ready(found(&mut shared));
    }
    let old = shared.wakers[side].replace(waker);
    drop(shared);
    drop(old);
    Poll::Pending
}

impl<T> Sender<T> {
    pub(crate) fn send(self, value: Result<T, JoinError>) {
        lock(&self.0).value = Some(value);
    }

    /// Whether the receiver is there.
    pub(crate) fn is_wanted(&self) -> bool {
        lock(&self.0).is_open
    }

    /// Ready once the receiver is gone.
    pub(crate) fn poll_given_up(&self, cx: &mut Context<'_>) -> Poll<()> {
        poll(&self.0, SENDER, cx, |_| ())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        close(&self.0, RECEIVER);
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        poll(&self.0, RECEIVER, cx, |shared| {
            let value = shared.value.take();
            value.unwrap_or_else(|| Err(JoinError::aborted()))
        })
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        close(&self.0, SENDER);
    }
}

// ---- a task's side ----

/// The cell that a task shares with its handle, whatever the task returns.
pub(crate) trait Joined {
    /// The task ends, with an error in place of its output if there is one.
    fn end(&self, error: Option<JoinError>);
}

impl<T> Joined for Mutex<Shared<T>> {
    fn end(&self, error: Option<JoinError>) {
        debug_assert!(lock(self).is_open, "a task ends once");
        if let Some(error) = error {
            let output = lock(self).value.replace(Err(error));
            drop_quietly(output);
        }
        close(self, RECEIVER);
    }
}

pub(crate) fn set_output<T>(join: &Join<T>, output: T) {
    debug_assert!(lock(join).value.is_none(), "a task is ready once");
    lock(join).value = Some(Ok(output));
}

/// The waiter that the handle was polled for last.
pub(crate) fn joiner<T>(join: &Join<T>) -> Option<Waiter> {
    lock(join).wakers[RECEIVER].as_ref().map(Waiter::waker)
}

/// A spawned task, to wait for or to abort. Dropping it lets the task run on by itself.
///
/// It is not `Send`: the task runs on this thread, and what it returns need not be `Send` either.
///
/// What the task returned stays here until it is joined or the handle is dropped, also when the runtime
/// is gone. Dropping the handle drops the output, inside the runtime if the runtime lives.
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
/// Dropping a future that awaits `&mut handle` loses nothing: await the handle again.
#[doc(alias = "WaitGroup")]
pub struct JoinHandle<T> {
    /// The handle keeps nothing of the runtime alive.
    scheduler: Weak<Scheduler>,
    /// The task's id. After the task's end it may name another task.
    id: MachineId,
    result: Receiver<T>,
    /// Whether the handle has yielded since the task ended.
    yielded: bool,
}

impl<T> JoinHandle<T> {
    pub(crate) fn new(scheduler: &Rc<Scheduler>, id: MachineId, join: Join<T>) -> Self {
        JoinHandle {
            scheduler: Rc::downgrade(scheduler),
            id,
            result: Receiver(join),
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

    /// Whether the task has ended, one way or another. Then polling the handle does not wait,
    /// though it may yield.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let runtime = netpoller::Runtime::new()?;
    /// let task = runtime.spawn(async {});
    /// assert!(!task.is_finished());
    /// while !task.is_finished() {
    ///     runtime.turn(None)?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_finished(&self) -> bool {
        !lock(&self.result.0).is_open
    }
}

impl<T: 'static> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    /// Polled again after it was ready, it says aborted.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.is_finished() {
            // A loop that joins tasks that have ended would keep the others waiting.
            ready!(context::poll_yield(&mut self.yielded, cx.waker()));
        }
        Pin::new(&mut self.result).poll(cx)
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        // Before the check: the waker's destructor may run any code, and so end the task.
        let waker = lock(&self.result.0).wakers[RECEIVER].take();
        drop(waker);
        if self.is_finished() {
            // Dropped inside its runtime, as the task was.
            let scheduler = self.scheduler.upgrade();
            let _entered = scheduler.as_ref().and_then(Entered::to_drop);
            let output = lock(&self.result.0).value.take();
            drop(output);
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
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let task = netpoller::spawn(std::future::pending::<()>());
    /// task.abort();
    /// let error = task.await.unwrap_err();
    /// assert!(error.is_canceled() && !error.is_panic());
    /// assert_eq!(error.to_string(), "task aborted");
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub fn is_canceled(&self) -> bool {
        matches!(self.0, Why::Aborted)
    }

    /// Whether the task panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self.0, Why::Panicked(_))
    }

    /// What it panicked with, for [`std::panic::resume_unwind`].
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::new()?.block_on(async {
    /// let task = netpoller::spawn(async { panic!("no such file") });
    /// let error = task.await.unwrap_err();
    /// assert!(error.is_panic());
    /// assert_eq!(error.into_panic().downcast_ref(), Some(&"no such file"));
    /// # Ok(())
    /// # })
    /// # }
    /// ```
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
        match &self.0 {
            Why::Panicked(payload) => match lock(payload).message() {
                Some(message) => write!(f, "task panicked: {message}"),
                None => f.write_str("task panicked"),
            },
            Why::Aborted => f.write_str("task aborted"),
            Why::OwnThread => f.write_str("a runtime's thread can't wait for its own task"),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinError({self})")
    }
}

impl std::error::Error for JoinError {}
