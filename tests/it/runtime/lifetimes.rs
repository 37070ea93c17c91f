//! What outlives what: runtimes, tasks, sockets, sleeps, handles; on one thread and at its end.
#![allow(
    clippy::async_yields_async,
    reason = "sleeps and handles are carried out of a runtime"
)]

use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::io::Read;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use netpoller::{JoinHandle, NetError, Runtime, TcpListener, TcpStream, spawn, time, yield_now};

use crate::support::on_drop::OnDrop;
use crate::support::wakers::{Counter, polled_at_once, waits_at_once};
use crate::support::watchdog::watchdog;

const NOW: Option<Duration> = Some(Duration::ZERO);

/// A connection of a runtime to a plain socket.
fn connection(runtime: &Runtime) -> (TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let ours = runtime.block_on(TcpStream::connect(address)).unwrap();
    (ours, listener.accept().unwrap().0)
}

mod invariant_13 {
    use super::*;

    #[test]
    fn dropping_a_runtime_drops_its_machines_closes_their_sockets_and_leaves_no_cycle() {
        let _watchdog = watchdog();
        let runtime = Rc::new(Runtime::new().unwrap());
        let (stream, mut peer) = connection(&runtime);
        let alive = Rc::new(());
        let seen: Weak<()> = Rc::downgrade(&alive);
        // Cycles of every kind: a task that owns its stream, one that waits for another, one that
        // sleeps, and one that has not run at all.
        let reader = runtime.spawn({
            let alive = alive.clone();
            async move {
                let _alive = alive;
                let _ = stream.read(&mut [0; 8]).await;
            }
        });
        let joining = alive.clone();
        drop(runtime.spawn(async move {
            let _alive = joining;
            let _ = reader.await;
        }));
        let sleeping = alive.clone();
        drop(runtime.spawn(async move {
            let _alive = sleeping;
            time::sleep(Duration::from_secs(3600)).await;
        }));
        runtime.turn(NOW).unwrap();
        drop(runtime.spawn(async move {
            let _alive = alive;
            pending::<()>().await;
        }));
        assert_eq!(runtime.stats().tasks, 4);
        assert!(seen.upgrade().is_some());
        drop(runtime);
        assert!(seen.upgrade().is_none(), "every machine was dropped");
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0, "its socket is open");
    }

    #[test]
    fn io_on_a_stream_that_outlives_its_runtime_is_an_error() {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        let (stream, peer) = connection(&runtime);
        let taken = runtime.block_on(async { TcpStream::from_std(peer).unwrap() });
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        drop(runtime);
        futures_lite::future::block_on(async {
            assert!(stream.read(&mut [0; 8]).await.unwrap_err().is_closed());
            assert!(stream.write_all(b"!").await.unwrap_err().is_closed());
            assert!(stream.hung_up().await.unwrap_err().is_closed());
            assert!(listener.accept().await.unwrap_err().is_closed());
        });
        // Both ends were learnt when the stream was made.
        assert!(stream.local_addr().is_ok() && taken.local_addr().is_ok());
        let said = stream.try_write(b"!").unwrap_err().to_string();
        assert!(said.ends_with("use of closed network connection"), "{said}");
        assert!(stream.set_deadline(None).unwrap_err().is_closed());
    }

    #[test]
    fn waiters_elsewhere_are_woken_when_the_runtime_goes() {
        let _watchdog = watchdog();
        let (ours, theirs) = (Runtime::new().unwrap(), Runtime::new().unwrap());
        let (stream, _peer) = connection(&theirs);
        let sleep = theirs.block_on(async {
            let mut sleep = Box::pin(time::sleep(Duration::from_secs(3600)));
            let polled = sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending());
            sleep
        });
        let task = theirs.spawn(pending::<()>());
        let reading = stream.clone();
        let read = ours.spawn(async move { reading.read(&mut [0; 8]).await });
        let queued = stream.clone();
        let second = ours.spawn(async move { queued.read(&mut [0; 8]).await });
        let watching = ours.spawn(async move { stream.hung_up().await });
        let sleeping = ours.spawn(sleep);
        let joining = ours.spawn(task);
        ours.turn(NOW).unwrap();
        assert_eq!(ours.stats().tasks, 5, "some do not wait");
        drop(theirs);
        ours.block_on(async {
            assert!(read.await.unwrap().unwrap_err().is_closed());
            assert!(second.await.unwrap().unwrap_err().is_closed());
            assert!(watching.await.unwrap().unwrap_err().is_closed());
            assert!(joining.await.unwrap().unwrap_err().is_canceled());
            assert!(!sleeping.is_finished(), "it does not sleep on, in ours");
        });
    }

    #[test]
    fn a_stream_used_from_another_runtimes_task_is_woken_as_a_foreign_waker() {
        let _watchdog = watchdog();
        let (ours, theirs) = (Runtime::new().unwrap(), Runtime::new().unwrap());
        let (stream, peer) = connection(&theirs);
        let read = ours.spawn(async move {
            let mut buffer = [0; 8];
            let got = stream.read(&mut buffer).await.unwrap();
            buffer[..got].to_vec()
        });
        ours.turn(NOW).unwrap();
        std::io::Write::write_all(&mut &peer, b"across").unwrap();
        while !read.is_finished() {
            theirs.turn(Some(Duration::from_millis(1))).unwrap();
            ours.turn(NOW).unwrap();
        }
        assert_eq!(ours.block_on(read).unwrap(), b"across");
    }
}

#[test]
fn two_runtimes_take_turns_on_one_thread_and_talk_to_each_other() {
    let _watchdog = watchdog();
    let (one, two) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    let listener = one.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let server = one.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut message = [0; 4];
        for _ in 0..100 {
            stream.read_exact(&mut message).await.unwrap();
            stream.write_all(&message).await.unwrap();
        }
    });
    let client = two.spawn(async move {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut message = [0; 4];
        for _ in 0..100 {
            stream.write_all(b"ping").await.unwrap();
            stream.read_exact(&mut message).await.unwrap();
        }
    });
    while !(server.is_finished() && client.is_finished()) {
        one.turn(NOW).unwrap();
        two.turn(NOW).unwrap();
    }
}

#[test]
fn a_runtime_dropped_inside_anothers_turn_keeps_its_last_spawns_to_itself() {
    let _watchdog = watchdog();
    let (ours, theirs) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    let dropped = Rc::new(Cell::new(false));
    let seen = dropped.clone();
    drop(theirs.spawn(async move {
        let _on_drop = OnDrop(move || {
            let flag = seen.clone();
            let _now = time::now();
            drop(spawn(async move {
                let _flag = flag;
                pending::<()>().await;
            }));
            seen.set(true);
        });
        pending::<()>().await;
    }));
    theirs.turn(NOW).unwrap();
    ours.block_on(async {
        let before = time::now();
        drop(theirs);
        assert!(dropped.get());
        assert_eq!(
            Rc::strong_count(&dropped),
            1,
            "what it spawned went with it"
        );
        assert!(time::now() >= before);
        yield_now().await;
        time::sleep(Duration::from_millis(1)).await;
    });
    assert_eq!(ours.stats().tasks, 0);
    assert_eq!(ours.stats().spawned, 0);
}

#[test]
fn a_task_aborted_from_outside_or_inside_anothers_turn_ends_in_its_own_runtime() {
    let _watchdog = watchdog();
    let (ours, theirs) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    let wishes = Rc::new(Cell::new(0));
    let task = || {
        let wishes = wishes.clone();
        theirs.spawn(async move {
            let _on_drop = OnDrop(move || {
                let (wishes, _now) = (wishes.clone(), time::now());
                drop(spawn(async move { wishes.set(wishes.get() + 1) }));
            });
            pending::<()>().await;
        })
    };
    let (one, two) = (task(), task());
    theirs.turn(NOW).unwrap();
    one.abort();
    ours.block_on(async {
        two.abort();
        // It goes on by its own time, and as its own task.
        let _now = time::now();
        spawn(yield_now()).await.unwrap();
    });
    assert_eq!((ours.stats().spawned, theirs.stats().spawned), (1, 4));
    theirs.turn(NOW).unwrap();
    assert_eq!(wishes.get(), 2);
}

#[test]
fn what_a_value_spawns_when_its_handle_drops_it_goes_with_the_runtime() {
    let runtime = Runtime::new().unwrap();
    let ends = Rc::new(Cell::new(0));
    let theirs = ends.clone();
    let task = runtime.spawn(async move {
        OnDrop(move || {
            let ends = theirs.clone();
            let end = OnDrop(move || {
                let _now = time::now();
                ends.set(ends.get() + 1);
            });
            drop(spawn(async move { drop(end) }));
        })
    });
    runtime.turn(NOW).unwrap();
    assert!(task.is_finished());
    drop(task);
    drop(runtime);
    assert_eq!(ends.get(), 1);
}

#[test]
fn a_join_handle_polled_after_its_runtime_is_gone_says_what_the_task_returned_or_aborted() {
    let runtime = Runtime::new().unwrap();
    let (waiting, done) = (runtime.spawn(pending::<()>()), runtime.spawn(async { 1 }));
    runtime.turn(NOW).unwrap();
    drop(runtime);
    assert!(waiting.is_finished());
    waiting.abort();
    let joined = futures_lite::future::block_on(waiting);
    assert!(joined.unwrap_err().is_canceled());
    assert_eq!(futures_lite::future::block_on(done).unwrap(), 1);
}

#[test]
fn a_handle_that_outlives_its_runtime_drops_what_it_is_sent() {
    let runtime = Runtime::new().unwrap();
    let handle = runtime.handle();
    drop(runtime);
    let (tell, told) = channel::<()>();
    handle.spawn(move || async move { drop(tell) });
    assert!(told.recv().is_err(), "dropped, unsent");
    handle.wake();
}

#[test]
fn what_was_sent_through_a_handle_and_never_run_is_dropped_with_the_runtime() {
    let runtime = Runtime::new().unwrap();
    let (tell, told) = channel::<()>();
    runtime.handle().spawn(move || async move { drop(tell) });
    drop(runtime);
    assert!(told.recv().is_err());
}

#[test]
fn a_waker_that_outlives_block_on_keeps_no_host_from_sleeping() {
    let runtime = Runtime::new().unwrap();
    let waker = runtime.block_on(std::future::poll_fn(|cx| {
        cx.waker().wake_by_ref();
        Poll::Ready(cx.waker().clone())
    }));
    assert_eq!(runtime.next_timeout(), None, "nothing is runnable");
    drop(runtime.spawn(async move { waker.wake() }));
    let turn = runtime.turn(None).unwrap();
    assert!(!turn.more);
    assert_eq!(runtime.next_timeout(), None);
}

#[test]
fn a_sleep_may_move_to_another_runtime_before_and_after_it_was_polled() {
    let _watchdog = watchdog();
    let (one, two) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    let fresh = one.block_on(async { time::sleep(Duration::from_millis(2)) });
    two.block_on(fresh);
    let mut polled = Box::pin(one.block_on(async { time::sleep(Duration::from_millis(2)) }));
    one.block_on(async {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut polled).poll(&mut cx).is_pending());
    });
    let deadline = polled.deadline();
    let task = two.spawn(polled);
    two.turn(NOW).unwrap();
    while !task.is_finished() {
        // The first still has the timer: its turns are what wakes the task of the second.
        one.turn(Some(Duration::from_millis(1))).unwrap();
        two.turn(NOW).unwrap();
    }
    assert!(std::time::Instant::now() >= deadline);
}

#[test]
fn a_future_of_ours_waits_on_a_foreign_executor() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (stream, peer) = connection(&runtime);
    let counter = Arc::new(Counter::default());
    let waker = Waker::from(counter.clone());
    let mut cx = Context::from_waker(&waker);
    let mut buffer = [0; 8];
    let mut read = Box::pin(stream.read(&mut buffer));
    assert!(read.as_mut().poll(&mut cx).is_pending());
    assert!(
        read.as_mut().poll(&mut cx).is_pending(),
        "polled for nothing"
    );
    assert_eq!(runtime.stats().waiters, 1);
    std::io::Write::write_all(&mut &peer, b"!").unwrap();
    while counter.count() == 0 {
        runtime.turn(None).unwrap();
    }
    assert_eq!(counter.count(), 1);
    assert!(matches!(read.as_mut().poll(&mut cx), Poll::Ready(Ok(1))));
    // The last waker wins: one that was replaced is not woken.
    drop(read);
    let mut read = Box::pin(stream.read(&mut buffer));
    assert!(read.as_mut().poll(&mut cx).is_pending());
    let later = Arc::new(Counter::default());
    let waker = Waker::from(later.clone());
    assert!(
        read.as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    std::io::Write::write_all(&mut &peer, b"!").unwrap();
    while later.count() == 0 {
        runtime.turn(None).unwrap();
    }
    assert_eq!(counter.count(), 1);
}

// ---- the end of a thread ----

thread_local! {
    static RUNTIME: RefCell<Option<Runtime>> = const { RefCell::new(None) };
    static STREAM: RefCell<Option<TcpStream>> = const { RefCell::new(None) };
    static TASK: RefCell<Option<JoinHandle<()>>> = const { RefCell::new(None) };
}

/// The thread-local that is made first is dropped last: the stream, or the runtime.
fn at_the_threads_end(stream_first: bool) {
    let (tell, told) = channel::<()>();
    let thread = thread::spawn(move || {
        if stream_first {
            STREAM.with(|_| {});
        }
        RUNTIME.with(|_| {});
        let runtime = Runtime::new().unwrap();
        let (stream, mut peer) = connection(&runtime);
        let held = stream.clone();
        let task = runtime.spawn(async move {
            let _on_drop = OnDrop(move || tell.send(()).unwrap());
            let _ = held.read(&mut [0; 8]).await;
        });
        runtime.turn(NOW).unwrap();
        STREAM.set(Some(stream));
        TASK.set(Some(task));
        RUNTIME.set(Some(runtime));
        thread::spawn(move || peer.read(&mut [0; 8]).unwrap())
    });
    let peer = thread.join().unwrap();
    told.recv().unwrap();
    assert_eq!(peer.join().unwrap(), 0, "closed with the thread");
}

#[test]
fn a_runtime_and_its_stream_may_live_in_thread_locals() {
    let _watchdog = watchdog();
    at_the_threads_end(true);
    at_the_threads_end(false);
}

/// Sleeps in an executor that polls in `wake`, while `drop_it` drops the runtime that it sleeps in.
fn a_sleep_ends_when_its_runtime_goes(drop_it: fn(Rc<Runtime>)) {
    let runtime = Rc::new(Runtime::new().unwrap());
    runtime.block_on(async {
        polled_at_once(Box::pin(time::sleep(Duration::from_secs(3600))));
    });
    // Outside a runtime the poll of a sleep panics: in `wake`, where it is caught.
    drop_it(runtime);
    assert!(!waits_at_once(), "it waits for ever");
}

#[test]
fn a_sleep_ends_when_an_abort_drops_its_runtime() {
    a_sleep_ends_when_its_runtime_goes(|runtime| {
        let held = runtime.clone();
        let task = runtime.spawn(async move {
            pending::<()>().await;
            drop(held);
        });
        runtime.turn(NOW).unwrap();
        drop(runtime);
        task.abort();
    });
}

#[test]
fn a_sleep_ends_when_a_dropped_output_drops_its_runtime() {
    a_sleep_ends_when_its_runtime_goes(|runtime| {
        let held = runtime.clone();
        let task = runtime.spawn(async move { held });
        runtime.turn(NOW).unwrap();
        drop(runtime);
        drop(task);
    });
}
