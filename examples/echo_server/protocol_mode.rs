//! The echo server as a protocol: no task, no buffer, one callback.

use std::future::pending;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream as StdStream;
use std::thread;

use futures_lite::future::or;
use netpoller::{Addr, Bound, Conn, Protocol, Server, ServerStats, UnixStream};

use crate::common;

use super::{Counts, DRAIN, Options, QUIET, trace};

struct Echo;

impl Protocol for Echo {
    #[inline]
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        conn.write(bytes)?;
        Ok(bytes.len())
    }
}

/// Runs as many workers as there are `stops`; the first of those begins the drain.
pub fn run(
    options: &Options,
    mut stops: Vec<StdStream>,
    ready: impl FnOnce(SocketAddr),
) -> io::Result<Counts> {
    let workers = stops.len();
    let bound = server(options, workers).bind(options.addr.as_str())?;
    if options.dumps {
        common::dump_server_on_quit(bound.handle())?;
    }
    let stop = stops.swap_remove(0);
    if workers > 1 {
        ready(bound.local_addr());
        return run_many(bound, stop);
    }
    // In a loop of our own, which waits for the stop as well, so that there is no second thread:
    // with one, each of glibc's calls that may block costs more.
    let runtime = trace::builder(options).build()?;
    trace::write_at_signals(options, &runtime.handle())?;
    ready(bound.local_addr());
    let serving = bound.run_in(&runtime)?;
    let handle = bound.handle();
    let stats = runtime.block_on(async {
        let stop = UnixStream::from_std(stop)?;
        let signals = async {
            // The first signal, or the end of file.
            let _ = stop.read_exact(&mut [0]).await;
            handle.drain(DRAIN);
            if stop.read_exact(&mut [0]).await.is_ok() {
                handle.stop();
            }
            pending().await
        };
        let serving = async { serving.await.map_err(io::Error::other)? };
        or(serving, signals).await
    })?;
    trace::write(options, &runtime.handle())?;
    let mut counts = counts(&stats);
    counts.turns = runtime.stats().turns;
    counts.events = runtime.stats().events;
    Ok(counts)
}

fn run_many<F>(bound: Bound<F>, mut stop: StdStream) -> io::Result<Counts>
where
    F: Fn(Addr) -> Echo + Send + Sync + 'static,
{
    let handle = bound.handle();
    thread::spawn(move || {
        // The first signal, or the end of file.
        let _ = stop.read_exact(&mut [0]);
        handle.drain(DRAIN);
        if stop.read_exact(&mut [0]).is_ok() {
            handle.stop();
        }
    });
    bound.run().map(|stats| counts(&stats))
}

fn server(
    options: &Options,
    workers: usize,
) -> Server<impl Fn(Addr) -> Echo + Send + Sync + use<>> {
    Server::new(|_peer| Echo)
        .workers(workers)
        .spin(options.spin)
        .drain_grace(QUIET)
        .idle_timeout(options.idle_timeout)
        .heartbeat_with(options.heartbeat, *b"ping")
}

fn counts(stats: &ServerStats) -> Counts {
    Counts {
        accepted: stats.accepted(),
        open: stats.live(),
        bytes: stats.received(),
        turns: stats.workers.iter().map(|worker| worker.turns).sum(),
        events: stats.workers.iter().map(|worker| worker.events).sum(),
    }
}
