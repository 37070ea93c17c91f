//! A panic in a callback: the connection ends, `closed` is called, and the other connections go on.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Mutex;

use netpoller::{Bound, Conn, Protocol, Runtime, Server, time};

use crate::support::bytes::read_all;
use crate::support::scripted_protocol::{
    Log, MILLISECOND, SECOND, Script, dial, nothing, serving, until,
};

#[test]
fn a_panic_ends_one_connection_which_is_told_and_the_others_go_on() {
    let script = Script {
        data: |conn, bytes| {
            assert_ne!(bytes, b"die", "a test's own panic");
            conn.write(bytes)?;
            Ok(bytes.len())
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let (victim, other) = (dial(&bound).await, dial(&bound).await);
        victim.write_all(b"die").await.unwrap();
        let _ = read_all(&victim).await;
        other.write_all(b"live").await.unwrap();
        other.read_exact(&mut [0; 4]).await.unwrap();
        assert!(script.said().contains(&"closed: Other".to_owned()));
    });
}

#[test]
fn a_panic_gives_its_connections_permit_back() {
    let script = Script {
        open: dies,
        ..Script::new()
    };
    serving(
        script.server().max_connections(1),
        async |bound: Rc<Bound<_>>| {
            for _ in 0..3 {
                let _ = read_all(&dial(&bound).await).await;
            }
            assert_eq!(script.said().join(" ").matches("closed").count(), 3);
        },
    );
}

fn dies(_: &mut Conn) -> io::Result<()> {
    panic!("a test's own panic");
}

#[test]
fn a_panic_in_a_callback_ends_that_connection_alone_and_closed_is_still_called() {
    let base = Script {
        open: nothing,
        data: |conn, bytes| {
            conn.write(bytes)?;
            Ok(bytes.len())
        },
        ..Script::new()
    };
    let drains = |conn: &mut Conn, bytes: &[u8]| {
        if bytes == b"victim" {
            conn.write(&[0; 8 << 20])?;
        } else {
            conn.write(bytes)?;
        }
        Ok(bytes.len())
    };
    let cases = [
        (
            "open",
            Script {
                open: dies,
                ..base.clone()
            },
        ),
        (
            "data",
            Script {
                data: |conn, bytes| {
                    assert_ne!(bytes, b"victim", "a test's own panic");
                    conn.write(bytes)?;
                    Ok(bytes.len())
                },
                ..base.clone()
            },
        ),
        (
            "end",
            Script {
                end: dies,
                ..base.clone()
            },
        ),
        (
            "heartbeat",
            Script {
                heartbeat: dies,
                ..base.clone()
            },
        ),
        (
            "idle",
            Script {
                idle: dies,
                ..base.clone()
            },
        ),
        (
            "drained",
            Script {
                data: drains,
                drained: dies,
                ..base.clone()
            },
        ),
    ];
    for (name, script) in cases {
        let script = Script {
            log: Log::default(),
            ..script
        };
        let mut server = script.server();
        if name == "heartbeat" {
            server = server.heartbeat(2 * SECOND);
        }
        if name == "idle" {
            server = server.idle_timeout(2 * SECOND);
        }
        serving(server, async |bound: Rc<Bound<_>>| {
            let other = dial(&bound).await;
            let victim = dial(&bound).await;
            let _ = victim.write_all(b"victim").await;
            if name == "end" {
                victim.close_write().unwrap();
            }
            for _ in 0..30 {
                if name != "open" {
                    other.write_all(b"n").await.unwrap();
                    other.read_exact(&mut [0]).await.unwrap();
                }
                time::sleep(100 * MILLISECOND).await;
            }
            let _ = read_all(&victim).await;
            let told = || {
                script
                    .said()
                    .iter()
                    .filter(|line| *line == "closed: Other")
                    .count()
            };
            until(|| told() == if name == "open" { 2 } else { 1 }).await;
            if name != "open" {
                other.write_all(b"n").await.unwrap();
                other.read_exact(&mut [0]).await.unwrap();
            }
        });
        let said = script.said();
        let died = said
            .iter()
            .position(|line| line == "closed: Other")
            .unwrap();
        let called = said[..died].iter().any(|line| line.starts_with(name));
        assert!(called, "{name}: {said:?}");
    }
}

#[test]
fn a_panic_in_closed_ends_no_other_connection_and_the_counts_stay_right() {
    static TOLD: Mutex<u32> = Mutex::new(0);
    struct PanicsInClosed;
    impl Protocol for PanicsInClosed {
        fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
            conn.write(bytes)?;
            if bytes == b"victim" {
                conn.close();
            }
            Ok(bytes.len())
        }
        fn closed(&mut self, _: io::Result<()>) {
            *TOLD.lock().unwrap() += 1;
            panic!("a test's own panic");
        }
    }
    serving(
        Server::new(|_| PanicsInClosed),
        async |bound: Rc<Bound<_>>| {
            let (victim, other) = (dial(&bound).await, dial(&bound).await);
            victim.write_all(b"victim").await.unwrap();
            assert_eq!(read_all(&victim).await.unwrap(), b"victim");
            other.write_all(b"n").await.unwrap();
            other.read_exact(&mut [0]).await.unwrap();
            assert_eq!(
                (*TOLD.lock().unwrap(), bound.handle().stats().live()),
                (1, 1)
            );
        },
    );
    assert_eq!(*TOLD.lock().unwrap(), 2);
}

thread_local! {
    static ANOTHER: Cell<Option<Runtime>> = const { Cell::new(None) };
}

/// Another runtime, which drops a connection when it ends.
fn another_runtime() -> Runtime {
    let script = Script::new();
    let bound = script.server().bind("127.0.0.1:0").unwrap();
    let runtime = Runtime::new().unwrap();
    drop(bound.run_in(&runtime).unwrap());
    let client = std::net::TcpStream::connect(bound.local_addr()).unwrap();
    while script.last() != "open" {
        runtime.turn(None).unwrap();
    }
    drop(client);
    runtime
}

#[test]
fn what_a_callback_writes_arrives_although_it_drops_another_runtime() {
    let passes_on = |conn: &mut Conn, bytes: &[u8]| {
        conn.write(bytes)?;
        drop(ANOTHER.take());
        Ok(bytes.len())
    };
    let answers = |conn: &mut Conn, bytes: &[u8]| {
        conn.write(b"hel")?;
        drop(ANOTHER.take());
        conn.write(b"lo")?;
        Ok(bytes.len())
    };
    let ends_with_it = |conn: &mut Conn, bytes: &[u8]| {
        conn.write(b"hello")?;
        drop(ANOTHER.take());
        Ok(bytes.len())
    };
    type Data = fn(&mut Conn, &[u8]) -> io::Result<usize>;
    for data in [passes_on as Data, answers, ends_with_it] {
        ANOTHER.set(Some(another_runtime()));
        let script = Script {
            data,
            ..Script::new()
        };
        serving(script.server(), async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            client.write_all(b"hello").await.unwrap();
            client.close_write().unwrap();
            assert_eq!(read_all(&client).await.unwrap(), b"hello");
        });
        assert!(ANOTHER.take().is_none());
    }
}

/// Panics in `data` at `die`, in `closed`, and in its destructor.
struct DiesThrice;

impl Protocol for DiesThrice {
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        assert_ne!(bytes, b"die", "a test's own panic");
        conn.write(bytes)?;
        Ok(bytes.len())
    }
    fn closed(&mut self, _: io::Result<()>) {
        panic!("a test's own panic");
    }
}

impl Drop for DiesThrice {
    fn drop(&mut self) {
        panic!("a test's own panic");
    }
}

#[test]
fn a_protocol_that_panics_in_data_in_closed_and_in_its_destructor_ends_alone() {
    serving(Server::new(|_| DiesThrice), async |bound: Rc<Bound<_>>| {
        let (victim, other) = (dial(&bound).await, dial(&bound).await);
        victim.write_all(b"die").await.unwrap();
        let _ = read_all(&victim).await;
        other.write_all(b"live").await.unwrap();
        other.read_exact(&mut [0; 4]).await.unwrap();
        let stats = bound.handle().stats();
        assert_eq!((stats.live(), stats.failed()), (1, 1));
    });
}

#[test]
fn an_answer_that_a_panic_cuts_short_ends_with_a_reset() {
    let script = Script {
        open: |conn| conn.write(b"head"),
        data: |conn, _| {
            conn.write(b"half")?;
            panic!("a test's own panic");
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.read_exact(&mut [0; 4]).await.unwrap();
        client.write_all(b"x").await.unwrap();
        let error = read_all(&client).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
    assert_eq!(script.last(), "closed: Other");
}
