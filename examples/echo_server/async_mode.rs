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
    idle_timeout: Option<Duration>,
    accepted: Cell<u64>,
    bytes: Cell<u64>,
    /// Every open connection, to hurry them when the server stops.
    open: RefCell<Slab<TcpStream>>,
    stopping: Cell<bool>,
}

pub fn serve(options: &Options, listener: StdListener, stop: UnixStream) -> io::Result<Counts> {
    let runtime = Runtime::builder()
        .spin(options.spin.unwrap_or_default())
        .build()?;
    let server = Rc::new(Server {
        idle_timeout: options.idle_timeout,
        accepted: Cell::new(0),
        bytes: Cell::new(0),
        open: RefCell::new(Slab::new()),
        stopping: Cell::new(false),
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
                let key = server.open.borrow_mut().insert(stream.clone());
                drop(spawn(connection(stream, server.clone(), key)));
            }
            Err(error) if error.is_temporary() => time::sleep(backoff.next(&error)).await,
            Err(error) => return log::info!("{error}"),
        }
    }
}

async fn connection(stream: TcpStream, server: Rc<Server>, key: usize) {
    if let Err(error) = echo(&stream, &server).await {
        log::debug!("{error}");
    }
    let gone = server.open.borrow_mut().try_remove(key);
    drop(gone);
}

/// What became of the bytes that were read.
enum Echoed {
    All,
    End,
    /// The kernel did not take this: it is copied, and written before more is read.
    Rest(Box<Vec<u8>>),
}

/// Echoes until end of file, which is passed on.
async fn echo(stream: &TcpStream, server: &Server) -> io::Result<()> {
    loop {
        if let Some(limit) = server.limit() {
            stream.set_read_deadline(Some(time::now() + limit))?;
        }
        let echoed = stream.read_with(|bytes| {
            server.bytes.set(server.bytes.get() + bytes.len() as u64);
            echo_at_once(stream, bytes)
        });
        match echoed.await? {
            Echoed::All => {}
            Echoed::Rest(rest) => stream.write_all(&rest).await?,
            Echoed::End => return stream.close_write(),
        }
    }
}

fn echo_at_once(stream: &TcpStream, bytes: &[u8]) -> Echoed {
    if bytes.is_empty() {
        return Echoed::End;
    }
    match stream.try_write(bytes) {
        Ok(gone) if gone == bytes.len() => Echoed::All,
        Ok(gone) => Echoed::Rest(Box::new(bytes[gone..].to_vec())),
        // Full, or broken: writing what is left will wait, or say so.
        Err(_) => Echoed::Rest(Box::new(bytes.to_vec())),
    }
}

impl Server {
    fn limit(&self) -> Option<Duration> {
        if self.stopping.get() {
            Some(QUIET)
        } else {
            self.idle_timeout
        }
    }
}

/// Stops accepting, and gives what is in flight its time.
async fn drain(server: &Server, listener: &TcpListener) {
    let _ = listener.close();
    server.stopping.set(true);
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
