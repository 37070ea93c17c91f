//! What happens to descriptors: none is left behind, and running out of them is survived.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use log::Level;
use netpoller::net::{self, Serve};
use netpoller::{Dialer, JoinHandle, NetError, Runtime, TcpListener, TcpStream, spawn, time};

use crate::child::{in_child, limit_open_files, open_files, open_pipes, take_all_descriptors};
use crate::logged::{keep_log, logged};
use crate::support::bytes::{noise, read_all};
use crate::support::dead_ends::{Silent, closed};
use crate::support::loopback::{dial, listen, pair, ping, virtual_runtime};
use crate::support::run::{run, run_virtual};
use crate::support::temp_path::TempPath;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

#[test]
fn runtimes_that_come_and_go_leave_no_descriptor() {
    in_child(|| {
        let once = || {
            let runtime = Runtime::new().unwrap();
            let (server, client) = runtime.block_on(pair());
            runtime.block_on(client.write_all(b"!")).unwrap();
            let reader = runtime.spawn(async move {
                let _client = client;
                while server.read(&mut [0; 8]).await.is_ok() {}
            });
            runtime.turn(Some(Duration::ZERO)).unwrap();
            drop(runtime);
            drop(reader);
        };
        once();
        let before = open_files();
        (0..200).for_each(|_| once());
        assert_eq!(open_files(), before);
    });
}

/// A task that returns its own handle, a cycle of its own making.
struct Returned(#[allow(dead_code, reason = "it is only kept")] Option<JoinHandle<Returned>>);

#[test]
fn no_handle_of_a_task_keeps_a_descriptor_of_the_runtime_that_is_gone() {
    in_child(|| {
        let handles_of = || {
            let runtime = Runtime::new().unwrap();
            let done = runtime.spawn(async {});
            let waiting = runtime.spawn(std::future::pending::<()>());
            let (give, take) = std::sync::mpsc::channel();
            let own = runtime.spawn(async move { Returned(take.recv().ok()) });
            give.send(own).unwrap();
            runtime.turn(Some(Duration::ZERO)).unwrap();
            (done, waiting)
        };
        drop(handles_of());
        let before = open_files();
        let kept: Vec<_> = (0..20).map(|_| handles_of()).collect();
        assert_eq!(open_files(), before);
        assert!(kept.iter().all(|(_, waiting)| waiting.is_finished()));
    });
}

#[test]
fn no_dial_leaves_a_descriptor() {
    in_child(|| {
        let (silent, closed) = (Silent::v4(), closed());
        let both_families = || {
            let addresses = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            Dialer::new().resolver(move |_| Ok(addresses.clone()))
        };
        virtual_runtime().block_on(async {
            let before = open_files();
            for _ in 0..10 {
                let refused = both_families().dial(("both.test", closed.port)).await;
                assert!(refused.is_err());
                let hooked = Dialer::new().control(|_, _| Err(io::Error::other("no")));
                assert!(hooked.dial(silent.address).await.is_err());
                let late = both_families().timeout(SECOND);
                let port = silent.address.port();
                assert!(late.dial(("both.test", port)).await.is_err());
                let dropped = time::timeout(SECOND, Dialer::new().dial(silent.address)).await;
                assert!(dropped.is_err());
            }
            assert_eq!(open_files(), before);
        });
    });
}

#[test]
fn no_pipe_outlives_its_copy_and_an_idle_copy_has_none() {
    in_child(|| {
        run(async {
            // The runtime itself may have some, to be woken by.
            let before = open_pipes();
            let sent = vec![b'x'; 1 << 20];
            let mut copies = Vec::new();
            for _ in 0..20 {
                let (source, a) = pair().await;
                let (b, sink) = pair().await;
                copies.push((spawn(async move { net::copy(&a, &b).await }), source, sink));
            }
            for (_, source, sink) in &copies {
                source.write_all(b"ping").await.unwrap();
                sink.read_exact(&mut [0; 4]).await.unwrap();
            }
            assert_eq!(open_pipes(), before, "for messages it needs none");
            // Half of them are dropped while their pipes are full of bytes.
            let mut stuck = Vec::new();
            for (copying, source, _sink) in &copies[..10] {
                let much = vec![b'x'; 8 << 20];
                let _ = time::timeout(20 * MILLISECOND, source.write_all(&much)).await;
                stuck.push(copying);
            }
            assert_eq!(open_pipes() > before, cfg!(target_os = "linux"));
            for copying in stuck {
                copying.abort();
            }
            for (copying, source, sink) in copies.drain(10..) {
                let reading = spawn(async move { read_all(&sink).await.unwrap().len() });
                source.write_all(&sent).await.unwrap();
                source.close().unwrap();
                assert_eq!(copying.await.unwrap().unwrap(), 4 + (1 << 20));
                assert_eq!(reading.await.unwrap(), 1 << 20);
            }
            copies.clear();
            assert_eq!(open_pipes(), before);
        });
    });
}

#[test]
fn without_a_descriptor_for_a_pipe_a_copy_goes_through_a_buffer() {
    in_child(|| {
        limit_open_files(256);
        run(async {
            let (source, a) = pair().await;
            let (b, sink) = pair().await;
            let _all = take_all_descriptors();
            let sent = noise(1 << 20);
            let copying = spawn(async move { net::copy(&a, &b).await });
            let reading = spawn(async move {
                let mut got = vec![0; 1 << 20];
                sink.read_exact(&mut got).await.unwrap();
                got
            });
            source.write_all(&sent).await.unwrap();
            source.close_write().unwrap();
            assert_eq!(copying.await.unwrap().unwrap(), 1 << 20);
            assert!(reading.await.unwrap() == sent);
        });
    });
}

#[test]
fn out_of_descriptors_serving_waits_and_goes_on_at_once_when_one_of_ours_is_closed() {
    in_child(|| {
        limit_open_files(100);
        run_virtual(async {
            let listener = listen().await;
            let serve = Serve::new(listener.clone());
            let counters = serve.counters();
            let clients = [dial(&listener).await, dial(&listener).await];
            let mut all = take_all_descriptors();
            // One for the first client.
            all.pop();
            let echo = async |stream: TcpStream, _| net::copy(&stream, &stream).await;
            let serving = spawn(serve.run(echo));
            ping(&clients[0]).await;
            // The second client waits, until accepting is tried only once a second.
            while counters.refused() < 10 {
                time::sleep(5 * MILLISECOND).await;
            }
            assert_eq!((counters.accepted(), counters.episodes()), (1, 1));
            let start = time::now();
            clients[0].close().unwrap();
            ping(&clients[1]).await;
            let waited = time::now() - start;
            assert!(waited < SECOND / 2, "{waited:?}");
            assert_eq!((counters.accepted(), counters.episodes()), (2, 1));

            listener.close().unwrap();
            serving.await.unwrap().unwrap();
        });
    });
}

#[test]
fn closing_the_listener_ends_serving_also_while_it_waits_for_descriptors() {
    in_child(|| {
        limit_open_files(100);
        run_virtual(async {
            let listener = listen().await;
            let serve = Serve::new(listener.clone());
            let counters = serve.counters();
            let _client = dial(&listener).await;
            let _all = take_all_descriptors();
            let serving = spawn(serve.run(async |_, _| ()));
            while counters.refused() < 10 {
                time::sleep(5 * MILLISECOND).await;
            }
            let start = time::now();
            listener.close().unwrap();
            serving.await.unwrap().unwrap();
            assert_eq!(time::now(), start);
        });
    });
}

/// The disposition of a signal belongs to the process, as descriptors do.
#[test]
fn a_copy_to_a_peer_that_is_gone_is_an_error_and_no_signal() {
    in_child(|| {
        // A handler, as a C host may have its own. Rust ignores the signal.
        let raised = Arc::<AtomicBool>::default();
        signal_hook::flag::register(signal_hook::consts::SIGPIPE, raised.clone()).unwrap();
        run(async {
            for by_shutdown in [true, false] {
                let (source, a) = pair().await;
                let (b, sink) = pair().await;
                let writing = spawn(async move {
                    let chunk = noise(1 << 16);
                    while source.write_all(&chunk).await.is_ok() {}
                });
                if by_shutdown {
                    // After our own shutdown, a write fails by EPIPE.
                    b.close_write().unwrap();
                } else {
                    spawn(async move {
                        sink.read_exact(&mut [0; 1 << 16]).await.unwrap();
                        sink.abort().unwrap();
                    });
                }
                let error = net::copy(&a, &b).await.unwrap_err();
                let kind = error.kind();
                let gone = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
                assert!(gone.contains(&kind), "{error}");
                assert_eq!(error.op_error().unwrap().op, "write");
                a.close().unwrap();
                writing.await.unwrap();
            }
        });
        assert!(!raised.load(Ordering::SeqCst));
    });
}

#[test]
fn a_pause_of_accepting_is_one_warning_and_its_end_another_and_each_connection_a_line_at_debug() {
    in_child(|| {
        keep_log();
        limit_open_files(100);
        run_virtual(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let serve = Serve::new(listener.clone());
            let counters = serve.counters();
            let client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let peer = client.local_addr().unwrap();
            let all = take_all_descriptors();
            let serving = spawn(serve.run(async |_, _| ()));
            while counters.refused() < 10 {
                time::sleep(5 * MILLISECOND).await;
            }
            let pause = "accept tcp 127.0.0.1: accept4: too many open files; accepting pauses";
            assert_eq!(logged(Level::Warn, port), [pause]);
            drop(all);
            while counters.accepted() == 0 {
                time::sleep(SECOND).await;
            }
            let warnings = logged(Level::Warn, port);
            assert_eq!(warnings.len(), 2, "{warnings:?}");
            let resumed = "accepting on tcp 127.0.0.1 goes on after ";
            assert!(warnings[1].starts_with(resumed), "{warnings:?}");
            let accepted = format!("{peer}: accepted");
            assert!(logged(Level::Debug, port).contains(&accepted));
            listener.close().unwrap();
            serving.await.unwrap().unwrap();
        });
    });
}

#[test]
fn a_program_that_is_started_inherits_none_of_our_descriptors() {
    in_child(|| {
        let inherited = || {
            let listed = std::process::Command::new("ls").arg("/dev/fd").output();
            String::from_utf8(listed.unwrap().stdout).unwrap()
        };
        let before = inherited();
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let (a, source) = pair().await;
            let (sink, b) = pair().await;
            let udp = netpoller::UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let unix = netpoller::UnixStream::pair().unwrap();
            let path = TempPath::new();
            let listener = netpoller::UnixListener::bind(&path).await.unwrap();
            let client = netpoller::UnixStream::connect(&path).await.unwrap();
            let accepted = listener.accept().await.unwrap();
            // A copy that has bytes in its pipe.
            let copying = spawn(async move { net::copy(&a, &b).await });
            let writing = spawn(async move { source.write_all(&noise(64 << 20)).await });
            while open_pipes() == 0 {
                netpoller::yield_now().await;
            }
            assert_eq!(inherited(), before);
            drop((
                copying, writing, sink, udp, unix, listener, client, accepted,
            ));
        });
    });
}
