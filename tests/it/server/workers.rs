//! Servers: workers, limits, draining, stopping, and what they say they have done.

use crate::support::running;
use crate::support::watchdog;

use std::io::{self, Read, Write};
use std::net::TcpStream as StdStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use netpoller::{Conn, Dispatch, Limits, Protocol, Runtime, Server, ServerStats, TcpStream, time};
use running::{Echo, SECOND, counted, echo, rest, start};
use watchdog::watchdog;

#[test]
fn several_workers_serve_one_port_and_count_what_they_did() {
    let _watchdog = watchdog();
    let server = start(Server::new(|_| Echo).workers(3));
    let mut clients: Vec<_> = (0..60).map(|_| server.dial()).collect();
    for client in &mut clients {
        echo(client, b"hello");
        echo(client, &[7; 100_000]);
    }
    drop(clients);
    server.wait_for(|stats| stats.live() == 0);
    let stats = server.stop();
    assert_eq!(stats.workers.len(), 3);
    assert_eq!((stats.accepted(), stats.live()), (60, 0));
    assert_eq!(
        (stats.received(), stats.sent()),
        (60 * 100_005, 60 * 100_005)
    );
    assert!(stats.workers.iter().all(|worker| worker.turns > 0));
}

#[test]
fn the_limit_is_of_the_whole_server_and_taken_before_accepting() {
    let _watchdog = watchdog();
    let (server, most) = counted();
    let server = start(server.workers(2).max_connections(3));
    let mut waiting: Vec<_> = (0..20).map(|_| server.dial()).collect();
    for client in &waiting {
        client
            .set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        (&*client).write_all(b"x").unwrap();
    }
    // Each is served in the end, whichever worker it came to, as others go.
    while !waiting.is_empty() {
        waiting.retain(|mut client| client.read(&mut [0]).is_err());
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert_eq!(server.stop().accepted(), 20);
}

#[test]
fn what_may_wait_in_all_is_one_limit_for_all_workers() {
    const MIB: usize = 1 << 20;
    const REFUSED: u64 = 16;
    /// Sends so many MiB as the first byte says.
    struct Sends;
    impl Protocol for Sends {
        fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
            conn.with_fd(|fd| socket2::SockRef::from(&fd).set_send_buffer_size(1))?
        }
        fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
            conn.write(&vec![0; usize::from(bytes[0]) * MIB])?;
            Ok(bytes.len())
        }
    }
    let mut limits = Limits::default();
    limits.most_queued_in_all = 10 * MIB;
    let server = start(Server::new(|_| Sends).workers(2).limits(limits));
    let ask = |mib: u8| {
        let mut client = server.dial();
        client.write_all(&[mib]).unwrap();
        client
    };
    // More than half of it on one worker; then nobody may have a half on either.
    let first = ask(9);
    server.wait_for(|stats| stats.sent() > 0);
    let others: Vec<_> = (0..REFUSED).map(|_| ask(5)).collect();
    let failed = |stats: &ServerStats| {
        stats
            .workers
            .iter()
            .map(|worker| worker.failed)
            .sum::<u64>()
    };
    server.wait_for(|stats| failed(stats) == REFUSED);
    assert!(
        server
            .handle
            .stats()
            .workers
            .iter()
            .all(|worker| worker.accepted > 0)
    );
    drop(first);
    server.wait_for(|stats| stats.live() == 0);
    drop(others);
    let mut again = ask(9);
    again.read_exact(&mut [0; 50_000]).unwrap();
    assert_eq!(
        failed(&server.handle.stats()),
        REFUSED + 1,
        "and the first, which was reset"
    );
    server.stop();
}

#[test]
fn a_drained_server_serves_who_is_queued_and_resets_nobody() {
    let _watchdog = watchdog();
    let bound = Server::new(|_| Echo).bind("127.0.0.1:0").unwrap();
    // All of this lies in the accept queue before the server so much as begins.
    let mut clients: Vec<_> = (0..20)
        .map(|_| StdStream::connect(bound.local_addr()).unwrap())
        .collect();
    for client in &mut clients {
        client.write_all(b"in time").unwrap();
    }
    let address = bound.local_addr();
    bound.handle().drain(10 * SECOND);
    let start = Instant::now();
    let stats = bound.run().unwrap();
    assert!(start.elapsed() < 5 * SECOND, "idle ones are not waited for");
    assert_eq!((stats.accepted(), stats.live()), (20, 0));
    for client in &mut clients {
        assert_eq!(rest(client), b"in time");
    }
    StdStream::connect(address).expect_err("the port is closed");
}

#[test]
fn a_drain_without_a_limit_takes_as_long_as_it_takes() {
    let _watchdog = watchdog();
    for dispatch in [Dispatch::ReusePort, Dispatch::HandOver] {
        let server = start(Server::new(|_| Echo).workers(2).dispatch(dispatch));
        let mut client = server.dial();
        echo(&mut client, b"hello");
        server.handle.drain(Duration::MAX);
        let stats = server.thread.join().unwrap().unwrap();
        assert_eq!((stats.accepted(), stats.live()), (1, 0), "{dispatch:?}");
    }
}

#[test]
fn draining_waits_for_a_busy_connection_and_stops_it_at_the_limit() {
    let runtime = Runtime::builder().virtual_clock().build().unwrap();
    let bound = Server::new(|_| Echo).bind("127.0.0.1:0").unwrap();
    let serving = bound.run_in(&runtime).unwrap();
    runtime.block_on(async {
        let busy = TcpStream::connect(bound.local_addr()).await.unwrap();
        let idle = TcpStream::connect(bound.local_addr()).await.unwrap();
        for stream in [&busy, &idle] {
            stream.write_all(b"x").await.unwrap();
            stream.read_exact(&mut [0]).await.unwrap();
        }
        let start = time::now();
        bound.handle().drain(2 * SECOND);
        let mut beats = 0;
        let ended = loop {
            time::sleep(Duration::from_millis(50)).await;
            if busy.write_all(b"y").await.is_err() {
                break time::now() - start;
            }
            match busy.read(&mut [0]).await {
                Ok(1) => beats += 1,
                _ => break time::now() - start,
            }
            if beats == 5 {
                assert_eq!(
                    idle.read(&mut [0]).await.unwrap(),
                    0,
                    "closed, and not reset"
                );
            }
        };
        assert!((38..=41).contains(&beats), "{beats}");
        assert!(ended >= 2 * SECOND && ended < 3 * SECOND, "{ended:?}");
        let stats = serving.await.unwrap().unwrap();
        assert_eq!((stats.accepted(), stats.live()), (2, 0));
    });
    assert_eq!(runtime.stats().connections, 0);
}

#[test]
fn stopping_ends_connections_at_once() {
    let _watchdog = watchdog();
    let server = start(Server::new(|_| Echo).workers(2));
    let mut clients: Vec<_> = (0..8).map(|_| server.dial()).collect();
    clients.iter_mut().for_each(|client| echo(client, b"hi"));
    let stats = server.stop();
    assert_eq!((stats.accepted(), stats.live()), (8, 0));
    for mut client in clients {
        assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    }
}

#[test]
fn a_server_runs_once() {
    let runtime = Runtime::new().unwrap();
    let bound = Server::new(|_| Echo).bind("127.0.0.1:0").unwrap();
    bound.run_in(&runtime).unwrap();
    bound.run_in(&runtime).expect_err("it ran before");
    bound.run().expect_err("it ran before");
}

#[test]
fn a_server_can_be_bound_inside_a_runtime_and_a_taken_port_is_named() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let bound = Server::new(|_| Echo).bind("127.0.0.1:0").unwrap();
        let taken = Server::new(|_| Echo).bind(bound.local_addr()).unwrap_err();
        let wanted = format!(
            "listen tcp {}: bind: address already in use",
            bound.local_addr()
        );
        assert_eq!(taken.to_string().to_lowercase(), wanted);
    });
}

#[test]
fn a_dropped_runtime_closes_its_servers_connections() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let bound = Server::new(|_| Echo).bind("127.0.0.1:0").unwrap();
    drop(bound.run_in(&runtime).unwrap());
    let mut client = StdStream::connect(bound.local_addr()).unwrap();
    while runtime.stats().connections == 0 {
        runtime.turn(Some(SECOND)).unwrap();
    }
    drop(runtime);
    assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    assert_eq!(bound.handle().stats().live(), 0);
}

#[test]
fn while_a_full_server_is_drained_who_is_idle_makes_room_for_who_is_queued() {
    let _watchdog = watchdog();
    let server = start(Server::new(|_| Echo).max_connections(1));
    let mut idle = server.dial();
    echo(&mut idle, b"served");
    let mut queued = server.dial();
    queued.write_all(b"in time").unwrap();
    let start = Instant::now();
    server.handle.drain(30 * SECOND);
    assert_eq!(rest(&mut queued), b"in time");
    assert_eq!(rest(&mut idle), b"");
    let stats = server.stop();
    assert_eq!((stats.accepted(), stats.live()), (2, 0));
    assert!(start.elapsed() < 15 * SECOND, "not for the limit to pass");
}

#[test]
fn a_factory_that_panics_costs_one_connection() {
    let _watchdog = watchdog();
    let made = AtomicUsize::new(0);
    let server = start(Server::new(move |_| {
        assert_ne!(made.fetch_add(1, Ordering::SeqCst), 1, "a test's own panic");
        Echo
    }));
    let mut first = server.dial();
    echo(&mut first, b"one");
    assert_eq!(rest(&mut server.dial()), b"");
    echo(&mut server.dial(), b"three");
    echo(&mut first, b"one again");
    let stats = server.stop();
    assert_eq!(stats.accepted(), 3);
}

#[test]
fn who_came_before_a_server_of_several_workers_runs_in_a_runtime_is_served_too() {
    let _watchdog = watchdog();
    for drained in [false, true] {
        let bound = Server::new(|_| Echo)
            .workers(4)
            .bind("127.0.0.1:0")
            .unwrap();
        let connect = |_| StdStream::connect(bound.local_addr()).unwrap();
        let mut clients: Vec<_> = (0..20).map(connect).collect();
        for client in &mut clients {
            client.write_all(b"x").unwrap();
        }
        let (runtime, handle) = (Runtime::new().unwrap(), bound.handle());
        let serving = bound.run_in(&runtime).unwrap();
        let asking = std::thread::spawn(move || {
            if drained {
                handle.drain(Duration::from_secs(60));
            }
            for client in &mut clients {
                client.read_exact(&mut [0]).unwrap();
            }
            handle.stop();
        });
        let stats = runtime.block_on(serving).unwrap().unwrap();
        asking.join().unwrap();
        assert_eq!(stats.accepted(), 20);
    }
}

#[test]
fn aborting_the_task_of_a_server_ends_its_connections() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let bound = Server::new(|_| Echo).bind("127.0.0.1:0").unwrap();
    let serving = bound.run_in(&runtime).unwrap();
    runtime.block_on(async {
        let client = TcpStream::connect(bound.local_addr()).await.unwrap();
        client.write_all(b"x").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
        serving.abort();
        let ended = client.read(&mut [0]).await;
        assert!(!matches!(ended, Ok(1..)));
        assert!(serving.await.is_err());
    });
    assert_eq!(runtime.stats().connections, 0);
}
