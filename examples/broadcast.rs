//! A chat: each line that one client sends goes to all others.
//! Row F7 of examples/README.md.
//!
//! ```text
//! cargo run --example broadcast                # listening on 127.0.0.1:41273
//! nc 127.0.0.1 41273                           # as often as you like, and talk
//! ```
//!
//! One payload, many connections: each client has a queue, and a task writes what is in it, so that no
//! client waits for another. All clients get the lines of the others in one order. A client
//! that takes nothing for ten seconds, or that is too far behind, is dropped.

mod common;
#[path = "lines/splitter.rs"]
#[allow(dead_code, reason = "lines only, no words")]
mod splitter;

use std::cell::Cell;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use netpoller::{NetError, TcpListener, TcpStream, spawn, yield_now};
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
/// Short payloads go out together, up to so many bytes in one write: so a client keeps up with many that
/// talk at once.
const BATCH: usize = 4096;

/// The clients that are there.
#[derive(Clone, Default)]
pub struct Room(Rc<RefCell<Slab<Rc<Member>>>>);

struct Member {
    stream: TcpStream,
    /// What is still to be delivered. A task delivers the first few.
    queue: RefCell<VecDeque<Rc<[u8]>>>,
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
                // Many lines may come in one read. The others take each before the next is said.
                yield_now().await;
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
            queue: RefCell::default(),
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
                member.queue(payload.clone());
            }
        }
    }
}

impl Member {
    fn queue(self: &Rc<Self>, payload: Rc<[u8]>) {
        let mut queue = self.queue.borrow_mut();
        match queue.len() {
            0 => drop(spawn(self.clone().deliver())),
            BACKLOG => return self.drop_for(io::Error::other("dropped: it is too far behind")),
            _ => {}
        }
        queue.push_back(payload);
    }

    /// What goes out in the next write: the first payload, and those behind it as far as there is room.
    fn first(&self) -> Vec<Rc<[u8]>> {
        let queue = self.queue.borrow();
        let mut bytes = 0;
        let fits = |payload: &&Rc<[u8]>| {
            bytes += payload.len();
            bytes <= BATCH
        };
        let fitting = queue.iter().take_while(fits).count().max(1);
        queue.iter().take(fitting).cloned().collect()
    }

    /// Delivers until the queue is empty.
    async fn deliver(self: Rc<Self>) {
        loop {
            let first = self.first();
            let joined;
            let bytes = match &first[..] {
                [] => return,
                // A long one is not copied: all clients share it.
                [one] => &one[..],
                several => {
                    joined = several.concat();
                    &joined
                }
            };
            match common::write_patiently(&self.stream, bytes, Some(PATIENCE)).await {
                Ok(()) => drop(self.queue.borrow_mut().drain(..first.len())),
                Err(error) if error.is_timeout() => {
                    let text = format!("dropped: it took nothing for {PATIENCE:?}");
                    return self.drop_for(io::Error::new(error.kind(), text));
                }
                Err(error) if error.is_closed() => return,
                Err(error) => return self.drop_for(error),
            }
        }
    }

    /// Ends the client's own task, which reads.
    fn drop_for(&self, why: io::Error) {
        if self.stream.abort().is_ok() {
            self.dropped.set(Some(why));
        }
    }
}
