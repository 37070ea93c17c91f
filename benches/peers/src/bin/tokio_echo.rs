//! Echo on tokio, as its own `examples/echo-tcp.rs` has it: a task and a buffer each.

use std::io;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use peers::EchoFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::time::timeout;

#[derive(Parser, Clone, Copy)]
struct Flags {
    #[command(flatten)]
    echo: EchoFlags,
    #[arg(long, default_value = "current-thread")]
    flavor: Flavor,
    /// Threads of the multi-thread flavour; without this one for each CPU it may run on.
    #[arg(long)]
    workers: Option<usize>,
    /// Write `ping` to a connection that has sent nothing for so long.
    #[arg(long, value_parser = humantime::parse_duration)]
    heartbeat: Option<Duration>,
}

#[derive(ValueEnum, Clone, Copy)]
enum Flavor {
    CurrentThread,
    MultiThread,
}

fn main() -> io::Result<()> {
    let flags = Flags::parse();
    let mut builder = match flags.flavor {
        Flavor::CurrentThread => Builder::new_current_thread(),
        Flavor::MultiThread => Builder::new_multi_thread(),
    };
    if let Some(workers) = flags.workers {
        builder.worker_threads(workers);
    }
    builder.enable_all().build()?.block_on(serve(flags))
}

async fn serve(flags: Flags) -> io::Result<()> {
    let listener = TcpListener::bind(flags.echo.addr).await?;
    peers::announce(listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        // The loops differ, and so would their size: a future holds the largest of what it awaits.
        match (flags.echo.idle_timeout, flags.heartbeat) {
            (_, Some(pause)) => drop(tokio::spawn(echo_and_ping(
                stream,
                flags.echo.buffer,
                pause,
            ))),
            (Some(limit), None) => drop(tokio::spawn(echo_for(stream, flags.echo.buffer, limit))),
            (None, None) => drop(tokio::spawn(echo(stream, flags.echo.buffer))),
        }
    }
}

async fn echo(mut stream: TcpStream, room: usize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; room];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length]).await?;
    }
}

async fn echo_for(mut stream: TcpStream, room: usize, limit: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; room];
    loop {
        let length = timeout(limit, stream.read(&mut buffer)).await??;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length]).await?;
    }
}

async fn echo_and_ping(mut stream: TcpStream, room: usize, pause: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; room];
    loop {
        match timeout(pause, stream.read(&mut buffer)).await {
            Ok(Ok(0)) => return Ok(()),
            Ok(length) => stream.write_all(&buffer[..length?]).await?,
            Err(_quiet) => stream.write_all(b"ping").await?,
        }
    }
}
