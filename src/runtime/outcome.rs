//! A value that one thread sends and a future of another waits for.
//!
//! | value | receiver | moved there by | what a poll says |
//! |---|---|---|---|
//! | none | waits | `channel` | Pending; the sender's `poll_given_up` is Pending |
//! | here | waits | `Sender::send` | the value, or why there is none |
//! | none, and no sender | waits | the sender's drop | an error: aborted |
//! | any | gone | the receiver's drop | the sender's `poll_given_up` is Ready |

// Go has a channel with room for one value.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::join::JoinError;
use super::panics::wake_quietly;

struct Shared<T> {
    value: Option<Result<T, JoinError>>,
    /// Whether both ends live.
    is_open: bool,
    /// The waker of the end that waits for the other, by end: the receiver's, the sender's.
    wakers: [Option<Waker>; 2],
}

const RECEIVER: usize = 0;
const SENDER: usize = 1;

type Cell<T> = Arc<Mutex<Shared<T>>>;

pub(crate) struct Sender<T>(Cell<T>);

/// A future of the value.
pub(crate) struct Receiver<T>(Cell<T>);

pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let cell = Arc::new(Mutex::new(Shared {
        value: None,
        is_open: true,
        wakers: [None, None],
    }));
    (Sender(cell.clone()), Receiver(cell))
}

// No code of the user runs under the lock: a waker is cloned before it, and dropped or woken after.
fn lock<T>(cell: &Cell<T>) -> MutexGuard<'_, Shared<T>> {
    cell.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One end is dropped: the other is woken, and its own waker goes with it.
fn close<T>(cell: &Cell<T>, other: usize) {
    let mut shared = lock(cell);
    shared.is_open = false;
    let wakers = mem::take(&mut shared.wakers);
    drop(shared);
    let woken = wakers.into_iter().nth(other).flatten();
    woken.into_iter().for_each(wake_quietly);
}

/// Waits for the other end, unless `look` finds what this end waits for.
fn poll<T, R>(
    cell: &Cell<T>,
    end: usize,
    cx: &Context<'_>,
    look: impl FnOnce(&mut Shared<T>) -> Option<R>,
) -> Poll<R> {
    let waker = cx.waker().clone();
    let mut shared = lock(cell);
    if let Some(found) = look(&mut shared) {
        return Poll::Ready(found);
    }
    let old = shared.wakers[end].replace(waker);
    drop(shared);
    drop(old);
    Poll::Pending
}

impl<T> Sender<T> {
    pub(crate) fn send(self, value: Result<T, JoinError>) {
        lock(&self.0).value = Some(value);
    }

    /// Ready once the receiver is gone.
    pub(crate) fn poll_given_up(&self, cx: &mut Context<'_>) -> Poll<()> {
        poll(&self.0, SENDER, cx, |shared| {
            (!shared.is_open).then_some(())
        })
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
        poll(&self.0, RECEIVER, cx, |shared| match shared.value.take() {
            None if !shared.is_open => Some(Err(JoinError::aborted())),
            value => value,
        })
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        close(&self.0, SENDER);
    }
}
