//! Type-length-value frames over any stream: a server that sends every value back.
//! Row F2 of examples/README.md.
//!
//! ```text
//! cargo run --example tlv                                 # listening on 127.0.0.1:41273
//! cargo run --example tlv -- --to 127.0.0.1:41273 clear is better than clever
//! ```
//!
//! A frame is a byte for its type (1 binary, 2 string), four for the length (big-endian), and the
//! payload. A declared length is only a claim: above the limit it is refused before anything is
//! allocated, and below it memory grows with the bytes that have arrived.

mod common;

use std::io;
use std::process::ExitCode;

use clap::Parser;
use futures_lite::io::{AsyncReadExt, AsyncWriteExt};
use futures_lite::{AsyncRead, AsyncWrite};
use netpoller::{TcpListener, TcpStream};

/// Sends values, or sends them back
#[derive(Parser)]
struct Flags {
    /// Where to listen, as HOST:PORT; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    addr: String,
    /// A server to send the words to, as HOST:PORT
    #[arg(long)]
    to: Option<String>,
    /// The words to send
    #[arg(requires = "to")]
    words: Vec<String>,
}

fn main() -> ExitCode {
    common::run(async |flags: Flags| match flags.to {
        Some(server) => ask(&TcpStream::connect(server).await?, flags.words).await,
        None => serve(common::listen(&flags.addr).await?).await,
    })
}

pub async fn serve(listener: TcpListener) -> io::Result<()> {
    let each = async |stream, peer| common::note(peer, answer(stream).await);
    listener.serve(each).await
}

async fn answer(stream: TcpStream) -> io::Result<()> {
    while let Some(value) = read(&mut &stream).await? {
        log::info!("{}", summary(&value));
        write(&mut &stream, &value).await?;
    }
    Ok(())
}

/// What the log says of a value. The payload may be megabytes.
pub fn summary(value: &Value) -> String {
    match value {
        Value::Binary(bytes) => format!("binary, {} bytes", bytes.len()),
        Value::String(text) => format!("string, {} bytes", text.len()),
    }
}

async fn ask(server: &TcpStream, words: Vec<String>) -> io::Result<()> {
    for word in words {
        write(&mut &*server, &Value::String(word)).await?;
        match read(&mut &*server).await? {
            Some(answer) => println!("{answer:?}"),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
    Ok(())
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Binary(Vec<u8>),
    String(String),
}

const BINARY: u8 = 1;
const STRING: u8 = 2;

/// The longest payload.
pub const LIMIT: u32 = 10 << 20;

/// The next value. `None`: the end of file, between two values.
pub async fn read(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Value>> {
    let mut head = [0; 5];
    if reader.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    let [kind, length @ ..] = &mut head;
    if ![BINARY, STRING].contains(kind) {
        return Err(invalid(format!("unknown type {kind}")));
    }
    reader.read_exact(length).await?;
    let length = u32::from_be_bytes(*length);
    if length > LIMIT {
        return Err(invalid("maximum payload size exceeded"));
    }
    let payload = read_payload(reader, length as usize).await?;
    match *kind {
        STRING => String::from_utf8(payload)
            .map(|text| Some(Value::String(text)))
            .map_err(invalid),
        _ => Ok(Some(Value::Binary(payload))),
    }
}

/// Makes room for as much again as has arrived, and never for more than was declared.
async fn read_payload(reader: &mut (impl AsyncRead + Unpin), length: usize) -> io::Result<Vec<u8>> {
    const FIRST: usize = 4 << 10;
    let mut payload = Vec::new();
    while payload.len() < length {
        let come = payload.len();
        let more = come.max(FIRST).min(length - come);
        payload.reserve_exact(more);
        payload.resize(come + more, 0);
        reader.read_exact(&mut payload[come..]).await?;
    }
    Ok(payload)
}

pub async fn write(writer: &mut (impl AsyncWrite + Unpin), value: &Value) -> io::Result<()> {
    let (kind, payload) = match value {
        Value::Binary(bytes) => (BINARY, bytes.as_slice()),
        Value::String(text) => (STRING, text.as_bytes()),
    };
    let length = u32::try_from(payload.len()).ok();
    let length = length.filter(|&length| length <= LIMIT);
    let length = length.ok_or_else(|| invalid("maximum payload size exceeded"))?;
    let mut frame = Vec::with_capacity(5 + payload.len());
    frame.push(kind);
    frame.extend(length.to_be_bytes());
    frame.extend(payload);
    writer.write_all(&frame).await
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
