//! Servers in a process that is short of something, and what a server logs.

use std::fs::File;
use std::io::Write;
use std::net::TcpStream as StdStream;
use std::time::{Duration, Instant};

use log::Level;
use netpoller::{Dispatch, Runtime, Server};
use socket2::{Domain, Socket, Type};

use crate::child::{in_child, limit, limit_open_files, take_all_descriptors};
use crate::logged::{keep_log, logged};
use crate::support::running::{Echo, Running, SECOND, echo, rest, start};
use crate::support::stall::moment;

/// A server, a client whose byte it cannot take, and the descriptors that it lacks for this.
fn short_of_descriptors() -> (Running, StdStream, Vec<File>) {
    limit_open_files(100);
    let server = start(Server::new(|_| Echo));
    echo(&mut server.dial(), b"it runs");
    server.wait_for(|stats| stats.live() == 0);
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let all = take_all_descriptors();
    client.connect(&server.address.into()).unwrap();
    let mut client = StdStream::from(client);
    client.write_all(b"x").unwrap();
    server.wait_for(|stats| stats.refused() > 1);
    (server, client, all)
}

#[test]
fn a_drain_ends_at_its_limit_although_descriptors_are_short() {
    in_child(|| {
        let (server, _client, _all) = short_of_descriptors();
        let worker = server.handle.stats().workers()[0];
        let [descriptor, others @ ..] = worker.accept_errors();
        assert_eq!(descriptor, ("no_descriptor", worker.refused()));
        assert_eq!(others.map(|(_, count)| count), [0; 3]);
        // The limit of a second drain holds, though the first waits for a descriptor.
        server.handle.drain(3600 * SECOND);
        moment();
        server.handle.drain(SECOND);
        let start = Instant::now();
        let stats = server.thread.join().unwrap().unwrap();
        let took = start.elapsed();
        assert!((SECOND..10 * SECOND).contains(&took), "{took:?}");
        assert_eq!(stats.accepted(), 1);
    });
}

#[test]
fn a_client_that_waited_for_a_descriptor_is_served_in_a_drain_too() {
    in_child(|| {
        let (server, mut client, all) = short_of_descriptors();
        server.handle.drain(30 * SECOND);
        drop(all);
        assert_eq!(rest(&mut client), b"x");
        assert_eq!(server.thread.join().unwrap().unwrap().accepted(), 2);
    });
}

#[test]
fn a_worker_whose_runtime_cannot_be_made_stops_the_server() {
    in_child(|| {
        for dispatch in [Dispatch::ReusePort, Dispatch::HandOver] {
            let server = Server::new(|_| Echo).workers(20).dispatch(dispatch);
            let bound = server.bind("127.0.0.1:0").unwrap();
            // Room for the runtimes of three or four workers.
            let mut all = take_all_descriptors();
            all.truncate(all.len() - 10);
            let ended = bound.run();
            drop(all);
            let error = ended.unwrap_err().to_string().to_lowercase();
            assert!(error.contains("too many open files"), "{error}");
        }
    });
}

#[test]
fn a_server_is_bound_inside_a_runtime_although_no_thread_can_be_made() {
    in_child(|| {
        Runtime::new().unwrap().block_on(async {
            // No room for another stack.
            limit(libc::RLIMIT_AS, 0);
            let bound = Server::new(|_| Echo).bind("127.0.0.1:0").unwrap();
            assert_ne!(bound.local_addr().port(), 0);
        });
    });
}

#[test]
fn a_drain_logs_its_start_what_it_waits_for_and_its_limit_and_no_error() {
    in_child(|| {
        keep_log();
        let server = start(Server::new(|_| Echo).workers(2));
        let port = server.address.port();
        let mut client = server.dial();
        echo(&mut client, b"hello");
        server.handle.drain(30 * SECOND);
        server.handle.drain(20 * SECOND);
        drop(client);
        let stats = server.thread.join().unwrap().unwrap();
        assert_eq!(stats.accepted(), 1);
        let lines = logged(Level::Info, port);
        for expected in [
            "127.0.0.1: the server drains within 30s; open connections: 1",
            "127.0.0.1: the server drains within 20s; open connections: 1",
            "127.0.0.1: the server has ended: accepted 1, open 0, received 5, sent 5",
        ] {
            assert!(lines.iter().any(|line| line == expected), "{lines:?}");
        }
        assert_eq!(logged(Level::Error, port), [""; 0]);
        assert_eq!(logged(Level::Warn, port), [""; 0]);
    });
}

#[test]
fn a_connection_that_a_drain_cuts_off_is_a_warning() {
    in_child(|| {
        keep_log();
        let server = start(Server::new(|_| Echo).drain_grace(3600 * SECOND));
        let port = server.address.port();
        let mut client = server.dial();
        echo(&mut client, b"hello");
        server.handle.drain(Duration::from_millis(100));
        server.thread.join().unwrap().unwrap();
        let warnings = logged(Level::Warn, port);
        assert_eq!(
            warnings,
            ["127.0.0.1: worker 0: the drain's limit has passed; connections cut off: 1"]
        );
        assert_eq!(logged(Level::Error, port), [""; 0]);
    });
}

#[test]
fn a_heartbeat_that_the_protocol_does_not_write_is_one_warning_for_all_workers() {
    in_child(|| {
        keep_log();
        let server = Server::new(|_| Echo)
            .workers(2)
            .dispatch(Dispatch::HandOver);
        let server = start(server.heartbeat(Duration::from_millis(10)));
        let _clients = [server.dial(), server.dial()];
        server.wait_for(|stats| stats.workers().iter().all(|worker| worker.heartbeats() > 2));
        let port = server.address.port();
        server.stop();
        let warnings = logged(Level::Warn, port);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            warnings[0].contains("Server::heartbeat_with"),
            "{warnings:?}"
        );
    });
}

#[test]
fn each_accepted_and_each_ended_connection_is_one_line_with_its_peer() {
    in_child(|| {
        keep_log();
        for dispatch in [Dispatch::ReusePort, Dispatch::HandOver] {
            let server = start(Server::new(|_| Echo).workers(2).dispatch(dispatch));
            let mut client = server.dial();
            echo(&mut client, b"hello");
            let port = client.local_addr().unwrap().port();
            drop(client);
            server.wait_for(|stats| stats.live() == 0);
            server.stop();
            let mut lines = logged(Level::Debug, port);
            // A line of the earlier server's client has a port.
            lines.retain(|line| line.starts_with("127.0.0.1: "));
            let [accepted, ended] = &lines[..] else {
                panic!("{lines:?}");
            };
            assert_eq!(accepted, "127.0.0.1: accepted");
            assert!(
                ended.starts_with("127.0.0.1: ended after 5 bytes: "),
                "{ended}"
            );
        }
    });
}
