//! The echo server: the same service in three modes, to load, to measure and to read.
//!
//! `cargo run --release --example echo_server -- --addr 127.0.0.1:7000 --mode reactor`

#[path = "../common/mod.rs"]
mod common;
#[path = "serve.rs"]
mod serve;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use serve::{Mode, Options};

/// Echoes what it receives, until SIGINT or SIGTERM; a second signal ends it at once. SIGQUIT
/// prints what each connection waits for; SIGUSR1 writes the trace, if --trace is given, and else
/// ends it at once
#[derive(Parser)]
struct Flags {
    /// Where to listen, as HOST:PORT; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:7000")]
    addr: String,
    /// How the server is written
    #[arg(long, value_enum, default_value_t = Mode::Async)]
    mode: Mode,
    /// Threads, each with its own listener on the port
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// Close a connection that has sent nothing for this time: 500ms, 30s, 5m, or a number of
    /// seconds; 0 is never
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = common::duration)]
    idle_timeout: Duration,
    /// Send `ping` when nothing has come for this time, as above; in protocol mode only
    #[arg(long, value_name = "TIME", value_parser = common::duration)]
    heartbeat: Option<Duration>,
    /// Poll for this time before each sleep, such as 50us
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = common::duration)]
    spin: Duration,
    /// Write what the loop has done in the last ten seconds to this file, at SIGUSR1 and at the end: for
    /// ui.perfetto.dev and chrome://tracing; needs the feature `trace`
    #[arg(long, value_name = "PATH")]
    trace: Option<PathBuf>,
    /// Start no thread that waits for SIGQUIT. With one worker and no --trace the process then has
    /// one thread, and glibc's system calls cost less
    #[arg(long)]
    no_dumps: bool,
}

const TRACED: &str = "cargo run --release --features trace --example echo_server -- --trace PATH";

fn main() -> ExitCode {
    common::run_blocking(|flags: Flags| {
        if flags.heartbeat.is_some() && flags.mode != Mode::Protocol {
            common::refuse_flags::<Flags>("--heartbeat needs --mode protocol");
        }
        if flags.trace.is_some() {
            if !cfg!(feature = "trace") {
                let why = format!("--trace needs the feature `trace`: {TRACED}");
                common::refuse_flags::<Flags>(why);
            }
            if flags.workers > 1 {
                common::refuse_flags::<Flags>("--trace records one loop: give --workers 1");
            }
        }
        let options = Options {
            addr: flags.addr,
            mode: flags.mode,
            idle_timeout: given(flags.idle_timeout),
            heartbeat: flags.heartbeat.and_then(given),
            spin: flags.spin,
            dumps: !flags.no_dumps,
            trace: flags.trace,
        };
        let stops: io::Result<_> = (0..flags.workers).map(|_| common::stop_signals()).collect();
        let counts = serve::run(&options, stops?, |addr| {
            let _ = common::announce(addr);
        })?;
        println!("{counts}");
        Ok(())
    })
}

/// Zero is never.
fn given(time: Duration) -> Option<Duration> {
    Some(time).filter(|time| !time.is_zero())
}
