//! What the examples share: flags, log, exit status, signals, and the first line of a server.
#![allow(dead_code, reason = "each example uses some")]

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::panic;
use std::process::{self, ExitCode, Termination};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use env_logger::Env;
use futures_lite::future;
use netpoller::reactor::Breaker;
use netpoller::{
    Dump, Handle, NetError, Runtime, ServerHandle, TcpListener, TcpStream, UnixStream, time,
};
use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
use signal_hook::low_level::pipe;

/// Runs an example in a runtime. SIGINT and SIGTERM end it wherever it waits, with status 0;
/// SIGQUIT prints what it waits for.
pub fn run<F: Parser, T: Termination>(example: impl AsyncFnOnce(F) -> io::Result<T>) -> ExitCode {
    run_on(|_| Runtime::new(), example)
}

/// As [`run`], in a runtime that the flags choose.
pub fn run_on<F: Parser, T: Termination>(
    runtime: impl FnOnce(&F) -> io::Result<Runtime>,
    example: impl AsyncFnOnce(F) -> io::Result<T>,
) -> ExitCode {
    run_blocking(|flags: F| {
        runtime(&flags)?.block_on(async {
            let stop = stop_signals()?;
            dump_on_quit(Handle::current())?;
            let example = async { example(flags).await.map(T::report) };
            let interrupted = async {
                UnixStream::from_std(stop)?.read(&mut [0]).await?;
                log::info!("interrupted");
                Ok(ExitCode::SUCCESS)
            };
            future::or(example, interrupted).await
        })
    })
}

/// Runs an example without a runtime: reads the flags and begins the log. An error is one line on
/// standard error and status 1. Flags that are wrong are explained, with status 2.
pub fn run_blocking<F: Parser, T: Termination>(
    example: impl FnOnce(F) -> io::Result<T>,
) -> ExitCode {
    end_with_the_reader();
    let flags = F::parse();
    // Warnings are seen without setting anything, and so is what a server does at its end.
    env_logger::Builder::from_env(Env::default().default_filter_or("info"))
        .format_target(false)
        .init();
    example(flags).map_or_else(
        |error| {
            eprintln!("{}: {error}", env!("CARGO_CRATE_NAME"));
            ExitCode::FAILURE
        },
        T::report,
    )
}

/// Refuses flags that do not go together, as `F` refuses those that it does not know.
pub fn refuse_flags<F: CommandFactory>(why: impl Display) -> ! {
    let mut command = F::command().bin_name(env!("CARGO_CRATE_NAME"));
    command.error(ErrorKind::ArgumentConflict, why).exit()
}

/// Ends quietly, with status 0, when the reader of standard output has left: `| head -1` takes its
/// line and goes. `println!` reports a failed write by a panic alone, so a hook looks for it. After
/// any other failed write the process ends with one line and status 1.
fn end_with_the_reader() {
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

/// The system's clock, or a virtual one, which jumps to the next deadline.
pub fn clock(real: bool) -> io::Result<Runtime> {
    match real {
        true => Runtime::new(),
        false => Runtime::builder().virtual_clock().build(),
    }
}

/// A stream that yields a byte for each SIGINT and SIGTERM. The handler only writes that byte; a
/// loop reads it as it reads every socket (the self-pipe).
pub fn stop_signals() -> io::Result<std::os::unix::net::UnixStream> {
    signals(&[SIGINT, SIGTERM])
}

/// As [`stop_signals`], of SIGUSR1.
pub fn trace_signals() -> io::Result<std::os::unix::net::UnixStream> {
    signals(&[SIGUSR1])
}

fn signals(all: &[i32]) -> io::Result<std::os::unix::net::UnixStream> {
    let (ours, handlers) = std::os::unix::net::UnixStream::pair()?;
    for &signal in all {
        pipe::register(signal, handlers.try_clone()?)?;
    }
    Ok(ours)
}

/// Ends the process, with status 0, at the first SIGINT or SIGTERM: for an example whose loop has
/// nothing to finish.
pub fn exit_on_signals() -> io::Result<()> {
    let mut signals = stop_signals()?;
    let exit = move || {
        if signals.read_exact(&mut [0]).is_ok() {
            process::exit(0);
        }
    };
    thread::Builder::new().spawn(exit).map(drop)
}

/// Prints what a runtime waits for to standard error at each SIGQUIT (`kill -QUIT`, or Ctrl and
/// backslash), and lets it go on. A thread waits for the signal, so that it can name what holds a
/// loop.
pub fn dump_on_quit(runtime: Handle) -> io::Result<()> {
    at_each_quit(move || runtime.dump(PATIENCE).to_string())
}

/// As [`dump_on_quit`], of each of a server's workers.
pub fn dump_server_on_quit(server: ServerHandle) -> io::Result<()> {
    at_each_quit(move || server.dump(PATIENCE).iter().map(Dump::to_string).collect())
}

/// How long a loop has to answer before it counts as held.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Prints what `dump` says, in a thread of its own, at each SIGQUIT.
pub fn at_each_quit(dump: impl Fn() -> String + Send + 'static) -> io::Result<()> {
    let mut quits = signals(&[SIGQUIT])?;
    let dump_each = move || {
        while quits.read_exact(&mut [0]).is_ok() {
            // A server outlives the reader of its log.
            let _ = io::stderr().write_all(dump().as_bytes());
        }
    };
    thread::Builder::new().spawn(dump_each).map(drop)
}

/// Shared by a loop on a bare reactor and a thread that waits for SIGQUIT. After each turn the loop
/// checks whether a dump is wanted, and before each run it says which connection it drives.
pub struct Watched {
    wanted: AtomicBool,
    answer: Mutex<Option<String>>,
    /// The key of the connection that is driven, or driven last, in this turn; else [`Watched::NONE`].
    drives: AtomicUsize,
}

impl Watched {
    pub const NONE: usize = usize::MAX;

    /// Begins to wait for SIGQUIT, for the loop that this breaker belongs to.
    pub fn start(breaker: Breaker) -> io::Result<Arc<Watched>> {
        let watched = Arc::new(Watched {
            wanted: AtomicBool::new(false),
            answer: Mutex::default(),
            drives: AtomicUsize::new(Watched::NONE),
        });
        let of = watched.clone();
        at_each_quit(move || {
            *of.answer() = None;
            of.wanted.store(true, Ordering::Release);
            let asked = Instant::now();
            let broken = breaker.break_netpoll();
            while of.wanted.load(Ordering::Acquire) && asked.elapsed() < PATIENCE {
                thread::sleep(Duration::from_millis(5));
            }
            of.wanted.store(false, Ordering::Release);
            if let Some(dump) = of.answer().take() {
                return dump;
            }
            match (broken, of.drives.load(Ordering::Relaxed)) {
                (Err(error), _) => format!("the loop can't be asked: {error}\n"),
                (_, Watched::NONE) => "loop held, by no connection\n".into(),
                (_, key) => format!("loop held, by connection {key}\n"),
            }
        })?;
        Ok(watched)
    }

    /// The loop drives this connection from now on, or [`Watched::NONE`].
    #[inline]
    pub fn drives(&self, key: usize) {
        self.drives.store(key, Ordering::Relaxed);
    }

    /// The turn has ended. A dump that is wanted is made here and printed by the thread, since
    /// standard error may block.
    #[inline]
    pub fn turned(&self, dump: impl FnOnce() -> String) {
        self.drives(Watched::NONE);
        if self.wanted.load(Ordering::Relaxed) {
            *self.answer() = Some(dump());
            self.wanted.store(false, Ordering::Release);
        }
    }

    fn answer(&self) -> MutexGuard<'_, Option<String>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drains a server at the first SIGINT or SIGTERM, and stops it at the second; SIGQUIT prints what
/// it waits for. With the feature `signal`, `ServerHandle::drain_on` drains without a thread.
pub fn drain_on_signals(server: ServerHandle, limit: Duration) -> io::Result<()> {
    let mut signals = stop_signals()?;
    dump_server_on_quit(server.clone())?;
    let end = move || {
        let mut byte = [0];
        if signals.read_exact(&mut byte).is_ok() {
            server.drain(limit);
        }
        if signals.read_exact(&mut byte).is_ok() {
            server.stop();
        }
    };
    thread::Builder::new().spawn(end).map(drop)
}

/// Writes all of it, however slowly the peer takes it; a timeout if the peer takes nothing for
/// `patience`.
pub async fn write_patiently(
    stream: &TcpStream,
    mut bytes: &[u8],
    patience: Option<Duration>,
) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_deadline(patience.map(|patience| time::now() + patience))?;
        let written = match stream.write(bytes).await {
            // A socket is ready for writing only when a third of its buffer is free: try once more.
            Err(error) if error.is_timeout() => {
                stream.set_write_deadline(None)?;
                stream.try_write(bytes).map_err(|_full| error)?
            }
            written => written?,
        };
        bytes = &bytes[written..];
    }
    Ok(())
}

/// Listens, and announces the address.
pub async fn listen(addr: &str) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(addr).await?;
    announce(listener.local_addr()?)?;
    Ok(listener)
}

/// Prints the first line of a server. With port 0 it is the only way to learn the port, and a
/// script may wait for it.
pub fn announce(addr: SocketAddr) -> io::Result<()> {
    println!("listening on {addr}");
    io::stdout().flush()
}

/// Logs how a connection ended.
pub fn note(peer: impl Display, ended: io::Result<()>) {
    match ended {
        Ok(()) => log::info!("{peer}: done"),
        Err(error) => log::warn!("{peer}: {error}"),
    }
}

/// Both ends of a connection, for examples that show both in one process.
pub async fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let client = TcpStream::connect(listener.local_addr()?).await?;
    Ok((client, listener.accept().await?.0))
}

/// Reads `50us`, `500ms`, `30s` or `5m`. A number without a unit counts seconds.
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
        .map_err(|_| format!("{number:?} is not a number"))?;
    Duration::try_from_secs_f64(number * scale).map_err(|error| error.to_string())
}
