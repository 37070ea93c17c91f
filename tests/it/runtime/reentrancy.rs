//! Invariant 11: cloning, waking and dropping a waker may run anything, so no borrow is held then.
//!
//! The waker here uses everything of the runtime whenever it is touched: a borrow that was held
//! would show as a panic.
#![allow(
    unsafe_code,
    reason = "only a vtable of one's own sees the clones of a waker"
)]

use std::cell::{Cell, OnceCell, RefCell};
use std::future::{Future, pending};
use std::pin::Pin;
use std::ptr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, RawWaker, RawWakerVTable, Wake, Waker};
use std::time::{Duration, Instant};

use futures_lite::AsyncReadExt;
use netpoller::{
    JoinHandle, Runtime, TcpStream, UnixStream, spawn, spawn_blocking, time, yield_now,
};

use crate::support::loopback::pair;
use crate::support::watchdog::watchdog;

thread_local! {
    static STREAM: RefCell<Option<TcpStream>> = const { RefCell::new(None) };
    static TASK: RefCell<Option<JoinHandle<()>>> = const { RefCell::new(None) };
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    static TOUCHED: Cell<usize> = const { Cell::new(0) };
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(
    |_| {
        meddle();
        RawWaker::new(ptr::null(), &VTABLE)
    },
    |_| meddle(),
    |_| meddle(),
    |_| meddle(),
);

fn meddling_waker() -> Waker {
    // SAFETY: there is no data, and the functions of the vtable look at none.
    unsafe { Waker::from_raw(RawWaker::new(ptr::null(), &VTABLE)) }
}

/// Uses all there is, unless that is going on already.
fn meddle() {
    if INSIDE.replace(true) {
        return;
    }
    TOUCHED.set(TOUCHED.get() + 1);
    let mut cx = Context::from_waker(Waker::noop());
    drop(spawn(async {}));
    let mut sleep = Box::pin(time::sleep(Duration::from_secs(60)));
    let _ = sleep.as_mut().poll(&mut cx);
    sleep.as_mut().reset(time::now() + Duration::from_secs(30));
    drop(sleep);
    let stream = STREAM.with_borrow(Clone::clone);
    if let Some(stream) = stream {
        let _ = stream.set_deadline(Some(time::now() + Duration::from_secs(60)));
        let mut byte = [0; 1];
        let _ = Box::pin(stream.read(&mut byte)).as_mut().poll(&mut cx);
        let _ = Box::pin(stream.hung_up()).as_mut().poll(&mut cx);
    }
    let task = TASK.take();
    if let Some(mut task) = task {
        let _ = Pin::new(&mut task).poll(&mut cx);
        TASK.set(Some(task));
    }
    INSIDE.set(false);
}

/// Polls again and again with a waker that meddles, lets the loop turn, and drops the future.
async fn touch(name: &str, future: impl Future) {
    let before = TOUCHED.get();
    let mut future = Box::pin(future);
    for _ in 0..3 {
        let waker = meddling_waker();
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_ready() {
            break;
        }
        yield_now().await;
    }
    drop(future);
    assert!(TOUCHED.get() > before, "{name} never touched the waker");
}

mod invariant_11 {
    use super::*;

    #[test]
    fn a_waker_that_uses_the_runtime_at_every_touch_finds_no_borrow() {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let (server, _client) = pair().await;
            STREAM.set(Some(server.clone()));
            TASK.set(Some(spawn(pending())));
            let far = Duration::from_secs(60);
            touch("a sleep", time::sleep(far)).await;
            touch("a timeout", time::timeout(far, pending::<()>())).await;
            touch("a join", spawn(pending::<()>())).await;
            touch("a blocking job", spawn_blocking(|| {})).await;
            touch("a yield", yield_now()).await;
            touch("a read", server.read(&mut [0; 8])).await;
            touch("hung_up", server.hung_up()).await;
            // In the queue behind another.
            let mut first = Box::pin(server.read_with(|_| ()));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(first.as_mut().poll(&mut cx).is_pending());
            touch("a queued read", server.read(&mut [0; 8])).await;
            drop(first);
            let full = vec![0; 64 << 20];
            touch("write_all", server.write_all(&full)).await;
            // Woken by the loop: a timer, readiness, an end.
            touch("a short sleep", async {
                time::sleep(Duration::from_millis(1)).await;
            })
            .await;
            let done = spawn(yield_now());
            touch("a join of one that ends", done).await;
            let reading = server.clone();
            let mut read = Box::pin(async move { reading.read(&mut [0; 8]).await });
            let waker = meddling_waker();
            assert!(
                read.as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_pending()
            );
            let before = TOUCHED.get();
            server.close().unwrap();
            assert!(TOUCHED.get() > before, "closing wakes it");
            STREAM.set(None);
            drop(TASK.take());
        });
    }

    #[test]
    fn a_clock_that_uses_the_runtime_finds_no_borrow() {
        let _watchdog = watchdog();
        let there: Rc<OnceCell<Weak<Runtime>>> = Rc::default();
        let built = there.clone();
        let runtime = Runtime::builder().clock(move || {
            if let Some(runtime) = built.get().and_then(Weak::upgrade)
                && !INSIDE.get()
            {
                meddle();
                INSIDE.set(true);
                TASK.take().unwrap().abort();
                TASK.set(Some(runtime.spawn(pending())));
                assert_eq!(runtime.next_timeout(), Some(Duration::ZERO));
                assert!(runtime.stats().tasks > 0 && !runtime.dump().machines.is_empty());
                runtime.handle().wake();
                INSIDE.set(false);
            }
            Instant::now()
        });
        let runtime = Rc::new(runtime.build().unwrap());
        runtime.block_on(async {
            let (server, client) = pair().await;
            STREAM.set(Some(server.clone()));
            TASK.set(Some(spawn(pending())));
            there.set(Rc::downgrade(&runtime)).unwrap();
            let reading = server.clone();
            let soon = Duration::from_millis(2);
            let read = spawn(async move { time::timeout(soon, reading.read(&mut [0; 8])).await });
            time::sleep(soon).await;
            client.write_all(b"!").await.unwrap();
            let _ended = read.await.unwrap();
            yield_now().await;
        });
        INSIDE.set(true);
        drop((STREAM.take(), TASK.take()));
        assert!(TOUCHED.get() > 4, "each turn reads the clock");
    }

    #[test]
    fn a_runtime_may_be_dropped_while_wakers_that_use_it_are_parked() {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        let (kept, before) = runtime.block_on(async {
            let (server, client) = pair().await;
            let mut waiting: Vec<Pin<Box<dyn Future<Output = ()>>>> = vec![
                Box::pin(time::sleep(Duration::from_secs(60))),
                Box::pin({
                    let server = server.clone();
                    async move { drop(server.read(&mut [0; 8]).await) }
                }),
                Box::pin({
                    let server = server.clone();
                    async move { drop(server.read(&mut [0; 8]).await) }
                }),
                Box::pin(async move { drop(server.hung_up().await) }),
                Box::pin(async { drop(spawn(pending::<()>()).await) }),
            ];
            for future in &mut waiting {
                let waker = meddling_waker();
                assert!(
                    future
                        .as_mut()
                        .poll(&mut Context::from_waker(&waker))
                        .is_pending()
                );
            }
            STREAM.set(Some(client));
            (waiting, TOUCHED.get())
        });
        drop(runtime);
        assert!(TOUCHED.get() >= before + 3, "they were woken");
        STREAM.set(None);
        INSIDE.set(true);
        drop(kept);
    }

    #[test]
    fn an_operation_learns_of_a_close_that_cloning_its_own_waker_makes() {
        Runtime::new().unwrap().block_on(async {
            let pair = || UnixStream::pair().unwrap();
            let (ours, _theirs) = pair();
            assert!(learns_of_the_close(&ours, ours.read(&mut [0; 8])), "a read");

            let (ours, _theirs) = pair();
            let mut buffer = [0; 8];
            let mut first = Box::pin(ours.read(&mut buffer));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(first.as_mut().poll(&mut cx).is_pending());
            assert!(
                learns_of_the_close(&ours, ours.read(&mut [0; 8])),
                "a queued read"
            );

            let (ours, _theirs) = pair();
            assert!(learns_of_the_close(&ours, ours.hung_up()), "hung_up");

            let (ours, _theirs) = pair();
            let mut buffer = [0; 8];
            let mut polled = ours.clone();
            let poll = AsyncReadExt::read(&mut polled, &mut buffer);
            assert!(learns_of_the_close(&ours, poll), "a polled read");
        });
    }

    #[test]
    fn a_task_may_end_while_its_handle_drops_the_waker() {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        let mut task = runtime.spawn(async { Output });
        let waker = Waker::from(Arc::new(Turns));
        let mut cx = Context::from_waker(&waker);
        assert!(Pin::new(&mut task).poll(&mut cx).is_pending());
        drop(waker);
        TURNS.set(Some(runtime));
        drop(task);
        assert_eq!(
            TOUCHED.get(),
            1,
            "the output was dropped outside its runtime"
        );
        let runtime = TURNS.take().unwrap();
        assert_eq!(runtime.stats().tasks, 1, "what the output has spawned");
    }
}

// ---- a waker whose clone closes the socket ----

thread_local! {
    static CLOSES: RefCell<Option<UnixStream>> = const { RefCell::new(None) };
    static WOKEN: Cell<usize> = const { Cell::new(0) };
}

static CLOSING: RawWakerVTable = RawWakerVTable::new(
    |_| {
        if let Some(stream) = CLOSES.take() {
            stream.close().unwrap();
        }
        RawWaker::new(ptr::null(), &CLOSING)
    },
    |_| WOKEN.set(WOKEN.get() + 1),
    |_| WOKEN.set(WOKEN.get() + 1),
    |_| {},
);

/// Polls with a waker whose clone closes `stream`. Whether it is ready, or was woken and is ready then.
fn learns_of_the_close(stream: &UnixStream, future: impl Future) -> bool {
    // SAFETY: there is no data, and the functions of the vtable look at none.
    let waker = unsafe { Waker::from_raw(RawWaker::new(ptr::null(), &CLOSING)) };
    let mut future = std::pin::pin!(future);
    let mut cx = Context::from_waker(&waker);
    CLOSES.set(Some(stream.clone()));
    WOKEN.set(0);
    let first = future.as_mut().poll(&mut cx);
    assert!(CLOSES.take().is_none(), "the waker was not cloned");
    first.is_ready() || WOKEN.get() > 0 && future.as_mut().poll(&mut cx).is_ready()
}

thread_local! {
    static TURNS: RefCell<Option<Runtime>> = const { RefCell::new(None) };
}

/// A waker whose drop takes a turn of the runtime.
struct Turns;

impl Wake for Turns {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Turns {
    fn drop(&mut self) {
        let runtime = TURNS.take().expect("it is dropped once");
        runtime.turn(Some(Duration::ZERO)).unwrap();
        TURNS.set(Some(runtime));
    }
}

/// Uses the runtime when it is dropped.
struct Output;

impl Drop for Output {
    fn drop(&mut self) {
        drop(spawn(async {}));
        TOUCHED.set(TOUCHED.get() + 1);
    }
}
