//! A client of an echo server that closes after ten seconds, by FIN or by RST.
//! Rows O2, T6, C1–C3 of examples/README.md.
//!
//! ```text
//! cargo run --example echo_client              # with a server of its own: the log of both sides
//! cargo run --example echo_client -- --linger 0
//! cargo run --example echo_client -- --addr 127.0.0.1:7000 --seconds 3
//! ```
//!
//! A close sends FIN, and what was written still arrives. A close with a linger of zero sends RST and
//! discards what is underway. A close with a longer linger waits up to that long for the written bytes
//! to arrive: on a thread for such closes, while the loop continues.

mod common;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use netpoller::{TcpListener, TcpStream, net, spawn, time};

/// Talks to an echo server, and closes
#[derive(Clone, Parser)]
pub struct Flags {
    /// The server, as HOST:PORT [default: one of its own, so that the log has both sides]
    #[arg(long)]
    pub addr: Option<String>,
    /// The message that is sent every second
    #[arg(long, default_value = "hello")]
    pub message: String,
    /// When to close, in seconds
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// How long closing waits, in seconds; 0 closes with a RST
    #[arg(long)]
    pub linger: Option<u64>,
}

fn main() -> ExitCode {
    common::run(async |flags: Flags| match flags.addr.clone() {
        Some(addr) => talk(addr, &flags).await,
        None => both_sides(&flags).await,
    })
}

async fn both_sides(flags: &Flags) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let server = spawn(async move {
        let (stream, peer) = listener.accept().await?;
        echo(stream, peer).await
    });
    talk(addr.to_string(), flags).await?;
    // The server logs how the connection ended.
    let _ended = server.await.map_err(io::Error::other)?;
    Ok(())
}

/// The server's side: copies the stream to itself, to its end.
pub async fn echo(stream: TcpStream, peer: SocketAddr) -> io::Result<u64> {
    log::info!("server: {peer} has come");
    let ended = net::copy(&stream, &stream).await;
    match &ended {
        Ok(bytes) => log::info!("server: end of file after {bytes} bytes; closing too"),
        Err(error) => log::info!("server: {error}"),
    }
    ended
}

/// The client's side: a message a second, and then the end.
pub async fn talk(addr: String, flags: &Flags) -> io::Result<()> {
    let stream = TcpStream::connect(addr).await?;
    log::info!(
        "client: {} -> {}",
        stream.local_addr()?,
        stream.peer_addr()?
    );
    if let Some(seconds) = flags.linger {
        stream.set_linger(Some(Duration::from_secs(seconds)))?;
    }
    let mut tick = time::interval(Duration::from_secs(1));
    let mut answer = vec![0; flags.message.len()];
    for _ in 0..flags.seconds {
        tick.tick().await;
        stream.write_all(flags.message.as_bytes()).await?;
        stream.read_exact(&mut answer).await?;
        log::info!("client: {}", String::from_utf8_lossy(&answer));
    }
    tick.tick().await;
    let how = if flags.linger == Some(0) {
        "RST"
    } else {
        "FIN"
    };
    log::info!("client: closing, by {how}");
    stream.close()
}
