//! A panic harms only what has panicked, also if its payload panics when it is dropped.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use netpoller::reactor::Selector;
use netpoller::{
    CancelToken, JoinHandle, Runtime, UnixStream, spawn, spawn_blocking, time, yield_now,
};

use crate::support::hooked::{Hook, hooked, hooked_by};
use crate::support::wakers::Counter;
use crate::support::watchdog::watchdog;

const NOW: Option<Duration> = Some(Duration::ZERO);

/// Panics when it is dropped, unless that would abort the process.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("a payload that panics");
        }
    }
}

/// Panics with a bomb when it is dropped.
struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic_any(Bomb);
        }
    }
}

/// Panics with a bomb when it is woken.
struct PanicsOnWake;

impl Wake for PanicsOnWake {
    fn wake(self: Arc<Self>) {
        panic_any(Bomb);
    }
}

thread_local! {
    /// Whether a waker of `VTABLE` panics when it is dropped.
    static ARMED: Cell<bool> = const { Cell::new(false) };
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(
    |_| RawWaker::new(std::ptr::null(), &VTABLE),
    |_| {},
    |_| {},
    |_| {
        if ARMED.get() && !thread::panicking() {
            panic_any(Bomb);
        }
    },
);

/// Polls a future once, calls `between`, and drops the future. During this drop each clone of its waker
/// panics as it is dropped.
fn drop_with_panicking_waker(mut future: Pin<Box<impl Future>>, between: impl FnOnce()) {
    // SAFETY: there is no data, and the functions of the vtable look at none.
    let waker = unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &VTABLE)) };
    assert!(
        future
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    between();
    ARMED.set(true);
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(future)));
    ARMED.set(false);
    if let Err(payload) = dropped {
        std::mem::forget(payload);
    }
}

/// Polls a future once with a waker that panics.
fn wait_with_panicking_waker(future: Pin<&mut impl Future>) {
    let waker = Waker::from(Arc::new(PanicsOnWake));
    let polled = future.poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
}

/// A runtime with a task that is always runnable, and how often that has run.
struct BusyRuntime {
    runtime: Runtime,
    runs: Rc<Cell<usize>>,
}

impl BusyRuntime {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let runs = Rc::new(Cell::new(0));
        let counted = runs.clone();
        drop(runtime.spawn(async move {
            loop {
                counted.set(counted.get() + 1);
                yield_now().await;
            }
        }));
        runtime.turn(NOW).unwrap();
        BusyRuntime { runtime, runs }
    }

    /// Turns. Neither the host nor the busy task may notice a panic.
    fn goes_on(&self) {
        for _ in 0..5 {
            let before = self.runs.get();
            let turned = catch_unwind(AssertUnwindSafe(|| self.runtime.turn(NOW)));
            assert!(turned.is_ok(), "the panic came out of the turn");
            assert!(self.runs.get() > before, "the busy task did not run");
        }
    }
}

#[test]
fn an_abort_drops_its_task_whatever_the_destructor_does() {
    let BusyRuntime { runtime, .. } = &BusyRuntime::new();
    let holds = || {
        let holds = PanicsOnDrop;
        async move {
            pending::<()>().await;
            drop(holds);
        }
    };
    let inside = runtime.spawn(holds());
    let outside = runtime.spawn(holds());
    runtime.turn(NOW).unwrap();
    let aborting = runtime.spawn(async move { inside.abort() });
    outside.abort();
    assert!(runtime.block_on(aborting).is_ok());
    assert!(runtime.block_on(outside).unwrap_err().is_canceled());
}

#[test]
fn a_run_given_up_with_a_waker_that_panics_aborts_its_task() {
    let all = BusyRuntime::new();
    let handle = all.runtime.handle();
    let running = handle.run(|| async { pending::<()>().await });
    drop_with_panicking_waker(Box::pin(running), || {
        all.goes_on();
        assert_eq!(
            all.runtime.stats().tasks,
            3,
            "the busy task, the task and what watches it"
        );
    });
    all.goes_on();
    assert_eq!(all.runtime.stats().tasks, 1, "the task was not aborted");
}

#[test]
fn a_scope_given_up_with_a_waker_that_panics_keeps_no_waiter() {
    let top = CancelToken::new();
    let below = top.child().child();
    drop_with_panicking_waker(Box::pin(below.canceled()), || ());
    for scope in [&top, &below] {
        assert!(format!("{scope:?}").contains("waiters: 0"), "{scope:?}");
    }
}

#[test]
fn a_destructor_that_panics_ends_its_task_by_a_panic() {
    let runtime = Runtime::new().unwrap();
    let mut holds = Some(PanicsOnDrop);
    let task = runtime.spawn(poll_fn(move |_| {
        // Kept until the future is dropped, which is after it has returned.
        assert!(holds.as_mut().is_some());
        Poll::Ready(())
    }));
    assert!(runtime.block_on(task).unwrap_err().is_panic());
    assert_eq!(runtime.stats().panicked(), 1);
}

#[test]
fn a_task_that_panics_harms_no_other() {
    let all = BusyRuntime::new();
    drop(all.runtime.spawn(async { panic_any(Bomb) }));
    let joined = all.runtime.spawn(async { panic_any(Bomb) });
    let unread = all.runtime.spawn(async { panic_any(Bomb) });
    all.goes_on();
    let error = all.runtime.block_on(joined).unwrap_err();
    assert!(error.is_panic());
    drop(error);
    drop(unread);
    all.goes_on();
}

#[test]
fn an_output_without_a_handle_may_panic_when_dropped() {
    let all = BusyRuntime::new();
    drop(all.runtime.spawn(async { PanicsOnDrop }));
    all.goes_on();
}

#[test]
fn an_output_may_panic_when_its_handle_goes_with_its_task() {
    let all = BusyRuntime::new();
    let own: Rc<RefCell<Option<JoinHandle<PanicsOnDrop>>>> = Rc::default();
    let mut holds = Some(own.clone());
    let task = all.runtime.spawn(poll_fn(move |_| {
        // Kept until the future is dropped, which is after it has returned.
        assert!(holds.as_mut().is_some());
        Poll::Ready(PanicsOnDrop)
    }));
    *own.borrow_mut() = Some(task);
    drop(own);
    all.goes_on();
    assert_eq!(all.runtime.stats().tasks, 1, "the busy task is not alone");
}

#[test]
fn wakers_that_panic_harm_no_other_task() {
    let all = BusyRuntime::new();
    let (ours, theirs) = all.runtime.block_on(async { UnixStream::pair().unwrap() });
    let mut buffer = [0; 8];
    let mut read = Box::pin(ours.read(&mut buffer));
    let mut hung_up = Box::pin(ours.hung_up());
    let scope = CancelToken::new();
    let mut end = Box::pin(scope.canceled());
    let mut join = all.runtime.spawn(async {});
    all.runtime.block_on(async {
        let mut sleep = Box::pin(time::sleep(Duration::ZERO));
        sleep.as_mut().reset(time::now() + Duration::from_millis(1));
        wait_with_panicking_waker(read.as_mut());
        wait_with_panicking_waker(hung_up.as_mut());
        wait_with_panicking_waker(sleep.as_mut());
        wait_with_panicking_waker(end.as_mut());
        wait_with_panicking_waker(Pin::new(&mut join));
        time::sleep(Duration::from_millis(3)).await;
    });
    drop(theirs);
    let cancels = all.runtime.spawn(async move { scope.cancel() });
    all.goes_on();
    assert!(all.runtime.block_on(cancels).is_ok(), "its cancel panicked");
}

#[test]
fn a_blocking_job_may_panic_and_its_thread_goes_on() {
    let all = BusyRuntime::new();
    all.runtime.block_on(async {
        drop(spawn_blocking(|| PanicsOnDrop));
        let job = spawn_blocking(|| -> () { panic_any(Bomb) });
        assert!(job.await.unwrap_err().is_panic());
        // The thread lives, and does more.
        assert_eq!(spawn_blocking(|| 7).await.unwrap(), 7);
    });
    all.goes_on();
}

#[test]
fn a_closure_sent_through_a_handle_may_panic() {
    let all = BusyRuntime::new();
    all.runtime.handle().spawn(|| {
        panic_any(Bomb);
        #[allow(unreachable_code)]
        async {}
    });
    all.goes_on();
}

#[test]
fn a_task_that_waits_for_one_that_panics_is_told() {
    let all = BusyRuntime::new();
    let parent = all.runtime.spawn(async {
        let child = spawn(async { panic_any(Bomb) });
        child.await.unwrap_err().is_panic()
    });
    all.goes_on();
    assert!(all.runtime.block_on(parent).unwrap());
}

#[test]
fn a_selector_that_panics_loses_no_waiter() {
    let panics = Rc::new(Cell::new(false));
    let told = panics.clone();
    let selector = hooked(move |system, wait, events| {
        assert!(!told.replace(false), "as it was told to");
        system.netpoll(wait, events)
    });
    let runtime = Runtime::builder().selector(selector);
    let runtime = runtime.build().unwrap();
    let (ours, _theirs) = runtime.block_on(async { UnixStream::pair().unwrap() });
    let reading = ours.clone();
    let task = runtime.spawn(async move { reading.read(&mut [0]).await.unwrap_err() });
    runtime.turn(NOW).unwrap();
    runtime.turn(NOW).unwrap();
    // Its waiter is to be handed out by the turn that panics.
    ours.set_read_deadline(Some(Instant::now())).unwrap();
    panics.set(true);
    assert!(catch_unwind(AssertUnwindSafe(|| runtime.turn(NOW))).is_err());
    runtime.turn(NOW).unwrap();
    assert!(task.is_finished(), "it waits for ever");
}

#[test]
fn a_selector_that_panics_at_a_close_leaves_nothing_waiting_and_no_descriptor_open() {
    struct PanicsAtClose;
    impl Hook for PanicsAtClose {
        fn closes(&mut self) {
            panic!("a selector panics on purpose");
        }
    }
    let _watchdog = watchdog();
    let runtime = Runtime::builder().selector(hooked_by(PanicsAtClose));
    runtime.build().unwrap().block_on(async {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let ours = UnixStream::from_std(ours).unwrap();
        let (read, hung_up) = (Arc::new(Counter::default()), Arc::new(Counter::default()));
        let mut byte = [0];
        let mut reading = pin!(ours.read(&mut byte));
        let mut hanging_up = pin!(ours.hung_up());
        let waker = Waker::from(read.clone());
        assert!(
            reading
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        let waker = Waker::from(hung_up.clone());
        assert!(
            hanging_up
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        ours.close().unwrap();
        assert_eq!((read.count(), hung_up.count()), (1, 1));
        assert_eq!(
            (&theirs).read(&mut [0]).unwrap(),
            0,
            "the descriptor is closed"
        );
    });
}

#[test]
fn a_clock_that_panics_loses_no_waiter() {
    let _watchdog = watchdog();
    let left = Rc::new(Cell::new(u32::MAX));
    let told = left.clone();
    let runtime = Runtime::builder().clock(move || {
        assert_ne!(
            told.replace(told.get().wrapping_sub(1)),
            0,
            "as it was told to"
        );
        Instant::now()
    });
    let runtime = runtime.build().unwrap();
    let (ours, theirs) = runtime.block_on(async { UnixStream::pair().unwrap() });
    // At each of the readings of a turn.
    for readings in 0..6 {
        let reading = ours.clone();
        let task = runtime.spawn(async move { reading.read(&mut [0]).await.unwrap() });
        runtime.turn(NOW).unwrap();
        runtime.turn(NOW).unwrap();
        theirs.try_write(b"!").unwrap();
        left.set(readings);
        let turned = catch_unwind(AssertUnwindSafe(|| runtime.turn(NOW)));
        left.set(u32::MAX);
        assert!(turned.is_err() || readings > 1, "the clock did not panic");
        if !task.is_finished() {
            runtime.turn(None).unwrap();
        }
        assert!(task.is_finished(), "reading {readings}");
    }
}

#[test]
fn a_clock_that_panics_in_a_turn_and_in_the_drop_of_the_runtime_aborts_nothing() {
    let (panics, base) = (Rc::new(Cell::new(false)), Instant::now());
    let told = panics.clone();
    let clock = move || {
        assert!(!told.get(), "as it was told to");
        base
    };
    let runtime = Runtime::builder().clock(clock).build().unwrap();
    panics.set(true);
    // The runtime is dropped while the panic unwinds: another panic would abort the process.
    let turned = catch_unwind(AssertUnwindSafe(move || runtime.turn(NOW).is_ok()));
    assert!(turned.is_err());
}
