//! How connections are closed: half and whole, by the peer, by a callback, by an error.

use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use netpoller::{Bound, Conn, NetError, Protocol, Server, time};

use crate::support::bytes::read_all;
use crate::support::scripted_protocol::{
    Log, MILLISECOND, SECOND, Script, close, dial, nothing, serving, until,
};

#[test]
fn after_the_peers_half_close_all_that_was_written_still_arrives() {
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
fn after_a_close_no_more_input_is_offered_however_much_has_arrived() {
    // A whole buffer uses up the budget, so that other machines run between the callback and the
    // close.
    let script = Script {
        data: |conn, bytes| {
            conn.write(bytes)?;
            conn.close();
            Ok(bytes.len())
        },
        ..Script::new()
    };
    let answered = serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        until(|| script.last() == "open").await;
        client.write_all(&[1; 200_000]).await.unwrap();
        let mut got = 0;
        while let Ok(more @ 1..) = client.read_with(|bytes| bytes.len()).await {
            got += more;
        }
        until(|| script.last().starts_with("closed")).await;
        got
    });
    assert_eq!(script.said(), ["open", "data 65536", "closed"]);
    assert!(answered <= 65536, "{answered}");
}

#[test]
fn a_server_that_stops_ends_a_connection_that_is_never_quiet() {
    let script = Script::new();
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        until(|| script.last() == "open").await;
        // More than a buffer: the server is stopped while this connection is queued to run.
        client.write_all(&[1; 65_536 + 100]).await.unwrap();
        bound.handle().stop();
        let mut answers = 0;
        while let Ok(1..) = client.read_with(|bytes| bytes.len()).await {
            let _ = client.write_all(b"!").await;
            answers += 1;
            assert!(answers < 1000, "it does not stop");
        }
    });
    assert_eq!(script.last(), "closed: ConnectionAborted");
}

#[test]
fn close_works_from_a_callback() {
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
    // The callbacks that run later: `idle` and `drained`.
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
fn an_abort_in_a_callback_is_a_reset_whatever_else_the_callback_does() {
    fn abort(conn: &mut Conn) -> io::Result<()> {
        conn.write(b"never sent, or in vain")?;
        conn.abort();
        Ok(())
    }
    let base = || Script {
        data: |_, bytes| Ok(bytes.len()),
        heartbeat: nothing,
        ..Script::new()
    };
    let cases = [
        Script {
            open: abort,
            ..base()
        },
        Script {
            data: |conn, _| {
                conn.abort();
                Err(io::Error::other("and an error besides"))
            },
            ..base()
        },
        Script {
            end: abort,
            ..base()
        },
        Script {
            heartbeat: abort,
            ..base()
        },
        Script {
            idle: abort,
            ..base()
        },
    ];
    for (n, script) in cases.into_iter().enumerate() {
        let server = script.server().heartbeat(SECOND).idle_timeout(2 * SECOND);
        serving(server, async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            client.write_all(b"x").await.unwrap();
            if n == 2 {
                client.close_write().unwrap();
            }
            let error = read_all(&client).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{n}");
            until(|| script.last().starts_with("closed")).await;
        });
    }
}

#[test]
fn a_reset_ends_a_connection_that_is_open_finishing_finished_or_closing() {
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
        // poll(2) reports no second edge without a read: there, only an idle timeout would end it.
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

#[test]
fn the_peers_end_is_seen_although_it_takes_none_of_our_last_bytes() {
    let script = Script {
        data: |conn, bytes| {
            conn.write(&[7; 12 << 20])?;
            conn.close_write();
            Ok(bytes.len())
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"x").await.unwrap();
        client.close_write().unwrap();
        until(|| script.last() == "end").await;
        client.abort().unwrap();
        until(|| script.last().starts_with("closed")).await;
    });
}
