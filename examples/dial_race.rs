//! Dials that end: at a deadline, by hand, or because another was first.
//! Rows T9–T12 of examples/README.md.
//!
//! ```text
//! cargo run --example dial_race                # shows all four, on a virtual clock: at once
//! cargo run --example dial_race -- --real      # on the real one
//! cargo run --example dial_race -- example.com:443 example.org:443   # which answers first?
//! ```
//!
//! A scope (Go's context) ends everything that runs in it, and says why it ended. The addresses of a
//! name are raced by the library: the second family starts 300 ms after the first.

mod common;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use netpoller::{CancelToken, Dialer, TcpListener, TcpStream, spawn, time};
use socket2::{Domain, Socket, Type};

const SECOND: Duration = Duration::from_secs(1);

/// Dials all targets at once, and keeps the first that answers
#[derive(Parser)]
struct Flags {
    /// Targets, as HOST:PORT; without any the example runs a demonstration
    targets: Vec<String>,
    /// Limit of time: 500ms, 5s, or a number of seconds
    #[arg(long, default_value = "5s", value_parser = common::duration)]
    timeout: Duration,
    /// Use the real clock instead of a virtual one
    #[arg(long)]
    real: bool,
}

fn main() -> ExitCode {
    let clock = |flags: &Flags| common::clock(flags.real || !flags.targets.is_empty());
    common::run_on(clock, async |flags: Flags| {
        if flags.targets.is_empty() {
            return show().await;
        }
        let scope = CancelToken::new().with_timeout(flags.timeout);
        let (winner, stream) = first_of(flags.targets, &scope).await?;
        println!("{winner} was first, at {}", stream.peer_addr()?);
        Ok(())
    })
}

/// Row T11: dials all targets in one scope. The first answer ends the scope, and with it the other
/// dials. Without an answer the result is an error.
pub async fn first_of(
    targets: Vec<String>,
    scope: &CancelToken,
) -> io::Result<(String, TcpStream)> {
    let mut dials = Vec::new();
    for target in targets {
        let scope = scope.clone();
        dials.push(spawn(async move {
            let stream = Dialer::new().cancel(&scope).dial(&target).await?;
            // A second dial may have succeeded meanwhile. It finds the scope ended, and is closed.
            let ended = scope.err();
            scope.cancel();
            ended.map_or(Ok((target, stream)), |why| Err(why.into()))
        }));
    }
    let mut first = Err(io::ErrorKind::InvalidInput.into());
    for dial in dials {
        let dialled: io::Result<_> = dial.await.map_err(io::Error::other)?;
        if first.is_err() {
            first = dialled;
        }
    }
    first
}

async fn show() -> io::Result<()> {
    let silent = Silent::new()?;
    let start = time::now();
    let at = || format!("{:4.1?}", time::now() - start);

    println!("A scope with a deadline of 5 s:");
    let scope = CancelToken::new().with_timeout(5 * SECOND);
    let dialled = Dialer::new().cancel(&scope).dial(silent.addr).await;
    println!("  {}: {}; {}", at(), failed(dialled), why(&scope));

    println!("One that is canceled by hand, after 1 s:");
    let scope = CancelToken::new();
    let by_hand = scope.clone();
    spawn(async move {
        time::sleep(SECOND).await;
        by_hand.cancel();
    });
    let dialled = Dialer::new().cancel(&scope).dial(silent.addr).await;
    println!("  {}: {}; {}", at(), failed(dialled), why(&scope));

    println!("Ten in one scope, of which one answers:");
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let answers = listener.local_addr()?.to_string();
    let mut targets = vec![silent.addr.to_string(); 10];
    targets[7].clone_from(&answers);
    let scope = CancelToken::new().with_timeout(10 * SECOND);
    let (winner, _stream) = first_of(targets, &scope).await?;
    println!("  {}: {winner} was first; {}", at(), why(&scope));

    println!("A name with two addresses, of which the first never answers:");
    let sixth =
        TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, silent.addr.port()))).await?;
    let both = |_: &str| Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    let dialer = Dialer::new().resolver(both).timeout(5 * SECOND);
    let stream = dialer
        .dial(("both.test", sixth.local_addr()?.port()))
        .await?;
    println!("  {}: connected to {}", at(), stream.peer_addr()?);
    Ok(())
}

fn failed(dialled: io::Result<TcpStream>) -> String {
    dialled.map_or_else(|error| error.to_string(), |_| "connected".into())
}

fn why(scope: &CancelToken) -> String {
    let ended = scope.err().map(|why| format!("the scope says: {why}"));
    ended.unwrap_or_else(|| "the scope goes on".into())
}

/// An address that never answers: its backlog is full, so that the system drops what arrives.
pub struct Silent {
    pub addr: SocketAddr,
    _full: Vec<Socket>,
}

impl Silent {
    pub fn new() -> io::Result<Silent> {
        let tcp = || Socket::new(Domain::IPV4, Type::STREAM, None);
        let listener = tcp()?;
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        listener.listen(0)?;
        let addr = listener.local_addr()?;
        let mut full = vec![listener];
        for _ in 0..8 {
            let client = tcp()?;
            client.set_nonblocking(true)?;
            let _in_progress = client.connect(&addr);
            full.push(client);
        }
        let addr = addr.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Silent { addr, _full: full })
    }
}
