//! A file server for HTTP/1.0 on the bare reactor: hand-written state machines in a slab, without
//! tasks and futures.
//!
//! ```text
//! cargo run --release --example reactor_http -- --addr 127.0.0.1:8080 --root .
//! curl -i http://127.0.0.1:8080/Cargo.toml
//! ```
//!
//! This file is the loop: a turn hands out ids, and the machine of each id takes a step. `machine.rs`
//! is a connection, and `request.rs` makes an answer of a request. Read `Server::turn` first.
//!
//! What `try_io` returns is never dropped. `Parked` says that a turn will hand the id out. In every
//! other case the id comes back, and this program goes on with it: at once, by `again`, or by a timer.

#[path = "../common/mod.rs"]
mod common;
pub mod machine;
pub mod request;

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use mio::net::TcpListener;
use netpoller::ListenConfig;
use netpoller::reactor::{Descriptor, Direction, Reactor, TryIo};
use slab::Slab;

use common::Watched;
use machine::{Connection, Next};

/// Serves the files below a directory
#[derive(Parser)]
pub struct Flags {
    /// Where to listen, as HOST:PORT; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8080")]
    addr: String,
    /// The directory whose files are served
    #[arg(long, default_value = ".")]
    root: PathBuf,
    /// Time for a whole request, and for each piece of an answer: 500ms, 10s, or a number of seconds
    #[arg(long, default_value = "10s", value_parser = common::duration)]
    timeout: Duration,
}

fn main() -> ExitCode {
    common::run_blocking(|flags| -> io::Result<()> {
        common::exit_on_signals()?;
        let mut server = Server::new(flags)?;
        let watched = Watched::start(server.reactor.breaker())?;
        // After this line a SIGQUIT may come.
        common::announce(server.listener.local_addr()?)?;
        loop {
            server.turn(&watched)?;
            watched.turned(|| server.dump());
        }
    })
}

/// What is parked on the reactor.
#[derive(Clone, Copy)]
pub enum Id {
    Listener,
    Connection(usize),
}

/// How long accepting pauses when descriptors have run out.
const PAUSE: Duration = Duration::from_millis(100);

struct Server {
    flags: Flags,
    reactor: Reactor<Id>,
    listener: TcpListener,
    listening: Descriptor<Id>,
    connections: Slab<Connection>,
    /// Descriptors are short: accepting pauses.
    pauses: bool,
    /// Ids that go on in the next turn. An id is in one place: here, parked, in a timer, or taking
    /// its step. So none comes up after the end of its connection.
    again: Vec<Id>,
}

impl Server {
    fn new(flags: Flags) -> io::Result<Server> {
        let reactor = Reactor::new()?;
        let listener = ListenConfig::new().bind_std(&flags.addr)?;
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        Ok(Server {
            listening: reactor.open(&mut listener)?,
            flags,
            reactor,
            listener,
            connections: Slab::new(),
            pauses: false,
            again: vec![Id::Listener],
        })
    }

    /// Takes one turn of the reactor. Each id that it hands out takes a step.
    fn turn(&mut self, watched: &Watched) -> io::Result<()> {
        // The turn does not sleep while an id here can go on.
        let max_wait = (!self.again.is_empty()).then_some(Duration::ZERO);
        let mut ready = std::mem::take(&mut self.again);
        self.reactor.turn(max_wait, &mut ready)?;
        for id in ready {
            match id {
                Id::Listener => self.accept(),
                Id::Connection(key) => {
                    watched.drives(key);
                    self.step(key);
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, key: usize) {
        let id = Id::Connection(key);
        let ended = match self.connections[key].step(id, &self.flags) {
            Ok(Next::Parked) => return,
            Ok(Next::Again) => return self.again.push(id),
            Ok(Next::End) => Ok(()),
            Err(error) => Err(error),
        };
        let mut connection = self.connections.remove(key);
        // Before the stream is dropped, which closes the socket.
        let descriptor = connection.descriptor;
        let closed = self.reactor.close(descriptor, &mut connection.stream);
        common::note(format_args!("connection {key}"), ended.and(closed));
    }

    /// A line for each id that is parked.
    fn dump(&self) -> String {
        let mut text = format!("connections {}\n", self.connections.len());
        self.reactor.for_each(|descriptor| {
            descriptor.parked(|direction, &id| {
                text += &match id {
                    Id::Listener => "  listener: accept".into(),
                    Id::Connection(key) => {
                        let peer = self.connections[key].stream.peer_addr();
                        let peer = peer.map_or_else(|_| "?".into(), |peer| peer.to_string());
                        format!("  connection {key}: {direction:?}, peer {peer}")
                    }
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

    /// Accepts one client. The others have their turn before the next.
    fn accept(&mut self) {
        let accept = || self.listener.accept();
        let accepted = self.listening.try_io(Direction::Read, Id::Listener, accept);
        let (accepted, id) = match accepted {
            TryIo::Parked => return,
            TryIo::Done(accepted, id) => (accepted, id),
            TryIo::Refused(refusal, id) => (Err(io::Error::other(refusal)), id),
        };
        let open = |(stream, _)| Connection::open(stream, &self.reactor, &self.flags);
        match accepted.and_then(open) {
            Ok(connection) => {
                // It is not parked: its request has probably come already.
                let key = self.connections.insert(connection);
                self.again.extend([Id::Connection(key), id]);
                if std::mem::take(&mut self.pauses) {
                    log::warn!("accepting goes on");
                }
            }
            // This client has gone already.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => self.again.push(id),
            // Descriptors are short. The next client is queued already, so no edge will come for it:
            // a timer hands the listener out.
            Err(error) => {
                if !std::mem::replace(&mut self.pauses, true) {
                    log::warn!("accept: {error}; accepting pauses");
                }
                self.reactor.timer(Instant::now() + PAUSE, id);
            }
        }
    }
}
