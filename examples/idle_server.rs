//! Servers that give a silent client a limit.
//! Rows D1–D4 of examples/README.md.
//!
//! ```text
//! cargo run --example idle_server                      # 3 s from the last byte, then a timeout
//! cargo run --example idle_server -- --mode goodbye    # says goodbye first
//! cargo run --example idle_server -- --mode patient --idle 5s
//! ```
//!
//! A deadline is a point in time and not a span. A server that means "3 s from the last byte" moves
//! it on every byte, which costs a store. After it has passed, the parked read and every later one
//! fail until it is moved. The connection itself is as good as before.

mod common;

use std::cell::Cell;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use futures_lite::future;
use netpoller::{NetError, TcpListener, TcpStream, time};

/// Reads from its clients while they send
#[derive(Parser)]
struct Flags {
    /// Where to listen, as HOST:PORT; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    addr: String,
    /// How long a client may be silent: 500ms, 3s, 5m, or a number of seconds
    #[arg(long, default_value = "3s", value_parser = common::duration)]
    idle: Duration,
    /// What the server does then
    #[arg(long, value_enum, default_value_t = Mode::Timeout)]
    mode: Mode,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Mode {
    /// Its read fails with a timeout, and the server closes
    Timeout,
    /// A watcher beside the reader says goodbye first
    Goodbye,
    /// It gives as much time again, once, for one byte
    Patient,
}

fn main() -> ExitCode {
    common::run(async |flags: Flags| {
        let listener = common::listen(&flags.addr).await?;
        serve(listener, flags.mode, flags.idle).await
    })
}

pub async fn serve(listener: TcpListener, mode: Mode, idle: Duration) -> io::Result<()> {
    let each = move |stream: TcpStream, peer| async move {
        let ended = match mode {
            Mode::Timeout => by_deadline(&stream, idle).await,
            Mode::Goodbye => by_signal(&stream, idle).await,
            Mode::Patient => patient(&stream, idle).await,
        };
        common::note(peer, ended);
    };
    listener.serve(each).await
}

/// Row D4: the deadline moves with every byte.
pub async fn by_deadline(stream: &TcpStream, idle: Duration) -> io::Result<()> {
    loop {
        stream.set_read_deadline(Some(time::now() + idle))?;
        match stream.read_with(<[u8]>::len).await? {
            0 => return Ok(()),
            bytes => log::info!("{bytes} bytes"),
        }
    }
}

/// Row D4 with a signal: the reader notes the time of each read, and a watcher says goodbye when
/// the last one is too long ago.
pub async fn by_signal(stream: &TcpStream, idle: Duration) -> io::Result<()> {
    let heard = Cell::new(time::now());
    let watch = async {
        while time::now() < heard.get() + idle {
            time::sleep_until(heard.get() + idle).await;
        }
        stream.write_all(b"goodbye\n").await
    };
    let read = async {
        while stream.read_with(<[u8]>::len).await? > 0 {
            heard.set(time::now());
        }
        Ok(())
    };
    future::or(read, watch).await
}

/// Row D3: a timeout does not end a connection. Once the deadline is moved, it works again.
pub async fn patient(stream: &TcpStream, idle: Duration) -> io::Result<()> {
    let mut byte = [0];
    stream.set_deadline(Some(time::now() + idle))?;
    let mut read = stream.read(&mut byte).await;
    if let Err(error) = &read
        && error.is_timeout()
    {
        log::info!("{error}; as much time again");
        stream.set_deadline(Some(time::now() + idle))?;
        read = stream.read(&mut byte).await;
    }
    log::info!("{} byte, and that is enough", read?);
    stream.close()
}
