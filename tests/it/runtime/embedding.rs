//! A runtime used from other threads and executors, and in a frame that is short.

use std::future::{Future, pending};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use netpoller::{Handle, Runtime, yield_now};

use crate::support::stall::stall;
use crate::support::wakers::Counter;

const NOW: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(60);

/// Turns until `done`.
fn turn_until(runtime: &Runtime, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        runtime.turn(Some(Duration::from_millis(1))).unwrap();
        assert!(start.elapsed() < LONG, "it never ends");
    }
}

mod run {
    use super::*;

    #[test]
    fn another_thread_gets_the_result_of_a_future_that_is_not_send() {
        let runtime = Runtime::new().unwrap();
        let handle = runtime.handle();
        let thread = thread::spawn(move || {
            handle.run_blocking(|| async {
                let shared = Rc::new(21);
                yield_now().await;
                *shared * 2
            })
        });
        turn_until(&runtime, || thread.is_finished());
        assert_eq!(thread.join().unwrap().unwrap(), 42);
        assert_eq!(runtime.stats().tasks, 0);
    }

    #[test]
    fn another_runtime_awaits_the_answer() {
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            let runtime = Runtime::new().unwrap();
            tell.send(runtime.handle()).unwrap();
            turn_until(&runtime, || ended.try_recv().is_ok());
        });
        let theirs: Handle = told.recv().unwrap();
        let runtime = Runtime::new().unwrap();
        let answer = runtime.block_on(theirs.run(|| async { thread::current().id() }));
        assert_eq!(answer.unwrap(), thread.thread().id());
        end.send(()).unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn dropping_the_answer_aborts_the_task() {
        struct Tell(mpsc::Sender<()>);
        impl Drop for Tell {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let runtime = Runtime::new().unwrap();
        let (tell, told) = mpsc::channel();
        let answer = runtime.handle().run(move || {
            let tell = Tell(tell);
            async move {
                pending::<()>().await;
                drop(tell);
            }
        });
        turn_until(&runtime, || runtime.stats().tasks == 2);
        assert!(told.try_recv().is_err());
        thread::spawn(move || drop(answer)).join().unwrap();
        turn_until(&runtime, || runtime.stats().tasks == 0);
        assert!(told.try_recv().is_ok(), "what it held is dropped");
    }

    #[test]
    fn a_panic_of_the_future_or_of_the_closure_is_an_error() {
        let runtime = Runtime::new().unwrap();
        let handle = runtime.handle();
        let future = runtime.block_on(handle.run(|| async { panic!("at once") }));
        let closure = handle.run(|| -> std::future::Ready<()> { panic!("before") });
        let closure = runtime.block_on(closure);
        assert_eq!(future.unwrap_err().to_string(), "task panicked: at once");
        assert_eq!(closure.unwrap_err().to_string(), "task panicked: before");
    }

    #[test]
    fn the_end_of_the_runtime_is_an_error_before_the_task_begins_and_later() {
        let runtime = Runtime::new().unwrap();
        let handle = runtime.handle();
        let begun = handle.run(pending::<()>);
        turn_until(&runtime, || runtime.stats().tasks == 2);
        let sent = handle.run(pending::<()>);
        drop(runtime);
        let gone = handle.run(pending::<()>);
        for mut answer in [
            Box::pin(begun) as std::pin::Pin<Box<dyn Future<Output = _>>>,
            Box::pin(sent),
            Box::pin(gone),
        ] {
            let mut cx = Context::from_waker(Waker::noop());
            match answer.as_mut().poll(&mut cx) {
                Poll::Ready(Err(error)) => assert!(error.is_canceled()),
                other => panic!("{other:?}"),
            }
        }
        assert!(
            handle.run_blocking(pending::<()>).is_err(),
            "nor does it wait"
        );
    }

    #[test]
    fn a_runtimes_own_thread_is_refused_in_a_turn_and_between_turns() {
        let runtime = Runtime::new().unwrap();
        let refused = |handle: &Handle| {
            let error = handle.run_blocking(|| async {}).unwrap_err();
            assert!(!error.is_canceled() && !error.is_panic());
            assert!(error.to_string().contains("own task"), "{error}");
        };
        refused(&runtime.handle());
        runtime.block_on(async { refused(&Handle::current()) });
        assert_eq!(runtime.stats().spawned, 0);
    }

    #[test]
    fn the_current_handle_is_the_runtimes_whose_turn_it_is() {
        let runtime = Runtime::new().unwrap();
        let told = runtime.block_on(async {
            let (tell, told) = mpsc::channel();
            Handle::current().spawn(move || async move { tell.send(7).unwrap() });
            told
        });
        turn_until(&runtime, || told.try_recv() == Ok(7));
        let outside = std::panic::catch_unwind(Handle::current).unwrap_err();
        let message = outside.downcast_ref::<String>().unwrap();
        assert!(
            message.contains("Handle::current was called outside a runtime"),
            "{message}"
        );
    }

    #[test]
    fn an_answer_is_polled_by_several_wakers_and_the_last_is_woken() {
        let runtime = Runtime::new().unwrap();
        let mut answer = pin!(runtime.handle().run(|| async { 1 }));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(answer.as_mut().poll(&mut cx).is_pending());
        assert_eq!(runtime.block_on(answer).unwrap(), 1);
    }

    #[test]
    fn an_answer_that_is_dropped_drops_its_waker_at_once() {
        let runtime = Runtime::new().unwrap();
        let counter = Arc::new(Counter::default());
        let mut answer = Box::pin(runtime.handle().run(pending::<()>));
        turn_until(&runtime, || runtime.stats().tasks == 2);
        let waker = counter.clone().into();
        let polled = answer.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        drop((answer, waker));
        assert_eq!(Arc::strong_count(&counter), 1);
    }
}

mod turn_for {
    use super::*;

    const A_WHILE: Duration = Duration::from_millis(1);

    /// Spawns machines that are always runnable and take a while each.
    fn busy(runtime: &Runtime, machines: usize) {
        for _ in 0..machines {
            drop(runtime.spawn(async {
                loop {
                    stall(A_WHILE);
                    yield_now().await;
                }
            }));
        }
    }

    #[test]
    fn a_budget_bounds_the_machines_of_a_frame_beside_machines_that_never_rest() {
        let runtime = Runtime::new().unwrap();
        busy(&runtime, 100);
        let turn = runtime.turn_for(5 * A_WHILE).unwrap();
        assert_eq!(turn.machines, 16, "they took three times the budget");
        assert!(turn.more);
        let turn = runtime.turn_for(17 * A_WHILE).unwrap();
        assert!(turn.machines == 16 || turn.machines == 32, "{turn:?}");
        // In order: all have had a run before one has its second.
        while runtime.stats().machines < 100 {
            runtime.turn_for(NOW).unwrap();
        }
        assert!(runtime.stats().machines < 100 + 16);
    }

    #[test]
    fn a_budget_of_zero_polls_and_runs_and_never_waits() {
        let runtime = Runtime::new().unwrap();
        let start = Instant::now();
        assert_eq!(runtime.turn_for(NOW).unwrap().machines, 0);
        let task = runtime.spawn(async {});
        assert_eq!(runtime.turn_for(NOW).unwrap().machines, 1);
        assert!(task.is_finished() && start.elapsed() < LONG);
    }

    #[test]
    fn it_runs_what_there_is_and_waits_out_its_budget() {
        let runtime = Runtime::new().unwrap();
        for _ in 0..100 {
            drop(runtime.spawn(yield_now()));
        }
        let turn = runtime.turn_for(LONG).unwrap();
        assert_eq!((turn.machines, turn.more), (200, false));
        let start = Instant::now();
        let turn = runtime.turn_for(20 * A_WHILE).unwrap();
        assert_eq!((turn.machines, turn.more), (0, false));
        assert!(start.elapsed() >= 20 * A_WHILE);
    }
}
