//! What other threads send: none of it is lost, whenever it comes while the loop polls.

use std::future::{Future, poll_fn};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use netpoller::reactor::Break;
use netpoller::{Runtime, spawn, time};

use crate::support::hooked::{Hook, hooked_by};
use crate::support::watchdog::watchdog;

/// A ball that a thread throws, and a task throws back.
#[derive(Default)]
struct Ball {
    thrown: AtomicUsize,
    catcher: Mutex<Option<Waker>>,
}

impl Ball {
    fn throw(&self) {
        self.thrown.fetch_add(1, Ordering::SeqCst);
        let catcher = self.catcher.lock().unwrap().take();
        catcher.into_iter().for_each(Waker::wake);
    }

    async fn catch(&self, throws: usize) {
        poll_fn(|cx| {
            *self.catcher.lock().unwrap() = Some(cx.waker().clone());
            match self.thrown.load(Ordering::SeqCst) >= throws {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    async fn play(self: Arc<Self>, throws: usize, back: Sender<()>) {
        for throw in 1..=throws {
            self.catch(throw).await;
            back.send(()).unwrap();
        }
    }
}

#[test]
fn wakes_from_several_threads_all_arrive_whatever_the_loop_is_doing() {
    const THROWS: usize = 10_000;
    let _watchdog = watchdog();
    Runtime::new().unwrap().block_on(async {
        let players = [(); 3].map(|()| {
            let (ball, (back, caught)) = (Arc::new(Ball::default()), channel());
            let thrown = ball.clone();
            let thread = thread::spawn(move || {
                for _ in 0..THROWS {
                    thrown.throw();
                    caught.recv().unwrap();
                }
            });
            (spawn(ball.play(THROWS, back)), thread)
        });
        for (task, thread) in players {
            task.await.unwrap();
            thread.join().unwrap();
        }
    });
}

#[test]
fn sleeps_that_are_dropped_between_turns_are_all_gone_after_the_next() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    // More than the jobs that a turn runs.
    let sleeps = runtime.block_on(poll_fn(|cx| {
        let mut sleep = || {
            let mut sleep = Box::pin(time::sleep(Duration::from_secs(3600)));
            assert!(sleep.as_mut().poll(cx).is_pending());
            sleep
        };
        Poll::Ready((0..3000).map(|_| sleep()).collect::<Vec<_>>())
    }));
    assert_eq!(runtime.stats().timers, 3000);
    drop(sleeps);
    runtime.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(runtime.stats().timers, 0);
}

#[test]
fn what_was_given_up_before_the_runtime_learns_of_it_does_not_begin() {
    let runtime = Runtime::new().unwrap();
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = begun.clone();
    drop(runtime.handle().run(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async {}
    }));
    while runtime.turn(Some(Duration::ZERO)).unwrap().more {}
    assert_eq!(begun.load(Ordering::SeqCst), 0);
}

/// A break that panics the first time.
struct PanicsOnce(AtomicUsize, Arc<dyn Break>);

impl Break for PanicsOnce {
    fn break_netpoll(&self) -> io::Result<()> {
        assert_ne!(
            self.0.fetch_add(1, Ordering::SeqCst),
            0,
            "as it was told to"
        );
        self.1.break_netpoll()
    }
}

struct Breaks;

impl Hook for Breaks {
    fn breaker(&self, system: Arc<dyn Break>) -> Arc<dyn Break> {
        Arc::new(PanicsOnce(AtomicUsize::new(0), system))
    }
}

#[test]
fn a_break_that_panics_silences_no_later_wake() {
    let _watchdog = watchdog();
    let runtime = Runtime::builder().selector(hooked_by(Breaks)).build();
    let runtime = runtime.unwrap();
    let (handle, first) = (runtime.handle(), runtime.handle());
    let breaks = thread::spawn(move || first.wake());
    drop(breaks.join());
    // The panic left the mail as it was, so this turn does not wait.
    runtime.turn(None).unwrap();
    let wakes = thread::spawn(move || handle.wake());
    runtime.turn(None).unwrap();
    wakes.join().unwrap();
}
