//! Servers: workers, limits, stopping, and what they count.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::TcpStream as StdStream;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use netpoller::{
    Addr, Conn, Dispatch, Limits, Protocol, Runtime, Server, TcpStream, spawn_blocking, time,
};
use socket2::SockRef;

use crate::support::running::{Echo, SECOND, counted, echo, rest, start};
use crate::support::watchdog::watchdog;

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
    // Each is served in the end, whichever worker it came to, as others leave.
    server.serve_all(20);
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
            conn.with_fd(|fd| SockRef::from(&fd).set_send_buffer_size(1))?
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
    // More than half of it on one worker; then no connection may have a half on either.
    let first = ask(9);
    server.wait_for(|stats| stats.sent() > 0);
    let others: Vec<_> = (0..REFUSED).map(|_| ask(5)).collect();
    server.wait_for(|stats| stats.limited() == REFUSED);
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
    let stats = server.handle.stats();
    assert_eq!(stats.limited(), REFUSED);
    assert_eq!(stats.failed(), 1, "the first, which was reset");
    server.stop();
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
fn a_factory_that_panics_ends_one_connection() {
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
fn a_client_that_came_before_a_server_of_several_workers_runs_in_a_runtime_is_served_too() {
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

/// The listeners of this process that listen on `address`.
#[cfg(target_os = "linux")]
fn listeners_on(address: std::net::SocketAddr) -> Vec<std::os::fd::BorrowedFd<'static>> {
    let files = std::fs::read_dir("/dev/fd").unwrap();
    let numbers = files.filter_map(|file| file.unwrap().file_name().to_str()?.parse().ok());
    // SAFETY: what is no listener of ours is looked at and forgotten; the server owns the others
    // until it ends.
    let borrowed = numbers.map(|number| unsafe { std::os::fd::BorrowedFd::borrow_raw(number) });
    let is_ours = |fd: &std::os::fd::BorrowedFd<'_>| {
        let socket = SockRef::from(fd);
        let local = socket.local_addr().ok().and_then(|local| local.as_socket());
        local == Some(address) && socket.is_listener().unwrap_or(false)
    };
    borrowed.filter(is_ours).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn a_worker_that_can_accept_no_more_stops_the_server_whichever_it_is() {
    let _watchdog = watchdog();
    for (dispatch, listeners) in [(Dispatch::ReusePort, 3), (Dispatch::HandOver, 1)] {
        for broken in 0..listeners {
            let server = start(Server::new(|_| Echo).workers(3).dispatch(dispatch));
            let mut clients: Vec<_> = (0..9).map(|_| server.dial()).collect();
            clients.iter_mut().for_each(|client| echo(client, b"hi"));
            let all = listeners_on(server.address);
            assert_eq!(all.len(), listeners);
            SockRef::from(&all[broken])
                .shutdown(std::net::Shutdown::Both)
                .unwrap();
            let error = server.thread.join().unwrap().unwrap_err().to_string();
            assert!(error.starts_with("accept tcp "), "{error}");
            assert_eq!(server.handle.stats().live(), 0);
            for mut client in clients {
                assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
            }
        }
    }
}

#[test]
fn the_factory_of_a_server_in_a_runtime_of_yours_may_share_an_rc() {
    struct Counts(Rc<Cell<usize>>);
    impl Protocol for Counts {
        fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
            self.0.set(self.0.get() + bytes.len());
            Ok(bytes.len())
        }
    }
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let bytes = Rc::new(Cell::new(0));
    let theirs = bytes.clone();
    let bound = Server::new(move |_peer: Addr| Counts(theirs.clone()))
        .bind("127.0.0.1:0")
        .unwrap();
    let serving = bound.run_in(&runtime).unwrap();
    runtime.block_on(async {
        let client = TcpStream::connect(bound.local_addr()).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        while bytes.get() < 5 {
            time::sleep(Duration::from_millis(1)).await;
        }
        bound.handle().stop();
        assert_eq!(serving.await.unwrap().unwrap().accepted(), 1);
    });
}

#[test]
fn the_factory_is_given_the_peers_address() {
    let _watchdog = watchdog();
    let (tell, told) = std::sync::mpsc::channel();
    let server = start(Server::new(move |peer: Addr| {
        tell.send(peer).unwrap();
        Echo
    }));
    let client = server.dial();
    assert_eq!(
        told.recv().unwrap(),
        Addr::from(client.local_addr().unwrap())
    );
    server.stop();
}

#[test]
fn none_or_zero_workers_means_one_for_each_cpu() {
    let _watchdog = watchdog();
    let cpus = std::thread::available_parallelism().unwrap().get();
    for workers in [None, Some(0), Some(cpus)] {
        let bound = Server::new(|_| Echo).workers(workers).bind("127.0.0.1:0");
        let stats = bound.unwrap().handle().stats();
        assert_eq!(stats.workers().len(), cpus);
    }
}

#[test]
fn blocking_jobs_that_bind_and_dial_names_in_runtimes_of_their_own_all_end() {
    /// As many as each of the two pools has threads.
    const JOBS: usize = 64;
    let _watchdog = watchdog();
    let all_began = Arc::new(Barrier::new(JOBS));
    Runtime::new().unwrap().block_on(async {
        let job = |_| {
            let all_began = all_began.clone();
            spawn_blocking(move || {
                all_began.wait();
                let bound = Server::new(|_| Echo).bind("localhost:0").unwrap();
                let runtime = Runtime::new().unwrap();
                let serving = bound.run_in(&runtime).unwrap();
                runtime.block_on(async {
                    let name = ("localhost", bound.local_addr().port());
                    let client = TcpStream::connect(name).await.unwrap();
                    client.write_all(b"x").await.unwrap();
                    client.read_exact(&mut [0]).await.unwrap();
                    bound.handle().stop();
                    serving.await.unwrap().unwrap().accepted()
                })
            })
        };
        let jobs: Vec<_> = (0..JOBS).map(job).collect();
        for job in jobs {
            assert_eq!(job.await.unwrap(), 1);
        }
    });
}
