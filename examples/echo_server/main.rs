//! The echo server: the same service in several modes, to load, to measure and to read.
//!
//! `cargo run --release --example echo_server -- --addr 127.0.0.1:7000 --mode reactor`

#[path = "serve.rs"]
mod serve;

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};

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
    #[arg(long, value_parser = duration)]
    idle_timeout: Option<Duration>,
    /// Send `ping` when nothing has come for so long; in protocol mode alone.
    #[arg(long, value_parser = duration)]
    heartbeat: Option<Duration>,
    /// Poll for so long before each sleep, such as 50us.
    #[arg(long, value_parser = duration)]
    spin: Option<Duration>,
}

/// Reads `50us`, `500ms`, `30s`, `5m`.
fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(split.unwrap_or(text.len()));
    let scale = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err("give a number and us, ms, s or m, such as 500ms".into()),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| format!("{number:?} is no number"))?;
    Duration::try_from_secs_f64(number * scale).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
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
    // The self-pipe: the handler writes a byte, and the loop reads its other end as any source.
    let (stop, signalled) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        signal_hook::low_level::pipe::register(signal, signalled.try_clone()?)?;
    }
    let options = Options {
        addr: flags.addr.clone(),
        mode: flags.mode,
        workers: flags.workers.into(),
        idle_timeout: flags.idle_timeout,
        heartbeat: flags.heartbeat,
        spin: flags.spin,
    };
    let counts = serve::run(&options, stop, |addr| {
        println!("listening on {addr}");
        let _ = io::stdout().flush();
    })?;
    println!("{counts}");
    Ok(())
}
