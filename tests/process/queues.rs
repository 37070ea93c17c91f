//! A limit bounds memory: what waits for a peer that does not read takes less than four times the
//! limit, however small the pieces.

use std::cell::{Cell, OnceCell};
use std::io::{self, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use netpoller::{
    Conn, ConnHandle, Limits, Protocol, Runtime, Server, ServerHandle, spawn, yield_now,
};

use crate::allocator::{held, peak, reset_peak};
use crate::child::in_child;

const LIMIT: usize = 1 << 20;

/// Lets a task write to the connection until it takes no more.
struct Floods {
    write: fn(&ConnHandle) -> io::Result<()>,
    yields: bool,
    done: Rc<Cell<bool>>,
}

impl Protocol for Floods {
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        let (handle, write, yields) = (conn.handle(), self.write, self.yields);
        let done = self.done.clone();
        drop(spawn(async move {
            for n in 1_u64.. {
                if write(&handle).is_err() {
                    break;
                }
                if yields && n % 1024 == 0 {
                    yield_now().await;
                }
            }
            done.set(true);
        }));
        Ok(bytes.len())
    }
}

/// Holds up its thread, while another writes to the connection by its id until that takes no more.
struct Stalls {
    server: Rc<OnceCell<ServerHandle>>,
    done: Rc<Cell<bool>>,
}

impl Protocol for Stalls {
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        let (id, server) = (conn.id(), self.server.get().unwrap().clone());
        let other = thread::spawn(move || {
            let nothing: Arc<[u8]> = Arc::new([]);
            (0..100_000).for_each(|_| server.write(id, nothing.clone()).unwrap());
            while server.write(id, Arc::new(*b"!")).is_ok() {}
        });
        other.join().unwrap();
        self.done.set(true);
        Ok(bytes.len())
    }
}

/// Asserts how much the heap grows while one connection is flooded.
fn flood<P: Protocol>(make: impl Fn(Rc<Cell<bool>>, Rc<OnceCell<ServerHandle>>) -> P + 'static) {
    let (done, server) = (Rc::new(Cell::new(false)), Rc::new(OnceCell::new()));
    let theirs = (done.clone(), server.clone());
    let make = move |_| make(theirs.0.clone(), theirs.1.clone());
    let runtime = Runtime::new().unwrap();
    let limits = Limits::default().with_most_queued(LIMIT);
    let bound = Server::new(make)
        .limits(limits)
        .bind("127.0.0.1:0")
        .unwrap();
    server.set(bound.handle()).unwrap();
    let serving = bound.run_in(&runtime).unwrap();
    // It never reads.
    let mut peer = std::net::TcpStream::connect(bound.local_addr()).unwrap();
    peer.write_all(b"!").unwrap();
    reset_peak();
    let before = held();
    while !done.get() {
        runtime.turn(None).unwrap();
    }
    let grown = peak() - before;
    bound.handle().stop();
    runtime.block_on(serving).unwrap().unwrap();
    // A vector that doubles, the loop's buffer, and what else lives.
    assert!(grown < 4 * LIMIT as isize, "{grown} bytes");
    assert!(grown > LIMIT as isize / 2, "{grown} bytes are too few");
}

#[test]
fn small_pieces_take_less_than_four_times_the_limit() {
    in_child(|| {
        let shared: fn(&ConnHandle) -> io::Result<()> =
            |handle| handle.write_shared(&Rc::from(*b"!"));
        for (yields, write) in [(true, shared), (false, |handle| handle.write(b"!"))] {
            flood(move |done, _| Floods {
                write,
                yields,
                done,
            });
        }
    });
}

#[test]
fn what_other_threads_write_byte_by_byte_takes_no_more() {
    in_child(|| {
        flood(|done, server| Stalls { server, done });
    });
}
