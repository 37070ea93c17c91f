//! Writing to connections from elsewhere: to many at once, and later.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use netpoller::{
    Bound, Conn, ConnHandle, Limits, NetError, Protocol, Server, TcpStream, spawn, time, yield_now,
};
use socket2::SockRef;

use crate::support::bytes::read_all;
use crate::support::scripted_protocol::{MILLISECOND, SECOND, Script, dial, serving, until};

/// The handles of all connections, by the thread that serves them.
#[derive(Clone, Default)]
struct Room(Rc<RefCell<Vec<ConnHandle>>>);

thread_local! { static ROOM: Room = Room::default(); }

struct Chat;

impl Protocol for Chat {
    fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
        conn.with_fd(|fd| SockRef::from(&fd).set_send_buffer_size(65_536))??;
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
fn a_shared_write_reaches_all_connections_and_a_write_only_queues() {
    serving(Server::new(|_| Chat), async |bound: Rc<Bound<_>>| {
        let joined = |number| until(move || ROOM.with(|room| room.0.borrow().len() == number));
        let one = dial(&bound).await;
        joined(1).await;
        let other = dial(&bound).await;
        joined(2).await;
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
            // The dead peers read nothing.
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
    assert_eq!(
        Rc::strong_count(&payload),
        1,
        "a queue still holds the payload"
    );
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
fn what_a_callback_writes_by_its_own_handle_is_sent_before_the_end() {
    fn by_handle(conn: &mut Conn) -> io::Result<()> {
        conn.handle().write(b"good-bye")
    }
    let base = || Script {
        open: |conn| {
            HANDLE.set(Some(conn.handle()));
            Ok(())
        },
        ..Script::new()
    };
    let cases = [
        Script {
            data: |conn, bytes| {
                by_handle(conn)?;
                conn.close();
                Ok(bytes.len())
            },
            ..base()
        },
        Script {
            data: |conn, bytes| {
                by_handle(conn)?;
                conn.close_write();
                Ok(bytes.len())
            },
            ..base()
        },
        Script {
            data: |conn, _| {
                by_handle(conn)?;
                Err(io::Error::other("and an error"))
            },
            ..base()
        },
        Script {
            data: |_, bytes| Ok(bytes.len()),
            idle: by_handle,
            ..base()
        },
    ];
    for script in cases {
        let server = script.server().idle_timeout(SECOND);
        serving(server, async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            client.write_all(b"x").await.unwrap();
            assert_eq!(read_all(&client).await.unwrap(), b"good-bye");
            // The connection takes no more bytes.
            let handle = HANDLE.take().unwrap();
            assert!(handle.write(b"more").is_err());
        });
    }
}

thread_local! { static HANDLE: RefCell<Option<ConnHandle>> = const { RefCell::new(None) }; }

#[test]
fn a_write_is_refused_as_soon_as_the_connection_takes_no_more() {
    // In the very callback that closes, before the connection has run again.
    let closes: [fn(&mut Conn); 3] = [Conn::close, Conn::close_write, Conn::abort];
    for (at, close) in closes.into_iter().enumerate() {
        thread_local! { static CLOSE: RefCell<fn(&mut Conn)> = const { RefCell::new(Conn::close) } }
        CLOSE.set(close);
        let script = Script {
            open: |conn| {
                HANDLE.set(Some(conn.handle()));
                Ok(())
            },
            data: |conn, bytes| {
                let handle = HANDLE.take().unwrap();
                handle.write(b"before").unwrap();
                CLOSE.with_borrow(|close| close(conn));
                let error = handle.write(b"after").unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
                Ok(bytes.len())
            },
            ..Script::new()
        };
        serving(script.server(), async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            client.write_all(b"x").await.unwrap();
            match read_all(&client).await {
                Ok(got) => assert_eq!(got, b"before", "{at}"),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
            }
        });
    }
    // A handle that has closed refuses a write too.
    let script = Script {
        open: |conn| {
            HANDLE.set(Some(conn.handle()));
            Ok(())
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        until(|| script.last() == "open").await;
        let handle = HANDLE.take().unwrap();
        handle.write(b"before").unwrap();
        handle.close();
        handle.write(b"after").unwrap_err();
        assert_eq!(read_all(&client).await.unwrap(), b"before");
    });
}

#[test]
fn what_handles_and_callbacks_write_meets_one_limit_and_queued_counts_both() {
    const LIMIT: usize = 1 << 20;
    let script = Script {
        open: |conn| {
            HANDLE.set(Some(conn.handle()));
            Ok(())
        },
        // All that fits, half of it by the handle and half by the connection itself.
        data: |conn, bytes| {
            let handle = HANDLE.with_borrow(|handle| handle.clone()).unwrap();
            // The peer reads nothing, so the system takes only what fills its buffers.
            while conn.queued() < LIMIT / 2 {
                conn.write(&[7; 64 << 10])?;
            }
            let mut mailed = 0;
            while handle.queued() + 1000 <= LIMIT {
                handle.write(&[7; 1000])?;
                mailed += 1000;
            }
            assert_eq!(handle.queued(), conn.queued() + mailed);
            let error = conn.write(&[7; 2000]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
            Ok(bytes.len())
        },
        ..Script::new()
    };
    let limits = Limits::default().with_most_queued(LIMIT);
    serving(
        script.server().limits(limits),
        async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            client.write_all(b"x").await.unwrap();
            until(|| script.said().len() == 2).await;
            time::sleep(SECOND).await;
            // The callback handled the refusal, so the connection goes on.
            assert_eq!(script.said().len(), 2, "{:?}", script.said());
            assert!(HANDLE.take().unwrap().queued() <= LIMIT);
            drop(client);
        },
    );
}

#[test]
fn a_limit_holds_and_queued_is_right_while_more_is_written_in_each_turn() {
    const LIMIT: usize = 1 << 20;
    const PIECE: usize = 2048;
    /// What one system write may have taken since the count.
    const SLACK: usize = 64 << 10;
    let script = Script {
        open: |conn| {
            HANDLE.set(Some(conn.handle()));
            Ok(())
        },
        ..Script::new()
    };
    let limits = Limits::default().with_most_queued(LIMIT);
    serving(
        script.server().limits(limits),
        async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            until(|| script.last() == "open").await;
            let handle = HANDLE.take().unwrap();
            // The connection writes turn after turn, while more comes.
            let piece: Rc<[u8]> = [0; PIECE].into();
            let mut written = 0;
            while handle.write_shared(&piece).is_ok() {
                written += PIECE;
                if written % (LIMIT / 2) == 0 {
                    yield_now().await;
                    let waits = written - bound.handle().stats().sent() as usize;
                    assert!(waits <= LIMIT + SLACK, "{waits} bytes wait");
                    let told = handle.queued();
                    assert!(told + SLACK >= waits && told <= waits, "{told} of {waits}");
                }
            }
            drop(client);
        },
    );
}

#[test]
fn what_a_callback_writes_by_its_handle_and_itself_goes_out_in_the_order_of_its_calls() {
    let script = Script {
        data: |conn, bytes| {
            let handle = conn.handle();
            conn.write(b"1")?;
            handle.write(b"2")?;
            conn.write(b"3")?;
            conn.write_shared(&vec![b'4'; 2000].into())?;
            handle.write(b"5")?;
            handle.write_shared(&vec![b'6'; 2000].into())?;
            conn.write(b"7")?;
            handle.close();
            conn.write(b"8").expect_err("closed by its handle");
            Ok(bytes.len())
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"x").await.unwrap();
        let mut got = read_all(&client).await.unwrap();
        got.dedup();
        assert_eq!(got, b"1234567");
    });
}

#[test]
fn all_that_a_callback_writes_goes_out_at_its_end_shared_bytes_and_under_a_limit_too() {
    thread_local! {
        static CLIENT: RefCell<Option<TcpStream>> = const { RefCell::new(None) };
        static EARLY: RefCell<Vec<bool>> = const { RefCell::new(Vec::new()) };
    }
    let script = Script {
        data: |conn, bytes| {
            let body = vec![b'b'; 2000].into();
            conn.write(b"head")?;
            conn.write_shared(&body)?;
            conn.write_shared(&body)?;
            conn.write(b"tail")?;
            let arrived = |client: &TcpStream| client.try_read(&mut [0]).is_ok();
            let early = CLIENT.with_borrow(|client| client.as_ref().is_some_and(arrived));
            EARLY.with_borrow_mut(|all| all.push(early));
            Ok(bytes.len())
        },
        ..Script::new()
    };
    for limits in [
        Limits::default(),
        Limits::default().with_most_queued_in_all(1 << 20),
    ] {
        let server = script.server().limits(limits);
        serving(server, async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            CLIENT.set(Some(client.clone()));
            client.write_all(b"x").await.unwrap();
            let mut got = vec![0; 4 + 2000 + 2000 + 4];
            client.read_exact(&mut got).await.unwrap();
            assert!(got.starts_with(b"headb") && got.ends_with(b"btail"));
            CLIENT.take();
        });
    }
    assert_eq!(EARLY.take(), [false, false]);
}

#[test]
fn a_handle_that_is_made_after_the_end_of_our_direction_takes_no_bytes() {
    let script = Script {
        open: |conn| {
            conn.close_write();
            Ok(())
        },
        data: |conn, bytes| {
            let late = conn.handle().write(b"late");
            late.expect_err("it would be taken, and never sent");
            Ok(bytes.len())
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        assert_eq!(read_all(&client).await.unwrap(), b"");
        client.write_all(b"x").await.unwrap();
        until(|| script.last() == "data 1").await;
        time::sleep(MILLISECOND).await;
        assert_eq!(script.last(), "data 1", "the callback did not panic");
    });
}
