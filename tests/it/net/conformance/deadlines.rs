//! Odd deadlines: exactly now, ages ago, as late as there is; moved by many at once, moved when
//! they had fired already; and a loop that was held up.
//!
//! Mirrors the rest of Go's `net/timeout_test.go` and invariants 3, 4 and 12.

use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_lite::future::poll_once;
use netpoller::{NetError, spawn, time, yield_now};

use super::transport::*;
use crate::support::stall::stall;

async fn exactly_now<T: Transport>() {
    let (near, far) = pair::<T>().await;
    far.write_all(b"there already").await.unwrap();
    near.readable().await.unwrap();
    for now in [time::now(), Instant::now()] {
        near.set_deadline(Some(now)).unwrap();
        assert_timeout(near.read(&mut [0]).await);
        assert_timeout(near.write(b"x").await);
    }
    near.set_deadline(None).unwrap();
    assert_eq!(near.read(&mut [0; 64]).await.unwrap(), 13);
}

#[test]
fn a_deadline_of_now_has_passed() {
    over_streams(
        Clock::Real,
        exactly_now::<Tcp4>,
        exactly_now::<Tcp6>,
        exactly_now::<UnixPath>,
    );
}

/// The earliest or latest instant that there is. Takes steps while they fit, and then half as long
/// ones.
fn extreme(step: impl Fn(Instant, Duration) -> Option<Instant>) -> Instant {
    let mut instant = Instant::now();
    let mut by = Duration::MAX;
    while by > Duration::from_nanos(1) {
        match step(instant, by) {
            Some(further) => instant = further,
            None => by /= 2,
        }
    }
    instant
}

async fn extremes<T: Transport>() {
    let (near, far) = pair::<T>().await;
    let (first, last) = (
        extreme(|at, by| at.checked_sub(by)),
        extreme(|at, by| at.checked_add(by)),
    );
    near.set_deadline(Some(first)).unwrap();
    assert_timeout(near.read(&mut [0]).await);
    assert_timeout(near.write(b"x").await);

    near.set_deadline(Some(last)).unwrap();
    let mut byte = [0];
    {
        let mut reading = pin!(near.read(&mut byte));
        assert!(poll_once(&mut reading).await.is_none(), "nothing has come");
        time::sleep(Duration::from_secs(60 * 60 * 24 * 365)).await;
        assert!(
            poll_once(&mut reading).await.is_none(),
            "the latest instant passed within a year"
        );
        far.write_all(b"!").await.unwrap();
        assert_eq!(reading.await.unwrap(), 1);
    }
    near.write_all(b"x").await.unwrap();

    // Then a near deadline still counts.
    near.set_deadline(in_time(millis(10))).unwrap();
    assert_timeout(near.read(&mut byte).await);
}

#[test]
fn the_earliest_instant_has_passed_and_the_latest_does_not_pass() {
    over_streams(
        Clock::Virtual,
        extremes::<Tcp4>,
        extremes::<Tcp6>,
        extremes::<UnixPath>,
    );
}

/// Both readers' deadlines pass in the same turn; the one that runs first moves the other's.
async fn moved_after_it_fired<T: Transport>() {
    let (one, to_one) = pair::<T>().await;
    let (two, to_two) = pair::<T>().await;
    let deadline = in_time(millis(10));
    let readers = [(one.clone(), two.clone()), (two, one)].map(|(mine, other)| {
        mine.set_read_deadline(deadline).unwrap();
        spawn(async move {
            let result = mine.read(&mut [0]).await;
            other.set_read_deadline(None).unwrap();
            result.is_err_and(|error| error.is_timeout())
        })
    });
    time::sleep(millis(20)).await;
    let ended = readers.iter().filter(|reader| reader.is_finished()).count();
    assert_eq!(
        ended, 1,
        "a deadline that was moved in time fired all the same"
    );
    to_one.write_all(b"!").await.unwrap();
    to_two.write_all(b"!").await.unwrap();
    let mut timeouts = 0;
    for reader in readers {
        timeouts += usize::from(reader.await.unwrap());
    }
    assert_eq!(timeouts, 1);
}

#[test]
fn a_deadline_that_fires_and_is_moved_before_its_waiter_runs_is_no_timeout() {
    over_streams(
        Clock::Virtual,
        moved_after_it_fired::<Tcp4>,
        moved_after_it_fired::<Tcp6>,
        moved_after_it_fired::<UnixPath>,
    );
}

async fn earlier_and_later<T: Transport>() {
    let (near, _far) = pair::<T>().await;
    let start = time::now();
    let mut byte = [0];
    let mut reading = pin!(near.read(&mut byte));
    for (wait, then) in [(1000, 10), (10, 100), (100, 70), (70, 70)] {
        near.set_read_deadline(Some(start + millis(wait))).unwrap();
        assert!(poll_once(&mut reading).await.is_none());
        near.set_read_deadline(Some(start + millis(then))).unwrap();
    }
    assert_timeout(reading.await);
    assert_eq!(time::now() - start, millis(70));
}

#[test]
fn the_last_setting_of_a_deadline_counts_for_a_parked_read_too() {
    over_streams(
        Clock::Virtual,
        earlier_and_later::<Tcp4>,
        earlier_and_later::<Tcp6>,
        earlier_and_later::<UnixPath>,
    );
}

async fn deadline_race<T: Transport>() {
    const ROUNDS: usize = 1000;
    let (near, far) = pair::<T>().await;
    let setter = near.clone();
    let setting = spawn(async move {
        for _ in 0..ROUNDS {
            let soon = Some(Instant::now() + Duration::from_micros(2));
            setter.set_read_deadline(soon).unwrap();
            setter.set_write_deadline(soon).unwrap();
            yield_now().await;
        }
    });
    let reader = near.clone();
    let reading = spawn(async move {
        for _ in 0..ROUNDS {
            let _timeouts_are_expected = reader.read(&mut [0]).await;
        }
    });
    let writer = near.clone();
    let writing = spawn(async move {
        for _ in 0..ROUNDS {
            let _timeouts_are_expected = writer.write(&[0]).await;
        }
    });
    setting.await.unwrap();
    reading.await.unwrap();
    writing.await.unwrap();
    near.set_deadline(None).unwrap();
    far.write_all(b"!").await.unwrap();
    assert_eq!(near.read(&mut [0; 8]).await.unwrap(), 1);
}

#[test]
fn operations_that_race_with_their_deadlines_end() {
    over_streams(
        Clock::Real,
        deadline_race::<Tcp4>,
        deadline_race::<Tcp6>,
        deadline_race::<UnixPath>,
    );
}

/// Steadily earlier deadlines from eight tasks, as Go's TestConcurrentSetDeadline has it; here the
/// wheel's entries are counted too.
#[test]
fn many_tasks_that_move_many_deadlines_leave_bounded_timers() {
    const CONNECTIONS: usize = 10;
    watched("tcp4", || {
        let runtime = runtime(Clock::Virtual);
        let streams = runtime.block_on(async {
            let mut pairs = Vec::new();
            for _ in 0..CONNECTIONS {
                pairs.push(pair::<Tcp4>().await);
            }
            let pairs = Rc::new(pairs);
            let tasks: Vec<_> = (0..8)
                .map(|task| spawn(move_deadlines(pairs.clone(), task)))
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            pairs
        });
        let stats = runtime.stats();
        assert!(stats.timers <= 2 * CONNECTIONS, "{stats:?}");
        assert!(stats.places <= 2 * stats.timers + 100, "{stats:?}");
        drop(streams);
        assert_eq!(runtime.stats().timers, 0);
    });
}

async fn move_deadlines(pairs: Rc<Vec<(netpoller::TcpStream, netpoller::TcpStream)>>, task: u64) {
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let start = time::now();
    for round in (0..100).rev() {
        for (number, (near, _)) in pairs.iter().enumerate() {
            let more = Duration::from_secs(task * round * number as u64);
            near.set_read_deadline(Some(start + hours(2) + more))
                .unwrap();
            near.set_write_deadline(Some(start + hours(1) + more))
                .unwrap();
        }
        yield_now().await;
    }
}

/// The bytes come; the loop is held up far beyond the deadline; then it polls.
async fn stalled_loop<T: Transport>() {
    let (near, far) = pair::<T>().await;
    let (idle, _silent) = pair::<T>().await;
    let soon = Some(Instant::now() + millis(30));
    near.set_read_deadline(soon).unwrap();
    idle.set_read_deadline(soon).unwrap();
    let mut byte = [0];
    let mut reading = pin!(near.read(&mut byte));
    assert!(poll_once(&mut reading).await.is_none());
    assert_eq!(far.try_write(b"!").unwrap(), 1);
    stall(millis(60));
    assert_eq!(reading.await.unwrap(), 1);
    assert_timeout(idle.read(&mut [0]).await);
}

#[test]
fn a_stalled_loop_expires_no_read_whose_bytes_had_come() {
    over_streams(
        Clock::Real,
        stalled_loop::<Tcp4>,
        stalled_loop::<Tcp6>,
        stalled_loop::<UnixPath>,
    );
}

async fn each_its_own<T: Transport>() {
    let (near, far) = pair::<T>().await;
    near.set_read_deadline(in_time(millis(10))).unwrap();
    near.set_write_deadline(in_time(millis(30))).unwrap();
    far.set_read_deadline(in_time(millis(20))).unwrap();
    let start = time::now();
    assert_timeout(near.read(&mut [0]).await);
    assert_eq!(time::now() - start, millis(10));
    near.write_all(b"!").await.unwrap();
    assert_eq!(far.read(&mut [0]).await.unwrap(), 1);
    assert_timeout(far.read(&mut [0]).await);
    assert_eq!(time::now() - start, millis(20));
    assert_timeout(near.write_all(&vec![0; PLENTY]).await);
    assert_eq!(time::now() - start, millis(30));
    far.write_all(b"!").await.unwrap();
    assert_timeout(near.read(&mut [0]).await);
}

#[test]
fn each_direction_of_each_end_has_its_own_deadline() {
    over_streams(
        Clock::Virtual,
        each_its_own::<Tcp4>,
        each_its_own::<Tcp6>,
        each_its_own::<UnixPath>,
    );
}

/// A future that is polled again for nothing stays parked, once.
async fn polled_for_nothing<T: Transport>() {
    let (near, far) = pair::<T>().await;
    near.set_read_deadline(in_time(millis(10))).unwrap();
    let mut byte = [0];
    let mut reading = pin!(near.read(&mut byte));
    for _ in 0..10 {
        assert!(poll_once(&mut reading).await.is_none());
        yield_now().await;
    }
    far.write_all(b"!").await.unwrap();
    assert_eq!(reading.await.unwrap(), 1);
}

#[test]
fn polling_for_nothing_changes_nothing() {
    over_streams(
        Clock::Virtual,
        polled_for_nothing::<Tcp4>,
        polled_for_nothing::<Tcp6>,
        polled_for_nothing::<UnixPath>,
    );
}
