//! A monitor: what is read and what is written on a connection is also logged.
//! Row F6 of examples/README.md.
//!
//! ```text
//! cargo run --example monitor                  # an echo server; each message is logged twice
//! cargo run --example monitor -- --log /dev/full           # a failing log does not end the echo
//! ```
//!
//! The monitor is a stream around a stream. Code that is written against the futures-io traits, here
//! `net::copy`, runs over it unchanged.

mod common;

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::task::{Context, Poll, ready};

use clap::Parser;
use futures_lite::{AsyncRead, AsyncWrite};
use netpoller::{TcpListener, TcpStream, net};

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
        match flags.log {
            Some(path) => {
                let log = File::options().create(true).append(true).open(&path);
                let log = log.map_err(|error| {
                    let text = format!("--log {}: {error}", path.display());
                    io::Error::new(error.kind(), text)
                })?;
                serve(listener, move || log.try_clone()).await
            }
            None => serve(listener, || Ok(io::stdout())).await,
        }
    })
}

/// Echoes. `log` opens a log for each connection.
async fn serve<L: Write + Unpin + 'static>(
    listener: TcpListener,
    log: impl Fn() -> io::Result<L>,
) -> io::Result<()> {
    let each = |stream, peer| {
        let log = log();
        async move { common::note(peer, async { echo(stream, log?).await }.await) }
    };
    listener.serve(each).await
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
            let _ = writeln!(self.log, "{way} {}", bytes.escape_ascii());
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
