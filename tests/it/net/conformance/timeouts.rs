//! Operations that must return at their deadline, those that must not, and how punctual they are.
//!
//! Mirrors Go's `net/timeout_test.go`, for accepting, reading and writing (dialling is in
//! `tests/it/net/dial/`, datagrams in `tests/it/net/datagram.rs`).

use std::io;
use std::time::{Duration, Instant};

use netpoller::net::Stream;
use netpoller::{JoinHandle, NetError, spawn, time};

use super::transport::*;

// ---- accepting ----

async fn accept_in_the_past<T: Transport>() {
    let listener = T::listen().await.unwrap();
    let _waiting = T::dial(&listener).await.unwrap();
    listener.set_deadline(a_long_time_ago()).unwrap();
    assert_timeout(T::accept(&listener).await.map(drop));
    // The connection is still in the queue.
    listener.set_deadline(None).unwrap();
    T::accept(&listener).await.unwrap();
}

#[test]
fn accept_times_out_in_the_past_even_with_a_connection_waiting() {
    over_streams(
        Clock::Real,
        accept_in_the_past::<Tcp4>,
        accept_in_the_past::<Tcp6>,
        accept_in_the_past::<UnixPath>,
    );
}

async fn accept_must_return<T: Transport>() {
    let listener = T::listen().await.unwrap();
    listener.set_deadline(None).unwrap();
    let start = time::now();
    listener.set_deadline(in_time(millis(10))).unwrap();
    assert_timeout(T::accept(&listener).await.map(drop));
    assert_eq!(time::now() - start, millis(10));
    assert_timeout(T::accept(&listener).await.map(drop));
}

#[test]
fn accept_must_return_at_its_deadline() {
    over_streams(
        Clock::Virtual,
        accept_must_return::<Tcp4>,
        accept_must_return::<Tcp6>,
        accept_must_return::<UnixPath>,
    );
}

async fn accept_must_not_return<T: Transport>() {
    let listener = T::listen().await.unwrap();
    listener.set_deadline(a_long_time_ago()).unwrap();
    listener.set_deadline(None).unwrap();
    let accepting = spawn({
        let listener = listener.clone();
        async move { T::accept(&listener).await.map(drop) }
    });
    time::sleep(millis(100)).await;
    assert!(
        !accepting.is_finished(),
        "accept returned without a deadline"
    );
    listener.close().unwrap();
    assert_closed(accepting.await.unwrap());
}

#[test]
fn accept_must_not_return_once_its_deadline_is_cleared() {
    over_streams(
        Clock::Virtual,
        accept_must_not_return::<Tcp4>,
        accept_must_not_return::<Tcp6>,
        accept_must_not_return::<UnixPath>,
    );
}

// ---- reading ----

async fn read_timeout<T: Transport>() {
    let (near, far) = pair::<T>().await;
    far.write_all(b"READ TIMEOUT TEST").await.unwrap();
    near.readable().await.unwrap();
    let mut byte = [0];
    near.set_read_deadline(a_long_time_ago()).unwrap();
    assert_timeout(near.read(&mut byte).await);
    assert_timeout(near.read(&mut byte).await);
    assert_timeout(near.read_with(<[u8]>::len).await);
    assert_timeout(near.readable().await);
    assert_timeout(near.try_read(&mut byte));
    near.set_read_deadline(in_time(millis(50))).unwrap();
    for expected in b"READ TIMEOUT TEST" {
        assert_eq!(near.read(&mut byte).await.unwrap(), 1);
        assert_eq!(byte[0], *expected);
    }
    assert_timeout(near.read(&mut byte).await);
    assert_timeout(near.read(&mut byte).await);
}

#[test]
fn a_read_past_its_deadline_fails_even_with_data_waiting() {
    over_streams(
        Clock::Virtual,
        read_timeout::<Tcp4>,
        read_timeout::<Tcp6>,
        read_timeout::<UnixPath>,
    );
}

/// Runs for 100 ms in which nothing happens, then closes; it must have waited till then.
async fn must_not_return<K>(stream: Stream<K>, operation: JoinHandle<io::Result<()>>) {
    time::sleep(millis(100)).await;
    assert!(!operation.is_finished(), "returned without a deadline");
    stream.close().unwrap();
    assert_closed(operation.await.unwrap());
}

async fn read_must_not_return<T: Transport>() {
    let (near, _far) = pair::<T>().await;
    near.set_deadline(a_long_time_ago()).unwrap();
    near.set_write_deadline(a_long_time_ago()).unwrap();
    near.set_read_deadline(None).unwrap();
    let reader = near.clone();
    let reading = spawn(async move { reader.read(&mut [0]).await.map(drop) });
    must_not_return(near, reading).await;
}

#[test]
fn a_read_must_not_return_once_its_deadline_is_cleared() {
    over_streams(
        Clock::Virtual,
        read_must_not_return::<Tcp4>,
        read_must_not_return::<Tcp6>,
        read_must_not_return::<UnixPath>,
    );
}

// ---- writing ----

async fn write_timeout<T: Transport>() {
    let (near, _far) = pair::<T>().await;
    near.set_write_deadline(a_long_time_ago()).unwrap();
    assert_timeout(near.write(b"WRITE TIMEOUT TEST").await);
    assert_timeout(near.write_all(b"WRITE TIMEOUT TEST").await);
    assert_timeout(near.try_write(b"WRITE TIMEOUT TEST"));
    assert_timeout(near.writable().await);
    near.set_write_deadline(in_time(millis(10))).unwrap();
    near.write_all(b"WRITE TIMEOUT TEST").await.unwrap();
    time::sleep(millis(10)).await;
    assert_timeout(near.write_all(b"WRITE TIMEOUT TEST").await);
}

#[test]
fn a_write_past_its_deadline_fails_even_with_room() {
    over_streams(
        Clock::Virtual,
        write_timeout::<Tcp4>,
        write_timeout::<Tcp6>,
        write_timeout::<UnixPath>,
    );
}

async fn write_must_not_return<T: Transport>() {
    let (near, _far) = pair::<T>().await;
    near.set_deadline(a_long_time_ago()).unwrap();
    near.set_read_deadline(a_long_time_ago()).unwrap();
    near.set_write_deadline(None).unwrap();
    let writer = near.clone();
    let writing = spawn(async move { writer.write_all(&vec![0; PLENTY]).await });
    must_not_return(near, writing).await;
}

#[test]
fn a_write_must_not_return_once_its_deadline_is_cleared() {
    over_streams(
        Clock::Virtual,
        write_must_not_return::<Tcp4>,
        write_must_not_return::<Tcp6>,
        write_must_not_return::<UnixPath>,
    );
}

// ---- how punctual ----

const WAITS: [Duration; 10] = [
    Duration::from_nanos(1),
    Duration::from_micros(1),
    Duration::from_micros(1500),
    millis(1),
    millis(2),
    millis(50),
    millis(63),
    millis(500),
    millis(4000),
    Duration::from_secs(3600),
];

/// Never early, and late by the tick that deadlines are rounded up to.
#[track_caller]
fn assert_punctual(start: Instant, wait: Duration) {
    let took = time::now() - start;
    assert!(took >= wait, "{took:?} is before {wait:?}");
    assert!(took <= wait + millis(1), "{took:?} is long after {wait:?}");
}

async fn read_timeout_fluctuation<T: Transport>() {
    let (near, _far) = pair::<T>().await;
    for wait in WAITS {
        let start = time::now();
        near.set_read_deadline(Some(start + wait)).unwrap();
        assert_timeout(near.read(&mut [0; 256]).await);
        assert_punctual(start, wait);
    }
}

#[test]
fn reads_time_out_on_time() {
    over_streams(
        Clock::Virtual,
        read_timeout_fluctuation::<Tcp4>,
        read_timeout_fluctuation::<Tcp6>,
        read_timeout_fluctuation::<UnixPath>,
    );
}

async fn write_timeout_fluctuation<T: Transport>() {
    let (near, _far) = pair::<T>().await;
    for wait in WAITS {
        let start = time::now();
        near.set_write_deadline(Some(start + wait)).unwrap();
        let result = loop {
            let written = near.write(b"TIMEOUT TRANSMITTER").await;
            if written.is_err() {
                break written;
            }
        };
        assert_timeout(result);
        assert_punctual(start, wait);
    }
}

#[test]
fn writes_time_out_on_time() {
    over_streams(
        Clock::Virtual,
        write_timeout_fluctuation::<Tcp4>,
        write_timeout_fluctuation::<Tcp6>,
        write_timeout_fluctuation::<UnixPath>,
    );
}

/// On the real clock: how late it is depends on the machine, but early is early.
async fn various_deadlines<T: Transport>() {
    let listener = T::listen().await.unwrap();
    let nanos = [
        1, 2, 5, 50, 100, 200, 500, 750, 1_000, 5_000, 25_000, 250_000,
    ];
    let longer = [500_000, 1_000_000, 5_000_000, 20_000_000];
    for timeout in nanos.into_iter().chain(longer).map(Duration::from_nanos) {
        let (near, _far) = connect::<T>(&listener).await;
        let start = Instant::now();
        near.set_deadline(Some(start + timeout)).unwrap();
        let error = read_to_end(&near).await.unwrap_err();
        let took = start.elapsed();
        assert!(error.is_timeout(), "{timeout:?}: {error}");
        assert!(took >= timeout, "{took:?} is before {timeout:?}");
    }
}

#[test]
fn whatever_the_deadline_it_is_kept_and_never_early() {
    over_streams(
        Clock::Real,
        various_deadlines::<Tcp4>,
        various_deadlines::<Tcp6>,
        various_deadlines::<UnixPath>,
    );
}

/// Both directions move their deadlines by an hour before each operation.
async fn prolonged<T: Transport>() {
    const ROUNDS: usize = 1000;
    let (near, far) = pair::<T>().await;
    let reader = far.clone();
    let reading = spawn(async move {
        for _ in 0..ROUNDS {
            reader
                .set_read_deadline(in_time(Duration::from_secs(3600)))
                .unwrap();
            assert_eq!(reader.read(&mut [0]).await.unwrap(), 1);
        }
        assert_eq!(reader.read(&mut [0]).await.unwrap(), 0);
    });
    let writing = spawn(async move {
        for _ in 0..ROUNDS {
            far.set_write_deadline(in_time(Duration::from_secs(3600)))
                .unwrap();
            assert_eq!(far.write(&[0]).await.unwrap(), 1);
        }
    });
    for _ in 0..ROUNDS {
        near.write_all(&[0]).await.unwrap();
        near.read_exact(&mut [0]).await.unwrap();
    }
    near.close().unwrap();
    reading.await.unwrap();
    writing.await.unwrap();
}

#[test]
fn deadlines_pushed_before_every_operation_never_fire() {
    over_streams(
        Clock::Real,
        prolonged::<Tcp4>,
        prolonged::<Tcp6>,
        prolonged::<UnixPath>,
    );
}
