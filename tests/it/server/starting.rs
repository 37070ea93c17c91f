//! How a server starts: each worker, before the first connection.

use std::io::{self, Read, Write};
use std::net::TcpStream as StdStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use netpoller::{Dispatch, Runtime, Server, TcpStream, spawn, time};

use crate::support::running::{Echo, SECOND, echo, start};
use crate::support::watchdog::watchdog;

#[test]
fn each_worker_starts_in_its_own_thread_and_inside_its_runtime() {
    let _watchdog = watchdog();
    for dispatch in [Dispatch::ReusePort, Dispatch::HandOver] {
        let (tell, told) = mpsc::channel();
        let on_worker = move |worker| {
            let tell = tell.clone();
            spawn(async move {
                let _ = tell.send((worker, thread::current().id()));
            });
            Ok(())
        };
        let server = Server::new(|_| Echo).workers(3).dispatch(dispatch);
        let server = start(server.on_worker(on_worker));
        let mut started: Vec<_> = (0..3).map(|_| told.recv().unwrap()).collect();
        echo(&mut server.dial(), b"hello");
        server.stop();
        started.sort_by_key(|(worker, _)| *worker);
        let workers: Vec<_> = started.iter().map(|(worker, _)| *worker).collect();
        assert_eq!(workers, [0, 1, 2]);
        assert!(started[0].1 != started[1].1 && started[1].1 != started[2].1);
    }
}

#[test]
fn no_connection_is_served_before_the_last_worker_has_started() {
    let _watchdog = watchdog();
    for dispatch in [Dispatch::ReusePort, Dispatch::HandOver] {
        let (go_on, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let started = Arc::new(AtomicUsize::new(0));
        let (starts, seen) = (started.clone(), started.clone());
        let server = Server::new(move |_| {
            assert_eq!(seen.load(Ordering::SeqCst), 4);
            Echo
        });
        let server = start(
            server
                .workers(4)
                .dispatch(dispatch)
                .on_worker(move |worker| {
                    if worker == 2 {
                        wait.lock().unwrap().recv().unwrap();
                    }
                    starts.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                }),
        );
        let mut clients: Vec<_> = (0..16).map(|_| server.dial()).collect();
        clients
            .iter_mut()
            .for_each(|client| client.write_all(b"x").unwrap());
        while started.load(Ordering::SeqCst) < 3 {
            thread::yield_now();
        }
        assert_eq!(server.handle.stats().accepted(), 0);
        go_on.send(()).unwrap();
        clients
            .iter_mut()
            .for_each(|client| client.read_exact(&mut [0]).unwrap());
        assert_eq!(server.stop().accepted(), 16);
    }
}

#[test]
fn a_worker_that_does_not_start_is_named_and_nothing_is_served() {
    let _watchdog = watchdog();
    for fails in 0..3 {
        for panics in [false, true] {
            let on_worker = move |worker| match worker == fails {
                true if panics => panic!("in a start, on purpose"),
                true => Err(io::Error::new(io::ErrorKind::NotFound, "no such file")),
                false => Ok(()),
            };
            let server = Server::new(|_| Echo).workers(3).on_worker(on_worker);
            let bound = server.bind("127.0.0.1:0").unwrap();
            let handle = bound.handle();
            let mut client = StdStream::connect(bound.local_addr()).unwrap();
            let error = bound.run().unwrap_err();
            let (why, kind) = match panics {
                true => ("it panicked", io::ErrorKind::Other),
                false => ("no such file", io::ErrorKind::NotFound),
            };
            assert_eq!(error.kind(), kind);
            assert_eq!(
                error.to_string(),
                format!("worker {fails} does not start: {why}")
            );
            assert_eq!(handle.stats().accepted(), 0);
            assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
        }
    }
}

#[test]
fn a_drain_or_a_stop_while_workers_start_ends_the_server() {
    let _watchdog = watchdog();
    for drains in [true, false] {
        let (go_on, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let on_worker = move |worker| {
            if worker == 1 {
                wait.lock().unwrap().recv().unwrap();
            }
            Ok(())
        };
        let server = start(Server::new(|_| Echo).workers(2).on_worker(on_worker));
        match drains {
            true => server.handle.drain(10 * SECOND),
            false => server.handle.stop(),
        }
        go_on.send(()).unwrap();
        assert_eq!(server.thread.join().unwrap().unwrap().accepted(), 0);
    }
}

#[test]
fn in_a_runtime_of_yours_the_one_worker_starts_too() {
    let _watchdog = watchdog();
    for fails in [false, true] {
        let on_worker = move |worker| {
            assert_eq!(worker, 0);
            // Inside the runtime, where this is the time.
            time::now();
            match fails {
                true => Err(io::Error::other("no")),
                false => Ok(()),
            }
        };
        let server = Server::new(|_| Echo).workers(4).on_worker(on_worker);
        let bound = server.bind("127.0.0.1:0").unwrap();
        let runtime = Runtime::new().unwrap();
        let serving = bound.run_in(&runtime).unwrap();
        runtime.block_on(async {
            if fails {
                let error = serving.await.unwrap().unwrap_err();
                assert_eq!(error.to_string(), "worker 0 does not start: no");
                return;
            }
            let client = TcpStream::connect(bound.local_addr()).await.unwrap();
            client.write_all(b"x").await.unwrap();
            client.read_exact(&mut [0]).await.unwrap();
            bound.handle().stop();
            serving.await.unwrap().unwrap();
        });
    }
}
