//! What the peers' programs share: their flags, the line that says where they listen, and how
//! timers and wake-ups are counted. No networking is in here: that is each peer's own.

mod timers;
mod wake;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
pub use timers::{TimerFlags, Timing, resident};
pub use wake::{WakeFlags, Wakes};

/// Flags of every echo server.
#[derive(Parser, Clone, Copy)]
pub struct EchoFlags {
    /// Where to listen; port 0 takes a free one.
    pub addr: SocketAddr,
    /// Close a connection that has sent nothing for so long.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub idle_timeout: Option<Duration>,
    /// Bytes of each connection's buffer. 4 KiB is what tokio's example takes.
    #[arg(long, default_value_t = 4096)]
    pub buffer: usize,
}

/// Says where a server listens, flushed: the runner waits for this line.
pub fn announce(addr: SocketAddr) -> io::Result<()> {
    println!("listening on {addr}");
    io::stdout().flush()
}
