//! Cancel scopes: what ends, when, why, and that nothing is left behind.

use std::cell::Cell;
use std::future::{Future, pending, poll_fn, ready};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use netpoller::CancelError::{Canceled, DeadlineExceeded};
use netpoller::{CancelToken, Runtime, spawn, time};

use crate::support::run::run_virtual;
use crate::support::schedule::virtual_runtime;
use crate::support::wakers::{Counter, PanicsOnWake};

const SECOND: Duration = Duration::from_secs(1);

/// How many wait for the end of a scope or of one below it.
fn waiters(token: &CancelToken) -> usize {
    let text = format!("{token:?}");
    let (_, rest) = text.split_once("waiters: ").unwrap();
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

#[test]
fn tokens_can_be_used_from_any_thread() {
    fn anywhere<T: Send + Sync + Clone + 'static>() {}
    anywhere::<CancelToken>();
}

#[test]
fn errors_read_as_in_go() {
    assert_eq!(Canceled.to_string(), "context canceled");
    assert_eq!(DeadlineExceeded.to_string(), "context deadline exceeded");
    let kind = |error| std::io::Error::from(error).kind();
    assert_eq!(kind(Canceled), std::io::ErrorKind::Other);
    assert_eq!(kind(DeadlineExceeded), std::io::ErrorKind::TimedOut);
}

#[test]
fn cancel_ends_the_scope_and_all_below_it_and_nothing_above() {
    let root = CancelToken::new();
    let middle = root.child();
    let leaf = middle.clone().child();
    let sibling = root.child();
    middle.cancel();
    assert_eq!(leaf.err(), Some(Canceled));
    assert_eq!(middle.err(), Some(Canceled));
    assert_eq!((root.err(), sibling.err()), (None, None));
    assert_eq!(
        middle.child().err(),
        Some(Canceled),
        "a child of an ended scope has ended"
    );
    root.cancel();
    assert_eq!(sibling.err(), Some(Canceled));
}

#[test]
fn dropping_a_parent_ends_nothing_and_cuts_nothing_off() {
    let root = CancelToken::new();
    let leaf = root.child().child();
    assert_eq!(leaf.err(), None);
    root.cancel();
    assert_eq!(leaf.err(), Some(Canceled));
    let orphan = CancelToken::new().child();
    assert_eq!(orphan.err(), None);
}

#[test]
fn the_earliest_deadline_binds() {
    let now = Instant::now();
    let root = CancelToken::new().with_deadline(now + 10 * SECOND);
    assert_eq!(root.child().deadline(), Some(now + 10 * SECOND));
    let later = root.with_deadline(now + 20 * SECOND);
    assert_eq!(later.deadline(), Some(now + 10 * SECOND));
    let sooner = root.with_deadline(now + SECOND);
    assert_eq!(sooner.deadline(), Some(now + SECOND));
}

#[test]
fn a_deadline_takes_effect_without_a_waiter() {
    run_virtual(async {
        let token = CancelToken::new().with_timeout(SECOND);
        let below = token.child();
        time::sleep(SECOND - Duration::from_millis(1)).await;
        assert_eq!(token.err(), None);
        time::sleep(Duration::from_millis(1)).await;
        assert_eq!(below.err(), Some(DeadlineExceeded));
        assert_eq!(token.err(), Some(DeadlineExceeded));
    });
}

#[test]
fn outside_a_runtime_the_clock_is_the_system_s() {
    let past = CancelToken::new().with_deadline(Instant::now());
    assert_eq!(past.err(), Some(DeadlineExceeded));
    let zero = CancelToken::new().with_timeout(Duration::ZERO);
    assert_eq!(zero.err(), Some(DeadlineExceeded));
    let far = CancelToken::new().with_timeout(Duration::MAX);
    assert_eq!(far.err(), None);
}

#[test]
fn a_loop_that_never_waits_sees_its_deadline() {
    Runtime::new().unwrap().block_on(async {
        let began = Instant::now();
        let token = CancelToken::new().with_timeout(Duration::from_millis(5));
        while token.err().is_none() {
            assert!(began.elapsed() < 60 * SECOND, "the clock stands still");
        }
        assert!(began.elapsed() >= Duration::from_millis(5));
    });
}

#[test]
fn the_reason_is_what_came_first() {
    run_virtual(async {
        let token = CancelToken::new().with_timeout(SECOND);
        let sooner = token.with_timeout(SECOND / 2);
        time::sleep(SECOND / 2).await;
        // The deadline has not been looked at yet, and still it came first.
        token.cancel();
        assert_eq!(sooner.err(), Some(DeadlineExceeded));
        assert_eq!(token.err(), Some(Canceled));
        time::sleep(SECOND).await;
        assert_eq!(token.err(), Some(Canceled));

        let late = CancelToken::new().with_timeout(SECOND);
        time::sleep(SECOND).await;
        late.cancel();
        assert_eq!(late.err(), Some(DeadlineExceeded));
    });
}

#[test]
fn the_reason_that_was_found_first_stays_whatever_another_clock_says_later() {
    run_virtual(async {
        let request = CancelToken::new();
        let step = request.with_timeout(SECOND);
        let open = request.with_timeout(1000 * SECOND);
        time::sleep(2 * SECOND).await;
        assert_eq!(step.err(), Some(DeadlineExceeded));
        // By the clock of that thread the second has not passed yet.
        thread::spawn(move || request.cancel()).join().unwrap();
        assert_eq!(step.err(), Some(DeadlineExceeded));
        assert_eq!(step.run(pending::<()>()).await, Err(DeadlineExceeded));
        time::sleep(2000 * SECOND).await;
        assert_eq!(open.err(), Some(Canceled));
        assert_eq!(open.child().err(), Some(Canceled));
    });
}

#[test]
fn canceled_wakes_all_waiters_at_the_deadline_and_not_before() {
    run_virtual(async {
        let token = CancelToken::new().with_timeout(SECOND);
        let start = time::now();
        let waiting: Vec<_> = (0..10)
            .map(|n| {
                let token = match n % 2 {
                    0 => token.clone(),
                    _ => token.child(),
                };
                spawn(async move {
                    token.canceled().await;
                    assert_eq!(token.err(), Some(DeadlineExceeded));
                    time::now()
                })
            })
            .collect();
        for task in waiting {
            let passed = task.await.unwrap() - start;
            assert!((SECOND..SECOND * 11 / 10).contains(&passed), "{passed:?}");
        }
    });
}

#[test]
fn cancel_wakes_all_waiters_on_other_threads_too() {
    let token = CancelToken::new();
    let (tell, told) = mpsc::channel();
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (token, tell) = (token.clone(), tell.clone());
            thread::spawn(move || {
                Runtime::new().unwrap().block_on(async {
                    let tasks: Vec<_> = (0..100)
                        .map(|_| {
                            let token = token.child();
                            spawn(async move { token.canceled().await })
                        })
                        .collect();
                    netpoller::yield_now().await;
                    tell.send(()).unwrap();
                    for task in tasks {
                        task.await.unwrap();
                    }
                });
            })
        })
        .collect();
    (0..3).for_each(|_| told.recv().unwrap());
    token.cancel();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(waiters(&token), 0);
}

#[test]
fn run_gives_what_the_future_gives_and_lets_it_win_a_tie() {
    run_virtual(async {
        let token = CancelToken::new();
        assert_eq!(token.run(ready(1)).await, Ok(1));
        let tie = async {
            token.cancel();
            2
        };
        assert_eq!(token.run(tie).await, Ok(2));
        let begun = Cell::new(false);
        let never = token.run(async { begun.set(true) }).await;
        assert_eq!((never, begun.get()), (Err(Canceled), false));
    });
}

#[test]
fn run_ends_with_the_scope_and_drops_the_future() {
    struct Noted(Rc<Cell<usize>>);
    impl Drop for Noted {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    run_virtual(async {
        let dropped = Rc::new(Cell::new(0));
        let guarded = || {
            let noted = Noted(dropped.clone());
            async move {
                let _noted = noted;
                pending::<()>().await
            }
        };
        let limited = CancelToken::new().with_timeout(SECOND);
        assert_eq!(limited.run(guarded()).await, Err(DeadlineExceeded));
        assert_eq!(dropped.get(), 1);

        let token = CancelToken::new();
        let other = token.clone();
        let task = spawn(async move { other.cancel() });
        assert_eq!(token.run(guarded()).await, Err(Canceled));
        assert_eq!(dropped.get(), 2);
        task.await.unwrap();
    });
}

#[test]
fn a_scope_can_be_awaited_again_and_the_last_poll_counts() {
    run_virtual(async {
        let token = CancelToken::new();
        let mut waiting = Box::pin(token.canceled());
        // Polled here once, then handed to a task: it is the task that must wake.
        let polled = poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx))).await;
        assert!(polled.is_pending());
        let task = spawn(waiting);
        netpoller::yield_now().await;
        assert_eq!(waiters(&token), 1);
        token.cancel();
        task.await.unwrap();
        token.canceled().await;
    });
}

#[test]
fn what_is_dropped_leaves_the_lists_of_its_scope_and_of_those_above() {
    let root = CancelToken::new();
    let token = root.child();
    let mut cx = Context::from_waker(Waker::noop());
    let mut waiting: Vec<_> = (0..100).map(|_| Box::pin(token.canceled())).collect();
    for waiter in &mut waiting {
        assert!(waiter.as_mut().poll(&mut cx).is_pending());
        assert!(waiter.as_mut().poll(&mut cx).is_pending());
    }
    assert_eq!(waiters(&token), 100);
    drop(waiting.split_off(50));
    assert_eq!((waiters(&token), waiters(&root)), (50, 50));
    token.cancel();
    assert_eq!(waiters(&token), 0);
    drop(waiting);
    assert_eq!(waiters(&root), 0);
}

#[test]
fn waiting_leaves_no_timer_behind() {
    let runtime = virtual_runtime();
    runtime.block_on(async {
        let token = CancelToken::new().with_timeout(1000 * SECOND);
        for _ in 0..100 {
            assert_eq!(token.run(time::sleep(SECOND / 100)).await, Ok(()));
        }
        assert_eq!(waiters(&token), 0);
    });
    let stats = runtime.stats();
    assert_eq!((stats.timers, stats.waiters, stats.tasks), (0, 0, 0));
}

/// A waker that uses the token when it is woken. Under a lock, that would be a deadlock.
struct UsesToken(CancelToken, AtomicUsize);

impl Wake for UsesToken {
    fn wake(self: Arc<Self>) {
        assert_eq!(
            self.0.err(),
            Some(Canceled),
            "ended before the first is woken"
        );
        assert_eq!(self.0.child().err(), Some(Canceled));
        self.0.cancel();
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn wakers_are_woken_with_no_lock_held_and_the_whole_tree_ended() {
    let root = CancelToken::new();
    let leaf = root.child().child();
    let waking = Arc::new(UsesToken(leaf.clone(), AtomicUsize::new(0)));
    let waker = Waker::from(waking.clone());
    let mut cx = Context::from_waker(&waker);
    let (mut above, mut below) = (pin!(root.canceled()), pin!(leaf.canceled()));
    assert!(above.as_mut().poll(&mut cx).is_pending());
    assert!(below.as_mut().poll(&mut cx).is_pending());
    root.cancel();
    assert_eq!(waking.1.load(Ordering::Relaxed), 2);
    assert!(above.as_mut().poll(&mut cx).is_ready());
}

#[test]
fn a_long_chain_ends_and_goes_without_exhausting_the_stack() {
    let root = CancelToken::new();
    let mut leaf = root.clone();
    for _ in 0..200_000 {
        leaf = leaf.child();
    }
    root.cancel();
    assert_eq!(leaf.err(), Some(Canceled));
    drop(leaf);
    let mut leaf = CancelToken::new();
    for _ in 0..200_000 {
        leaf = leaf.child();
    }
    drop(leaf);
}

#[test]
fn a_waker_that_panics_keeps_no_other_from_learning_that_a_scope_has_ended() {
    let (panicking, counter) = (
        Waker::from(Arc::new(PanicsOnWake)),
        Arc::new(Counter::default()),
    );
    let counted = Waker::from(counter.clone());
    let token = CancelToken::new();
    let (mut first, mut second) = (Box::pin(token.canceled()), Box::pin(token.canceled()));
    assert!(
        first
            .as_mut()
            .poll(&mut Context::from_waker(&panicking))
            .is_pending()
    );
    assert!(
        second
            .as_mut()
            .poll(&mut Context::from_waker(&counted))
            .is_pending()
    );
    token.cancel();
    assert_eq!(counter.count(), 1);
}
