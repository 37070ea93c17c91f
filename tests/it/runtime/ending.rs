//! The end of a runtime: whatever waits for it is told, and nothing keeps it alive.

use std::cell::Cell;
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use netpoller::{CancelToken, JoinHandle, Runtime, UnixStream, spawn, spawn_blocking, time};

use crate::support::wakers::{polled_at_once, waits_at_once};
use crate::support::watchdog::watchdog;

const NOW: Option<Duration> = Some(Duration::ZERO);
const HOUR: Duration = Duration::from_secs(3600);

// ---- an executor that polls while it is woken ----

/// Whether the task has come to an end, if only by a panic, when the runtime is gone.
fn ends_with_the_runtime(make: impl FnOnce() -> Pin<Box<dyn Future<Output = ()>>>) -> bool {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async { polled_at_once(make()) });
    assert!(waits_at_once(), "it does not wait");
    drop(runtime);
    !waits_at_once()
}

#[test]
fn a_timeout_ends_for_an_executor_that_polls_while_it_is_woken() {
    assert!(ends_with_the_runtime(|| Box::pin(async {
        let _ = time::timeout(HOUR, pending::<()>()).await;
    })));
}

#[test]
fn an_interval_ends_for_an_executor_that_polls_while_it_is_woken() {
    assert!(ends_with_the_runtime(|| Box::pin(async {
        let mut hours = time::interval(HOUR);
        loop {
            hours.tick().await;
        }
    })));
}

#[test]
fn a_scope_ends_for_an_executor_that_polls_while_it_is_woken() {
    assert!(ends_with_the_runtime(|| Box::pin(async {
        CancelToken::new().with_timeout(HOUR).canceled().await;
    })));
}

#[test]
fn a_join_ends_for_an_executor_that_polls_while_it_is_woken() {
    assert!(ends_with_the_runtime(|| {
        let task = spawn(pending::<()>());
        Box::pin(async move { assert!(task.await.unwrap_err().is_canceled()) })
    }));
}

#[test]
fn a_read_and_those_queued_behind_it_end_for_an_executor_that_polls_while_it_is_woken() {
    for operation in 0..3 {
        assert!(ends_with_the_runtime(|| Box::pin(async move {
            let (ours, _theirs) = UnixStream::pair().unwrap();
            let (mut first, mut second) = ([0; 8], [0; 8]);
            let mut first = Box::pin(ours.read(&mut first));
            let error = match operation {
                0 => first.await.unwrap_err(),
                1 => {
                    let polled = first.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                    assert!(polled.is_pending());
                    ours.read(&mut second).await.unwrap_err()
                }
                _ => ours.hung_up().await.unwrap_err(),
            };
            assert!(netpoller::NetError::is_closed(&error), "{error}");
        })));
    }
}

// ---- handles and outputs ----

/// Polls its child when it is dropped, if that has ended.
struct Collects(JoinHandle<u32>, Rc<Cell<&'static str>>);

impl Drop for Collects {
    fn drop(&mut self) {
        self.1.set("not finished");
        if self.0.is_finished() {
            self.1.set("polling panicked");
            let mut cx = Context::from_waker(Waker::noop());
            self.1.set(match Pin::new(&mut self.0).poll(&mut cx) {
                Poll::Ready(Ok(_)) => "returned",
                Poll::Ready(Err(_)) => "canceled",
                Poll::Pending => "pending",
            });
        }
    }
}

#[test]
fn a_handle_that_says_finished_can_be_polled_while_the_runtime_is_dropped() {
    // The child before and behind its parent.
    for child_first in [true, false] {
        let runtime = Runtime::new().unwrap();
        let seen = Rc::new(Cell::new("not dropped"));
        let told = seen.clone();
        let early = child_first.then(|| runtime.spawn(pending()));
        drop(runtime.spawn(async move {
            let child = Collects(early.unwrap_or_else(|| spawn(pending())), told);
            pending::<()>().await;
            drop(child);
        }));
        runtime.turn(NOW).unwrap();
        runtime.turn(NOW).unwrap();
        drop(runtime);
        assert_eq!(seen.get(), "canceled");
    }
}

/// Uses the runtime in its destructor, as what lives in one may.
struct LivesInARuntime(Rc<Cell<u32>>);

impl Drop for LivesInARuntime {
    fn drop(&mut self) {
        drop(time::sleep(HOUR));
        drop(spawn(async {}));
        self.0.set(self.0.get() + 1);
    }
}

fn returns_what_lives_in_a_runtime() -> (Runtime, JoinHandle<LivesInARuntime>, Rc<Cell<u32>>) {
    let runtime = Runtime::new().unwrap();
    let dropped = Rc::new(Cell::new(0));
    let output = LivesInARuntime(dropped.clone());
    let task = runtime.spawn(async move { output });
    runtime.turn(NOW).unwrap();
    assert!(task.is_finished());
    (runtime, task, dropped)
}

#[test]
fn an_output_is_dropped_inside_its_runtime_with_its_handle() {
    let (runtime, task, dropped) = returns_what_lives_in_a_runtime();
    drop(task);
    assert_eq!(dropped.get(), 1);
    drop(runtime);
}

#[test]
fn an_output_whose_handle_outlives_the_runtime_is_dropped_with_the_handle() {
    let runtime = Runtime::new().unwrap();
    let kept = Rc::new(());
    let output = kept.clone();
    let task = runtime.spawn(async move { output });
    runtime.turn(NOW).unwrap();
    drop(runtime);
    assert_eq!(Rc::strong_count(&kept), 2);
    drop(task);
    assert_eq!(Rc::strong_count(&kept), 1);
}

#[test]
fn an_output_that_another_runtime_joins_is_kept_and_taken_once() {
    let (runtime, task, dropped) = returns_what_lives_in_a_runtime();
    let other = Runtime::new().unwrap();
    let output = other.block_on(task).unwrap();
    assert_eq!(dropped.get(), 0);
    other.block_on(async { drop(output) });
    drop(runtime);
    assert_eq!(dropped.get(), 1);
}

// ---- destructors that spawn ----

/// Spawns another of its kind when it is dropped.
struct SpawnsItself(Rc<Cell<u32>>);

impl Drop for SpawnsItself {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
        let next = SpawnsItself(self.0.clone());
        drop(spawn(async move {
            let _next = next;
            pending::<()>().await;
        }));
    }
}

#[test]
fn a_destructor_that_always_spawns_does_not_keep_a_runtime_from_its_end() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let dropped = Rc::new(Cell::new(0));
    let first = SpawnsItself(dropped.clone());
    drop(runtime.spawn(async move {
        let _first = first;
        pending::<()>().await;
    }));
    runtime.turn(NOW).unwrap();
    drop(runtime);
    assert!(dropped.get() > 1, "what a destructor spawns is dropped too");
}

#[test]
fn a_runtime_dropped_in_a_destructor_of_another_ends_too() {
    let inner = Runtime::new().unwrap();
    let dropped = Rc::new(Cell::new(0));
    let lives = LivesInARuntime(dropped.clone());
    drop(inner.spawn(async move {
        let _lives = lives;
        pending::<()>().await;
    }));
    inner.turn(NOW).unwrap();
    let outer = Runtime::new().unwrap();
    drop(outer.spawn(async move {
        let _inner = inner;
        pending::<()>().await;
    }));
    outer.turn(NOW).unwrap();
    drop(outer);
    assert_eq!(dropped.get(), 1);
}

#[test]
fn a_panic_in_a_destructor_leaves_the_other_machines_to_be_dropped() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a bomb in a runtime that ends");
        }
    }
    let runtime = Runtime::new().unwrap();
    let dropped = Rc::new(Cell::new(0));
    for bomb in [Some(Bomb), None] {
        let lives = LivesInARuntime(dropped.clone());
        drop(runtime.spawn(async move {
            let _both = (bomb, lives);
            pending::<()>().await;
        }));
    }
    runtime.turn(NOW).unwrap();
    let ended = catch_unwind(AssertUnwindSafe(|| drop(runtime)));
    assert!(ended.is_ok(), "the panic left its machine");
    assert_eq!(dropped.get(), 2);
}

// ---- blocking jobs ----

#[test]
fn shutting_down_waits_for_blocking_jobs_and_dropping_does_not() {
    let (tell, told) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async move {
        drop(spawn_blocking(move || {
            let _ = released.recv();
            tell.send(()).unwrap();
        }));
    });
    assert!(!runtime.shutdown(Duration::ZERO), "the job does not wait");
    release.send(()).unwrap();
    told.recv().expect("the job runs on");

    let runtime = Runtime::new().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    runtime.block_on(async move {
        for n in 0..10 {
            let tell = tell.clone();
            drop(spawn_blocking(move || tell.send(n).unwrap()));
        }
    });
    assert!(runtime.shutdown(HOUR));
    assert_eq!(told.try_iter().count(), 10, "some have not ended");
}
