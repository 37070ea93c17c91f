//! Invariant 7: what is always ready yields, with the very waker it was polled with; the loop polls
//! the selector after a bounded number of machines; many timers are spread over turns.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::io::{Read, Write};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use netpoller::{NetError, Runtime, TcpStream, UnixStream, spawn, time, yield_now};

use crate::support::counting::counting;
use crate::support::loopback::{pair, plain_pair, virtual_runtime};
use crate::support::wakers::{Counter, each};
use crate::support::watchdog::watchdog;

const NOW: Option<Duration> = Some(Duration::ZERO);

/// A peer that sends without end, on a thread of its own.
struct FloodingPeer {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl FloodingPeer {
    fn new(mut peer: std::net::TcpStream) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let bytes = vec![7; 64 * 1024];
            while !stopped.load(Ordering::Relaxed) && peer.write_all(&bytes).is_ok() {}
        });
        FloodingPeer {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for FloodingPeer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

mod invariant_7 {
    use super::*;

    #[test]
    fn a_read_with_that_is_always_ready_yields_to_the_others() {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        let (stream, peer) = plain_pair(&runtime);
        let held = stream.clone();
        let flood = FloodingPeer::new(peer);
        runtime.block_on(async {
            let reader = spawn(async move { while stream.read_with(<[u8]>::len).await.is_ok() {} });
            // The root as one that is runnable, and as one that waits for the clock.
            for _ in 0..200 {
                yield_now().await;
            }
            time::sleep(Duration::from_millis(10)).await;
            assert!(!reader.is_finished());
            held.abort().unwrap();
        });
        drop(flood);
    }

    #[test]
    fn operations_that_move_nothing_yield_too() {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            for what in [
                "readable",
                "writable",
                "peek",
                "read nothing",
                "write nothing",
            ] {
                let (server, client) = pair().await;
                client.write_all(b"!").await.unwrap();
                server.readable().await.unwrap();
                let rounds = Rc::new(Cell::new(0));
                let counted = rounds.clone();
                let busy = spawn(async move {
                    // A bound, so that the test fails instead of hanging.
                    while counted.get() < 1_000_000 {
                        always(&server, what).await.unwrap();
                        counted.set(counted.get() + 1);
                    }
                });
                yield_now().await;
                yield_now().await;
                assert!(rounds.get() < 100_000, "{what} never yields");
                busy.abort();
            }
        });
    }

    #[test]
    fn an_operation_that_yields_within_a_foreign_executor_is_polled_again() {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let mut children: Vec<Pin<Box<dyn Future<Output = usize>>>> = Vec::new();
            const EACH: usize = 1 << 20;
            for _ in 0..4 {
                let (server, client) = pair().await;
                // Several budgets' worth, there before the first read.
                children.push(Box::pin(async move {
                    client.write_all(&vec![1; EACH]).await.unwrap();
                    client.close_write().unwrap();
                    // Kept open until the reader has ended.
                    client.hung_up().await.unwrap();
                    0
                }));
                children.push(Box::pin(async move {
                    let mut got = 0;
                    loop {
                        match server.read_with(<[u8]>::len).await.unwrap() {
                            0 => return got,
                            more => got += more,
                        }
                    }
                }));
            }
            let done = each(children).await;
            assert_eq!(done.iter().sum::<usize>(), 4 * EACH);
        });
    }

    #[test]
    fn yielding_wakes_the_very_waker_it_was_polled_with() {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let (server, client) = pair().await;
            client.write_all(b"always").await.unwrap();
            server.readable().await.unwrap();
            let counter = Arc::new(Counter::default());
            let waker = Waker::from(counter.clone());
            let mut cx = Context::from_waker(&waker);
            for _ in 0..100_000 {
                let mut byte = [0; 1];
                let mut peek = Box::pin(server.peek(&mut byte));
                if peek.as_mut().poll(&mut cx).is_pending() {
                    break;
                }
            }
            assert_eq!(counter.count(), 1);
        });
    }

    #[test]
    fn the_selector_is_asked_after_a_bounded_number_of_machines() {
        let _watchdog = watchdog();
        let (selector, counts) = counting();
        let runtime = Runtime::builder().selector(selector).build().unwrap();
        for _ in 0..10_000 {
            drop(runtime.spawn(async { yield_now().await }));
        }
        let before = counts.netpolls();
        let mut turns = 0;
        while runtime.stats().tasks > 0 {
            let turn = runtime.turn(NOW).unwrap();
            assert!(turn.machines <= 1024, "{} machines", turn.machines);
            assert_eq!(turn.more, runtime.stats().tasks > 0);
            turns += 1;
        }
        assert!(turns >= 20_000 / 1024);
        assert!(counts.netpolls() - before >= turns);
    }

    #[test]
    fn the_selector_is_asked_after_a_bounded_number_of_futures_from_other_threads() {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        let (handle, sent) = (runtime.handle(), 10_000);
        thread::spawn(move || (0..sent).for_each(|_| handle.spawn(|| async {})))
            .join()
            .unwrap();
        while runtime.stats().spawned < sent {
            let before = runtime.stats().spawned;
            assert_eq!(runtime.next_timeout(), NOW);
            // None is lost though no break comes for the rest: this would wait for ever.
            let turn = runtime.turn(None).unwrap();
            let spawned = runtime.stats().spawned - before;
            assert!((1..=1024).contains(&spawned), "{spawned} in one turn");
            assert_eq!(turn.more, runtime.stats().spawned < sent);
        }
    }

    #[test]
    fn machines_run_first_come_first_served_across_turns() {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        let order = Rc::new(std::cell::RefCell::new(Vec::new()));
        for at in 0..3000 {
            let order = order.clone();
            drop(runtime.spawn(async move {
                order.borrow_mut().push(at);
                yield_now().await;
                order.borrow_mut().push(3000 + at);
            }));
        }
        while runtime.stats().tasks > 0 {
            runtime.turn(NOW).unwrap();
        }
        assert_eq!(*order.borrow(), (0..6000).collect::<Vec<_>>());
    }

    #[test]
    fn a_machine_that_waited_for_bytes_runs_before_one_that_has_yielded() {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        let (stream, mut peer) = plain_pair(&runtime);
        let order = Rc::new(RefCell::new(Vec::new()));
        for _ in 0..10 {
            let order = order.clone();
            drop(runtime.spawn(async move {
                loop {
                    order.borrow_mut().push("yielded");
                    yield_now().await;
                }
            }));
        }
        let ran = order.clone();
        drop(runtime.spawn(async move {
            stream.read(&mut [0]).await.unwrap();
            ran.borrow_mut().push("waited");
        }));
        runtime.turn(NOW).unwrap();
        peer.write_all(b"!").unwrap();
        while !order.borrow().contains(&"waited") {
            order.borrow_mut().clear();
            runtime.turn(NOW).unwrap();
        }
        assert_eq!(order.borrow()[..2], ["waited", "yielded"]);
        assert_eq!(order.borrow().len(), 11, "some had no turn");
    }

    #[test]
    fn many_timers_are_spread_over_turns_and_none_is_lost() {
        let _watchdog = watchdog();
        let runtime = virtual_runtime();
        const TIMERS: usize = 20_000;
        let fired = Rc::new(Cell::new(0));
        for _ in 0..TIMERS {
            let fired = fired.clone();
            drop(runtime.spawn(async move {
                time::sleep(Duration::from_secs(1)).await;
                fired.set(fired.get() + 1);
            }));
        }
        let mut most = 0;
        while fired.get() < TIMERS {
            let turn = runtime.turn(None).unwrap();
            most = most.max(turn.expired);
            assert!(turn.machines <= 1024);
        }
        assert!((1..=4096).contains(&most), "{most} in one turn");
        assert_eq!(runtime.stats().expired, TIMERS as u64);
    }

    #[test]
    fn runnable_machines_do_not_hold_up_a_connection() {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        let (stream, mut peer) = plain_pair(&runtime);
        let echo = runtime.spawn(async move {
            let mut byte = [0; 1];
            stream.read_exact(&mut byte).await.unwrap();
            stream.write_all(&byte).await.unwrap();
        });
        // Machines that are always runnable.
        for _ in 0..5000 {
            drop(runtime.spawn(async {
                loop {
                    yield_now().await;
                }
            }));
        }
        runtime.turn(NOW).unwrap();
        peer.write_all(b"!").unwrap();
        let start = Instant::now();
        let mut turns = 0;
        while !echo.is_finished() {
            runtime.turn(NOW).unwrap();
            turns += 1;
            assert!(
                turns < 1000 || start.elapsed() < Duration::from_secs(20),
                "held up"
            );
        }
        assert!(turns <= 20, "{turns} turns: a round of the queue or two");
        drop(runtime.spawn(pending::<()>()));
        peer.read_exact(&mut [0; 1]).unwrap();
    }
}

/// An operation that never has to wait: one byte has come, and stays.
async fn always(stream: &TcpStream, what: &str) -> std::io::Result<()> {
    match what {
        "readable" => stream.readable().await,
        "writable" => stream.writable().await,
        "peek" => stream.peek(&mut [0; 1]).await.map(drop),
        "read nothing" => stream.read(&mut []).await.map(drop),
        _ => stream.write(&[]).await.map(drop),
    }
}

#[test]
fn outside_any_machine_nothing_has_to_yield() {
    let runtime = Runtime::new().unwrap();
    let (stream, mut peer) = plain_pair(&runtime);
    futures_lite::future::block_on(async {
        for _ in 0..2000 {
            stream.write_all(&[1; 1000]).await.unwrap();
            peer.read_exact(&mut [0; 1000]).unwrap();
        }
    });
}

mod invariant_3 {
    use super::*;

    #[test]
    fn deadlines_pass_while_two_tasks_time_each_other_out() {
        async fn player(mine: UnixStream, other: UnixStream) {
            loop {
                assert!(mine.read(&mut [0; 8]).await.unwrap_err().is_timeout());
                mine.set_read_deadline(None).unwrap();
                other.set_read_deadline(Some(time::now())).unwrap();
            }
        }
        let _watchdog = watchdog();
        Runtime::new().unwrap().block_on(async {
            let [one, two, third] = [(); 3].map(|()| UnixStream::pair().unwrap());
            spawn(player(one.0.clone(), two.0.clone()));
            spawn(player(two.0, one.0.clone()));
            yield_now().await;
            one.0.set_read_deadline(Some(time::now())).unwrap();
            let soon = time::now() + Duration::from_millis(5);
            third.0.set_read_deadline(Some(soon)).unwrap();
            assert!(third.0.read(&mut [0]).await.unwrap_err().is_timeout());
        });
    }

    #[test]
    fn deadlines_pass_while_machines_are_always_runnable() {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        let (stream, _peer) = plain_pair(&runtime);
        for _ in 0..5000 {
            drop(runtime.spawn(async {
                loop {
                    yield_now().await;
                }
            }));
        }
        runtime.block_on(async {
            stream
                .set_read_deadline(Some(time::now() + Duration::from_millis(20)))
                .unwrap();
            let error = stream.read(&mut [0; 8]).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
            // And through a foreign waker.
            stream
                .set_read_deadline(Some(time::now() + Duration::from_millis(20)))
                .unwrap();
            let done = each([async move { stream.read(&mut [0; 8]).await.is_err() }]).await;
            assert_eq!(done, [true]);
        });
    }
}
