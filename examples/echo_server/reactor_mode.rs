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
}

/// What a connection comes to when it has been driven.
enum Next {
    /// It is parked: a turn will name it.
    Parked,
    /// It could go on, but others have their turn first.
    Again,
    Close,
}

struct Server {
    reactor: Reactor<usize>,
    connections: Slab<Connection>,
    buffer: Box<[u8; BUFFER]>,
    idle_timeout: Option<Duration>,
    /// Until when a connection that goes on in this turn may be quiet.
    deadline: Option<Instant>,
    counts: Counts,
    /// Connections that did not wait.
    again: Vec<usize>,
}

pub fn serve(options: &Options, listener: StdListener, stop: UnixStream) -> io::Result<Counts> {
    let mut server = Server {
        reactor: Reactor::new()?,
        connections: Slab::new(),
        buffer: Box::new([0; BUFFER]),
        idle_timeout: options.idle_timeout,
        deadline: None,
        counts: Counts::default(),
        again: Vec::new(),
    };
    server.reactor.set_spin(options.spin.unwrap_or_default());

    let mut stop = mio::net::UnixStream::from_std(stop);
    let stopped = server.reactor.open(&mut stop)?;
    let _parked = stopped.park(Direction::Read, STOP);
    let mut door = Door::open(&server.reactor, listener)?;

    let mut ready = Vec::new();
    'serving: loop {
        server.turn(None, &mut ready)?;
        for id in ready.drain(..) {
            if id < STOP {
                server.run(id);
            } else if id == LISTENER {
                door.accept(&mut server);
            } else {
                break 'serving;
            }
        }
    }
    let Door {
        descriptor,
        mut listener,
        ..
    } = door;
    server.reactor.close(descriptor, &mut listener)?;
    server.drain()
}

impl Server {
    /// One turn; who did not wait in the last one comes after those who have.
    fn turn(&mut self, max_wait: Option<Duration>, ready: &mut Vec<usize>) -> io::Result<()> {
        let max_wait = match self.again.is_empty() {
            true => max_wait,
            false => Some(Duration::ZERO),
        };
        let turn = self.reactor.turn(max_wait, ready)?;
        ready.append(&mut self.again);
        self.deadline = self.idle_timeout.map(|limit| self.reactor.now() + limit);
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
        });
        self.counts.accepted += 1;
        // Its first turn comes with the others': the connection may well have sent something.
        self.again.push(id);
        Ok(())
    }

    /// Drives a connection, and parks it where it has to wait.
    #[inline(always)]
    fn run(&mut self, id: usize) {
        let connection = &mut self.connections[id];
        let next = connection.drive(id, &mut self.buffer, &self.deadline, &mut self.counts.bytes);
        match next {
            Next::Parked => {}
            Next::Again => self.again.push(id),
            Next::Close => self.close(id),
        }
    }

    /// As `run`, where speed is no matter.
    #[cold]
    #[inline(never)]
    fn run_again(&mut self, id: usize) {
        self.run(id);
    }

    #[cold]
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
                    self.run_again(id);
                }
            }
        }
        self.counts.open = self.connections.len() as u64;
        Ok(self.counts)
    }
}

impl Connection {
    /// One read and one write at most; whatever moves puts the deadline off.
    #[inline(always)]
    fn drive(
        &mut self,
        id: usize,
        buffer: &mut [u8; BUFFER],
        deadline: &Option<Instant>,
        bytes: &mut u64,
    ) -> Next {
        if !self.rest.is_empty() {
            return self.write_rest(id, *deadline);
        }
        let got = match self.stream.read(buffer) {
            // It has got everything back: closing passes the end of file on.
            Ok(0) => return Next::Close,
            Ok(got) => got,
            Err(error) => return self.failed(id, Direction::Read, &error),
        };
        *bytes += got as u64;
        match self.stream.write(&buffer[..got]) {
            Ok(gone) if gone == got => {}
            Ok(gone) => return self.keep(id, &buffer[gone..got], *deadline),
            // Full, or broken: writing what is left will wait, or say so.
            Err(_) => return self.keep(id, &buffer[..got], *deadline),
        }
        if deadline.is_some() {
            self.descriptor.set_deadline(Direction::Read, *deadline);
        }
        if got == buffer.len() {
            return Next::Again;
        }
        // Less than there was room for: the kernel has no more, as a rule, and a probe is saved.
        match self.descriptor.park_short(Direction::Read, id) {
            Park::Parked => Next::Parked,
            _ => Next::Again,
        }
    }

    #[cold]
    fn keep(&mut self, id: usize, rest: &[u8], deadline: Option<Instant>) -> Next {
        self.rest.extend_from_slice(rest);
        self.descriptor.set_deadline(Direction::Write, deadline);
        self.write_rest(id, deadline)
    }

    #[cold]
    fn write_rest(&mut self, id: usize, deadline: Option<Instant>) -> Next {
        match self.stream.write(&self.rest) {
            Ok(gone) => {
                self.rest.drain(..gone);
                self.descriptor.set_deadline(Direction::Write, deadline);
                if self.rest.is_empty() {
                    self.rest = Vec::new();
                    self.descriptor.set_deadline(Direction::Write, None);
                    self.descriptor.set_deadline(Direction::Read, deadline);
                }
                Next::Again
            }
            Err(error) => self.failed(id, Direction::Write, &error),
        }
    }

    #[cold]
    fn failed(&mut self, id: usize, direction: Direction, error: &io::Error) -> Next {
        match error.kind() {
            ErrorKind::WouldBlock => {
                self.descriptor.drained(direction);
                match self.descriptor.park(direction, id) {
                    Park::Parked => Next::Parked,
                    Park::Ready(_) => Next::Again,
                    // Nothing came in its time.
                    Park::TimedOut(_) | Park::Closed(_) => Next::Close,
                }
            }
            ErrorKind::Interrupted => Next::Again,
            _ => {
                log::debug!("{error}");
                Next::Close
            }
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
        let _parked = descriptor.park(Direction::Read, LISTENER);
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
        let _parked = self.descriptor.park(Direction::Read, LISTENER);
    }
}
