//! The smallest server: it sends each client the time, and closes.
//! Rows T1, T4, O1 of examples/README.md.
//!
//! ```text
//! cargo run --example time_server              # listening on 127.0.0.1:41273
//! nc 127.0.0.1 41273                           # 2006-01-02 15:04:05
//! ```
//!
//! `serve` accepts until the listener closes and runs a task for each connection. Port 0 takes a free port. A
//! connection closes when its last handle is dropped: with a FIN, if all input was read.

mod common;

use std::io;
use std::process::ExitCode;

use clap::Parser;
use netpoller::{TcpListener, TcpStream};

/// Tells the time.
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
    let each = async |stream, peer| common::note(peer, tell(stream).await);
    listener.serve(each).await
}

pub async fn tell(stream: TcpStream) -> io::Result<()> {
    let now = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S\n");
    stream.write_all(now.to_string().as_bytes()).await
}
