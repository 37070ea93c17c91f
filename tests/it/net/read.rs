//! Reading from a stream: what there is, the end, and errors.

use std::io;
use std::rc::Rc;

use netpoller::{NetError, Runtime, spawn, yield_now};

use crate::support::bytes::{read, read_all};
use crate::support::loopback::{pair, plain_pair};
use crate::support::random::Random;
use crate::support::run::run;
use crate::support::watchdog::watchdog;

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
        let mut random = Random::new(4);
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
fn a_parked_read_with_reports_a_reset_and_no_end_of_file() {
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
fn a_read_into_memory_that_is_not_initialised_gives_what_it_filled() {
    run(async {
        let (ours, theirs) = pair().await;
        let mut vec: Vec<u8> = Vec::with_capacity(64);
        assert_eq!(ours.read_uninit(&mut []).await.unwrap(), b"");
        theirs.write_all(b"hello").await.unwrap();
        let filled = ours.read_uninit(vec.spare_capacity_mut()).await.unwrap();
        assert_eq!(filled, b"hello");
        filled.reverse();
        theirs.close().unwrap();
        let end = ours.read_uninit(vec.spare_capacity_mut()).await.unwrap();
        assert!(end.is_empty());
        ours.close().unwrap();
        let error = ours
            .read_uninit(vec.spare_capacity_mut())
            .await
            .unwrap_err();
        assert!(error.is_closed());
    });
}
