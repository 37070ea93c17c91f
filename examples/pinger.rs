//! Heartbeats: a ping for each quiet interval, and a deadline that every byte moves.
//! Rows D5–D7 of examples/README.md.
//!
//! ```text
//! cargo run --example pinger              # on a virtual clock: at once
//! cargo run --example pinger -- --real    # on the real one: 14 seconds
//! ```

mod common;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use netpoller::{Heartbeat, TcpStream, spawn, time};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Shows when heartbeats ping
#[derive(Parser)]
struct Flags {
    /// Use the real clock instead of a virtual one
    #[arg(long)]
    real: bool,
}

fn main() -> ExitCode {
    let clock = |flags: &Flags| common::clock(flags.real);
    common::run_on(clock, async |_| {
        resets().await?;
        deadline().await?;
        both().await
    })
}

/// Row D5: each reset may give a new interval. Zero and `None` keep the last one.
async fn resets() -> io::Result<()> {
    println!("A heartbeat of 1 s, reset:");
    let (client, server) = common::pair().await?;
    let heartbeat = Heartbeat::start(&server, SECOND);
    let millis = |n| Some(n * MILLISECOND);
    for reset in [
        millis(0),
        millis(200),
        millis(300),
        millis(0),
        None,
        None,
        None,
    ] {
        if reset.is_some() {
            heartbeat.reset(reset);
        }
        let start = time::now();
        client.read_exact(&mut [0; 4]).await?;
        println!("  {reset:?}: a ping after {:.1?}", time::now() - start);
    }
    Ok(())
}

/// Row D6: the server pings each second, and waits 5 s for any byte.
async fn deadline() -> io::Result<()> {
    println!("A deadline of 5 s, moved by every byte:");
    let (client, server) = common::pair().await?;
    let start = time::now();
    let serving = spawn(async move {
        let heartbeat = Heartbeat::start(&server, SECOND);
        let mut buffer = [0; 1024];
        loop {
            server.set_read_deadline(Some(time::now() + 5 * SECOND))?;
            match server.read(&mut buffer).await {
                Ok(0) => return Ok(()),
                Ok(_) => heartbeat.reset(None),
                Err(error) => return Err(error),
            }
        }
    });
    for _ in 0..4 {
        client.read_exact(&mut [0; 4]).await?;
        println!("  {:.0?}: ping", time::now() - start);
    }
    println!("  {:.0?}: pong, and no more", time::now() - start);
    client.write_all(b"pong").await?;
    while client.read_with(<[u8]>::len).await? > 0 {
        println!("  {:.0?}: ping", time::now() - start);
    }
    println!("  {:.0?}: end of file", time::now() - start);
    if let Ok(Err(error)) = serving.await {
        println!("  the server says: {error}");
    }
    Ok(())
}

/// Row D7: both sides ping, and neither does while bytes of the other arrive.
async fn both() -> io::Result<()> {
    println!("Both sides ping after 400 ms of silence; one of them talks for a second:");
    let (client, server) = common::pair().await?;
    let start = time::now();
    let listen = |name: &'static str, stream: TcpStream| async move {
        let heartbeat = Heartbeat::start(&stream, 400 * MILLISECOND);
        loop {
            let take = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let heard = stream.read_with(take).await?;
            if heard.is_empty() {
                return io::Result::Ok(());
            }
            heartbeat.reset(None);
            println!("  {:.1?}: the {name} hears {heard}", time::now() - start);
        }
    };
    let tasks = [
        spawn(listen("client", client.clone())),
        spawn(listen("server", server.clone())),
    ];
    for _ in 0..5 {
        time::sleep(200 * MILLISECOND).await;
        client.write_all(b"data").await?;
        server.write_all(b"data").await?;
    }
    time::sleep(SECOND).await;
    client.close()?;
    for task in tasks {
        let _closed = task.await;
    }
    Ok(())
}
