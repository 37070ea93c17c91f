//! Echo by hand on mio, as mio's users write it: a slab of connections found by
//! token, edge-triggered, each edge read until `WouldBlock` or a short read.
//! What a runtime on mio adds is measured against this.
//!
//! `mio-echo [--addr 127.0.0.1:0]` prints `listening on ADDR` and ends with 0 on
//! SIGTERM and SIGINT.

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;
use std::io::{self, ErrorKind, Read, Write};

const LISTENER: Token = Token(usize::MAX);
const BUFFER: usize = 64 * 1024;

struct Connection {
    stream: TcpStream,
    /// What the kernel would not take yet. Nothing is read while this holds bytes.
    pending: Vec<u8>,
}

impl Connection {
    /// Serves one event. False when the connection is done with.
    #[inline]
    fn serve(&mut self, event: &Event, buffer: &mut [u8]) -> bool {
        if !self.pending.is_empty() && !self.flush() {
            return false;
        }
        while self.pending.is_empty() {
            let length = match self.stream.read(buffer) {
                Ok(0) => return false,
                Ok(length) => length,
                // Never `Interrupted`: the only signal handler ends the process.
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            };
            match self.stream.write(&buffer[..length]) {
                Ok(written) if written == length => {}
                Ok(written) => self.pending.extend_from_slice(&buffer[written..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.pending.extend_from_slice(&buffer[..length])
                }
                Err(_) => return false,
            }
            // A short read emptied the socket: new bytes make a new edge. But an end of
            // file that came together with the bytes makes none, so it is read now.
            if length < buffer.len() && !event.is_read_closed() {
                break;
            }
        }
        // A short write filled the socket: room makes a new edge.
        true
    }

    /// Writes what is pending, as far as it goes. False when the connection is lost.
    #[cold]
    fn flush(&mut self) -> bool {
        match self.stream.write(&self.pending) {
            Ok(written) => drop(self.pending.drain(..written)),
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
        true
    }
}

fn accept(
    listener: &TcpListener,
    registry: &Registry,
    connections: &mut Slab<Connection>,
) -> io::Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                ) =>
            {
                continue
            }
            Err(e) => return Err(e),
        };
        stream.set_nodelay(true)?;
        let entry = connections.vacant_entry();
        registry.register(
            &mut stream,
            Token(entry.key()),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        entry.insert(Connection {
            stream,
            pending: Vec::new(),
        });
    }
}

extern "C" fn stop(_: libc::c_int) {
    unsafe { libc::_exit(0) }
}

fn address() -> Result<std::net::SocketAddr, String> {
    let mut addr = String::from("127.0.0.1:0");
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.next()) {
            ("--addr", Some(value)) => addr = value,
            _ => return Err("usage: mio-echo [--addr IP:PORT]".into()),
        }
    }
    addr.parse()
        .map_err(|e| format!("mio-echo: --addr {addr}: {e}"))
}

fn main() -> io::Result<()> {
    let addr = address().unwrap_or_else(|complaint| {
        eprintln!("{complaint}");
        std::process::exit(2);
    });
    for signal in [libc::SIGTERM, libc::SIGINT] {
        unsafe {
            libc::signal(
                signal,
                stop as extern "C" fn(libc::c_int) as libc::sighandler_t,
            )
        };
    }

    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(addr)?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("listening on {}", listener.local_addr()?);

    let mut connections = Slab::new();
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; BUFFER];
    loop {
        match poll.poll(&mut events, None) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, poll.registry(), &mut connections)?;
                continue;
            }
            // The token may be that of a connection closed earlier among these events.
            let Some(connection) = connections.get_mut(event.token().0) else {
                continue;
            };
            if !connection.serve(event, &mut buffer) {
                connections.remove(event.token().0);
            }
        }
    }
}
