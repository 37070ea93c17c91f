//! A chat with rooms, on two workers. A line goes to all clients of the room, on whichever worker their
//! connections are.
//!
//! ```text
//! cargo run --example rooms                    # listening on 127.0.0.1:41273
//! nc 127.0.0.1 41273                           # as often as you like; /help lists the commands
//! ```
//!
//! A connection stays on its worker. What the workers share is the list of rooms:
//! names, and the ids of the connections in each. `ServerHandle::write` takes an id and bytes from
//! any thread; long ones are shared by all receivers and not copied.
//!
//! The rest is settings of the `Server`: a heartbeat, an idle timeout, a longest line
//! (`most_unused`), and a limit to what waits for a slow reader (`most_queued`). SIGTERM and SIGINT
//! begin a drain, which each client is told.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use clap::Parser;
use netpoller::{Addr, Conn, ConnId, Drain, Limits, Protocol, Server, ServerHandle};

/// A chat with rooms, on two workers
#[derive(Clone, Parser)]
pub struct Flags {
    /// Where to listen, as HOST:PORT; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    pub addr: String,
    /// How many threads
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..))]
    pub workers: u8,
    /// A silent client is pinged after this time: 30s, 500ms
    #[arg(long, default_value = "20s", value_parser = common::duration)]
    pub heartbeat: Duration,
    /// A client that has said nothing for this time is dropped
    #[arg(long, default_value = "5m", value_parser = common::duration)]
    pub idle: Duration,
    /// The bytes of the longest line
    #[arg(long, default_value_t = 1024)]
    pub longest_line: usize,
    /// How many bytes may wait for a client; a slower one is dropped
    // All lines of one read are said before the others run: 64 KiB of short lines make 0.8 MB.
    #[arg(long, default_value_t = 4 << 20)]
    pub most_queued: usize,
}

/// How long a drain may take.
const DRAIN: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    common::run_blocking(|flags: Flags| {
        let rooms = Arc::new(Rooms::default());
        let bound = server(&flags, &rooms).bind(flags.addr.as_str())?;
        let _ = rooms.server.set(bound.handle());
        common::drain_on_signals(bound.handle(), DRAIN)?;
        common::announce(bound.local_addr())?;
        bound.run().map(drop)
    })
}

pub fn server(flags: &Flags, rooms: &Arc<Rooms>) -> Server<impl Fn(Addr) -> Client + use<>> {
    let rooms = rooms.clone();
    let limits = Limits::default()
        .with_most_unused(flags.longest_line)
        .with_most_queued(flags.most_queued)
        // Reading from a client stops while so much waits for it.
        .with_high_water(flags.most_queued / 2)
        .with_low_water(flags.most_queued / 8);
    let longest_line = flags.longest_line;
    Server::new(move |_peer| Client::new(rooms.clone(), longest_line))
        .workers(usize::from(flags.workers))
        .heartbeat_with(flags.heartbeat, b"* are you there? /pong\n")
        .idle_timeout(flags.idle)
        .limits(limits)
}

// ---- what the workers share ----

#[derive(Default)]
pub struct Rooms {
    /// Set before the server runs.
    pub server: OnceLock<ServerHandle>,
    /// The ids of the connections in each room. A room that is empty is not kept.
    members: Mutex<BTreeMap<String, BTreeSet<ConnId>>>,
}

impl Rooms {
    fn members(&self) -> MutexGuard<'_, BTreeMap<String, BTreeSet<ConnId>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, room: &str, id: ConnId) {
        self.members()
            .entry(room.to_owned())
            .or_default()
            .insert(id);
    }

    fn leave(&self, room: &str, id: ConnId) {
        let mut members = self.members();
        if let Some(ids) = members.get_mut(room) {
            ids.remove(&id);
            if ids.is_empty() {
                members.remove(room);
            }
        }
    }

    /// Writes to all in the room but `from`. A write only queues, so the lock is held meanwhile: all
    /// hear the lines of a room in one order.
    fn tell(&self, room: &str, from: Option<ConnId>, line: &str) {
        let Some(server) = self.server.get() else {
            return;
        };
        let bytes: Arc<[u8]> = line.as_bytes().into();
        let members = self.members();
        let ids = members.get(room).into_iter().flatten();
        for &id in ids.filter(|&&id| Some(id) != from) {
            // A client that is gone or too slow ends, and its own `closed` takes it out of the room.
            if let Err(error) = server.write(id, bytes.clone()) {
                log::debug!("{error}");
            }
        }
    }

    fn list(&self) -> String {
        let members = self.members();
        let lines = members
            .iter()
            .map(|(room, ids)| format!("* {room}: {}\n", ids.len()));
        lines.collect()
    }
}

// ---- a connection ----

const HELP: &str =
    "* /join ROOM, /name NAME, /rooms, /pong, /quit; anything else is said in your room\n";

pub struct Client {
    rooms: Arc<Rooms>,
    longest_line: usize,
    name: String,
    room: String,
    /// Of the connection, once it is open.
    id: Option<ConnId>,
}

impl Client {
    fn new(rooms: Arc<Rooms>, longest_line: usize) -> Client {
        Client {
            rooms,
            longest_line,
            name: "guest".to_owned(),
            room: String::new(),
            id: None,
        }
    }

    fn say(&self, line: &str) {
        self.rooms.tell(&self.room, self.id, line);
    }

    fn enter(&mut self, room: &str, conn: &mut Conn) -> io::Result<()> {
        self.leave();
        let id = conn.id();
        self.room = room.to_owned();
        self.id = Some(id);
        self.rooms.enter(room, id);
        self.say(&format!("* {} has come\n", self.name));
        conn.write(format!("* you are in {room}\n").as_bytes())
    }

    fn leave(&mut self) {
        if let Some(id) = self.id.take() {
            self.rooms.leave(&self.room, id);
            self.rooms
                .tell(&self.room, None, &format!("* {} has left\n", self.name));
        }
    }

    fn line(&mut self, line: &str, conn: &mut Conn) -> io::Result<()> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (word, rest.trim()) {
            ("", "") | ("/pong", _) => Ok(()),
            ("/join", room) if is_name(room) => self.enter(room, conn),
            ("/name", name) if is_name(name) => {
                self.say(&format!("* {} is now {name}\n", self.name));
                self.name = name.to_owned();
                Ok(())
            }
            ("/rooms", _) => conn.write(self.rooms.list().as_bytes()),
            ("/quit", _) => {
                conn.close();
                Ok(())
            }
            (command, _) if command.starts_with('/') => conn.write(HELP.as_bytes()),
            _ => {
                self.say(&format!("{}: {line}\n", self.name));
                Ok(())
            }
        }
    }
}

fn is_name(text: &str) -> bool {
    (1..=20).contains(&text.len()) && text.chars().all(char::is_alphanumeric)
}

impl Protocol for Client {
    fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
        conn.write(HELP.as_bytes())?;
        self.enter("lobby", conn)
    }

    /// Takes all whole lines. The rest is offered again with more. A line that is too long ends the
    /// connection: here if it has come whole, by `most_unused` if it has not.
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        let mut used = 0;
        while let Some(length) = bytes[used..].iter().position(|&byte| byte == b'\n') {
            if length > self.longest_line {
                return Err(io::Error::other("a line is too long"));
            }
            let line = String::from_utf8_lossy(&bytes[used..used + length]);
            // Controls would move the cursor on the others' terminals.
            let plain: String = line.chars().filter(|c| !c.is_control()).collect();
            self.line(&plain, conn)?;
            used += length + 1;
        }
        Ok(used)
    }

    fn idle(&mut self, conn: &mut Conn) -> io::Result<()> {
        conn.write(b"* good-bye: you have said nothing for long\n")
    }

    /// A drain: each client is told, and goes once its last line is whole.
    fn draining(&mut self, conn: &mut Conn) -> io::Result<Drain> {
        conn.write(b"* the server ends: good-bye\n")?;
        Ok(Drain::AtBoundary)
    }

    fn closed(&mut self, why: io::Result<()>) {
        if let Err(error) = why {
            log::info!("{} is dropped: {error}", self.name);
        }
        self.leave();
    }
}
