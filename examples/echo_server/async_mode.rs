//! The echo server as tasks: one a connection, which holds no buffer while it waits.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::TcpListener as StdListener;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use netpoller::{NetError, Runtime, Source, TcpListener, TcpStream, spawn, time};
use slab::Slab;

use super::{Backoff, Counts, DRAIN, Options, QUIET};

/// What the connections share.
struct Server {
    /// How long a connection may be quiet.
    limit: Cell<Option<Duration>>,
    accepted: Cell<u64>,
    bytes: Cell<u64>,
    /// Every open connection, to hurry them when the server stops.
    open: RefCell<Slab<TcpStream>>,
}

pub fn serve(options: &Options, listener: StdListener, stop: UnixStream) -> io::Result<Counts> {
    let runtime = Runtime::builder()
        .spin(options.spin.unwrap_or_default())
        .build()?;
    let server = Rc::new(Server {
        limit: Cell::new(options.idle_timeout),
        accepted: Cell::new(0),
        bytes: Cell::new(0),
        open: RefCell::new(Slab::new()),
    });
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        let accepting = spawn(accept(listener.clone(), server.clone()));
        let stop = Source::new(mio::net::UnixStream::from_std(stop))?;
        stop.io(netpoller::Direction::Read, |stop| peek(stop))
            .await?;
        drain(&server, &listener).await;
        accepting.abort();
        io::Result::Ok(())
    })?;
    let stats = runtime.stats();
    let open = server.open.borrow().len();
    Ok(Counts {
        accepted: server.accepted.get(),
        open: open as u64,
        bytes: server.bytes.get(),
        turns: stats.turns,
        events: stats.events,
    })
}

/// Whether the stop has come: it is left there, for the other workers to see.
fn peek(stop: &mio::net::UnixStream) -> io::Result<()> {
    use std::mem::MaybeUninit;
    let mut byte = [MaybeUninit::uninit()];
    socket2::SockRef::from(stop).peek(&mut byte).map(|_| ())
}

async fn accept(listener: TcpListener, server: Rc<Server>) {
    let mut backoff = Backoff::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                backoff.reset();
                server.accepted.set(server.accepted.get() + 1);
                drop(spawn(Session::new(stream, server.clone()).run()));
            }
            Err(error) if error.is_closed() => return log::info!("{error}"),
            // Whatever else: one connection is lost, or none, and the next may be well.
            Err(error) => time::sleep(backoff.next(&error)).await,
        }
    }
}

/// What became of the bytes that were read.
#[derive(Clone, Copy)]
enum Echoed {
    All,
    End,
    /// The kernel did not take all: what is left lies in `rest`.
    Some,
}

struct Session {
    stream: TcpStream,
    server: Rc<Server>,
    key: usize,
    /// Written before more is read; a peer that keeps up costs one word.
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
            rest: Cell::new(None),
        }
    }

    /// Echoes until end of file, which closing passes on. A block and not an `async fn`, which would
    /// hold `self` twice: as its argument, and as what that is bound to.
    #[allow(clippy::manual_async_fn)]
    fn run(self) -> impl Future<Output = ()> {
        async move {
            let ended = loop {
                if let Err(error) = self.push_deadline() {
                    break Err(error);
                }
                match self.stream.read_with(|bytes| self.echo(bytes)).await {
                    Ok(Echoed::All) => continue,
                    Ok(Echoed::Some) => {}
                    Ok(Echoed::End) => break Ok(()),
                    Err(error) => break Err(error),
                }
                // Boxed, for it is rare: else every idle connection would hold its room.
                if let Err(error) = Box::pin(self.write_rest()).await {
                    break Err(error);
                }
            };
            if let Err(error) = ended {
                log::debug!("{error}");
            }
        }
    }

    async fn write_rest(&self) -> io::Result<()> {
        let rest = self.rest.take().unwrap_or_default();
        self.stream.write_all(&rest).await
    }

    #[inline]
    fn push_deadline(&self) -> io::Result<()> {
        match self.server.limit.get() {
            Some(limit) => self.stream.set_read_deadline(Some(time::now() + limit)),
            None => Ok(()),
        }
    }

    #[inline]
    fn echo(&self, bytes: &[u8]) -> Echoed {
        let count = &self.server.bytes;
        count.set(count.get() + bytes.len() as u64);
        if bytes.is_empty() {
            return Echoed::End;
        }
        match self.stream.try_write(bytes) {
            Ok(gone) if gone == bytes.len() => Echoed::All,
            Ok(gone) => self.keep(&bytes[gone..]),
            // Full, or broken: writing what is left will wait, or say so.
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

/// Stops accepting, and gives what is in flight its time.
async fn drain(server: &Server, listener: &TcpListener) {
    let _ = listener.close();
    server.limit.set(Some(QUIET));
    let quiet = time::now() + QUIET;
    for (_, stream) in server.open.borrow().iter() {
        let _ = stream.set_read_deadline(Some(quiet));
    }
    let done = time::timeout(DRAIN, async {
        let mut tick = time::interval(Duration::from_millis(10));
        while !server.open.borrow().is_empty() {
            tick.tick().await;
        }
    });
    if done.await.is_err() {
        log::warn!("closing connections that are still busy");
    }
}
