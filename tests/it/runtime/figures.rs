//! Figures of a loop: what its own thread and other threads read of them.

use std::future::pending;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use netpoller::{Runtime, RuntimeStats, UdpSocket, time, yield_now};

use crate::support::hand_clock::by_hand;
use crate::support::watchdog::watchdog;

#[cfg(feature = "observe")]
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn any_thread_reads_what_the_loop_has_done_and_what_lives_on_it() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let handle = runtime.handle();
    runtime.block_on(async {
        let (ours, theirs) = (
            UdpSocket::bind("127.0.0.1:0").await.unwrap(),
            pending::<()>(),
        );
        netpoller::spawn(theirs);
        netpoller::spawn(async move {
            time::sleep(3600 * SECOND).await;
            ours.close().unwrap();
        });
        yield_now().await;
        yield_now().await;
    });
    let own: RuntimeStats = runtime.stats();
    let theirs = thread::spawn(move || handle.stats()).join().unwrap();
    assert_eq!(theirs, *own, "the same figures, without asking the loop");
    assert_eq!(
        (theirs.tasks(), theirs.descriptors(), theirs.entries()),
        (2, 1, 1)
    );
    assert_eq!((own.tasks, own.descriptors, own.places), (2, 1, 1));
    assert_eq!((theirs.spawned(), theirs.machines()), (2, 2));
    assert_eq!((theirs.turns(), theirs.turn_events().count()), (2, 2));
    assert_eq!(theirs.events(), theirs.turn_events().sum());
}

#[test]
fn a_loop_that_is_held_and_one_that_is_gone_are_read_too() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let handle = runtime.handle();
    let (let_go, held) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let theirs = handle.clone();
    runtime.spawn(async move {
        let reader = thread::spawn(move || tell.send(theirs.stats()).unwrap());
        // The loop is held until the other thread has read.
        held.recv().unwrap();
        reader.join().unwrap();
    });
    let reader = thread::spawn(move || {
        let stats = told.recv().unwrap();
        let_go.send(()).unwrap();
        stats
    });
    runtime.turn(Some(Duration::ZERO)).unwrap();
    let stats = reader.join().unwrap();
    assert_eq!(
        (stats.spawned(), stats.machines(), stats.turns()),
        (1, 1, 0)
    );
    runtime.spawn(pending::<()>());
    runtime.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(handle.stats().tasks(), 1);
    drop(runtime);
    assert_eq!((handle.stats().turns(), handle.stats().tasks()), (2, 0));
}

#[test]
fn a_task_that_panics_is_counted() {
    let runtime = Runtime::new().unwrap();
    let task = runtime.spawn(async { panic!("as it should") });
    runtime.block_on(task).unwrap_err();
    assert_eq!(runtime.stats().panicked(), 1);
}

#[test]
fn events_are_counted_by_turn() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let ours = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = ours.local_addr().unwrap();
        let receiving = netpoller::spawn(async move { ours.recv_from(&mut [0; 8]).await });
        yield_now().await;
        let theirs = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        theirs.send_to(b"!", address).await.unwrap();
        receiving.await.unwrap().unwrap();
    });
    let events = runtime.stats().turn_events();
    assert_eq!(events.sum(), runtime.stats().events);
    assert_eq!(events.count(), runtime.stats().turns);
    assert!(events.sum() > 0);
    let by_bucket = events.buckets().map(|(_, count)| count);
    assert_eq!(by_bucket.sum::<u64>(), events.count());
    // What lies in a bucket is at most its greatest value times its count.
    let bound: u64 = events
        .buckets()
        .take(40)
        .map(|(most, count)| most * count)
        .sum();
    assert!(events.sum() <= bound, "{events:?}");
    assert_eq!(events.buckets().last(), Some((u64::MAX, 0)));
}

/// A task that holds the loop for so long.
fn holds(runtime: &Runtime, hand: &crate::support::hand_clock::Hand, time: Duration) {
    let hand = hand.clone();
    runtime.spawn(async move { hand.pass(time) });
}

#[cfg(feature = "observe")]
fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}

#[cfg(not(feature = "observe"))]
#[test]
fn without_observe_no_times_are_taken() {
    let (runtime, hand) = by_hand();
    holds(&runtime, &hand, SECOND);
    runtime.turn(Some(Duration::ZERO)).unwrap();
    let stats = runtime.stats();
    assert_eq!(stats.machines(), 1);
    for times in [
        stats.turn_time(),
        stats.lag(),
        stats.wake_delay(),
        stats.task_time(),
    ] {
        assert_eq!((times.count(), times.sum()), (0, 0));
    }
}

/// By a clock that stands still but where a test moves it.
#[cfg(feature = "observe")]
mod observe {
    use std::io;

    use netpoller::{Conn, Protocol, Selector, Server, TcpStream, UnixStream};

    use super::*;
    use crate::support::hand_clock::Hand;
    use crate::support::hooked::hooked;
    use crate::support::schedule::virtual_runtime;

    #[test]
    fn each_run_is_timed_and_so_is_the_wait_before_it_and_the_turn() {
        let (runtime, hand) = by_hand();
        holds(&runtime, &hand, 100 * MILLISECOND);
        holds(&runtime, &hand, 3 * MILLISECOND);
        // Between two turns time passes too, in which both are runnable.
        hand.pass(SECOND);
        runtime.turn(Some(Duration::ZERO)).unwrap();
        let stats = runtime.stats();
        let runs = stats.task_time();
        assert_eq!((runs.count(), runs.sum()), (2, nanos(103 * MILLISECOND)));
        let filled: Vec<_> = runs.buckets().filter(|&(_, count)| count > 0).collect();
        assert_eq!(filled, [((1 << 22) - 1, 1), ((1 << 27) - 1, 1)]);
        let delays = stats.wake_delay();
        let expected = nanos(2 * SECOND + 100 * MILLISECOND);
        assert_eq!((delays.count(), delays.sum()), (2, expected));
        let turns = stats.turn_time();
        assert_eq!((turns.count(), turns.sum()), (1, nanos(103 * MILLISECOND)));
        assert_eq!(
            stats.connection_time().count() + stats.root_time().count(),
            0
        );
    }

    #[test]
    fn a_task_that_is_woken_waits_from_the_wake_and_not_from_the_beginning_of_what_woke_it() {
        let (runtime, hand) = by_hand();
        let theirs = hand.clone();
        let waited = runtime.spawn(async move {
            theirs.pass(7 * MILLISECOND);
            let woken = netpoller::spawn(async {});
            theirs.pass(2 * MILLISECOND);
            woken.await.unwrap();
        });
        while !waited.is_finished() {
            runtime.turn(Some(Duration::ZERO)).unwrap();
        }
        // The task, what it spawns, and the task again. What it spawned had to wait for the rest of the
        // run that spawned it.
        let delays = runtime.stats().wake_delay();
        assert_eq!((delays.count(), delays.sum()), (3, nanos(2 * MILLISECOND)));
    }

    #[test]
    fn what_readiness_wakes_waits_from_the_end_of_the_sleep_in_the_kernel() {
        let (hand, _watchdog) = (Hand::default(), watchdog());
        let (clock, sleeps) = (hand.clone(), hand.clone());
        let selector = hooked(move |system, wait, events| {
            let harvest = system.netpoll(wait, events);
            sleeps.pass(if wait == Some(Duration::ZERO) {
                Duration::ZERO
            } else {
                SECOND
            });
            harvest
        });
        let builder = Runtime::builder().clock(move || clock.now());
        let runtime = builder.selector(selector).build().unwrap();
        let (ours, theirs) = runtime.block_on(async { UnixStream::pair().unwrap() });
        let read = runtime.spawn(async move { ours.read(&mut [0; 8]).await.unwrap() });
        runtime.turn(Some(Duration::ZERO)).unwrap();
        theirs.try_write(b"!").unwrap();
        let before = runtime.stats().wake_delay();
        while !read.is_finished() {
            runtime.turn(None).unwrap();
        }
        let delays = runtime.stats().wake_delay();
        assert!(delays.count() > before.count());
        assert_eq!(delays.sum(), before.sum());
    }

    #[test]
    fn a_root_is_timed_from_its_first_poll() {
        let (runtime, hand) = by_hand();
        hand.pass(SECOND);
        for _ in 0..2 {
            hand.pass(SECOND);
            runtime.block_on(async {
                hand.pass(5 * MILLISECOND);
                yield_now().await;
                hand.pass(5 * MILLISECOND);
            });
        }
        let stats = runtime.stats();
        let runs = stats.root_time();
        assert_eq!((runs.count(), runs.sum()), (4, nanos(20 * MILLISECOND)));
        assert_eq!(
            (stats.wake_delay().count(), stats.wake_delay().sum()),
            (4, 0)
        );
    }

    #[test]
    fn the_lag_is_how_late_the_loop_comes_to_its_timers() {
        let (runtime, hand) = by_hand();
        let sleeping = runtime.spawn(async { time::sleep(10 * MILLISECOND).await });
        runtime.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!(runtime.stats().lag().count(), 0, "nothing was due");
        holds(&runtime, &hand, 25 * MILLISECOND);
        while !sleeping.is_finished() {
            runtime.turn(Some(Duration::ZERO)).unwrap();
        }
        let lag = runtime.stats().lag();
        assert_eq!((lag.count(), lag.sum()), (1, nanos(15 * MILLISECOND)));
    }

    #[test]
    fn a_virtual_clock_is_never_late() {
        let _watchdog = watchdog();
        let runtime = virtual_runtime();
        runtime.block_on(async {
            for seconds in 1..100 {
                time::sleep(seconds * SECOND).await;
            }
        });
        let stats = runtime.stats();
        assert_eq!((stats.lag().count(), stats.lag().sum()), (99, 0));
        assert_eq!(stats.turn_time().sum(), 0, "it stands still in a turn");
    }

    struct Slow(Hand);

    impl Protocol for Slow {
        fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
            self.0.pass(40 * MILLISECOND);
            conn.write(bytes)?;
            Ok(bytes.len())
        }
    }

    #[test]
    fn connections_have_their_own_times_beside_tasks_and_roots() {
        let _watchdog = watchdog();
        let (runtime, hand) = by_hand();
        let bound = Server::new(move |_| Slow(hand.clone()))
            .bind("127.0.0.1:0")
            .unwrap();
        bound.run_in(&runtime).unwrap();
        runtime.block_on(async {
            let client = TcpStream::connect(bound.local_addr()).await.unwrap();
            client.write_all(b"x").await.unwrap();
            client.read_exact(&mut [0]).await.unwrap();
        });
        let stats = bound.handle().runtimes()[0].stats();
        assert_eq!(stats, *runtime.stats());
        assert_eq!(stats.connection_time().sum(), nanos(40 * MILLISECOND));
        assert!(stats.connection_time().count() > 0);
        assert_eq!((stats.task_time().sum(), stats.root_time().sum()), (0, 0));
        assert_eq!((stats.connections(), stats.tasks()), (1, 1));
    }
}
