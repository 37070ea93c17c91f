//! A value that one thread sends and a future of another waits for.
//!
//! | value | receiver | moved there by | what a poll says |
//! |---|---|---|---|
//! | none | waits | `channel` | Pending; the sender's `poll_given_up` is Pending |
//! | here | waits | `Sender::send` | the value |
//! | none, and no sender | waits | the sender's drop | `None` |
//! | any | gone | the receiver's drop | the sender's `poll_given_up` is Ready |

// Go has a channel with room for one value.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::panics::wake_quietly;

struct Shared<T> {
    value: Option<T>,
    /// Whether both ends live.
    is_open: bool,
    /// The waker of the end that waits for the other, by end: the receiver's, the sender's.
    wakers: [Option<Waker>; 2],
}

const RECEIVER: usize = 0;
const SENDER: usize = 1;

type Cell<T> = Arc<Mutex<Shared<T>>>;

pub(crate) struct Sender<T>(Cell<T>);

/// A future of the value: `None` if the sender is dropped without sending.
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

/// One end is dropped: the other is woken.
fn close<T>(cell: &Cell<T>, other: usize) {
    let mut shared = lock(cell);
    shared.is_open = false;
    let wakers = std::mem::take(&mut shared.wakers);
    // Nothing takes the value any more, if it is the receiver that goes.
    let value = (other == SENDER).then(|| shared.value.take());
    drop(shared);
    let woken = wakers.into_iter().nth(other).flatten();
    woken.into_iter().for_each(wake_quietly);
    drop(value);
}

impl<T> Sender<T> {
    pub(crate) fn send(self, value: T) {
        lock(&self.0).value = Some(value);
    }

    /// Ready once the receiver is gone.
    pub(crate) fn poll_given_up(&self, cx: &mut Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let mut shared = lock(&self.0);
        if !shared.is_open {
            return Poll::Ready(());
        }
        let old = shared.wakers[SENDER].replace(waker);
        drop(shared);
        drop(old);
        Poll::Pending
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        close(&self.0, RECEIVER);
    }
}

impl<T> Future for Receiver<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let waker = cx.waker().clone();
        let mut shared = lock(&self.0);
        let value = shared.value.take();
        if value.is_some() || !shared.is_open {
            drop(shared);
            return Poll::Ready(value);
        }
        let old = shared.wakers[RECEIVER].replace(waker);
        drop(shared);
        drop(old);
        Poll::Pending
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        close(&self.0, SENDER);
    }
}
