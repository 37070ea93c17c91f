//! A host that is called when a turn is due: by a thread that watches the descriptor for it.
#![cfg(not(mio_unsupported_force_poll_poll))]

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::io::{self, Read, Write};
use std::panic::panic_any;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use netpoller::reactor::Break;
use netpoller::{Runtime, TcpListener, UnixStream, spawn, time};

use crate::support::hooked::{Hook, hooked_by};
use crate::support::stall::moment;
use crate::support::watchdog::{Watchdog, watchdog};

const NOW: Option<Duration> = Some(Duration::ZERO);
const A_WHILE: Duration = Duration::from_millis(20);

/// A host with a queue and no descriptors: it turns when it is called, and at no other time.
struct Host {
    runtime: Runtime,
    calls: Receiver<()>,
    _watchdog: Watchdog,
}

impl Host {
    fn new() -> Host {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        let (call, calls) = channel();
        let call = move || call.send(()).unwrap_or_default();
        runtime.notify_host(call).unwrap();
        Host {
            runtime,
            calls,
            _watchdog,
        }
    }

    /// Waits for a call, and turns.
    fn turn(&self) {
        self.calls.recv().unwrap();
        self.runtime.turn(NOW).unwrap();
    }

    /// Turns as often as it is called. Returns how often that was.
    fn turn_until(&self, done: impl Fn() -> bool) -> usize {
        let mut turns = 0;
        while !done() {
            self.turn();
            turns += 1;
        }
        turns
    }

    /// Turns until so many operations are parked or asleep.
    fn turn_until_waiting(&self, waiters: usize) {
        self.turn_until(|| self.runtime.stats().waiters == waiters);
    }

    /// Ends the runtime, and with it the thread. Returns how many calls were not answered by a turn.
    fn end(self) -> usize {
        drop(self.runtime);
        self.calls.iter().count()
    }
}

/// A stream whose reads park, and its peer.
fn pair(host: &Host) -> (UnixStream, std::os::unix::net::UnixStream) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let ours = host.runtime.block_on(async { UnixStream::from_std(ours) });
    (ours.unwrap(), theirs)
}

#[test]
fn a_host_that_turns_only_when_it_is_called_serves_a_client_to_the_end() {
    let host = Host::new();
    let listener = TcpListener::bind("127.0.0.1:0");
    let listener = host.runtime.block_on(listener).unwrap();
    let address = listener.local_addr().unwrap();
    let serving = host.runtime.spawn(async move {
        let (stream, _) = listener.accept().await?;
        while let bytes @ [_, ..] = &*stream.read_with(<[u8]>::to_vec).await? {
            time::sleep(Duration::from_millis(2)).await;
            stream.write_all(bytes).await?;
        }
        io::Result::Ok(())
    });
    let client = thread::spawn(move || {
        let mut client = std::net::TcpStream::connect(address).unwrap();
        let mut answer = [0; 4];
        for _ in 0..20 {
            client.write_all(b"ping").unwrap();
            client.read_exact(&mut answer).unwrap();
        }
    });
    host.turn_until(|| serving.is_finished());
    client.join().unwrap();
}

#[test]
fn it_is_called_once_and_not_again_before_the_next_turn() {
    let host = Host::new();
    let (ours, mut theirs) = pair(&host);
    let read = host.runtime.spawn(async move {
        let mut bytes = [0; 4];
        ours.read_exact(&mut bytes).await
    });
    host.turn_until_waiting(1);
    theirs.write_all(b"on").unwrap();
    host.calls.recv().unwrap();
    // More of every kind comes, and finds the host called already.
    theirs.write_all(b"ce").unwrap();
    drop(host.runtime.spawn(async {}));
    host.runtime.handle().wake();
    host.runtime.handle().spawn(pending::<()>);
    moment();
    assert_eq!(host.calls.try_recv(), Err(TryRecvError::Empty));
    host.runtime.turn(NOW).unwrap();
    host.turn_until(|| read.is_finished());
    assert!(host.end() <= 1);
}

#[test]
fn an_abort_and_a_dropped_handle_before_the_turn_call_it_no_second_time() {
    let host = Host::new();
    let done = host.runtime.spawn(async { "an output" });
    let task = host.runtime.spawn(pending::<()>());
    host.turn_until(|| done.is_finished());
    host.runtime.handle().wake();
    host.calls.recv().unwrap();
    task.abort();
    drop(done);
    moment();
    assert_eq!(host.calls.try_recv(), Err(TryRecvError::Empty));
    host.runtime.turn(NOW).unwrap();
    // And what is due afterwards is not lost.
    host.runtime.handle().wake();
    host.turn();
}

#[test]
fn a_host_that_turns_by_itself_is_not_called_for_most_of_what_comes_meanwhile() {
    let host = Host::new();
    let (ours, mut theirs) = pair(&host);
    let read = host.runtime.spawn(async move {
        let mut bytes = [0; 100];
        ours.read_exact(&mut bytes).await
    });
    host.runtime.turn(NOW).unwrap();
    let writer = thread::spawn(move || {
        for _ in 0..100 {
            theirs.write_all(b"x").unwrap();
        }
        theirs
    });
    // The host is inside a turn nearly all the time.
    while !read.is_finished() {
        host.runtime.turn(None).unwrap();
    }
    writer.join().unwrap();
    assert!(host.end() <= 50, "between two turns only");
}

#[test]
fn it_is_called_when_a_deadline_comes_and_not_before() {
    let host = Host::new();
    let start = Instant::now();
    let sleep = host.runtime.spawn(async { time::sleep(A_WHILE).await });
    let turns = host.turn_until(|| sleep.is_finished());
    assert!(start.elapsed() >= A_WHILE);
    assert_eq!(turns, 2, "the spawn and the deadline");
    assert_eq!(host.end(), 0);
}

mod between_turns {
    use super::*;

    #[test]
    fn a_deadline_that_is_set_earlier_calls_the_host() {
        let host = Host::new();
        let (ours, _theirs) = pair(&host);
        let reader = ours.clone();
        let read = host.runtime.spawn(async move {
            reader.set_read_deadline(Some(time::now() + Duration::from_secs(3600)))?;
            reader.read(&mut [0]).await
        });
        host.turn_until_waiting(1);
        moment();
        let start = Instant::now();
        ours.set_read_deadline(Some(start + A_WHILE)).unwrap();
        let turns = host.turn_until(|| read.is_finished());
        assert!(start.elapsed() >= A_WHILE);
        assert!(
            turns <= 2,
            "the socket may be reported writable, then the deadline: {turns}"
        );
    }

    #[test]
    fn a_deadline_in_the_past_and_a_close_hand_out_their_reader() {
        for act in [
            |stream: &UnixStream| stream.set_read_deadline(Some(Instant::now())),
            |stream: &UnixStream| stream.close(),
        ] {
            let host = Host::new();
            let (ours, _theirs) = pair(&host);
            let reader = ours.clone();
            let read = host
                .runtime
                .spawn(async move { reader.read(&mut [0]).await });
            host.turn_until_waiting(1);
            moment();
            act(&ours).unwrap();
            host.turn_until(|| read.is_finished());
        }
    }

    #[test]
    fn a_spawn_a_wake_and_a_job_from_another_thread_call_the_host() {
        let host = Host::new();
        let ran = Rc::new(Cell::new(false));
        let sets = ran.clone();
        drop(host.runtime.spawn(async move { sets.set(true) }));
        host.turn_until(|| ran.get());

        host.runtime.handle().wake();
        host.turn();

        let handle = host.runtime.handle();
        let (tell, told) = channel();
        let thread = thread::spawn(move || {
            handle.spawn(|| async move { tell.send(7).unwrap() });
        });
        host.turn_until(|| told.try_recv() == Ok(7));
        thread.join().unwrap();
    }

    #[test]
    fn a_sleep_that_a_destructor_moves_calls_the_host() {
        struct Sooner(Rc<RefCell<time::Sleep>>);
        impl Drop for Sooner {
            fn drop(&mut self) {
                self.0.borrow_mut().reset(time::now() + A_WHILE);
            }
        }
        let host = Host::new();
        let hour = time::sleep_until(Instant::now() + Duration::from_secs(3600));
        let hour = Rc::new(RefCell::new(hour));
        let (sooner, its) = (Sooner(hour.clone()), hour);
        let sleep = host
            .runtime
            .spawn(poll_fn(move |cx| Pin::new(&mut *its.borrow_mut()).poll(cx)));
        let task = host.runtime.spawn(async move {
            let _sooner = sooner;
            pending::<()>().await;
        });
        host.turn_until_waiting(1);
        moment();
        task.abort();
        host.turn_until(|| sleep.is_finished());
    }

    #[test]
    fn an_abort_calls_the_host() {
        let host = Host::new();
        let task = host.runtime.spawn(pending::<()>());
        let joined = host.runtime.spawn(async move {
            task.abort();
            task.await.unwrap_err().is_canceled()
        });
        host.turn_until(|| joined.is_finished());
    }
}

mod bad_callbacks {
    use super::*;

    fn count(calls: &Arc<AtomicUsize>) -> usize {
        calls.load(Ordering::SeqCst)
    }

    #[test]
    fn one_that_panics_is_called_again_after_the_next_turn() {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        let (call, calls) = channel();
        let panics = move || {
            call.send(()).unwrap();
            panic!("as it may");
        };
        runtime.notify_host(panics).unwrap();
        for _ in 0..3 {
            drop(runtime.spawn(async {}));
            calls.recv().unwrap();
            runtime.turn(NOW).unwrap();
        }
    }

    #[test]
    fn one_whose_destructor_panics_with_what_panics_too_does_not_harm_the_end_of_the_runtime() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic_any(Bomb);
            }
        }
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        let bomb = Bomb;
        runtime.notify_host(move || _ = &bomb).unwrap();
        drop(runtime);
    }

    #[test]
    fn one_that_is_slow_holds_up_neither_the_turns_nor_what_comes_after_it() {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        let (began, begins) = channel();
        let (end, ends) = channel::<()>();
        runtime
            .notify_host(move || {
                began.send(()).unwrap();
                let _ = ends.recv();
            })
            .unwrap();
        drop(runtime.spawn(async {}));
        begins.recv().unwrap();
        // The host goes on by itself. What is due afterwards is not lost.
        let sleep = runtime.spawn(async { time::sleep(Duration::from_millis(1)).await });
        while !sleep.is_finished() {
            runtime.turn(None).unwrap();
        }
        drop(runtime.spawn(async {}));
        assert_eq!(begins.try_recv(), Err(TryRecvError::Empty), "one at a time");
        end.send(()).unwrap();
        begins.recv().unwrap();
        drop(end);
    }

    #[test]
    fn what_one_sends_through_the_handle_runs_in_the_next_turn() {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        let (call, calls): (Sender<()>, _) = channel();
        let (handle, spawned) = (runtime.handle(), Arc::new(AtomicUsize::new(0)));
        let counter = spawned.clone();
        runtime
            .notify_host(move || {
                let counter = counter.clone();
                handle.spawn(move || async move {
                    counter.fetch_add(1, Ordering::SeqCst);
                    spawn(async {}).await.unwrap();
                });
                handle.wake();
                call.send(()).unwrap();
            })
            .unwrap();
        runtime.handle().wake();
        while count(&spawned) < 5 {
            calls.recv().unwrap();
            runtime.turn(NOW).unwrap();
        }
    }

    #[test]
    fn one_that_waits_for_the_runtime_is_answered_by_its_end() {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        let (tell, told) = channel();
        let handle = runtime.handle();
        runtime
            .notify_host(move || {
                tell.send(None).unwrap();
                let answer = handle.run_blocking(|| async {});
                tell.send(answer.err()).unwrap();
            })
            .unwrap();
        drop(runtime.spawn(async {}));
        assert!(told.recv().unwrap().is_none());
        drop(runtime);
        let error = told.recv().unwrap().expect("the runtime is gone");
        assert!(error.is_canceled());
    }
}

#[test]
fn the_end_of_the_runtime_ends_the_thread_and_drops_the_callback() {
    let _watchdog = watchdog();
    let held = Arc::new(Mutex::new(()));
    let runtime = Runtime::new().unwrap();
    let its = held.clone();
    runtime.notify_host(move || drop(its.lock())).unwrap();
    assert_eq!(Arc::strong_count(&held), 2);
    drop(runtime);
    assert_eq!(Arc::strong_count(&held), 1);
}

#[test]
fn a_handle_that_outlives_the_runtime_keeps_neither_the_thread_nor_the_callback() {
    let _watchdog = watchdog();
    let held = Arc::new(());
    let runtime = Runtime::new().unwrap();
    let its = held.clone();
    runtime
        .notify_host(move || {
            let _its = &its;
            moment();
        })
        .unwrap();
    let task = runtime.spawn(async {});
    drop(runtime);
    assert_eq!(Arc::strong_count(&held), 1);
    drop(task);
}

#[test]
fn a_stream_that_outlives_the_runtime_may_be_used() {
    let host = Host::new();
    let (ours, _theirs) = pair(&host);
    assert!(host.end() <= 1);
    let _ = ours.set_read_deadline(Some(Instant::now()));
    let _ = ours.close();
}

#[test]
fn a_second_host_is_refused() {
    let host = Host::new();
    let error = host.runtime.notify_host(|| ()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn inside_a_turn_the_host_is_called_after_it() {
    let _watchdog = watchdog();
    let runtime = Rc::new(Runtime::new().unwrap());
    let (call, calls) = channel();
    let its = runtime.clone();
    runtime.block_on(async move {
        let call = move || call.send(()).unwrap_or_default();
        its.notify_host(call).unwrap();
        drop(spawn(time::sleep(Duration::from_secs(3600))));
        moment();
    });
    calls.recv().unwrap();
    assert!(runtime.turn(NOW).unwrap().machines > 0);
}

/// Polls a sleep in its break, once it is told to.
struct Meddles(Arc<AtomicUsize>);

impl Hook for Meddles {
    fn breaker(&self, system: Arc<dyn Break>) -> Arc<dyn Break> {
        Arc::new(MeddlingBreak(system, self.0.clone()))
    }
}

struct MeddlingBreak(Arc<dyn Break>, Arc<AtomicUsize>);

impl Break for MeddlingBreak {
    fn break_netpoll(&self) -> io::Result<()> {
        if self.1.load(Ordering::Relaxed) > 0 {
            let mut sleep = time::sleep(A_WHILE);
            let polled = Pin::new(&mut sleep).poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending());
            self.1.fetch_add(1, Ordering::Relaxed);
        }
        self.0.break_netpoll()
    }
}

/// Moves a sleep when it is dropped.
struct Moves(Rc<RefCell<time::Sleep>>);

impl Drop for Moves {
    fn drop(&mut self) {
        self.0.borrow_mut().reset(time::now() + A_WHILE);
    }
}

#[test]
fn a_sleep_that_moves_in_a_destructor_calls_it_while_nothing_is_borrowed() {
    let _watchdog = watchdog();
    let breaks = Arc::new(AtomicUsize::new(0));
    let selector = hooked_by(Meddles(breaks.clone()));
    let runtime = Runtime::builder().selector(selector).build().unwrap();
    let (call, calls) = channel();
    let call = move || call.send(()).unwrap_or_default();
    runtime.notify_host(call).unwrap();
    let later = Instant::now() + Duration::from_secs(3600);
    let sleep = Rc::new(RefCell::new(time::sleep_until(later)));
    let moves = Moves(sleep.clone());
    let task = runtime.spawn(poll_fn(move |cx| {
        Pin::new(&mut *moves.0.borrow_mut()).poll(cx)
    }));
    calls.recv().unwrap();
    runtime.turn(NOW).unwrap();
    breaks.store(1, Ordering::Relaxed);
    task.abort();
    assert_eq!(
        breaks.swap(0, Ordering::Relaxed),
        2,
        "it could not use the runtime"
    );
    calls.recv().unwrap();
    drop(sleep);
}
