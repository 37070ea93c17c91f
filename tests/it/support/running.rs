//! A server on threads of its own, and plain clients.
#![allow(dead_code, reason = "each test file uses some")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use netpoller::{Addr, Bound, Conn, Filter, FilterIo, Protocol, Server, ServerHandle, ServerStats};

use crate::support::stall::between_looks;
use crate::support::watchdog::watchdog;

pub const SECOND: Duration = Duration::from_secs(1);

pub struct Echo;

impl Protocol for Echo {
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        conn.write(bytes)?;
        Ok(bytes.len())
    }
}

/// A filter that passes all bytes on unchanged.
pub struct PassesAll;

impl Filter for PassesAll {
    fn incoming(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        io.to_protocol(bytes);
        Ok(bytes.len())
    }
    fn outgoing(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        io.to_peer(bytes);
        Ok(bytes.len())
    }
}

/// An echo that is counted while it lives.
pub struct Counted(Arc<AtomicUsize>);

impl Protocol for Counted {
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        Echo.data(conn, bytes)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A server of these, and how many have lived at once at most.
pub fn counted() -> (
    Server<impl Fn(Addr) -> Counted + Send + Sync + 'static>,
    Arc<AtomicUsize>,
) {
    let (live, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = most.clone();
    let server = Server::new(move |_| {
        let now = live.fetch_add(1, Ordering::SeqCst) + 1;
        seen.fetch_max(now, Ordering::SeqCst);
        Counted(live.clone())
    });
    (server, most)
}

/// A server on a thread of its own.
pub struct Running {
    pub address: SocketAddr,
    pub handle: ServerHandle,
    pub thread: JoinHandle<io::Result<ServerStats>>,
}

pub fn start<F, P>(server: Server<F>) -> Running
where
    F: Fn(Addr) -> P + Send + Sync + 'static,
    P: Protocol,
{
    let bound: Bound<F> = server.bind("127.0.0.1:0").unwrap();
    Running {
        address: bound.local_addr(),
        handle: bound.handle(),
        thread: thread::spawn(move || bound.run()),
    }
}

impl Running {
    pub fn dial(&self) -> StdStream {
        StdStream::connect(self.address).unwrap()
    }

    /// So many clients at once send a byte each. Returns when each has an answer, and has closed.
    pub fn serve_all(&self, clients: usize) {
        let mut waiting: Vec<_> = (0..clients).map(|_| self.dial()).collect();
        for client in &waiting {
            let soon = Some(Duration::from_millis(1));
            client.set_read_timeout(soon).unwrap();
            (&*client).write_all(b"x").unwrap();
        }
        while !waiting.is_empty() {
            waiting.retain(|mut client| client.read(&mut [0]).is_err());
        }
    }

    pub fn stop(self) -> ServerStats {
        self.handle.stop();
        self.thread.join().unwrap().unwrap()
    }

    pub fn wait_for(&self, what: impl Fn(&ServerStats) -> bool) {
        let _watchdog = watchdog();
        while !what(&self.handle.stats()) {
            between_looks();
        }
    }
}

pub fn echo(stream: &mut StdStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    let mut answer = vec![0; bytes.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, bytes);
}

pub fn rest(stream: &mut StdStream) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    rest
}
