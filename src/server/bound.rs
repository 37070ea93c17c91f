//! A server that listens: running its workers, and giving them orders.
//!
//! May touch: accept.rs, the runtime. Mirrors `Server.Serve` and `Shutdown` in Go's
//! `net/http/server.go`.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::accept::Accepting;
use super::builder::Server;
use super::dispatch::Roster;
use super::orders::{Control, Order};
use super::worker_loop::Source;
use crate::connection::allowance::Account;
use crate::connection::protocol::Protocol;
use crate::connection::stats::Stats;
use crate::net::accept_loop::Permits;
use crate::runtime::{JoinHandle, Runtime};

/// A server that listens. Dropped before it runs, it closes its port.
pub struct Bound<F> {
    server: Server<F>,
    address: SocketAddr,
    listeners: Mutex<Vec<TcpListener>>,
    permits: Arc<Permits>,
    account: Option<Arc<Account>>,
    control: Arc<Control>,
}

impl<F, P> Bound<F>
where
    F: Fn(SocketAddr) -> P + Send + Sync + 'static,
    P: Protocol,
{
    pub(crate) fn new(server: Server<F>, listeners: Vec<TcpListener>) -> io::Result<Self> {
        let workers = server.settings.workers;
        Ok(Bound {
            address: listeners[0].local_addr()?,
            permits: Arc::new(Permits::new(server.settings.most)),
            account: Account::new(server.settings.limits.most_queued_in_all, workers),
            control: Arc::new(Control::new(workers)),
            listeners: Mutex::new(listeners),
            server,
        })
    }

    /// The address that it listens on, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// A handle to end it by, from any thread.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle {
            control: self.control.clone(),
        }
    }

    /// Serves, on this thread and, with more [`workers`](Server::workers), on others, until a
    /// [`ServerHandle`] ends it. Says what it has done.
    ///
    /// # Errors
    ///
    /// The system's, where trying again does not help: then all workers stop. It ran before.
    ///
    /// # Panics
    ///
    /// Inside a runtime: see [`run_in`](Bound::run_in).
    pub fn run(&self) -> io::Result<Stats> {
        let mut sources = self.sources(self.take_listeners()?).into_iter().enumerate();
        let Some((_, ours)) = sources.next() else {
            return Ok(self.control.stats());
        };
        // However we come out of here, nobody goes on without us.
        let all_stop = StopsAll(self.handle());
        let spin = self.server.settings.spin;
        let mut others = Vec::new();
        for (at, source) in sources {
            let accepting = self.accepting(at);
            let serve = move || work(accepting, source, spin);
            let name = format!("netpoller-worker-{at}");
            others.push(thread::Builder::new().name(name).spawn(serve)?);
        }
        let mut result = work(self.accepting(0), ours, spin);
        if result.is_err() {
            all_stop.0.stop();
        }
        for other in others {
            let ended = other.join();
            let ended = ended.unwrap_or_else(|_| Err(io::Error::other("a worker panicked")));
            result = result.and(ended);
        }
        result.map(|()| self.control.stats())
    }

    /// For each worker: a listener of its own, or a seat, and the first the listener.
    fn sources(&self, mut listeners: Vec<TcpListener>) -> Vec<Source> {
        let workers = self.server.settings.workers;
        if listeners.len() == workers {
            let own = |listener| Source::Own(vec![listener]);
            return listeners.into_iter().map(own).collect();
        }
        let roster = Roster::new(&self.control.tallies);
        let mut door = listeners.pop().map(|listener| (listener, roster.clone()));
        let source = |at| Source::Handed(roster.seat(at), door.take());
        (0..workers).map(source).collect()
    }

    /// Serves in a runtime of yours, beside what else runs there, with one worker however many
    /// were asked for. It runs when the runtime does; the handle tells what it has done in the
    /// end. Aborted, it ends at once, with its connections.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::io;
    /// use netpoller::{Conn, Protocol, Runtime, Server, TcpStream};
    ///
    /// struct Echo;
    /// impl Protocol for Echo {
    ///     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         conn.write(bytes)?;
    ///         Ok(bytes.len())
    ///     }
    /// }
    ///
    /// let runtime = Runtime::new()?;
    /// let bound = Server::new(|_peer| Echo).bind("127.0.0.1:0")?;
    /// let serving = bound.run_in(&runtime)?;
    /// runtime.block_on(async {
    ///     let stream = TcpStream::connect(bound.local_addr()).await?;
    ///     stream.write_all(b"hello").await?;
    ///     assert_eq!(stream.read_with(|bytes| bytes.to_vec()).await?, b"hello");
    ///     bound.handle().stop();
    ///     let stats = serving.await.unwrap()?;
    ///     assert_eq!((stats.accepted(), stats.received()), (1, 5));
    ///     Ok(())
    /// })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// It ran before.
    pub fn run_in(&self, runtime: &Runtime) -> io::Result<JoinHandle<io::Result<Stats>>> {
        // All of them: each has a queue, and clients may wait there already.
        let listeners = self.take_listeners()?;
        let (accepting, control) = (self.accepting(0), self.control.clone());
        Ok(runtime.spawn(async move {
            accepting.serve(Source::Own(listeners)).await?;
            Ok(control.stats())
        }))
    }

    fn take_listeners(&self) -> io::Result<Vec<TcpListener>> {
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if listeners.is_empty() {
            return Err(io::Error::other("netpoller: this server ran before"));
        }
        Ok(std::mem::take(&mut listeners))
    }

    fn accepting(&self, worker: usize) -> Accepting<F> {
        Accepting {
            server: self.server.clone(),
            permits: self.permits.clone(),
            account: self.account.clone(),
            control: self.control.clone(),
            tally: self.control.tallies[worker].clone(),
            worker,
        }
    }
}

/// One thread's work.
fn work<F, P>(accepting: Accepting<F>, source: Source, spin: Duration) -> io::Result<()>
where
    F: Fn(SocketAddr) -> P + Send + Sync + 'static,
    P: Protocol,
{
    let runtime = Runtime::builder().spin(spin).build()?;
    let tally = accepting.tally.clone();
    let ended = runtime.block_on(accepting.serve(source));
    let stats = runtime.stats();
    tally.turns.store(stats.turns, Ordering::Relaxed);
    tally.events.store(stats.events, Ordering::Relaxed);
    ended
}

/// Stops the others when the first worker ends, also by a panic.
struct StopsAll(ServerHandle);

impl Drop for StopsAll {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl<F> fmt::Debug for Bound<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Ends a server, from any thread, and says what it does.
#[derive(Clone)]
pub struct ServerHandle {
    control: Arc<Control>,
}

impl ServerHandle {
    /// Ends it in good order: takes what waits in the accept queue, so that no client is reset,
    /// then stops accepting; what is in flight is finished, and what has been quiet for the
    /// [grace](Server::drain_grace) closed. After `limit` the rest is closed whatever it does.
    ///
    /// Returns at once: [`Bound::run`] returns when it is done. Another drain changes nothing then;
    /// who has lost patience calls [`stop`](ServerHandle::stop).
    pub fn drain(&self, limit: Duration) {
        self.control.give(Order::Drain(limit));
    }

    /// Ends it at once, with whatever is in flight, also while it is being drained.
    pub fn stop(&self) {
        self.control.give(Order::Stop);
    }

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        self.control.stats()
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle")
            .field("stats", &self.stats())
            .finish()
    }
}
