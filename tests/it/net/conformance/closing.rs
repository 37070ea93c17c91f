//! Closing from here, half and whole; and operations of no bytes.
//!
//! Mirrors Go's `net/net_test.go` (CloseRead, CloseWrite, Close, ZeroByteRead), for streams and
//! their listeners.

use std::io;
use std::time::Duration;

use futures_lite::future::poll_once;
use netpoller::net::Stream;
use netpoller::{NetError, spawn, time};

use super::transport::*;

// ---- half ----

async fn close_read<T: Transport>() {
    let (near, far) = pair::<T>().await;
    let reader = near.clone();
    let reading = spawn(async move { reader.read(&mut [0]).await });
    time::sleep(millis(10)).await;
    near.close_read().unwrap();
    assert_eq!(reading.await.unwrap().unwrap(), 0);
    assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
    near.write_all(b"still writes").await.unwrap();
    let mut buffer = [0; 12];
    far.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"still writes");
}

#[test]
fn close_read_ends_reading_a_parked_read_too_and_leaves_writing() {
    over_streams(
        Clock::Virtual,
        close_read::<Tcp4>,
        close_read::<Tcp6>,
        close_read::<UnixPath>,
    );
}

async fn close_write<T: Transport>() {
    let (near, far) = pair::<T>().await;
    let answering = spawn(async move {
        assert_eq!(read_to_end(&far).await.unwrap(), b"question");
        far.write_all(b"answer").await.unwrap();
        far.close_write().unwrap();
        assert!(far.write(b"more").await.is_err());
    });
    near.write_all(b"question").await.unwrap();
    near.close_write().unwrap();
    assert_eq!(read_to_end(&near).await.unwrap(), b"answer");
    assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
    let error = near.write(b"more").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "{error}");
    answering.await.unwrap();
}

#[test]
fn close_write_is_end_of_file_there_and_the_answer_still_comes() {
    over_streams(
        Clock::Real,
        close_write::<Tcp4>,
        close_write::<Tcp6>,
        close_write::<UnixPath>,
    );
}

/// TCP only: of a Unix stream Linux reports no event for it, and in Go too the write then waits for
/// the peer.
async fn close_write_unblocks<T: Transport>() {
    let (near, _far) = pair::<T>().await;
    let writer = near.clone();
    let writing = spawn(async move { writer.write_all(&vec![0; PLENTY]).await });
    time::sleep(millis(10)).await;
    near.close_write().unwrap();
    let error = writing.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "{error}");
    assert!(error.op_error().unwrap().written > 0, "{error}");
}

#[test]
fn close_write_ends_a_parked_write() {
    by(Clock::Virtual, "tcp4", close_write_unblocks::<Tcp4>);
    by(Clock::Virtual, "tcp6", close_write_unblocks::<Tcp6>);
}

// ---- whole, on our side ----

async fn after_close<T: Transport>() {
    let (near, _far) = pair::<T>().await;
    let other = near.clone();
    near.close().unwrap();
    for handle in [near, other] {
        let closed = |result| assert_closed::<()>(result);
        closed(handle.read(&mut [0]).await.map(drop));
        closed(handle.read(&mut []).await.map(drop));
        closed(handle.read_with(|_| ()).await);
        closed(handle.read_exact(&mut [0]).await);
        closed(handle.peek(&mut [0]).await.map(drop));
        closed(handle.readable().await);
        closed(handle.try_read(&mut [0]).map(drop));
        closed(handle.write(b"x").await.map(drop));
        closed(handle.write_all(b"x").await);
        closed(handle.writable().await);
        closed(handle.try_write(b"x").map(drop));
        closed(handle.hung_up().await);
        closed(handle.set_deadline(in_time(Duration::from_secs(1))));
        closed(handle.set_read_deadline(None));
        closed(handle.set_write_deadline(None));
        closed(handle.close_read());
        closed(handle.close_write());
        closed(handle.close());
        closed(handle.abort());
    }
}

#[test]
fn after_close_every_operation_of_every_handle_says_closed() {
    over_streams(
        Clock::Real,
        after_close::<Tcp4>,
        after_close::<Tcp6>,
        after_close::<UnixPath>,
    );
}

async fn close_unblocks_all<T: Transport>() {
    let (near, _far) = pair::<T>().await;
    let start = time::now();
    let parked = [0, 1, 2].map(|_| {
        let (reader, writer, watcher) = (near.clone(), near.clone(), near.clone());
        [
            spawn(async move { reader.read(&mut [0]).await.map(drop) }),
            spawn(async move { writer.write_all(&vec![0; PLENTY]).await }),
            spawn(async move { watcher.hung_up().await }),
        ]
    });
    time::sleep(millis(10)).await;
    near.close().unwrap();
    // A close is final: this must not undo it.
    assert_closed(near.set_deadline(in_time(Duration::from_secs(1))));
    for task in parked.into_iter().flatten() {
        assert_closed(task.await.unwrap());
    }
    assert_eq!(
        time::now() - start,
        millis(10),
        "at once, not at some deadline"
    );
}

#[test]
fn close_ends_all_that_is_parked_or_queued_at_once() {
    over_streams(
        Clock::Virtual,
        close_unblocks_all::<Tcp4>,
        close_unblocks_all::<Tcp6>,
        close_unblocks_all::<UnixPath>,
    );
}

async fn listener_close<T: Transport>() {
    let listener = T::listen().await.unwrap();
    let accepting = [0, 1, 2].map(|_| {
        let listener = listener.clone();
        spawn(async move { T::accept(&listener).await.map(drop) })
    });
    time::sleep(millis(10)).await;
    listener.close().unwrap();
    for task in accepting {
        assert_closed(task.await.unwrap());
    }
    assert_closed(T::accept(&listener).await.map(drop));
    assert_closed(listener.set_deadline(None));
    assert_closed(listener.close());
}

#[test]
fn closing_a_listener_ends_every_accept() {
    over_streams(
        Clock::Virtual,
        listener_close::<Tcp4>,
        listener_close::<Tcp6>,
        listener_close::<UnixPath>,
    );
}

async fn dropped<T: Transport>() {
    let (near, far) = pair::<T>().await;
    let clone = near.clone();
    drop(near);
    clone
        .write_all(b"open as long as a handle is")
        .await
        .unwrap();
    drop(clone);
    assert_eq!(read_to_end(&far).await.unwrap().len(), 27);
}

#[test]
fn the_last_handle_dropped_closes() {
    over_streams(
        Clock::Real,
        dropped::<Tcp4>,
        dropped::<Tcp6>,
        dropped::<UnixPath>,
    );
}

async fn zero_bytes<T: Transport>() {
    let (near, far) = pair::<T>().await;
    assert_zero_bytes_return(&near).await;
    // The same when it is known that nothing is there, and no more is taken.
    while near.try_write(&[0; 1 << 16]).is_ok() {}
    assert!(poll_once(near.read(&mut [0])).await.is_none());
    assert_zero_bytes_return(&near).await;
    // The stream still learns of new bytes.
    far.write_all(b"!").await.unwrap();
    assert_eq!(near.read(&mut [0; 8]).await.unwrap(), 1);
    far.close().unwrap();
    assert_eq!(near.read(&mut []).await.unwrap(), 0);
    // As in Go, a write of nothing heeds its deadline, and a read of nothing does not.
    near.set_deadline(Some(time::now())).unwrap();
    assert_eq!(near.read(&mut []).await.unwrap(), 0);
    assert!(near.write(&[]).await.unwrap_err().is_timeout());
    assert!(near.write_all(&[]).await.unwrap_err().is_timeout());
}

async fn assert_zero_bytes_return<K>(stream: &Stream<K>) {
    let patience = millis(1000);
    let at_once = |result: Result<io::Result<usize>, _>| assert_eq!(result.unwrap().unwrap(), 0);
    at_once(time::timeout(patience, stream.read(&mut [])).await);
    at_once(time::timeout(patience, stream.read_vectored(&mut [])).await);
    at_once(time::timeout(patience, stream.peek(&mut [])).await);
    at_once(time::timeout(patience, stream.write(&[])).await);
    at_once(time::timeout(patience, stream.write_vectored(&[])).await);
    let exact = time::timeout(patience, stream.read_exact(&mut [])).await;
    at_once(exact.map(|result| result.map(|()| 0)));
    let all = time::timeout(patience, stream.write_all(&[])).await;
    at_once(all.map(|result| result.map(|()| 0)));
    assert_eq!(stream.try_read(&mut []).unwrap(), 0);
}

#[test]
fn reads_and_writes_of_zero_bytes_return_at_once() {
    over_streams(
        Clock::Real,
        zero_bytes::<Tcp4>,
        zero_bytes::<Tcp6>,
        zero_bytes::<UnixPath>,
    );
}
