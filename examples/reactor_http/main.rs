//! A file server for HTTP/1.0 on the bare reactor: no task and no future, a slab of hand-written
//! state machines.
//!
//! ```text
//! cargo run --release --example reactor_http -- --addr 127.0.0.1:8080 --root .
//! curl -i http://127.0.0.1:8080/            # its index.html
//! printf 'HEAD / HTTP/1.0\r\n\r\n' | nc 127.0.0.1 8080
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `main.rs` | the loop: a turn hands out ids, and each id's machine runs |
//! | `machine.rs` | a connection: its states, its deadlines, its partial writes |
//! | `request.rs` | bytes in, an answer out: no socket |
//!
//! Read `Server::turn` first, then the table of states in `machine.rs`. Every operation goes through
//! `try_io`. What it gives back is never dropped: `Parked` says that a turn will hand the id out, and
//! in every other case the id is here, and goes on.

#[path = "../common/mod.rs"]
mod common;
pub mod machine;
pub mod request;

use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use mio::net::{TcpListener, TcpStream, UnixStream};
use netpoller::ListenConfig;
use netpoller::reactor::{Descriptor, Direction, Reactor, TryIo};
use slab::Slab;

use machine::{Connection, Next, Site};

/// Serves the files below a directory
#[derive(Parser)]
struct Flags {
    /// Where to listen, as HOST:PORT; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8080")]
    addr: String,
    /// The directory whose files are served
    #[arg(long, default_value = ".")]
    root: PathBuf,
    /// Time for a whole request, and for each piece of an answer to be taken: 500ms, 10s, or a number
    /// of seconds
    #[arg(long, default_value = "10s", value_parser = common::duration)]
    timeout: Duration,
}

fn main() -> ExitCode {
    common::run_blocking(|flags: Flags| {
        let mut server = Server::new(&flags)?;
        while !server.is_stopped {
            server.turn()?;
        }
        log::info!("interrupted with {} connections", server.connections.len());
        Ok(())
    })
}

/// What is parked is the key of a connection, or one of these.
const LISTENER: usize = usize::MAX;
const STOP: usize = usize::MAX - 1;

/// Connections accepted in a row before the others have their turn.
const BATCH: usize = 64;

/// How long accepting pauses when descriptors or memory are short.
const PAUSE: Duration = Duration::from_millis(100);

struct Server {
    reactor: Reactor<usize>,
    site: Site,
    listener: TcpListener,
    listening: Descriptor<usize>,
    /// A byte for each SIGINT and SIGTERM.
    signals: UnixStream,
    signaled: Descriptor<usize>,
    is_stopped: bool,
    connections: Slab<Connection>,
    /// Ids that did not park. They go on in the next turn.
    again: Vec<usize>,
}

impl Server {
    fn new(flags: &Flags) -> io::Result<Server> {
        let reactor = Reactor::new()?;
        let site = Site::new(&flags.root, flags.timeout)?;
        let listener = ListenConfig::new().bind_std(&flags.addr)?;
        common::announce(listener.local_addr()?)?;
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        let signals = common::stop_signals()?;
        signals.set_nonblocking(true)?;
        let mut signals = UnixStream::from_std(signals);
        Ok(Server {
            listening: reactor.open(&mut listener)?,
            listener,
            signaled: reactor.open(&mut signals)?,
            signals,
            reactor,
            site,
            is_stopped: false,
            connections: Slab::new(),
            // Nothing is parked yet, so the first turn tries both.
            again: vec![LISTENER, STOP],
        })
    }

    /// One turn of the reactor, and everything that it hands out.
    fn turn(&mut self) -> io::Result<()> {
        // While an id is here that can go on, only look.
        let max_wait = (!self.again.is_empty()).then_some(Duration::ZERO);
        let mut ready = std::mem::take(&mut self.again);
        self.reactor.turn(max_wait, &mut ready)?;
        for id in ready {
            match id {
                LISTENER => self.accept(),
                STOP => self.take_signal(),
                id => self.run(id),
            }
        }
        Ok(())
    }

    /// Lets a connection take one step.
    fn run(&mut self, id: usize) {
        match self.connections[id].step(id, &mut self.site) {
            Next::Parked => {}
            Next::Again => self.again.push(id),
            Next::End(ended) => {
                let mut connection = self.connections.remove(id);
                common::note(connection.peer, ended);
                connection.reset_if_cut_off();
                // Closed before the stream is, while the selector still knows it.
                let descriptor = connection.descriptor;
                if let Err(error) = self.reactor.close(descriptor, &mut connection.stream) {
                    log::warn!("{}: {error}", connection.peer);
                }
            }
        }
    }

    fn accept(&mut self) {
        for _ in 0..BATCH {
            let accept = || self.listener.accept();
            let accepted = match self.listening.try_io(Direction::Read, LISTENER, accept) {
                TryIo::Parked => return,
                TryIo::Done(accepted, _) => accepted,
                // It has no deadline and is never evicted.
                TryIo::Refused(refusal, _) => Err(io::Error::other(refusal)),
            };
            match accepted.and_then(|(stream, peer)| self.add(stream, peer)) {
                Ok(()) => {}
                // The client has gone already.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                // A shortage. The next client is queued already, so no edge will tell of it: a timer
                // hands the listener out again.
                Err(error) => {
                    log::warn!("accept: {error}; accepting pauses");
                    self.reactor.timer(Instant::now() + PAUSE, LISTENER);
                    return;
                }
            }
        }
        self.again.push(LISTENER);
    }

    fn add(&mut self, mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        let descriptor = self.reactor.open(&mut stream)?;
        let connection = Connection::new(stream, descriptor, peer, &self.site);
        // It has probably sent its request already.
        self.again.push(self.connections.insert(connection));
        Ok(())
    }

    fn take_signal(&mut self) {
        let read = || self.signals.read(&mut [0]);
        match self.signaled.try_io(Direction::Read, STOP, read) {
            TryIo::Parked => {}
            TryIo::Done(..) | TryIo::Refused(..) => self.is_stopped = true,
        }
    }
}
