//! Echo services over a selector full of faults: as tasks, as connections, and as machines of one's
//! own on a bare reactor. Every byte comes back, nothing that was served times out, and nothing is left.
//!
//! A failure prints its seed; `SEED=n cargo test --test it faulty_selector` repeats it, and
//! `SEEDS=2000` sets how many are run.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use mio::net::{TcpListener as MioListener, TcpStream as MioStream};
use netpoller::reactor::{Descriptor, Direction, Park, Reactor};
use netpoller::{Conn, NetError, Protocol, Server, TcpListener, TcpStream, spawn, time};

use crate::support::faulty::{faulty, with_seeds};
use crate::support::random::Random;
use crate::support::schedule::scheduled;
use crate::support::watchdog::watchdog;

const SEEDS: u64 = 400;
const LIMIT: Duration = Duration::from_secs(10);

fn pattern(random: &mut Random) -> Vec<u8> {
    let length = match random.below(4) {
        0 => random.below(8) + 1,
        1..=2 => random.below(3000) + 1,
        // More than a socket's buffers take: both ends park to write.
        _ if random.one_in(50) => 6 << 20,
        _ => random.below(40_000) + 1,
    };
    // No two neighbouring pieces are alike: one lost, doubled or out of place would show.
    let pieces = (0..length.div_ceil(8)).map(|at| (at ^ random.below(u64::MAX)).to_ne_bytes());
    let mut pattern = pieces.collect::<Vec<_>>().into_flattened();
    pattern.truncate(length as usize);
    pattern
}

// ---- tasks ----

async fn echo(stream: TcpStream) -> io::Result<()> {
    loop {
        stream.set_deadline(Some(time::now() + LIMIT))?;
        let bytes = stream.read_with(<[u8]>::to_vec).await?;
        if bytes.is_empty() {
            return stream.close_write();
        }
        stream.write_all(&bytes).await?;
    }
}

async fn client(address: std::net::SocketAddr, mut random: Random) {
    for _ in 0..=random.below(2) {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_deadline(Some(time::now() + LIMIT)).unwrap();
        for _ in 0..random.below(3) {
            let sent = pattern(&mut random);
            let mut got = vec![0; sent.len()];
            let writing = stream.clone();
            let write = spawn(async move {
                writing.write_all(&sent).await.unwrap();
                sent
            });
            stream.read_exact(&mut got).await.unwrap();
            assert!(
                write.await.unwrap() == got,
                "what came back is not what went"
            );
            stream.set_deadline(Some(time::now() + LIMIT)).unwrap();
        }
        match random.below(3) {
            // Every way to close: the key is free for the next descriptor, while events are still
            // held back.
            0 => stream.abort().unwrap(),
            1 => drop(stream),
            _ => {
                stream.close_write().unwrap();
                assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
            }
        }
    }
}

#[test]
fn tasks_echo_every_byte_over_a_faulty_selector() {
    let _watchdog = watchdog();
    with_seeds(SEEDS, |seed| {
        let runtime = scheduled(seed).build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let accepting = listener.clone();
            let server = spawn(async move {
                let mut served = Vec::new();
                while let Ok((stream, _)) = accepting.accept().await {
                    served.push(spawn(echo(stream)));
                }
                for connection in served {
                    if let Err(error) = connection.await.unwrap() {
                        assert!(!error.is_timeout() && !error.is_closed(), "{error}");
                    }
                }
            });
            let clients = [1, 2].map(|n| spawn(client(address, Random::new(seed * 3 + n))));
            for client in clients {
                client.await.unwrap();
            }
            listener.close().unwrap();
            server.await.unwrap();
        });
        let stats = runtime.stats();
        assert_eq!((stats.tasks, stats.descriptors), (0, 0), "{stats:?}");
        assert_eq!((stats.timers, stats.waiters), (0, 0), "{stats:?}");
    });
}

#[test]
fn a_deadline_expires_at_its_very_tick_over_a_faulty_selector() {
    let _watchdog = watchdog();
    with_seeds(SEEDS / 3, |seed| {
        let runtime = scheduled(seed).build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap())
                .await
                .unwrap();
            let (server, _) = listener.accept().await.unwrap();
            let start = time::now();
            server.set_read_deadline(Some(start + LIMIT)).unwrap();
            server.set_read_deadline(Some(start + 2 * LIMIT)).unwrap();
            client.set_read_deadline(Some(start + LIMIT)).unwrap();
            let both = [server, client].map(|stream| {
                spawn(async move {
                    let error = stream.read(&mut [0; 8]).await.unwrap_err();
                    assert!(error.is_timeout(), "{error}");
                    // Kept open: its end would be the other's end of file.
                    (stream, time::now())
                })
            });
            let [server, client] = both;
            let (_open, client_ended) = client.await.unwrap();
            assert_eq!(client_ended, start + LIMIT);
            assert_eq!(server.await.unwrap().1, start + 2 * LIMIT);
        });
    });
}

// ---- connections ----

struct Echoes;

impl Protocol for Echoes {
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        conn.write(bytes)?;
        Ok(bytes.len())
    }
    fn heartbeat(&mut self, _: &mut Conn) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn connections_echo_every_byte_over_a_faulty_selector() {
    let _watchdog = watchdog();
    with_seeds(SEEDS, |seed| {
        let runtime = scheduled(seed).build().unwrap();
        let server = Server::new(|_| Echoes);
        let server = server.idle_timeout(LIMIT).heartbeat(LIMIT / 3);
        let bound = server.bind("127.0.0.1:0").unwrap();
        let serving = bound.run_in(&runtime).unwrap();
        runtime.block_on(async {
            let address = bound.local_addr();
            let clients = [1, 2].map(|n| spawn(client(address, Random::new(seed * 3 + n))));
            for client in clients {
                client.await.unwrap();
            }
            bound.handle().drain(LIMIT);
            let stats = serving.await.unwrap().unwrap();
            assert_eq!((stats.live(), stats.workers[0].idled), (0, 0));
        });
        let stats = runtime.stats();
        assert_eq!((stats.tasks, stats.connections), (0, 0), "{stats:?}");
        assert_eq!((stats.descriptors, stats.timers), (0, 0), "{stats:?}");
    });
}

// ---- machines of one's own ----

enum Next {
    Wait(Direction),
    Done,
}

trait Machine {
    /// Goes on until it has to wait.
    fn drive(&mut self, socket: &mut MioStream, descriptor: &Descriptor<usize>)
    -> io::Result<Next>;
}

/// Reads, and gives it back.
#[derive(Default)]
struct Echo {
    rest: Vec<u8>,
    ended: bool,
}

impl Machine for Echo {
    fn drive(
        &mut self,
        socket: &mut MioStream,
        descriptor: &Descriptor<usize>,
    ) -> io::Result<Next> {
        let mut buffer = [0; 4096];
        loop {
            while !self.rest.is_empty() {
                match socket.write(&self.rest) {
                    Ok(gone) => drop(self.rest.drain(..gone)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        return Ok(Next::Wait(Direction::Write));
                    }
                    Err(error) => return Err(error),
                }
            }
            if self.ended {
                return Ok(Next::Done);
            }
            match socket.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(got) => {
                    self.rest.extend_from_slice(&buffer[..got]);
                    // If a short read proves the socket empty, no read for EAGAIN is needed.
                    if got < buffer.len() && descriptor.short_means_drained() {
                        let gone = socket.write(&self.rest).unwrap_or(0);
                        self.rest.drain(..gone);
                        if self.rest.is_empty() {
                            return Ok(Next::Wait(Direction::Read));
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Next::Wait(Direction::Read));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Writes a message, reads it back, and ends.
struct Client {
    sent: Vec<u8>,
    gone: usize,
    got: Vec<u8>,
}

impl Machine for Client {
    fn drive(&mut self, socket: &mut MioStream, _: &Descriptor<usize>) -> io::Result<Next> {
        while self.gone < self.sent.len() {
            match socket.write(&self.sent[self.gone..]) {
                Ok(gone) => self.gone += gone,
                // Still connecting, on some systems.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::NotConnected
                    ) =>
                {
                    return Ok(Next::Wait(Direction::Write));
                }
                Err(error) => return Err(error),
            }
            if self.gone == self.sent.len() {
                socket.shutdown(Shutdown::Write)?;
            }
        }
        let mut buffer = [0; 4096];
        loop {
            match socket.read(&mut buffer) {
                Ok(0) => {
                    assert!(self.got == self.sent, "what came back is not what went");
                    return Ok(Next::Done);
                }
                Ok(got) => self.got.extend_from_slice(&buffer[..got]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Next::Wait(Direction::Read));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

struct Connection {
    socket: MioStream,
    descriptor: Descriptor<usize>,
    machine: Box<dyn Machine>,
}

struct Loop {
    reactor: Reactor<usize>,
    connections: Vec<Option<Connection>>,
}

impl Loop {
    fn add(&mut self, mut socket: MioStream, machine: impl Machine + 'static) {
        let descriptor = self.reactor.open(&mut socket).unwrap();
        let machine = Box::new(machine);
        let id = self.connections.len();
        self.connections.push(Some(Connection {
            socket,
            descriptor,
            machine,
        }));
        self.run(id);
    }

    fn run(&mut self, id: usize) {
        let connection = self.connections[id].as_mut().expect("woken after its end");
        let Connection {
            socket,
            descriptor,
            machine,
        } = connection;
        if let Next::Wait(direction) = machine.drive(socket, descriptor).unwrap() {
            descriptor.drained(direction);
            assert_eq!(descriptor.park(direction, id), Park::Parked);
            return;
        }
        let mut connection = self.connections[id].take().expect("it has just run");
        self.reactor
            .close(connection.descriptor, &mut connection.socket)
            .unwrap();
    }
}

#[test]
fn machines_on_a_bare_reactor_echo_every_byte_over_a_faulty_selector() {
    let _watchdog = watchdog();
    const LISTENER: usize = usize::MAX;
    with_seeds(SEEDS, |seed| {
        let mut random = Random::new(seed);
        let mut event_loop = Loop {
            reactor: Reactor::with(faulty(seed)),
            connections: Vec::new(),
        };
        let mut listener = MioListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listening = event_loop.reactor.open(&mut listener).unwrap();
        assert_eq!(listening.park(Direction::Read, LISTENER), Park::Parked);
        let mut clients = 3;
        for _ in 0..clients {
            let socket = MioStream::connect(listener.local_addr().unwrap()).unwrap();
            let sent = pattern(&mut random);
            let client = Client {
                sent,
                gone: 0,
                got: Vec::new(),
            };
            event_loop.add(socket, client);
        }
        let mut out = Vec::new();
        while clients > 0 || event_loop.connections.iter().any(Option::is_some) {
            event_loop.reactor.turn(None, &mut out).unwrap();
            for id in out.drain(..) {
                if id != LISTENER {
                    event_loop.run(id);
                    continue;
                }
                while let Ok((socket, _)) = listener.accept() {
                    clients -= 1;
                    event_loop.add(socket, Echo::default());
                }
                listening.drained(Direction::Read);
                assert_eq!(listening.park(Direction::Read, LISTENER), Park::Parked);
            }
        }
        assert_eq!(event_loop.reactor.descriptors(), 1, "the listener's");
    });
}
