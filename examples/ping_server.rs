//! Heartbeats without a task: the connections of a server ping silent peers and drop dead ones.
//!
//! ```text
//! cargo run --example ping_server              # on a virtual clock: at once
//! cargo run --example ping_server -- --real    # on the real one: 14 seconds
//! ```
//!
//! `pinger` shows rows D5 and D6 with a `Heartbeat` for async code. Here they are two settings of a
//! `Server`, and no code.

mod common;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use netpoller::{Addr, Conn, Protocol, Runtime, Server, TcpStream, time};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Shows when the connections of a server ping, and when they give up
#[derive(Parser)]
struct Flags {
    /// Use the real clock instead of a virtual one
    #[arg(long)]
    real: bool,
}

/// Prints what it receives. The server pings.
struct Hears;

impl Protocol for Hears {
    fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        println!("      the server hears {}", String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn closed(&mut self, why: io::Result<()>) {
        if let Err(error) = why {
            println!("      the server says: {error}");
        }
    }
}

fn main() -> ExitCode {
    common::run_blocking(|flags: Flags| {
        let runtime = common::clock(flags.real)?;
        common::dump_on_quit(runtime.handle())?;
        resets(&runtime)?;
        deadline(&runtime)
    })
}

/// Serves in the runtime, and runs a client.
fn serving(
    runtime: &Runtime,
    server: Server<impl Fn(Addr) -> Hears + Send + Sync + 'static>,
    talk: impl AsyncFnOnce(TcpStream) -> io::Result<()>,
) -> io::Result<()> {
    let bound = server.bind("127.0.0.1:0")?;
    let serving = bound.run_in(runtime)?;
    runtime.block_on(async {
        let client = TcpStream::connect(bound.local_addr()).await?;
        let talked = talk(client).await;
        bound.handle().stop();
        serving.await.map_err(io::Error::other)??;
        talked
    })
}

/// Row D5: a ping for each quiet interval. Any byte restarts the interval.
fn resets(runtime: &Runtime) -> io::Result<()> {
    println!("A heartbeat of 1 s, restarted by each byte:");
    let server = Server::new(|_peer| Hears).heartbeat_with(SECOND, *b"ping");
    serving(runtime, server, async |client| {
        for wait in [None, Some(200), Some(300), None] {
            let start = time::now();
            if let Some(wait) = wait {
                time::sleep(wait * MILLISECOND).await;
                client.write_all(b"something").await?;
            }
            client.read_exact(&mut [0; 4]).await?;
            println!("  a ping after {:.1?}", time::now() - start);
        }
        Ok(())
    })
}

/// Row D6: the server pings each second, and drops a client that has sent nothing for 5 s.
fn deadline(runtime: &Runtime) -> io::Result<()> {
    println!("An idle timeout of 5 s, moved by each byte:");
    let server = Server::new(|_peer| Hears)
        .heartbeat_with(SECOND, *b"ping")
        .idle_timeout(5 * SECOND);
    serving(runtime, server, async |client| {
        let start = time::now();
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
        Ok(())
    })
}
