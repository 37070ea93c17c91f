//! Invariant 8: a future that is dropped leaves no waiter, no timer, no descriptor, and loses no
//! byte. Counted by the runtime's own figures.
#![allow(
    clippy::async_yields_async,
    reason = "sleeps and handles are carried out of a runtime"
)]

use std::future::Future;
use std::io::Read;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_lite::future::poll_once;
use netpoller::{
    CancelError, CancelToken, NetError, Runtime, Stats, TcpListener, TcpStream, spawn, time,
    yield_now,
};

use crate::support::loopback::{pair, plain_pair, virtual_runtime};
use crate::support::run::turns;
use crate::support::wakers::each;
use crate::support::watchdog::watchdog;

const SECOND: Duration = Duration::from_secs(1);

fn assert_nothing_is_left(stats: Stats) {
    assert_eq!((stats.tasks, stats.descriptors), (0, 0), "{stats:?}");
    assert_eq!((stats.timers, stats.waiters), (0, 0), "{stats:?}");
    assert!(stats.places <= 128, "{stats:?}");
}

/// Polls once, as the task that runs, and gives up.
async fn give_up<T>(future: impl Future<Output = T>) {
    let mut future = Box::pin(future);
    std::future::poll_fn(|cx| {
        assert!(
            future.as_mut().poll(cx).is_pending(),
            "it had nothing to wait for"
        );
        Poll::Ready(())
    })
    .await;
}

mod invariant_8 {
    use super::*;

    #[test]
    fn a_thousand_connections_dropped_mid_read_leave_nothing() {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            for round in 0..1000 {
                let client = TcpStream::connect(address).await.unwrap();
                let (server, _) = listener.accept().await.unwrap();
                server
                    .set_deadline(Some(time::now() + Duration::from_secs(3600)))
                    .unwrap();
                match round % 5 {
                    0 => give_up(server.read(&mut [0; 8])).await,
                    1 => {
                        give_up(time::timeout(
                            Duration::from_secs(60),
                            server.read_with(|_| ()),
                        ))
                        .await
                    }
                    2 => {
                        let reader = spawn(async move { server.read(&mut [0; 8]).await });
                        yield_now().await;
                        reader.abort();
                    }
                    3 => give_up(each([async move { server.read(&mut [0; 8]).await }])).await,
                    _ => {
                        give_up(server.hung_up()).await;
                        give_up(server.read(&mut [0; 8])).await;
                        give_up(server.readable()).await;
                    }
                }
                drop(client);
            }
        });
        assert_nothing_is_left(runtime.stats());
    }

    #[test]
    fn every_kind_of_wait_that_is_given_up_leaves_no_waiter() {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let (server, client) = pair().await;
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let full = vec![0; 64 << 20];
            give_up(client.write_all(&full)).await;
            for _ in 0..3 {
                give_up(client.read(&mut [0; 8])).await;
                give_up(client.read_exact(&mut [0; 8])).await;
                give_up(client.read_with(|_| ())).await;
                give_up(client.hung_up()).await;
                give_up(client.write(b"!")).await;
                give_up(client.writable()).await;
                give_up(listener.accept()).await;
                give_up(time::sleep(Duration::from_secs(60))).await;
                give_up(spawn(time::sleep(Duration::ZERO))).await;
                // Behind one another in the queue of a direction.
                give_up(async {
                    futures_lite::future::zip(client.read(&mut [0; 1]), client.read(&mut [0; 1]))
                        .await
                })
                .await;
                assert_eq!(runtime.stats().waiters, 0);
            }
            drop(server);
        });
    }

    #[test]
    fn a_dropped_read_loses_no_byte_and_passes_its_turn_on() {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let (server, client) = pair().await;
            for _ in 0..200 {
                let mut lost = [0; 8];
                let mut first = Box::pin(server.read(&mut lost));
                let mut cx = Context::from_waker(Waker::noop());
                assert!(first.as_mut().poll(&mut cx).is_pending());
                let waiting = server.clone();
                let second = spawn(async move {
                    let mut byte = [0; 8];
                    waiting.read(&mut byte).await.unwrap();
                    byte[0]
                });
                yield_now().await;
                client.write_all(b"!").await.unwrap();
                // Its readiness has come and its waker was woken; then it is dropped.
                for _ in 0..3 {
                    yield_now().await;
                }
                drop(first);
                assert_eq!(second.await.unwrap(), b'!');
            }
        });
    }

    #[test]
    fn an_accept_given_up_loses_no_connection() {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            for _ in 0..50 {
                give_up(listener.accept()).await;
                let client = TcpStream::connect(address).await.unwrap();
                let (server, peer) = listener.accept().await.unwrap();
                assert_eq!(peer, client.local_addr().unwrap());
                drop(server);
            }
        });
        assert_nothing_is_left(runtime.stats());
    }

    #[test]
    fn a_read_that_parked_at_once_may_be_given_up_moved_and_closed() {
        let _watchdog = watchdog();
        let runtime = virtual_runtime();
        runtime.block_on(async {
            let (server, client) = pair().await;
            // From here on nothing is known to be ready, and a read parks without a try.
            client.write_all(b"1").await.unwrap();
            assert_eq!(server.read_with(<[u8]>::len).await.unwrap(), 1);

            let given_up = waiting(&server).await;
            let mut queued = Box::pin(waiting(&server).await);
            drop(given_up);
            client.write_all(b"12").await.unwrap();
            assert_eq!(queued.as_mut().await.unwrap(), 2, "the next in the queue");

            let given_up = waiting(&server).await;
            client.write_all(b"123").await.unwrap();
            time::sleep(Duration::from_millis(1)).await;
            drop(given_up);
            let got = server.read_with(<[u8]>::len).await.unwrap();
            assert_eq!(got, 3, "woken, and given up before it ran");

            let moved = waiting(&server).await;
            client.write_all(b"1234").await.unwrap();
            let got = each([moved]).await.pop().unwrap().unwrap();
            assert_eq!(got, 4, "moved below another executor");

            let moved = waiting(&server).await;
            let join = spawn(moved);
            yield_now().await;
            client.write_all(b"12345").await.unwrap();
            assert_eq!(join.await.unwrap().unwrap(), 5, "moved to another task");

            let mut moved = Box::pin(waiting(&server).await);
            let mut cx = Context::from_waker(Waker::noop());
            assert!(moved.as_mut().poll(&mut cx).is_pending());
            let join = spawn(moved);
            yield_now().await;
            client.write_all(b"123456").await.unwrap();
            assert_eq!(join.await.unwrap().unwrap(), 6, "there and back");

            let expires = waiting(&server).await;
            server
                .set_read_deadline(Some(time::now() + Duration::from_secs(1)))
                .unwrap();
            assert!(expires.await.unwrap_err().is_timeout());
            server.set_read_deadline(None).unwrap();

            let closed = waiting(&server).await;
            let queued = waiting(&server).await;
            server.close().unwrap();
            assert!(closed.await.unwrap_err().is_closed());
            assert!(queued.await.unwrap_err().is_closed());
        });
        assert_nothing_is_left(runtime.stats());
    }

    #[test]
    fn a_read_given_up_before_its_timeout_costs_the_next_one_no_time() {
        let _watchdog = watchdog();
        virtual_runtime().block_on(async {
            let millis = Duration::from_millis;
            let (server, client) = pair().await;
            let (start, mut byte) = (time::now(), [0]);
            // By a timeout around it, and by a deadline of the stream, which passes meanwhile.
            give_up(time::timeout(millis(500), server.read(&mut byte))).await;
            server.set_read_deadline(Some(start + millis(600))).unwrap();
            give_up(server.read(&mut byte)).await;
            time::sleep(millis(700)).await;
            server
                .set_read_deadline(Some(start + millis(1_000)))
                .unwrap();
            let reading = server.clone();
            let reading = spawn(async move { reading.read(&mut [0]).await });
            time::sleep(millis(200)).await;
            client.write_all(b"!").await.unwrap();
            assert_eq!(reading.await.unwrap().unwrap(), 1);
            assert_eq!(time::now(), start + millis(900));
        });
    }
}

// ---- futures that are never dropped ----

/// Polls once, as the task that runs, and forgets it: its destructor never runs.
async fn forget<T>(future: impl Future<Output = T>) {
    let mut future = Box::pin(future);
    assert!(poll_once(future.as_mut()).await.is_none());
    std::mem::forget(future);
}

#[test]
fn a_read_that_was_forgotten_keeps_its_turn_and_no_socket_open() {
    let _watchdog = watchdog();
    let runtime = virtual_runtime();
    runtime.block_on(async {
        let (server, client) = pair().await;
        forget(server.read(&mut [0; 8])).await;
        client.write_all(b"!").await.unwrap();
        // The next reader queues behind it, as behind any that is not polled, up to its deadline.
        let start = time::now();
        server.set_read_deadline(Some(start + SECOND)).unwrap();
        assert!(server.read(&mut [0; 8]).await.unwrap_err().is_timeout());
        assert_eq!(time::now(), start + SECOND);
        server.set_read_deadline(None).unwrap();
        // The other direction works, and a try, which does not queue.
        server.write_all(b"?").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
        assert_eq!(server.try_read(&mut [0; 8]).unwrap(), 1);
        let waiting = server.clone();
        let queued = spawn(async move { waiting.read(&mut [0; 8]).await });
        yield_now().await;
        server.close().unwrap();
        assert!(queued.await.unwrap().unwrap_err().is_closed());
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    });
    assert_eq!(runtime.stats().descriptors, 0);
}

#[test]
fn an_accept_that_was_forgotten_keeps_no_port_and_no_other_accept_for_ever() {
    let _watchdog = watchdog();
    let runtime = virtual_runtime();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        forget(listener.accept()).await;
        let start = time::now();
        listener.set_deadline(Some(start + SECOND)).unwrap();
        assert!(listener.accept().await.unwrap_err().is_timeout());
        assert_eq!(time::now(), start + SECOND);
        listener.close().unwrap();
        assert!(listener.accept().await.unwrap_err().is_closed());
        // Its port is free.
        TcpListener::bind(address).await.unwrap();
    });
    assert_eq!(runtime.stats().descriptors, 0);
}

#[test]
fn a_sleep_and_a_wait_for_a_scope_that_were_forgotten_hold_up_nothing() {
    let _watchdog = watchdog();
    let runtime = virtual_runtime();
    runtime.block_on(async {
        let scope = CancelToken::new();
        let start = time::now();
        forget(time::sleep(SECOND)).await;
        forget(scope.canceled()).await;
        forget(scope.with_timeout(SECOND).run(std::future::pending::<()>())).await;
        // The timers fire, and others end in time.
        time::sleep(2 * SECOND).await;
        assert_eq!(time::now(), start + 2 * SECOND);
        let running = scope.child();
        let running = spawn(async move { running.run(std::future::pending::<()>()).await });
        yield_now().await;
        scope.cancel();
        assert_eq!(running.await.unwrap(), Err(CancelError::Canceled));
    });
    let stats = runtime.stats();
    assert_eq!((stats.tasks, stats.timers), (0, 0), "{stats:?}");
}

#[test]
fn a_runtime_ends_and_closes_its_sockets_beside_futures_that_were_forgotten() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (ours, mut theirs) = plain_pair(&runtime);
    let scope = CancelToken::new();
    let forgotten = scope.clone();
    let task = runtime.spawn(async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        forget(listener.accept()).await;
        forget(ours.read(&mut [0; 8])).await;
        forget(time::sleep(SECOND)).await;
        forget(forgotten.canceled()).await;
        // It parks beside what it has forgotten.
        ours.write_all(b"!").await.unwrap();
        std::future::pending::<()>().await;
    });
    turns(&runtime);
    theirs.read_exact(&mut [0]).unwrap();
    drop(runtime);
    assert!(task.is_finished());
    assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
    scope.cancel();
}

/// A read of this stream, polled once and found waiting, by the waker of the task that runs.
async fn waiting(stream: &TcpStream) -> impl Future<Output = std::io::Result<usize>> + 'static {
    let stream = stream.clone();
    let mut read = Box::pin(async move { stream.read_with(<[u8]>::len).await });
    std::future::poll_fn(|cx| {
        assert!(read.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    read
}
