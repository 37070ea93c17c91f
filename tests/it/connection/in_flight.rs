//! A drain and what is in flight: nothing of it is thrown away, and nothing else is waited for.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use netpoller::{Bound, Conn, ConnHandle, Drain, Protocol, Server, TcpStream, spawn, time};

use crate::support::bytes::read_all;
use crate::support::scripted_protocol::{
    MILLISECOND, SECOND, Script, answer_after, dial, nothing, serving, serving_in_real_time, until,
};
use crate::support::stall::stall;

/// A limit that no test reaches.
const NO_LIMIT: Duration = Duration::from_secs(3600);

thread_local! { static HANDLE: RefCell<Option<ConnHandle>> = const { RefCell::new(None) }; }

/// Drains, and reads the rest. Also returns how long after the start of the drain the end came.
async fn drained<F>(bound: &Bound<F>, client: &TcpStream) -> (Vec<u8>, Duration) {
    let start = time::now();
    bound.handle().drain(NO_LIMIT);
    let rest = read_all(client).await.unwrap();
    (rest, time::now() - start)
}

#[test]
fn a_quiet_connection_is_closed_at_once_and_one_with_traffic_after_the_grace() {
    let script = Script::new();
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let (quiet, talks) = (dial(&bound).await, dial(&bound).await);
        for client in [&quiet, &talks] {
            client.write_all(b"x").await.unwrap();
            client.read_exact(&mut [0]).await.unwrap();
        }
        time::sleep(1500 * MILLISECOND).await;
        talks.write_all(b"x").await.unwrap();
        talks.read_exact(&mut [0]).await.unwrap();
        let (_, quiet) = drained(&bound, &quiet).await;
        assert!(quiet < 100 * MILLISECOND, "{quiet:?}");
        let (_, talks) = drained(&bound, &talks).await;
        assert!(talks <= SECOND && talks > 800 * MILLISECOND, "{talks:?}");
    });
    assert_eq!(script.last(), "closed");
}

#[test]
fn a_drain_does_not_wait_for_heartbeats() {
    let server = Script::new().server().heartbeat(300 * MILLISECOND);
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.read_exact(&mut [0; 8]).await.unwrap();
        let (rest, took) = drained(&bound, &client).await;
        assert_eq!(rest, b"");
        assert!(took < SECOND, "{took:?}");
    });
}

#[test]
fn requests_that_were_received_are_answered_however_slowly_the_peer_takes_the_answers() {
    // A request is a byte, and each answer 100 KB: most requests wait unseen behind the answers.
    let script = Script {
        data: |conn, _| {
            conn.write(&[7; 100_000])?;
            Ok(1)
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(&[b'?'; 50]).await.unwrap();
        until(|| bound.handle().stats().received() == 50).await;
        time::sleep(5 * SECOND).await;
        let (answers, _) = drained(&bound, &client).await;
        assert_eq!(answers.len(), 50 * 100_000);
    });
}

#[test]
fn half_a_request_is_waited_for_and_answered() {
    let script = Script {
        data: |conn, bytes| match bytes.len() {
            10 => {
                conn.write(b"answer")?;
                Ok(10)
            }
            _ => Ok(0),
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"half ").await.unwrap();
        time::sleep(5 * SECOND).await;
        bound.handle().drain(NO_LIMIT);
        time::sleep(5 * SECOND).await;
        client.write_all(b"whole").await.unwrap();
        assert_eq!(read_all(&client).await.unwrap(), b"answer");
    });
}

#[test]
fn a_drain_waits_for_a_busy_connection_until_it_is_no_longer_busy() {
    // After ten seconds its own task, or its handle elsewhere, says that it is no longer busy.
    let by_task = Script {
        data: |conn, bytes| {
            answer_after(10 * SECOND, conn, b"answer");
            Ok(bytes.len())
        },
        ..Script::new()
    };
    let by_handle = Script {
        data: |conn, bytes| {
            let handle = conn.handle();
            handle.set_busy(true);
            HANDLE.set(Some(handle));
            Ok(bytes.len())
        },
        ..Script::new()
    };
    for script in [by_task, by_handle] {
        serving(script.server(), async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            client.write_all(b"?").await.unwrap();
            until(|| bound.handle().stats().received() == 1).await;
            if let Some(handle) = HANDLE.take() {
                spawn(async move {
                    time::sleep(10 * SECOND).await;
                    handle.set_busy(false);
                });
            }
            let (_, took) = drained(&bound, &client).await;
            assert!(took >= 10 * SECOND && took < 12 * SECOND, "{took:?}");
        });
        assert_eq!(script.last(), "closed");
    }
}

#[test]
fn an_answer_of_a_task_is_traffic() {
    // An answer each 700 ms, four times, and no further request: less than the grace apart.
    struct Streams;
    impl Protocol for Streams {
        fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
            let handle = conn.handle();
            spawn(async move {
                for _ in 0..4 {
                    time::sleep(700 * MILLISECOND).await;
                    handle.write(b"news").unwrap();
                }
            });
            Ok(bytes.len())
        }
    }
    serving(Server::new(|_| Streams), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"?").await.unwrap();
        until(|| bound.handle().stats().received() == 1).await;
        let (news, _) = drained(&bound, &client).await;
        assert_eq!(news, b"newsnewsnewsnews");
    });
}

#[test]
fn a_download_goes_on_while_writable_is_owed() {
    /// Sends 10 MiB in pieces, the next when there is room again.
    struct Download(usize);
    impl Download {
        fn more(&mut self, conn: &mut Conn) -> io::Result<()> {
            if self.0 == 0 {
                conn.close();
                return Ok(());
            }
            self.0 -= 1;
            conn.write(&[7; 512 << 10])
        }
    }
    impl Protocol for Download {
        fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
            self.more(conn)?;
            Ok(bytes.len())
        }
        fn writable(&mut self, conn: &mut Conn) -> io::Result<()> {
            self.more(conn)
        }
    }
    serving(
        Server::new(|_| Download(20)),
        async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            client.write_all(b"x").await.unwrap();
            let mut got = vec![0; 1 << 20];
            client.read_exact(&mut got).await.unwrap();
            bound.handle().drain(NO_LIMIT);
            let mut all = got.len();
            while let Ok(more @ 1..) = client.read(&mut got).await {
                all += more;
                time::sleep(100 * MILLISECOND).await;
            }
            assert_eq!(all, 10 << 20);
        },
    );
}

#[test]
fn a_stop_ends_what_a_drain_waits_for() {
    let script = Script {
        data: |conn, bytes| {
            conn.set_busy(true);
            Ok(bytes.len())
        },
        heartbeat: nothing,
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"?").await.unwrap();
        until(|| bound.handle().stats().received() == 1).await;
        bound.handle().drain(NO_LIMIT);
        time::sleep(60 * SECOND).await;
        assert_eq!(bound.handle().stats().live(), 1);
        bound.handle().stop();
        until(|| script.last() == "closed: ConnectionAborted").await;
    });
}

#[test]
fn a_busy_connection_is_not_idle_and_its_idle_timeout_begins_when_it_is_no_longer_busy() {
    // Also if its own timeout keeps it off the fast path.
    let own: fn(&mut Conn) -> io::Result<()> = |conn| {
        conn.set_idle_timeout(2 * SECOND);
        Ok(())
    };
    for open in [nothing, own] {
        let script = Script {
            open,
            data: |conn, bytes| {
                conn.set_busy(true);
                let handle = conn.handle();
                spawn(async move {
                    time::sleep(5 * SECOND).await;
                    let _ = handle.write(b"answer");
                    handle.set_busy(false);
                });
                Ok(bytes.len())
            },
            ..Script::new()
        };
        let server = script.server().idle_timeout(2 * SECOND);
        serving(server, async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            client.write_all(b"x").await.unwrap();
            let start = time::now();
            assert_eq!(read_all(&client).await.unwrap(), b"answer");
            let took = time::now() - start;
            assert!(took >= 7 * SECOND && took < 8 * SECOND, "{took:?}");
        });
        assert_eq!(script.last(), "closed: timeout");
    }
}

// ---- the callback `draining` ----

/// A request is three bytes, and is echoed. Says good-bye, and closes at the next boundary.
fn polite() -> Script {
    Script {
        data: |conn, bytes| {
            let whole = bytes.len() / 3 * 3;
            conn.write(&bytes[..whole])?;
            Ok(whole)
        },
        draining: |conn| {
            conn.write(b"bye")?;
            Ok(Drain::AtBoundary)
        },
        ..Script::new()
    }
}

fn times_told(script: &Script) -> usize {
    script
        .said()
        .iter()
        .filter(|line| *line == "draining")
        .count()
}

#[test]
fn draining_is_called_once_for_each_connection_and_its_good_bye_arrives() {
    let script = Script {
        draining: |conn| {
            assert!(conn.is_draining());
            conn.write(b"bye")?;
            Ok(Drain::WhenQuiet)
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let (quiet, talks) = (dial(&bound).await, dial(&bound).await);
        time::sleep(2 * SECOND).await;
        talks.write_all(b"x").await.unwrap();
        talks.read_exact(&mut [0]).await.unwrap();
        let (rest, took) = drained(&bound, &quiet).await;
        assert_eq!(rest, b"bye");
        assert!(took < 100 * MILLISECOND, "{took:?}");
        // The other has had traffic, so it is still open: a request is answered, and `draining` is
        // not called again.
        talks.write_all(b"y").await.unwrap();
        assert_eq!(read_all(&talks).await.unwrap(), b"byey");
    });
    assert_eq!(times_told(&script), 2);
}

#[test]
fn at_a_boundary_traffic_is_not_waited_for_and_half_a_request_is() {
    let script = polite();
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let (whole, half) = (dial(&bound).await, dial(&bound).await);
        whole.write_all(b"123").await.unwrap();
        whole.read_exact(&mut [0; 3]).await.unwrap();
        half.write_all(b"12").await.unwrap();
        until(|| bound.handle().stats().received() == 5).await;
        let (rest, took) = drained(&bound, &whole).await;
        assert_eq!(rest, b"bye");
        assert!(took < 100 * MILLISECOND, "{took:?}");
        half.read_exact(&mut [0; 3]).await.unwrap();
        time::sleep(10 * SECOND).await;
        half.write_all(b"3").await.unwrap();
        assert_eq!(read_all(&half).await.unwrap(), b"123");
    });
}

#[test]
fn a_connection_that_a_drain_finds_half_closed_is_told_and_ends_without_an_error() {
    let script = Script {
        data: |conn, bytes| {
            conn.close_write();
            Ok(bytes.len())
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"end").await.unwrap();
        assert_eq!(read_all(&client).await.unwrap(), b"");
        bound.handle().drain(NO_LIMIT);
        until(|| script.last() == "closed").await;
    });
    assert_eq!(script.said(), ["open", "data 3", "draining", "closed"]);
}

#[test]
fn an_error_of_draining_closes_its_connection_alone() {
    let script = Script {
        draining: |_| Err(io::ErrorKind::InvalidData.into()),
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let (one, other) = (dial(&bound).await, dial(&bound).await);
        time::sleep(2 * SECOND).await;
        bound.handle().drain(NO_LIMIT);
        assert_eq!(read_all(&one).await.unwrap(), b"");
        assert_eq!(read_all(&other).await.unwrap(), b"");
    });
    assert_eq!(times_told(&script), 2);
    assert_eq!(script.last(), "closed: InvalidData");
}

#[test]
fn an_answer_of_the_timer_is_traffic() {
    let script = Script {
        data: |conn, bytes| {
            conn.set_timer(Some(time::now() + 1500 * MILLISECOND));
            Ok(bytes.len())
        },
        timer: |conn| conn.write(b"late"),
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"?").await.unwrap();
        client.read_exact(&mut [0; 4]).await.unwrap();
        let (_, took) = drained(&bound, &client).await;
        assert!(took > 800 * MILLISECOND && took <= SECOND, "{took:?}");
    });
}

#[test]
fn a_grace_without_end_lasts_until_the_limit_of_the_drain() {
    let server = Script::new().server().drain_grace(Duration::MAX);
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"x").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
        let start = time::now();
        bound.handle().drain(5 * SECOND);
        let _reset = read_all(&client).await;
        assert!(time::now() - start >= 5 * SECOND);
    });
}

#[test]
fn a_busy_connection_gets_heartbeats_in_a_drain() {
    let script = Script {
        data: |conn, bytes| {
            conn.set_busy(true);
            let handle = conn.handle();
            spawn(async move {
                time::sleep(4500 * MILLISECOND).await;
                handle.write(b"answer").unwrap();
                handle.set_busy(false);
            });
            Ok(bytes.len())
        },
        ..Script::new()
    };
    let server = script.server().heartbeat_with(SECOND, b"ping");
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"?").await.unwrap();
        until(|| bound.handle().stats().received() == 1).await;
        let (rest, _) = drained(&bound, &client).await;
        let pings = rest.strip_suffix(b"answer").unwrap();
        assert!((12..=16).contains(&pings.len()), "{pings:?}");
    });
}

#[test]
fn the_grace_counts_from_the_end_of_the_callback_that_got_the_last_bytes() {
    const GRACE: Duration = Duration::from_millis(100);
    thread_local! { static DONE: Cell<Option<Instant>> = const { Cell::new(None) }; }
    let script = Script {
        data: |_, bytes| {
            if bytes.len() < 2 {
                return Ok(0);
            }
            stall(2 * GRACE);
            DONE.set(Some(Instant::now()));
            Ok(bytes.len())
        },
        ..Script::new()
    };
    let server = script.server().drain_grace(GRACE);
    serving_in_real_time(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"a").await.unwrap();
        until(|| script.last() == "data 1").await;
        bound.handle().drain(NO_LIMIT);
        until(|| script.last() == "draining").await;
        client.write_all(b"b").await.unwrap();
        read_all(&client).await.unwrap();
        let quiet = DONE.take().unwrap().elapsed();
        assert!(quiet >= GRACE, "{quiet:?}");
    });
}
