//! Invariant 7 for connections: one that is always ready yields to the others. By counts of bytes
//! and turns; no clock.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use netpoller::{Addr, Bound, Conn, Protocol, Runtime, Server};

use crate::support::watchdog::watchdog;

const NOW: Option<Duration> = Some(Duration::ZERO);

/// What a machine may move in a run: its budget, and the excess of the last operation.
const A_RUN_READS: usize = 2 * 64 * 1024;
const A_RUN_WRITES: usize = (64 + 256) * 1024;

/// Counts its input and drops it, except for `ping` and `flood`.
struct Swallows(Arc<AtomicUsize>);

impl Protocol for Swallows {
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        match bytes {
            b"ping" => conn.write(b"pong")?,
            b"flood" => conn.write(&vec![0; 12 << 20])?,
            _ => {
                self.0.fetch_add(bytes.len(), Ordering::Relaxed);
            }
        }
        Ok(bytes.len())
    }
}

fn server(swallowed: &Arc<AtomicUsize>) -> Bound<impl Fn(Addr) -> Swallows + Send + Sync + use<>> {
    let counter = swallowed.clone();
    let server = Server::new(move |_| Swallows(counter.clone()));
    server.bind("127.0.0.1:0").unwrap()
}

/// Connects clients, and turns until their connections are open and nothing is left to run.
fn clients<const N: usize>(runtime: &Runtime, address: SocketAddr) -> [TcpStream; N] {
    let clients = std::array::from_fn(|_| TcpStream::connect(address).unwrap());
    while runtime.stats().connections < N || runtime.next_timeout() == Some(Duration::ZERO) {
        runtime.turn(NOW).unwrap();
    }
    clients
}

/// Turns until the answer has come. Returns how many turns that took.
fn turns_until_pong(runtime: &Runtime, other: &mut TcpStream) -> usize {
    other.set_nonblocking(true).unwrap();
    for turn in 1.. {
        runtime.turn(NOW).unwrap();
        if matches!(other.read(&mut [0; 4]), Ok(4)) {
            return turn;
        }
        assert!(turn < 1000, "it is never served");
    }
    unreachable!()
}

mod invariant_7 {
    use super::*;

    #[test]
    fn a_connection_with_always_more_to_read_yields_to_the_others() {
        let _watchdog = watchdog();
        let swallowed = Arc::new(AtomicUsize::new(0));
        let runtime = Runtime::new().unwrap();
        let bound = server(&swallowed);
        let serving = bound.run_in(&runtime).unwrap();
        let [mut busy, mut other] = clients(&runtime, bound.local_addr());
        busy.set_nonblocking(true).unwrap();
        let mut waiting = 0;
        while let Ok(more) = busy.write(&[7; 64 << 10]) {
            waiting += more;
        }
        assert!(waiting > 2 * A_RUN_READS, "{waiting} bytes are too few");

        // While the busy connection has input, a run reads at most its budget, and the other
        // connection is served.
        let mut before = 0;
        while swallowed.load(Ordering::Relaxed) < waiting {
            other.set_nonblocking(false).unwrap();
            other.write_all(b"ping").unwrap();
            let turns = turns_until_pong(&runtime, &mut other);
            let now = swallowed.load(Ordering::Relaxed);
            assert!(turns <= 3, "served after {turns} turns");
            assert!(now - before <= turns * A_RUN_READS, "{}", now - before);
            before = now;
        }
        drop((busy, serving));
    }

    #[test]
    fn a_connection_with_always_more_to_write_yields_to_the_others() {
        let _watchdog = watchdog();
        let runtime = Runtime::new().unwrap();
        let bound = server(&Arc::default());
        let serving = bound.run_in(&runtime).unwrap();
        let [mut busy, mut other] = clients(&runtime, bound.local_addr());
        busy.write_all(b"flood").unwrap();
        while bound.handle().stats().sent() == 0 {
            runtime.turn(NOW).unwrap();
        }
        busy.set_nonblocking(true).unwrap();
        let mut sink = vec![0; 1 << 20];
        let mut got = 0;
        let (mut runs, mut most) = (0, 0);
        while got < 12 << 20 {
            // The peer takes all there is, so that there is always room.
            while let Ok(more @ 1..) = busy.read(&mut sink) {
                got += more;
            }
            let before = bound.handle().stats().sent();
            other.set_nonblocking(false).unwrap();
            other.write_all(b"ping").unwrap();
            let turns = turns_until_pong(&runtime, &mut other);
            let sent = (bound.handle().stats().sent() - before) as usize;
            assert!(turns <= 3, "{turns}");
            assert!(sent <= turns * A_RUN_WRITES + 4, "{sent} in {turns} turns");
            runs += turns;
            most = most.max(sent);
        }
        assert!(
            runs > 10 && most > 64 * 1024,
            "{runs} turns, {most} at most"
        );
        drop(serving);
    }
}
