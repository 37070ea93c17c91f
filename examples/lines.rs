//! Delimited reading: a server that takes lines, and answers each with its words. Row F1.
//!
//! ```text
//! cargo run --example lines                    # listening on 127.0.0.1:41273
//! nc 127.0.0.1 41273
//! The bigger the interface, the weaker the abstraction.
//! 8: The|bigger|the|interface,|the|weaker|the|abstraction.
//! ```
//!
//! TCP keeps no boundaries: what was written at once may come in pieces, and pieces at once. The
//! splitter takes bytes however they come, and does no I/O: so it can be tried with every cut.

mod common;

use std::io;
use std::process::ExitCode;

use clap::Parser;
use netpoller::{TcpListener, TcpStream};

/// Splits lines into words.
#[derive(Parser)]
struct Flags {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    addr: String,
}

fn main() -> ExitCode {
    common::run(async |flags: Flags| serve(common::listen(&flags.addr).await?).await)
}

pub async fn serve(listener: TcpListener) -> io::Result<()> {
    let each = async |stream, peer| common::note(peer, answer(stream).await);
    listener.serve(each).await
}

async fn answer(stream: TcpStream) -> io::Result<()> {
    let mut lines = Splitter::new(line);
    while let Some(line) = lines.read(&stream).await? {
        let mut words = Splitter::new(word);
        words.push(&line);
        words.push(b"");
        let words: Vec<_> = std::iter::from_fn(|| words.take()).collect();
        let mut answer = format!("{}: ", words.len()).into_bytes();
        answer.extend(words.join(&b'|'));
        answer.push(b'\n');
        stream.write_all(&answer).await?;
    }
    Ok(())
}

/// Where the next token lies in what has come, and how much it uses up with what delimits it.
/// `None`: that is not known before more comes. Go's `bufio.SplitFunc`.
type Split = fn(bytes: &[u8], end: bool) -> Option<(std::ops::Range<usize>, usize)>;

/// Lines, without their end.
pub fn line(bytes: &[u8], end: bool) -> Option<(std::ops::Range<usize>, usize)> {
    let without_cr = |length: usize| length - usize::from(bytes[..length].ends_with(b"\r"));
    match bytes.iter().position(|&byte| byte == b'\n') {
        Some(length) => Some((0..without_cr(length), length + 1)),
        None if end && !bytes.is_empty() => Some((0..bytes.len(), bytes.len())),
        None => None,
    }
}

/// What stands between white space.
pub fn word(bytes: &[u8], end: bool) -> Option<(std::ops::Range<usize>, usize)> {
    let start = bytes.iter().position(|byte| !byte.is_ascii_whitespace())?;
    let length = bytes[start..].iter().position(u8::is_ascii_whitespace);
    match length {
        Some(length) => Some((start..start + length, start + length + 1)),
        None if end => Some((start..bytes.len(), bytes.len())),
        None => None,
    }
}

/// Cuts tokens out of bytes as they come.
pub struct Splitter {
    split: Split,
    bytes: Vec<u8>,
    ended: bool,
}

impl Splitter {
    /// No token is longer, as in Go's `bufio.Scanner`: a peer that never ends one fills no memory.
    pub const LONGEST: usize = 64 << 10;

    pub fn new(split: Split) -> Self {
        Splitter {
            split,
            bytes: Vec::new(),
            ended: false,
        }
    }

    /// The next token of a stream; `None` at its end.
    pub async fn read(&mut self, stream: &TcpStream) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(token) = self.take() {
                return Ok(Some(token));
            }
            if self.ended {
                return Ok(None);
            }
            if self.bytes.len() > Self::LONGEST {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "token too long"));
            }
            stream.read_with(|bytes| self.push(bytes)).await?;
        }
    }

    /// Takes what came. Nothing is the end: what is left is a token too.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ended |= bytes.is_empty();
    }

    /// The next token, if it has come whole.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        let (token, used) = (self.split)(&self.bytes, self.ended)?;
        let token = self.bytes[token].to_vec();
        self.bytes.drain(..used);
        Some(token)
    }
}
