//! The end of a server: what a drain takes in, what it waits for, and when it ends.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::TcpStream as StdStream;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use netpoller::{
    CloseReason, Conn, Dispatch, Protocol, Server, ServerHandle, TcpStream, spawn, time,
};

use crate::support::running::{Echo, SECOND, echo, rest, start};
use crate::support::schedule::virtual_runtime;
use crate::support::scripted_protocol::answer_after;
use crate::support::watchdog::watchdog;

const MILLISECOND: Duration = Duration::from_millis(1);

/// How connections may come to two workers.
const WAYS: [Dispatch; 2] = [Dispatch::ReusePort, Dispatch::HandOver];

// ---- the accept queue ----

#[test]
fn clients_that_were_queued_before_the_server_ran_are_answered() {
    let _watchdog = watchdog();
    for dispatch in WAYS {
        for workers in [1, 3] {
            let server = Server::new(|_| Echo).workers(workers).dispatch(dispatch);
            let bound = server.bind("127.0.0.1:0").unwrap();
            let address = bound.local_addr();
            let mut clients: Vec<_> = (0..20)
                .map(|_| StdStream::connect(address).unwrap())
                .collect();
            for client in &mut clients {
                client.write_all(b"in time").unwrap();
            }
            bound.handle().drain(30 * SECOND);
            let start = Instant::now();
            let stats = bound.run().unwrap();
            assert!(
                start.elapsed() < 15 * SECOND,
                "quiet ones are not waited for"
            );
            assert_eq!((stats.accepted(), stats.live()), (20, 0));
            for client in &mut clients {
                assert_eq!(rest(client), b"in time");
            }
            StdStream::connect(address).expect_err("the port is closed");
        }
    }
}

/// An echo whose first message of `wait` holds up its worker until it is told to go on.
struct Waits<'a>(&'a Mutex<Receiver<()>>);

impl Protocol for Waits<'static> {
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        if bytes == b"wait" {
            self.0.lock().unwrap().recv().unwrap();
        }
        Echo.data(conn, bytes)
    }
}

#[test]
fn clients_that_were_queued_while_the_worker_was_busy_are_answered() {
    let _watchdog = watchdog();
    let (go_on, wait) = channel();
    let wait: &'static Mutex<_> = Box::leak(Box::new(Mutex::new(wait)));
    let server = start(Server::new(move |_| Waits(wait)));
    let mut first = server.dial();
    first.write_all(b"wait").unwrap();
    server.wait_for(|stats| stats.received() == 4);
    let mut clients: Vec<_> = (0..200).map(|_| server.dial()).collect();
    for client in &mut clients {
        client.write_all(b"hi").unwrap();
    }
    server.handle.drain(30 * SECOND);
    go_on.send(()).unwrap();
    for client in &mut clients {
        assert_eq!(rest(client), b"hi");
    }
    assert_eq!(rest(&mut first), b"wait");
    let stats = server.thread.join().unwrap().unwrap();
    assert_eq!((stats.accepted(), stats.live()), (201, 0));
}

#[test]
fn clients_that_connected_before_the_drain_are_not_reset() {
    let _watchdog = watchdog();
    for dispatch in WAYS {
        let server = start(Server::new(|_| Echo).workers(2).dispatch(dispatch));
        let mut clients: Vec<_> = (0..100).map(|_| server.dial()).collect();
        for client in &mut clients {
            client.write_all(b"x").unwrap();
        }
        server.handle.drain(30 * SECOND);
        for client in &mut clients {
            assert_eq!(rest(client), b"x");
        }
        let stats = server.thread.join().unwrap().unwrap();
        assert_eq!((stats.accepted(), stats.live()), (100, 0));
    }
}

#[test]
fn in_a_full_server_a_quiet_connection_makes_room_for_one_that_is_queued() {
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

/// Answers each message after 50 ms, and is busy meanwhile.
struct Late;

impl Protocol for Late {
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        answer_after(50 * MILLISECOND, conn, b"x");
        Ok(bytes.len())
    }
}

#[test]
fn clients_that_keep_arriving_at_a_full_server_do_not_delay_the_end_and_all_are_answered() {
    let _watchdog = watchdog();
    let runtime = virtual_runtime();
    let server = Server::new(|_| Late).max_connections(2);
    let bound = server.bind("127.0.0.1:0").unwrap();
    let (address, handle) = (bound.local_addr(), bound.handle());
    let serving = bound.run_in(&runtime).unwrap();
    let arrive = move || async move {
        let mut answers = 0;
        while let Ok(client) = TcpStream::connect(address).await {
            client.write_all(b"?").await.unwrap();
            client.read_exact(&mut [0]).await.unwrap();
            answers += 1;
        }
        answers
    };
    let (answers, took, stats) = runtime.block_on(async {
        let clients: Vec<_> = (0..8).map(|_| spawn(arrive())).collect();
        time::sleep(SECOND).await;
        let start = time::now();
        handle.drain(60 * SECOND);
        time::sleep(10 * MILLISECOND).await;
        let refused = TcpStream::connect(address).await;
        refused.expect_err("the port is closed though clients wait");
        // A second drain loses no client that was accepted.
        handle.drain(30 * SECOND);
        let stats = serving.await.unwrap().unwrap();
        let took = time::now() - start;
        let mut answers = 0;
        for client in clients {
            answers += client.await.unwrap();
        }
        (answers, took, stats)
    });
    assert!(took < 2 * SECOND, "{took:?}");
    assert_eq!((stats.accepted(), stats.live()), (answers, 0));
}

// ---- the limit ----

/// Is busy for ever, as with work that another thread does for it.
struct Busy;

impl Protocol for Busy {
    fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
        conn.set_busy(true);
        Ok(())
    }
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        Echo.data(conn, bytes)
    }
}

#[test]
fn a_drain_ends_although_a_queued_client_finds_no_room() {
    let _watchdog = watchdog();
    for dispatch in WAYS {
        let server = Server::new(|_| Busy).workers(2).dispatch(dispatch);
        let server = start(server.max_connections(1));
        let mut client = server.dial();
        echo(&mut client, b"served");
        let _queued = server.dial();
        let start = Instant::now();
        server.handle.drain(3600 * SECOND);
        server.handle.drain(SECOND);
        let stats = server.thread.join().unwrap().unwrap();
        let took = start.elapsed();
        assert!((SECOND..10 * SECOND).contains(&took), "{took:?}");
        assert_eq!(stats.live(), 0);
    }
}

#[test]
fn a_drain_ends_although_clients_keep_arriving() {
    let _watchdog = watchdog();
    for dispatch in WAYS {
        let server = start(Server::new(|_| Echo).workers(2).dispatch(dispatch));
        let (address, is_over) = (server.address, &AtomicBool::new(false));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        // Refused when the server has gone.
                        let Ok(mut client) = StdStream::connect(address) else {
                            thread::yield_now();
                            continue;
                        };
                        let _ = client.write_all(b"x");
                    }
                });
            }
            server.wait_for(|stats| stats.accepted() > 100);
            let start = Instant::now();
            server.handle.drain(SECOND);
            let stats = server.thread.join().unwrap().unwrap();
            let took = start.elapsed();
            is_over.store(true, Ordering::Relaxed);
            assert!(took < 10 * SECOND, "{dispatch:?}: {took:?}");
            assert_eq!(stats.live(), 0);
        });
    }
}

#[test]
fn a_drain_of_the_longest_duration_ends_with_its_connections() {
    let _watchdog = watchdog();
    for dispatch in WAYS {
        let server = start(Server::new(|_| Echo).workers(2).dispatch(dispatch));
        let mut client = server.dial();
        echo(&mut client, b"hello");
        server.handle.drain(Duration::MAX);
        let stats = server.thread.join().unwrap().unwrap();
        assert_eq!((stats.accepted(), stats.live()), (1, 0), "{dispatch:?}");
    }
}

/// Drains a server with the limits given, one after the other and 500 ms apart, while a client
/// goes on talking every 50 ms. Returns how long the client was served from the first drain on.
fn busy_until(limits: &[Duration]) -> Duration {
    let runtime = virtual_runtime();
    let bound = Server::new(|_| Echo).bind("127.0.0.1:0").unwrap();
    let (serving, handle) = (bound.run_in(&runtime).unwrap(), bound.handle());
    let ended = runtime.block_on(async {
        let busy = TcpStream::connect(bound.local_addr()).await.unwrap();
        busy.write_all(b"x").await.unwrap();
        busy.read_exact(&mut [0]).await.unwrap();
        let start = time::now();
        let mut limits = limits.iter();
        let mut next = start;
        while busy.write_all(b"y").await.is_ok() && matches!(busy.read(&mut [0]).await, Ok(1)) {
            if time::now() >= next {
                limits.next().inspect(|limit| handle.drain(**limit));
                next += 500 * MILLISECOND;
            }
            time::sleep(50 * MILLISECOND).await;
        }
        let ended = time::now() - start;
        let stats = serving.await.unwrap().unwrap();
        assert_eq!((stats.accepted(), stats.live()), (1, 0));
        ended
    });
    assert_eq!(runtime.stats().connections, 0);
    ended
}

#[test]
fn a_busy_connection_is_waited_for_until_the_limit_and_then_cut_off() {
    let _watchdog = watchdog();
    let ended = busy_until(&[2 * SECOND]);
    assert!(
        (2 * SECOND..2200 * MILLISECOND).contains(&ended),
        "{ended:?}"
    );
}

#[test]
fn a_second_drain_with_a_shorter_limit_wins_and_a_longer_one_changes_nothing() {
    let _watchdog = watchdog();
    let ended = busy_until(&[3600 * SECOND, SECOND]);
    assert!(
        (1500 * MILLISECOND..1700 * MILLISECOND).contains(&ended),
        "{ended:?}"
    );
    let ended = busy_until(&[SECOND, 3600 * SECOND]);
    assert!((SECOND..1200 * MILLISECOND).contains(&ended), "{ended:?}");
    // Shorter, and yet it would end later.
    let ended = busy_until(&[SECOND, 900 * MILLISECOND]);
    assert!((SECOND..1200 * MILLISECOND).contains(&ended), "{ended:?}");
}

#[test]
fn stopping_ends_a_drain_at_once() {
    let _watchdog = watchdog();
    for dispatch in WAYS {
        let server = start(
            Server::new(|_| Echo)
                .workers(2)
                .dispatch(dispatch)
                .drain_grace(3600 * SECOND),
        );
        let mut client = server.dial();
        echo(&mut client, b"hello");
        server.handle.drain(Duration::MAX);
        echo(&mut client, b"in flight for an hour");
        let stats = server.stop();
        assert_eq!((stats.accepted(), stats.live()), (1, 0), "{dispatch:?}");
        assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    }
}

/// Drains its server when its connection ends.
struct Last(Rc<Cell<Option<ServerHandle>>>);

impl Protocol for Last {
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        Echo.data(conn, bytes)
    }

    fn ended(&mut self, _: CloseReason) {
        if let Some(handle) = self.0.take() {
            handle.drain(10 * SECOND);
        }
    }
}

#[test]
fn a_permit_freed_as_a_drain_begins_goes_to_the_queued_client() {
    let _watchdog = watchdog();
    let runtime = virtual_runtime();
    let handle = Rc::new(Cell::new(None));
    let theirs = handle.clone();
    let server = Server::new(move |_| Last(theirs.clone())).max_connections(1);
    let bound = server.bind("127.0.0.1:0").unwrap();
    handle.set(Some(bound.handle()));
    let serving = bound.run_in(&runtime).unwrap();
    runtime.block_on(async {
        let first = TcpStream::connect(bound.local_addr()).await.unwrap();
        first.write_all(b"x").await.unwrap();
        first.read_exact(&mut [0]).await.unwrap();
        let queued = TcpStream::connect(bound.local_addr()).await.unwrap();
        queued.write_all(b"hello").await.unwrap();
        // By then the server waits for a permit.
        time::sleep(MILLISECOND).await;
        first.close().unwrap();
        queued.read_exact(&mut [0; 5]).await.unwrap();
    });
    let stats = runtime.block_on(serving).unwrap().unwrap();
    assert_eq!((stats.accepted(), stats.live()), (2, 0));
}
