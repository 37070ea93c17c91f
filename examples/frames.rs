//! A request/response protocol of length-prefixed frames: a store of names and values.
//! Row F3 of examples/README.md.
//!
//! ```text
//! cargo run --example frames                          # listening on 127.0.0.1:41273
//! cargo run --example frames -- --to 127.0.0.1:41273 'set colour blue' 'get colour' 'get size'
//! ```
//!
//! A frame is a length (four bytes, big-endian) and a text. Requests may be pipelined: sent one after
//! the other without waiting. They are answered in order, those that arrived together with one
//! write. Half a frame waits for its other half.

mod common;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;

use clap::Parser;
use netpoller::{TcpListener, TcpStream};

/// Keeps values under names, or asks for them
#[derive(Parser)]
struct Flags {
    /// Where to listen, as HOST:PORT; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    addr: String,
    /// A server to send all requests to at once, as HOST:PORT
    #[arg(long)]
    to: Option<String>,
    /// `set NAME VALUE` or `get NAME`
    #[arg(requires = "to")]
    requests: Vec<String>,
}

fn main() -> ExitCode {
    common::run(async |flags: Flags| match flags.to {
        Some(server) => {
            let answers = ask(&TcpStream::connect(server).await?, &flags.requests).await?;
            answers.iter().for_each(|answer| println!("{answer}"));
            Ok(())
        }
        None => serve(common::listen(&flags.addr).await?).await,
    })
}

type Store = Rc<RefCell<HashMap<String, String>>>;

pub async fn serve(listener: TcpListener) -> io::Result<()> {
    let store = Store::default();
    let each = |stream, peer| {
        let store = store.clone();
        async move { common::note(peer, answer(stream, store).await) }
    };
    listener.serve(each).await
}

async fn answer(stream: TcpStream, store: Store) -> io::Result<()> {
    let mut frames = Frames::default();
    while stream.read_with(|bytes| frames.push(bytes)).await? > 0 {
        let mut answers = Vec::new();
        while let Some(request) = frames.take()? {
            put_frame(&mut answers, &respond(&request, &store));
        }
        stream.write_all(&answers).await?;
    }
    Ok(())
}

fn respond(request: &str, store: &Store) -> String {
    match request.splitn(3, ' ').collect::<Vec<_>>()[..] {
        ["set", name, value] => {
            store.borrow_mut().insert(name.into(), value.into());
            "ok".into()
        }
        ["get", name] => {
            let value = store.borrow().get(name).cloned();
            value.unwrap_or_else(|| format!("nothing is known of {name}"))
        }
        _ => format!("neither set nor get: {request}"),
    }
}

/// Sends all the requests at once, and waits for their answers.
pub async fn ask(stream: &TcpStream, requests: &[impl AsRef<str>]) -> io::Result<Vec<String>> {
    let mut bytes = Vec::new();
    for request in requests {
        put_frame(&mut bytes, request.as_ref());
    }
    stream.write_all(&bytes).await?;
    let (mut frames, mut answers) = (Frames::default(), Vec::new());
    while answers.len() < requests.len() {
        if stream.read_with(|bytes| frames.push(bytes)).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while let Some(answer) = frames.take()? {
            answers.push(answer);
        }
    }
    Ok(answers)
}

/// Takes bytes as they arrive, and gives whole frames.
#[derive(Default)]
pub struct Frames(Vec<u8>);

impl Frames {
    /// The longest text.
    pub const LIMIT: usize = 1 << 20;

    /// Appends bytes, and returns how many.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        self.0.extend_from_slice(bytes);
        bytes.len()
    }

    /// The next frame, if it has come whole.
    pub fn take(&mut self) -> io::Result<Option<String>> {
        let Some((length, rest)) = self.0.split_first_chunk() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > Self::LIMIT {
            return Err(invalid("frame too long"));
        }
        let Some(text) = rest.get(..length) else {
            return Ok(None);
        };
        let text = String::from_utf8(text.to_vec()).map_err(invalid)?;
        self.0.drain(..4 + length);
        Ok(Some(text))
    }
}

/// Appends a frame.
pub fn put_frame(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u32).to_be_bytes());
    bytes.extend(text.as_bytes());
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
