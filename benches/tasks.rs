//! The cost of spawning a task, of waking one, and of reaching it from another thread: `cargo bench
//! -p netpoller-benches --bench tasks`.
//!
//! Where one task runs at a time, each wake is followed by a turn of the loop, which asks the
//! system: that is most of the figure. The wake from another thread is a latency by the clock: from
//! the call of `wake` there until the task runs here, in a loop that was asleep in the system.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::hint::black_box;
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use netpoller::{Runtime, spawn, yield_now};

#[path = "common/mod.rs"]
mod common;

use common::{CpuTime, brief, timed};

const TASKS: u64 = 1_000;

/// Long enough for the loop to have gone to sleep.
const ASLEEP: Duration = Duration::from_micros(300);

fn runtime() -> Runtime {
    Runtime::new().expect("there are descriptors")
}

/// Two tasks take turns: the holder runs, the other waits.
#[derive(Default)]
struct Baton {
    holder: Cell<u64>,
    waiting: RefCell<Option<Waker>>,
}

impl Baton {
    /// Waits for its turn, then wakes the other.
    fn poll(&self, me: u64, cx: &mut Context<'_>) -> Poll<()> {
        if self.holder.get() != me {
            *self.waiting.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.holder.set(1 - me);
        let other = self.waiting.borrow_mut().take();
        if let Some(other) = other {
            other.wake();
        }
        Poll::Ready(())
    }

    async fn play(self: Rc<Self>, me: u64, turns: u64) {
        for _ in 0..turns {
            poll_fn(|cx| self.poll(me, cx)).await;
        }
    }
}

fn wake(criterion: &mut Criterion<CpuTime>) {
    let runtime = runtime();
    criterion.bench_function("wake: a task by another", |bencher| {
        bencher.iter_custom(|iterations| {
            runtime.block_on(async {
                let turns = iterations.div_ceil(2);
                let baton = Rc::new(Baton::default());
                let start = CpuTime::now();
                let other = spawn(baton.clone().play(1, turns));
                spawn(baton.play(0, turns)).await.expect("no panic");
                other.await.expect("no panic");
                CpuTime::now() - start
            })
        });
    });
    criterion.bench_function("wake: a task by itself (yield_now)", |bencher| {
        bencher.iter_custom(|iterations| {
            runtime.block_on(async {
                let start = CpuTime::now();
                spawn(yield_often(iterations)).await.expect("no panic");
                CpuTime::now() - start
            })
        });
    });
    criterion.bench_function("wake: 1,000 tasks, each by itself", |bencher| {
        bencher.iter_custom(|iterations| {
            let yields = iterations.div_ceil(TASKS);
            let tasks: Vec<_> = (0..TASKS)
                .map(|_| runtime.spawn(yield_often(yields)))
                .collect();
            let start = CpuTime::now();
            for task in tasks {
                runtime.block_on(task).expect("no panic");
            }
            let spent = CpuTime::now() - start;
            spent.mul_f64(iterations as f64 / (yields * TASKS) as f64)
        });
    });
}

async fn yield_often(yields: u64) {
    for _ in 0..yields {
        yield_now().await;
    }
}

/// What a task and a thread pass to each other: the waker, and the instant of its wake.
#[derive(Default)]
struct Bell {
    woken: Mutex<Option<Instant>>,
}

impl Bell {
    fn ring(&self, waker: &Waker) {
        *self.woken.lock().expect("no panic") = Some(Instant::now());
        waker.wake_by_ref();
    }

    /// The time since the wake.
    async fn heard(&self, thread: &mpsc::Sender<Waker>) -> Duration {
        let mut asked = false;
        let woken = poll_fn(|cx| {
            if let Some(woken) = self.woken.lock().expect("no panic").take() {
                return Poll::Ready(woken);
            }
            if !asked {
                asked = true;
                thread.send(cx.waker().clone()).expect("it is there");
            }
            Poll::Pending
        });
        woken.await.elapsed()
    }
}

fn wake_from_another_thread(criterion: &mut Criterion<CpuTime>) {
    let runtime = runtime();
    let bell = Arc::new(Bell::default());
    let (to_thread, asked) = mpsc::channel::<Waker>();
    let ringing = bell.clone();
    let ringer = thread::spawn(move || {
        for waker in asked {
            // The loop is asleep by then. If it is not, the figure is too low.
            thread::sleep(ASLEEP);
            ringing.ring(&waker);
        }
    });
    criterion.bench_function("wake: from another thread, latency", |bencher| {
        bencher.iter_custom(|iterations| {
            runtime.block_on(async {
                let mut spent = Duration::ZERO;
                for _ in 0..iterations {
                    spent += bell.heard(&to_thread).await;
                }
                spent
            })
        });
    });
    drop(to_thread);
    ringer.join().expect("no panic");

    let handle = runtime.handle();
    criterion.bench_function("wake: of a loop that has been told already", |bencher| {
        handle.wake();
        bencher.iter(|| black_box(&handle).wake());
    });
}

fn spawning(criterion: &mut Criterion<CpuTime>) {
    let runtime = runtime();
    criterion.bench_function("spawn, run to the end, join", |bencher| {
        bencher.iter_custom(|iterations| {
            runtime.block_on(async {
                let start = CpuTime::now();
                for number in 0..iterations {
                    let task = spawn(async move { black_box(number) });
                    black_box(task.await.expect("no panic"));
                }
                CpuTime::now() - start
            })
        });
    });
    let mut tasks = Vec::with_capacity(TASKS as usize);
    criterion.bench_function("spawn, run, join: 1,000 at a time", |bencher| {
        bencher.iter_custom(|iterations| {
            timed(iterations, TASKS, || {
                runtime.block_on(async {
                    let start = CpuTime::now();
                    tasks.extend((0..TASKS).map(|number| spawn(async move { black_box(number) })));
                    for task in tasks.drain(..) {
                        black_box(task.await.expect("no panic"));
                    }
                    CpuTime::now() - start
                })
            })
        });
    });
}

criterion_group! {
    name = benches;
    config = brief();
    targets = wake, wake_from_another_thread, spawning
}
criterion_main!(benches);
