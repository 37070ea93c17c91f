//! A monitor: what is read and what is written on a connection is also logged.
//! Row F6 of examples/README.md.
//!
//! ```text
//! cargo run --example monitor                  # an echo server; each message is logged twice
//! cargo run --example monitor -- --log /dev/full           # a failing log does not end the echo
//! ```
//!
//! The monitor is a stream around a stream. Code that is written against the futures-io traits, here
//! `net::copy`, runs over it unchanged. A thread writes the log: if that takes long, messages are left out of
//! the log, and the echo goes on. What is queued for the log when a signal ends the program is lost.

mod common;

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::task::{Context, Poll, ready};
use std::thread;

use clap::Parser;
use futures_lite::{AsyncRead, AsyncWrite};
use netpoller::{TcpStream, net};

/// Echoes, and logs every message
#[derive(Parser)]
struct Flags {
    /// Where to listen, as HOST:PORT; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    addr: String,
    /// A file for the log, which is appended to [default: standard output]
    #[arg(long)]
    log: Option<PathBuf>,
}

fn main() -> ExitCode {
    common::run(async |flags: Flags| {
        let listener = common::listen(&flags.addr).await?;
        let log: Box<dyn Write + Send> = match flags.log {
            Some(path) => {
                let log = File::options().create(true).append(true).open(&path);
                Box::new(log.map_err(|error| {
                    let text = format!("--log {}: {error}", path.display());
                    io::Error::new(error.kind(), text)
                })?)
            }
            None => Box::new(io::stdout()),
        };
        let log = Queued::start(log)?;
        let each = |stream, peer| {
            let log = log.clone();
            async move { common::note(peer, echo(stream, log).await) }
        };
        listener.serve(each).await
    })
}

/// How many lines may wait for the thread that writes them.
const QUEUE: usize = 1024;

/// A log that a thread writes. A write to it never blocks: if the queue is full, the line is left out.
#[derive(Clone)]
pub struct Queued {
    lines: SyncSender<Vec<u8>>,
    /// How many lines were left out since the thread has last said so.
    left_out: Arc<AtomicU64>,
}

impl Queued {
    pub fn start(mut log: impl Write + Send + 'static) -> io::Result<Queued> {
        let (lines, queue) = sync_channel::<Vec<u8>>(QUEUE);
        let left_out = Arc::new(AtomicU64::new(0));
        let queued = Queued {
            lines,
            left_out: left_out.clone(),
        };
        let thread = thread::Builder::new().name("log".into());
        thread.spawn(move || {
            for line in queue {
                // An error of the log does not concern the connections.
                let _ = log.write_all(&line);
                let left_out = left_out.swap(0, Ordering::Relaxed);
                if left_out > 0 {
                    let _ = writeln!(log, "{left_out} lines are left out");
                }
            }
        })?;
        Ok(queued)
    }
}

impl Write for Queued {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(line.to_vec()).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub async fn echo(stream: TcpStream, log: impl Write + Unpin) -> io::Result<()> {
    let watched = Monitor {
        stream: &stream,
        log,
    };
    let (mut reader, mut writer) = futures_lite::io::split(watched);
    net::copy(&mut reader, &mut writer).await.map(drop)
}

/// A stream, and the log of what goes through it.
pub struct Monitor<S, L> {
    pub stream: S,
    pub log: L,
}

impl<S, L: Write> Monitor<S, L> {
    /// An error of the log does not concern the connection.
    fn note(&mut self, way: char, bytes: &[u8]) {
        if !bytes.is_empty() {
            let line = format!("{way} {}\n", bytes.escape_ascii());
            let _ = self.log.write_all(line.as_bytes());
        }
    }
}

impl<S: AsyncRead + Unpin, L: Write + Unpin> AsyncRead for Monitor<S, L> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let got = ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        this.note('<', &buffer[..got]);
        Poll::Ready(Ok(got))
    }
}

impl<S: AsyncWrite + Unpin, L: Write + Unpin> AsyncWrite for Monitor<S, L> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let gone = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        this.note('>', &bytes[..gone]);
        Poll::Ready(Ok(gone))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(cx)
    }
}
