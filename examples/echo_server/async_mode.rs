//! The echo server as tasks: one for each connection, which holds no buffer while it waits.

use std::cell::{Cell, RefCell};
use std::future::{pending, ready};
use std::io;
use std::net::TcpListener as StdListener;
use std::os::unix::net::UnixStream as StdStream;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::or;
use netpoller::{NetError, TcpListener, TcpStream, UnixStream, spawn, time};
use slab::Slab;

use crate::common;

use super::{
    Counts, DRAIN, End, Options, QUEUE, QUIET, log_drain, log_end, log_ended, log_waits, trace,
};

/// What the connections share.
struct Server {
    /// How long a connection may be quiet.
    limit: Cell<Option<Duration>>,
    /// How long a peer may take nothing, in a drain too.
    patience: Option<Duration>,
    accepted: Cell<u64>,
    bytes: Cell<u64>,
    /// Every open connection, so that a drain can move its deadline.
    open: RefCell<Slab<TcpStream>>,
}

pub fn serve(
    options: &Options,
    listener: StdListener,
    stop: StdStream,
    announce: impl FnOnce(),
) -> io::Result<Counts> {
    let addr = listener.local_addr()?;
    let runtime = trace::builder(options).build()?;
    trace::write_at_signals(options, &runtime.handle())?;
    if options.dumps {
        common::dump_on_quit(runtime.handle())?;
    }
    announce();
    let server = Rc::new(Server {
        limit: Cell::new(options.idle_timeout),
        patience: options.idle_timeout,
        accepted: Cell::new(0),
        bytes: Cell::new(0),
        open: RefCell::new(Slab::new()),
    });
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        let stop = UnixStream::from_std(stop)?;
        // Through shortages of descriptors too, and for as long as the listener is open.
        let serving = listener.serve(|stream, _peer| {
            server.accept(stream);
            ready(())
        });
        let mut byte = [0];
        // An end of file in place of the first signal begins the drain too.
        let first_signal = async { stop.read(&mut byte).await.map(drop) };
        or(serving, first_signal).await?;
        log_drain(addr, server.open());
        server.accept_queued(&listener);
        let second_signal = async {
            match stop.read_exact(&mut [0]).await {
                Ok(()) => End::Stopped,
                Err(_end_of_file) => pending().await,
            }
        };
        log_waits(addr, server.open());
        let end = or(server.drain(&listener), second_signal).await;
        log_end(addr, end, server.open());
        io::Result::Ok(())
    })?;
    trace::write(options, &runtime.handle())?;
    let stats = runtime.stats();
    Ok(Counts {
        accepted: server.accepted.get(),
        open: server.open(),
        bytes: server.bytes.get(),
        turns: stats.turns,
        events: stats.events,
    })
}

impl Server {
    fn open(&self) -> u64 {
        self.open.borrow().len() as u64
    }

    /// Spawns the connection's task here. The task that `serve` spawns for a handler's future would
    /// hold that future twice.
    fn accept(self: &Rc<Self>, stream: TcpStream) {
        self.accepted.set(self.accepted.get() + 1);
        spawn(Session::new(stream, self.clone()).run());
    }

    /// Accepts what waits in the queue, so that no client that has connected is reset. Returns
    /// whether the listener can be closed: false in a shortage of descriptors.
    fn accept_queued(self: &Rc<Self>, listener: &TcpListener) -> bool {
        for _ in 0..QUEUE {
            match listener.try_accept() {
                Ok((stream, _)) => self.accept(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock || error.is_closed() => {
                    return true;
                }
                // This client has gone already, or a firewall refuses it: the next one is served.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if !error.is_temporary() => log::debug!("{error}"),
                // Short of descriptors.
                Err(_) => return false,
            }
        }
        true
    }

    /// Waits until every connection has ended or has been quiet for [`QUIET`], [`DRAIN`] at most.
    async fn drain(self: &Rc<Self>, listener: &TcpListener) -> End {
        self.limit.set(Some(QUIET));
        let quiet = time::now() + QUIET;
        for (_, stream) in self.open.borrow().iter() {
            let _ = stream.set_read_deadline(Some(quiet));
        }
        let all_ended = async {
            let mut tick = time::interval(Duration::from_millis(10));
            // As connections end, descriptors for those that still wait come free.
            while !self.accept_queued(listener) {
                tick.tick().await;
            }
            let _ = listener.close();
            while !self.open.borrow().is_empty() {
                tick.tick().await;
            }
        };
        let _ = time::timeout(DRAIN, all_ended).await;
        End::Drained
    }
}

/// What became of the bytes that were read.
#[derive(Clone, Copy)]
enum Echoed {
    All,
    End,
    /// The kernel did not take all. What is left lies in `rest`.
    Some,
}

struct Session {
    stream: TcpStream,
    server: Rc<Server>,
    key: usize,
    bytes: Cell<u64>,
    /// Bytes to write before more is read. It is one word while the peer takes everything.
    #[allow(clippy::box_collection)]
    rest: Cell<Option<Box<Vec<u8>>>>,
}

impl Session {
    fn new(stream: TcpStream, server: Rc<Server>) -> Session {
        let key = server.open.borrow_mut().insert(stream.clone());
        Session {
            stream,
            server,
            key,
            bytes: Cell::new(0),
            rest: Cell::new(None),
        }
    }

    /// Echoes until the end of file. The close at the end passes that on. It is an async block,
    /// because an `async fn` would store `self` twice.
    #[allow(clippy::manual_async_fn)]
    fn run(self) -> impl Future<Output = ()> {
        async move {
            let ended = loop {
                if let Err(error) = self.push_deadline() {
                    break Err(error);
                }
                let echoed = match self.stream.read_with(|bytes| self.echo(bytes)).await {
                    Ok(echoed) => echoed,
                    Err(error) if !error.is_timeout() => break Err(error),
                    Err(_) => match Box::pin(self.read_late()).await {
                        Ok(echoed) => echoed,
                        Err(error) => break Err(error),
                    },
                };
                match echoed {
                    Echoed::All => continue,
                    Echoed::Some => {}
                    Echoed::End => break Ok(()),
                }
                // Boxed, because it is rare: else every idle connection would hold room for it.
                if let Err(error) = Box::pin(self.write_rest()).await {
                    break Err(error);
                }
            };
            self.log(&ended);
        }
    }

    #[cold]
    fn log(&self, ended: &io::Result<()>) {
        if log::log_enabled!(log::Level::Debug) {
            let peer = self.stream.peer_addr();
            let peer = peer.map_or_else(|_| "?".to_owned(), |peer| peer.to_string());
            log_ended(peer, self.bytes.get(), ended);
        }
    }

    /// Reads what has come all the same. If the process was held up after it had read the clock, the deadline
    /// had passed when it was set, and ended the read at once.
    async fn read_late(&self) -> io::Result<Echoed> {
        let soon = time::now() + Duration::from_millis(1);
        self.stream.set_read_deadline(Some(soon))?;
        self.stream.read_with(|bytes| self.echo(bytes)).await
    }

    /// A peer that takes nothing is given as much time as one that sends nothing.
    async fn write_rest(&self) -> io::Result<()> {
        let rest = self.rest.take().unwrap_or_default();
        common::write_patiently(&self.stream, &rest, self.server.patience).await
    }

    /// Counts from a fresh reading of the clock: the loop's last one may be older than the limit, if the process
    /// was held up since.
    #[inline]
    fn push_deadline(&self) -> io::Result<()> {
        match self.server.limit.get() {
            Some(limit) => {
                let deadline = time::now() + limit;
                self.stream.set_read_deadline(Some(deadline))
            }
            None => Ok(()),
        }
    }

    #[inline]
    fn echo(&self, bytes: &[u8]) -> Echoed {
        self.bytes.set(self.bytes.get() + bytes.len() as u64);
        let total = &self.server.bytes;
        total.set(total.get() + bytes.len() as u64);
        if bytes.is_empty() {
            return Echoed::End;
        }
        match self.stream.try_write(bytes) {
            Ok(gone) if gone == bytes.len() => Echoed::All,
            Ok(gone) => self.keep(&bytes[gone..]),
            // Full, or broken: writing the rest waits, or reports the error.
            Err(_) => self.keep(bytes),
        }
    }

    #[cold]
    fn keep(&self, rest: &[u8]) -> Echoed {
        self.rest.set(Some(Box::new(rest.to_vec())));
        Echoed::Some
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let gone = self.server.open.borrow_mut().try_remove(self.key);
        drop(gone);
    }
}
