//! Deadlines of connections, through the runtime.
//!
//! On a virtual clock wherever it can be; seconds cost nothing there.

use std::cell::Cell;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use netpoller::reactor::{Direction, Event, Harvest, Readiness};
use netpoller::{NetError, Runtime, Source, TcpStream, spawn, time, yield_now};

use crate::support::loopback::{pair, plain_pair, virtual_runtime};
use crate::support::scripted_selector::{Nothing, scripted};
use crate::support::stall::stall;
use crate::support::wakers::each;
use crate::support::watchdog::watchdog;

const SECOND: Duration = Duration::from_secs(1);
const NOW: Option<Duration> = Some(Duration::ZERO);

async fn read(stream: &TcpStream) -> std::io::Result<usize> {
    stream.read(&mut [0; 64]).await
}

// ---- rows D1-D8 of examples/README.md ----

#[test]
fn an_expired_read_stays_expired_until_the_deadline_is_moved() {
    let _watchdog = watchdog();
    virtual_runtime().block_on(async {
        let (server, client) = pair().await;
        let start = time::now();
        server.set_read_deadline(Some(start + SECOND)).unwrap();
        let error = read(&server).await.unwrap_err();
        assert!(error.is_timeout() && error.is_temporary(), "{error}");
        assert!(error.to_string().ends_with("i/o timeout"), "{error}");
        assert_eq!(time::now(), start + SECOND, "neither early nor late");
        client.write_all(b"late").await.unwrap();
        time::sleep(SECOND).await;
        for _ in 0..3 {
            assert!(
                read(&server).await.unwrap_err().is_timeout(),
                "even with data waiting"
            );
            assert!(server.try_read(&mut [0; 8]).unwrap_err().is_timeout());
        }
        server
            .set_read_deadline(Some(time::now() + SECOND))
            .unwrap();
        assert_eq!(read(&server).await.unwrap(), 4);
        assert!(read(&server).await.unwrap_err().is_timeout());
    });
}

#[test]
fn with_the_deadline_cleared_a_read_parks_for_ever() {
    let _watchdog = watchdog();
    virtual_runtime().block_on(async {
        let (server, client) = pair().await;
        server
            .set_read_deadline(Some(time::now() + SECOND))
            .unwrap();
        let reading = server.clone();
        let parked = spawn(async move { read(&reading).await });
        yield_now().await;
        server.set_read_deadline(None).unwrap();
        time::sleep(3600 * SECOND).await;
        assert!(!parked.is_finished());
        client.write_all(b"!").await.unwrap();
        assert_eq!(parked.await.unwrap().unwrap(), 1);
        // And one that had expired.
        server.set_read_deadline(Some(time::now())).unwrap();
        server.set_read_deadline(None).unwrap();
        assert!(time::timeout(3600 * SECOND, read(&server)).await.is_err());
    });
}

#[test]
fn a_server_times_out_moves_its_deadline_reads_and_closes() {
    let _watchdog = watchdog();
    virtual_runtime().block_on(async {
        let (server, client) = pair().await;
        let start = time::now();
        let serving = spawn(async move {
            server.set_deadline(Some(time::now() + 5 * SECOND)).unwrap();
            assert!(read(&server).await.unwrap_err().is_timeout());
            assert_eq!(time::now() - start, 5 * SECOND);
            server.set_deadline(Some(time::now() + 5 * SECOND)).unwrap();
            assert_eq!(read(&server).await.unwrap(), 1);
            server.close().unwrap();
        });
        time::sleep(7 * SECOND).await;
        client.write_all(b"1").await.unwrap();
        assert_eq!(read(&client).await.unwrap(), 0);
        serving.await.unwrap();
        assert_eq!(time::now() - start, 7 * SECOND);
    });
}

#[test]
fn one_directions_deadline_leaves_the_other_working() {
    let _watchdog = watchdog();
    virtual_runtime().block_on(async {
        let (server, client) = pair().await;
        server
            .set_read_deadline(Some(time::now() + SECOND))
            .unwrap();
        assert!(read(&server).await.unwrap_err().is_timeout());
        server.write_all(b"still writing").await.unwrap();
        assert_eq!(read(&client).await.unwrap(), 13);
        server.set_read_deadline(None).unwrap();
        server
            .set_write_deadline(Some(time::now() + SECOND))
            .unwrap();
        time::sleep(2 * SECOND).await;
        assert!(server.write(b"!").await.unwrap_err().is_timeout());
        client.write_all(b"still reading").await.unwrap();
        assert_eq!(read(&server).await.unwrap(), 13);
    });
}

#[test]
fn a_write_deadline_half_way_says_how_much_had_gone() {
    let _watchdog = watchdog();
    virtual_runtime().block_on(async {
        let (server, client) = pair().await;
        let all = vec![7; 64 << 20];
        server
            .set_write_deadline(Some(time::now() + SECOND))
            .unwrap();
        let error = server.write_all(&all).await.unwrap_err();
        assert!(error.is_timeout());
        let written = error.op_error().unwrap().written;
        assert!(0 < written && written < all.len(), "{written}");
        server.close_write().unwrap();
        let (mut buffer, mut got) = (vec![0; 1 << 20], 0);
        loop {
            match client.read(&mut buffer).await.unwrap() {
                0 => break,
                more => got += more,
            }
        }
        assert_eq!(got, written, "bytes were lost");
    });
}

mod invariant_3 {
    use super::*;

    #[test]
    fn now_and_the_past_expire_at_once_even_with_data_waiting() {
        let _watchdog = watchdog();
        for runtime in [&*virtual_runtime(), &Runtime::new().unwrap()] {
            runtime.block_on(async {
                let (server, client) = pair().await;
                client.write_all(b"waiting").await.unwrap();
                server.readable().await.unwrap();
                let now = time::now();
                let long_ago = now.checked_sub(3600 * SECOND).unwrap_or(now);
                for when in [
                    now,
                    Instant::now().min(now),
                    now - Duration::from_nanos(1),
                    long_ago,
                ] {
                    server.set_read_deadline(Some(when)).unwrap();
                    assert!(read(&server).await.unwrap_err().is_timeout());
                    assert!(server.try_read(&mut [0; 8]).unwrap_err().is_timeout());
                    assert!(server.readable().await.unwrap_err().is_timeout());
                }
                server.set_read_deadline(None).unwrap();
                assert_eq!(read(&server).await.unwrap(), 7);
            });
        }
    }

    #[test]
    fn the_far_future_clamps_and_means_neither_now_nor_none() {
        let _watchdog = watchdog();
        let runtime = virtual_runtime();
        runtime.block_on(async {
            let (server, client) = pair().await;
            for when in [
                latest(),
                latest() - SECOND,
                time::now() + 3600 * 24 * 365 * 30 * SECOND,
            ] {
                server.set_deadline(Some(when)).unwrap();
                client.write_all(b"!").await.unwrap();
                assert_eq!(read(&server).await.unwrap(), 1);
                let waiting = time::timeout(3600 * SECOND, read(&server)).await;
                assert!(waiting.is_err(), "it does not expire");
            }
            // From the latest instant back to a near one.
            server
                .set_read_deadline(Some(time::now() + SECOND))
                .unwrap();
            assert!(read(&server).await.unwrap_err().is_timeout());
        });
        assert!(runtime.next_timeout() > Some(3600 * SECOND));
    }

    #[test]
    fn nothing_expires_early_on_the_real_clock() {
        let _watchdog = watchdog();
        Runtime::new().unwrap().block_on(async {
            let (server, _client) = pair().await;
            for micros in (1..40).map(|step| step * 137) {
                let when = Instant::now() + Duration::from_micros(micros);
                server.set_read_deadline(Some(when)).unwrap();
                assert!(read(&server).await.unwrap_err().is_timeout());
                assert!(Instant::now() >= when, "{micros} µs");
            }
        });
    }
}

/// The latest instant there is, found by halving.
fn latest() -> Instant {
    let (mut latest, mut step) = (Instant::now(), Duration::from_secs(u64::MAX));
    while step > Duration::from_nanos(1) {
        match latest.checked_add(step) {
            Some(later) => latest = later,
            None => step /= 2,
        }
    }
    latest
}

/// The bytes of a read come in time, and then the loop stalls until long after its deadline.
fn a_stall_after_the_bytes_came(runtime: &Runtime, task: impl AsyncFnOnce(TcpStream) + 'static) {
    let (stream, mut peer) = plain_pair(runtime);
    stream
        .set_read_deadline(Some(Instant::now() + Duration::from_millis(40)))
        .unwrap();
    let task = runtime.spawn(async move { task(stream).await });
    runtime.turn(NOW).unwrap();
    peer.write_all(b"in time").unwrap();
    stall(Duration::from_millis(80));
    runtime.block_on(task).unwrap();
}

mod invariant_4 {
    use super::*;

    #[test]
    fn bytes_in_time_win_for_a_foreign_waker_too() {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        a_stall_after_the_bytes_came(&runtime, async |stream| {
            let got = each([async move { read(&stream).await.unwrap() }]).await;
            assert_eq!(got, [7]);
        });
    }

    #[test]
    fn bytes_in_time_win_behind_more_machines_than_one_turn_runs() {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        let (stream, mut peer) = plain_pair(&runtime);
        stream
            .set_read_deadline(Some(Instant::now() + Duration::from_millis(100)))
            .unwrap();
        let reader = runtime.spawn(async move { read(&stream).await });
        runtime.turn(NOW).unwrap();
        // Thousands of other machines, most of which have not run yet when the bytes come.
        let ran = Rc::new(Cell::new(0));
        for _ in 0..5000 {
            let ran = ran.clone();
            drop(runtime.spawn(async move { ran.set(ran.get() + 1) }));
        }
        runtime.turn(NOW).unwrap();
        assert!(
            ran.get() < 4000,
            "the reader will be behind more than one turn"
        );
        peer.write_all(b"in time").unwrap();
        stall(Duration::from_millis(150));
        let got = runtime.block_on(reader).unwrap();
        assert_eq!(got.unwrap(), 7);
        assert!(ran.get() > 4000, "the reader ran too early");
    }

    #[test]
    fn bytes_in_time_win_behind_many_machines_handed_out_at_once() {
        let _watchdog = watchdog();
        (1..=4).for_each(a_stall_among_many_machines);
    }
}

/// One machine stalls the loop, among more machines than one turn runs, after another one has yielded
/// `yields` times.
fn a_stall_among_many_machines(yields: usize) {
    let (selector, script) = scripted();
    let runtime = Runtime::builder().selector(selector).build().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let ours = listener.accept().unwrap().0;
    let stream = runtime.block_on(async { TcpStream::from_std(ours).unwrap() });
    let theirs = stream.clone();
    let reader = runtime.spawn(async move { read(&theirs).await });
    let stalls = Rc::new(Cell::new(true));
    for _ in 0..1100 {
        let stalls = stalls.clone();
        drop(runtime.spawn(async move {
            let source = Source::new(Nothing).unwrap();
            let mut answers = [Err(io::ErrorKind::WouldBlock.into()), Ok(())].into_iter();
            let attempt = |_: &mut Nothing| answers.next().unwrap();
            source.io(Direction::Read, attempt).await.unwrap();
            if stalls.take() {
                stall(Duration::from_millis(150));
            }
        }));
    }
    while runtime.turn(NOW).unwrap().more {}
    drop(runtime.spawn(async move {
        for _ in 0..10 {
            yield_now().await;
        }
    }));
    for _ in 0..yields {
        runtime.turn(NOW).unwrap();
    }
    stream
        .set_read_deadline(Some(Instant::now() + Duration::from_millis(100)))
        .unwrap();
    peer.write_all(b"in time").unwrap();
    // The reader's comes last.
    let readiness = Readiness::READ;
    let tokens = script.borrow().tokens.clone();
    let events = tokens.into_iter().rev();
    let events = events.map(|token| Event { token, readiness }).collect();
    script
        .borrow_mut()
        .next
        .push_back((events, Harvest::Complete));
    assert_eq!(runtime.block_on(reader).unwrap().unwrap(), 7);
}

#[test]
fn a_stall_still_expires_the_reads_for_which_nothing_came() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (stream, _peer) = plain_pair(&runtime);
    stream
        .set_read_deadline(Some(Instant::now() + Duration::from_millis(5)))
        .unwrap();
    let reader = runtime.spawn(async move { read(&stream).await });
    runtime.turn(NOW).unwrap();
    stall(Duration::from_millis(20));
    assert!(runtime.block_on(reader).unwrap().unwrap_err().is_timeout());
}
