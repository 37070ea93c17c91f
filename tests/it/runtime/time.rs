//! Sleeping, timeouts and intervals, on the real clock and on a virtual one.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::io::Write;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use netpoller::{
    CancelToken, Dialer, Heartbeat, NetError, Runtime, Server, TcpListener, TcpStream, spawn,
    spawn_blocking, time, yield_now,
};

use crate::support::counting::counting;
use crate::support::loopback::{pair, plain_pair, virtual_runtime};
use crate::support::running::Echo;
use crate::support::stall::{moment, stall};
use crate::support::wakers;
use crate::support::watchdog::watchdog;

const SECOND: Duration = Duration::from_secs(1);

/// Polls once, with a waker that does nothing.
fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_sleep_is_never_early_on_the_real_clock() {
    let _watchdog = watchdog();
    Runtime::new().unwrap().block_on(async {
        for micros in [0, 1, 400, 999, 1000, 1001, 2500] {
            let wait = Duration::from_micros(micros);
            let start = Instant::now();
            time::sleep(wait).await;
            assert!(start.elapsed() >= wait, "{micros} µs");
            let until = Instant::now() + wait;
            time::sleep_until(until).await;
            assert!(Instant::now() >= until, "{micros} µs");
        }
    });
}

#[test]
fn a_relative_sleep_counts_from_now_and_not_from_the_turns_reading() {
    let _watchdog = watchdog();
    Runtime::new().unwrap().block_on(async {
        stall(Duration::from_millis(10));
        let start = Instant::now();
        time::sleep(Duration::from_millis(5)).await;
        assert!(start.elapsed() >= Duration::from_millis(5));
        stall(Duration::from_millis(10));
        let start = Instant::now();
        let late = time::timeout(Duration::from_millis(5), pending::<()>()).await;
        assert!(late.is_err() && start.elapsed() >= Duration::from_millis(5));
    });
}

#[test]
fn nine_virtual_seconds_pass_soon_and_exactly() {
    let _watchdog = watchdog();
    let real = Instant::now();
    virtual_runtime().block_on(async {
        let start = time::now();
        let mut ticks = time::interval(SECOND);
        assert_eq!(ticks.period(), SECOND);
        for second in 0..=9 {
            assert_eq!(ticks.tick().await - start, second * SECOND);
            assert_eq!(time::now() - start, second * SECOND);
        }
    });
    assert!(real.elapsed() < 5 * SECOND, "{:?}", real.elapsed());
}

#[test]
fn a_virtual_clock_stops_at_every_live_deadline_in_order_and_at_none_left_behind() {
    let _watchdog = watchdog();
    virtual_runtime().block_on(async {
        let start = time::now();
        // Left behind: a sleep dropped, one moved later, and a connection's deadline moved.
        let mut dropped = Box::pin(time::sleep(SECOND));
        let mut moved = Box::pin(time::sleep(2 * SECOND));
        assert!(poll_once(dropped.as_mut()).is_pending() && poll_once(moved.as_mut()).is_pending());
        drop(dropped);
        moved.as_mut().reset(start + 20 * SECOND);
        let (server, _client) = pair().await;
        server.set_deadline(Some(start + 3 * SECOND)).unwrap();
        server.set_deadline(Some(start + 30 * SECOND)).unwrap();
        let seen: Rc<RefCell<Vec<Duration>>> = Rc::default();
        for wait in [7, 5, 6] {
            let seen = seen.clone();
            drop(spawn(async move {
                time::sleep(wait * SECOND).await;
                seen.borrow_mut().push(time::now() - start);
            }));
        }
        time::sleep(10 * SECOND).await;
        assert_eq!(*seen.borrow(), [5, 6, 7].map(|wait| wait * SECOND));
        assert_eq!(time::now() - start, 10 * SECOND);
        moved.await;
        assert_eq!(time::now() - start, 20 * SECOND);
    });
}

#[test]
fn a_stale_entry_does_not_move_virtual_time() {
    let _watchdog = watchdog();
    let runtime = virtual_runtime();
    let (stream, mut peer) = plain_pair(&runtime);
    runtime.block_on(async {
        let start = time::now();
        stream.set_read_deadline(Some(start + SECOND)).unwrap();
        stream.set_read_deadline(None).unwrap();
        drop(time::timeout(SECOND, pending::<()>()));
        // Nothing is live: it waits for an event, however long that takes.
        let writer = thread::spawn(move || {
            moment();
            peer.write_all(b"!").unwrap();
            peer
        });
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 1);
        assert_eq!(time::now(), start);
        writer.join().unwrap();
    });
}

#[test]
fn a_virtual_clock_waits_for_blocking_jobs_and_for_what_is_runnable() {
    let _watchdog = watchdog();
    virtual_runtime().block_on(async {
        let start = time::now();
        let job = spawn_blocking(|| stall(Duration::from_millis(20)));
        let slow = time::timeout(SECOND, job).await;
        assert!(slow.is_ok(), "the clock jumped over a job");
        assert_eq!(time::now(), start);
        let sleeping = spawn(time::sleep(SECOND));
        for _ in 0..100 {
            yield_now().await;
        }
        assert!(!sleeping.is_finished() && time::now() == start);
    });
}

#[test]
fn a_virtual_clock_held_by_a_blocking_job_keeps_a_hosts_limit() {
    let _watchdog = watchdog();
    let runtime = virtual_runtime();
    let (finish, told) = std::sync::mpsc::channel::<()>();
    let job = runtime.spawn(async move { spawn_blocking(move || told.recv()).await });
    for _ in 0..3 {
        runtime.turn(Some(Duration::from_millis(2))).unwrap();
        assert!(!job.is_finished());
    }
    finish.send(()).unwrap();
    assert!(runtime.block_on(job).unwrap().unwrap().is_ok());
}

#[test]
fn an_interval_skips_however_many_ticks_it_missed() {
    let _watchdog = watchdog();
    virtual_runtime().block_on(async {
        let mut interval = time::interval(Duration::from_nanos(1));
        interval.tick().await;
        // More of them than 32 bits can count.
        time::sleep(10 * SECOND).await;
        interval.tick().await;
        let before = time::now();
        assert!(interval.tick().await > before);
    });
}

#[test]
fn a_virtual_clock_lets_bytes_arrive_before_it_jumps() {
    let _watchdog = watchdog();
    virtual_runtime().block_on(async {
        let (server, client) = pair().await;
        let start = time::now();
        let echo = spawn(async move {
            let mut buffer = [0; 64];
            loop {
                match server.read(&mut buffer).await.unwrap() {
                    0 => return,
                    got => server.write_all(&buffer[..got]).await.unwrap(),
                }
            }
        });
        for _ in 0..200 {
            client
                .set_read_deadline(Some(time::now() + SECOND))
                .unwrap();
            client.write_all(b"ping").await.unwrap();
            client.read_exact(&mut [0; 4]).await.unwrap();
        }
        assert_eq!(time::now(), start);
        client.close_write().unwrap();
        echo.await.unwrap();
    });
}

#[test]
fn signals_that_keep_coming_do_not_stop_time() {
    let _watchdog = watchdog();
    for virtual_clock in [false, true] {
        for every in 2..5 {
            let (selector, counts) = counting();
            counts.signals.store(every, Ordering::Relaxed);
            let builder = Runtime::builder().selector(selector);
            let builder = match virtual_clock {
                true => builder.virtual_clock(),
                false => builder,
            };
            builder.build().unwrap().block_on(async {
                let (server, _client) = pair().await;
                for _ in 0..5 {
                    time::sleep(Duration::from_millis(1)).await;
                    let soon = time::now() + Duration::from_millis(1);
                    server.set_read_deadline(Some(soon)).unwrap();
                    assert!(server.read(&mut [0]).await.unwrap_err().is_timeout());
                }
            });
        }
    }
}

#[test]
fn a_host_may_wait_for_any_duration_on_a_virtual_clock() {
    let runtime = virtual_runtime();
    for wait in [
        3600 * SECOND,
        Duration::from_secs(u64::MAX / 4),
        Duration::MAX,
    ] {
        runtime.turn(Some(wait)).unwrap();
    }
    runtime.block_on(async { time::sleep(Duration::ZERO).await });
}

#[test]
fn a_timeout_drops_what_it_ends_and_what_is_ready_at_the_end_wins() {
    let _watchdog = watchdog();
    virtual_runtime().block_on(async {
        let held = Rc::new(Cell::new(()));
        let theirs = held.clone();
        let ended = time::timeout(SECOND, async move {
            let _theirs = theirs;
            pending::<()>().await;
        });
        assert_eq!(ended.await.unwrap_err().to_string(), "deadline has elapsed");
        assert_eq!(Rc::strong_count(&held), 1);
        let tie = time::timeout(SECOND, time::sleep(SECOND)).await;
        assert!(tie.is_ok(), "ready when the time was up");
        assert_eq!(time::timeout(Duration::ZERO, async { 7 }).await, Ok(7));
        assert!(
            time::timeout(Duration::MAX, time::sleep(SECOND))
                .await
                .is_ok()
        );
    });
}

#[test]
fn an_interval_skips_what_it_missed_and_keeps_in_step() {
    let _watchdog = watchdog();
    virtual_runtime().block_on(async {
        let start = time::now();
        let mut interval = time::interval(SECOND);
        interval.tick().await;
        time::sleep(Duration::from_millis(3500)).await;
        let due = |at: Instant| at - start;
        assert_eq!(
            due(interval.tick().await),
            SECOND,
            "the one that was due first"
        );
        assert_eq!(
            due(interval.tick().await),
            4 * SECOND,
            "two and three were missed"
        );
        assert_eq!(due(time::now()), 4 * SECOND);
        // Given up half-way, a tick is not lost.
        let given_up = time::timeout(SECOND / 2, interval.tick()).await;
        assert!(given_up.is_err());
        assert_eq!(due(interval.tick().await), 5 * SECOND);
    });
}

#[test]
fn an_interval_skips_what_it_missed_within_one_turn_too() {
    let _watchdog = watchdog();
    Runtime::new().unwrap().block_on(async {
        let period = Duration::from_millis(10);
        let mut interval = time::interval(period);
        interval.tick().await;
        stall(5 * period / 2);
        let now = Instant::now();
        assert!(interval.tick().await < now, "the one that was due first");
        assert!(interval.tick().await > now, "the others were missed");
    });
}

#[test]
fn a_sleep_that_is_reset_sleeps_to_its_new_end_and_again_when_it_had_ended() {
    let _watchdog = watchdog();
    virtual_runtime().block_on(async {
        let start = time::now();
        let mut sleep = Box::pin(time::sleep(5 * SECOND));
        assert!(poll_once(sleep.as_mut()).is_pending());
        sleep.as_mut().reset(start + SECOND);
        sleep.as_mut().await;
        assert_eq!(time::now() - start, SECOND);
        sleep.as_mut().reset(start + 3 * SECOND);
        sleep.as_mut().await;
        assert_eq!(time::now() - start, 3 * SECOND);
        sleep.as_mut().reset(start);
        sleep.as_mut().await;
        assert_eq!(time::now() - start, 3 * SECOND);
    });
}

#[test]
fn a_sleep_wakes_the_waker_it_was_polled_with_last() {
    let _watchdog = watchdog();
    virtual_runtime().block_on(async {
        let wakers = [0, 1].map(|_| Arc::new(wakers::Counter::default()));
        let mut sleep = Box::pin(time::sleep(SECOND));
        for counter in &wakers {
            let waker = Waker::from(counter.clone());
            let polled = sleep.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
        }
        time::sleep(2 * SECOND).await;
        assert_eq!(wakers.map(|counter| counter.count()), [0, 1]);
        let done = wakers::each((1..=3).map(|wait| time::sleep(wait * SECOND))).await;
        assert_eq!(done.len(), 3);
    });
}

#[test]
fn the_last_move_of_a_sleep_counts_wherever_the_moves_come_from() {
    let _watchdog = watchdog();
    let runtime = virtual_runtime();
    let (start, mut sleep) = runtime.block_on(async {
        let mut sleep = Box::pin(time::sleep(SECOND));
        assert!(poll_once(sleep.as_mut()).is_pending());
        (time::now(), sleep)
    });
    // Between two turns it goes by the mail.
    sleep.as_mut().reset(start + 9 * SECOND);
    sleep.as_mut().reset(start + 8 * SECOND);
    runtime.block_on(async {
        sleep.as_mut().reset(start + 3 * SECOND);
        sleep.as_mut().await;
        assert_eq!(time::now() - start, 3 * SECOND);
    });
    runtime.block_on(async {
        sleep.as_mut().reset(start + 20 * SECOND);
        assert!(poll_once(sleep.as_mut()).is_pending());
    });
    sleep.as_mut().reset(start + 6 * SECOND);
    sleep.as_mut().reset(start + 5 * SECOND);
    runtime.block_on(async {
        sleep.as_mut().await;
        assert_eq!(time::now() - start, 5 * SECOND);
    });
}

/// What overflows an instant, a tick, or the selector's milliseconds in 32 bits, and what is just
/// short of that: each means "much later", to whatever takes a duration.
#[test]
fn a_huge_duration_is_neither_over_at_once_nor_a_panic_wherever_it_is_given() {
    let _watchdog = watchdog();
    let millis = Duration::from_millis;
    for far in [
        Duration::MAX,
        Duration::MAX - Duration::from_nanos(1),
        Duration::from_secs(u64::MAX / 10),
        Duration::from_secs(i64::MAX as u64),
        millis(u64::MAX),
        Duration::from_micros(u64::MAX),
        Duration::from_nanos(u64::MAX),
        millis(1 << 36),
        millis(u64::from(u32::MAX)),
        millis(u64::from(u32::MAX) + 1),
        millis(i32::MAX as u64 + 1),
        millis(i32::MAX as u64),
    ] {
        let hour = 3600 * SECOND;
        virtual_runtime().block_on(async {
            let (server, client) = pair().await;
            let mut waiting = vec![
                spawn(async move { time::sleep(far).await }),
                spawn(async move { _ = time::timeout(far, pending::<()>()).await }),
                spawn(async move {
                    let mut interval = time::interval(far);
                    interval.tick().await;
                    interval.tick().await;
                }),
                spawn(async move { _ = CancelToken::new().with_timeout(far).canceled().await }),
                spawn(async move {
                    let mut sleep = time::sleep(SECOND);
                    sleep.reset(time::now() + 2 * SECOND);
                    if let Some(then) = time::now().checked_add(far) {
                        sleep.reset(then);
                        sleep.await;
                    }
                    pending().await
                }),
            ];
            let heartbeat = Heartbeat::start(&client, far);
            heartbeat.reset(Some(far));
            let dialer = Dialer::new().timeout(far).fallback_delay(far);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let dialled = dialer.dial(listener.local_addr().unwrap()).await.unwrap();
            dialled.set_linger(Some(far)).unwrap();
            if let Some(then) = time::now().checked_add(far) {
                server.set_deadline(Some(then)).unwrap();
            }
            waiting.push(spawn(async move { _ = server.read(&mut [0]).await }));
            time::sleep(hour).await;
            for (at, task) in waiting.iter().enumerate() {
                assert!(!task.is_finished(), "number {at} with {far:?}");
            }
            assert!(!heartbeat.is_finished());
            dialled.set_linger(None).unwrap();
        });
        let runtime = Runtime::builder().virtual_clock().build().unwrap();
        let bound = Server::new(|_| Echo)
            .idle_timeout(far)
            .heartbeat_with(far, "ping")
            .minimum_read_rate(1, far)
            .minimum_write_rate(1, far)
            .drain_grace(far)
            .bind("127.0.0.1:0")
            .unwrap();
        let serving = bound.run_in(&runtime).unwrap();
        let client = runtime.block_on(TcpStream::connect(bound.local_addr()));
        let client = client.unwrap();
        runtime.block_on(async {
            client.write_all(b"!").await.unwrap();
            client.read_exact(&mut [0]).await.unwrap();
            time::sleep(hour).await;
            client.write_all(b"!").await.unwrap();
            client.read_exact(&mut [0]).await.unwrap();
            drop(client);
        });
        bound.handle().drain(far);
        runtime.block_on(serving).unwrap().unwrap();
        assert!(runtime.shutdown(far));
    }
}
