//! Echo on smol, one thread: a `LocalExecutor` that `smol::block_on` runs, a task and a buffer each.

use std::io::{self, ErrorKind};
use std::time::Duration;

use clap::Parser;
use peers::EchoFlags;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::{TcpListener, TcpStream};
use smol::{LocalExecutor, Timer, future};

fn main() -> io::Result<()> {
    let flags = EchoFlags::parse();
    let executor = LocalExecutor::new();
    smol::block_on(executor.run(async {
        let listener = TcpListener::bind(flags.addr).await?;
        peers::announce(listener.local_addr()?)?;
        loop {
            let (stream, _) = listener.accept().await?;
            match flags.idle_timeout {
                Some(limit) => executor
                    .spawn(echo_for(stream, flags.buffer, limit))
                    .detach(),
                None => executor.spawn(echo(stream, flags.buffer)).detach(),
            }
        }
    }))
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
        let expired = async {
            Timer::after(limit).await;
            Err(ErrorKind::TimedOut.into())
        };
        let length = future::or(stream.read(&mut buffer), expired).await?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length]).await?;
    }
}
