//! Reading from a stream: what there is, the end, and errors.

use std::io::{self, Write};
use std::rc::Rc;
use std::time::Duration;

use netpoller::{Runtime, spawn, time, yield_now};

use crate::support::bytes::{read, read_all};
use crate::support::faulty;
use crate::support::loopback::{pair, plain_pair, virtual_runtime};
use crate::support::run::run;
use crate::support::watchdog::watchdog;

const NOW: Option<Duration> = Some(Duration::ZERO);

#[test]
fn nothing_to_read_parks_the_task_and_not_the_thread() {
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
fn a_read_gives_what_is_there_up_to_its_room() {
    run(async {
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
fn sixteen_mib_through_a_buffer_of_512_kib_arrive_in_order_and_then_the_end() {
    run(async {
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
fn a_peer_that_closed_gives_its_data_first_and_then_the_end_for_ever() {
    run(async {
        for data in [&b""[..], b"data unread"] {
            let (server, client) = pair().await;
            client.write_all(data).await.unwrap();
            client.close().unwrap();
            server.hung_up().await.unwrap();
            assert_eq!(read_all(&server).await.unwrap(), data);
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
fn a_reset_with_data_unread_reaches_the_reader_as_an_error() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (stream, mut peer) = plain_pair(&runtime);
    runtime.block_on(async {
        let reading = stream.clone();
        let parked = spawn(async move {
            let error = read_all(&reading).await.unwrap_err();
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
