//! Fairness of each operation: a loop of ready operations yields, and what else is due happens
//! beside it.

use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use netpoller::{
    CancelError, CancelToken, Dialer, ListenConfig, NetError, TcpListener, TcpStream, UdpSocket,
    UnixDatagram, UnixListener, UnixStream, spawn, time, yield_now,
};

use crate::support::loopback::pair;
use crate::support::run::run;
use crate::support::stall::stall;

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
    panic!("no other task ran");
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
        stall(2 * millisecond);
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
async fn ends_beside_always_ready<T>(end: impl Future<Output = T>) -> T {
    let mut end = pin!(end);
    for _ in 0..100 {
        let mut busy = pin!(always_ready());
        let ended = poll_fn(|cx| {
            assert!(busy.as_mut().poll(cx).is_pending());
            Poll::Ready(end.as_mut().poll(cx))
        });
        if let Poll::Ready(ended) = ended.await {
            return ended;
        }
        yield_now().await;
    }
    panic!("it never ended");
}

#[test]
fn what_has_ended_or_passed_is_reported_beside_a_future_that_is_always_ready() {
    run(async {
        let token = CancelToken::new();
        let late = token.with_deadline(time::now());
        token.cancel();
        ends_beside_always_ready(time::sleep(Duration::ZERO)).await;
        ends_beside_always_ready(token.canceled()).await;
        ends_beside_always_ready(late.canceled()).await;
        let (server, client) = pair().await;
        client.close().unwrap();
        server.hung_up().await.unwrap();
        ends_beside_always_ready(server.hung_up()).await.unwrap();
        server.set_deadline(Some(time::now())).unwrap();
        let late = ends_beside_always_ready(server.read(&mut [0])).await;
        assert!(late.unwrap_err().is_timeout());
    });
}

#[test]
fn what_is_ready_is_done_beside_a_future_that_is_always_ready() {
    run(async {
        let (server, client) = pair().await;
        for round in 0..10 {
            ends_beside_always_ready(client.write_all(b"ping"))
                .await
                .unwrap();
            let mut ping = [0; 4];
            let read = ends_beside_always_ready(server.read_exact(&mut ping));
            read.await.unwrap();
            ends_beside_always_ready(server.write(b"pong"))
                .await
                .unwrap();
            let heard = match round % 2 {
                0 => ends_beside_always_ready(client.read_with(<[u8]>::len)).await,
                _ => ends_beside_always_ready(client.read(&mut [0; 8])).await,
            };
            assert_eq!(heard.unwrap(), 4);
        }
        // Given up after it has yielded, it leaves the direction to the next.
        let mut given_up = Box::pin(server.write(b"x"));
        {
            let mut busy = pin!(always_ready());
            poll_fn(|cx| {
                assert!(busy.as_mut().poll(cx).is_pending());
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
fn a_timeout_ends_a_future_that_is_always_ready() {
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

#[test]
fn a_loop_that_joins_tasks_that_have_ended_yields() {
    run(yields_in_its_turn(async || {
        let task = spawn(pending::<()>());
        task.abort();
        task.await.unwrap_err();
    }));
}

#[test]
fn a_loop_that_dials_or_listens_on_a_network_that_does_not_exist_yields() {
    run(async {
        let dialer = Dialer::new().network("none");
        yields_in_its_turn(async || dialer.dial("127.0.0.1:1").await.unwrap_err()).await;
        let config = ListenConfig::new().network("none");
        yields_in_its_turn(async || config.bind("127.0.0.1:0").await.unwrap_err()).await;
    });
}
