//! A chat: each line that anybody says goes to everybody else. Row F7.
//!
//! ```text
//! cargo run --example broadcast                # listening on 127.0.0.1:41273
//! nc 127.0.0.1 41273                           # as often as you like, and talk
//! ```
//!
//! One payload, many connections: a delivery to each is a task of its own, so that nobody waits for
//! anybody. Writes of one connection queue up and never mix, so that everybody reads everything in
//! the order it was said. Who takes nothing for ten seconds, or is too far behind, is shut out.

mod common;
#[path = "lines/splitter.rs"]
#[allow(dead_code, reason = "lines only, no words")]
mod splitter;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use netpoller::{TcpListener, TcpStream, spawn, time};
use slab::Slab;
use splitter::{Splitter, line};

/// Lets everybody talk to everybody.
#[derive(Parser)]
struct Flags {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    addr: String,
}

fn main() -> ExitCode {
    common::run(async |flags: Flags| serve(common::listen(&flags.addr).await?).await)
}

/// How long a peer may take nothing.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many payloads may wait for one peer.
const BACKLOG: usize = 1024;

/// Everybody who is there.
#[derive(Clone, Default)]
pub struct Room(Rc<RefCell<Slab<Rc<Member>>>>);

struct Member {
    stream: TcpStream,
    /// Deliveries on their way.
    waiting: Cell<usize>,
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
    /// One connection, from coming to going.
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
        self.leave(key);
        self.say(key, &format!("{peer} has gone"));
        ended
    }

    pub fn enter(&self, stream: TcpStream) -> usize {
        self.0.borrow_mut().insert(Rc::new(Member {
            stream,
            waiting: Cell::new(0),
        }))
    }

    pub fn leave(&self, key: usize) {
        let gone = self.0.borrow_mut().remove(key);
        drop(gone);
    }

    fn say(&self, from: usize, text: &str) {
        self.send(Some(from), format!("{text}\n").as_bytes());
    }

    /// Sends one payload to everybody but `from`. Waits for nobody.
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
    let stream = &member.stream;
    member.waiting.set(member.waiting.get() + 1);
    let delivered = async {
        if member.waiting.get() > BACKLOG {
            return Err(io::Error::other("too far behind"));
        }
        if member.waiting.get() == 1 {
            stream.set_write_deadline(Some(time::now() + PATIENCE))?;
        }
        stream.write_all(&payload).await?;
        // It takes what it is sent: those that wait behind have their time again.
        stream.set_write_deadline(Some(time::now() + PATIENCE))
    };
    if let Err(error) = delivered.await {
        log::debug!("{error}");
        // Its own task finds the end. What was closed before stays so.
        let _ = stream.abort();
    }
    member.waiting.set(member.waiting.get() - 1);
}
