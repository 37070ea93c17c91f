//! What once went wrong, and a reviewer found.

use crate::support as common;

use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::loopback::pair;
use common::wakers::{Counter, Rude};
use common::watchdog::watchdog;
use futures_lite::future::poll_once;
use netpoller::{
    CancelError, CancelToken, NetError, Runtime, TcpListener, TcpStream, ToAddr, UdpSocket,
    UnixDatagram, UnixListener, UnixStream, spawn, time, yield_now,
};

fn run<T>(future: impl Future<Output = T>) -> T {
    let _watchdog = watchdog();
    Runtime::new().unwrap().block_on(future)
}

// ---- errors that the system tells once ----

#[test]
fn a_parked_read_with_tells_of_a_reset_and_of_no_end_of_file() {
    run(async {
        let (server, client) = pair().await;
        let reader = server.clone();
        let reading = spawn(async move { reader.read_with(|bytes| bytes.len()).await });
        yield_now().await;
        client.abort().unwrap();
        let error = reading.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    });
}

#[test]
fn a_try_write_tells_of_a_reset_before_it_tells_of_a_broken_pipe() {
    run(async {
        let (server, client) = pair().await;
        client.abort().unwrap();
        server.hung_up().await.unwrap();
        let first = server.try_write(b"x").unwrap_err();
        assert_eq!(first.kind(), io::ErrorKind::ConnectionReset, "{first}");
        let second = server.try_write(b"x").unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::BrokenPipe, "{second}");
    });
}

// ---- closing ----

#[test]
fn a_close_wakes_those_who_queue_behind_an_operation_that_nobody_polls() {
    run(async {
        let (server, _client) = pair().await;
        let mut byte = [0];
        let mut stalled = Box::pin(server.read(&mut byte));
        assert!(poll_once(stalled.as_mut()).await.is_none());
        let queued = [(); 3].map(|()| {
            let server = server.clone();
            spawn(async move { server.read(&mut [0]).await })
        });
        yield_now().await;
        server.close().unwrap();
        for queued in queued {
            assert!(queued.await.unwrap().unwrap_err().is_closed());
        }
        assert!(stalled.await.unwrap_err().is_closed());
    });
}

#[test]
fn an_operation_that_had_been_granted_the_lock_may_go_after_a_close() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let (server, _client) = pair().await;
        let (mut one, mut two, mut three) = ([0], [0], [0]);
        let mut first = Box::pin(server.read(&mut one));
        let mut second = Box::pin(server.read(&mut two));
        let mut third = Box::pin(server.read(&mut three));
        assert!(poll_once(first.as_mut()).await.is_none());
        assert!(poll_once(second.as_mut()).await.is_none());
        assert!(poll_once(third.as_mut()).await.is_none());
        drop(first);
        server.close().unwrap();
        drop(second);
        assert!(third.await.unwrap_err().is_closed());
    });
    assert_eq!(runtime.stats().waiters, 0);
}

#[test]
fn a_waker_that_panics_keeps_no_close_from_its_end_and_nobody_else_from_waking() {
    let runtime = Runtime::new().unwrap();
    let (rude, counter) = (Waker::from(Arc::new(Rude)), Arc::new(Counter::default()));
    let counted = Waker::from(counter.clone());
    runtime.block_on(async {
        let (server, _client) = pair().await;
        let mut byte = [0];
        let mut read = Box::pin(server.read(&mut byte));
        let mut end = Box::pin(server.hung_up());
        assert!(
            read.as_mut()
                .poll(&mut Context::from_waker(&rude))
                .is_pending()
        );
        assert!(
            end.as_mut()
                .poll(&mut Context::from_waker(&counted))
                .is_pending()
        );
        let closed = catch_unwind(AssertUnwindSafe(|| server.close()));
        closed.expect("a stranger's panic").unwrap();
    });
    assert_eq!(counter.count(), 1);
    assert_eq!(runtime.stats().descriptors, 0);
}

#[test]
fn a_waker_that_panics_keeps_nobody_else_from_learning_that_a_scope_has_ended() {
    let (rude, counter) = (Waker::from(Arc::new(Rude)), Arc::new(Counter::default()));
    let counted = Waker::from(counter.clone());
    let token = CancelToken::new();
    let (mut first, mut second) = (Box::pin(token.canceled()), Box::pin(token.canceled()));
    assert!(
        first
            .as_mut()
            .poll(&mut Context::from_waker(&rude))
            .is_pending()
    );
    assert!(
        second
            .as_mut()
            .poll(&mut Context::from_waker(&counted))
            .is_pending()
    );
    token.cancel();
    assert_eq!(counter.count(), 1);
}

// ---- nothing asked for, nothing waited for ----

#[test]
fn reading_or_writing_exactly_nothing_queues_behind_nobody() {
    run(async {
        let (server, _client) = pair().await;
        let mut byte = [0];
        let mut read = Box::pin(server.read(&mut byte));
        assert!(poll_once(read.as_mut()).await.is_none());
        let much = vec![0; 64 << 20];
        let mut write = Box::pin(server.write_all(&much));
        assert!(poll_once(write.as_mut()).await.is_none());
        server.read_exact(&mut []).await.unwrap();
        server.write_all(&[]).await.unwrap();
    });
}

// ---- fairness ----

/// Repeats what is always ready until another task has run: it must yield long before the end.
async fn yields_in_its_turn<T>(always_ready: impl AsyncFn() -> T) {
    let others = Rc::new(Cell::new(false));
    let seen = others.clone();
    drop(spawn(async move { seen.set(true) }));
    for _ in 0..100_000 {
        if others.get() {
            return;
        }
        always_ready().await;
    }
    panic!("nobody else had a turn");
}

#[test]
fn a_loop_of_sleeps_that_are_over_yields() {
    run(yields_in_its_turn(|| time::sleep(Duration::ZERO)));
}

#[test]
fn a_loop_on_a_closed_listener_yields() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.close().unwrap();
        yields_in_its_turn(|| listener.accept()).await;
    });
}

#[test]
fn a_loop_of_reads_past_their_deadline_yields() {
    run(async {
        let (server, _client) = pair().await;
        server.set_deadline(Some(time::now())).unwrap();
        yields_in_its_turn(async || server.read(&mut [0]).await.unwrap_err()).await;
    });
}

#[test]
fn a_loop_of_writes_that_fail_yields() {
    run(async {
        let (server, client) = pair().await;
        client.abort().unwrap();
        server.hung_up().await.unwrap();
        yields_in_its_turn(|| server.write(b"x")).await;
    });
}

#[test]
fn a_loop_of_hang_ups_yields() {
    run(async {
        let (server, client) = pair().await;
        client.close().unwrap();
        yields_in_its_turn(|| server.hung_up()).await;
    });
}

#[test]
fn a_loop_of_empty_read_exacts_and_write_alls_yields() {
    run(async {
        let (server, _client) = pair().await;
        yields_in_its_turn(async || server.read_exact(&mut []).await).await;
        yields_in_its_turn(|| server.write_all(b"")).await;
    });
}

#[test]
fn a_loop_of_dials_that_are_refused_yields() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    run(yields_in_its_turn(async || {
        TcpStream::connect(address).await.is_err()
    }));
}

#[test]
fn a_loop_of_waits_for_a_datagram_socket_that_is_ready_yields() {
    run(async {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(socket.local_addr().unwrap()).await.unwrap();
        socket.send(b"to itself").await.unwrap();
        yields_in_its_turn(|| socket.readable()).await;
        yields_in_its_turn(|| socket.writable()).await;
    });
}

#[test]
fn a_loop_of_messages_that_can_not_be_sent_yields() {
    run(async {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let own = socket.local_addr().unwrap();
        socket.connect(own).await.unwrap();
        yields_in_its_turn(async || socket.send_to(b"x", own).await.unwrap_err()).await;
        let (socket, _peer) = UnixDatagram::pair().unwrap();
        yields_in_its_turn(async || socket.send_to(b"x", "/").await.unwrap_err()).await;
        let socket = UnixDatagram::unbound().unwrap();
        let path = "x".repeat(200);
        yields_in_its_turn(async || socket.send_to(b"x", &path).await.unwrap_err()).await;
    });
}

#[test]
fn a_loop_of_dials_and_binds_that_fail_yields() {
    run(async {
        yields_in_its_turn(async || UnixStream::connect("/none/here").await.unwrap_err()).await;
        yields_in_its_turn(async || UnixListener::bind("/none/here").await.unwrap_err()).await;
        yields_in_its_turn(async || UnixDatagram::bind("/none/here").await.unwrap_err()).await;
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let taken = taken.local_addr().unwrap();
        yields_in_its_turn(async || TcpStream::connect("no port").await.unwrap_err()).await;
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        yields_in_its_turn(async || socket.connect("no port").await.unwrap_err()).await;
        let used = socket.local_addr().unwrap();
        yields_in_its_turn(async || UdpSocket::bind(used).await.unwrap_err()).await;
        yields_in_its_turn(async || TcpListener::bind(taken).await.is_err()).await;
    });
}

#[test]
fn a_loop_on_a_scope_that_has_ended_yields() {
    let token = CancelToken::new();
    token.cancel();
    run(yields_in_its_turn(|| token.canceled()));
}

#[test]
fn a_loop_of_runs_in_a_scope_that_has_ended_yields() {
    let token = CancelToken::new();
    token.cancel();
    run(yields_in_its_turn(|| token.run(pending::<()>())));
}

#[test]
fn a_loop_of_a_sleep_that_is_reset_to_what_has_passed_yields() {
    run(async {
        let millisecond = Duration::from_millis(1);
        let mut sleep = time::sleep(millisecond);
        (&mut sleep).await;
        // From here on a millisecond after the loop's time has passed.
        std::thread::sleep(2 * millisecond);
        let sleep = Cell::new(Some(sleep));
        yields_in_its_turn(async || {
            let mut it = sleep.take().expect("it was put back");
            it.reset(time::now() + millisecond);
            (&mut it).await;
            sleep.set(Some(it));
        })
        .await;
    });
}

async fn always_ready() {
    loop {
        time::sleep(Duration::ZERO).await;
    }
}

/// Polls a future once a turn, beside and after one that uses up the machine's budget.
async fn ends_beside_a_firehose<T>(end: impl Future<Output = T>) -> T {
    let mut end = pin!(end);
    for _ in 0..100 {
        let mut hose = pin!(always_ready());
        let ended = poll_fn(|cx| {
            assert!(hose.as_mut().poll(cx).is_pending());
            Poll::Ready(end.as_mut().poll(cx))
        });
        if let Poll::Ready(ended) = ended.await {
            return ended;
        }
        yield_now().await;
    }
    panic!("it never came about");
}

#[test]
fn what_is_over_comes_about_beside_somebody_who_is_always_ready() {
    run(async {
        let token = CancelToken::new();
        let late = token.with_deadline(time::now());
        token.cancel();
        ends_beside_a_firehose(time::sleep(Duration::ZERO)).await;
        ends_beside_a_firehose(token.canceled()).await;
        ends_beside_a_firehose(late.canceled()).await;
        let (server, client) = pair().await;
        client.close().unwrap();
        server.hung_up().await.unwrap();
        ends_beside_a_firehose(server.hung_up()).await.unwrap();
        server.set_deadline(Some(time::now())).unwrap();
        let late = ends_beside_a_firehose(server.read(&mut [0])).await;
        assert!(late.unwrap_err().is_timeout());
    });
}

#[test]
fn what_is_ready_is_done_beside_somebody_who_is_always_ready() {
    run(async {
        let (server, client) = pair().await;
        for round in 0..10 {
            ends_beside_a_firehose(client.write_all(b"ping"))
                .await
                .unwrap();
            let mut ping = [0; 4];
            let read = ends_beside_a_firehose(server.read_exact(&mut ping));
            read.await.unwrap();
            ends_beside_a_firehose(server.write(b"pong")).await.unwrap();
            let heard = match round % 2 {
                0 => ends_beside_a_firehose(client.read_with(<[u8]>::len)).await,
                _ => ends_beside_a_firehose(client.read(&mut [0; 8])).await,
            };
            assert_eq!(heard.unwrap(), 4);
        }
        // Given up after it has yielded, it leaves the direction to the next.
        let mut given_up = Box::pin(server.write(b"x"));
        {
            let mut hose = pin!(always_ready());
            poll_fn(|cx| {
                assert!(hose.as_mut().poll(cx).is_pending());
                assert!(given_up.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
        }
        drop(given_up);
        server.write_all(b"y").await.unwrap();
        assert_eq!(client.read_with(<[u8]>::to_vec).await.unwrap(), b"y");
    });
}

#[test]
fn a_limit_ends_somebody_who_is_always_ready() {
    run(async {
        let limited = time::timeout(Duration::ZERO, always_ready());
        assert!(limited.await.is_err());
        let token = CancelToken::new();
        let limited = token.with_timeout(Duration::from_micros(1));
        let ended = limited.run(always_ready()).await;
        assert_eq!(ended, Err(CancelError::DeadlineExceeded));
        let canceled = token.clone();
        drop(spawn(async move { canceled.cancel() }));
        let ended = token.run(always_ready()).await;
        assert_eq!(ended, Err(CancelError::Canceled));
    });
}

// ---- addresses ----

#[test]
fn a_pair_of_any_kind_of_host_and_port_is_an_address() {
    let expected = "127.0.0.1:80".to_addr();
    assert_eq!((std::net::Ipv4Addr::LOCALHOST, 80).to_addr(), expected);
    assert_eq!(("127.0.0.1", 80).to_addr(), expected);
    let expected = "[::1]:80".to_addr();
    assert_eq!((std::net::Ipv6Addr::LOCALHOST, 80).to_addr(), expected);
}
