//! An echo server that is watched: its figures as OpenMetrics text, for Prometheus.
//! Row O6 of examples/README.md.
//!
//! ```text
//! cargo run --release --features observe --example metrics -- --workers 2 --metrics 127.0.0.1:9000
//! curl http://127.0.0.1:9000/metrics
//! ```
//!
//! Without the feature `observe` the histograms of times are not there. The names and labels stay as
//! they are, as those of an API do: dashboards depend on them.
//!
//! | file | what it is |
//! |---|---|
//! | `figures.rs` | the names, and what each is read from |
//! | `page.rs` | the page over HTTP/1.1, on a loop of its own |

#[path = "../common/mod.rs"]
mod common;
pub mod figures;
pub mod page;
#[path = "../http/request.rs"]
mod request;
#[allow(dead_code, reason = "the routes are of the example http")]
#[path = "../http/response.rs"]
mod response;

use std::io;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Parser;
use netpoller::{Conn, Protocol, Server};

/// Echoes what it receives, and serves its figures to Prometheus
#[derive(Parser)]
struct Flags {
    /// Where the echo server listens, as HOST:PORT; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    addr: String,
    /// Where the figures are, as above
    #[arg(long, default_value = "127.0.0.1:0")]
    metrics: String,
    /// Threads of the echo server
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// Close a connection that has sent nothing for this time: 500ms, 30s, 5m, or a number of seconds
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = common::duration)]
    idle_timeout: Duration,
}

/// How long a drain may take.
const DRAIN: Duration = Duration::from_secs(5);

pub struct Echo;

impl Protocol for Echo {
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        conn.write(bytes)?;
        Ok(bytes.len())
    }
}

fn main() -> ExitCode {
    common::run_blocking(|flags: Flags| {
        let echo = Server::new(|_peer| Echo)
            .workers(usize::from(flags.workers))
            .idle_timeout(flags.idle_timeout)
            .heartbeat_with(flags.idle_timeout / 2, *b"ping")
            .bind(flags.addr.as_str())?;
        let page = page::server(echo.handle()).bind(flags.metrics.as_str())?;
        let (addr, watched) = (page.local_addr(), page.handle());
        common::drain_on_signals(echo.handle(), DRAIN)?;
        common::announce(echo.local_addr())?;
        println!("metrics at http://{addr}/metrics");
        // On a thread and a loop of its own: it answers also while every worker is held.
        let serving = thread::spawn(move || page.run());
        let ended = echo.run();
        watched.stop();
        let served = serving.join().expect("a panic ends its connection alone");
        ended.and(served).map(drop)
    })
}
