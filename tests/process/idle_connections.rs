//! How much heap an idle connection takes.

use std::io::{self, Read, Write};
use std::net::TcpStream as StdStream;
use std::time::Duration;

use netpoller::{Conn, Limits, Protocol, Runtime, Server, TcpListener, spawn, time};

use crate::allocator::held;
use crate::child::in_child;
use crate::support::run::run;
use crate::support::running::{Echo, PassesAll};

/// The most, in bytes, of an idle connection with its idle timeout armed.
const PROTOCOL: isize = 256 + SELECTOR;
const TASK: isize = 400 + SELECTOR;

/// What the selector itself keeps of a descriptor: mio's poll(2) has a table, the system's are in
/// the kernel.
const SELECTOR: isize = if cfg!(mio_unsupported_force_poll_poll) {
    104
} else {
    0
};

/// Below a power of two, so that no list has just doubled.
const COUNT: usize = 1000;

#[test]
fn an_idle_connection_of_a_server_stays_below_its_ceiling() {
    in_child(|| {
        let runtime = Runtime::new().unwrap();
        let server = Server::new(|_| Echo).idle_timeout(Duration::from_secs(3600));
        let bound = server.bind("127.0.0.1:0").unwrap();
        drop(bound.run_in(&runtime).unwrap());
        let open = || {
            let client = StdStream::connect(bound.local_addr()).unwrap();
            let connections = runtime.stats().connections;
            while runtime.stats().connections == connections {
                runtime.turn(None).unwrap();
            }
            client
        };
        let mut first = open();
        // The loop's buffer comes with the first bytes.
        first.write_all(b"!").unwrap();
        runtime.turn(None).unwrap();
        let mut clients = Vec::with_capacity(COUNT);
        let before = held();
        clients.extend((0..COUNT).map(|_| open()));
        let each = (held() - before) / COUNT as isize;
        assert!((1..=PROTOCOL).contains(&each), "{each} bytes");
        drop(first);
    });
}

#[test]
fn an_idle_connection_with_a_task_stays_below_its_ceiling() {
    in_child(|| {
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let open = async || {
                let client = StdStream::connect(address).unwrap();
                let (stream, _) = listener.accept().await.unwrap();
                drop(spawn(async move {
                    loop {
                        let hour = Duration::from_secs(3600);
                        stream.set_read_deadline(Some(time::now() + hour))?;
                        let read = stream.read_with(<[u8]>::to_vec).await?;
                        stream.write_all(&read).await?;
                    }
                    #[expect(unreachable_code)]
                    io::Result::Ok(())
                }));
                client
            };
            let mut first = open().await;
            first.write_all(b"!").unwrap();
            time::sleep(Duration::from_millis(1)).await;
            let mut clients = Vec::with_capacity(COUNT);
            let before = held();
            for _ in 0..COUNT {
                clients.push(open().await);
            }
            netpoller::yield_now().await;
            let each = (held() - before) / COUNT as isize;
            assert!((1..=TASK).contains(&each), "{each} bytes");
            drop(first);
        });
    });
}

#[test]
fn an_idle_connection_with_a_filter_keeps_none_of_the_memory_of_a_long_message() {
    in_child(|| {
        let runtime = Runtime::new().unwrap();
        let bound = Server::new(|_| Echo)
            .filter(|_| PassesAll)
            .bind("127.0.0.1:0")
            .unwrap();
        drop(bound.run_in(&runtime).unwrap());
        let mut clients = Vec::with_capacity(100);
        let mut talk = || {
            let mut client = StdStream::connect(bound.local_addr()).unwrap();
            client.write_all(&[7; 10_000]).unwrap();
            let sent = bound.handle().stats().sent();
            while bound.handle().stats().sent() < sent + 10_000 {
                runtime.turn(None).unwrap();
            }
            clients.push(client);
        };
        talk();
        let before = held();
        (1..100).for_each(|_| talk());
        let each = (held() - before) / 99;
        assert!((1..=2000).contains(&each), "{each} bytes");
    });
}

/// Answers each request with `ANSWER` bytes.
struct Long;

const ANSWER: usize = 8 << 20;

impl Protocol for Long {
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        conn.write(&vec![7; ANSWER])?;
        Ok(bytes.len())
    }
}

#[test]
fn an_idle_connection_keeps_nothing_of_an_answer_that_its_peer_took_late() {
    in_child(|| {
        let runtime = Runtime::new().unwrap();
        // The server reads while it sends, so what the peer takes is no sign of life: it is noted apart.
        let limits = Limits::default().with_high_water(ANSWER);
        let bound = Server::new(|_| Long)
            .limits(limits)
            .bind("127.0.0.1:0")
            .unwrap();
        drop(bound.run_in(&runtime).unwrap());
        let mut buffer = vec![0; 1 << 20];
        let ask = || {
            let mut client = StdStream::connect(bound.local_addr()).unwrap();
            client.write_all(b"?").unwrap();
            client.set_nonblocking(true).unwrap();
            let mut got = 0;
            while got < ANSWER {
                runtime.turn(Some(Duration::ZERO)).unwrap();
                got += client.read(&mut buffer).unwrap_or(0);
            }
            client
        };
        let clients: Vec<_> = std::iter::repeat_with(ask).take(20).collect();
        let before = held();
        // The note is freed once the grace of a drain would have passed.
        let turn = |_| runtime.turn(Some(Duration::from_millis(10))).unwrap();
        let mut turns = (0..500).map(turn);
        let is_freed = turns.any(|_| (before - held()) / clients.len() as isize >= 200);
        assert!(is_freed, "{} bytes", before - held());
    });
}
