//! Small foreign executors: wakers that count, one that polls, and a join that polls only those of its
//! children whose own waker was woken, as FuturesUnordered does.
#![allow(dead_code, reason = "each test file uses some")]

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

/// Counts its wakes.
#[derive(Default)]
pub struct Counter(AtomicUsize);

impl Counter {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// Panics when it is woken.
pub struct PanicsOnWake;

impl Wake for PanicsOnWake {
    fn wake(self: Arc<Self>) {
        panic!("a test's waker panics");
    }
}

struct Child {
    woken: AtomicBool,
    parent: Mutex<Option<Waker>>,
}

impl Wake for Child {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        if let Some(parent) = self.parent.lock().unwrap().take() {
            parent.wake();
        }
    }
}

thread_local! {
    static TASK: RefCell<Option<Boxed<()>>> = const { RefCell::new(None) };
}

/// The waker of an executor of one task, which polls the task while it is woken.
struct PollsAtOnce;

impl Wake for PollsAtOnce {
    fn wake(self: Arc<Self>) {
        let Some(mut task) = TASK.take() else {
            return;
        };
        let waker = Waker::from(self);
        let polled = task.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_pending() {
            TASK.set(Some(task));
        }
    }
}

/// Gives this thread's executor a task and polls it once; afterwards whenever it is woken.
pub fn polled_at_once(task: Pin<Box<dyn Future<Output = ()>>>) {
    TASK.set(Some(task));
    Arc::new(PollsAtOnce).wake();
}

/// Whether the task of [`polled_at_once`] still waits: it has neither ended nor panicked.
pub fn waits_at_once() -> bool {
    TASK.with_borrow(Option::is_some)
}

type Boxed<T> = Pin<Box<dyn Future<Output = T>>>;

/// Runs all futures to their ends; each is polled only when its own waker was woken.
pub struct Each<T> {
    children: Vec<(Arc<Child>, Option<Boxed<T>>)>,
    done: Vec<T>,
}

pub fn each<T, F: Future<Output = T> + 'static>(futures: impl IntoIterator<Item = F>) -> Each<T> {
    let child = |future| {
        let child = Child {
            woken: AtomicBool::new(true),
            parent: Mutex::new(None),
        };
        (Arc::new(child), Some(Box::pin(future) as Boxed<T>))
    };
    Each {
        children: futures.into_iter().map(child).collect(),
        done: Vec::new(),
    }
}

impl<T> Unpin for Each<T> {}

impl<T> Future for Each<T> {
    type Output = Vec<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Vec<T>> {
        let this = self.get_mut();
        for (child, future) in &mut this.children {
            let Some(running) = future else { continue };
            *child.parent.lock().unwrap() = Some(cx.waker().clone());
            if !child.woken.swap(false, Ordering::AcqRel) {
                continue;
            }
            let waker = Waker::from(child.clone());
            if let Poll::Ready(output) = running.as_mut().poll(&mut Context::from_waker(&waker)) {
                this.done.push(output);
                *future = None;
            }
        }
        if this.children.iter().any(|(_, future)| future.is_some()) {
            return Poll::Pending;
        }
        Poll::Ready(std::mem::take(&mut this.done))
    }
}
