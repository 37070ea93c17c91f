//! Connections run as machines: delivery, backpressure, heartbeats, closing, breaking.

#[path = "common/scripted.rs"]
mod scripted;
#[path = "common/watchdog.rs"]
mod watchdog;

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::net::TcpStream as StdStream;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use netpoller::{Bound, Conn, ConnHandle, Limits, NetError, Protocol, Server, spawn, time};
use scripted::{Log, MILLISECOND, SECOND, Script, close, dial, nothing, read_all, serving, until};
use watchdog::watchdog;

// ---- delivery ----

/// Frames: a length byte, and so many bytes; answered by the same frame.
fn frames(conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    let Some(&length) = bytes.first() else {
        return Ok(0);
    };
    let Some(frame) = bytes.get(..1 + usize::from(length)) else {
        return Ok(0);
    };
    conn.write(frame)?;
    Ok(frame.len())
}

#[test]
fn pipelined_frames_cost_one_read_and_one_write() {
    let script = Script {
        data: frames,
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        let sent: Vec<u8> = (0..100u8).flat_map(|n| [2, n, n]).collect();
        client.write_all(&sent).await.unwrap();
        let first = client.read_with(|bytes| bytes.to_vec()).await.unwrap();
        assert_eq!(first, sent, "in one write, in order");
    });
}

#[test]
fn half_frames_wait_however_the_bytes_are_cut_up() {
    let script = Script {
        data: frames,
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        let sent = [3, 1, 2, 3, 1, 9, 0, 2, 7, 7];
        for byte in sent {
            client.write_all(&[byte]).await.unwrap();
            time::sleep(MILLISECOND).await;
        }
        let mut got = [0; 10];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(got, sent);
        client.close().unwrap();
        until(|| script.last() == "closed").await;
    });
    let offered: Vec<_> = script
        .said()
        .into_iter()
        .filter(|line| line.starts_with("data"))
        .collect();
    assert_eq!(
        offered[..4].join(" "),
        "data 1 data 2 data 3 data 4",
        "the half frame comes again, with more"
    );
}

#[test]
fn a_protocol_that_never_consumes_is_ended_at_the_limit() {
    let script = Script {
        data: |_, _| Ok(0),
        ..Script::new()
    };
    let mut limits = Limits::default();
    limits.most_unused = 100_000;
    serving(
        script.server().limits(limits),
        async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            let _ = client.write_all(&[7; 1_000_000]).await;
            until(|| script.last().starts_with("closed")).await;
        },
    );
    assert_eq!(script.last(), "closed: QuotaExceeded");
}

#[test]
fn using_more_than_was_offered_is_an_error() {
    let script = Script {
        data: |_, bytes| Ok(bytes.len() + 1),
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"x").await.unwrap();
        assert_eq!(read_all(&client).await.unwrap(), b"");
    });
    assert_eq!(script.last(), "closed: InvalidInput");
}

// ---- backpressure ----

#[test]
fn what_is_echoed_arrives_whole_wherever_a_write_stops() {
    let script = Script {
        open: |conn| {
            conn.with_fd(|fd| socket2::SockRef::from(&fd).set_send_buffer_size(1))??;
            Ok(())
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        for chunk in [1, 7, 1000, 4093] {
            let client = dial(&bound).await;
            let length = if chunk == 1 { 50_000 } else { 300_000u32 };
            let sent: Vec<u8> = (0..length).map(|n| (n * 7 + n / 251) as u8).collect();
            let (writer, bytes) = (client.clone(), sent.clone());
            let writing = spawn(async move {
                writer.write_all(&bytes).await.unwrap();
                writer.close_write().unwrap();
            });
            let mut got: Vec<u8> = Vec::new();
            let mut buffer = vec![0; chunk];
            loop {
                match client.read(&mut buffer).await.unwrap() {
                    0 => break,
                    more => got.extend(&buffer[..more]),
                }
            }
            writing.await.unwrap();
            assert!(got == sent);
        }
    });
}

#[test]
fn a_peer_that_does_not_read_is_not_read_from_and_the_flow_resumes() {
    let script = Script::new();
    let mut limits = Limits::default();
    limits.high_water = 100_000;
    limits.low_water = 50_000;
    limits.most_queued = 400_000;
    serving(
        script.server().limits(limits),
        async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            let writer = client.clone();
            let gone = Rc::new(Cell::new(0usize));
            let counted = gone.clone();
            let writing = spawn(async move {
                for _ in 0..1000 {
                    writer.write_all(&[5; 32 << 10]).await.unwrap();
                    counted.set(counted.get() + (32 << 10));
                }
                writer.close_write().unwrap();
            });
            // The sender comes to a stop: nothing moves for a second of the loop's time.
            let mut before = usize::MAX;
            while before != gone.get() {
                before = gone.get();
                time::sleep(SECOND).await;
            }
            assert!(gone.get() < 30 << 20, "{} went", gone.get());
            assert_eq!(read_all(&client).await.unwrap().len(), 1000 * (32 << 10));
            writing.await.unwrap();
        },
    );
    assert!(script.said().iter().any(|line| line == "drained"));
    assert_eq!(script.last(), "closed");
}

#[test]
fn a_protocol_that_writes_without_end_is_refused_at_the_limit() {
    let script = Script {
        open: |conn| {
            loop {
                conn.write(&[0; 10_000])?;
            }
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        until(|| script.said().len() == 2).await;
        drop(client);
    });
    assert_eq!(script.said(), ["open", "closed: QuotaExceeded"]);
}

#[test]
fn the_limit_of_the_server_holds_for_all_its_connections_together() {
    let script = Script {
        open: |conn| conn.write(&[0; 6 << 20]),
        ..Script::new()
    };
    let mut limits = Limits::default();
    limits.most_queued_in_all = 10 << 20;
    serving(
        script.server().limits(limits),
        async |bound: Rc<Bound<_>>| {
            let first = dial(&bound).await;
            until(|| script.said().len() == 1).await;
            time::sleep(SECOND).await;
            let mut others = Vec::new();
            for _ in 0..4 {
                others.push(dial(&bound).await);
            }
            until(|| script.said().contains(&"closed: QuotaExceeded".to_owned())).await;
            drop((first, others));
        },
    );
}

// ---- heartbeats and idleness ----

#[test]
fn pings_come_each_interval_and_the_silent_peer_is_closed_at_nine_seconds() {
    let script = Script::new();
    let server = script.server().heartbeat(SECOND).idle_timeout(5 * SECOND);
    let ended = serving(Server::clone(&server), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        let start = time::now();
        let mut pings = 0;
        loop {
            let mut ping = [0; 4];
            if client.read_exact(&mut ping).await.is_err() {
                break;
            }
            assert_eq!(&ping, b"ping");
            pings += 1;
            let at = (time::now() - start).as_millis();
            assert!(at.abs_diff(pings * 1000) < 20, "ping {pings} at {at}");
            if pings == 4 {
                // One byte of nine; the others never come.
                client.write_all(b"p").await.unwrap();
                client.read_exact(&mut [0]).await.unwrap();
            }
        }
        assert_eq!(pings, 8);
        time::now() - start
    });
    assert!(
        ended >= 9 * SECOND && ended < 9 * SECOND + 50 * MILLISECOND,
        "{ended:?}"
    );
    assert_eq!(script.last(), "closed: timeout");
}

#[test]
fn a_connection_stays_while_bytes_come_and_says_goodbye_when_none_do() {
    let script = Script {
        idle: |conn| conn.write(b"goodbye\n"),
        ..Script::new()
    };
    serving(
        script.server().idle_timeout(3 * SECOND),
        async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            let start = time::now();
            for _ in 0..5 {
                time::sleep(2 * SECOND).await;
                client.write_all(b"x").await.unwrap();
                client.read_exact(&mut [0]).await.unwrap();
            }
            assert_eq!(read_all(&client).await.unwrap(), b"goodbye\n");
            let ended = time::now() - start;
            assert!(
                ended >= 13 * SECOND && ended < 13 * SECOND + 50 * MILLISECOND,
                "{ended:?}"
            );
        },
    );
    assert_eq!(script.said()[6..], ["idle", "closed: timeout"]);
}

#[test]
fn neither_side_pings_while_the_others_bytes_arrive() {
    let script = Script {
        data: |_, bytes| Ok(bytes.len()),
        ..Script::new()
    };
    serving(
        script.server().heartbeat(SECOND),
        async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            for _ in 0..20 {
                client.write_all(b"x").await.unwrap();
                time::sleep(600 * MILLISECOND).await;
            }
            assert!(!script.said().contains(&"heartbeat".to_owned()));
            time::sleep(SECOND).await;
            assert!(script.said().contains(&"heartbeat".to_owned()));
        },
    );
}

#[test]
fn heartbeats_of_connections_opened_together_are_spread() {
    thread_local! { static BEATS: RefCell<Vec<std::time::Instant>> = const { RefCell::new(Vec::new()) } }
    let script = Script {
        heartbeat: |_| {
            BEATS.with_borrow_mut(|beats| beats.push(time::now()));
            Ok(())
        },
        ..Script::new()
    };
    serving(
        script.server().heartbeat(10 * SECOND),
        async |bound: Rc<Bound<_>>| {
            let mut clients = Vec::new();
            for _ in 0..200 {
                clients.push(dial(&bound).await);
            }
            time::sleep(12 * SECOND).await;
            let mut beats = BEATS.take();
            assert_eq!(beats.len(), 200);
            beats.sort();
            let most = beats.chunk_by(|a, b| a == b).map(<[_]>::len).max().unwrap();
            assert!(most <= 3, "{most} at once");
        },
    );
}

// ---- ends ----

#[test]
fn a_half_close_is_answered_with_what_is_pending() {
    let script = Script {
        open: |conn| conn.write(&[3; 2 << 20]),
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"last words").await.unwrap();
        client.close_write().unwrap();
        let got = read_all(&client).await.unwrap();
        assert_eq!(got.len(), (2 << 20) + 10);
        assert!(got.ends_with(b"last words"));
    });
    assert_eq!(script.last(), "closed");
}

#[test]
fn after_our_half_close_the_peer_is_still_heard() {
    let script = Script {
        open: |conn| {
            conn.write(&[3; 1 << 20])?;
            conn.close_write();
            conn.write(b"late").expect_err("our direction has ended");
            Ok(())
        },
        data: |_, bytes| Ok(bytes.len()),
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        assert_eq!(read_all(&client).await.unwrap().len(), 1 << 20);
        client.write_all(b"heard").await.unwrap();
        until(|| script.said().contains(&"data 5".to_owned())).await;
        client.close().unwrap();
        until(|| script.last() == "closed").await;
    });
    assert_eq!(script.said(), ["open", "data 5", "end", "closed"]);
}

#[test]
fn a_protocol_may_go_on_writing_after_the_peers_end() {
    let script = Script {
        end: |conn| conn.write(b"and"),
        ..Script::new()
    };
    let server = script
        .server()
        .heartbeat(SECOND)
        .idle_timeout(3500 * MILLISECOND);
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.close_write().unwrap();
        assert_eq!(read_all(&client).await.unwrap(), b"andpingpingping");
    });
}

#[test]
fn close_works_from_every_callback() {
    let base = Script::new();
    let said = |name: &str| name.to_owned();
    let cases = [
        (
            Script {
                open: close,
                ..base.clone()
            },
            vec![said("open")],
        ),
        (
            Script {
                data: |conn, bytes| {
                    conn.write(bytes)?;
                    conn.close();
                    Ok(bytes.len())
                },
                ..base.clone()
            },
            vec![said("open"), said("data 2")],
        ),
        (
            Script {
                heartbeat: close,
                data: |_, bytes| Ok(bytes.len()),
                ..base.clone()
            },
            vec![said("open"), said("data 2"), said("heartbeat")],
        ),
    ];
    for (script, wanted) in cases {
        let script = Script {
            log: Log::default(),
            ..script
        };
        serving(
            script.server().heartbeat(SECOND),
            async |bound: Rc<Bound<_>>| {
                let client = dial(&bound).await;
                let _ = client.write_all(b"hi").await;
                let _ = read_all(&client).await;
                until(|| script.last() == "closed").await;
            },
        );
        let mut said = script.said();
        assert_eq!(said.pop().unwrap(), "closed");
        assert_eq!(said, wanted);
    }
    // Those that come late.
    let script = Script {
        idle: close,
        drained: close,
        ..Script::new()
    };
    serving(
        script.server().idle_timeout(SECOND),
        async |bound: Rc<Bound<_>>| {
            assert_eq!(read_all(&dial(&bound).await).await.unwrap(), b"");
        },
    );
    assert_eq!(script.said(), ["open", "idle", "closed: timeout"]);
    let script = Script {
        open: |conn| conn.write(&[0; 8 << 20]),
        drained: close,
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        assert_eq!(read_all(&dial(&bound).await).await.unwrap().len(), 8 << 20);
    });
    assert_eq!(script.said(), ["open", "drained", "closed"]);
}

#[test]
fn an_error_of_a_callback_ends_the_connection_after_what_was_written() {
    let script = Script {
        data: |conn, _| {
            conn.write(b"no such frame")?;
            Err(io::ErrorKind::InvalidData.into())
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"x").await.unwrap();
        assert_eq!(read_all(&client).await.unwrap(), b"no such frame");
    });
    assert_eq!(script.last(), "closed: InvalidData");
}

#[test]
fn abort_is_a_reset() {
    let script = Script {
        data: |conn, bytes| {
            conn.abort();
            Ok(bytes.len())
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"x").await.unwrap();
        let error = client.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_reset_ends_every_state() {
    fn reset() -> Script {
        Script {
            data: |_, bytes| Ok(bytes.len()),
            ..Script::new()
        }
    }
    let cases = [
        reset(),
        Script {
            open: |conn| conn.write(&[0; 8 << 20]),
            ..reset()
        },
        Script {
            open: |conn| {
                conn.close_write();
                Ok(())
            },
            ..reset()
        },
        Script {
            open: |conn| {
                conn.write(&[0; 8 << 20])?;
                conn.close_write();
                Ok(())
            },
            ..reset()
        },
        Script {
            open: |conn| {
                conn.write(&[0; 8 << 20])?;
                conn.close();
                Ok(())
            },
            ..reset()
        },
    ];
    for (at, script) in cases.into_iter().enumerate() {
        serving(script.server(), async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            until(|| !script.said().is_empty()).await;
            time::sleep(10 * MILLISECOND).await;
            client.abort().unwrap();
            until(|| script.last().starts_with("closed")).await;
        });
        let said = script.said();
        let last = said.last().unwrap();
        assert!(
            last == "closed: ConnectionReset" || last == "closed: BrokenPipe",
            "case {at}: {said:?}"
        );
    }
}

#[test]
fn a_reset_ends_a_connection_whose_peer_had_ended() {
    let script = Script {
        end: nothing,
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.close_write().unwrap();
        until(|| script.said().len() == 2).await;
        client.abort().unwrap();
        // poll(2) tells of no second edge without a read: there, the idle timeout does.
        if cfg!(not(mio_unsupported_force_poll_poll)) {
            until(|| script.said().len() == 3).await;
            assert!(
                script.said()[2].starts_with("closed: "),
                "{:?}",
                script.said()
            );
        }
    });
}

#[test]
fn a_write_error_says_how_much_had_been_written() {
    struct Writes(Arc<Mutex<Option<io::Error>>>);
    impl Protocol for Writes {
        fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
            conn.write(&[0; 8 << 20])
        }
        fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn closed(&mut self, why: io::Result<()>) {
            *self.0.lock().unwrap() = why.err();
        }
    }
    let why = Arc::new(Mutex::new(None));
    let given = why.clone();
    serving(
        Server::new(move |_| Writes(given.clone())),
        async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            client.read_exact(&mut [0; 1000]).await.unwrap();
            client.abort().unwrap();
            until(|| why.lock().unwrap().is_some()).await;
        },
    );
    let error = why.lock().unwrap().take().unwrap();
    let detail = error.op_error().expect("it names what failed");
    if detail.op == "write" {
        assert!(
            detail.written >= 1000 && detail.written < 8 << 20,
            "{}",
            detail.written
        );
    }
    assert!(detail.addr.is_some(), "{error}");
}

// ---- panics ----

#[test]
fn a_panic_kills_one_connection_which_is_told_and_the_neighbours_go_on() {
    let script = Script {
        data: |conn, bytes| {
            assert_ne!(bytes, b"die", "a test's own panic");
            conn.write(bytes)?;
            Ok(bytes.len())
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let (victim, neighbour) = (dial(&bound).await, dial(&bound).await);
        victim.write_all(b"die").await.unwrap();
        let _ = read_all(&victim).await;
        neighbour.write_all(b"live").await.unwrap();
        neighbour.read_exact(&mut [0; 4]).await.unwrap();
        assert!(script.said().contains(&"closed: Other".to_owned()));
    });
}

// ---- handles ----

/// Everybody's handle, by the thread that serves them.
#[derive(Clone, Default)]
struct Room(Rc<RefCell<Vec<ConnHandle>>>);

thread_local! { static ROOM: Room = Room::default(); }

struct Chat;

impl Protocol for Chat {
    fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
        let handle = conn.handle();
        ROOM.with(|room| room.0.borrow_mut().push(handle));
        Ok(())
    }
    fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        tell_all(&bytes.into());
        Ok(bytes.len())
    }
}

fn tell_all(news: &Rc<[u8]>) -> usize {
    let tell = |room: &Room| {
        let told = room.0.borrow();
        told.iter()
            .filter(|peer| peer.write_shared(news).is_ok())
            .count()
    };
    ROOM.with(tell)
}

#[test]
fn what_one_says_reaches_all_and_queues_only() {
    serving(Server::new(|_| Chat), async |bound: Rc<Bound<_>>| {
        let (one, other) = (dial(&bound).await, dial(&bound).await);
        until(|| ROOM.with(|room| room.0.borrow().len() == 2)).await;
        one.write_all(b"hello").await.unwrap();
        for client in [&one, &other] {
            let mut got = [0; 5];
            client.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"hello");
        }
        let handle = ROOM.with(|room| room.0.borrow()[0].clone());
        handle.write(b"x").unwrap();
        assert_eq!(handle.queued(), 1);
        one.read_exact(&mut [0]).await.unwrap();
        handle.close();
        assert_eq!(read_all(&one).await.unwrap(), b"");
        assert!(handle.is_closed());
        assert!(handle.write(b"x").unwrap_err().is_closed());
    });
}

#[test]
fn a_payload_for_a_thousand_peers_is_not_held_up_by_ten_dead_ones() {
    const PEERS: usize = 1000;
    const DEAD: usize = 10;
    ROOM.with(|room| room.0.borrow_mut().clear());
    let mut limits = Limits::default();
    limits.most_queued = 1 << 20;
    let payload: Rc<[u8]> = vec![9; 64 << 10].into();
    serving(
        Server::new(|_| Chat).limits(limits),
        async |bound: Rc<Bound<_>>| {
            let mut clients = Vec::new();
            for n in 0..PEERS {
                clients.push(dial(&bound).await);
                if n % 100 == 0 {
                    time::sleep(MILLISECOND).await;
                }
            }
            until(|| ROOM.with(|room| room.0.borrow().len() == PEERS)).await;
            let dead = clients.split_off(PEERS - DEAD);
            dead.iter()
                .for_each(|client| client.set_read_buffer(4096).unwrap());
            // The dead ones lie among the others; nobody reads from them.
            let mut buffer = vec![0; 64 << 10];
            while bound.handle().stats().live() as usize > PEERS - DEAD {
                tell_all(&payload);
                for client in &clients {
                    client.read_exact(&mut buffer).await.unwrap();
                }
            }
            drop(buffer);
            assert_eq!(tell_all(&payload), PEERS - DEAD);
            drop(dead);
        },
    );
    ROOM.with(|room| room.0.borrow_mut().clear());
    assert_eq!(Rc::strong_count(&payload), 1, "shared, and let go");
}

#[test]
fn a_task_answers_later() {
    struct Later;
    impl Protocol for Later {
        fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
            let handle = conn.handle();
            let answer = bytes.to_ascii_uppercase();
            spawn(async move {
                time::sleep(SECOND).await;
                handle.write(&answer).unwrap();
            });
            Ok(bytes.len())
        }
    }
    serving(Server::new(|_| Later), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"later").await.unwrap();
        let mut got = [0; 5];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"LATER");
    });
}

#[test]
fn std_clients_over_threads_are_served_too() {
    let _watchdog = watchdog();
    let bound = Server::new(|_| Script::new())
        .workers(2)
        .bind("127.0.0.1:0")
        .unwrap();
    let (address, handle) = (bound.local_addr(), bound.handle());
    let server = std::thread::spawn(move || bound.run());
    let mut client = StdStream::connect(address).unwrap();
    client.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    handle.stop();
    server.join().unwrap().unwrap();
}

#[test]
fn bytes_passed_on_keep_their_place_among_other_writes() {
    type Write = fn(&mut Conn, &[u8]) -> io::Result<()>;
    const CASES: [(&[u8], Write); 7] = [
        (b"bc", |conn, bytes| conn.write(&bytes[1..3])),
        (b"bca", |conn, bytes| {
            conn.write(&bytes[1..3])?;
            conn.write(&bytes[..1])
        }),
        (b"<abc>", |conn, bytes| {
            conn.write(b"<")?;
            conn.write(bytes)?;
            conn.write(b">")
        }),
        (b"abc>", |conn, bytes| {
            conn.write(bytes)?;
            conn.write(b">")
        }),
        (b"abcshared", |conn, bytes| {
            conn.write(bytes)?;
            conn.write_shared(&Rc::from(*b"shared"))
        }),
        (b"sharedabc", |conn, bytes| {
            conn.write_shared(&Rc::from(*b"shared"))?;
            conn.write(bytes)
        }),
        (b"xabc", |conn, bytes| {
            conn.write(b"")?;
            conn.write(&bytes[3..])?;
            conn.write(b"x")?;
            conn.write(bytes)
        }),
    ];
    struct Writes(usize);
    impl Protocol for Writes {
        fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
            CASES[self.0].1(conn, bytes)?;
            self.0 += 1;
            Ok(bytes.len())
        }
    }
    serving(Server::new(|_| Writes(0)), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        for (wanted, _) in CASES {
            client.write_all(b"abc").await.unwrap();
            let mut got = vec![0; wanted.len()];
            client.read_exact(&mut got).await.unwrap();
            assert_eq!(got, wanted, "{}", got.escape_ascii());
        }
    });
}
