//! What a server is asked for, and what its workers and handles share.

// Mirrors the fields of `Server` in Go's `net/http/server.go`.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::dispatch::Dispatcher;
use super::listeners::{Dispatch, Peer};
use super::stats::{Stats, WorkerStats};
use crate::connection::filter::Filter;
use crate::connection::limits::Quotas;
use crate::connection::remote::Remotes;
use crate::connection::shared::{self, Phase};
use crate::endpoints::Addr;
use crate::net::config::Hook;
use crate::net::permits::Permits;
use crate::runtime::Handle;

type MakeFilter = Hook<dyn Fn(&Peer) -> Box<dyn Filter> + Send + Sync>;

/// What a server is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) connection: shared::Settings,
    pub(crate) max_connections: usize,
    pub(crate) workers: usize,
    pub(crate) dispatch: Dispatch,
    /// Each worker calls it before the first connection is accepted.
    pub(crate) on_worker: Option<Hook<dyn Fn(usize) -> io::Result<()> + Send + Sync>>,
    /// Makes what stands between the socket and the protocol.
    pub(crate) filter: Option<MakeFilter>,
    /// Of each worker's loop.
    pub(crate) spin: Duration,
}

/// What the workers and the handles of a server share.
pub(crate) struct Common {
    pub(crate) settings: Settings,
    /// By listener, with the real ports.
    pub(crate) addrs: Vec<Addr>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) permits: Arc<Permits>,
    pub(crate) quotas: Arc<Quotas>,
    /// The connections that were asked for their id.
    pub(crate) remotes: Arc<Remotes>,
    /// The loops of the workers that have started, for dumps.
    pub(crate) loops: Mutex<Vec<Handle>>,
    /// What the workers wait for besides orders.
    #[cfg(feature = "signal")]
    pub(crate) watches: super::signals::Watches,
}

impl Common {
    pub(crate) fn new(settings: Settings, addrs: Vec<Addr>) -> Self {
        let quotas = Quotas::new(settings.connection.limits);
        Common {
            addrs,
            dispatcher: Arc::new(Dispatcher::new(settings.workers)),
            permits: Arc::new(Permits::new(settings.max_connections)),
            remotes: Remotes::new(quotas.clone()),
            quotas,
            settings,
            loops: Mutex::default(),
            #[cfg(feature = "signal")]
            watches: Default::default(),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let tallies = self.dispatcher.tallies.iter();
        Stats {
            workers: tallies.map(|tally| WorkerStats::read(tally)).collect(),
        }
    }

    /// The server, as log lines name it: by its first listener.
    pub(crate) fn name(&self) -> &Addr {
        &self.addrs[0]
    }

    /// Ends the server in good order.
    pub(crate) fn drain(&self, limit: Duration) {
        if self.dispatcher.give(Phase::Draining, limit) {
            self.log_end(format_args!("drains within {limit:?}"));
        }
    }

    /// Ends the server at once.
    pub(crate) fn stop(&self) {
        if self.dispatcher.give(Phase::Stopped, Duration::ZERO) {
            self.log_end(format_args!("stops"));
        }
    }

    fn log_end(&self, does: fmt::Arguments<'_>) {
        let (name, open) = (self.name(), self.stats().live());
        log::info!("{name}: the server {does}; open connections: {open}");
    }
}
