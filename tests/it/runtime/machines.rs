//! The runtime from outside: spawning, joining, aborting, panics and wakers across threads.
#![allow(
    clippy::async_yields_async,
    reason = "sleeps and handles are carried out of a runtime"
)]

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use netpoller::{JoinHandle, Runtime, spawn, spawn_blocking, time, yield_now};

use crate::support::counting::counting;
use crate::support::wakers;
use crate::support::watchdog::watchdog;

/// Tells that it was dropped.
struct Flag(Rc<Cell<bool>>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

fn flag() -> (Flag, Rc<Cell<bool>>) {
    let dropped = Rc::new(Cell::new(false));
    (Flag(dropped.clone()), dropped)
}

fn panic_text(payload: Box<dyn std::any::Any + Send>) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}

// ---- joining and aborting ----

#[test]
fn a_spawned_task_runs_and_gives_its_value_to_its_join() {
    let runtime = Runtime::new().unwrap();
    let early = runtime.spawn(async { 1 });
    let sum = runtime.block_on(async move {
        let late = spawn(async { 2 });
        early.await.unwrap() + late.await.unwrap()
    });
    assert_eq!(sum, 3);
    assert_eq!(runtime.stats().tasks, 0);
}

#[test]
fn a_dropped_handle_detaches_and_an_unjoined_value_is_dropped() {
    let runtime = Runtime::new().unwrap();
    let (flag, dropped) = flag();
    let ran = Rc::new(Cell::new(false));
    let seen = ran.clone();
    drop(runtime.spawn(async move {
        yield_now().await;
        seen.set(true);
        flag
    }));
    while runtime.stats().tasks > 0 {
        runtime.turn(None).unwrap();
    }
    assert!(ran.get() && dropped.get());
}

#[test]
fn aborting_a_suspended_task_drops_its_future_at_once() {
    let runtime = Runtime::new().unwrap();
    let (flag, dropped) = flag();
    let task = runtime.spawn(async move {
        let _flag = flag;
        pending::<()>().await;
    });
    runtime.turn(Some(Duration::ZERO)).unwrap();
    task.abort();
    assert!(dropped.get() && task.is_finished());
    task.abort();
    let error = runtime.block_on(task).unwrap_err();
    assert!(error.is_canceled() && !error.is_panic());
}

#[test]
fn a_task_may_abort_itself_and_ends_at_its_next_suspension() {
    let runtime = Runtime::new().unwrap();
    let own: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
    let (theirs, went_on) = (own.clone(), Rc::new(Cell::new(false)));
    let went = went_on.clone();
    let task = runtime.spawn(async move {
        theirs.borrow().as_ref().unwrap().abort();
        went.set(true);
        yield_now().await;
        unreachable!("it was aborted");
    });
    *own.borrow_mut() = Some(task);
    runtime.turn(Some(Duration::ZERO)).unwrap();
    assert!(went_on.get());
    let task = own.borrow_mut().take().unwrap();
    assert!(runtime.block_on(task).unwrap_err().is_canceled());
    assert_eq!(runtime.stats().tasks, 0);
}

#[test]
fn a_task_that_drops_its_own_handle_goes_on_by_itself() {
    let runtime = Runtime::new().unwrap();
    let own: Rc<RefCell<Option<JoinHandle<Flag>>>> = Rc::default();
    let (flag, dropped) = flag();
    let theirs = own.clone();
    let task = runtime.spawn(async move {
        drop(theirs.borrow_mut().take());
        flag
    });
    *own.borrow_mut() = Some(task);
    while runtime.stats().tasks > 0 {
        runtime.turn(None).unwrap();
    }
    assert!(dropped.get());
}

// ---- panics ----

mod invariant_10 {
    use super::*;

    #[test]
    fn a_panic_stays_in_its_task_and_reaches_its_join() {
        let runtime = Runtime::new().unwrap();
        let other = runtime.spawn(async {
            for _ in 0..10 {
                yield_now().await;
            }
            "well"
        });
        let bad = runtime.spawn(async { panic!("a bad day") });
        runtime.block_on(async {
            let error = bad.await.unwrap_err();
            assert!(error.is_panic());
            assert_eq!(error.to_string(), "task panicked: a bad day");
            assert_eq!(panic_text(error.into_panic()), "a bad day");
            assert_eq!(other.await.unwrap(), "well");
        });
    }

    #[test]
    fn a_panic_in_dropping_a_task_or_its_value_stays_there_too() {
        let runtime = Runtime::new().unwrap();
        let holding = runtime.spawn(async {
            let _bomb = Bomb;
            pending::<()>().await;
        });
        let in_future = runtime.spawn({
            let bomb = Bomb;
            poll_fn(move |_| {
                let _ = &bomb;
                Poll::Ready(())
            })
        });
        // Its handle goes while it runs, so the value it returns has no owner.
        let own: Rc<RefCell<Option<JoinHandle<Bomb>>>> = Rc::default();
        let theirs = own.clone();
        let task = runtime.spawn(async move {
            drop(theirs.borrow_mut().take());
            Bomb
        });
        *own.borrow_mut() = Some(task);
        let after = runtime.spawn(async { "still here" });
        runtime.turn(Some(Duration::ZERO)).unwrap();
        holding.abort();
        assert!(runtime.block_on(holding).unwrap_err().is_canceled());
        let error = runtime.block_on(in_future).unwrap_err();
        assert_eq!(error.to_string(), "task panicked: a bomb went off");
        assert_eq!(runtime.block_on(after).unwrap(), "still here");
    }
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("a bomb went off");
        }
    }
}

#[test]
fn a_waker_that_panics_ends_no_other_machine() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let panicking = Waker::from(Arc::new(wakers::PanicsOnWake));
    // Two ways in which the loop wakes a foreign waker, and another task in the same batch.
    let mut joined = Box::pin(runtime.spawn(async {}));
    let mut sleep = Box::pin(runtime.block_on(async { time::sleep(Duration::ZERO) }));
    sleep
        .as_mut()
        .reset(std::time::Instant::now() + Duration::from_millis(50));
    runtime.block_on(async {
        let mut cx = Context::from_waker(&panicking);
        assert!(joined.as_mut().poll(&mut cx).is_pending());
        assert!(sleep.as_mut().poll(&mut cx).is_pending());
        time::sleep(Duration::from_millis(60)).await;
        assert!(spawn(async { true }).await.unwrap());
    });
    let other = runtime.spawn(async { 7 });
    assert_eq!(runtime.block_on(other).unwrap(), 7);
}

#[test]
fn block_on_passes_a_panic_on_and_the_runtime_can_be_used_again() {
    let runtime = Runtime::new().unwrap();
    let ran = AssertUnwindSafe(|| runtime.block_on(async { panic!("the root's") }));
    let payload = catch_unwind(ran).unwrap_err();
    assert_eq!(panic_text(payload), "the root's");
    assert_eq!(runtime.block_on(async { 1 }), 1);
}

// ---- what panics say ----

#[test]
fn driving_a_runtime_inside_a_runtime_panics_with_a_sentence() {
    let (runtime, other) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    let runtime = &runtime;
    runtime.block_on(async {
        for attempt in [
            Box::new(|| runtime.block_on(async {})) as Box<dyn Fn()>,
            Box::new(|| other.block_on(async {})),
            Box::new(|| drop(runtime.turn(Some(Duration::ZERO)))),
        ] {
            let payload = catch_unwind(AssertUnwindSafe(attempt)).unwrap_err();
            let said = panic_text(payload);
            assert!(
                said.contains("can't be driven from inside a runtime"),
                "{said}"
            );
        }
        yield_now().await;
    });
}

#[test]
fn a_runtimes_functions_outside_one_panic_with_a_sentence() {
    for (name, call) in [
        ("spawn", (|| drop(spawn(async {}))) as fn()),
        ("spawn_blocking", || drop(spawn_blocking(|| {}))),
        ("time::now", || {
            let _ = time::now();
        }),
        ("time::sleep", || drop(time::sleep(Duration::ZERO))),
        ("time::interval", || {
            drop(time::interval(Duration::from_secs(1)))
        }),
    ] {
        let said = panic_text(catch_unwind(call).unwrap_err());
        assert!(
            said.contains(&format!("{name} was called outside a runtime")),
            "{said}"
        );
    }
}

// ---- wakers ----

#[test]
fn a_thousand_wakes_from_another_thread_cost_one_break() {
    let _watchdog = watchdog();
    let (selector, counts) = counting();
    let runtime = Runtime::builder().selector(selector).build().unwrap();
    let waker: Arc<Mutex<Option<Waker>>> = Arc::default();
    let theirs = waker.clone();
    let polls = Rc::new(Cell::new(0));
    let polled = polls.clone();
    drop(runtime.spawn(poll_fn(move |cx| {
        polled.set(polled.get() + 1);
        *theirs.lock().unwrap() = Some(cx.waker().clone());
        Poll::<()>::Pending
    })));
    runtime.turn(Some(Duration::ZERO)).unwrap();
    let waker = waker.lock().unwrap().take().unwrap();
    let thread = thread::spawn(move || (0..1000).for_each(|_| waker.wake_by_ref()));
    thread.join().unwrap();
    assert_eq!(counts.breaks(), 1);
    assert_eq!(runtime.next_timeout(), Some(Duration::ZERO));
    runtime.turn(None).unwrap();
    assert_eq!(polls.get(), 2, "woken a thousand times, polled once more");
}

#[test]
fn a_break_that_a_signal_interrupted_is_made_again() {
    let _watchdog = watchdog();
    let (selector, counts) = counting();
    let runtime = Runtime::builder().selector(selector).build().unwrap();
    counts.failures.lock().unwrap().push(ErrorKind::Interrupted);
    let handle = runtime.handle();
    let (tell, told) = channel();
    thread::spawn(move || handle.spawn(move || async move { tell.send(()).unwrap() }));
    // This would wait for ever if the break were lost.
    while told.try_recv().is_err() {
        runtime.turn(None).unwrap();
    }
    assert_eq!(counts.breaks(), 2);
}

#[test]
fn what_was_sent_when_the_break_failed_waits_for_the_next_turn_and_no_longer() {
    let (selector, counts) = counting();
    let runtime = Runtime::builder().selector(selector).build().unwrap();
    counts.failures.lock().unwrap().push(ErrorKind::OutOfMemory);
    let handle = runtime.handle();
    let (tell, told) = channel();
    handle.spawn(move || async move { tell.send(()).unwrap() });
    assert_eq!(runtime.next_timeout(), Some(Duration::ZERO));
    runtime.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(told.try_recv(), Ok(()));
    // After a break that failed, the next wake breaks again.
    counts.failures.lock().unwrap().push(ErrorKind::OutOfMemory);
    handle.wake();
    handle.wake();
    assert_eq!(counts.breaks(), 3);
}

#[test]
fn no_wake_from_another_thread_is_lost() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        for round in 0..2000 {
            let cell: Arc<Mutex<(bool, Option<Waker>)>> = Arc::default();
            let theirs = cell.clone();
            let job = spawn_blocking(move || {
                let mut cell = theirs.lock().unwrap();
                cell.0 = true;
                if let Some(waker) = cell.1.take() {
                    waker.wake();
                }
            });
            poll_fn(|cx| {
                let mut cell = cell.lock().unwrap();
                cell.1 = Some(cx.waker().clone());
                if cell.0 {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
            if round % 2 == 0 {
                job.await.unwrap();
            }
        }
    });
}

#[test]
fn a_wake_on_the_same_thread_needs_no_break() {
    let (selector, counts) = counting();
    let runtime = Runtime::builder().selector(selector).build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..100).map(|_| spawn(yield_now())).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(counts.breaks(), 0);
}

#[test]
fn a_blocking_closures_value_and_panic_reach_its_join() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let id = spawn_blocking(|| thread::current().id()).await.unwrap();
        assert_ne!(id, thread::current().id());
        let error = spawn_blocking(|| panic!("out there")).await.unwrap_err();
        assert_eq!(error.to_string(), "task panicked: out there");
    });
}
