//! A server under `run_in` whose callbacks do random legal things, and clients that do too.
//!
//! What must hold: bytes arrive in the order in which they were accepted, and once, each way; a
//! clean end of file comes after all of them; what is queued stays within its limits; each protocol
//! is told of its end once; and at last nothing is left.

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use netpoller::{
    CloseReason, Conn, ConnHandle, Limits, Protocol, Runtime, Server, TcpStream, time,
};

use super::choices::Choices;
use super::sockets::{look, pattern};

const MILLISECOND: Duration = Duration::from_millis(1);
const CLIENTS: usize = 4;
/// Steps of one program.
const STEPS: usize = 64;
/// Of the virtual clock: what takes longer hangs.
const LIMIT: Duration = Duration::from_secs(1_000_000);

fn piece(from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(pattern).collect()
}

/// One connection, as the model knows it.
#[derive(Default)]
struct Seen {
    /// Bytes for the client that a write of the server's accepted.
    accepted: Cell<usize>,
    /// Of these, so many the client has read.
    read: Cell<usize>,
    /// Bytes that the client may have sent, and that `data` has used.
    sent: Cell<usize>,
    used: Cell<usize>,
    /// What the last callback asked to be offered at least.
    need: Cell<usize>,
    /// The client has sent its last byte.
    client_ended: Cell<bool>,
    /// A callback panicked, whose last writes are not sent; or the client has met a reset.
    cut: Cell<bool>,
    ended: Cell<bool>,
    handle: RefCell<Option<ConnHandle>>,
}

/// What callbacks and driver share.
struct World {
    choices: RefCell<Choices>,
    all: RefCell<Vec<Rc<Seen>>>,
    limits: Limits,
    /// What went wrong in a callback, where a panic would end one connection alone.
    wrong: RefCell<Option<String>>,
}

impl World {
    fn claim(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong.borrow_mut().get_or_insert_with(what);
        }
    }

    fn below(&self, bound: usize) -> usize {
        self.choices.borrow_mut().below(bound)
    }

    fn length(&self) -> usize {
        self.choices.borrow_mut().length() / 4
    }

    /// What must hold between any two steps.
    fn check(&self) {
        self.note();
        assert_eq!(*self.wrong.borrow(), None);
    }

    /// The same, from within a callback.
    fn note(&self) {
        let mut in_all = 0;
        for seen in &*self.all.borrow() {
            let Some(handle) = &*seen.handle.borrow() else {
                continue;
            };
            let queued = handle.queued();
            let fits = queued <= self.limits.most_queued && (queued == 0 || !seen.ended.get());
            self.claim(fits, || format!("{queued} bytes wait for one connection"));
            in_all += queued;
        }
        let fits = in_all <= self.limits.most_queued_in_all;
        self.claim(fits, || format!("{in_all} bytes wait for all connections"));
    }

    fn write_by_handle(&self, seen: &Seen) {
        let handle = seen.handle.borrow().clone();
        let Some(handle) = handle else { return };
        let from = seen.accepted.get();
        let bytes = piece(from, self.length());
        let written = match self.below(2) {
            0 => handle.write(&bytes),
            _ => handle.write_shared(&bytes.clone().into()),
        };
        if written.is_ok() {
            let open = !seen.ended.get() || bytes.is_empty();
            self.claim(open, || "a closed connection takes bytes".to_owned());
            seen.accepted.set(from + bytes.len());
        }
    }
}

struct Random {
    world: Rc<World>,
    seen: Rc<Seen>,
    in_data: bool,
}

impl Random {
    /// Does a few things that a callback may do.
    fn act(&mut self, conn: &mut Conn) -> io::Result<()> {
        let acted = catch_unwind(AssertUnwindSafe(|| self.actions(conn)));
        acted.unwrap_or_else(|payload| {
            self.seen.cut.set(true);
            resume_unwind(payload)
        })
    }

    fn actions(&mut self, conn: &mut Conn) -> io::Result<()> {
        let (world, seen) = (self.world.clone(), self.seen.clone());
        for _ in 0..3 {
            let from = seen.accepted.get();
            match world.below(24) {
                0..=6 => return Ok(()),
                7..=10 => {
                    let bytes = piece(from, world.length());
                    conn.write(&bytes)?;
                    seen.accepted.set(from + bytes.len());
                }
                11 | 12 => {
                    let bytes = piece(from, world.length());
                    if conn.write_shared(&bytes.clone().into()).is_ok() {
                        seen.accepted.set(from + bytes.len());
                    }
                }
                13 => {
                    *seen.handle.borrow_mut() = Some(conn.handle());
                }
                14 => world.write_by_handle(&seen),
                15 => {
                    let other = world.below(world.all.borrow().len());
                    let other = world.all.borrow()[other].clone();
                    world.write_by_handle(&other);
                }
                16 | 17 if self.in_data => {
                    let need = world.length();
                    conn.need(need);
                    seen.need.set(need);
                }
                16..=18 => conn.set_busy(true),
                19 => conn.set_busy(false),
                20 => conn.close_write(),
                21 => match world.below(4) {
                    0 => conn.abort(),
                    _ => conn.close(),
                },
                22 => match world.below(4) {
                    0 => resume_unwind(Box::new("as a callback may")),
                    _ => return Ok(()),
                },
                _ => match world.below(4) {
                    0 => return Err(io::Error::other("as a callback may")),
                    _ => return Ok(()),
                },
            }
            world.note();
        }
        Ok(())
    }
}

impl Protocol for Random {
    fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
        self.act(conn)
    }

    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        let seen = self.seen.clone();
        let from = seen.used.get();
        let until = from + bytes.len();
        let in_order = until <= seen.sent.get() && bytes == piece(from, bytes.len());
        let world = self.world.clone();
        world.claim(in_order, || {
            format!("{from} to {until} are offered and wrong")
        });
        let need = seen.need.replace(0);
        let enough = bytes.len() >= need || seen.client_ended.get();
        world.claim(enough, || {
            format!("{} bytes where {need} are needed", bytes.len())
        });
        self.in_data = true;
        let acted = self.act(conn);
        self.in_data = false;
        acted?;
        let used = match self.world.below(4) {
            0..=2 => bytes.len(),
            _ => self.world.length().min(bytes.len()),
        };
        seen.used.set(from + used);
        Ok(used)
    }

    fn end(&mut self, conn: &mut Conn) -> io::Result<()> {
        self.act(conn)?;
        conn.close();
        Ok(())
    }

    fn heartbeat(&mut self, conn: &mut Conn) -> io::Result<()> {
        self.act(conn)
    }

    fn idle(&mut self, conn: &mut Conn) -> io::Result<()> {
        self.act(conn)
    }

    fn writable(&mut self, conn: &mut Conn) -> io::Result<()> {
        self.act(conn)
    }

    fn ended(&mut self, _: CloseReason) {
        let first = !self.seen.ended.replace(true);
        self.world
            .claim(first, || "`ended` is called twice".to_owned());
    }
}

/// A client's end of a connection.
struct Client {
    stream: TcpStream,
    seen: Rc<Seen>,
}

impl Client {
    /// Reads once, if anything comes within a moment. False at the end.
    async fn read(&self, length: usize, moment: Duration) -> bool {
        let mut buffer = vec![0; length];
        let got = match time::timeout(moment, self.stream.read(&mut buffer)).await {
            Err(_) => return true,
            // A reset: what had not been read by then may be lost.
            Ok(Err(_)) => {
                self.seen.cut.set(true);
                return false;
            }
            Ok(Ok(got)) => got,
        };
        let seen = &self.seen;
        let from = seen.read.get();
        if got == 0 {
            let all = seen.accepted.get() == from || seen.cut.get();
            assert!(
                all,
                "{from} bytes of {}, and then a clean end",
                seen.accepted.get()
            );
            return false;
        }
        assert!(
            from + got <= seen.accepted.get(),
            "bytes that were not written"
        );
        assert!(
            buffer[..got] == piece(from, got),
            "out of order, from {from}"
        );
        seen.read.set(from + got);
        true
    }
}

/// Runs the program that `bytes` spell.
pub fn run(bytes: &[u8]) {
    let runtime = Runtime::builder().virtual_clock().build().unwrap();
    let mut choices = Choices::new(bytes);
    let limits = limits(&mut choices);
    let world = Rc::new(World {
        choices: RefCell::new(choices),
        all: RefCell::default(),
        limits,
        wrong: RefCell::default(),
    });
    let theirs = world.clone();
    let factory = move |_| {
        let seen = Rc::new(Seen::default());
        theirs.all.borrow_mut().push(seen.clone());
        Random {
            world: theirs.clone(),
            seen,
            in_data: false,
        }
    };
    let mut server = Server::new(factory)
        .limits(limits)
        .drain_grace(MILLISECOND * 10 * world.below(8) as u32);
    if world.below(2) == 1 {
        server = server.idle_timeout(MILLISECOND * (1 + 50 * world.below(8) as u32));
    }
    if world.below(2) == 1 {
        server = server.heartbeat(MILLISECOND * (1 + 20 * world.below(8) as u32));
    }
    let bound = server.bind("127.0.0.1:0").unwrap();
    let (serving, handle) = (bound.run_in(&runtime).unwrap(), bound.handle());
    let address = bound.local_addr();
    runtime.block_on(async {
        let driven = async {
            drive(&world, address, &runtime).await;
            match world.below(2) {
                0 => handle.stop(),
                _ => handle.drain(MILLISECOND * 100),
            }
            serving.await.unwrap().unwrap()
        };
        let stats = time::timeout(LIMIT, driven).await.expect("it hangs");
        let all = world.all.borrow();
        assert_eq!((stats.live(), stats.accepted()), (0, all.len() as u64));
        assert!(
            all.iter().all(|seen| seen.ended.get()),
            "a protocol was not told of its end"
        );
    });
    world.check();
    let stats = runtime.stats();
    assert_eq!((stats.connections, stats.tasks), (0, 0), "{stats:?}");
    assert_eq!(
        (stats.descriptors, stats.timers, stats.waiters),
        (0, 0, 0),
        "{stats:?}"
    );
}

fn limits(choices: &mut Choices) -> Limits {
    let mut size = || 1 << (6 + choices.below(14));
    let (high, most_queued, in_all, unused) = (size(), size(), size(), size());
    Limits::default()
        .with_high_water(high)
        .with_low_water(high / 2)
        .with_most_queued(most_queued)
        .with_most_queued_in_all(in_all)
        .with_most_unused(unused)
}

async fn drive(world: &Rc<World>, address: std::net::SocketAddr, runtime: &Runtime) {
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..STEPS {
        if world.choices.borrow().is_empty() {
            break;
        }
        world.check();
        let number = world.below(CLIENTS);
        let Some(client) = clients.get(number) else {
            let before = world.all.borrow().len();
            let stream = TcpStream::connect(address).await.unwrap();
            while world.all.borrow().len() == before {
                time::sleep(MILLISECOND).await;
            }
            let seen = world.all.borrow()[before].clone();
            clients.push(Client { stream, seen });
            continue;
        };
        let seen = &client.seen;
        match world.below(13) {
            0..=3 => {
                let bytes = piece(seen.sent.get(), world.length());
                if seen.client_ended.get() {
                    continue;
                }
                // Counted before: the server may read them meanwhile.
                seen.sent.set(seen.sent.get() + bytes.len());
                let written = client.stream.write_all(&bytes);
                match time::timeout(MILLISECOND, written).await {
                    Ok(Ok(())) => {}
                    // How much has gone is unknown.
                    Err(_) => seen.client_ended.set(true),
                    // The system tells of a reset once. A read after it finds a clean end.
                    Ok(Err(_)) => {
                        seen.client_ended.set(true);
                        seen.cut.set(true);
                    }
                }
            }
            4..=6 => {
                let length = world.length().max(1);
                client.read(length, MILLISECOND).await;
            }
            7 => time::sleep(MILLISECOND * world.below(200) as u32).await,
            8 => world.write_by_handle(seen),
            9 => {
                let handle = seen.handle.borrow().clone();
                match (handle, world.below(4)) {
                    (Some(handle), 0) => handle.close(),
                    (Some(handle), 1) => handle.abort(),
                    (Some(handle), busy) => handle.set_busy(busy == 2),
                    (None, _) => {}
                }
            }
            10 => look(runtime),
            11 => {
                seen.client_ended.set(true);
                let _ = client.stream.close_write();
            }
            _ => {
                seen.client_ended.set(true);
                let client = clients.swap_remove(number);
                match world.below(2) {
                    0 => drop(client),
                    _ => drop(client.stream.abort()),
                }
            }
        }
    }
    // The rest is read to its end, where that comes by itself.
    for client in clients {
        client.seen.client_ended.set(true);
        let _ = client.stream.close_write();
        while client.read(64 << 10, MILLISECOND * 50).await {
            if client.seen.read.get() >= client.seen.accepted.get() {
                break;
            }
        }
    }
}
