//! An HTTP/1.1 server by hand, on httparse.
//! Row O4 of examples/README.md.
//!
//! ```text
//! cargo run --release --example http -- --addr 127.0.0.1:8080
//! curl -i http://127.0.0.1:8080/time
//! curl -i -H 'Colour: blue' http://127.0.0.1:8080/headers
//! wrk -c 100 -d 10 http://127.0.0.1:8080/time            # or a browser
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `request.rs` | bytes in, requests or refusals out: no I/O |
//! | `response.rs` | which answer a request gets, and how it is written |
//! | `server.rs` | a connection: pipelining, keep-alive, and its deadlines |

#[path = "../common/mod.rs"]
mod common;
pub mod request;
pub mod response;
pub mod server;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

/// Answers /time and /headers
#[derive(Parser)]
struct Flags {
    /// Where to listen, as HOST:PORT; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8080")]
    addr: String,
    /// Time for a request, from its first byte to its last: 500ms, 10s, or a number of seconds
    #[arg(long, default_value = "10s", value_parser = common::duration)]
    request_timeout: Duration,
    /// Time between two requests, as above
    #[arg(long, default_value = "60s", value_parser = common::duration)]
    idle_timeout: Duration,
    /// How many connections at once; the others wait in the backlog
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,
}

fn main() -> ExitCode {
    common::run(async |flags: Flags| {
        let listener = common::listen(&flags.addr).await?;
        let limits = server::Limits {
            request: flags.request_timeout,
            idle: flags.idle_timeout,
            connections: flags.max_connections as usize,
        };
        server::serve(listener, limits).await
    })
}
