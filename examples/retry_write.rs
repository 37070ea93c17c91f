//! Retrying after a temporary error, with a limit.
//! Rows R4, R6–R8, R12, C6 of examples/README.md.
//!
//! ```text
//! cargo run --example retry_write              # peers that read late, never, or are killed
//! cargo run --example retry_write -- --real    # on the real clock
//! ```
//!
//! An error says whether it is temporary (`is_temporary`: a timeout, a shortage of memory) and how
//! much was written before it (`written`), so that a write continues where it stopped.

mod common;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use netpoller::{NetError, TcpStream, net, spawn, time};

/// Writes to peers that do not read
#[derive(Parser)]
struct Flags {
    /// Use the real clock instead of a virtual one
    #[arg(long)]
    real: bool,
}

/// The size of a write buffer. Linux gives twice as much, up to `net.core.wmem_max`.
const BUFFER: usize = 64 << 10;

/// The number of tries, the time for each, and the time between two.
pub const TRIES: u32 = 7;
pub const PATIENCE: Duration = Duration::from_secs(1);
pub const PAUSE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let clock = |flags: &Flags| common::clock(flags.real);
    common::run_on(clock, async |_| show().await)
}

async fn show() -> io::Result<()> {
    let message = vec![b'x'; 16 << 20];

    println!("To a peer that begins to read after 30 s:");
    let (stream, peer) = common::pair().await?;
    // Row C6. Smaller than the system would make it, so that less is in flight when a write fails.
    stream.set_write_buffer(BUFFER)?;
    let given = stream.write_buffer()?;
    println!("  a write buffer of {BUFFER} bytes is asked for, and one of {given} is given");
    let reading = spawn(async move {
        time::sleep(Duration::from_secs(30)).await;
        net::copy(&peer, &mut futures_lite::io::sink()).await
    });
    write(&stream, &message).await?;
    stream.close()?;
    let got = reading.await.map_err(io::Error::other)??;
    println!("  it got {got} bytes");

    println!("To one that never reads:");
    let (stream, _peer) = common::pair().await?;
    if let Err(error) = write(&stream, &message).await {
        println!("  {error}");
    }

    println!("To one that is killed meanwhile:");
    let (stream, peer) = common::pair().await?;
    spawn(async move {
        time::sleep(PATIENCE / 2).await;
        peer.abort()
    });
    if let Err(error) = write(&stream, &message).await {
        println!("  {error}");
    }
    Ok(())
}

/// Writes all bytes, in up to seven tries.
pub async fn write(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    for number in 1..=TRIES {
        if number > 1 {
            time::sleep(PAUSE).await;
        }
        stream.set_write_deadline(Some(time::now() + PATIENCE))?;
        match stream.write_all(bytes).await {
            Err(error) if error.is_temporary() => {
                log::info!("try {number}: {error}");
                bytes = &bytes[error.op_error().map_or(0, |error| error.written)..];
            }
            ended => return ended,
        }
    }
    Err(io::Error::other(
        "temporary write failure threshold exceeded",
    ))
}
