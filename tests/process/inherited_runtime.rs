//! A runtime in a child of fork(2): it refuses, and leaves the parent's alone.

use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;

use netpoller::{Runtime, spawn, spawn_blocking, time, yield_now};

use crate::child::{in_child, in_fork};

const NOW: Option<Duration> = Some(Duration::ZERO);

/// What `f` panics with.
fn panic_of(f: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).expect_err("it should have panicked");
    *payload
        .downcast::<String>()
        .expect("the panic is a sentence")
}

fn says_whose_it_is(sentence: &str) -> bool {
    sentence.contains("belongs to the parent process")
}

#[test]
fn a_child_that_uses_the_parents_runtime_is_told_so() {
    in_child(|| {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(yield_now());
        assert!(in_fork(|| {
            assert!(says_whose_it_is(
                &runtime.turn(NOW).unwrap_err().to_string()
            ));
            assert!(says_whose_it_is(&panic_of(|| runtime.block_on(async {}))));
            assert!(says_whose_it_is(&panic_of(|| {
                drop(runtime.spawn(async {}));
            })));
        }));
        runtime.block_on(yield_now());
    });
}

#[test]
fn a_child_forked_in_a_turn_can_make_a_runtime_and_not_spawn_on_its_parents() {
    in_child(|| {
        Runtime::new().unwrap().block_on(async {
            assert!(in_fork(|| {
                assert!(says_whose_it_is(&panic_of(|| drop(spawn(async {})))));
                let own = Runtime::new().unwrap();
                let slept = own.block_on(async {
                    time::sleep(Duration::from_millis(1)).await;
                    spawn_blocking(|| 7).await.unwrap()
                });
                assert_eq!(slept, 7);
            }));
            time::sleep(Duration::from_millis(1)).await;
        });
    });
}

#[test]
fn what_a_child_wakes_sends_and_drops_does_not_reach_the_parents_loop() {
    in_child(|| {
        let runtime = Runtime::new().unwrap();
        let handle = runtime.handle();
        let (tell, told) = mpsc::channel();
        drop(runtime.spawn(poll_fn(move |cx| {
            let _ = tell.send(cx.waker().clone());
            Poll::<()>::Pending
        })));
        drop(runtime.spawn(pending::<()>()));
        runtime.turn(NOW).unwrap();
        runtime.turn(NOW).unwrap();
        let waker = told.recv().unwrap();
        let runtime = std::cell::Cell::new(Some(runtime));
        assert!(in_fork(|| {
            waker.wake_by_ref();
            handle.wake();
            handle.spawn(|| async {});
            drop(runtime.take());
        }));
        let runtime = runtime.take().unwrap();
        let turn = runtime.turn(NOW).unwrap();
        assert_eq!((turn.events, turn.machines), (0, 0));
        waker.wake();
        assert_eq!(
            runtime.turn(NOW).unwrap().machines,
            1,
            "the parent's wake does"
        );
    });
}

#[cfg(not(mio_unsupported_force_poll_poll))]
#[test]
fn a_child_does_not_wait_for_the_thread_that_calls_its_parents_host() {
    in_child(|| {
        let runtime = Runtime::new().unwrap();
        let (call, calls) = mpsc::channel();
        runtime.notify_host(move || call.send(()).unwrap()).unwrap();
        let in_child = std::cell::Cell::new(Some(runtime));
        assert!(in_fork(|| drop(in_child.take())));
        let runtime = in_child.take().expect("the parent's is its own");
        drop(runtime.spawn(async {}));
        calls.recv().unwrap();
    });
}
