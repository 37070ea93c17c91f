//! Connections that are written to from anywhere, by their ids.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::net::TcpStream as StdStream;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use netpoller::reactor::Break;
use netpoller::{
    Addr, Bound, Conn, ConnHandle, ConnId, Limits, NetError, Protocol, Runtime, Server,
    ServerHandle, TcpStream, time,
};

use crate::support::bytes::read_all;
use crate::support::hooked::{Hook, hooked_by};
use crate::support::scripted_protocol::{MILLISECOND, Script, dial, serving, until};
use crate::support::stall::stall;
use crate::support::watchdog::watchdog;

thread_local! { static IDS: RefCell<Vec<ConnId>> = const { RefCell::new(Vec::new()) }; }

/// A script that notes the id of each connection.
fn noting() -> Script {
    Script {
        open: |conn| {
            IDS.with_borrow_mut(|ids| ids.push(conn.id()));
            Ok(())
        },
        ..Script::new()
    }
}

/// A client, and its id at the server.
async fn join<F>(bound: &Bound<F>) -> (TcpStream, ConnId) {
    let before = IDS.with_borrow(Vec::len);
    let client = dial(bound).await;
    until(|| IDS.with_borrow(Vec::len) > before).await;
    (client, IDS.with_borrow(|ids| *ids.last().unwrap()))
}

fn bytes(text: &str) -> Arc<[u8]> {
    text.as_bytes().into()
}

/// Sends each connection's id to the test, and echoes.
struct Room(Sender<ConnId>);

impl Protocol for Room {
    fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
        self.0.send(conn.id()).map_err(io::Error::other)
    }
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        conn.write(bytes)?;
        Ok(bytes.len())
    }
}

#[test]
fn any_thread_writes_to_the_connections_of_all_workers_and_closes_them() {
    let _watchdog = watchdog();
    let (tell, told) = channel();
    let server = Server::new(move |_| Room(tell.clone())).workers(2);
    let bound = server.bind("127.0.0.1:0").unwrap();
    let (address, handle) = (bound.local_addr(), bound.handle());
    let server = thread::spawn(move || bound.run());
    let clients: Vec<_> = (0..8)
        .map(|_| StdStream::connect(address).unwrap())
        .collect();
    let ids: Vec<_> = clients.iter().map(|_| told.recv().unwrap()).collect();
    // Each client has messages of its own under way meanwhile.
    for mut client in &clients {
        client.write_all(&[b'.'; 1000]).unwrap();
    }
    let readers: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            thread::spawn(move || {
                let mut got = Vec::new();
                client.read_to_end(&mut got).unwrap();
                got.retain(|&byte| byte != b'.');
                got
            })
        })
        .collect();
    let large: Arc<[u8]> = vec![b'L'; 5000].into();
    let writers: Vec<_> = ["a", "b"]
        .into_iter()
        .map(|name| {
            let (handle, ids, large) = (handle.clone(), ids.clone(), large.clone());
            thread::spawn(move || {
                for _ in 0..100 {
                    for &id in &ids {
                        handle.write(id, bytes(name)).unwrap();
                        handle.write(id, large.clone()).unwrap();
                    }
                }
            })
        })
        .collect();
    writers
        .into_iter()
        .for_each(|writer| writer.join().unwrap());
    for &id in &ids {
        handle.close(id).unwrap();
        handle.write(id, bytes("late")).unwrap_err();
    }
    for reader in readers {
        let got = reader.join().unwrap();
        let count = |wanted: u8| got.iter().filter(|&&byte| byte == wanted).count();
        assert_eq!((count(b'a'), count(b'b')), (100, 100));
        assert_eq!(got.len(), 200 * 5001);
    }
    handle.stop();
    assert_eq!(server.join().unwrap().unwrap().failed(), 0);
}

/// Lets another thread close the connection in the midst of its callback, and then answers.
struct ClosedMeanwhile(Sender<ConnId>, Receiver<()>);

impl Protocol for ClosedMeanwhile {
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(conn.id()).map_err(io::Error::other)?;
        self.1.recv().map_err(io::Error::other)?;
        conn.write(&[b'x'; 300_000])?;
        Ok(bytes.len())
    }
}

#[test]
fn a_close_from_another_thread_comes_after_what_the_running_callback_writes() {
    let _watchdog = watchdog();
    let (tell, told) = channel();
    let (go_on, wait) = channel();
    let wait = Mutex::new(Some(wait));
    let make = move |_: Addr| ClosedMeanwhile(tell.clone(), wait.lock().unwrap().take().unwrap());
    let bound = Server::new(make).workers(1).bind("127.0.0.1:0").unwrap();
    let (address, handle) = (bound.local_addr(), bound.handle());
    let server = thread::spawn(move || bound.run());
    let mut client = StdStream::connect(address).unwrap();
    client.write_all(b"?").unwrap();
    handle.close(told.recv().unwrap()).unwrap();
    go_on.send(()).unwrap();
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert_eq!(got.len(), 300_000);
    handle.stop();
    assert_eq!(server.join().unwrap().unwrap().failed(), 0);
}

/// Its break writes to the connection once.
struct Writes(Arc<dyn Break>, Writer);

type Writer = Arc<Mutex<Option<(ServerHandle, ConnId)>>>;

impl Break for Writes {
    fn break_netpoll(&self) -> io::Result<()> {
        let writer = self.1.lock().unwrap().take();
        if let Some((server, id)) = writer {
            server.write(id, bytes("second")).unwrap();
        }
        self.0.break_netpoll()
    }
}

struct ByWrites(Writer);

impl Hook for ByWrites {
    fn breaker(&self, system: Arc<dyn Break>) -> Arc<dyn Break> {
        Arc::new(Writes(system, self.0.clone()))
    }
}

#[test]
fn no_lock_of_a_connection_is_held_while_its_loop_is_woken() {
    let _watchdog = watchdog();
    let (tell, told) = channel();
    let (begins, began) = channel();
    let writer = Writer::default();
    let its = writer.clone();
    let server = thread::spawn(move || {
        let selector = hooked_by(ByWrites(its));
        let runtime = Runtime::builder().selector(selector).build().unwrap();
        let bound = Server::new(move |_| Room(tell.clone()));
        let bound = bound.bind("127.0.0.1:0").unwrap();
        let running = bound.run_in(&runtime).unwrap();
        begins.send((bound.local_addr(), bound.handle())).unwrap();
        runtime.block_on(running).unwrap().unwrap();
    });
    let (address, handle) = began.recv().unwrap();
    let mut client = StdStream::connect(address).unwrap();
    let id = told.recv().unwrap();
    *writer.lock().unwrap() = Some((handle.clone(), id));
    handle.write(id, bytes("first")).unwrap();
    let mut got = [0; 11];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"firstsecond");
    handle.stop();
    server.join().unwrap();
}

#[test]
fn what_a_write_by_id_accepts_is_sent_before_an_idle_connection_ends() {
    let _watchdog = watchdog();
    let (tell, told) = channel();
    let server = Server::new(move |_| Room(tell.clone())).workers(1);
    let server = server.idle_timeout(Duration::from_millis(20));
    let bound = server.bind("127.0.0.1:0").unwrap();
    let (address, handle) = (bound.local_addr(), bound.handle());
    let server = thread::spawn(move || bound.run());
    for _ in 0..20 {
        let mut client = StdStream::connect(address).unwrap();
        let id = told.recv().unwrap();
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            client.read_to_end(&mut got).map(|_| got.len())
        });
        // Writes only around the time of the end, so that the queue is never full: a peer that
        // takes what waits is not idle.
        stall(Duration::from_millis(19));
        let mut taken = 0;
        while handle.write(id, bytes("x")).is_ok() {
            taken += 1;
            // Leaves the lock free between the writes.
            (0..500).for_each(|_| std::hint::spin_loop());
        }
        assert_eq!(reader.join().unwrap().unwrap(), taken);
    }
    handle.stop();
    server.join().unwrap().unwrap();
}

#[test]
fn an_id_is_small_and_the_same_each_time_and_each_connection_has_its_own() {
    fn sent<T: Send + Sync + Copy + 'static>() {}
    sent::<ConnId>();
    assert_eq!(size_of::<ConnId>(), 8);
    let script = Script {
        open: |conn| {
            assert_eq!(conn.id(), conn.id());
            IDS.with_borrow_mut(|ids| ids.push(conn.id()));
            Ok(())
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let mut ids = Vec::new();
        for _ in 0..5 {
            ids.push(join(&bound).await.1);
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 5);
    });
}

#[test]
fn an_id_of_a_connection_that_is_gone_is_an_error_and_reaches_no_later_one() {
    serving(noting().server(), async |bound: Rc<Bound<_>>| {
        let (client, id) = join(&bound).await;
        client.close().unwrap();
        until(|| bound.handle().stats().live() == 0).await;
        let (later, _) = join(&bound).await;
        let error = bound.handle().write(id, bytes("x")).unwrap_err();
        assert!(error.is_closed(), "{error}");
        assert!(bound.handle().close(id).unwrap_err().is_closed());
        later.write_all(b"y").await.unwrap();
        let mut got = [0];
        later.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"y");
    });
}

#[test]
fn an_id_of_another_server_is_an_error() {
    serving(noting().server(), async |bound: Rc<Bound<_>>| {
        let (_client, id) = join(&bound).await;
        let other = Script::new().server().bind("127.0.0.1:0").unwrap();
        assert!(
            other
                .handle()
                .write(id, bytes("x"))
                .unwrap_err()
                .is_closed()
        );
    });
}

#[test]
fn what_is_written_by_id_counts_under_the_connections_limit() {
    const LIMIT: usize = 100_000;
    let limits = Limits::default().with_most_queued(LIMIT);
    serving(
        noting().server().limits(limits),
        async |bound: Rc<Bound<_>>| {
            let ((slow, id), (other, _)) = (join(&bound).await, join(&bound).await);
            let handle = bound.handle();
            let piece: Arc<[u8]> = vec![7; 10_000].into();
            // The loop does not run meanwhile: all of it waits.
            for _ in 0..10 {
                handle.write(id, piece.clone()).unwrap();
            }
            let error = handle.write(id, piece.clone()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
            let local = slow.local_addr().unwrap().to_string();
            assert!(error.to_string().contains("most_queued"), "{error}");
            assert!(error.to_string().contains(&local), "{error}");
            read_all(&slow).await.expect_err("a reset");
            until(|| handle.stats().limited() == 1).await;
            other.write_all(b"x").await.unwrap();
            other.read_exact(&mut [0]).await.unwrap();
        },
    );
}

#[test]
fn without_room_for_all_a_write_by_id_is_refused_and_all_room_comes_back() {
    let limits = Limits::default().with_most_queued_in_all(25_000);
    serving(
        noting().server().limits(limits),
        async |bound: Rc<Bound<_>>| {
            let ((client, id), handle) = (join(&bound).await, bound.handle());
            let piece: Arc<[u8]> = vec![7; 10_000].into();
            for _ in 0..3 {
                handle.write(id, piece.clone()).unwrap();
                handle.write(id, piece.clone()).unwrap();
                let error = handle.write(id, piece.clone()).unwrap_err();
                assert!(error.to_string().contains("most_queued_in_all"), "{error}");
                client.read_exact(&mut [0; 20_000]).await.unwrap();
                time::sleep(MILLISECOND).await;
            }
            // Room for bytes that a connection leaves unsent is returned too.
            handle.write(id, piece.clone()).unwrap();
            drop(client);
            until(|| handle.stats().live() == 0).await;
            let (client, id) = join(&bound).await;
            handle.write(id, vec![8; 25_000].into()).unwrap();
            client.read_exact(&mut [0; 25_000]).await.unwrap();
        },
    );
}

#[test]
fn a_write_by_id_is_refused_once_our_direction_is_to_end() {
    thread_local! { static ENDS: Cell<bool> = const { Cell::new(false) }; }
    let script = Script {
        data: |conn, bytes| {
            ENDS.set(true);
            conn.close_write();
            Ok(bytes.len())
        },
        ..noting()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let (client, id) = join(&bound).await;
        bound.handle().write(id, bytes("before")).unwrap();
        client.write_all(b"x").await.unwrap();
        until(|| ENDS.get()).await;
        let error = bound.handle().write(id, bytes("after")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(read_all(&client).await.unwrap(), b"before");
    });
}

#[test]
fn what_is_written_by_id_to_a_connection_that_is_never_quiet_goes_out_soon() {
    serving(noting().server(), async |bound: Rc<Bound<_>>| {
        let (client, id) = join(&bound).await;
        for _ in 0..100 {
            // Both come to the connection in one turn.
            client.write_all(b"echo").await.unwrap();
            bound.handle().write(id, bytes("by id")).unwrap();
            let mut got = [0; 9];
            client.read_exact(&mut got).await.unwrap();
        }
    });
}

async fn is_answered_in_order(client: &TcpStream) {
    for _ in 0..3 {
        client.write_all(b"x").await.unwrap();
        let mut got = [0; 3];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"abc");
    }
}

#[test]
fn what_a_callback_writes_by_its_own_id_goes_out_in_the_order_of_the_calls() {
    thread_local! { static HANDLE: RefCell<Option<netpoller::ServerHandle>> = const { RefCell::new(None) }; }
    let script = Script {
        data: |conn, got| {
            let handle = HANDLE.with_borrow(|handle| handle.clone().unwrap());
            conn.write(b"a")?;
            let id = IDS.with_borrow(|ids| *ids.last().unwrap());
            handle.write(id, bytes("b"))?;
            conn.write(b"c")?;
            Ok(got.len())
        },
        ..noting()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        HANDLE.set(Some(bound.handle()));
        let (client, _) = join(&bound).await;
        is_answered_in_order(&client).await;
        HANDLE.set(None);
    });
}

#[test]
fn what_a_callback_writes_comes_after_earlier_writes_of_another_thread_and_its_handle() {
    thread_local! {
        static SERVER: RefCell<Option<ServerHandle>> = const { RefCell::new(None) };
        static OWN: RefCell<Option<ConnHandle>> = const { RefCell::new(None) };
    }
    let script = Script {
        open: |conn| {
            OWN.set(Some(conn.handle()));
            IDS.with_borrow_mut(|ids| ids.push(conn.id()));
            Ok(())
        },
        data: |conn, got| {
            let server = SERVER.with_borrow(|server| server.clone().unwrap());
            let id = IDS.with_borrow(|ids| *ids.last().unwrap());
            let other = thread::spawn(move || server.write(id, bytes("a")));
            other.join().unwrap()?;
            OWN.with_borrow(|own| own.as_ref().unwrap().write(b"b"))?;
            conn.write(b"c")?;
            Ok(got.len())
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        SERVER.set(Some(bound.handle()));
        let (client, _) = join(&bound).await;
        is_answered_in_order(&client).await;
        drop((SERVER.take(), OWN.take()));
    });
}

#[test]
fn what_one_connection_writes_to_another_by_its_id_goes_out_in_the_order_of_the_calls() {
    thread_local! { static HANDLE: RefCell<Option<netpoller::ServerHandle>> = const { RefCell::new(None) }; }
    // Which callback ran first: usually the first client's, which writes to the second.
    thread_local! { static ORDER: RefCell<String> = const { RefCell::new(String::new()) }; }
    let script = Script {
        data: |conn, got| {
            match got {
                b"1" => {
                    let handle = HANDLE.with_borrow(|handle| handle.clone().unwrap());
                    let second = IDS.with_borrow(|ids| *ids.last().unwrap());
                    ORDER.with_borrow_mut(|order| order.push_str("by id"));
                    handle.write(second, bytes("by id"))?;
                }
                _ => {
                    ORDER.with_borrow_mut(|order| order.push_str("own"));
                    conn.write(b"own")?;
                }
            }
            Ok(got.len())
        },
        ..noting()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        HANDLE.set(Some(bound.handle()));
        let (one, _) = join(&bound).await;
        let (two, _) = join(&bound).await;
        for _ in 0..3 {
            // Both become readable in one turn.
            one.write_all(b"1").await.unwrap();
            two.write_all(b"2").await.unwrap();
            let mut got = [0; 8];
            two.read_exact(&mut got).await.unwrap();
            assert_eq!(got, ORDER.take().as_bytes());
        }
        HANDLE.set(None);
    });
}

#[test]
fn what_one_thread_writes_by_id_and_by_a_handle_goes_out_in_the_order_of_the_calls() {
    thread_local! { static OWN: RefCell<Option<ConnHandle>> = const { RefCell::new(None) }; }
    let script = Script {
        open: |conn| {
            OWN.set(Some(conn.handle()));
            IDS.with_borrow_mut(|ids| ids.push(conn.id()));
            Ok(())
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let (client, id) = join(&bound).await;
        let (server, own) = (bound.handle(), OWN.take().unwrap());
        let large = "L".repeat(2000);
        // The loop does not run meanwhile.
        server.write(id, bytes("a")).unwrap();
        own.write(b"b").unwrap();
        server.write(id, bytes(&large)).unwrap();
        server.write(id, bytes("c")).unwrap();
        own.write_shared(&large.as_bytes().into()).unwrap();
        own.write(b"d").unwrap();
        server.write(id, bytes("e")).unwrap();
        assert_eq!(own.queued(), 4005);
        let mut got = vec![0; 4005];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(got, format!("ab{large}c{large}de").as_bytes());
    });
}
