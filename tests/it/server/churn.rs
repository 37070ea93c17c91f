//! A server that gets random orders while clients connect and leave.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream as StdStream};
use std::os::unix::net::{UnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netpoller::server::Listeners;
use netpoller::{Dispatch, ListenConfig, Server, ServerHandle};

use crate::support::running::{Echo, SECOND};
use crate::support::stall::stall;
use crate::support::watchdog::watchdog;

/// Numbers that are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

/// One exchange: true if it was answered, false if the server has ended it.
fn exchange(mut stream: impl Read + Write, length: usize) -> bool {
    let message = vec![7; length];
    let mut answer = vec![0; length];
    if stream.write_all(&message).is_err() || stream.read_exact(&mut answer).is_err() {
        return false;
    }
    assert_eq!(answer, message);
    true
}

fn come_and_go(seed: u64, address: SocketAddr, path: &Path, over: &AtomicBool) -> usize {
    let (mut numbers, mut answered) = (Numbers(seed), 0);
    while !over.load(Ordering::Relaxed) {
        let length = 1 + numbers.below(100_000) as usize;
        let done = match numbers.below(2) {
            0 => StdStream::connect(address).map(|stream| exchange(stream, length)),
            _ => StdUnixStream::connect(path).map(|stream| exchange(stream, length)),
        };
        answered += usize::from(done.unwrap_or(false));
    }
    answered
}

fn end(handle: &ServerHandle, numbers: &mut Numbers) {
    let limit = Duration::from_millis(numbers.below(30));
    match numbers.below(4) {
        0 => handle.stop(),
        1 => handle.drain(limit),
        2 => {
            handle.drain(10 * SECOND);
            stall(limit);
            handle.stop();
        }
        _ => {
            handle.drain(10 * SECOND);
            handle.drain(limit);
        }
    }
}

fn path() -> PathBuf {
    std::env::temp_dir().join(format!("netpoller-it-churn-{}", std::process::id()))
}

#[test]
fn however_a_server_is_ended_under_churn_it_ends_soon_and_no_connection_is_left() {
    let _watchdog = watchdog();
    let began = Instant::now();
    let answered = AtomicUsize::new(0);
    for round in 0.. {
        if began.elapsed() > 2 * SECOND {
            break;
        }
        let mut numbers = Numbers(round);
        let path = path();
        let listeners = Listeners::from(TcpListener::bind("127.0.0.1:0").unwrap())
            .and(UnixListener::bind(&path).unwrap())
            .and((ListenConfig::new(), "127.0.0.1:0"));
        let dispatch = match numbers.below(2) {
            0 => Dispatch::ReusePort,
            _ => Dispatch::HandOver,
        };
        let server = Server::new(|_| Echo)
            .workers(1 + numbers.below(4) as usize)
            .max_connections(1 + numbers.below(6) as usize)
            .dispatch(dispatch);
        let bound = server.bind_to(listeners).unwrap();
        let (addrs, handle) = (bound.local_addrs(), bound.handle());
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for (seed, addr) in [&addrs[0], &addrs[2], &addrs[2]].into_iter().enumerate() {
                let (path, over, answered) = (&path, &over, &answered);
                let address = addr.socket().unwrap();
                scope.spawn(move || {
                    let more = come_and_go(seed as u64, address, path, over);
                    answered.fetch_add(more, Ordering::Relaxed);
                });
            }
            let serving = scope.spawn(|| bound.run());
            stall(Duration::from_millis(numbers.below(60)));
            end(&handle, &mut numbers);
            let told = Instant::now();
            let stats = serving.join().unwrap().unwrap();
            assert!(
                told.elapsed() < 5 * SECOND,
                "round {round}: {:?}",
                told.elapsed()
            );
            assert_eq!(stats.live(), 0, "round {round}");
            over.store(true, Ordering::Relaxed);
        });
        std::fs::remove_file(&path).unwrap();
    }
    assert!(answered.load(Ordering::Relaxed) > 10);
}
