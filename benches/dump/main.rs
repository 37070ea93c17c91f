//! What a dump of many connections takes of the loop: `cargo run --release -p netpoller-benches --example
//! dump`.
//!
//! The clients are in a process of their own. The server's loop is driven turn by turn, and only turns in
//! which the dump is made are counted, by CPU time: the loop has nothing else to do.

use std::error::Error;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use clap::Parser;
use netpoller::{Conn, Protocol, Runtime, Server};

/// Measures what a dump takes of the loop's time.
#[derive(Parser)]
struct Flags {
    /// How many connections there are
    #[arg(long, default_value_t = 15_000)]
    connections: u64,
    /// How many dumps are made
    #[arg(long, default_value_t = 20)]
    dumps: usize,
    /// Be the clients of this server, until standard input ends
    #[arg(long, hide = true)]
    to: Option<SocketAddr>,
}

#[path = "../common/mod.rs"]
mod common;

use common::CpuTime;

struct Discard;

impl Protocol for Discard {
    fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
}

const HOUR: Duration = Duration::from_secs(3600);

fn main() -> Result<(), Box<dyn Error>> {
    let flags = Flags::parse();
    if let Some(addr) = flags.to {
        let clients = (0..flags.connections).map(|_| TcpStream::connect(addr));
        let clients: Vec<_> = clients.collect::<io::Result<_>>()?;
        io::stdin().read_to_end(&mut Vec::new())?;
        drop(clients);
        return Ok(());
    }
    let runtime = Runtime::new()?;
    let server = Server::new(|_| Discard).idle_timeout(HOUR).heartbeat(HOUR);
    let bound = server.bind("127.0.0.1:0")?;
    drop(bound.run_in(&runtime)?);
    let mut clients = Command::new(std::env::current_exe()?)
        .args(["--connections", &flags.connections.to_string()])
        .args(["--to", &bound.local_addr().to_string()])
        .stdin(Stdio::piped())
        .spawn()?;
    while bound.handle().stats().live() < flags.connections {
        runtime.turn(Some(Duration::from_millis(100)))?;
    }
    while runtime.turn(Some(Duration::ZERO))?.more {}

    let mut all = Vec::new();
    for _ in 0..flags.dumps {
        let handle = runtime.handle();
        let asking = thread::spawn(move || handle.dump(HOUR));
        let (mut sum, mut longest) = (Duration::ZERO, Duration::ZERO);
        while !asking.is_finished() {
            // Turns before and after the dump are not counted.
            let start = CpuTime::now();
            let turn = runtime.turn(Some(Duration::ZERO))?;
            let took = CpuTime::now() - start;
            if turn.more || took > Duration::from_micros(50) {
                sum += took;
                longest = longest.max(took);
            }
        }
        let dump = asking.join().map_err(|_| "the dump panicked")?;
        assert!(dump.machines.len() as u64 >= flags.connections);
        all.push((sum, longest));
    }
    drop(clients.stdin.take());
    clients.wait()?;
    all.sort();
    let (median, most) = (all[all.len() / 2], all[all.len() - 1]);
    let longest = all.iter().map(|&(_, longest)| longest);
    println!(
        "a dump of {} connections: {:.1?} of the loop's time (median of {}; at most {:.1?}); longest slice {:.2?}, {:.2?} at worst",
        flags.connections,
        median.0,
        all.len(),
        most.0,
        median.1,
        longest.max().unwrap_or_default()
    );
    Ok(())
}
