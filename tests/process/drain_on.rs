//! Signals that end a server: `ServerHandle::drain_on`.

use std::io::{self, Read, Write};
use std::net::TcpStream as StdStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use netpoller::{Bound, Conn, Dispatch, Handle, Protocol, Runtime, Server, ServerHandle};

use crate::child::{in_child, in_fork, limit_open_files, open_files, take_all_descriptors};
use crate::support::running::{Echo, SECOND, start};
use crate::support::stall::between_looks;

const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);

fn raise(signal: i32) {
    // SAFETY: it takes no pointer, and the signal is handled.
    assert_eq!(unsafe { libc::kill(libc::getpid(), signal) }, 0);
}

/// A connection that is always busy.
struct Busy;

impl Protocol for Busy {
    fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
        conn.set_busy(true);
        conn.write(b"x")
    }
    fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
}

/// Returns once the port is closed, which a drain does.
fn until_refused(handle: &ServerHandle, address: std::net::SocketAddr) {
    while StdStream::connect(address).is_ok() {
        between_looks();
    }
    assert!(handle.stats().live() > 0, "stopped, and not drained");
}

#[test]
fn the_first_signal_drains_and_the_second_stops() {
    in_child(|| {
        for workers in [1, 3] {
            for dispatch in [Dispatch::ReusePort, Dispatch::HandOver] {
                let server = Server::new(|_| Busy).workers(workers).dispatch(dispatch);
                let server = start(server);
                let signals = [libc::SIGTERM, libc::SIGINT];
                server.handle.drain_on(&signals, HOUR).unwrap();
                let mut clients: Vec<_> = (0..2 * workers).map(|_| server.dial()).collect();
                clients
                    .iter_mut()
                    .for_each(|client| client.read_exact(&mut [0]).unwrap());
                raise(libc::SIGTERM);
                until_refused(&server.handle, server.address);
                raise(libc::SIGINT);
                server.thread.join().unwrap().unwrap();
            }
        }
    });
}

#[test]
fn a_signal_reaches_the_last_worker_that_lives() {
    in_child(|| {
        let server = Server::new(|_| Busy)
            .workers(3)
            .dispatch(Dispatch::HandOver);
        let server = start(server);
        server.handle.drain_on(&[libc::SIGTERM], HOUR).unwrap();
        // One worker has a connection, whichever it is. The others are done with a drain at once.
        let mut client = server.dial();
        client.read_exact(&mut [0]).unwrap();
        raise(libc::SIGTERM);
        let is_done = |runtime: &Handle| runtime.run_blocking(async || ()).is_err();
        let runtimes = server.handle.runtimes();
        while runtimes.iter().filter(|&runtime| is_done(runtime)).count() < 2 {
            between_looks();
        }
        raise(libc::SIGTERM);
        server.thread.join().unwrap().unwrap();
    });
}

static EARLIER: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_: i32) {
    EARLIER.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn a_handler_that_was_there_before_still_runs() {
    in_child(|| {
        // SAFETY: all zeros is a valid sigaction.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = count as *const () as usize;
        // SAFETY: the action is live, and its handler touches an atomic alone.
        let set = unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) };
        assert_eq!(set, 0);
        let server = start(Server::new(|_| Echo));
        server.handle.drain_on(&[libc::SIGUSR1], HOUR).unwrap();
        raise(libc::SIGUSR1);
        server.thread.join().unwrap().unwrap();
        assert_eq!(EARLIER.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn one_signal_drains_all_servers_and_a_runtime_of_yours_goes_on() {
    in_child(|| {
        let threads = || {
            std::fs::read_dir("/dev/fd/../task")
                .map(Iterator::count)
                .ok()
        };
        let runtime = Runtime::new().unwrap();
        let bind = || Server::new(|_| Echo).bind("127.0.0.1:0").unwrap();
        let all: Vec<Bound<_>> = (0..3).map(|_| bind()).collect();
        let before = threads();
        let serving: Vec<_> = all
            .iter()
            .map(|bound| {
                bound.handle().drain_on(&[libc::SIGHUP], HOUR).unwrap();
                bound.run_in(&runtime).unwrap()
            })
            .collect();
        runtime.block_on(async {
            raise(libc::SIGHUP);
            for server in serving {
                server.await.unwrap().unwrap();
            }
            assert_eq!(threads(), before, "a thread was made");
            netpoller::yield_now().await;
        });
        assert_eq!(runtime.stats().tasks, 0, "some tasks outlive their servers");
    });
}

#[test]
fn a_signal_before_the_server_runs_counts_and_a_queued_client_is_answered() {
    in_child(|| {
        let bound = Server::new(|_| Echo)
            .workers(2)
            .bind("127.0.0.1:0")
            .unwrap();
        bound.handle().drain_on(&[libc::SIGTERM], HOUR).unwrap();
        raise(libc::SIGTERM);
        let mut client = StdStream::connect(bound.local_addr()).unwrap();
        client.write_all(b"hello").unwrap();
        bound.run().unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"hello");
    });
}

#[test]
fn a_signal_that_is_listed_twice_drains_and_does_not_stop() {
    in_child(|| {
        let server = start(Server::new(|_| Busy));
        let signals = [libc::SIGTERM, libc::SIGINT, libc::SIGTERM];
        server.handle.drain_on(&signals, HOUR).unwrap();
        let mut client = server.dial();
        client.read_exact(&mut [0]).unwrap();
        raise(libc::SIGTERM);
        until_refused(&server.handle, server.address);
        raise(libc::SIGINT);
        server.thread.join().unwrap().unwrap();
    });
}

#[test]
fn what_is_no_signal_is_an_error_and_nothing_is_left_behind() {
    in_child(|| {
        let bound = Server::new(|_| Echo).bind("127.0.0.1:0").unwrap();
        let handle = bound.handle();
        let files = open_files();
        for wrong in [libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV, 0, -1, 1000] {
            let error = handle
                .drain_on(&[libc::SIGUSR2, wrong], SECOND)
                .unwrap_err();
            assert_eq!(
                error.kind(),
                io::ErrorKind::InvalidInput,
                "{wrong}: {error}"
            );
        }
        assert_eq!(open_files(), files);
        handle.drain_on(&[libc::SIGUSR2], SECOND).unwrap();
        drop((bound, handle));
        // With the server its descriptors go: the port's too.
        assert_eq!(open_files(), files - 1);
    });
}

#[test]
fn signals_without_end_while_nothing_reads_them_block_neither_the_handler_nor_the_end() {
    in_child(|| {
        let (go_on, wait) = mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        let server = Server::new(|_| Echo).on_worker(move |_| {
            let _ = wait.lock().unwrap().recv();
            Ok(())
        });
        let server = start(server);
        server.handle.drain_on(&[libc::SIGUSR1], HOUR).unwrap();
        (0..100_000).for_each(|_| raise(libc::SIGUSR1));
        thread::spawn(move || go_on.send(()).unwrap());
        server.thread.join().unwrap().unwrap();
    });
}

#[test]
fn short_of_descriptors_it_is_an_error_at_once_or_works_although_none_is_left() {
    in_child(|| {
        limit_open_files(200);
        let server = start(Server::new(|_| Echo).workers(3));
        let mut client = server.dial();
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
        // A pair is enough for all workers.
        for left in 0..=2 {
            let mut all = take_all_descriptors();
            all.truncate(all.len() - left);
            let added = server.handle.drain_on(&[libc::SIGUSR1], HOUR);
            match left {
                2 => {
                    added.unwrap();
                    raise(libc::SIGUSR1);
                    server.thread.join().unwrap().unwrap();
                    return;
                }
                _ => assert_eq!(added.unwrap_err().raw_os_error(), Some(libc::EMFILE)),
            }
        }
    });
}

#[test]
fn a_signal_to_a_child_of_fork_ends_no_server_of_its_parent() {
    in_child(|| {
        let server = start(Server::new(|_| Echo));
        server.handle.drain_on(&[libc::SIGUSR1], HOUR).unwrap();
        let mut client = server.dial();
        let mut exchange = || {
            client.write_all(b"x").unwrap();
            client.read_exact(&mut [0]).unwrap();
        };
        exchange();
        assert!(in_fork(|| (0..10).for_each(|_| raise(libc::SIGUSR1))));
        // Otherwise the bytes in the socket would drain the server meanwhile, and then stop it.
        (0..20).for_each(|_| exchange());
        raise(libc::SIGUSR1);
        server.thread.join().unwrap().unwrap();
    });
}

#[test]
fn a_call_that_fails_for_one_signal_leaves_the_others_alone() {
    in_child(|| {
        let bound = Server::new(|_| Echo).bind("127.0.0.1:0").unwrap();
        for wrong in [libc::SIGKILL, 0, 1000] {
            let signals = [libc::SIGTERM, wrong];
            bound.handle().drain_on(&signals, HOUR).unwrap_err();
        }
        // SAFETY: a null action changes nothing, and all of the bits are valid.
        let action = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            assert_eq!(
                libc::sigaction(libc::SIGTERM, std::ptr::null(), &mut action),
                0
            );
            action
        };
        assert_eq!(
            action.sa_sigaction,
            libc::SIG_DFL,
            "the system's default stays"
        );
    });
}
