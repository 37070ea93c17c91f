//! How a server's connections end: what the system shows, and the end from each state.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use netpoller::{Bound, Conn, ConnHandle, TcpStream, time};
use socket2::{Domain, SockRef, Socket, Type};

use crate::support::bytes::read_all;
use crate::support::scripted_protocol::{
    MILLISECOND, SECOND, Script, dial, nothing, serving, serving_in_real_time, until,
};

/// What the system says of the server's end of a connection and of the client's: `04` is FIN_WAIT1,
/// `05` FIN_WAIT2, `06` TIME_WAIT, `08` CLOSE_WAIT. Reads the system's table once: it may be long.
fn states([ours, theirs]: [u16; 2]) -> [Option<String>; 2] {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    [[theirs, ours], [ours, theirs]].map(|ports| {
        let ends = ports.map(|port| format!(":{port:04X}"));
        table.lines().skip(1).find_map(|line| {
            let fields: Vec<_> = line.split_whitespace().take(4).collect();
            let is_it = fields[1].ends_with(&ends[0]) && fields[2].ends_with(&ends[1]);
            is_it.then(|| fields[3].to_owned())
        })
    })
}

fn ports(client: &TcpStream) -> [u16; 2] {
    [client.local_addr(), client.peer_addr()].map(|address| address.unwrap().port())
}

fn known(name: &str) -> Option<String> {
    Some(name.to_owned())
}

/// A client with a small receive buffer, set before it connects, so that the server knows of it
/// when it sends.
fn narrow(server: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(65_536).unwrap();
    socket.connect(&server.into()).unwrap();
    TcpStream::from_std(socket.into()).unwrap()
}

/// Closes on any input.
fn closes() -> Script {
    Script {
        data: |conn, bytes| {
            conn.close();
            Ok(bytes.len())
        },
        ..Script::new()
    }
}

// ---- how it ends on the wire ----

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "reads /proc/net/tcp")]
fn a_close_is_a_fin_and_time_wait_stays_with_the_server_which_closed_first() {
    serving(closes().server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        let ports = ports(&client);
        client.write_all(b"close").await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        // The client's system acknowledges the FIN, which may take a moment.
        until(|| states(ports) != [known("04"), known("08")]).await;
        assert_eq!(states(ports), [known("05"), known("08")]);
        client.close().unwrap();
        until(|| states(ports) == [known("06"), None]).await;
    });
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "reads /proc/net/tcp")]
fn a_client_that_closes_first_has_the_time_wait_and_the_server_nothing() {
    serving(Script::new().server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        let ports = ports(&client);
        client.close().unwrap();
        until(|| states(ports) == [None, known("06")]).await;
    });
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "reads /proc/net/tcp")]
fn linger_zero_and_abort_are_resets_and_leave_nothing() {
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
            assert_eq!(states(ports), [None, None]);
        });
    }
}

#[test]
fn what_was_written_before_a_lingering_close_arrives_and_other_connections_go_on() {
    // While the peer does not read, such a close waits in the kernel. It must not block the loop's
    // thread.
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
    serving_in_real_time(script.server(), async |bound: Rc<Bound<_>>| {
        for how in ["linger", "default"] {
            let (client, neighbour) = (narrow(bound.local_addr()), dial(&bound).await);
            client.write_all(how.as_bytes()).await.unwrap();
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

// ---- from each state ----

thread_local! { static HANDLE: RefCell<Option<ConnHandle>> = const { RefCell::new(None) }; }

fn keep_handle(conn: &mut Conn) {
    HANDLE.set(Some(conn.handle()));
}

/// A script for each state from Open to PeerEnded. It comes there by what it does in `open` and in
/// `end`.
fn open_to_peer_ended() -> Vec<(&'static str, Script)> {
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

/// Connects a client and brings its connection to the state `name`.
async fn in_state<F>(bound: &Bound<F>, name: &str, script: &Script) -> TcpStream {
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
fn a_close_by_a_handle_ends_each_state_from_open_to_peer_ended_and_what_waits_arrives() {
    for (name, script) in open_to_peer_ended() {
        serving_in_real_time(script.server(), async |bound: Rc<Bound<_>>| {
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
fn an_abort_by_a_handle_ends_each_state_from_open_to_peer_ended_by_a_reset() {
    for (name, script) in open_to_peer_ended() {
        serving(script.server(), async |bound: Rc<Bound<_>>| {
            let client = in_state(&bound, name, &script).await;
            HANDLE.take().unwrap().abort();
            until(|| script.last() == "closed").await;
            // The reset discards what had arrived. If the end of file was read before, the write
            // fails.
            let reset = match read_all(&client).await {
                Ok(_) => client.write_all(b"x").await.is_err(),
                Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
            };
            assert!(reset || name == "Finished", "{name}");
        });
    }
}

#[test]
fn a_stop_ends_each_state_from_open_to_peer_ended() {
    for (name, script) in open_to_peer_ended() {
        serving(script.server(), async |bound: Rc<Bound<_>>| {
            let client = in_state(&bound, name, &script).await;
            bound.handle().stop();
            until(|| script.last() == "closed: ConnectionAborted").await;
            drop((client, HANDLE.take()));
        });
    }
}

#[test]
fn an_idle_connection_ends_in_each_state_from_open_to_peer_ended() {
    for (name, script) in open_to_peer_ended() {
        let server = script.server().idle_timeout(5 * SECOND);
        serving(server, async |bound: Rc<Bound<_>>| {
            let client = in_state(&bound, name, &script).await;
            let start = time::now();
            while !script.last().starts_with("closed") {
                time::sleep(100 * MILLISECOND).await;
            }
            // Two idle timeouts: one before the goodbye, one if it is not taken. Bytes that the
            // kernel takes late add one or two.
            let took = time::now() - start;
            assert!(took > 4 * SECOND && took < 21 * SECOND, "{name}: {took:?}");
            drop((client, HANDLE.take()));
        });
        assert_eq!(script.last(), "closed: timeout", "{name}");
    }
}

thread_local! { static CLIENT: RefCell<Option<std::net::TcpStream>> = const { RefCell::new(None) }; }

#[test]
fn a_reset_during_a_large_write_is_reported_as_a_reset() {
    let script = Script {
        data: |conn, bytes| {
            let client = CLIENT.take().unwrap();
            SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
            drop(client);
            // More than the loop gathers: a part is sent before the callback ends.
            (0..8).try_for_each(|_| conn.write(&[7; 64 << 10]))?;
            Ok(bytes.len())
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let mut client = std::net::TcpStream::connect(bound.local_addr()).unwrap();
        io::Write::write_all(&mut client, b"x").unwrap();
        CLIENT.set(Some(client));
        until(|| script.last().starts_with("closed")).await;
    });
    assert_eq!(script.last(), "closed: ConnectionReset");
}
