//! Writing to a stream: what the system takes, and what it refuses.

use std::io;
use std::time::Duration;

use netpoller::{Runtime, UnixStream, spawn, time, yield_now};

use crate::support::bytes::{noise, read_all};
use crate::support::counting::counting;
use crate::support::loopback::pair;
use crate::support::run::{run, run_in};
use crate::support::watchdog::watchdog;

#[test]
fn a_write_takes_what_the_kernel_takes_parks_and_goes_on_as_the_peer_reads() {
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

/// A half-close is reported for good (EPOLLRDHUP), and is no reason to try a write again.
#[test]
fn a_write_to_a_peer_that_has_half_closed_waits_for_room_and_keeps_no_loop_busy() {
    let (selector, counts) = counting();
    let runtime = Runtime::builder().selector(selector).build().unwrap();
    run_in(&runtime, async {
        let (server, client) = pair().await;
        let all = noise(24 << 20);
        client.close_write().unwrap();
        server.hung_up().await.unwrap();
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        let writing = spawn({
            let all = all.clone();
            async move {
                server.write_all(&all).await.unwrap();
                server.close().unwrap();
            }
        });
        while runtime.stats().waiters == 0 {
            yield_now().await;
        }
        let before = counts.netpolls();
        time::sleep(Duration::from_millis(50)).await;
        assert!(counts.netpolls() - before < 20, "it keeps the loop busy");
        assert!(!writing.is_finished());
        assert!(read_all(&client).await.unwrap() == all);
        writing.await.unwrap();
    });
}

/// A Unix peer's close is a hang-up of both directions, for good.
#[test]
fn a_unix_stream_whose_peer_has_gone_keeps_no_loop_busy_while_it_is_kept() {
    let (selector, counts) = counting();
    let runtime = Runtime::builder().selector(selector).build().unwrap();
    run_in(&runtime, async {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.close().unwrap();
        ours.hung_up().await.unwrap();
        assert_eq!(ours.read(&mut [0]).await.unwrap(), 0);
        let before = counts.netpolls();
        time::sleep(Duration::from_millis(50)).await;
        assert!(counts.netpolls() - before < 20, "it keeps the loop busy");
        let error = ours.write(b"?").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    });
}
