//! A TCP proxy on tokio: `copy_bidirectional`, one task a connection, one thread.

use std::io;
use std::net::SocketAddr;

use clap::Parser;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

#[derive(Parser)]
struct Flags {
    addr: SocketAddr,
    /// The target.
    #[arg(long)]
    to: SocketAddr,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let flags = Flags::parse();
    let listener = TcpListener::bind(flags.addr).await?;
    peers::announce(listener.local_addr()?)?;
    loop {
        let (client, _) = listener.accept().await?;
        tokio::spawn(between(client, flags.to));
    }
}

async fn between(mut client: TcpStream, target: SocketAddr) -> io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}
