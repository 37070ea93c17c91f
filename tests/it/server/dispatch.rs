//! Sockets handed over from the worker that accepts to the one with the fewest connections: spread,
//! limits, the end.

use std::io::{self, Read};
use std::net::TcpStream as StdStream;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use netpoller::{Conn, Dispatch, Protocol, Server};
use socket2::SockRef;

use crate::support::running::{Echo, SECOND, counted, echo, start};
use crate::support::watchdog::watchdog;

#[test]
fn connections_are_spread_evenly_and_counted_where_they_are() {
    let _watchdog = watchdog();
    let server = start(
        Server::new(|_| Echo)
            .workers(3)
            .dispatch(Dispatch::HandOver),
    );
    let mut clients = Vec::new();
    for _ in 0..30 {
        let mut client = server.dial();
        echo(&mut client, b"hello");
        clients.push(client);
    }
    let stats = server.handle.stats();
    for worker in &stats.workers {
        assert!((9..=11).contains(&worker.live), "{stats:?}");
        assert_eq!(worker.received, worker.accepted * 5);
    }
    drop(clients);
    server.wait_for(|stats| stats.live() == 0);
    let stats = server.stop();
    assert_eq!((stats.accepted(), stats.received()), (30, 150));
    assert!(stats.workers.iter().all(|worker| worker.turns > 0));
}

/// Says which thread it is served by, and echoes.
struct Names;

impl Protocol for Names {
    fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
        let name = format!("{:?}\n", thread::current().id());
        conn.write(name.as_bytes())
    }
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        conn.write(bytes)?;
        Ok(bytes.len())
    }
}

fn name(client: &mut StdStream) -> String {
    let mut name = String::new();
    while !name.ends_with('\n') {
        let mut letter = [0];
        client.read_exact(&mut letter).unwrap();
        name.push(letter[0].into());
    }
    name
}

#[test]
fn the_worker_that_has_fewest_gets_the_next() {
    let _watchdog = watchdog();
    let server = start(
        Server::new(|_| Names)
            .workers(2)
            .dispatch(Dispatch::HandOver),
    );
    let dial = || {
        let mut client = server.dial();
        let name = name(&mut client);
        (client, name)
    };
    let clients: Vec<_> = (0..8).map(|_| dial()).collect();
    let emptied = clients[0].1.clone();
    let kept: Vec<_> = clients
        .into_iter()
        .filter(|(_, name)| *name != emptied)
        .collect();
    server.wait_for(|stats| stats.live() == kept.len() as u64);
    let next: Vec<_> = (1..kept.len()).map(|_| dial()).collect();
    for (_, name) in &next {
        assert_eq!(*name, emptied);
    }
    server.stop();
}

#[test]
fn the_limit_is_of_all_workers_and_taken_before_accepting() {
    let _watchdog = watchdog();
    let (server, most) = counted();
    let server = start(
        server
            .workers(2)
            .dispatch(Dispatch::HandOver)
            .max_connections(3),
    );
    server.serve_all(20);
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert_eq!(server.stop().accepted(), 20);
}

#[test]
fn stopping_ends_connections_at_once_and_those_on_their_way() {
    let _watchdog = watchdog();
    for _ in 0..10 {
        let server = start(
            Server::new(|_| Echo)
                .workers(3)
                .dispatch(Dispatch::HandOver),
        );
        let mut clients: Vec<_> = (0..9).map(|_| server.dial()).collect();
        echo(&mut clients[0], b"hi");
        let stats = server.stop();
        assert_eq!(stats.live(), 0);
        for mut client in clients {
            assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
        }
    }
}

#[test]
fn a_thousand_short_connections_are_all_served() {
    let _watchdog = watchdog();
    let server = start(
        Server::new(|_| Echo)
            .workers(2)
            .dispatch(Dispatch::HandOver),
    );
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..250).for_each(|n: u32| echo(&mut server.dial(), &n.to_be_bytes())));
        }
    });
    server.wait_for(|stats| stats.live() == 0);
    let stats = server.stop();
    assert_eq!((stats.accepted(), stats.received()), (1000, 4000));
    assert!(
        stats.workers.iter().all(|worker| worker.accepted > 100),
        "{stats:?}"
    );
}

#[test]
fn hand_over_changes_nothing_with_one_worker_or_in_run_in() {
    let _watchdog = watchdog();
    let server = start(Server::new(|_| Echo).dispatch(Dispatch::HandOver));
    echo(&mut server.dial(), b"alone");
    assert_eq!(server.stop().accepted(), 1);

    let runtime = netpoller::Runtime::new().unwrap();
    let server = Server::new(|_| Echo)
        .workers(2)
        .dispatch(Dispatch::HandOver);
    let bound = server.bind("127.0.0.1:0").unwrap();
    let serving = bound.run_in(&runtime).unwrap();
    runtime.block_on(async {
        let client = netpoller::TcpStream::connect(bound.local_addr())
            .await
            .unwrap();
        client.write_all(b"x").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
        bound.handle().stop();
        assert_eq!(serving.await.unwrap().unwrap().accepted(), 1);
    });
}

#[test]
fn a_server_of_many_workers_survives_clients_that_come_and_go() {
    struct Resets;
    impl Protocol for Resets {
        fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
            conn.abort();
            Ok(())
        }
        fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
    }
    let _watchdog = watchdog();
    let server = start(
        Server::new(|_| Resets)
            .workers(64)
            .dispatch(Dispatch::HandOver),
    );
    let end = Instant::now() + SECOND;
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while Instant::now() < end && !server.thread.is_finished() {
                    let Ok(client) = StdStream::connect(server.address) else {
                        continue;
                    };
                    // A reset, so that no port stays in TIME_WAIT.
                    let _ = SockRef::from(&client).set_linger(Some(Duration::ZERO));
                }
            });
        }
    });
    assert!(!server.thread.is_finished(), "it has ended by itself");
    assert!(server.stop().accepted() > 0);
}
