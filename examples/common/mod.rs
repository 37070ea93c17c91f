//! What the examples share: how they begin, what they print, how they end.
#![allow(dead_code, reason = "each example uses some")]

use std::fmt::Display;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::panic;
use std::process::{self, ExitCode, Termination};
use std::time::Duration;

use clap::Parser;
use env_logger::Env;
use futures_lite::future;
use netpoller::{Runtime, TcpListener, TcpStream, UnixStream};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// Runs an example: flags, a log, a runtime. Ctrl-C ends it, wherever it waits, and is no failure;
/// an error is one line and status 1.
pub fn run<F: Parser, T: Termination>(example: impl AsyncFnOnce(F) -> io::Result<T>) -> ExitCode {
    run_on(|_| Runtime::new(), example)
}

/// As [`run`], on a runtime that the flags choose.
pub fn run_on<F: Parser, T: Termination>(
    runtime: impl FnOnce(&F) -> io::Result<Runtime>,
    example: impl AsyncFnOnce(F) -> io::Result<T>,
) -> ExitCode {
    end_with_the_reader();
    env_logger::Builder::from_env(Env::default().default_filter_or("info"))
        .format_target(false)
        .init();
    let flags = F::parse();
    let ended = runtime(&flags).and_then(|runtime| {
        runtime.block_on(async {
            let interrupted = interrupted()?;
            let example = async { example(flags).await.map(T::report) };
            let interrupted = async { interrupted.await.map(|()| ExitCode::SUCCESS) };
            future::or(example, interrupted).await
        })
    });
    ended.unwrap_or_else(|error| {
        eprintln!("{}: {error}", env!("CARGO_CRATE_NAME"));
        ExitCode::FAILURE
    })
}

/// Ends quietly when nobody reads any more what is printed: `| head -1` takes its line and leaves.
/// With another error it ends as with every error. `println!` has no way to tell but its panic.
pub fn end_with_the_reader() {
    let others = panic::take_hook();
    panic::set_hook(Box::new(move |panicked| {
        let text = panicked.payload().downcast_ref::<String>();
        match text.filter(|text| text.starts_with("failed printing to stdout")) {
            Some(text) if text.contains("Broken pipe") => process::exit(0),
            Some(text) => {
                eprintln!("{}: {text}", env!("CARGO_CRATE_NAME"));
                process::exit(1);
            }
            None => others(panicked),
        }
    }));
}

/// The wall's clock, or one that jumps to whatever comes next.
pub fn clock(real: bool) -> io::Result<Runtime> {
    match real {
        true => Runtime::new(),
        false => Runtime::builder().virtual_clock().build(),
    }
}

/// Waits for Ctrl-C or SIGTERM.
fn interrupted() -> io::Result<impl Future<Output = io::Result<()>>> {
    let signals = UnixStream::from_std(self_pipe()?)?;
    Ok(async move {
        signals.read(&mut [0]).await?;
        log::info!("interrupted");
        Ok(())
    })
}

/// The self-pipe: a signal's handler does nothing but write a byte, and the loop reads it as it
/// reads every socket.
pub fn self_pipe() -> io::Result<std::os::unix::net::UnixStream> {
    let (ours, handlers) = std::os::unix::net::UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        pipe::register(signal, handlers.try_clone()?)?;
    }
    Ok(ours)
}

/// Listens, and says where: with port 0 that is the only way to know.
pub async fn listen(addr: &str) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(addr).await?;
    announce(listener.local_addr()?)?;
    Ok(listener)
}

/// The first line that a server prints; whoever started it may wait for it.
pub fn announce(addr: SocketAddr) -> io::Result<()> {
    println!("listening on {addr}");
    io::stdout().flush()
}

/// What became of a connection, for the log.
pub fn note(peer: impl Display, ended: io::Result<()>) {
    match ended {
        Ok(()) => log::info!("{peer}: done"),
        Err(error) => log::warn!("{peer}: {error}"),
    }
}

/// Both ends of a connection, for those that show both in one process.
pub async fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let client = TcpStream::connect(listener.local_addr()?).await?;
    Ok((client, listener.accept().await?.0))
}

/// Reads `50us`, `500ms`, `30s`, `5m`, and as seconds what has no unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(split.unwrap_or(text.len()));
    let scale = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" | "" => 1.0,
        "m" => 60.0,
        _ => return Err("give a number and us, ms, s or m, such as 500ms".into()),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| format!("{number:?} is no number"))?;
    Duration::try_from_secs_f64(number * scale).map_err(|error| error.to_string())
}
