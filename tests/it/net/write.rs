//! Writing to a stream: what the system takes, and what it refuses.

use std::io;

use netpoller::{Runtime, spawn, yield_now};

use crate::support::loopback::pair;
use crate::support::run::run;
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
