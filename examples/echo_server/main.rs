//! The echo server: the same service in several modes, to load, to measure and to read.
//!
//! `cargo run --release --example echo_server -- --addr 127.0.0.1:7000 --mode reactor`

#[path = "../common/mod.rs"]
mod common;
#[path = "serve.rs"]
mod serve;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use serve::{Mode, Options};

/// Echoes whatever it is sent.
#[derive(Parser)]
struct Flags {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:7000")]
    addr: String,
    /// How it is written: async (a task a connection), protocol (a state machine a
    /// connection), reactor (the netpoller alone).
    #[arg(long, default_value = "async")]
    mode: Mode,
    /// Threads, each with its own listener on the port.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// Close a connection that has sent nothing for so long, such as 500ms or 30s.
    #[arg(long, value_parser = common::duration)]
    idle_timeout: Option<Duration>,
    /// Send `ping` when nothing has come for so long; in protocol mode alone.
    #[arg(long, value_parser = common::duration)]
    heartbeat: Option<Duration>,
    /// Poll for so long before each sleep, such as 50us.
    #[arg(long, value_parser = common::duration)]
    spin: Option<Duration>,
}

fn main() -> ExitCode {
    common::end_with_the_reader();
    env_logger::init();
    let flags = Flags::parse();
    match run(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo_server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> io::Result<()> {
    let stop = common::self_pipe()?;
    let options = Options {
        addr: flags.addr.clone(),
        mode: flags.mode,
        workers: flags.workers.into(),
        idle_timeout: flags.idle_timeout,
        heartbeat: flags.heartbeat,
        spin: flags.spin,
    };
    let counts = serve::run(&options, stop, |addr| {
        let _ = common::announce(addr);
    })?;
    println!("{counts}");
    Ok(())
}
