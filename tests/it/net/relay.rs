//! Relaying: both directions, to their ends, whatever the ends are.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_io::{AsyncRead, AsyncWrite};
use futures_lite::future::poll_once;
use futures_lite::io::Cursor;
use netpoller::net::{self, Relay};
use netpoller::{Heartbeat, NetError, TcpStream, spawn, time, yield_now};

use crate::support::bytes::read_all;
use crate::support::loopback::pair;
use crate::support::run::{run, run_virtual};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_relay_carries_half_close_across_and_counts_both_ways() {
    run(async {
        let (a, client) = pair().await;
        let (server, b) = pair().await;
        let relay = spawn(async move { net::copy_bidirectional(&a, &b).await });
        let serving = spawn(async move {
            let asked = read_all(&server).await.unwrap();
            server
                .write_all(b"an answer after the question's end")
                .await
                .unwrap();
            asked
        });
        client.write_all(b"a question").await.unwrap();
        client.close_write().unwrap();
        assert_eq!(read_all(&client).await.unwrap().len(), 34);
        assert_eq!(serving.await.unwrap(), b"a question");
        assert_eq!(relay.await.unwrap().unwrap(), (10, 34));
        // Both sides are closed in the end, as the relay's streams are dropped.
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    });
}

#[test]
fn a_half_close_waits_for_a_write_under_way_and_is_not_lost_by_a_heartbeat_beside_it() {
    run(async {
        let (a, client) = pair().await;
        let (server, b) = pair().await;
        let (writer, beats) = (b.clone(), b.clone());
        let relay = spawn(async move { net::copy_bidirectional(&a, &b).await });
        // More than there is room for.
        let writing = spawn(async move { writer.write_all(&vec![7; 16 << 20]).await });
        // It is under way.
        server.peek(&mut [0]).await.unwrap();
        client.close_write().unwrap();
        time::sleep(Duration::from_millis(20)).await;
        let _beats = Heartbeat::start(&beats, Duration::from_millis(1));
        time::sleep(Duration::from_millis(20)).await;
        let all = time::timeout(10 * SECOND, read_all(&server)).await;
        assert_eq!(all.expect("no end").unwrap().len(), 16 << 20);
        writing.await.unwrap().unwrap();
        server.close().unwrap();
        assert_eq!(relay.await.unwrap().unwrap(), (0, 0));
    });
}

#[test]
fn a_half_close_waits_behind_a_write_that_is_not_polled_no_longer_than_its_deadline() {
    run_virtual(async {
        let (a, client) = pair().await;
        let (_server, b) = pair().await;
        let sink = b.clone();
        let much = vec![0; 16 << 20];
        let mut holder = Box::pin(sink.write_all(&much));
        assert!(poll_once(holder.as_mut()).await.is_none());
        let relay = Relay::new().linger(SECOND);
        let relay = spawn(async move { relay.run(&a, &b).await });
        client.close_write().unwrap();
        let deadline = time::now() + 5 * SECOND;
        sink.set_write_deadline(Some(deadline)).unwrap();
        let ended = time::timeout(3600 * SECOND, relay).await;
        let error = ended.expect("it waits still").unwrap().unwrap_err();
        assert!(error.is_timeout());
        assert_eq!(error.op_error().unwrap().op, "close");
    });
}

/// Whether an answer is passed on that came together with a reset, after so many parts of a request.
async fn is_answered_after(parts: usize) -> bool {
    let (front, client) = pair().await;
    let (server, back) = pair().await;
    let relay = spawn(async move { net::copy_bidirectional(&front, &back).await });
    let mut seen = [0; 64];
    for part in 1..=parts {
        client.write_all(b"part").await.unwrap();
        // It arrives, and is not taken out: a close with input unread is a reset.
        while server.peek(&mut seen).await.unwrap() < 4 * part {
            yield_now().await;
        }
    }
    // All of this is there when the relay runs next, in whichever order it looks.
    client.try_write(b"more").unwrap();
    server.try_write(b"answer").unwrap();
    server.close().unwrap();
    let mut answer = [0; 6];
    let is_answered = client.read_exact(&mut answer).await.is_ok() && &answer == b"answer";
    assert!(
        relay.await.unwrap().is_err(),
        "the reset is reported in the end"
    );
    is_answered
}

#[test]
#[cfg(target_os = "linux")]
fn an_answer_that_came_before_a_reset_is_passed_on_whichever_direction_runs_first() {
    run(async {
        for parts in 1..=6 {
            assert!(is_answered_after(parts).await, "after {parts} parts");
        }
    });
}

#[test]
fn a_direction_that_fails_lets_the_other_run_to_its_end_and_is_reported_then() {
    run_virtual(async {
        let (a, client) = pair().await;
        let (server, b) = pair().await;
        a.set_read_deadline(Some(time::now() + SECOND)).unwrap();
        let start = time::now();
        let relay = spawn(async move { net::copy_bidirectional(&a, &b).await });
        client.write_all(b"question").await.unwrap();
        server.read_exact(&mut [0; 8]).await.unwrap();
        time::sleep(5 * SECOND).await;
        server.write_all(b"a late answer").await.unwrap();
        server.close().unwrap();
        assert_eq!(read_all(&client).await.unwrap(), b"a late answer");
        let error = relay.await.unwrap().unwrap_err();
        assert!(error.is_timeout(), "{error}");
        let error = error.op_error().unwrap();
        assert_eq!((error.op, error.written), ("read", 8));
        assert!(time::now() - start >= 5 * SECOND);
    });
}

#[test]
fn after_one_direction_has_failed_the_relay_lingers_for_the_other() {
    run_virtual(async {
        let (a, _client) = pair().await;
        let (_server, b) = pair().await;
        let start = time::now();
        a.set_read_deadline(Some(start + SECOND)).unwrap();
        let error = Relay::new().linger(SECOND).run(&a, &b).await.unwrap_err();
        assert!(error.is_timeout(), "{error}");
        let took = time::now() - start;
        assert!((2 * SECOND..3 * SECOND).contains(&took), "{took:?}");
    });
}

/// Relays between two connections whose far ends stay open and silent, until `end`.
async fn relay_until(end: impl FnOnce(TcpStream, TcpStream)) -> io::Error {
    let (a, client) = pair().await;
    let (_server, b) = pair().await;
    let (ours, theirs) = (a.clone(), client);
    let relay = spawn(async move { net::copy_bidirectional(&a, &b).await });
    yield_now().await;
    end(ours, theirs);
    relay.await.unwrap().unwrap_err()
}

#[test]
fn a_relay_whose_client_is_gone_ends_also_while_its_server_is_silent() {
    run(async {
        let reset = relay_until(|_, client| client.abort().unwrap()).await;
        assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
        let closed = relay_until(|ours, _client| ours.close().unwrap()).await;
        assert!(closed.is_closed(), "{closed}");
    });
}

#[test]
fn a_relay_lingers_while_bytes_come_and_no_longer() {
    run_virtual(async {
        let (a, client) = pair().await;
        let (server, b) = pair().await;
        let start = time::now();
        let relay = spawn(async move { Relay::new().linger(SECOND).run(&a, &b).await });
        client.close_write().unwrap();
        let serving = spawn(async move {
            for _ in 0..5 {
                time::sleep(SECOND / 2).await;
                server.write_all(b"pong").await.unwrap();
            }
            server
        });
        assert_eq!(relay.await.unwrap().unwrap(), (0, 20));
        let took = time::now() - start;
        assert!(took >= SECOND * 7 / 2 && took < SECOND * 4, "{took:?}");
        drop(serving);
    });
}

#[test]
fn a_relay_without_linger_waits_for_both_ends() {
    run_virtual(async {
        let (a, client) = pair().await;
        let (server, b) = pair().await;
        client.close().unwrap();
        let relay = time::timeout(3600 * SECOND, net::copy_bidirectional(&a, &b));
        assert!(relay.await.is_err());
        server.close().unwrap();
        net::copy_bidirectional(&a, &b).await.unwrap();
    });
}

#[test]
fn a_relay_lingers_for_a_sink_that_takes_little_at_a_time() {
    run_virtual(async {
        let (a, client) = pair().await;
        let (server, b) = pair().await;
        client.close_write().unwrap();
        client.set_read_buffer(64 << 10).unwrap();
        let answering = spawn(async move { server.write_all(&vec![7; 4 << 20]).await });
        let relay = spawn(async move { Relay::new().linger(SECOND).run(&a, &b).await });
        // Reads less in a second than must be free in the sink's buffer before it is writable.
        let mut buffer = vec![0; 32 << 10];
        let mut read = 0;
        while let Ok(got @ 1..) = client.read(&mut buffer).await {
            read += got;
            time::sleep(SECOND / 4).await;
        }
        assert_eq!(read, 4 << 20);
        answering.await.unwrap().unwrap();
        assert_eq!(relay.await.unwrap().unwrap(), (0, 4 << 20));
    });
}

#[test]
fn a_relay_that_lingers_in_vain_for_its_sink_reports_a_timeout() {
    run_virtual(async {
        let (a, client) = pair().await;
        let (server, b) = pair().await;
        server.close_write().unwrap();
        let flooding = spawn(async move {
            let _cut_off = client.write_all(&vec![b'x'; 32 << 20]).await;
        });
        let error = Relay::new().linger(SECOND).run(&a, &b).await.unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert!(error.op_error().unwrap().written > 0);
        flooding.abort();
    });
}

/// Is always readable and writable, and counts what is written to it.
#[derive(Default)]
struct AlwaysReady {
    written: Rc<Cell<usize>>,
}

impl AsyncRead for AlwaysReady {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buffer.len()))
    }
}

impl AsyncWrite for AlwaysReady {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written.set(self.written.get() + bytes.len());
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn neither_direction_of_a_relay_starves_the_other() {
    run(async {
        let (mut a, mut b) = (AlwaysReady::default(), AlwaysReady::default());
        let written = [a.written.clone(), b.written.clone()];
        let relay = spawn(async move { net::copy_bidirectional(&mut a, &mut b).await });
        while written.iter().map(|written| written.get()).sum::<usize>() < 64 << 20 {
            netpoller::yield_now().await;
        }
        for written in written {
            assert!(written.get() > 24 << 20, "{} of 64 MiB", written.get());
        }
        relay.abort();
    });
}

#[test]
fn a_stream_and_memory_can_be_relayed() {
    run(async {
        let (a, client) = pair().await;
        let mut memory = Cursor::new(b"answer".to_vec());
        client.close_write().unwrap();
        let moved = net::copy_bidirectional(&a, &mut memory).await.unwrap();
        assert_eq!(moved, (0, 6));
        assert_eq!(read_all(&client).await.unwrap(), b"answer");
    });
}
