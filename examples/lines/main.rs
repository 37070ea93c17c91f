//! Delimited reading: a server that takes lines, and answers each with its words.
//! Row F1 of examples/README.md.
//!
//! ```text
//! cargo run --example lines                    # listening on 127.0.0.1:41273
//! nc 127.0.0.1 41273
//! The bigger the interface, the weaker the abstraction.
//! 8: The|bigger|the|interface,|the|weaker|the|abstraction.
//! ```
//!
//! TCP keeps no boundaries: one write may arrive in pieces, and several writes at once.
//! `splitter.rs` puts lines together again. A line may have 64 KiB.

#[path = "../common/mod.rs"]
mod common;
pub mod splitter;

use std::io;
use std::process::ExitCode;

use clap::Parser;
use netpoller::{TcpListener, TcpStream};
use splitter::{Splitter, line, word};

/// Splits lines into words
#[derive(Parser)]
struct Flags {
    /// Where to listen, as HOST:PORT; port 0 takes a free one
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
        let words: Vec<_> =
            std::iter::from_fn(|| words.take().transpose()).collect::<Result<_, _>>()?;
        let mut answer = format!("{}: ", words.len()).into_bytes();
        answer.extend(words.join(&b'|'));
        answer.push(b'\n');
        stream.write_all(&answer).await?;
    }
    Ok(())
}
