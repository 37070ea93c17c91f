//! What a deadline does and does not do: passed, moved, cleared, for one direction.
//! Rows D1, D2, D8 of examples/README.md.
//!
//! ```text
//! cargo run --example deadlines                # on a virtual clock: at once
//! cargo run --example deadlines -- --real      # on the real clock: 4 seconds
//! ```

mod common;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use netpoller::{TcpStream, spawn, time};

const SECOND: Duration = Duration::from_secs(1);

/// Shows what a deadline does to reads and writes.
#[derive(Parser)]
struct Flags {
    /// Use the real clock instead of a virtual one
    #[arg(long)]
    real: bool,
}

fn main() -> ExitCode {
    let clock = |flags: &Flags| common::clock(flags.real);
    common::run_on(clock, async |_| show().await)
}

async fn show() -> io::Result<()> {
    let (ours, theirs) = common::pair().await?;
    // The peer echoes the first message after three seconds.
    spawn(async move {
        let message = theirs.read_with(<[u8]>::to_vec).await?;
        time::sleep(3 * SECOND).await;
        theirs.write_all(&message).await
    });

    println!("A read deadline of 1 s:");
    ours.set_read_deadline(Some(time::now() + SECOND))?;
    read(&ours, "the read").await;
    read(&ours, "and every later one, at once").await;
    ours.write_all(b"hello").await?;
    println!("  writing goes on: 5 bytes written");

    println!("Moved by 1 s:");
    ours.set_read_deadline(Some(time::now() + SECOND))?;
    read(&ours, "the read").await;

    println!("Cleared:");
    ours.set_read_deadline(None)?;
    read(&ours, "the read").await;
    Ok(())
}

async fn read(stream: &TcpStream, what: &str) {
    let start = time::now();
    let read = stream.read_with(<[u8]>::to_vec).await;
    let said = match read {
        Ok(bytes) => format!("{:?}", String::from_utf8_lossy(&bytes)),
        Err(error) => error.to_string(),
    };
    println!("  {what} after {:.0?}: {said}", time::now() - start);
}
