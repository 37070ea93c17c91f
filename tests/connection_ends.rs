//! How a server's connections end: what the system shows of it, from every state, out of every
//! callback.

#[path = "common/scripted.rs"]
mod scripted;
#[path = "common/watchdog.rs"]
mod watchdog;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Mutex;
use std::time::Duration;

use netpoller::{Bound, Conn, ConnHandle, Protocol, Server, TcpStream, time};
use scripted::{Log, MILLISECOND, SECOND, Script, dial, nothing, read_all, serving, until};
use socket2::{Domain, SockRef, Socket, Type};

/// What the system says of a connection's end: `05` is FIN_WAIT2, `06` TIME_WAIT, `08` CLOSE_WAIT.
fn state(local: u16, remote: u16) -> Option<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let ends = [local, remote].map(|port| format!(":{port:04X}"));
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let is_it = fields[1].ends_with(&ends[0]) && fields[2].ends_with(&ends[1]);
        is_it.then(|| fields[3].to_owned())
    })
}

/// The states of the server's end and of the client's.
fn states(client: &[u16; 2]) -> [Option<String>; 2] {
    let [ours, theirs] = *client;
    [state(theirs, ours), state(ours, theirs)]
}

fn ports(client: &TcpStream) -> [u16; 2] {
    [client.local_addr(), client.peer_addr()].map(|address| address.unwrap().port())
}

fn known(name: &str) -> Option<String> {
    Some(name.to_owned())
}

/// A client with little room, of which the server hears before it sends.
fn narrow(server: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(65_536).unwrap();
    socket.connect(&server.into()).unwrap();
    TcpStream::from_std(socket.into()).unwrap()
}

/// Closes when it is told anything.
fn closes() -> Script {
    Script {
        data: |conn, bytes| {
            conn.close();
            Ok(bytes.len())
        },
        ..Script::new()
    }
}

// ---- rows C1 to C3 ----

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "reads /proc/net/tcp")]
fn c1_a_close_is_a_fin_and_time_wait_stays_with_the_server_which_closed_first() {
    serving(closes().server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        let ports = ports(&client);
        client.write_all(b"close").await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        // Its acknowledgement is the system's business, and may take it a moment.
        until(|| state(ports[1], ports[0]) != known("04")).await;
        assert_eq!(states(&ports), [known("05"), known("08")]);
        client.close().unwrap();
        until(|| states(&ports) == [known("06"), None]).await;
    });
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "reads /proc/net/tcp")]
fn c1_a_client_that_closes_first_has_the_time_wait_and_the_server_nothing() {
    serving(Script::new().server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        let ports = ports(&client);
        client.close().unwrap();
        until(|| states(&ports) == [None, known("06")]).await;
    });
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "reads /proc/net/tcp")]
fn c2_linger_zero_and_abort_are_resets_and_leave_nothing() {
    let lingers = Script {
        data: |conn, bytes| {
            conn.with_fd(|fd| SockRef::from(&fd).set_linger(Some(Duration::ZERO)))??;
            conn.close();
            Ok(bytes.len())
        },
        ..Script::new()
    };
    let aborts = Script {
        data: |conn, bytes| {
            conn.abort();
            Ok(bytes.len())
        },
        ..Script::new()
    };
    for script in [lingers, aborts] {
        serving(script.server(), async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            let ports = ports(&client);
            client.write_all(b"close").await.unwrap();
            let error = client.read(&mut [0]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
            until(|| script.last() == "closed").await;
            assert_eq!(states(&ports), [None, None]);
        });
    }
}

#[test]
fn c3_what_was_written_before_a_lingering_close_arrives_and_the_others_go_on() {
    // With nobody reading, such a close waits in the kernel: that must not be the loop's thread.
    let script = Script {
        data: |conn, bytes| {
            if bytes == b"echo" {
                conn.write(bytes)?;
            } else {
                let linger = match bytes {
                    b"linger" => Some(60 * SECOND),
                    _ => None,
                };
                conn.with_fd(|fd| SockRef::from(&fd).set_linger(linger))??;
                conn.write(&[7; 150_000])?;
                conn.close();
            }
            Ok(bytes.len())
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        for how in ["linger", "default"] {
            let (client, neighbour) = (narrow(bound.local_addr()), dial(&bound).await);
            client.write_all(how.as_bytes()).await.unwrap();
            // No sleeping: the clock does not jump while such a close is out.
            while !script.said().contains(&"closed".to_owned()) {
                neighbour.write_all(b"echo").await.unwrap();
                neighbour.read_exact(&mut [0; 4]).await.unwrap();
            }
            script.log.lock().unwrap().clear();
            neighbour.write_all(b"echo").await.unwrap();
            neighbour.read_exact(&mut [0; 4]).await.unwrap();
            assert_eq!(read_all(&client).await.unwrap(), [7; 150_000], "{how}");
        }
    });
}

// ---- from every state ----

thread_local! { static HANDLE: RefCell<Option<ConnHandle>> = const { RefCell::new(None) }; }

fn keep_handle(conn: &mut Conn) {
    HANDLE.set(Some(conn.handle()));
}

/// A connection in each state, by what it does when it is opened and when the peer ends.
fn every_state() -> Vec<(&'static str, Script)> {
    let base = || Script {
        open: |conn| {
            keep_handle(conn);
            Ok(())
        },
        data: |_, bytes| Ok(bytes.len()),
        end: nothing,
        ..Script::new()
    };
    vec![
        ("Open", base()),
        (
            "Open, with bytes that wait",
            Script {
                open: |conn| {
                    keep_handle(conn);
                    conn.write(&[0; 8 << 20])
                },
                ..base()
            },
        ),
        (
            "Finishing",
            Script {
                open: |conn| {
                    keep_handle(conn);
                    conn.write(&[0; 8 << 20])?;
                    conn.close_write();
                    Ok(())
                },
                ..base()
            },
        ),
        (
            "Finished",
            Script {
                open: |conn| {
                    keep_handle(conn);
                    conn.close_write();
                    Ok(())
                },
                ..base()
            },
        ),
        (
            "Closing",
            Script {
                open: |conn| {
                    keep_handle(conn);
                    conn.write(&[0; 8 << 20])?;
                    conn.close();
                    Ok(())
                },
                ..base()
            },
        ),
        (
            "PeerEnded",
            Script {
                end: |_| Ok(()),
                ..base()
            },
        ),
        (
            "PeerEnded, with bytes that wait",
            Script {
                end: |conn| conn.write(&[0; 8 << 20]),
                ..base()
            },
        ),
    ]
}

/// A client of a connection that has come to the state.
async fn in_state<F, P>(bound: &Bound<F>, name: &str, script: &Script) -> TcpStream
where
    F: Fn(std::net::SocketAddr) -> P + Send + Sync + 'static,
    P: Protocol,
{
    let client = dial(bound).await;
    let mut seen = "open";
    if name.starts_with("PeerEnded") {
        client.close_write().unwrap();
        seen = "end";
    }
    until(|| script.last() == seen).await;
    time::sleep(10 * MILLISECOND).await;
    client
}

#[test]
fn a_close_from_elsewhere_ends_every_state_and_what_waits_arrives() {
    for (name, script) in every_state() {
        serving(script.server(), async |bound: Rc<Bound<_>>| {
            let client = in_state(&bound, name, &script).await;
            let handle = HANDLE.take().unwrap();
            handle.close();
            let got = read_all(&client).await.unwrap().len();
            let waits = name.contains("wait") || ["Finishing", "Closing"].contains(&name);
            assert_eq!(got, if waits { 8 << 20 } else { 0 }, "{name}");
            until(|| script.last().starts_with("closed")).await;
            assert!(handle.is_closed());
        });
        assert_eq!(script.last(), "closed", "{name}");
        let told = script.said();
        assert_eq!(told.iter().filter(|line| *line == "closed").count(), 1);
    }
}

#[test]
fn an_abort_from_elsewhere_ends_every_state_by_a_reset() {
    for (name, script) in every_state() {
        serving(script.server(), async |bound: Rc<Bound<_>>| {
            let client = in_state(&bound, name, &script).await;
            HANDLE.take().unwrap().abort();
            until(|| script.last() == "closed").await;
            // What had arrived is thrown away; after an end of file that was read before, it is
            // the writing that fails.
            let reset = match read_all(&client).await {
                Ok(_) => client.write_all(b"x").await.is_err(),
                Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
            };
            assert!(reset || name == "Finished", "{name}");
        });
    }
}

#[test]
fn a_stop_ends_every_state() {
    for (name, script) in every_state() {
        serving(script.server(), async |bound: Rc<Bound<_>>| {
            let client = in_state(&bound, name, &script).await;
            bound.handle().stop();
            until(|| script.last() == "closed: ConnectionAborted").await;
            drop((client, HANDLE.take()));
        });
    }
}

#[test]
fn an_idle_connection_is_ended_in_every_state() {
    for (name, script) in every_state() {
        let server = script.server().idle_timeout(5 * SECOND);
        serving(server, async |bound: Rc<Bound<_>>| {
            let client = in_state(&bound, name, &script).await;
            let start = time::now();
            while !script.last().starts_with("closed") {
                time::sleep(100 * MILLISECOND).await;
            }
            // Once to say goodbye, and once more where the goodbye does not leave.
            let took = time::now() - start;
            assert!(took > 4 * SECOND && took < 11 * SECOND, "{name}: {took:?}");
            drop((client, HANDLE.take()));
        });
        assert_eq!(script.last(), "closed: timeout", "{name}");
    }
}

// ---- panics ----

fn dies(_: &mut Conn) -> io::Result<()> {
    panic!("a test's own panic");
}

#[test]
fn a_panic_in_any_callback_ends_that_connection_alone_and_closed_still_tells() {
    // All of them wait for a byte, so that the neighbour is there before.
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
            let neighbour = dial(&bound).await;
            let victim = dial(&bound).await;
            let _ = victim.write_all(b"victim").await;
            if name == "end" {
                victim.close_write().unwrap();
            }
            for _ in 0..30 {
                if name != "open" {
                    neighbour.write_all(b"n").await.unwrap();
                    neighbour.read_exact(&mut [0]).await.unwrap();
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
                neighbour.write_all(b"n").await.unwrap();
                neighbour.read_exact(&mut [0]).await.unwrap();
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
fn a_panic_in_closed_itself_leaves_the_neighbours_and_the_counts_alone() {
    static TOLD: Mutex<u32> = Mutex::new(0);
    struct Dies;
    impl Protocol for Dies {
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
    serving(Server::new(|_| Dies), async |bound: Rc<Bound<_>>| {
        let (victim, neighbour) = (dial(&bound).await, dial(&bound).await);
        victim.write_all(b"victim").await.unwrap();
        assert_eq!(read_all(&victim).await.unwrap(), b"victim");
        neighbour.write_all(b"n").await.unwrap();
        neighbour.read_exact(&mut [0]).await.unwrap();
        assert_eq!(
            (*TOLD.lock().unwrap(), bound.handle().stats().live()),
            (1, 1)
        );
    });
    assert_eq!(*TOLD.lock().unwrap(), 2);
}

// ---- partial writes ----

#[test]
fn a_write_may_stop_at_every_byte_of_a_piece() {
    // The system takes as much as its smallest buffer holds. Before that come so many bytes more,
    // for each so many, that it stops at every byte of the small pieces, own and shared.
    const PIECE: usize = 13;
    thread_local! { static BEFORE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) }; }
    fn sent(before: usize) -> Vec<u8> {
        let all = (0..before + 1000 * PIECE).map(|n| (n * 7 + n / 251) as u8);
        all.collect()
    }
    let script = Script {
        open: |conn| {
            conn.with_fd(|fd| SockRef::from(&fd).set_send_buffer_size(1))??;
            let before = BEFORE.get();
            let all = sent(before);
            conn.write_shared(&Rc::from(&all[..before]))?;
            for (n, piece) in all[before..].chunks(PIECE).enumerate() {
                match n % 2 {
                    0 => conn.write_shared(&Rc::from(piece))?,
                    _ => conn.write(piece)?,
                }
            }
            conn.close();
            Ok(())
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        for before in 0..2 * PIECE {
            BEFORE.set(before);
            let client = dial(&bound).await;
            assert!(read_all(&client).await.unwrap() == sent(before), "{before}");
        }
    });
}
