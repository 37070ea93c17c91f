//! A chat: each line that one client sends goes to all others.
//! Row F7 of examples/README.md.
//!
//! ```text
//! cargo run --example broadcast                # listening on 127.0.0.1:41273
//! nc 127.0.0.1 41273                           # as often as you like, and talk
//! ```
//!
//! One payload, many connections: each delivery is a task of its own, so that no client waits for
//! another. The writes to one connection queue up and never mix, so that all clients read all lines
//! in the order in which they were sent. A client that takes nothing for ten seconds, or that is
//! too far behind, is dropped.

mod common;
#[path = "lines/splitter.rs"]
#[allow(dead_code, reason = "lines only, no words")]
mod splitter;

use std::cell::Cell;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use netpoller::{NetError, TcpListener, TcpStream, spawn, time};
use slab::Slab;
use splitter::{Splitter, line};

/// Sends what one client says to all others.
#[derive(Parser)]
struct Flags {
    /// Where to listen, as HOST:PORT; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    addr: String,
}

fn main() -> ExitCode {
    common::run(async |flags: Flags| serve(common::listen(&flags.addr).await?).await)
}

/// How long a client may take nothing.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many payloads may wait for one client.
const BACKLOG: usize = 1024;

/// The clients that are there.
#[derive(Clone, Default)]
pub struct Room(Rc<RefCell<Slab<Rc<Member>>>>);

struct Member {
    stream: TcpStream,
    /// Deliveries that have begun and not ended.
    waiting: Cell<usize>,
    /// Why the room has closed the stream, if it has.
    dropped: Cell<Option<io::Error>>,
}

pub async fn serve(listener: TcpListener) -> io::Result<()> {
    let room = Room::default();
    let each = move |stream, peer| {
        let room = room.clone();
        async move { common::note(peer, room.host(stream, peer).await) }
    };
    listener.serve(each).await
}

impl Room {
    /// One client, from its arrival to its end.
    async fn host(&self, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        let key = self.enter(stream.clone());
        self.say(key, &format!("{peer} has come"));
        let ended = async {
            let mut lines = Splitter::new(line);
            while let Some(line) = lines.read(&stream).await? {
                self.say(key, &format!("{peer}: {}", String::from_utf8_lossy(&line)));
            }
            Ok(())
        };
        let ended = ended.await;
        let dropped = self.leave(key);
        self.say(key, &format!("{peer} has gone"));
        // The read of a dropped client failed because of the drop.
        dropped.map_or(ended, Err)
    }

    pub fn enter(&self, stream: TcpStream) -> usize {
        self.0.borrow_mut().insert(Rc::new(Member {
            stream,
            waiting: Cell::new(0),
            dropped: Cell::new(None),
        }))
    }

    /// Why the room dropped the client, if it did.
    pub fn leave(&self, key: usize) -> Option<io::Error> {
        let gone = self.0.borrow_mut().remove(key);
        gone.dropped.take()
    }

    fn say(&self, from: usize, text: &str) {
        self.send(Some(from), format!("{text}\n").as_bytes());
    }

    /// Sends one payload to all but `from`, and waits for none of them.
    pub fn send(&self, from: Option<usize>, payload: &[u8]) {
        let payload: Rc<[u8]> = payload.into();
        for (key, member) in self.0.borrow().iter() {
            if Some(key) != from {
                spawn(deliver(member.clone(), payload.clone()));
            }
        }
    }
}

async fn deliver(member: Rc<Member>, payload: Rc<[u8]>) {
    member.waiting.set(member.waiting.get() + 1);
    if let Err(error) = member.write(&payload).await
        && !error.is_closed()
    {
        member.dropped.set(Some(error));
        // Ends the client's own task, which reads. A second abort changes nothing.
        let _ = member.stream.abort();
    }
    member.waiting.set(member.waiting.get() - 1);
}

impl Member {
    async fn write(&self, payload: &[u8]) -> io::Result<()> {
        if self.waiting.get() > BACKLOG {
            return Err(io::Error::other("dropped: it is too far behind"));
        }
        if self.waiting.get() == 1 {
            self.stream
                .set_write_deadline(Some(time::now() + PATIENCE))?;
        }
        match self.stream.write_all(payload).await {
            // It takes what it is sent: the deliveries that wait behind have their time again.
            Ok(()) => self.stream.set_write_deadline(Some(time::now() + PATIENCE)),
            Err(error) if error.is_timeout() => {
                let text = format!("dropped: it took nothing for {PATIENCE:?}");
                Err(io::Error::new(error.kind(), text))
            }
            Err(error) => Err(error),
        }
    }
}
