//! TCP connections as a user sees them: rows R1–R6, T1, T6, C4 and C5, and the corners between.

use std::io::{Read, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use netpoller::{NetError, Runtime, TcpListener, TcpStream, spawn, time, yield_now};

use crate::support::faulty;
use crate::support::loopback;
use crate::support::watchdog;

use loopback::{pair, plain_pair, virtual_runtime};
use watchdog::watchdog;

const NOW: Option<Duration> = Some(Duration::ZERO);

fn block_on<T>(test: impl Future<Output = T>) -> T {
    let _watchdog = watchdog();
    Runtime::new().unwrap().block_on(test)
}

/// Everything up to the end of file.
async fn drain(stream: &TcpStream) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    while stream
        .read_with(|bytes| {
            all.extend_from_slice(bytes);
            !bytes.is_empty()
        })
        .await?
    {}
    Ok(all)
}

async fn read(stream: &TcpStream, room: usize) -> std::io::Result<Vec<u8>> {
    let mut buffer = vec![0; room];
    let got = stream.read(&mut buffer).await?;
    buffer.truncate(got);
    Ok(buffer)
}

// ---- reading and writing ----

#[test]
fn r1_nothing_to_read_parks_the_task_and_not_the_thread() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (stream, _peer) = plain_pair(&runtime);
    let parked = runtime.spawn(async move { read(&stream, 8).await });
    let other = runtime.spawn(async { 7 });
    assert_eq!(runtime.block_on(other).unwrap(), 7);
    assert!(!parked.is_finished());
    assert_eq!(runtime.stats().waiters, 1);
    assert_eq!(runtime.next_timeout(), None);
}

#[test]
fn r2_r3_a_read_gives_what_is_there_up_to_its_room() {
    block_on(async {
        let (server, client) = pair().await;
        client.write_all(b"12").await.unwrap();
        assert_eq!(read(&server, 10).await.unwrap(), b"12");
        client.write_all(b"123456789012345").await.unwrap();
        // All there, so that the first read is not a short one by chance.
        while server.peek(&mut [0; 16]).await.unwrap() < 15 {
            yield_now().await;
        }
        assert_eq!(read(&server, 10).await.unwrap(), b"1234567890");
        assert_eq!(read(&server, 10).await.unwrap(), b"12345");
    });
}

#[test]
fn r4_16_mib_through_a_512_kib_buffer_arrive_in_order_and_then_the_end() {
    block_on(async {
        let (server, client) = pair().await;
        let mut random = faulty::Random::new(4);
        let all: Rc<Vec<u8>> = Rc::new((0..16 << 20).map(|_| random.below(256) as u8).collect());
        let sent = all.clone();
        let writing = spawn(async move {
            client.write_all(&sent).await.unwrap();
            client.close().unwrap();
        });
        let (mut got, mut buffer) = (0, vec![0; 512 << 10]);
        loop {
            match server.read(&mut buffer).await.unwrap() {
                0 => break,
                more => {
                    assert!(all[got..got + more] == buffer[..more], "at {got}");
                    got += more;
                }
            }
        }
        assert_eq!(got, all.len());
        writing.await.unwrap();
    });
}

#[test]
fn r5_a_peer_that_closed_gives_its_data_first_and_then_the_end_for_ever() {
    block_on(async {
        for data in [&b""[..], b"data unread"] {
            let (server, client) = pair().await;
            client.write_all(data).await.unwrap();
            client.close().unwrap();
            server.hung_up().await.unwrap();
            assert_eq!(drain(&server).await.unwrap(), data);
            for _ in 0..3 {
                assert_eq!(read(&server, 8).await.unwrap(), b"");
                assert_eq!(server.try_read(&mut [0; 8]).unwrap(), 0);
            }
            let error = server.read_exact(&mut [0; 1]).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
        }
    });
}

#[test]
fn end_of_file_together_with_data_is_seen_by_a_reader_that_was_parked() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    for _ in 0..50 {
        let (stream, mut peer) = plain_pair(&runtime);
        let parked = runtime.spawn(async move {
            // Large enough that the read is short, and nothing is learnt by a full one.
            let first = read(&stream, 4096).await.unwrap();
            (first, read(&stream, 4096).await.unwrap())
        });
        runtime.turn(NOW).unwrap();
        peer.write_all(b"the last words").unwrap();
        drop(peer);
        let (first, end) = runtime.block_on(parked).unwrap();
        assert_eq!((&first[..], &end[..]), (&b"the last words"[..], &b""[..]));
    }
}

#[test]
fn r6_a_write_takes_what_the_kernel_takes_parks_and_goes_on_as_the_peer_reads() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let (server, client) = pair().await;
        let all = vec![5; 24 << 20];
        let length = all.len();
        let write = spawn(async move { client.write_all(&all).await });
        while runtime.stats().waiters == 0 {
            yield_now().await;
        }
        assert!(!write.is_finished());
        let (mut got, mut buffer) = (0, vec![0; 60_000]);
        while got < length {
            got += server.read(&mut buffer).await.unwrap();
        }
        write.await.unwrap().unwrap();
        assert_eq!(got, length);
    });
}

#[test]
fn a_reset_with_data_unread_reaches_the_reader_as_an_error() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (stream, mut peer) = plain_pair(&runtime);
    runtime.block_on(async {
        let reading = stream.clone();
        let parked = spawn(async move {
            let error = drain(&reading).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        });
        yield_now().await;
        // What the peer has not read when it closes makes the close a RST.
        stream.write_all(b"never read").await.unwrap();
        while peer.peek(&mut [0; 16]).unwrap() == 0 {}
        peer.write_all(b"some data first").unwrap();
        drop(peer);
        parked.await.unwrap();
        stream.hung_up().await.unwrap();
    });
}

#[test]
fn reads_of_nothing_return_at_once() {
    let _watchdog = watchdog();
    virtual_runtime().block_on(async {
        let (server, _client) = pair().await;
        let waited = time::timeout(Duration::from_secs(1), server.read(&mut [0; 8])).await;
        assert!(waited.is_err());
        // Nothing has come, and that is known by now.
        let hour = Duration::from_secs(3600);
        assert_eq!(
            time::timeout(hour, server.read(&mut []))
                .await
                .unwrap()
                .unwrap(),
            0
        );
        time::timeout(hour, server.read_exact(&mut []))
            .await
            .unwrap()
            .unwrap();
    });
}

// ---- listening and parting ----

#[test]
fn t1_a_listener_tells_its_port_frees_it_on_close_and_wakes_a_parked_accept() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_ne!(address.port(), 0);
        let accepting = listener.clone();
        let parked = spawn(async move { accepting.accept().await.map(drop) });
        yield_now().await;
        listener.close().unwrap();
        let again = std::net::TcpListener::bind(address).expect("the port is free");
        drop(again);
        let error = parked.await.unwrap().unwrap_err();
        assert!(error.is_closed());
        assert!(
            error
                .to_string()
                .ends_with("use of closed network connection"),
            "{error}"
        );
        assert!(listener.close().unwrap_err().is_closed());
        assert!(listener.accept().await.unwrap_err().is_closed());
    });
}

#[test]
fn t6_dial_then_close_ends_the_session_on_both_sides() {
    block_on(async {
        let (server, client) = pair().await;
        client.close().unwrap();
        assert_eq!(read(&server, 8).await.unwrap(), b"");
        let (ours, theirs) = (server.local_addr().unwrap(), server.peer_addr().unwrap());
        server.close().unwrap();
        if let Ok(table) = std::fs::read_to_string("/proc/net/tcp") {
            let ports = [ours, theirs].map(|end| format!(":{:04X}", end.port()));
            const CLOSE_WAIT: &str = " 08 ";
            let waits = |line: &&str| {
                line.contains(CLOSE_WAIT) && ports.iter().all(|port| line.contains(port))
            };
            assert_eq!(table.lines().find(waits), None);
        }
    });
}

#[test]
fn c4_after_close_write_the_peer_reads_the_end_and_still_answers() {
    block_on(async {
        let (server, client) = pair().await;
        client.write_all(b"question").await.unwrap();
        client.close_write().unwrap();
        assert_eq!(drain(&server).await.unwrap(), b"question");
        server.write_all(b"answer").await.unwrap();
        server.close().unwrap();
        assert_eq!(drain(&client).await.unwrap(), b"answer");
        assert!(client.write_all(b"!").await.is_err());
    });
}

#[test]
fn c4_close_read_ends_a_parked_read() {
    block_on(async {
        let (server, client) = pair().await;
        let reading = server.clone();
        let parked = spawn(async move { read(&reading, 8).await });
        yield_now().await;
        server.close_read().unwrap();
        assert_eq!(parked.await.unwrap().unwrap(), b"");
        server.write_all(b"still writing").await.unwrap();
        assert_eq!(read(&client, 64).await.unwrap(), b"still writing");
    });
}

#[test]
fn c5_invariant_5_close_wakes_whoever_is_parked_and_closes_once_and_for_all() {
    block_on(async {
        let (server, client) = pair().await;
        let (one, two, three, four) = (
            server.clone(),
            server.clone(),
            server.clone(),
            server.clone(),
        );
        let reads = spawn(async move { read(&one, 8).await.unwrap_err() });
        let queued = spawn(async move { read(&two, 8).await.unwrap_err() });
        let writes = spawn(async move { three.write_all(&vec![0; 64 << 20]).await.unwrap_err() });
        let watches = spawn(async move { four.hung_up().await.unwrap_err() });
        time::sleep(Duration::from_millis(5)).await;
        server.close().unwrap();
        for task in [reads, queued, writes, watches] {
            let error = task.await.unwrap();
            assert!(error.is_closed() && !error.is_timeout(), "{error}");
        }
        // A deadline does not bring it back.
        assert!(
            server
                .set_deadline(Some(Instant::now()))
                .unwrap_err()
                .is_closed()
        );
        assert!(server.set_deadline(None).unwrap_err().is_closed());
        assert!(read(&server, 8).await.unwrap_err().is_closed());
        assert!(server.close().unwrap_err().is_closed());
        drop(client);
    });
}

// ---- within one batch of events ----

#[test]
fn invariant_5_a_close_within_the_same_batch_of_events_is_seen_by_those_that_are_to_run() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let ends = [0, 1].map(|_| plain_pair(&runtime));
    let streams = Rc::new(ends.each_ref().map(|(stream, _)| stream.clone()));
    // Whoever runs first closes the other, whose readiness is in the same batch.
    let tasks = [0, 1].map(|own| {
        let streams = streams.clone();
        runtime.spawn(async move {
            let got = read(&streams[own], 8).await;
            let _ = streams[1 - own].close();
            got
        })
    });
    runtime.turn(NOW).unwrap();
    for (_, peer) in &ends {
        (&*peer).write_all(b"both").unwrap();
    }
    let [one, two] = tasks.map(|task| runtime.block_on(task).unwrap());
    let (served, closed) = if one.is_ok() { (one, two) } else { (two, one) };
    assert_eq!(served.unwrap(), b"both");
    assert!(closed.unwrap_err().is_closed());
}

#[test]
fn invariant_2_a_connection_in_a_reused_slot_hears_nothing_of_the_one_before() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (trigger, mut pull) = plain_pair(&runtime);
    for _ in 0..100 {
        let (old, mut peer) = plain_pair(&runtime);
        let held = old.clone();
        let first = trigger.clone();
        // In one turn: the trigger's task closes the old one, whose own readiness is in the batch
        // already, and opens another in its slot.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let swap = runtime.spawn(async move {
            read(&first, 1).await.unwrap();
            let _ = held.close();
            let new = TcpStream::connect(address).await.unwrap();
            let heard = time::timeout(Duration::from_millis(1), read(&new, 8)).await;
            assert!(heard.is_err(), "not its own: {heard:?}");
        });
        let reader = runtime.spawn(async move { read(&old, 8).await });
        runtime.turn(NOW).unwrap();
        pull.write_all(b"!").unwrap();
        peer.write_all(b"stale").unwrap();
        runtime.block_on(swap).unwrap();
        let _ = runtime.block_on(reader).unwrap();
        drop(listener);
        let _ = peer.read(&mut [0; 1]);
    }
}
