//! What other threads send: none of it is lost, however it falls together with the loop's looking.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;

use netpoller::{Runtime, spawn};

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
fn wakes_from_several_threads_are_all_heard_however_they_meet_the_loop() {
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
