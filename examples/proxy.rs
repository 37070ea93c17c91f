//! A TCP proxy: it connects each client to the target, and passes the bytes on.
//! Rows C4, F4, F5 of examples/README.md.
//!
//! ```text
//! cargo run --example proxy                     # a demonstration: a ping server, a proxy, a client
//! cargo run --example proxy -- --addr 127.0.0.1:8080 --to example.com:80
//! ```
//!
//! A half-close is passed on, and both sides are closed in the end. If a side resets its connection, the
//! other side is reset too, and what the system has not sent it yet is lost. On Linux the kernel splices
//! large amounts: see `net::copy`.

mod common;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use futures_lite::io::{AssertAsync, Cursor};
use netpoller::net::{self, CopySink, CopySource, Relay, Serve};
use netpoller::{NetError, TcpListener, TcpStream, spawn, time};

/// Passes on what clients send, and what the target answers
#[derive(Parser)]
struct Flags {
    /// Where to listen, as HOST:PORT; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0", requires = "to")]
    addr: String,
    /// The target, as HOST:PORT [default: the example runs a demonstration]
    #[arg(long, value_parser = host_port)]
    to: Option<String>,
    /// How many connections at once; the others wait in the backlog
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,
    /// How long one side may be silent once the other has ended (not SO_LINGER): 500ms, 60s, or a
    /// number of seconds
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = common::duration)]
    linger: Duration,
}

/// The name is resolved for each connection; that it has a port is checked at the start.
fn host_port(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').map(|(_, port)| port);
    match port {
        Some("") | None => Err("missing port in address".into()),
        Some(port) if port.contains(']') => Err("missing port in address".into()),
        Some(_) => Ok(text.into()),
    }
}

fn main() -> ExitCode {
    common::run(async |flags: Flags| match flags.to {
        Some(target) => {
            let listener = common::listen(&flags.addr).await?;
            let most = flags.max_connections as usize;
            proxy(listener, target, most, flags.linger).await
        }
        None => show().await,
    })
}

/// Row F4: between two connections.
pub async fn proxy(
    listener: TcpListener,
    target: String,
    most: usize,
    linger: Duration,
) -> io::Result<()> {
    let serve = Serve::new(listener).max_connections(most);
    serve
        .run(move |client, peer| {
            let target = target.clone();
            async move {
                match between(&client, &target, linger).await {
                    Ok((up, down)) => log::info!("{peer}: {up} bytes up, {down} down"),
                    Err(error) => log::warn!("{peer}: {error}"),
                }
            }
        })
        .await
}

async fn between(client: &TcpStream, target: &str, linger: Duration) -> io::Result<(u64, u64)> {
    let server = time::timeout(Duration::from_secs(10), TcpStream::connect(target)).await??;
    let relayed = Relay::new().linger(linger).run(client, &server).await;
    // What was read before a reset is incomplete: a FIN would look like a clean end to the other side.
    let is_cut = |error: &io::Error| error.op_error().is_some_and(|error| error.op == "read");
    if relayed.as_ref().is_err_and(is_cut) {
        let _closed_already = (client.abort(), server.abort());
    }
    relayed
}

/// Row F5: one function for all kinds of ends.
pub async fn pass_on(from: impl CopySource, to: impl CopySink) -> io::Result<u64> {
    net::copy(from, to).await
}

// ---- the example shows itself ----

async fn show() -> io::Result<()> {
    let servers = TcpListener::bind("127.0.0.1:0").await?;
    let target = servers.local_addr()?.to_string();
    spawn(async move { servers.serve(ping_server).await });

    let proxies = TcpListener::bind("127.0.0.1:0").await?;
    let address = proxies.local_addr()?;
    spawn(proxy(proxies, target, 100, Duration::from_secs(60)));

    let client = TcpStream::connect(address).await?;
    for message in ["ping", "hello", "ping"] {
        client.write_all(message.as_bytes()).await?;
        let answer = client.read_with(|bytes| String::from_utf8_lossy(bytes).into_owned());
        log::info!("{message} -> {}", answer.await?);
    }
    client.close_write()?;
    log::info!("and then {} bytes: the end", client.read(&mut [0]).await?);

    let mut memory = Cursor::new(Vec::new());
    let (reader, writer) = io::pipe()?;
    pass_on(
        &mut &b"from memory into a pipe"[..],
        &mut AssertAsync::new(writer),
    )
    .await?;
    pass_on(&mut AssertAsync::new(reader), &mut memory).await?;
    // A file that exists wherever the example is run.
    let this = std::fs::File::open(std::env::current_exe()?)?;
    let read = pass_on(&mut AssertAsync::new(this), &mut futures_lite::io::sink()).await?;
    log::info!("{}, out of it again; and {read} bytes of a file", {
        String::from_utf8_lossy(memory.get_ref())
    });
    Ok(())
}

/// Answers `ping` with `pong`, and echoes everything else.
pub async fn ping_server(stream: TcpStream, _peer: std::net::SocketAddr) -> io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        let got = stream.read(&mut buffer).await?;
        match &buffer[..got] {
            b"" => return Ok(()),
            b"ping" => stream.write_all(b"pong").await?,
            other => stream.write_all(other).await?,
        }
    }
}
