//! What the workers and the handles of a server share.

// Mirrors the fields of `Server` in Go's `net/http/server.go`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::listeners::Peer;
use super::orders::Orders;
use super::stats::{Stats, WorkerStats};
use crate::connection::filter::Filter;
use crate::connection::limits::Quotas;
use crate::connection::remote::Remotes;
use crate::connection::shared::{Phase, Settings};
use crate::connection::stats::Tally;
use crate::endpoints::Addr;
use crate::net::config::Hook;
use crate::net::permits::Permits;
use crate::runtime::panics;
use crate::runtime::sync::AtomicUsize;

/// What the workers and the handles of a server share.
pub(crate) struct Common {
    /// By listener, with the real ports.
    pub(crate) addrs: Vec<Addr>,
    pub(crate) settings: Settings,
    /// Each worker calls it before the first connection is accepted.
    pub(crate) on_worker: Option<OnWorker>,
    /// Makes what stands between the socket and the protocol.
    pub(crate) filter: Option<MakeFilter>,
    /// The workers that have not started yet.
    pub(crate) starting: AtomicUsize,
    pub(crate) orders: Orders,
    pub(crate) permits: Arc<Permits>,
    pub(crate) quotas: Arc<Quotas>,
    /// The connections that were asked for their id.
    pub(crate) remotes: Arc<Remotes>,
    /// One for each worker, which alone writes to it.
    pub(crate) tallies: Vec<Arc<Tally>>,
    /// What the workers wait for besides orders.
    #[cfg(feature = "signal")]
    pub(crate) watches: super::signals::Watches,
}

impl Common {
    pub(crate) fn stats(&self) -> Stats {
        let read = |tally: &Arc<Tally>| WorkerStats::read(tally);
        Stats {
            workers: self.tallies.iter().map(read).collect(),
        }
    }

    /// The server, as log lines name it: by its first listener.
    pub(crate) fn name(&self) -> &Addr {
        &self.addrs[0]
    }

    /// A worker starts, in its thread. When all have started, the server serves.
    pub(crate) fn start(&self, worker: usize) -> io::Result<()> {
        if let Some(Hook(on_worker)) = &self.on_worker {
            let panicked = |_| Err(io::Error::other("it panicked"));
            let started = panics::catch(|| on_worker(worker)).unwrap_or_else(panicked);
            started.map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("worker {worker} does not start: {error}"),
                )
            })?;
        }
        if self.starting.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.orders.give(Phase::Serving, Duration::MAX);
        }
        Ok(())
    }

    /// Ends the server in good order.
    pub(crate) fn drain(&self, limit: Duration) {
        if self.orders.give(Phase::Draining, limit) {
            let (name, open) = (self.name(), self.stats().live());
            log::info!("{name}: the server drains within {limit:?}; {open} connections are open");
        }
    }

    /// Ends the server at once.
    pub(crate) fn stop(&self) {
        if self.orders.give(Phase::Stopped, Duration::ZERO) {
            let (name, open) = (self.name(), self.stats().live());
            log::info!("{name}: the server stops; {open} connections are open");
        }
    }
}

/// See [`Server::filter`](crate::Server::filter).
pub(crate) type MakeFilter = Hook<dyn Fn(&Peer) -> Box<dyn Filter> + Send + Sync>;

/// See [`Server::on_worker`](crate::Server::on_worker).
pub(crate) type OnWorker = Hook<dyn Fn(usize) -> io::Result<()> + Send + Sync>;
