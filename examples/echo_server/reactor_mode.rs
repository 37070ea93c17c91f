//! The echo server on the bare reactor: no task, no future, a slab of state machines.
//!
//! This is the way to put the netpoller under a loop of your own. Read it from `serve` down: a
//! turn hands out ids, and `run` continues with each until it has to wait.
//!
//! The rule of `park`: what it returns is never dropped. `Parked` means that a turn will hand the
//! id out. Everything else gives the id back, so that the caller goes on with it now or, as here,
//! puts it into `again`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream, UnixStream};
use netpoller::Cause;
use netpoller::reactor::{Descriptor, Direction, Park, Reactor};
use slab::Slab;

use crate::common::{self, Watched};

use super::{
    Counts, DRAIN, End, Options, QUEUE, QUIET, log_drain, log_end, log_ended, log_waits, trace,
};

/// What is parked is the key of a connection, or one of these.
const LISTENER: usize = usize::MAX;
const STOP: usize = usize::MAX - 1;
const TRACE: usize = usize::MAX - 2;

/// Room for one read, shared by all: a connection that waits holds none.
const BUFFER: usize = 64 * 1024;

/// Connections accepted in a row before the others have their turn.
const BATCH: usize = 64;

pub fn serve(
    options: &Options,
    listener: StdListener,
    stop: StdStream,
    announce: impl FnOnce(),
) -> io::Result<Counts> {
    let mut server = Server::new(options, listener, stop)?;
    announce();
    while server.signals == 0 {
        server.turn(None)?;
    }
    server.drain()
}

struct Server {
    addr: SocketAddr,
    reactor: Reactor<usize>,
    connections: Slab<Connection>,
    buffer: Box<[u8; BUFFER]>,
    idle_timeout: Option<Duration>,
    counts: Counts,
    /// Ids that did not wait. They go on in the next turn.
    again: Vec<usize>,
    /// Ids that the turn has handed out. Empty between turns.
    ready: Vec<usize>,
    /// `None` once the server drains.
    accepting: Option<Accepting>,
    stop: UnixStream,
    stop_descriptor: Descriptor<usize>,
    /// Signals so far: the first begins the drain, the second ends it.
    signals: usize,
    /// A thread waits for SIGQUIT, so that it can report a loop that is held. It makes each of
    /// glibc's calls that may block a little dearer.
    watched: Option<Arc<Watched>>,
    /// Yields a byte for each SIGUSR1, which the loop reads itself.
    trace: Option<(UnixStream, Descriptor<usize>)>,
    options: Options,
}

impl Server {
    fn new(options: &Options, listener: StdListener, stop: StdStream) -> io::Result<Server> {
        let reactor = trace::reactor(options)?;
        reactor.set_spin(options.spin);
        let breaker = options.dumps.then(|| reactor.breaker());
        let watched = breaker.map(Watched::start).transpose()?;
        let mut trace = None;
        if options.trace.is_some() {
            let signals = common::trace_signals()?;
            signals.set_nonblocking(true)?;
            let mut signals = UnixStream::from_std(signals);
            let descriptor = reactor.open(&mut signals)?;
            trace = Some((signals, descriptor));
        }
        stop.set_nonblocking(true)?;
        let mut stop = UnixStream::from_std(stop);
        Ok(Server {
            addr: listener.local_addr()?,
            accepting: Some(Accepting::open(&reactor, listener)?),
            stop_descriptor: reactor.open(&mut stop)?,
            stop,
            signals: 0,
            watched,
            trace,
            options: options.clone(),
            reactor,
            connections: Slab::new(),
            buffer: Box::new([0; BUFFER]),
            idle_timeout: options.idle_timeout,
            counts: Counts::default(),
            // They are not parked yet, and run first: clients or a signal may be there already.
            again: vec![LISTENER, STOP, TRACE],
            ready: Vec::new(),
        })
    }

    /// One turn of the reactor, and everything that it hands out.
    fn turn(&mut self, max_wait: Option<Duration>) -> io::Result<()> {
        let max_wait = match self.again.is_empty() {
            true => max_wait,
            false => Some(Duration::ZERO),
        };
        let mut ready = std::mem::take(&mut self.ready);
        let turn = self.reactor.turn(max_wait, &mut ready)?;
        ready.append(&mut self.again);
        self.counts.turns += 1;
        self.counts.events += turn.events as u64;
        // Runs them all, even after a signal: an id that is dropped here is lost.
        for id in ready.drain(..) {
            match id {
                ..TRACE => self.run(id),
                TRACE => self.take_traces(),
                STOP => self.take_signals(),
                _ => self.accept(),
            }
        }
        self.ready = ready;
        if let Some(watched) = &self.watched {
            watched.turned(|| self.dump());
        }
        Ok(())
    }

    /// Drives a connection until it waits, must let others run, or ends.
    #[inline(always)]
    fn run(&mut self, id: usize) {
        if let Some(watched) = &self.watched {
            watched.drives(id);
        }
        let connection = &mut self.connections[id];
        match connection.drive(
            id,
            &mut self.buffer,
            self.idle_timeout,
            &mut self.counts.bytes,
        ) {
            Next::Parked => {}
            Next::Again => self.again.push(id),
            Next::End(ended) => self.end(id, &ended),
        }
    }

    fn accept(&mut self) {
        if let Some(mut accepting) = self.accepting.take() {
            // After a signal in the same turn, it accepts all clients that wait: then it is closed.
            let max = if self.signals > 0 { QUEUE } else { BATCH };
            let queue = accepting.accept(self, max);
            self.keep_or_close(accepting, queue);
        }
    }

    /// Keeps the listener. In a drain, closes it once what waited in its queue has been accepted.
    fn keep_or_close(&mut self, mut accepting: Accepting, queue: Queue) {
        if self.signals > 0 && !matches!(queue, Queue::Short(_)) {
            let closed = self
                .reactor
                .close(accepting.descriptor, &mut accepting.listener);
            return closed.unwrap_or_else(|error| log::debug!("{}: {error}", self.addr));
        }
        self.again.extend(accepting.park(queue));
        self.accepting = Some(accepting);
    }

    fn add(&mut self, mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        let descriptor = self.reactor.open(&mut stream)?;
        // Set here, since a connection may never send.
        descriptor.set_deadline(Direction::Read, in_future(self.idle_timeout));
        let id = self.connections.insert(Connection {
            stream,
            descriptor,
            peer,
            bytes: 0,
            rest: Vec::new(),
        });
        self.counts.accepted += 1;
        // It has probably sent something already.
        self.again.push(id);
        Ok(())
    }

    #[cold]
    fn end(&mut self, id: usize, ended: &io::Result<()>) {
        let mut connection = self.connections.remove(id);
        log_ended(connection.peer, connection.bytes, ended);
        let closed = self
            .reactor
            .close(connection.descriptor, &mut connection.stream);
        if let Err(error) = closed {
            log::debug!("{}: {error}", connection.peer);
        }
    }

    /// Reads the bytes that the signal handlers have written, and parks again.
    #[cold]
    fn take_signals(&mut self) {
        let mut bytes = [0; 16];
        match self.stop.read(&mut bytes) {
            // The end of file counts as the first signal, and nothing comes after it.
            Ok(0) => self.signals = self.signals.max(1),
            Ok(count) => {
                self.signals += count;
                self.again.push(STOP);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.stop_descriptor.drained(Direction::Read);
                match self.stop_descriptor.park(Direction::Read, STOP) {
                    Park::Parked => {}
                    _ => self.again.push(STOP),
                }
            }
            Err(_) => self.again.push(STOP),
        }
    }

    /// Writes the trace for each SIGUSR1, and parks again.
    #[cold]
    fn take_traces(&mut self) {
        let Some((stream, descriptor)) = &mut self.trace else {
            return;
        };
        match stream.read(&mut [0]) {
            Ok(1) => trace::begin_to_write(&self.options, &self.reactor),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                descriptor.drained(Direction::Read);
                if let Park::Parked = descriptor.park(Direction::Read, TRACE) {
                    return;
                }
            }
            _ => {}
        }
        self.again.push(TRACE);
    }

    /// A line for each id that is parked. What is ready is not: it runs in the next turn.
    fn dump(&self) -> String {
        let (open, turns) = (self.connections.len(), self.counts.turns);
        let mut text = format!("connections {open}, turns {turns}\n");
        self.reactor.for_each(|descriptor| {
            descriptor.parked(|direction, &id| {
                let waits = match direction {
                    Direction::Read => "read",
                    Direction::Write => "write",
                };
                text += &match self.connections.get(id) {
                    Some(Connection {
                        peer, bytes, rest, ..
                    }) => {
                        let unsent = rest.len();
                        format!("  connection {id}: {waits} tcp, peer {peer}, bytes {bytes}, unsent {unsent}")
                    }
                    None if id == LISTENER => format!("  accept tcp, local {}", self.addr),
                    None => format!("  {waits} signals"),
                };
                if let Some(deadline) = descriptor.deadline(direction) {
                    let left = deadline.saturating_duration_since(Instant::now());
                    text += &format!(", left {left:.1?}");
                }
                text.push('\n');
            });
        });
        text
    }

    /// Serves what waits in the queue and stops accepting. A connection that stays quiet has
    /// nothing in flight.
    fn drain(mut self) -> io::Result<Counts> {
        log_drain(self.addr, self.connections.len() as u64);
        self.idle_timeout = Some(QUIET);
        let quiet = in_future(self.idle_timeout);
        if let Some(mut accepting) = self.accepting.take() {
            // It is parked, or about to run.
            let _parked = accepting.descriptor.unpark(Direction::Read);
            self.again.retain(|&id| id != LISTENER);
            let queue = accepting.accept(&mut self, QUEUE);
            self.keep_or_close(accepting, queue);
        }
        for (_, connection) in &self.connections {
            let descriptor = &connection.descriptor;
            descriptor.set_deadline(Direction::Read, quiet);
        }
        log_waits(self.addr, self.connections.len() as u64);
        let end = Instant::now() + DRAIN;
        let is_over = |server: &Server| server.connections.is_empty() && server.accepting.is_none();
        while !is_over(&self) && self.signals < 2 && Instant::now() < end {
            self.turn(Some(end - Instant::now()))?;
        }
        self.counts.open = self.connections.len() as u64;
        let end = match self.signals {
            2.. => End::Stopped,
            _ => End::Drained,
        };
        log_end(self.addr, end, self.counts.open);
        trace::write_of_reactor(&self.options, &self.reactor)?;
        Ok(self.counts)
    }
}

/// Counts from a fresh reading of the clock: the loop's last one may be older than `limit`, if the process was
/// held up since.
fn in_future(limit: Option<Duration>) -> Option<Instant> {
    limit.map(|limit| Instant::now() + limit)
}

/// A connection. It waits for room while `rest` holds something, and else for input.
struct Connection {
    stream: TcpStream,
    descriptor: Descriptor<usize>,
    peer: SocketAddr,
    /// Bytes read.
    bytes: u64,
    /// Bytes read that the kernel has not taken yet. No more is read before they are gone.
    rest: Vec<u8>,
}

/// What driving a connection came to.
enum Next {
    /// It is parked: a turn will hand it out.
    Parked,
    /// It could go on, but the others have their turn first.
    Again,
    End(io::Result<()>),
}

impl Connection {
    /// At most one read and two writes. Bytes that arrive or leave move the deadline.
    #[inline(always)]
    fn drive(
        &mut self,
        id: usize,
        buffer: &mut [u8; BUFFER],
        limit: Option<Duration>,
        bytes: &mut u64,
    ) -> Next {
        if !self.rest.is_empty() {
            return self.write_rest(id, limit);
        }
        let got = match self.stream.read(buffer) {
            // Everything has been echoed, so closing passes the end of file on.
            Ok(0) => return Next::End(Ok(())),
            Ok(got) => got,
            Err(error) => return self.failed(id, Direction::Read, error),
        };
        self.bytes += got as u64;
        *bytes += got as u64;
        match self.stream.write(&buffer[..got]) {
            Ok(gone) if gone == got => {}
            Ok(gone) => return self.keep(id, &buffer[gone..got], limit),
            // Full, or broken: writing the rest waits, or reports the error.
            Err(_) => return self.keep(id, &buffer[..got], limit),
        }
        if limit.is_some() {
            self.descriptor
                .set_deadline(Direction::Read, in_future(limit));
        }
        if got == buffer.len() {
            return Next::Again;
        }
        // A short read: as a rule the kernel has no more, and the read that would say so is saved.
        match self.descriptor.park_short(Direction::Read, id) {
            Park::Parked => Next::Parked,
            _ => Next::Again,
        }
    }

    #[cold]
    fn keep(&mut self, id: usize, rest: &[u8], limit: Option<Duration>) -> Next {
        self.rest.extend_from_slice(rest);
        self.descriptor
            .set_deadline(Direction::Write, in_future(limit));
        self.write_rest(id, limit)
    }

    #[cold]
    fn write_rest(&mut self, id: usize, limit: Option<Duration>) -> Next {
        match self.stream.write(&self.rest) {
            Ok(gone) => {
                self.rest.drain(..gone);
                self.descriptor
                    .set_deadline(Direction::Write, in_future(limit));
                if self.rest.is_empty() {
                    self.rest = Vec::new();
                    self.descriptor.set_deadline(Direction::Write, None);
                    self.descriptor
                        .set_deadline(Direction::Read, in_future(limit));
                }
                Next::Again
            }
            Err(error) => self.failed(id, Direction::Write, error),
        }
    }

    #[cold]
    fn failed(&mut self, id: usize, direction: Direction, error: io::Error) -> Next {
        match error.kind() {
            ErrorKind::WouldBlock => {
                self.descriptor.drained(direction);
                match self.descriptor.park(direction, id) {
                    Park::Parked => Next::Parked,
                    Park::Ready(_) => Next::Again,
                    Park::TimedOut(_) | Park::Closed(_) => {
                        Next::End(Err(io::Error::new(ErrorKind::TimedOut, "i/o timeout")))
                    }
                }
            }
            ErrorKind::Interrupted => Next::Again,
            _ => Next::End(Err(error)),
        }
    }
}

/// What accepting came to.
enum Queue {
    Empty,
    HoldsMore,
    /// Descriptors or memory have run out: wait this long.
    Short(Duration),
}

/// The listener, as long as it accepts. When descriptors run out it waits by its own deadline, so
/// that no timer is needed.
struct Accepting {
    listener: TcpListener,
    descriptor: Descriptor<usize>,
    /// A shortage of descriptors or memory: when it began, and how long the last wait was.
    shortage: Option<(Instant, Duration)>,
}

impl Accepting {
    /// net/http's: 5 ms, doubling to a second.
    const FIRST_PAUSE: Duration = Duration::from_millis(5);
    const LONGEST_PAUSE: Duration = Duration::from_secs(1);

    fn open(reactor: &Reactor<usize>, listener: StdListener) -> io::Result<Accepting> {
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        Ok(Accepting {
            descriptor: reactor.open(&mut listener)?,
            listener,
            shortage: None,
        })
    }

    /// Accepts until the queue is empty, `max` connections at most.
    fn accept(&mut self, server: &mut Server, max: usize) -> Queue {
        for _ in 0..max {
            let added = self.listener.accept().and_then(|(stream, peer)| {
                log::debug!("{peer}: accepted");
                server.add(stream, peer)
            });
            match added {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.shortage_is_over(server.addr);
                    return Queue::Empty;
                }
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Queue::Short(self.is_short(server.addr, error)),
            }
        }
        Queue::HoldsMore
    }

    /// Waits for the next connection, or for the end of a shortage. `Some`: it need not wait.
    fn park(&self, queue: Queue) -> Option<usize> {
        let until = match queue {
            Queue::HoldsMore => return Some(LISTENER),
            Queue::Empty => None,
            // The connection is still queued, and no edge will report it: the deadline hands the
            // listener out again.
            Queue::Short(pause) => Some(Instant::now() + pause),
        };
        self.descriptor.set_deadline(Direction::Read, until);
        self.descriptor.drained(Direction::Read);
        match self.descriptor.park(Direction::Read, LISTENER) {
            Park::Parked => None,
            Park::Ready(id) | Park::TimedOut(id) | Park::Closed(id) => Some(id),
        }
    }

    /// Once the queue is empty: a single success may be followed by the next failure.
    fn shortage_is_over(&mut self, addr: SocketAddr) {
        if let Some((since, _)) = self.shortage.take() {
            let pause = since.elapsed();
            log::warn!("accepting on tcp {addr} goes on after {pause:?}");
        }
    }

    /// How long to wait. Warns once in a shortage.
    fn is_short(&mut self, addr: SocketAddr, error: io::Error) -> Duration {
        let (since, pause) = match self.shortage {
            Some((since, last)) => (since, (last * 2).min(Self::LONGEST_PAUSE)),
            None => {
                let call = "accept4"; // mio's
                let cause = Cause::System { call, error };
                log::warn!("accept tcp {addr}: {cause}; accepting pauses");
                (Instant::now(), Self::FIRST_PAUSE)
            }
        };
        self.shortage = Some((since, pause));
        pause
    }
}
