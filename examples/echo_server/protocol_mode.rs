//! The echo server as a protocol: no task, no buffer, one callback.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::thread;

use netpoller::{Addr, Bound, Conn, Direction, Protocol, Runtime, Server, ServerStats, Source};

use super::{Counts, DRAIN, Options, QUIET};

struct Echo;

impl Protocol for Echo {
    #[inline]
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        conn.write(bytes)?;
        Ok(bytes.len())
    }
}

/// Runs all workers until `stop` becomes readable.
pub fn run(
    options: &Options,
    stop: UnixStream,
    ready: impl FnOnce(SocketAddr),
) -> io::Result<Counts> {
    let bound = server(options).bind(options.addr.as_str())?;
    ready(bound.local_addr());
    if options.workers > 1 {
        return run_many(bound, stop);
    }
    // In a loop of our own, which waits for the stop as well: no second thread is needed for it, and
    // with one glibc makes its every call that may block dearer.
    let runtime = Runtime::builder()
        .spin(options.spin.unwrap_or_default())
        .build()?;
    stop.set_nonblocking(true)?;
    let serving = bound.run_in(&runtime)?;
    let stats = runtime.block_on(async {
        let stop = Source::new(mio::net::UnixStream::from_std(stop))?;
        stop.io(Direction::Read, |stop| stop.read(&mut [0])).await?;
        bound.handle().drain(DRAIN);
        serving.await.map_err(io::Error::other)?
    })?;
    let mut counts = counts(&stats);
    counts.turns = runtime.stats().turns;
    counts.events = runtime.stats().events;
    Ok(counts)
}

fn run_many<F>(bound: Bound<F>, mut stop: UnixStream) -> io::Result<Counts>
where
    F: Fn(Addr) -> Echo + Send + Sync + 'static,
{
    let handle = bound.handle();
    thread::spawn(move || {
        let _ = stop.read(&mut [0]);
        handle.drain(DRAIN);
    });
    bound.run().map(|stats| counts(&stats))
}

fn server(options: &Options) -> Server<impl Fn(Addr) -> Echo + Send + Sync + use<>> {
    let server = Server::new(|_peer| Echo)
        .workers(options.workers)
        .spin(options.spin.unwrap_or_default())
        .drain_grace(QUIET)
        .idle_timeout(options.idle_timeout.unwrap_or_default());
    match options.heartbeat {
        Some(interval) => server.heartbeat(interval),
        None => server,
    }
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
