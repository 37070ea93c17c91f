//! Many tasks on one connection: operations of one direction take turns.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_lite::future::poll_once;
use netpoller::{NetError, Runtime, TcpStream, UdpSocket, UnixStream, spawn, time, yield_now};

use crate::support::loopback::pair;
use crate::support::run::{run, run_in, run_virtual};
use crate::support::schedule::virtual_runtime;

fn fill(stream: &TcpStream) {
    while stream.try_write(&[0; 65536]).is_ok() {}
}

#[test]
fn packets_of_many_writers_never_interleave() {
    const WRITERS: u8 = 8;
    const PACKETS: usize = 6;
    const LENGTH: usize = 200_000;
    let runtime = Runtime::new().unwrap();
    run_in(&runtime, async {
        let (server, client) = pair().await;
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let client = client.clone();
                spawn(async move {
                    for _ in 0..PACKETS {
                        client.write_all(&vec![writer; LENGTH]).await.unwrap();
                    }
                })
            })
            .collect();
        let mut packet = vec![0; LENGTH];
        let mut from = [0; WRITERS as usize];
        for _ in 0..usize::from(WRITERS) * PACKETS {
            server.read_exact(&mut packet).await.unwrap();
            assert!(packet.iter().all(|&byte| byte == packet[0]));
            from[usize::from(packet[0])] += 1;
        }
        assert_eq!(from, [PACKETS; WRITERS as usize]);
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

#[test]
fn readers_are_served_in_the_order_they_came_and_no_byte_twice() {
    let runtime = Runtime::new().unwrap();
    run_in(&runtime, async {
        let (server, client) = pair().await;
        let served = Rc::new(RefCell::new(Vec::new()));
        let readers: Vec<_> = (0..5)
            .map(|reader| {
                let (server, served) = (server.clone(), served.clone());
                spawn(async move {
                    let mut bytes = [0; 2];
                    server.read_exact(&mut bytes).await.unwrap();
                    served.borrow_mut().push((reader, bytes));
                })
            })
            .collect();
        yield_now().await;
        yield_now().await;
        for byte in 0..10_u8 {
            client.write_all(&[byte]).await.unwrap();
            yield_now().await;
        }
        for reader in readers {
            reader.await.unwrap();
        }
        let expected: Vec<_> = (0..5_u8).map(|n| (n, [2 * n, 2 * n + 1])).collect();
        assert_eq!(*served.borrow(), expected);
    });
}

#[test]
fn waiters_that_are_dropped_leave_the_queue_and_hold_up_no_other() {
    let runtime = Runtime::new().unwrap();
    run_in(&runtime, async {
        let (server, client) = pair().await;
        yield_now().await;
        let idle = runtime.stats().waiters;
        let waits = |server: &TcpStream| {
            let server = server.clone();
            spawn(async move { server.read(&mut [0]).await.unwrap() })
        };
        let [first, second, third, fourth] = [(); 4].map(|()| waits(&server));
        yield_now().await;
        yield_now().await;
        assert_eq!(runtime.stats().waiters, idle + 4);
        // From the middle, from the head while it is parked, and just as its turn has come.
        second.abort();
        first.abort();
        yield_now().await;
        third.abort();
        client.write_all(b"x").await.unwrap();
        assert_eq!(fourth.await.unwrap(), 1);
        assert_eq!(runtime.stats().waiters, idle);
    });
}

#[test]
fn a_writer_given_up_half_way_lets_the_next_one_go_on() {
    let runtime = Runtime::new().unwrap();
    run_in(&runtime, async {
        let (server, client) = pair().await;
        fill(&client);
        let stuck = spawn({
            let client = client.clone();
            async move { client.write_all(&[1; 100]).await }
        });
        let next = spawn({
            let client = client.clone();
            async move { client.write_all(&[2; 100]).await }
        });
        yield_now().await;
        yield_now().await;
        stuck.abort();
        let reader = spawn(async move {
            let mut twos = 0;
            while twos < 100 {
                twos += server
                    .read_with(|bytes| bytes.iter().filter(|&&byte| byte == 2).count())
                    .await
                    .unwrap();
            }
        });
        next.await.unwrap().unwrap();
        reader.await.unwrap();
    });
}

#[test]
fn operations_on_no_bytes_return_at_once_with_nothing_to_read_and_no_room_to_write() {
    let runtime = Runtime::new().unwrap();
    run_in(&runtime, async {
        let (_server, client) = pair().await;
        // EAGAIN, both ways: nothing is known to be ready.
        assert_eq!(
            client.try_read(&mut [0]).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        fill(&client);
        assert_eq!(client.read(&mut []).await.unwrap(), 0);
        assert_eq!(client.peek(&mut []).await.unwrap(), 0);
        assert_eq!(client.read_vectored(&mut []).await.unwrap(), 0);
        client.read_exact(&mut []).await.unwrap();
        assert_eq!(client.write(&[]).await.unwrap(), 0);
        assert_eq!(client.write_vectored(&[]).await.unwrap(), 0);
        client.write_all(&[]).await.unwrap();
    });
}

#[test]
fn a_read_deadline_ends_the_reader_and_then_those_in_the_queue() {
    let runtime = virtual_runtime();
    runtime.block_on(async {
        let (server, _client) = pair().await;
        server
            .set_read_deadline(Some(time::now() + Duration::from_secs(5)))
            .unwrap();
        let ended = Rc::new(Cell::new(0));
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (server, ended) = (server.clone(), ended.clone());
                spawn(async move {
                    assert!(server.read(&mut [0]).await.unwrap_err().is_timeout());
                    ended.set(ended.get() + 1);
                })
            })
            .collect();
        for reader in readers {
            reader.await.unwrap();
        }
        assert_eq!(ended.get(), 3);
    });
}

#[test]
fn a_close_wakes_those_that_queue_behind_an_operation_that_is_not_polled() {
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
fn an_operation_that_had_been_granted_the_lock_may_be_dropped_after_a_close() {
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
fn reading_or_writing_exactly_nothing_does_not_queue() {
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

/// Ends with a timeout at the deadline, which was set to `DEADLINE` from `start`.
async fn times_out<T>(start: Instant, operation: impl Future<Output = io::Result<T>>) {
    let ended = time::timeout(Duration::from_secs(3600), operation).await;
    let Ok(Err(error)) = ended else {
        panic!("it succeeded, or waits still");
    };
    assert!(error.is_timeout(), "{error}");
    assert!(time::now() - start < 2 * DEADLINE, "it waited for longer");
}

const DEADLINE: Duration = Duration::from_millis(100);

#[test]
fn what_queues_behind_an_operation_that_is_not_polled_heeds_its_deadline() {
    run_virtual(async {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let much = vec![0; 4 << 20];
        let mut first = Box::pin(ours.write_all(&much));
        assert!(poll_once(first.as_mut()).await.is_none());
        let start = time::now();
        ours.set_write_deadline(Some(start + DEADLINE)).unwrap();
        times_out(start, ours.write_all(b"second")).await;
        // Passed already.
        times_out(start, ours.write(b"third")).await;

        let mut buffer = [0; 8];
        let mut first = Box::pin(ours.read(&mut buffer));
        assert!(poll_once(first.as_mut()).await.is_none());
        // It queues first, and the deadline is set afterwards, and moved.
        let start = time::now();
        let queued = ours.clone();
        let queued = spawn(async move { times_out(start, queued.read_with(|_| ())).await });
        yield_now().await;
        yield_now().await;
        ours.set_read_deadline(Some(start + 4 * DEADLINE)).unwrap();
        ours.set_read_deadline(Some(start + DEADLINE)).unwrap();
        queued.await.unwrap();

        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut message = [0; 8];
        let mut first = Box::pin(socket.recv_from(&mut message));
        assert!(poll_once(first.as_mut()).await.is_none());
        let start = time::now();
        let queued = socket.clone();
        let queued = spawn(async move {
            times_out(start, queued.recv_from(&mut [0; 8])).await;
        });
        yield_now().await;
        yield_now().await;
        // Set to the past.
        socket.set_read_deadline(Some(start)).unwrap();
        queued.await.unwrap();
    });
}

#[test]
fn what_queues_keeps_its_order_when_the_deadline_is_moved() {
    run_virtual(async {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut one, mut two) = ([0], [0]);
        let mut first = Box::pin(ours.read(&mut one));
        assert!(poll_once(first.as_mut()).await.is_none());
        let mut second = Box::pin(ours.read(&mut two));
        assert!(poll_once(second.as_mut()).await.is_none());
        ours.set_read_deadline(Some(time::now())).unwrap();
        // The deadline has passed, and neither was polled: once it is moved, both go on.
        ours.set_read_deadline(None).unwrap();
        theirs.write_all(b"12").await.unwrap();
        assert_eq!(first.await.unwrap(), 1);
        assert_eq!(second.await.unwrap(), 1);
        assert_eq!((one, two), (*b"1", *b"2"));
    });
}
