//! Closes that must not lose the last bytes: unread input, slow peers, peers that are gone.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use netpoller::{Bound, CloseReason, Conn, ConnHandle, Limits, NetError, Protocol, Server, time};
use socket2::SockRef;

use crate::support::bytes::read_all;
use crate::support::scripted_protocol::{
    MILLISECOND, SECOND, Script, dial, nothing, serving, serving_in_real_time, until,
};

thread_local! { static HANDLE: RefCell<Option<ConnHandle>> = const { RefCell::new(None) }; }

#[test]
fn the_last_answer_arrives_although_much_of_what_the_peer_sent_is_unread() {
    // An upload that is refused: the answer, a close, and 500 KB that are not read.
    for answer in [10, 300_000] {
        let script = Script {
            data: match answer {
                10 => |conn, _| {
                    conn.write(&[7; 10])?;
                    conn.close();
                    Ok(1)
                },
                _ => |conn, _| {
                    conn.write(&[7; 300_000])?;
                    conn.close();
                    Ok(1)
                },
            },
            ..Script::new()
        };
        serving_in_real_time(script.server(), async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            // The client sends all before it reads.
            client.write_all(&[1; 500_000]).await.unwrap();
            until(|| script.last().starts_with("data")).await;
            let got = read_all(&client).await.unwrap();
            assert_eq!(got, vec![7; answer]);
            client.close().unwrap();
            until(|| script.last() == "closed").await;
        });
    }
}

#[test]
fn an_error_of_a_callback_is_answered_too_although_input_is_unread() {
    let script = Script {
        data: |conn, _| {
            conn.write(b"no such frame")?;
            Err(io::ErrorKind::InvalidData.into())
        },
        ..Script::new()
    };
    serving_in_real_time(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(&[1; 500_000]).await.unwrap();
        assert_eq!(read_all(&client).await.unwrap(), b"no such frame");
        client.close().unwrap();
        until(|| script.last() == "closed: InvalidData").await;
    });
}

#[test]
fn a_lingering_connection_ends_when_the_peer_has_acknowledged_everything() {
    // The peer reads nothing, sends nothing more and never closes.
    let script = Script {
        data: |conn, _| {
            conn.write(b"bye")?;
            conn.close();
            Ok(1)
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(&[1; 200_000]).await.unwrap();
        let start = time::now();
        until(|| script.last() == "closed").await;
        assert!(time::now() - start < 31 * SECOND);
        assert_eq!(bound.handle().stats().live(), 0);
        drop(client);
    });
}

#[test]
fn a_close_ends_in_time_however_it_came_about_and_whatever_the_peer_does() {
    type Data = fn(&mut Conn, &[u8]) -> io::Result<usize>;
    let closes: [Data; 3] = [
        |conn, bytes| {
            conn.write(&[7; 200_000])?;
            conn.close();
            Ok(bytes.len())
        },
        // The peer ends while our direction is ending.
        |conn, bytes| {
            conn.write(&[7; 200_000])?;
            conn.close_write();
            Ok(bytes.len())
        },
        |conn, _| {
            conn.write(&[7; 200_000])?;
            Err(io::ErrorKind::InvalidData.into())
        },
    ];
    for (at, data) in closes.into_iter().enumerate() {
        let script = Script {
            open: |conn| conn.with_fd(|fd| SockRef::from(&fd).set_send_buffer_size(1))?,
            data,
            ..Script::new()
        };
        serving(script.server(), async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            client.set_read_buffer(1).unwrap();
            client.write_all(b"x").await.unwrap();
            until(|| script.said().len() >= 2).await;
            client.close_write().unwrap();
            time::sleep(120 * SECOND).await;
            assert_eq!(bound.handle().stats().live(), 0, "{at}");
            drop(client);
        });
    }
}

#[test]
fn a_close_goes_on_while_the_peer_takes_something_now_and_then() {
    for idle in [None, Some(10 * SECOND)] {
        let script = Script {
            data: |conn, bytes| {
                conn.write(&[7; 8 << 20])?;
                conn.close();
                Ok(bytes.len())
            },
            ..Script::new()
        };
        let server = script.server().idle_timeout(idle);
        serving(server, async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            client.write_all(b"x").await.unwrap();
            let mut buffer = vec![0; 200_000];
            let mut all = 0;
            while let more @ 1.. = client.read(&mut buffer).await.unwrap() {
                all += more;
                time::sleep(SECOND).await;
            }
            assert_eq!(all, 8 << 20);
        });
        assert_eq!(script.last(), "closed");
    }
}

#[test]
fn what_idle_writes_arrives_although_a_heartbeat_is_due_too() {
    for interval in [SECOND, 3 * SECOND] {
        let script = Script {
            idle: |conn| conn.write(b"goodbye\n"),
            heartbeat: nothing,
            ..Script::new()
        };
        let server = script.server();
        let server = server.heartbeat(interval).idle_timeout(3 * SECOND);
        serving(server, async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            assert_eq!(read_all(&client).await.unwrap(), b"goodbye\n");
        });
        assert_eq!(script.last(), "closed: timeout");
    }
}

#[test]
fn what_waits_for_a_slow_peer_is_not_thrown_away_at_the_idle_timeout() {
    let script = Script {
        data: |conn, bytes| {
            conn.write(&[7; 8 << 20])?;
            Ok(bytes.len())
        },
        heartbeat: nothing,
        ..Script::new()
    };
    let server = script.server();
    let server = server.idle_timeout(SECOND).heartbeat(SECOND);
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"x").await.unwrap();
        // Waits for `idle`, not for a time: bytes that the kernel takes extend the timeout.
        until(|| script.last() == "idle").await;
        assert_eq!(read_all(&client).await.unwrap().len(), 8 << 20);
    });
    assert_eq!(script.said()[2..], ["idle", "closed: timeout"]);
}

// ---- a close that throws bytes away is a reset ----

#[test]
fn a_connection_over_its_limit_is_reset_and_the_error_names_the_limit_and_the_peer() {
    let script = Script {
        open: |conn| {
            HANDLE.set(Some(conn.handle()));
            Ok(())
        },
        ..Script::new()
    };
    let limits = Limits::default().with_most_queued(1 << 20);
    serving(
        script.server().limits(limits),
        async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            until(|| script.last() == "open").await;
            let handle = HANDLE.take().unwrap();
            let error = loop {
                if let Err(error) = handle.write(&[7; 1000]) {
                    break error;
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
            let text = error.to_string();
            let peer = client.local_addr().unwrap().to_string();
            assert!(
                text.contains("most_queued") && text.contains(&peer),
                "{text}"
            );
            until(|| script.last() == "closed: QuotaExceeded").await;
            let error = read_all(&client).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            let stats = bound.handle().stats();
            assert_eq!((stats.limited(), stats.failed()), (1, 0));
        },
    );
}

#[test]
fn a_stop_resets_a_peer_that_has_not_got_everything() {
    let script = Script {
        open: |conn| conn.write(&[7; 8 << 20]),
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        until(|| script.last() == "open").await;
        bound.handle().stop();
        let error = read_all(&client).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

// ---- why ----

#[derive(Clone, Default)]
struct Why(Arc<Mutex<Option<String>>>);

/// Notes the reason that `ended` is given.
struct Notes(Why);

impl Protocol for Notes {
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        match bytes {
            b"close" => conn.close(),
            b"fail" => return Err(io::ErrorKind::InvalidData.into()),
            b"need" => conn.need(usize::MAX),
            b"half" => return Ok(0),
            _ => {}
        }
        Ok(bytes.len())
    }
    fn ended(&mut self, why: CloseReason) {
        let name = format!("{why:?}");
        let name = name.split('(').next().unwrap().to_owned();
        let timeout = why.error().is_some_and(NetError::is_timeout);
        assert_eq!(
            why.into_result().is_ok(),
            ["Peer", "Asked", "Drained"].contains(&&*name)
        );
        assert_eq!(timeout, ["Idle", "TooSlow"].contains(&&*name));
        *self.0.0.lock().unwrap() = Some(name);
    }
}

#[test]
fn a_protocol_is_told_why_its_connection_ended() {
    let cases = [
        ("close", "Asked"),
        ("fail", "Error"),
        ("need", "Limit"),
        ("half", "TooSlow"),
        ("quiet", "Idle"),
        ("end", "Peer"),
        ("drain", "Drained"),
        ("stop", "Stopped"),
    ];
    for (cause, wanted) in cases {
        let why = Why::default();
        let theirs = why.clone();
        let server = Server::new(move |_| Notes(theirs.clone()))
            .idle_timeout(30 * SECOND)
            .minimum_read_rate(1000, 10 * SECOND);
        serving(server, async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            client.write_all(cause.as_bytes()).await.unwrap();
            let length = cause.len() as u64;
            until(|| bound.handle().stats().received() == length).await;
            match cause {
                "end" => client.close_write().unwrap(),
                "drain" => bound.handle().drain(600 * SECOND),
                "stop" => bound.handle().stop(),
                _ => {}
            }
            while why.0.lock().unwrap().is_none() {
                time::sleep(100 * MILLISECOND).await;
            }
            drop(client);
        });
        assert_eq!(why.0.lock().unwrap().as_deref(), Some(wanted), "{cause}");
    }
}
