//! A panic of the loop itself, outside of every machine: of a logger. A worker that dies of it
//! loses only its own clients, and a turn loses no machine.

use std::cell::Cell;
use std::io::{self, Read};
use std::net::TcpStream as StdStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use log::{LevelFilter, Log, Metadata, Record};
use netpoller::{Dispatch, Runtime, Server};

use crate::child::in_child;
use crate::support::running::{Echo, echo, start};
use crate::support::stall::stall;

/// Panics once, at a line of the thread of this name that begins so.
struct Kills(&'static str, &'static str);

static KILLED: AtomicBool = AtomicBool::new(false);

impl Log for Kills {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        let is_its = thread::current().name() == Some(self.0);
        if is_its && record.args().to_string().starts_with(self.1) {
            let again = KILLED.swap(true, Ordering::SeqCst);
            assert!(again, "a test's own panic");
        }
    }
    fn flush(&self) {}
}

#[test]
fn when_a_worker_dies_new_clients_go_to_the_others() {
    in_child(|| {
        log::set_logger(&Kills("netpoller-worker-1", "done ")).unwrap();
        log::set_max_level(LevelFilter::Trace);
        let server = start(
            Server::new(|_| Echo)
                .workers(2)
                .dispatch(Dispatch::HandOver),
        );
        let mut clients: Vec<_> = (0..6).map(|_| server.dial()).collect();
        clients
            .iter_mut()
            .for_each(|client| echo(client, b"all live"));
        let stats = server.handle.stats();
        assert!(
            stats.workers.iter().all(|worker| worker.live >= 2),
            "{stats:?}"
        );

        // Clients leave one by one, until one of the second worker's has left.
        while !KILLED.load(Ordering::SeqCst) {
            drop(clients.pop());
            let left = clients.len() as u64;
            server.wait_for(|stats| stats.live() <= left);
        }
        server.wait_for(|stats| stats.workers[1].live == 0);
        let survivors = server.handle.stats().live();
        let is_served = |mut client: &StdStream| {
            client.set_nonblocking(true).unwrap();
            let waits = client.read(&mut [0]).map_err(|error| error.kind());
            waits == Err(io::ErrorKind::WouldBlock)
        };
        let served = clients.iter().filter(|client| is_served(client)).count();
        assert_eq!(
            served as u64, survivors,
            "it ended connections of the other worker"
        );

        let mut more: Vec<_> = (0..20).map(|_| server.dial()).collect();
        more.iter_mut().for_each(|client| echo(client, b"served"));
        let stats = server.handle.stats();
        assert_eq!(stats.workers[0].live, survivors + 20);
        server.handle.stop();
        let error = server.thread.join().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "a worker panicked");
    });
}

#[test]
fn what_is_queued_behind_a_panic_runs_in_the_next_turn() {
    in_child(|| {
        log::set_logger(&Kills("host", "done ")).unwrap();
        log::set_max_level(LevelFilter::Trace);
        let host = thread::Builder::new().name("host".into()).spawn(|| {
            let runtime = Runtime::new().unwrap();
            let ran = Rc::new(Cell::new(0));
            let task = || {
                let ran = ran.clone();
                runtime.spawn(async move { ran.set(ran.get() + 1) })
            };
            let [first, _second, _third] = [task(), task(), task()];
            let turn = || runtime.turn(Some(Duration::ZERO)).unwrap();
            catch_unwind(AssertUnwindSafe(turn)).expect_err("the logger panics");
            assert_eq!(ran.get(), 1);
            assert!(first.is_finished(), "its end was logged, and is told too");
            assert_eq!(turn().machines, 2);
            assert_eq!(ran.get(), 3);
            assert_eq!(runtime.stats().tasks, 0);
        });
        host.unwrap().join().unwrap();
    });
}

#[test]
fn what_is_queued_behind_a_batch_that_held_the_loop_runs_although_the_warning_panics() {
    in_child(|| {
        log::set_logger(&Kills("host", "the loop was held")).unwrap();
        log::set_max_level(LevelFilter::Warn);
        let host = thread::Builder::new().name("host".into()).spawn(|| {
            let runtime = Runtime::new().unwrap();
            drop(runtime.spawn(async { stall(Duration::from_millis(1100)) }));
            // More than a batch.
            for _ in 0..1100 {
                drop(runtime.spawn(async {}));
            }
            let turn = || runtime.turn(Some(Duration::ZERO)).unwrap();
            catch_unwind(AssertUnwindSafe(turn)).expect_err("the logger panics");
            let left = 1101 - 1024;
            assert_eq!(turn().machines, left);
        });
        host.unwrap().join().unwrap();
    });
}
