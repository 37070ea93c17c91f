//! Ping by TCP: the time of a handshake, for hosts that answer no ICMP.
//! Rows T7, T8, T13 of examples/README.md.
//!
//! ```text
//! cargo run --example tcp_ping -- -c 3 -i 500ms -W 2s example.com:443
//! PING example.com:443
//! 1 23.104ms
//! 2 22.871ms
//! 3 fail in 2.001s: dial tcp 93.184.215.14:443: i/o timeout
//! ```
//!
//! It continues after a temporary error, such as a timeout, and ends with status 1 at a permanent
//! one, such as a refused connection. The status is 1 too when no ping was answered.

mod common;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use netpoller::{Dialer, NetError, time};

/// Connects to a port repeatedly, and prints how long each handshake took
#[derive(Parser)]
pub struct Flags {
    /// The target, as HOST:PORT
    target: String,
    /// How many pings; 0 or less is without end
    #[arg(short, long, default_value_t = 3, allow_negative_numbers = true)]
    count: i64,
    /// Time between two pings: 500ms, 2s, or a number of seconds
    #[arg(short, long, default_value = "1s", value_parser = common::duration)]
    interval: Duration,
    /// Time to wait for an answer, as above
    #[arg(short = 'W', long, default_value = "5s", value_parser = common::duration)]
    wait: Duration,
}

fn main() -> ExitCode {
    common::run(
        async |flags: Flags| match ping(&flags, &mut io::stdout()).await {
            // The reader of standard output has left.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
            ended => ended,
        },
    )
}

/// Pings, and reports to `out`. The status is 1 after a permanent error, and when none was answered.
pub async fn ping(flags: &Flags, out: &mut impl Write) -> io::Result<ExitCode> {
    writeln!(out, "PING {}", flags.target)?;
    if flags.count <= 0 {
        writeln!(out, "CTRL+C to stop.")?;
    }
    let dialer = Dialer::new().timeout(flags.wait);
    let (mut number, mut answered) = (0, 0);
    loop {
        number += 1;
        write!(out, "{number} ")?;
        out.flush()?;
        let start = Instant::now();
        let dialled = dialer.dial(&flags.target).await;
        let took = start.elapsed();
        match dialled {
            Ok(stream) => {
                stream.close()?;
                answered += 1;
                writeln!(out, "{took:.3?}")?;
            }
            Err(error) => {
                writeln!(out, "fail in {took:.3?}: {error}")?;
                if !error.is_temporary() {
                    return Ok(ExitCode::FAILURE);
                }
            }
        }
        if number == flags.count {
            return Ok(ExitCode::from(u8::from(answered == 0)));
        }
        time::sleep(flags.interval).await;
    }
}
