//! A server that gets random orders while clients connect and leave.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream as StdStream};
use std::os::unix::net::{UnixListener, UnixStream as StdUnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netpoller::server::Listeners;
use netpoller::{Dispatch, ListenConfig, Server, ServerHandle};

use crate::support::random::Random;
use crate::support::running::{Echo, SECOND};
use crate::support::stall::stall;
use crate::support::temp_path::TempPath;
use crate::support::watchdog::watchdog;

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
    let (mut random, mut answered) = (Random::new(seed), 0);
    while !over.load(Ordering::Relaxed) {
        let length = 1 + random.below(100_000) as usize;
        let done = match random.below(2) {
            0 => StdStream::connect(address).map(|stream| exchange(stream, length)),
            _ => StdUnixStream::connect(path).map(|stream| exchange(stream, length)),
        };
        answered += usize::from(done.unwrap_or(false));
    }
    answered
}

fn end(handle: &ServerHandle, random: &mut Random) {
    let limit = Duration::from_millis(random.below(30));
    match random.below(4) {
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

#[test]
fn however_a_server_is_ended_under_churn_it_ends_soon_and_no_connection_is_left() {
    let _watchdog = watchdog();
    let began = Instant::now();
    let answered = AtomicUsize::new(0);
    for round in 0.. {
        if began.elapsed() > 2 * SECOND {
            break;
        }
        let mut random = Random::new(round);
        let path = TempPath::new();
        let listeners = Listeners::from(TcpListener::bind("127.0.0.1:0").unwrap())
            .and(UnixListener::bind(&path).unwrap())
            .and((ListenConfig::new(), "127.0.0.1:0"));
        let dispatch = match random.below(2) {
            0 => Dispatch::ReusePort,
            _ => Dispatch::HandOver,
        };
        let server = Server::new(|_| Echo)
            .workers(1 + random.below(4) as usize)
            .max_connections(1 + random.below(6) as usize)
            .dispatch(dispatch);
        let bound = server.bind_to(listeners).unwrap();
        let (addrs, handle) = (bound.local_addrs(), bound.handle());
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for (seed, addr) in [&addrs[0], &addrs[2], &addrs[2]].into_iter().enumerate() {
                let (path, over, answered) = (path.as_ref(), &over, &answered);
                let address = addr.socket().unwrap();
                scope.spawn(move || {
                    let more = come_and_go(seed as u64, address, path, over);
                    answered.fetch_add(more, Ordering::Relaxed);
                });
            }
            let serving = scope.spawn(|| bound.run());
            stall(Duration::from_millis(random.below(60)));
            end(&handle, &mut random);
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
    }
    assert!(answered.load(Ordering::Relaxed) > 10);
}
