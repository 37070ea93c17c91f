//! What comes too late: events of one harvest after a close among them, keys used again, and what
//! is given up half-way.
//!
//! Go's own tests say little of it; invariants 2, 5 and 8 do.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::{self, poll_once};
use netpoller::net::Stream;
use netpoller::{NetError, spawn, time};

use super::transport::*;
use crate::support::bytes::noise;

/// Two readers become ready in one harvest, and the one that runs first closes the other's stream.
async fn one_harvest<T: Transport>() {
    let (one, to_one) = pair::<T>().await;
    let (two, to_two) = pair::<T>().await;
    let readers = [(one.clone(), two.clone()), (two, one)].map(|(mine, other)| {
        spawn(async move {
            let got = mine.read(&mut [0; 8]).await;
            if got.is_ok() {
                other.close().unwrap();
            }
            got
        })
    });
    time::sleep(millis(10)).await;
    // No turn between the two, so that both are in the next harvest.
    to_one.try_write(b"!").unwrap();
    to_two.try_write(b"!").unwrap();
    let mut results = Vec::new();
    for reader in readers {
        results.push(reader.await.unwrap());
    }
    results.sort_by_key(Result::is_err);
    assert_eq!(results.remove(0).unwrap(), 1);
    assert_closed(results.remove(0));
}

#[test]
fn a_close_in_the_same_harvest_wins() {
    over_streams(
        Clock::Virtual,
        one_harvest::<Tcp4>,
        one_harvest::<Tcp6>,
        one_harvest::<UnixPath>,
    );
}

/// The same, with the slot used again before the late event's waiter could run. `hung_up` parks a
/// foreign waker, which is looked up by slot. Polls are counted, since a spurious one would only
/// wait again.
async fn slot_reused_in_the_harvest<T: Transport>() {
    let listener = T::listen().await.unwrap();
    let (trigger, pull) = connect::<T>(&listener).await;
    let (old, old_peer) = connect::<T>(&listener).await;
    let fresh = T::dial(&listener).await.unwrap();
    let polls = Rc::new(Cell::new(0));
    let counted = polls.clone();
    let reader = trigger.clone();
    let closer = old.clone();
    let replacing = spawn(async move {
        reader.read(&mut [0; 8]).await.unwrap();
        closer.close().unwrap();
        drop(closer);
        // Takes the key that was freed, and waits in the same run.
        let new = T::accept(&listener).await.unwrap();
        let mut hang_up = pin!(new.hung_up());
        poll_fn(|cx| {
            counted.set(counted.get() + 1);
            hang_up.as_mut().poll(cx)
        })
        .await
    });
    let watching = spawn(async move { old.hung_up().await });
    time::sleep(millis(10)).await;
    pull.try_write(b"!").unwrap();
    old_peer.close().unwrap();
    let _either_is_right = watching.await.unwrap();
    time::sleep(millis(10)).await;
    assert_eq!(
        polls.get(),
        1,
        "the former owner's event reached the new one"
    );
    fresh.close().unwrap();
    replacing.await.unwrap().unwrap();
    assert_eq!(polls.get(), 2);
}

#[test]
fn an_event_of_a_keys_former_owner_changes_nothing() {
    over_streams(
        Clock::Virtual,
        slot_reused_in_the_harvest::<Tcp4>,
        slot_reused_in_the_harvest::<Tcp6>,
        slot_reused_in_the_harvest::<UnixPath>,
    );
}

/// The wheel still holds an entry for a descriptor that is gone.
async fn old_deadline<T: Transport>() {
    let listener = T::listen().await.unwrap();
    for _ in 0..10 {
        let (old, _old_peer) = connect::<T>(&listener).await;
        old.set_deadline(in_time(millis(1000))).unwrap();
    }
    let (near, far) = connect::<T>(&listener).await;
    let mut buffer = [0; 8];
    let mut reading = pin!(near.read(&mut buffer));
    for _ in 0..4 {
        assert!(poll_once(&mut reading).await.is_none());
        time::sleep(millis(500)).await;
    }
    far.write_all(b"!").await.unwrap();
    assert_eq!(reading.await.unwrap(), 1);
}

#[test]
fn a_deadline_of_a_keys_former_owner_expires_nothing() {
    over_streams(
        Clock::Virtual,
        old_deadline::<Tcp4>,
        old_deadline::<Tcp6>,
        old_deadline::<UnixPath>,
    );
}

/// Unread bytes of a connection that is closed and replaced, again and again.
async fn readiness_is_not_inherited<T: Transport>() {
    let listener = T::listen().await.unwrap();
    for _ in 0..50 {
        let (old, old_peer) = connect::<T>(&listener).await;
        old_peer.write_all(b"unread").await.unwrap();
        old.readable().await.unwrap();
        old.close().unwrap();
        let (near, far) = connect::<T>(&listener).await;
        let mut buffer = [0; 8];
        let mut reading = pin!(near.read(&mut buffer));
        assert!(
            poll_once(&mut reading).await.is_none(),
            "read what was another's"
        );
        far.write_all(b"!").await.unwrap();
        assert_eq!(reading.await.unwrap(), 1);
    }
}

#[test]
fn a_new_connection_inherits_no_readiness() {
    over_streams(
        Clock::Real,
        readiness_is_not_inherited::<Tcp4>,
        readiness_is_not_inherited::<Tcp6>,
        readiness_is_not_inherited::<UnixPath>,
    );
}

// ---- given up ----

async fn given_up_read<T: Transport>() {
    let (near, far) = pair::<T>().await;
    {
        let mut buffer = [0; 8];
        let mut reading = pin!(near.read(&mut buffer));
        assert!(poll_once(&mut reading).await.is_none());
        far.write_all(b"kept").await.unwrap();
        let_others_park().await;
    }
    let mut buffer = [0; 8];
    assert_eq!(near.read(&mut buffer).await.unwrap(), 4);
    assert_eq!(&buffer[..4], b"kept");
}

#[test]
fn a_read_given_up_loses_no_byte() {
    over_streams(
        Clock::Real,
        given_up_read::<Tcp4>,
        given_up_read::<Tcp6>,
        given_up_read::<UnixPath>,
    );
}

async fn given_up_in_the_queue<T: Transport>() {
    let (near, far) = pair::<T>().await;
    let spawn_reader =
        |stream: Stream<T::Kind>| spawn(async move { stream.read(&mut [0; 1]).await });
    let readers = [0, 1, 2, 3].map(|_| spawn_reader(near.clone()));
    time::sleep(millis(10)).await;
    // The one that is parked, and one in the middle of the queue.
    readers[0].abort();
    readers[2].abort();
    far.write_all(b"ab").await.unwrap();
    let [first, second, third, fourth] = readers;
    assert!(first.await.unwrap_err().is_canceled());
    assert_eq!(second.await.unwrap().unwrap(), 1);
    assert!(third.await.unwrap_err().is_canceled());
    assert_eq!(fourth.await.unwrap().unwrap(), 1);
}

#[test]
fn readers_given_up_leave_the_queue_to_the_others() {
    over_streams(
        Clock::Virtual,
        given_up_in_the_queue::<Tcp4>,
        given_up_in_the_queue::<Tcp6>,
        given_up_in_the_queue::<UnixPath>,
    );
}

async fn given_up_accept<T: Transport>() {
    let listener = T::listen().await.unwrap();
    let timed = time::timeout(millis(10), T::accept(&listener)).await;
    assert!(timed.is_err(), "no dial had come");
    let _near = T::dial(&listener).await.unwrap();
    T::accept(&listener).await.unwrap();
}

#[test]
fn an_accept_given_up_loses_no_connection() {
    over_streams(
        Clock::Virtual,
        given_up_accept::<Tcp4>,
        given_up_accept::<Tcp6>,
        given_up_accept::<UnixPath>,
    );
}

/// Read and write at once, in one task, under one waker; and the loser of a race.
async fn both_in_one_task<T: Transport>() {
    let (near, far) = pair::<T>().await;
    let echo = echo(far);
    for _ in 0..10 {
        let mut buffer = vec![0; 300_000];
        let sent = noise(300_000);
        let (read, written) =
            future::zip(near.read_exact(&mut buffer), near.write_all(&sent)).await;
        read.unwrap();
        written.unwrap();
        assert!(buffer == sent);
        let loser = time::timeout(millis(1), near.read(&mut buffer)).await;
        assert!(loser.is_err());
    }
    near.close().unwrap();
    echo.await.unwrap();
}

#[test]
fn one_task_may_read_and_write_at_once() {
    over_streams(
        Clock::Virtual,
        both_in_one_task::<Tcp4>,
        both_in_one_task::<Tcp6>,
        both_in_one_task::<UnixPath>,
    );
}

/// Connections opened, parked in every way and dropped: counted afterwards.
#[test]
fn connections_dropped_mid_read_leave_nothing_behind() {
    watched("tcp4", || {
        let runtime = runtime(Clock::Real);
        runtime.block_on(async {
            let listener = Tcp4::listen().await.unwrap();
            for _ in 0..1000 {
                let (near, far) = connect::<Tcp4>(&listener).await;
                near.set_deadline(in_time(Duration::from_secs(3600)))
                    .unwrap();
                let [reader, queued, watcher] = [near.clone(), near.clone(), near.clone()];
                let parked = [
                    spawn(async move { reader.read(&mut [0]).await.map(drop) }),
                    spawn(async move { queued.read(&mut [0]).await.map(drop) }),
                    spawn(async move { watcher.hung_up().await }),
                ];
                let_others_park().await;
                for task in parked {
                    task.abort();
                    assert!(task.await.unwrap_err().is_canceled());
                }
                drop((near, far));
            }
        });
        let stats = runtime.stats();
        let left = (stats.descriptors, stats.tasks, stats.timers, stats.waiters);
        assert_eq!(left, (0, 0, 0, 0), "{stats:?}");
        assert!(stats.places < 100, "{stats:?}");
    });
}

/// What outlives its runtime fails instead of hanging.
#[test]
fn a_stream_that_outlives_its_runtime_says_closed() {
    watched("tcp4", || {
        let first = runtime(Clock::Real);
        let (near, far) = first.block_on(pair::<Tcp4>());
        drop(first);
        let second = runtime(Clock::Real);
        second.block_on(async {
            let error = near.read(&mut [0]).await.unwrap_err();
            assert!(error.is_closed(), "{error}");
            assert_closed(far.write_all(b"x").await);
        });
    });
}
