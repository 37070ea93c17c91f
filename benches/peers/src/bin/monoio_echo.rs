//! Echo on monoio, as its README has it: a task each, whose buffer goes into each call and comes back.
//! On io_uring, or on its epoll driver, which it calls legacy.

use std::io;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::time::timeout;
use monoio::utils::detect_uring;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};
use peers::EchoFlags;

#[derive(Parser, Clone, Copy)]
struct Flags {
    #[command(flatten)]
    echo: EchoFlags,
    #[arg(long, default_value = "uring")]
    driver: Driver,
}

#[derive(ValueEnum, Clone, Copy)]
enum Driver {
    Legacy,
    Uring,
}

fn main() -> io::Result<()> {
    let flags = Flags::parse();
    match flags.driver {
        Driver::Legacy => RuntimeBuilder::<LegacyDriver>::new()
            .enable_timer()
            .build()?
            .block_on(serve(flags.echo)),
        Driver::Uring if detect_uring() => RuntimeBuilder::<IoUringDriver>::new()
            .enable_timer()
            .build()?
            .block_on(serve(flags.echo)),
        Driver::Uring => {
            eprintln!("io_uring is not available here: the kernel does not allow it");
            std::process::exit(1)
        }
    }
}

async fn serve(flags: EchoFlags) -> io::Result<()> {
    let listener = TcpListener::bind(flags.addr)?;
    peers::announce(listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        match flags.idle_timeout {
            Some(limit) => drop(monoio::spawn(echo_for(stream, flags.buffer, limit))),
            None => drop(monoio::spawn(echo(stream, flags.buffer))),
        }
    }
}

async fn echo(mut stream: TcpStream, room: usize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(room);
    loop {
        let (read, filled) = stream.read(buffer).await;
        if read? == 0 {
            return Ok(());
        }
        let (written, mut used) = stream.write_all(filled).await;
        written?;
        used.clear();
        buffer = used;
    }
}

async fn echo_for(mut stream: TcpStream, room: usize, limit: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(room);
    loop {
        // The buffer of a read that was given up is gone, and so is its connection.
        let (read, filled) = timeout(limit, stream.read(buffer)).await?;
        if read? == 0 {
            return Ok(());
        }
        let (written, mut used) = stream.write_all(filled).await;
        written?;
        used.clear();
        buffer = used;
    }
}
