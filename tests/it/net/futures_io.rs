//! The futures-io traits: futures-lite's helpers work on our streams, and polls don't disturb our
//! own operations.

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_io::{AsyncRead, AsyncWrite};
use futures_lite::future::{self, poll_once};
use futures_lite::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use netpoller::{NetError, TcpStream, UnixStream, spawn, time, yield_now};

use crate::support::loopback::pair;
use crate::support::run::{run, run_virtual};
use crate::support::schedule::virtual_runtime;
use crate::support::wakers::Counter;

fn fill(stream: &TcpStream) -> usize {
    let mut sent = 0;
    while let Ok(gone) = stream.try_write(&[0; 65536]) {
        sent += gone;
    }
    sent
}

fn poll_read(mut stream: &TcpStream, waker: &Waker, into: &mut [u8]) -> Poll<io::Result<usize>> {
    Pin::new(&mut stream).poll_read(&mut Context::from_waker(waker), into)
}

fn poll_write(mut stream: &TcpStream, waker: &Waker, bytes: &[u8]) -> Poll<io::Result<usize>> {
    Pin::new(&mut stream).poll_write(&mut Context::from_waker(waker), bytes)
}

/// Yields until `counter` was woken.
async fn until_woken(counter: &Counter) {
    while counter.count() == 0 {
        yield_now().await;
    }
}

// ---- helpers ----

async fn exchange_lines<S: AsyncRead + AsyncWrite + Unpin>(mut one: S, other: S) {
    one.write_all(b"one\ntwo\n").await.unwrap();
    one.flush().await.unwrap();
    let mut other = BufReader::new(other);
    let mut line = String::new();
    other.read_line(&mut line).await.unwrap();
    assert_eq!(line, "one\n");
    line.clear();
    other.read_line(&mut line).await.unwrap();
    assert_eq!(line, "two\n");
    line.clear();
    one.close().await.unwrap();
    one.close().await.unwrap();
    assert_eq!(other.read_line(&mut line).await.unwrap(), 0);
    other.get_mut().write_all(b"answer").await.unwrap();
    other.get_mut().close().await.unwrap();
    let mut answer = String::new();
    one.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "answer");
    // Both ways are shut by now.
    one.close().await.unwrap();
}

#[test]
fn helpers_work_on_streams_and_on_references_to_them() {
    run(async {
        let (other, one) = pair().await;
        exchange_lines(one, other).await;
        let (other, one) = pair().await;
        exchange_lines(&one, &other).await;
        let (one, other) = UnixStream::pair().unwrap();
        exchange_lines(one, other).await;
        let (one, other) = UnixStream::pair().unwrap();
        exchange_lines(&one, &other).await;
    });
}

#[test]
fn copy_and_split_carry_megabytes_both_ways() {
    run(async {
        let (server, client) = pair().await;
        let echo = spawn(async move { futures_lite::io::copy(&server, &server).await.unwrap() });
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n * 7 / 3) as u8).collect();
        let (mut reading, mut writing) = futures_lite::io::split(client.clone());
        let write = async {
            writing.write_all(&sent).await.unwrap();
            client.close_write().unwrap();
        };
        let mut back = Vec::new();
        let (_, read) = future::zip(write, reading.read_to_end(&mut back)).await;
        assert_eq!(read.unwrap(), sent.len());
        assert!(back == sent);
        assert_eq!(echo.await.unwrap(), sent.len() as u64);
    });
}

#[test]
fn vectored_reads_and_writes_fill_one_buffer_after_the_other() {
    run(async {
        let (mut one, mut other) = pair().await;
        let bytes = [IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cde")];
        assert_eq!(one.write_vectored(&bytes).await.unwrap(), 5);
        let (mut first, mut rest) = ([0; 3], [0; 9]);
        let mut buffers = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut rest)];
        let read = poll_fn(|cx| Pin::new(&mut other).poll_read_vectored(cx, &mut buffers));
        assert_eq!(read.await.unwrap(), 5);
        assert_eq!((&first, &rest[..2]), (b"abc", &b"de"[..]));
        assert_eq!(AsyncWriteExt::write(&mut one, &[]).await.unwrap(), 0);
        assert_eq!(AsyncReadExt::read(&mut other, &mut []).await.unwrap(), 0);
    });
}

// ---- polls among themselves ----

#[test]
fn the_last_poll_wins_and_the_earlier_waker_is_dropped() {
    run(async {
        let (server, client) = pair().await;
        let (first, second) = (Arc::new(Counter::default()), Arc::new(Counter::default()));
        assert!(poll_read(&server, &first.clone().into(), &mut [0]).is_pending());
        assert!(poll_read(&server, &second.clone().into(), &mut [0]).is_pending());
        assert_eq!(Arc::strong_count(&first), 1, "its waker is kept");
        client.write_all(b"x").await.unwrap();
        until_woken(&second).await;
        assert_eq!(first.count(), 0);
        let waker = second.clone().into();
        assert!(matches!(
            poll_read(&server, &waker, &mut [0]),
            Poll::Ready(Ok(1))
        ));
        drop(waker);
        assert_eq!(Arc::strong_count(&second), 1, "its waker is kept");
    });
}

#[test]
fn a_polling_reader_and_writer_are_woken_separately() {
    run(async {
        let (server, client) = pair().await;
        fill(&client);
        let (reader, writer) = (Arc::new(Counter::default()), Arc::new(Counter::default()));
        assert!(poll_read(&client, &reader.clone().into(), &mut [0]).is_pending());
        assert!(poll_write(&client, &writer.clone().into(), b"x").is_pending());
        server.write_all(b"y").await.unwrap();
        until_woken(&reader).await;
        assert_eq!(writer.count(), 0);
        while writer.count() == 0 {
            server.read_with(|_| ()).await.unwrap();
        }
    });
}

#[test]
fn deadlines_and_closing_wake_a_polled_read() {
    let runtime = virtual_runtime();
    runtime.block_on(async {
        let (_client, mut server) = pair().await;
        let deadline = time::now() + Duration::from_secs(5);
        server.set_read_deadline(Some(deadline)).unwrap();
        let error = AsyncReadExt::read(&mut server, &mut [0]).await.unwrap_err();
        assert!(error.is_timeout() && time::now() >= deadline);
        assert!(error.op_error().unwrap().addr.is_some());
        server.set_read_deadline(None).unwrap();
        let parked = spawn({
            let mut server = server.clone();
            async move { AsyncReadExt::read(&mut server, &mut [0]).await.unwrap_err() }
        });
        yield_now().await;
        server.clone().close().unwrap();
        assert!(parked.await.unwrap().is_closed());
        let error = AsyncWriteExt::close(&mut server).await.unwrap_err();
        assert!(error.is_closed());
    });
}

// ---- polls and our own operations ----

#[test]
fn poll_write_waits_while_a_write_all_holds_the_lock_and_comes_after_it() {
    const LENGTH: usize = 300_000;
    run(async {
        let (server, client) = pair().await;
        let filled = fill(&client);
        let whole = spawn({
            let client = client.clone();
            async move { client.write_all(&[1; LENGTH]).await.unwrap() }
        });
        yield_now().await;
        let polled = spawn({
            let mut client = client.clone();
            async move {
                AsyncWriteExt::write_all(&mut client, &[2; LENGTH])
                    .await
                    .unwrap();
                AsyncWriteExt::close(&mut client).await.unwrap();
            }
        });
        yield_now().await;
        let mut all = Vec::new();
        while server
            .read_with(|bytes| all.extend_from_slice(bytes))
            .await
            .is_ok()
        {
            if all.len() == filled + 2 * LENGTH {
                break;
            }
        }
        assert!(all[filled..][..LENGTH].iter().all(|&byte| byte == 1));
        assert!(all[filled + LENGTH..].iter().all(|&byte| byte == 2));
        whole.await.unwrap();
        polled.await.unwrap();
        assert_eq!(server.read_with(<[u8]>::len).await.unwrap(), 0);
    });
}

#[test]
fn poll_close_waits_for_a_write_all_to_end() {
    run(async {
        let (server, client) = pair().await;
        let filled = fill(&client);
        let whole = spawn({
            let client = client.clone();
            async move { client.write_all(&[1; 100_000]).await }
        });
        yield_now().await;
        let closing = spawn({
            let mut client = client.clone();
            async move { AsyncWriteExt::close(&mut client).await }
        });
        yield_now().await;
        let mut got = 0;
        loop {
            match server.read_with(<[u8]>::len).await.unwrap() {
                0 => break,
                more => got += more,
            }
        }
        assert_eq!(got, filled + 100_000);
        whole.await.unwrap().unwrap();
        closing.await.unwrap().unwrap();
    });
}

#[test]
fn an_operation_takes_over_from_a_polled_read_which_then_waits_its_turn() {
    run(async {
        let (server, client) = pair().await;
        let polled = spawn({
            let mut server = server.clone();
            async move {
                let mut bytes = [0; 9];
                let got = AsyncReadExt::read(&mut server, &mut bytes).await.unwrap();
                bytes[..got].to_vec()
            }
        });
        yield_now().await;
        let operation = spawn({
            let server = server.clone();
            async move {
                let mut bytes = [0; 4];
                server.read_exact(&mut bytes).await.unwrap();
                bytes
            }
        });
        yield_now().await;
        yield_now().await;
        client.write_all(b"12").await.unwrap();
        yield_now().await;
        client.write_all(b"34").await.unwrap();
        assert_eq!(&operation.await.unwrap(), b"1234");
        assert!(!polled.is_finished());
        client.write_all(b"56").await.unwrap();
        assert_eq!(polled.await.unwrap(), b"56");
    });
}

#[test]
fn read_with_takes_over_from_a_polled_read_too() {
    run(async {
        let (server, client) = pair().await;
        let gone = Arc::new(Counter::default());
        // Nothing is known to be ready when `read_with` comes: it parks without a try.
        assert!(poll_read(&server, &gone.clone().into(), &mut [0]).is_pending());
        let polled = spawn({
            let mut server = server.clone();
            async move { AsyncReadExt::read(&mut server, &mut [0; 9]).await.unwrap() }
        });
        yield_now().await;
        let lent = spawn({
            let server = server.clone();
            async move { server.read_with(<[u8]>::len).await.unwrap() }
        });
        yield_now().await;
        yield_now().await;
        client.write_all(b"12").await.unwrap();
        assert_eq!(lent.await.unwrap(), 2);
        assert!(!polled.is_finished());
        client.write_all(b"3").await.unwrap();
        assert_eq!(polled.await.unwrap(), 1);
    });
}

#[test]
fn an_operation_that_is_given_up_gives_the_slot_back_to_the_polled_read() {
    run(async {
        let (server, client) = pair().await;
        let polled = spawn({
            let mut server = server.clone();
            async move { AsyncReadExt::read(&mut server, &mut [0; 9]).await.unwrap() }
        });
        yield_now().await;
        let operation = spawn({
            let server = server.clone();
            async move { server.read(&mut [0]).await }
        });
        let queued = spawn({
            let server = server.clone();
            async move { server.read(&mut [0]).await }
        });
        yield_now().await;
        yield_now().await;
        operation.abort();
        yield_now().await;
        queued.abort();
        client.write_all(b"abc").await.unwrap();
        assert_eq!(polled.await.unwrap(), 3);
    });
}

#[test]
fn a_polled_read_that_is_given_up_holds_up_nothing() {
    run(async {
        let (server, client) = pair().await;
        let gone = Arc::new(Counter::default());
        assert!(poll_read(&server, &gone.clone().into(), &mut [0]).is_pending());
        let reader = spawn({
            let server = server.clone();
            async move { server.read(&mut [0; 9]).await.unwrap() }
        });
        yield_now().await;
        yield_now().await;
        assert_eq!(gone.count(), 1, "it lost its slot and must be woken");
        assert_eq!(Arc::strong_count(&gone), 1, "its waker is kept");
        client.write_all(b"abc").await.unwrap();
        assert_eq!(reader.await.unwrap(), 3);
    });
}

#[test]
fn a_polled_write_waits_for_the_lock_no_longer_than_its_deadline() {
    let runtime = virtual_runtime();
    runtime.block_on(async {
        // Its peer's buffer does not grow, as TCP's may.
        let (client, _server) = UnixStream::pair().unwrap();
        while client.try_write(&[0; 65536]).is_ok() {}
        let whole = spawn({
            let client = client.clone();
            async move { client.write_all(&[1; 10]).await.unwrap_err() }
        });
        yield_now().await;
        let deadline = time::now() + Duration::from_secs(5);
        client.set_write_deadline(Some(deadline)).unwrap();
        let mut polled = client.clone();
        let error = AsyncWriteExt::write(&mut polled, b"x").await.unwrap_err();
        assert!(error.is_timeout());
        assert!(whole.await.unwrap().is_timeout());
    });
}

#[test]
fn poll_close_waits_behind_a_write_that_is_not_polled_no_longer_than_its_deadline() {
    run_virtual(async {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let much = vec![0; 4 << 20];
        let mut holder = Box::pin(ours.write_all(&much));
        assert!(poll_once(holder.as_mut()).await.is_none());
        let mut closing = ours.clone();
        let closing = spawn(async move { AsyncWriteExt::close(&mut closing).await });
        yield_now().await;
        yield_now().await;
        let deadline = time::now() + Duration::from_secs(5);
        ours.set_write_deadline(Some(deadline)).unwrap();
        let ended = time::timeout(Duration::from_secs(3600), closing).await;
        let error = ended.expect("it waits still").unwrap().unwrap_err();
        assert!(error.is_timeout());
    });
}

#[test]
fn a_polled_write_heeds_its_deadline_behind_an_operation_that_is_not_polled() {
    run_virtual(async {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let much = vec![0; 4 << 20];
        let mut holder = Box::pin(ours.write_all(&much));
        assert!(poll_once(holder.as_mut()).await.is_none());
        let mut polling = ours.clone();
        let start = time::now();
        let polled = spawn(async move { AsyncWriteExt::write(&mut polling, b"x").await });
        yield_now().await;
        yield_now().await;
        let deadline = start + Duration::from_secs(5);
        ours.set_write_deadline(Some(deadline)).unwrap();
        let ended = time::timeout(Duration::from_secs(3600), polled).await;
        let error = ended.expect("it waits still").unwrap().unwrap_err();
        assert!(error.is_timeout());
        assert!(time::now() < deadline + Duration::from_secs(1));
    });
}

#[test]
fn polls_and_operations_that_compete_lose_no_byte() {
    const BYTES: usize = 20_000;
    run(async {
        let (server, client) = pair().await;
        let total = std::rc::Rc::new(std::cell::Cell::new(0));
        let readers: Vec<_> = (0..4)
            .map(|reader| {
                let (mut server, total) = (server.clone(), total.clone());
                spawn(async move {
                    let mut buffer = [0; 7];
                    loop {
                        let got = match reader {
                            0 => AsyncReadExt::read(&mut server, &mut buffer).await,
                            _ => server.read(&mut buffer).await,
                        };
                        match got.unwrap() {
                            0 => break,
                            got => total.set(total.get() + got),
                        }
                        yield_now().await;
                    }
                })
            })
            .collect();
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let mut client = client.clone();
                spawn(async move {
                    for n in 0..BYTES / 2 / 5 {
                        let bytes = [n as u8; 5];
                        match writer {
                            0 => AsyncWriteExt::write_all(&mut client, &bytes).await.unwrap(),
                            _ => client.write_all(&bytes).await.unwrap(),
                        }
                        if n % 16 == 0 {
                            yield_now().await;
                        }
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        client.close_write().unwrap();
        for reader in readers {
            reader.await.unwrap();
        }
        assert_eq!(total.get(), BYTES);
    });
}

#[test]
fn what_a_polled_write_wrote_arrives_without_a_flush() {
    run(async {
        let (server, client) = pair().await;
        AsyncWriteExt::write_all(&mut &server, b"unflushed")
            .await
            .unwrap();
        let mut got = [0; 9];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"unflushed");
    });
}

#[test]
fn the_waker_of_a_poll_that_yields_after_the_close_goes_with_the_stream() {
    let count = Arc::new(Counter::default());
    run(async {
        let (stream, _peer) = pair().await;
        stream.close().unwrap();
        let waker = count.clone().into();
        while poll_read(&stream, &waker, &mut [0]).is_ready() {}
        assert_eq!(count.count(), 1, "the budget is used up");
        drop((stream, waker));
        assert_eq!(Arc::strong_count(&count), 1);
    });
}
