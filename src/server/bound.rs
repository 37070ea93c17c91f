//! A server that listens: running its workers, and giving them orders.

// Mirrors `Server.Serve` and `Shutdown` in Go's `net/http/server.go`.

use std::fmt;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::dispatch::WorkerInbox;
use super::settings::{Common, Factory, Port};
use super::worker_loop::{Start, WorkerLoop};
use crate::connection::handle::ConnId;
use crate::connection::shared::Phase;
use crate::connection::stats::Stats;
use crate::endpoints::Addr;
use crate::runtime::sync::lock;
use crate::runtime::{Dump, Handle, JoinHandle, Runtime};

/// A server that listens. Dropped before it runs, it closes its port.
///
/// Clients can connect from the moment at which it is bound. They are served once it
/// [runs](Bound::run), or [runs in a runtime of yours](Bound::run_in).
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use std::io;
/// use std::net::TcpStream;
/// use std::time::Duration;
/// use netpoller::{Conn, Protocol, Server};
///
/// struct Date;
/// impl Protocol for Date {
///     fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
///         conn.write(b"2027-01-01\n")?;
///         conn.close();
///         Ok(())
///     }
///     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
///         Ok(bytes.len())
///     }
/// }
///
/// let bound = Server::new(|_peer| Date).bind("127.0.0.1:0")?;
/// // Before it runs: this client waits in the system's queue, and a drain serves it.
/// let client = TcpStream::connect(bound.local_addr())?;
/// bound.handle().drain(Duration::from_secs(10));
/// assert_eq!(bound.run()?.accepted(), 1);
/// assert_eq!(io::read_to_string(client)?, "2027-01-01\n");
/// # Ok(())
/// # }
/// ```
pub struct Bound<F> {
    factory: Arc<F>,
    common: Arc<Common>,
    /// Empty once it has run.
    ports: Mutex<Vec<Port>>,
}

impl<F> Bound<F> {
    pub(super) fn new(factory: Arc<F>, common: Common, ports: Vec<Port>) -> Self {
        Bound {
            factory,
            common: Arc::new(common),
            ports: Mutex::new(ports),
        }
    }

    /// The address of the first TCP listener, with the real port.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # use netpoller::{Conn, Protocol, Server};
    /// # struct Discard;
    /// # impl Protocol for Discard {
    /// #     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> std::io::Result<usize> {
    /// #         Ok(bytes.len())
    /// #     }
    /// # }
    /// let bound = Server::new(|_peer| Discard).bind("127.0.0.1:0")?;
    /// assert_ne!(bound.local_addr().port(), 0);
    /// let _client = std::net::TcpStream::connect(bound.local_addr())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If the server [listens](crate::Server::bind_to) on Unix sockets alone.
    pub fn local_addr(&self) -> SocketAddr {
        let first = self.common.addrs.iter().find_map(Addr::socket);
        first.expect("netpoller: this server has no TCP listener: see Bound::local_addrs")
    }

    /// The addresses of all listeners, in the order of [`Server::bind_to`](crate::Server::bind_to).
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # use netpoller::{Conn, Protocol, Server};
    /// # struct Discard;
    /// # impl Protocol for Discard {
    /// #     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> std::io::Result<usize> {
    /// #         Ok(bytes.len())
    /// #     }
    /// # }
    /// let listen = || std::net::TcpListener::bind("127.0.0.1:0");
    /// let bound = Server::new(|_peer| Discard).bind_to([listen()?, listen()?])?;
    /// for addr in bound.local_addrs() {
    ///     println!("listening on {addr}");
    /// }
    /// # assert_eq!(bound.local_addrs().len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn local_addrs(&self) -> Vec<Addr> {
        self.common.addrs.clone()
    }

    /// A handle for any thread: it ends the server, and writes to its connections.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # use netpoller::{Conn, Protocol, Server};
    /// # struct Discard;
    /// # impl Protocol for Discard {
    /// #     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> std::io::Result<usize> {
    /// #         Ok(bytes.len())
    /// #     }
    /// # }
    /// let bound = Server::new(|_peer| Discard).bind("127.0.0.1:0")?;
    /// let handle = bound.handle(); // before `run`, which takes the server
    /// let serving = std::thread::spawn(move || bound.run());
    /// handle.stop();
    /// serving.join().unwrap()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn handle(&self) -> ServerHandle {
        ServerHandle {
            common: self.common.clone(),
        }
    }

    /// Divides the ports among this many workers.
    fn starts(&self, workers: usize) -> io::Result<Vec<Start>> {
        let mut ports = mem::take(&mut *lock(&self.ports));
        if ports.is_empty() {
            return Err(io::Error::other("netpoller: this server ran before"));
        }
        if workers == 1 {
            // It takes all ports: clients may wait in the queue of each already.
            ports.iter_mut().for_each(|port| port.at.worker = Some(0));
        }
        let inboxes = self.common.dispatcher.open(workers);
        let start = |inbox: WorkerInbox| {
            let is_its = |port: &mut Port| port.at.worker.unwrap_or(0) == inbox.worker;
            let its = ports.extract_if(.., is_its).collect();
            (inbox, its)
        };
        let starts = inboxes.into_iter().map(start).collect();
        debug_assert!(ports.is_empty(), "each port goes to one worker");
        Ok(starts)
    }
}

impl<F: Factory> Bound<F> {
    /// Serves on this thread and, with more [`workers`](crate::Server::workers), on others, until a
    /// [`ServerHandle`] ends it. Returns its counters.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # use netpoller::{Conn, Protocol, Server};
    /// # struct Discard;
    /// # impl Protocol for Discard {
    /// #     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> std::io::Result<usize> {
    /// #         Ok(bytes.len())
    /// #     }
    /// # }
    /// let bound = Server::new(|_peer| Discard).workers(2).bind("127.0.0.1:0")?;
    /// let handle = bound.handle();
    /// std::thread::spawn(move || handle.stop()); // whenever its time has come
    /// let stats = bound.run()?;
    /// println!("the server has ended: {stats}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - A worker cannot accept, and trying again does not help; or its thread or its runtime cannot
    ///   be made. The other workers are stopped then.
    /// - A worker [does not start](crate::Server::on_worker). Then nothing was accepted.
    /// - A worker on another thread panicked; the others went on. If the first worker panics, so does
    ///   this function, and the others are stopped.
    /// - The server ran before, by [`run_in`](Bound::run_in).
    ///
    /// # Panics
    ///
    /// Inside a runtime: see [`run_in`](Bound::run_in).
    pub fn run(self) -> io::Result<Stats>
    where
        F: Send + Sync,
    {
        let mut starts = self.starts(self.common.settings.workers)?.into_iter();
        // A server has at least one worker.
        let ours = starts.next().expect("no worker");
        let this = &self;
        let result = thread::scope(|scope| {
            // If this thread panics, or a thread can't be started, the workers that run are stopped.
            let _stop_all = StopOnDrop(&this.common);
            let spawn = |theirs: Start| {
                let name = format!("netpoller-worker-{}", theirs.0.worker);
                let thread = thread::Builder::new().name(name);
                thread.spawn_scoped(scope, move || this.work(theirs))
            };
            let others = starts.map(spawn).collect::<io::Result<Vec<_>>>()?;
            let mut result = this.work(ours);
            let panicked = |_| Err(io::Error::other("a worker panicked"));
            for other in others {
                result = result.and(other.join().unwrap_or_else(panicked));
            }
            result
        });
        let stats = self.common.stats();
        log::info!("{}: the server has ended: {stats}", self.common.name());
        result.map(|()| stats)
    }

    /// One thread's work.
    fn work(&self, start: Start) -> io::Result<()> {
        let number = start.0.worker;
        let runtime = Runtime::builder().spin(self.common.settings.spin).build();
        let work = WorkerLoop::run(self.factory.clone(), self.common.clone(), start);
        let ended = runtime.and_then(|runtime| runtime.block_on(work));
        ended.inspect_err(|error| {
            log::error!("{}: worker {number} fails: {error}", self.common.name());
            self.common.end(None);
        })
    }

    /// Serves in a runtime of yours, beside what else runs there, with one worker, however many
    /// were asked for. It runs when the runtime does. At the end the handle returns what the server
    /// has done. If the handle aborts it, the server ends at once, with its connections.
    ///
    /// The factory need not be `Send`, so that the protocols may share an `Rc` with the rest of the
    /// thread:
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::cell::Cell;
    /// use std::io;
    /// use std::rc::Rc;
    /// use netpoller::{Conn, Protocol, Runtime, Server, TcpStream};
    ///
    /// /// The world of a game.
    /// #[derive(Default)]
    /// struct World {
    ///     players: Cell<u32>,
    /// }
    ///
    /// struct Player(Rc<World>);
    /// impl Protocol for Player {
    ///     fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
    ///         self.0.players.set(self.0.players.get() + 1);
    ///         conn.write(format!("player {}", self.0.players.get()).as_bytes())
    ///     }
    ///     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         Ok(bytes.len())
    ///     }
    /// }
    ///
    /// let runtime = Runtime::new()?;
    /// let world = Rc::new(World::default());
    /// let theirs = world.clone();
    /// let bound = Server::new(move |_peer| Player(theirs.clone())).bind("127.0.0.1:0")?;
    /// let serving = bound.run_in(&runtime)?;
    /// runtime.block_on(async {
    ///     let stream = TcpStream::connect(bound.local_addr()).await?;
    ///     assert_eq!(stream.read_with(|bytes| bytes.to_vec()).await?, b"player 1");
    ///     assert_eq!(world.players.get(), 1);
    ///     bound.handle().stop();
    ///     assert_eq!(serving.await.unwrap()?.accepted(), 1);
    ///     Ok(())
    /// })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// It ran before.
    pub fn run_in(&self, runtime: &Runtime) -> io::Result<JoinHandle<io::Result<Stats>>> {
        let start = self.starts(1)?.remove(0);
        let common = self.common.clone();
        let work = WorkerLoop::run(self.factory.clone(), common.clone(), start);
        Ok(runtime.spawn(async move {
            work.await?;
            Ok(common.stats())
        }))
    }
}

/// Stops all workers.
struct StopOnDrop<'a>(&'a Common);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        // Not an order of the user's, and not logged.
        self.0.dispatcher.give(Phase::Stopped, Duration::ZERO);
    }
}

impl<F> fmt::Debug for Bound<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bound").field(&self.common.addrs).finish()
    }
}

/// Ends a server, writes to its connections, and tells what it has done, from any thread.
///
/// For a protocol that writes to other connections, set it in an `OnceLock` of its factory once the
/// server is bound: see the [cookbook](crate::cookbook#messages-between-workers).
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use std::io;
/// use std::time::Duration;
/// use netpoller::{Conn, Protocol, Server};
///
/// struct Discard;
/// impl Protocol for Discard {
///     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
///         Ok(bytes.len())
///     }
/// }
///
/// let bound = Server::new(|_peer| Discard).bind("127.0.0.1:0")?;
/// let handle = bound.handle();
/// let serving = std::thread::spawn(move || bound.run());
///
/// // A service manager drains the server, and later shortens the limit.
/// handle.drain(Duration::from_secs(30));
/// handle.drain(Duration::from_secs(1));
/// handle.stop();
/// assert_eq!(serving.join().unwrap()?.live(), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ServerHandle {
    common: Arc<Common>,
}

impl ServerHandle {
    /// Ends the server in good order, within `limit`.
    ///
    /// 1. Connections that are not in flight are closed. A connection is in flight if bytes wait to be
    ///    sent, if its protocol has not used or not seen some of its input, if it is
    ///    [busy](crate::Conn::set_busy), if a call of `writable` is owed, or, with
    ///    [`Drain::WhenQuiet`](crate::Drain::WhenQuiet), if bytes went over it within the
    ///    [grace](crate::Server::drain_grace).
    /// 2. What waits in the accept queue is accepted and answered, so that no client is reset. 65,536
    ///    of each listener are accepted at most, so that clients that keep arriving do not delay the
    ///    end. If [`max_connections`](crate::Server::max_connections) leaves no room for one of them, it
    ///    is served when another has ended.
    /// 3. The port is closed. Each connection is closed when it is no longer in flight.
    /// 4. After `limit` the rest is cut off, whatever it does. Each worker counts the limit from
    ///    its order, which it gets when its callback returns and all workers have started.
    ///    `Duration::MAX` is no limit.
    ///
    /// Returns at once; [`Bound::run`] returns when it is done. A second drain with a shorter limit
    /// wins, one with a longer limit changes nothing, and [`stop`](ServerHandle::stop) ends it.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # use netpoller::{Conn, Protocol, Server};
    /// # use std::time::Duration;
    /// # struct Discard;
    /// # impl Protocol for Discard {
    /// #     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> std::io::Result<usize> {
    /// #         Ok(bytes.len())
    /// #     }
    /// # }
    /// let bound = Server::new(|_peer| Discard).bind("127.0.0.1:0")?;
    /// let handle = bound.handle();
    /// let serving = std::thread::spawn(move || bound.run());
    /// handle.drain(Duration::from_secs(10));
    /// serving.join().unwrap()?; // once nothing is in flight
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "shutdown")]
    pub fn drain(&self, limit: Duration) {
        self.common.end(Some(limit));
    }

    /// Drains the server within `limit` when one of the `signals` comes (`libc::SIGTERM`, say);
    /// [stops](ServerHandle::stop) it at the next. A signal that comes before the server runs counts
    /// too. If this is called while workers start, signals are heard once all have started.
    ///
    /// Handlers that were there before still run. No thread is made: the signal arrives in the
    /// workers' loops. The system's default (for SIGTERM, the end of the process) is replaced for
    /// good, also after the server has ended. It needs the feature `signal`.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::io;
    /// use std::time::Duration;
    /// use netpoller::{Conn, Protocol, Server};
    ///
    /// struct Discard;
    /// impl Protocol for Discard {
    ///     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         Ok(bytes.len())
    ///     }
    /// }
    ///
    /// let bound = Server::new(|_peer| Discard).bind("127.0.0.1:0")?;
    /// bound.handle().drain_on(&[libc::SIGTERM, libc::SIGINT], Duration::from_secs(10))?;
    /// # std::thread::spawn(|| unsafe { libc::kill(libc::getpid(), libc::SIGTERM) });
    /// // Now comes: kill -TERM
    /// bound.run()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// No such signal, or one that can't be handled, such as SIGKILL. The system's, where no
    /// descriptor is left.
    #[cfg(feature = "signal")]
    pub fn drain_on(&self, signals: &[i32], limit: Duration) -> io::Result<()> {
        self.common.watches.add(signals, limit)?;
        self.common.dispatcher.add_watch();
        Ok(())
    }

    /// Ends the server at once, whatever is in flight, also while it is being drained.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # use netpoller::{Conn, Protocol, Server};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> std::io::Result<usize> {
    /// #         conn.write(bytes)?;
    /// #         Ok(bytes.len())
    /// #     }
    /// # }
    /// let bound = Server::new(|_peer| Echo).bind("127.0.0.1:0")?;
    /// let handle = bound.handle();
    /// let serving = std::thread::spawn(move || bound.run());
    /// handle.stop(); // from any thread
    /// serving.join().expect("no panic")?;
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "close")]
    pub fn stop(&self) {
        self.common.end(None);
    }

    /// Queues bytes for the connection of this [id](crate::Conn::id), from any thread or worker. They
    /// go out when its worker comes to it, in the order of the calls, and count under its
    /// [limits](crate::Limits). Many connections may share the bytes: they are not copied, unless they
    /// are few or there is a filter.
    ///
    /// It only queues: no callback runs within it, so you may hold a lock while you call it. In a
    /// callback of the connection itself, these bytes and those of
    /// [`Conn::write`](crate::Conn::write) go out in the order of the calls.
    ///
    /// ```
    /// use netpoller::{ConnId, ServerHandle};
    /// use std::sync::Arc;
    ///
    /// /// From any thread, to connections of any worker. Each has left its id here when it opened.
    /// fn tell_all(server: &ServerHandle, ids: &[ConnId], news: &str) {
    ///     let bytes: Arc<[u8]> = news.as_bytes().into();
    ///     for &id in ids {
    ///         if let Err(error) = server.write(id, bytes.clone()) {
    ///             eprintln!("{error}"); // gone, or too slow
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As of [`ConnHandle::write`](crate::ConnHandle::write). The connection is gone, or of another
    /// server.
    pub fn write(&self, id: ConnId, bytes: Arc<[u8]>) -> io::Result<()> {
        self.common.shared.remotes.write(id, &bytes)
    }

    /// Closes the connection of this id once all is written, from any thread or worker. Later writes
    /// to it are refused.
    ///
    /// ```
    /// use netpoller::{ConnId, ServerHandle};
    ///
    /// /// An administrator ends a connection.
    /// fn kick(server: &ServerHandle, id: ConnId) -> std::io::Result<()> {
    ///     server.write(id, b"good-bye\n".as_slice().into())?;
    ///     server.close(id)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// The connection is gone, or of another server.
    pub fn close(&self, id: ConnId) -> io::Result<()> {
        self.common.shared.remotes.close(id)
    }

    /// What lives on each worker that has a runtime, and what it waits for: see
    /// [`Handle::dump`](crate::Handle::dump). Each has `timeout` to answer.
    ///
    /// ```
    /// use netpoller::ServerHandle;
    /// use std::time::Duration;
    ///
    /// /// What hangs? One dump a worker.
    /// fn show(server: &ServerHandle) {
    ///     for (worker, dump) in server.dump(Duration::from_secs(1)).iter().enumerate() {
    ///         println!("worker {worker}: {dump}");
    ///     }
    /// }
    /// ```
    pub fn dump(&self, timeout: Duration) -> Vec<Dump> {
        let runtimes = self.runtimes().into_iter();
        runtimes.map(|of| of.dump(timeout)).collect()
    }

    /// The runtimes of the workers that have made theirs, in the workers' order. Under
    /// [`run_in`](Bound::run_in), yours.
    ///
    /// ```
    /// use netpoller::ServerHandle;
    ///
    /// /// How many turns each worker's loop has taken, and how much lives on it.
    /// fn show(server: &ServerHandle) {
    ///     for stats in server.runtimes().iter().map(|runtime| runtime.stats()) {
    ///         println!("{} turns, {} descriptors", stats.turns(), stats.descriptors());
    ///     }
    /// }
    /// ```
    pub fn runtimes(&self) -> Vec<Handle> {
        let runtimes = self.common.runtimes.iter();
        runtimes
            .filter_map(|runtime| runtime.get().cloned())
            .collect()
    }

    /// The server's counters so far.
    ///
    /// ```
    /// use netpoller::ServerHandle;
    ///
    /// fn show(server: &ServerHandle) {
    ///     let stats = server.stats();
    ///     println!("{} served, {} of them now", stats.accepted(), stats.live());
    /// }
    /// ```
    pub fn stats(&self) -> Stats {
        self.common.stats()
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerHandle").field(&self.stats()).finish()
    }
}
