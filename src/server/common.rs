//! What a server is asked for, and what its workers and handles share.

// Mirrors the fields of `Server` in Go's `net/http/server.go`.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::dispatch::Dispatcher;
use super::listeners::{Dispatch, Peer};
use crate::connection::filter::Filter;
use crate::connection::shared::{self, Phase, ServerShared};
use crate::connection::stats::{Stats, WorkerStats};
use crate::endpoints::Addr;
use crate::net::config::Hook;
use crate::runtime::Handle;
use crate::runtime::running::Place;

type MakeFilter = Hook<dyn Fn(&Peer) -> Option<Box<dyn Filter>> + Send + Sync>;

/// What a server is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) connection: shared::Settings,
    /// Where the server was made.
    pub(crate) place: Place,
    pub(crate) max_connections: usize,
    pub(crate) workers: usize,
    pub(crate) dispatch: Dispatch,
    /// Each worker calls it before the first connection is accepted.
    pub(crate) on_worker: Option<Hook<dyn Fn(usize) -> io::Result<()> + Send + Sync>>,
    /// Makes what stands between the socket and the protocol.
    pub(crate) filter: Option<MakeFilter>,
    /// How long each worker's loop polls before it sleeps.
    pub(crate) spin: Duration,
}

/// What the workers and the handles of a server share.
pub(crate) struct Common {
    pub(crate) settings: Settings,
    /// By listener, with the real ports.
    pub(crate) addrs: Vec<Addr>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// By worker, of those that have started.
    pub(crate) runtimes: Vec<OnceLock<Handle>>,
    /// What all connections share.
    pub(crate) shared: Arc<ServerShared>,
    /// What the workers wait for besides orders.
    #[cfg(feature = "signal")]
    pub(crate) watches: super::signals::Watches,
}

impl Common {
    pub(crate) fn new(settings: Settings, addrs: Vec<Addr>) -> Self {
        let shared = ServerShared::new(settings.connection.clone(), settings.max_connections);
        Common {
            addrs,
            dispatcher: Arc::new(Dispatcher::new(settings.workers)),
            runtimes: (0..settings.workers).map(|_| OnceLock::new()).collect(),
            shared: Arc::new(shared),
            settings,
            #[cfg(feature = "signal")]
            watches: Default::default(),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let tallies = self.dispatcher.tallies.iter();
        let mut workers: Vec<_> = tallies.map(|tally| WorkerStats::read(tally)).collect();
        for (stats, runtime) in workers.iter_mut().zip(&self.runtimes) {
            let of_loop = runtime.get().map(Handle::stats).unwrap_or_default();
            (stats.turns, stats.events) = (of_loop.turns(), of_loop.events());
        }
        Stats { workers }
    }

    /// The server, as log lines name it: by its first listener.
    pub(crate) fn name(&self) -> &Addr {
        &self.addrs[0]
    }

    /// Ends the server: in good order within a limit, or at once.
    pub(crate) fn end(&self, within: Option<Duration>) {
        let (phase, does) = match within {
            Some(limit) => (Phase::Draining, format!("drains within {limit:?}")),
            None => (Phase::Stopped, "stops".to_owned()),
        };
        if self.dispatcher.give(phase, within.unwrap_or_default()) {
            let (name, open) = (self.name(), self.stats().live());
            log::info!("{name}: the server {does}; open connections: {open}");
        }
    }
}
