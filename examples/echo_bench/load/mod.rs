//! The loader: one thread, one poll, many connections, and the two ways it loads a server.
//!
//! *Flat out* (a closed loop): every connection keeps its depth of messages in flight. This gives the throughput. Its
//! latencies would mean nothing, because a server that stalls is sent less while it stalls.
//! *Paced* (an open loop): bursts of depth messages fall due at even intervals, whatever the server does, burst k on
//! connection k modulo their number. Latency counts from the due time and not from the write, so that every message
//! that fell due in a stall counts it: no coordinated omission. Due times are computed, so none is stored.

pub mod connection;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

use self::connection::{Buffers, Connection, Shape};

/// Throughput is sampled in steps of this; phases are whole numbers of it.
pub const STEP: Duration = Duration::from_millis(100);
/// A server that answers nothing for this long is taken for dead.
const STALLED: Duration = Duration::from_secs(4);
/// How long messages in flight at the end of a phase may take to return.
const LAST_ECHOES: Duration = Duration::from_secs(6);
/// How many connections may wait for their first answer: far below any backlog, so that no SYN is
/// dropped and tried again a second later, however late the server accepts.
const CONNECTING: usize = 128;

pub struct Load {
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    buffers: Buffers,
    shape: Shape,
    /// The loader has a CPU of its own, and may spin on it.
    own_cpu: bool,
    last_progress: Instant,
}

pub struct FlatOut {
    pub messages: u64,
    pub elapsed: Duration,
    pub timeline: Timeline,
}

pub struct Paced {
    /// In nanoseconds from the time a message was due.
    pub latencies: Histogram<u64>,
    pub rate: f64,
    pub timeline: Timeline,
}

impl Load {
    pub fn new(shape: Shape, own_cpu: bool) -> Result<Load, String> {
        Ok(Load {
            poll: Poll::new().map_err(|error| format!("no poll for the loader: {error}"))?,
            events: Events::with_capacity(1024),
            connections: Vec::new(),
            buffers: Buffers::new(),
            shape,
            own_cpu,
            last_progress: Instant::now(),
        })
    }

    /// Connects until there are `count` connections, each of which has been accepted, read and answered once.
    pub fn connect(&mut self, address: SocketAddr, count: usize) -> Result<(), String> {
        let trouble = |error: io::Error| format!("connecting to {address}: {error}");
        let mut answered = self.connections.len();
        self.last_progress = Instant::now();
        while answered < count {
            while self.connections.len() < count.min(answered + CONNECTING) {
                self.start_connecting(address).map_err(trouble)?;
            }
            wait(&mut self.poll, &mut self.events, STEP)?;
            for event in &self.events {
                let Token(number) = event.token();
                let connection = &mut self.connections[number];
                if connection.has_begun() {
                    answered += connection.receive(&mut self.buffers, hung_up(event))? as usize;
                    connection.send(&mut self.buffers)?;
                    self.last_progress = Instant::now();
                } else if is_connected(connection.stream()).map_err(trouble)? {
                    set_up(connection.stream()).map_err(trouble)?;
                    connection.want(1);
                    connection.send(&mut self.buffers)?;
                }
            }
            if self.last_progress.elapsed() > STALLED {
                return Err(format!(
                    "{address} does not answer: {answered} of {count} connections are up"
                ));
            }
        }
        Ok(())
    }

    fn start_connecting(&mut self, address: SocketAddr) -> io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        let number = self.connections.len();
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut stream, Token(number), both)?;
        self.connections
            .push(Connection::new(stream, number, self.shape));
        Ok(())
    }

    /// Begins the closed loop: every connection gets its depth of messages under way.
    pub fn begin(&mut self) -> Result<(), String> {
        for connection in &mut self.connections {
            connection.want(self.shape.depth);
            connection.send(&mut self.buffers)?;
        }
        self.last_progress = Instant::now();
        Ok(())
    }

    /// Runs the closed loop that has begun, and counts.
    pub fn flat_out(&mut self, length: Duration) -> Result<FlatOut, String> {
        let start = Instant::now();
        let mut timeline = Timeline::new(length);
        let mut messages = 0;
        let mut elapsed = Duration::ZERO;
        while elapsed < length {
            let mut completed = 0;
            self.turn(STEP, |_, connection, finished| {
                connection.want(finished);
                completed += finished;
            })?;
            elapsed = start.elapsed();
            timeline.add(elapsed, completed);
            messages += completed;
        }
        Ok(FlatOut {
            messages,
            elapsed,
            timeline,
        })
    }

    /// Ends the closed loop: what is under way comes back, and nothing new is sent.
    pub fn settle(&mut self) -> Result<(), String> {
        for connection in &mut self.connections {
            connection.want_no_more();
        }
        self.wait_until_quiet()
    }

    /// The open loop, on connections that are quiet.
    pub fn paced(&mut self, length: Duration, rate: f64) -> Result<Paced, String> {
        let mut latencies = Histogram::new_with_max(60_000_000_000, 3)
            .map_err(|error| format!("no histogram: {error}"))?;
        let mut timeline = Timeline::new(length);
        let (count, depth) = (self.connections.len() as u64, self.shape.depth);
        let total = ((length.as_secs_f64() * rate / depth as f64) as u64).max(1) * depth;
        let due = |burst: u64| Duration::from_secs_f64((burst * depth) as f64 / rate);
        let before: Vec<u64> = self
            .connections
            .iter()
            .map(Connection::messages_echoed)
            .collect();

        let start = Instant::now();
        self.last_progress = start;
        let (mut bursts, mut completed) = (0, 0);
        while completed < total {
            let now = start.elapsed();
            if now > length + LAST_ECHOES {
                let missing = total - completed;
                return Err(format!(
                    "the server fell behind a paced load: {missing} of {total} messages missing"
                ));
            }
            while bursts * depth < total && due(bursts) <= now {
                let connection = &mut self.connections[(bursts % count) as usize];
                connection.want(depth);
                connection.send(&mut self.buffers)?;
                bursts += 1;
            }
            let wait = if bursts * depth < total {
                due(bursts).saturating_sub(start.elapsed())
            } else {
                STEP
            };
            if completed == bursts * depth {
                self.last_progress = Instant::now();
            }
            let wait = self.whole_milliseconds(wait);
            self.turn(wait, |number, connection, finished| {
                let now = start.elapsed();
                let first = connection.messages_echoed() - finished - before[number];
                for message in first..first + finished {
                    let late = now.saturating_sub(due(message / depth * count + number as u64));
                    latencies.saturating_record(late.as_nanos() as u64);
                }
                timeline.add(now, finished);
                completed += finished;
            })?;
        }
        Ok(Paced {
            latencies,
            rate,
            timeline,
        })
    }

    /// The poll's timeouts are whole milliseconds, rounded up. A shorter wait is spun away on the loader's own CPU;
    /// without one, each spin yields the CPU.
    fn whole_milliseconds(&self, wait: Duration) -> Duration {
        let millis = wait.as_micros().saturating_sub(500) / 1000;
        if millis == 0 && !self.own_cpu {
            std::thread::yield_now();
        }
        Duration::from_millis(millis.min(STEP.as_millis()) as u64)
    }

    /// Waits until every connection is quiet.
    fn wait_until_quiet(&mut self) -> Result<(), String> {
        self.last_progress = Instant::now();
        let start = Instant::now();
        let mut busy = self
            .connections
            .iter()
            .filter(|connection| !connection.is_quiet())
            .count();
        while busy > 0 {
            self.turn(STEP, |_, connection, _| {
                busy -= usize::from(connection.is_quiet())
            })?;
            if start.elapsed() > LAST_ECHOES {
                return Err(format!(
                    "the server is too slow: {busy} connections still unanswered"
                ));
            }
        }
        Ok(())
    }

    /// One wait and its events: echoes are read and checked, `finished` receives each connection that got whole
    /// messages back and may want more on it, and wanted messages are sent.
    fn turn(
        &mut self,
        longest: Duration,
        mut finished: impl FnMut(usize, &mut Connection, u64),
    ) -> Result<(), String> {
        wait(&mut self.poll, &mut self.events, longest)?;
        let mut progress = false;
        for event in &self.events {
            let Token(number) = event.token();
            let connection = &mut self.connections[number];
            let messages = connection.receive(&mut self.buffers, hung_up(event))?;
            if messages > 0 {
                progress = true;
                finished(number, connection, messages);
            }
            connection.send(&mut self.buffers)?;
        }
        if progress {
            self.last_progress = Instant::now();
        } else if self.last_progress.elapsed() > STALLED {
            return Err(format!(
                "the server stopped answering: nothing for {} s",
                STALLED.as_secs()
            ));
        }
        Ok(())
    }
}

fn hung_up(event: &Event) -> bool {
    event.is_read_closed() || event.is_write_closed() || event.is_error()
}

/// Whether the handshake is over. An error says how it failed.
fn is_connected(stream: &TcpStream) -> io::Result<bool> {
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream.peer_addr().is_ok()),
    }
}

/// A closed connection leaves no TIME_WAIT behind: ten thousand of them would take the ports of later ones.
fn set_up(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

fn wait(poll: &mut Poll, events: &mut Events, longest: Duration) -> Result<(), String> {
    match poll.poll(events, Some(longest)) {
        Err(error) if error.kind() != ErrorKind::Interrupted => {
            Err(format!("the loader's poll: {error}"))
        }
        _ => Ok(()),
    }
}

/// Messages that came back, step by step.
pub struct Timeline {
    steps: Vec<u64>,
}

impl Timeline {
    fn new(length: Duration) -> Timeline {
        let steps = (length.as_millis() / STEP.as_millis()).max(1);
        Timeline {
            steps: vec![0; steps as usize],
        }
    }

    /// What comes after the last step is not drawn.
    fn add(&mut self, elapsed: Duration, messages: u64) {
        let step = (elapsed.as_nanos() / STEP.as_nanos()) as usize;
        if let Some(count) = self.steps.get_mut(step) {
            *count += messages;
        }
    }

    /// Messages per second, step by step.
    pub fn rates(&self) -> impl Iterator<Item = f64> {
        self.steps
            .iter()
            .map(|&count| count as f64 / STEP.as_secs_f64())
    }

    pub fn seconds(&self) -> f64 {
        self.steps.len() as f64 * STEP.as_secs_f64()
    }
}
