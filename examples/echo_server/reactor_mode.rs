//! The echo server on the bare reactor: no task, no future, a slab of state machines.
//!
//! This is the way to put the netpoller under a loop of your own. Read it from `serve` down: a
//! turn says whose turn it is, and `drive` goes on with that one until it has to wait.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpListener as StdListener;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use netpoller::reactor::{Descriptor, Direction, Park, Reactor};
use slab::Slab;

use super::{Backoff, Counts, DRAIN, Options, QUIET};

/// What is parked is the number of a connection, or one of these.
const LISTENER: usize = usize::MAX;
const STOP: usize = usize::MAX - 1;

/// Room for one read, shared by all: a connection that waits holds none.
const BUFFER: usize = 64 * 1024;

/// A connection: what it waits for follows from whether anything is left to write.
struct Connection {
    stream: TcpStream,
    descriptor: Descriptor<usize>,
    /// Read, and not yet taken by the kernel. Nothing more is read before it has gone.
    rest: Vec<u8>,
    ended: bool,
}

/// What a connection comes to when it has been driven.
enum Next {
    Wait(Direction),
    /// It could go on, but others have their turn first.
    Again,
    Close,
}

struct Server {
    reactor: Reactor<usize>,
    connections: Slab<Connection>,
    buffer: Vec<u8>,
    idle_timeout: Option<Duration>,
    counts: Counts,
    /// Connections that did not wait.
    again: Vec<usize>,
}

pub fn serve(options: &Options, listener: StdListener, stop: UnixStream) -> io::Result<Counts> {
    let mut server = Server {
        reactor: Reactor::new()?,
        connections: Slab::new(),
        buffer: vec![0; BUFFER],
        idle_timeout: options.idle_timeout,
        counts: Counts::default(),
        again: Vec::new(),
    };
    server.reactor.set_spin(options.spin.unwrap_or_default());

    let mut stop = mio::net::UnixStream::from_std(stop);
    let stopped = server.reactor.open(&mut stop)?;
    stopped.park(Direction::Read, STOP);
    let mut door = Door::open(&server.reactor, listener)?;

    let mut ready = Vec::new();
    loop {
        server.turn(None, &mut ready)?;
        for id in ready.drain(..) {
            match id {
                STOP => {
                    server.reactor.close(door.descriptor, &mut door.listener)?;
                    return server.drain();
                }
                LISTENER => door.accept(&mut server),
                id => server.run(id),
            }
        }
    }
}

impl Server {
    /// One turn; who did not wait in the last one comes first.
    fn turn(&mut self, max_wait: Option<Duration>, ready: &mut Vec<usize>) -> io::Result<()> {
        ready.append(&mut self.again);
        let max_wait = if ready.is_empty() {
            max_wait
        } else {
            Some(Duration::ZERO)
        };
        let turn = self.reactor.turn(max_wait, ready)?;
        self.counts.turns += 1;
        self.counts.events += turn.events as u64;
        Ok(())
    }

    fn add(&mut self, mut stream: TcpStream) -> io::Result<()> {
        let descriptor = self.reactor.open(&mut stream)?;
        let id = self.connections.insert(Connection {
            stream,
            descriptor,
            rest: Vec::new(),
            ended: false,
        });
        self.counts.accepted += 1;
        self.run(id);
        Ok(())
    }

    /// Drives a connection, and parks it where it has to wait.
    fn run(&mut self, id: usize) {
        let connection = &mut self.connections[id];
        let next = match connection.drive(&mut self.buffer, &mut self.counts.bytes) {
            Ok(next) => next,
            Err(error) => {
                log::debug!("connection {id}: {error}");
                Next::Close
            }
        };
        match next {
            Next::Wait(direction) => {
                if let (Some(limit), Direction::Read) = (self.idle_timeout, direction) {
                    let deadline = self.reactor.now() + limit;
                    connection
                        .descriptor
                        .set_deadline(Direction::Read, Some(deadline));
                }
                match connection.descriptor.park(direction, id) {
                    Park::Parked => {}
                    // Ready meanwhile; or timed out or closed, which `drive` will find.
                    Park::Ready(id) | Park::TimedOut(id) | Park::Closed(id) => self.again.push(id),
                }
            }
            Next::Again => self.again.push(id),
            Next::Close => self.close(id),
        }
    }

    fn close(&mut self, id: usize) {
        let Connection {
            mut stream,
            descriptor,
            ..
        } = self.connections.remove(id);
        if let Err(error) = self.reactor.close(descriptor, &mut stream) {
            log::debug!("connection {id}: {error}");
        }
    }

    /// Gives what is in flight its time: a connection that stays quiet has nothing left.
    fn drain(mut self) -> io::Result<Counts> {
        let end = Instant::now() + DRAIN;
        self.idle_timeout = Some(QUIET);
        let quiet = Instant::now() + QUIET;
        for (_, connection) in &self.connections {
            connection
                .descriptor
                .set_deadline(Direction::Read, Some(quiet));
        }
        let mut ready = Vec::new();
        while !self.connections.is_empty() && Instant::now() < end {
            self.turn(Some(end - Instant::now()), &mut ready)?;
            for id in ready.drain(..) {
                if self.connections.contains(id) {
                    self.run(id);
                }
            }
        }
        self.counts.open = self.connections.len() as u64;
        Ok(self.counts)
    }
}

impl Connection {
    /// One read and one write at most.
    fn drive(&mut self, buffer: &mut [u8], bytes: &mut u64) -> io::Result<Next> {
        if !self.rest.is_empty() {
            return self.write_rest();
        }
        if self.descriptor.check(Direction::Read).is_err() {
            return Ok(Next::Close);
        }
        let got = match self.stream.read(buffer) {
            Ok(0) => return self.end(),
            Ok(got) => got,
            Err(error) => return self.failed(Direction::Read, error),
        };
        *bytes += got as u64;
        let gone = match self.stream.write(&buffer[..got]) {
            Ok(gone) => gone,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        if gone < got {
            self.rest.extend_from_slice(&buffer[gone..got]);
            return self.write_rest();
        }
        // Less than there was room for: the kernel has no more, and a probe can be saved.
        if got < buffer.len() && self.descriptor.short_means_drained() {
            self.descriptor.drained(Direction::Read);
            return Ok(Next::Wait(Direction::Read));
        }
        Ok(Next::Again)
    }

    fn write_rest(&mut self) -> io::Result<Next> {
        match self.stream.write(&self.rest) {
            Ok(gone) if gone < self.rest.len() => {
                self.rest.drain(..gone);
                Ok(Next::Again)
            }
            Ok(_) => {
                self.rest = Vec::new();
                if self.ended {
                    self.end()
                } else {
                    Ok(Next::Again)
                }
            }
            Err(error) => self.failed(Direction::Write, error),
        }
    }

    /// The peer has ended: it got everything back, and now our end.
    fn end(&mut self) -> io::Result<Next> {
        self.stream.shutdown(std::net::Shutdown::Write)?;
        Ok(Next::Close)
    }

    fn failed(&mut self, direction: Direction, error: io::Error) -> io::Result<Next> {
        match error.kind() {
            ErrorKind::WouldBlock => {
                self.descriptor.drained(direction);
                Ok(Next::Wait(direction))
            }
            ErrorKind::Interrupted => Ok(Next::Again),
            _ => Err(error),
        }
    }
}

/// The listener. When descriptors run out it waits by its own deadline: no timer is needed.
struct Door {
    listener: TcpListener,
    descriptor: Descriptor<usize>,
    backoff: Backoff,
}

impl Door {
    /// Connections accepted before others have their turn.
    const BATCH: usize = 64;

    fn open(reactor: &Reactor<usize>, listener: StdListener) -> io::Result<Door> {
        let mut listener = TcpListener::from_std(listener);
        let descriptor = reactor.open(&mut listener)?;
        descriptor.park(Direction::Read, LISTENER);
        Ok(Door {
            listener,
            descriptor,
            backoff: Backoff::new(),
        })
    }

    fn accept(&mut self, server: &mut Server) {
        self.descriptor.set_deadline(Direction::Read, None);
        for _ in 0..Door::BATCH {
            let added = self
                .listener
                .accept()
                .and_then(|(stream, _)| server.add(stream));
            match added {
                Ok(()) => self.backoff.reset(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.wait(),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // The connection still waits to be accepted, and no edge will tell of it.
                    let wait = self.backoff.next(&error);
                    let until = Instant::now() + wait;
                    self.descriptor.set_deadline(Direction::Read, Some(until));
                    return self.wait();
                }
            }
        }
        server.again.push(LISTENER);
    }

    fn wait(&mut self) {
        self.descriptor.drained(Direction::Read);
        self.descriptor.park(Direction::Read, LISTENER);
    }
}
