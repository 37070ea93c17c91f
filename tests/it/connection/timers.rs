//! A connection's own timer, and its own idle timeout.

use std::rc::Rc;
use std::time::{Duration, Instant};

use netpoller::{Bound, Conn, TcpStream, spawn, time};

use crate::support::scripted_protocol::{MILLISECOND, SECOND, Script, close, dial, serving, until};

fn in_seconds(seconds: u32) -> Option<Instant> {
    Some(time::now() + seconds * SECOND)
}

/// How long until the server has closed the connection.
async fn closed_after(client: &TcpStream) -> u64 {
    let begun = time::now();
    while client.read_with(|bytes| bytes.len()).await.unwrap() > 0 {}
    (time::now() - begun).as_secs()
}

#[test]
fn a_timer_fires_once_at_its_time() {
    let script = Script {
        open: |conn| {
            conn.set_timer(in_seconds(9));
            Ok(())
        },
        timer: |conn| conn.write(b"timer"),
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let begun = time::now();
        let client = dial(&bound).await;
        let mut got = [0; 5];
        client.read_exact(&mut got).await.unwrap();
        let after = time::now() - begun;
        assert!((9 * SECOND..10 * SECOND).contains(&after), "{after:?}");
        time::sleep(100 * SECOND).await;
        assert_eq!(script.said(), ["open", "timer"]);
    });
}

#[test]
fn a_timer_that_is_set_again_is_moved_and_one_that_is_cleared_does_not_fire() {
    let script = Script {
        data: |conn, bytes| {
            match bytes {
                b"sooner" => conn.set_timer(in_seconds(1)),
                b"later" => conn.set_timer(in_seconds(60)),
                _ => conn.set_timer(None),
            }
            Ok(bytes.len())
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        for (asked, wait, fires) in [
            ("later", 59, 0),
            ("sooner", 2, 1),
            ("later", 59, 1),
            ("off", 600, 1),
        ] {
            client.write_all(asked.as_bytes()).await.unwrap();
            time::sleep(wait * SECOND).await;
            let fired = script.said().iter().filter(|line| *line == "timer").count();
            assert_eq!(fired, fires, "{asked}");
        }
    });
}

#[test]
fn a_timer_in_the_past_fires_at_once() {
    let script = Script {
        data: |conn, bytes| {
            conn.set_timer(Some(time::now() - SECOND));
            Ok(bytes.len())
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        let begun = time::now();
        client.write_all(b"x").await.unwrap();
        until(|| script.last() == "timer").await;
        assert!(time::now() - begun < SECOND);
    });
}

#[test]
fn a_timer_fires_on_time_on_a_connection_that_is_never_quiet() {
    let script = Script {
        open: |conn| {
            conn.set_timer(in_seconds(1));
            Ok(())
        },
        timer: |conn| {
            conn.set_timer(in_seconds(1));
            Ok(())
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        let end = time::now() + 10 * SECOND;
        while time::now() < end {
            client.write_all(b"x").await.unwrap();
            client.read_with(|bytes| bytes.len()).await.unwrap();
            time::sleep(10 * MILLISECOND).await;
        }
        let fired = script.said().iter().filter(|line| *line == "timer").count();
        assert!((9..=10).contains(&fired), "{fired}");
    });
}

#[test]
fn a_timer_keeps_no_connection_alive_and_does_not_outlive_a_close() {
    fn again(conn: &mut Conn) -> std::io::Result<()> {
        conn.set_timer(in_seconds(1));
        Ok(())
    }
    let script = Script {
        open: again,
        timer: again,
        ..Script::new()
    };
    let server = script.server().idle_timeout(5500 * MILLISECOND);
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        assert_eq!(closed_after(&client).await, 5);
        until(|| script.last() == "closed: timeout").await;
        let said = script.said().len();
        time::sleep(10 * SECOND).await;
        assert_eq!(script.said().len(), said);
    });
}

#[test]
fn an_error_of_the_timer_closes_the_connection() {
    let script = Script {
        open: |conn| {
            conn.set_timer(in_seconds(1));
            Ok(())
        },
        timer: |_| Err(std::io::ErrorKind::InvalidData.into()),
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        assert_eq!(closed_after(&client).await, 1);
        until(|| script.last() == "closed: InvalidData").await;
    });
}

// ---- an idle timeout of its own ----

/// A server whose clients choose their idle timeout.
fn choosing() -> Script {
    Script {
        data: |conn, bytes| {
            match bytes {
                b"short" => conn.set_idle_timeout(2 * SECOND),
                b"long" => conn.set_idle_timeout(200 * SECOND),
                b"never" => conn.set_idle_timeout(None),
                _ => {}
            }
            Ok(bytes.len())
        },
        ..Script::new()
    }
}

#[test]
fn a_connection_has_the_idle_timeout_that_it_was_given() {
    let server = choosing().server().idle_timeout(20 * SECOND);
    serving(server, async |bound: Rc<Bound<_>>| {
        for (asked, seconds) in [("short", 2), ("long", 200), ("default", 20)] {
            let client = dial(&bound).await;
            client.write_all(asked.as_bytes()).await.unwrap();
            assert_eq!(closed_after(&client).await, seconds, "{asked}");
        }
        let client = dial(&bound).await;
        client.write_all(b"never").await.unwrap();
        let quiet = time::timeout(2000 * SECOND, client.read_with(|_| ())).await;
        quiet.expect_err("it stays open");
    });
}

#[test]
fn an_idle_timeout_counts_from_the_last_sign_of_life_on_a_server_without_one() {
    serving(choosing().server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"short").await.unwrap();
        for _ in 0..10 {
            time::sleep(1500 * MILLISECOND).await;
            client.write_all(b"x").await.unwrap();
        }
        assert_eq!(closed_after(&client).await, 2);
    });
}

#[test]
fn the_idle_timeout_of_a_connection_can_be_asked_for() {
    let script = Script {
        open: |conn| {
            assert_eq!(conn.idle_timeout(), Some(20 * SECOND));
            conn.set_idle_timeout(SECOND);
            assert_eq!(conn.idle_timeout(), Some(SECOND));
            conn.set_idle_timeout(None);
            assert_eq!(conn.idle_timeout(), None);
            conn.close();
            Ok(())
        },
        ..Script::new()
    };
    serving(
        script.server().idle_timeout(20 * SECOND),
        async |bound: Rc<Bound<_>>| {
            closed_after(&dial(&bound).await).await;
        },
    );
    assert_eq!(script.last(), "closed");
}

#[test]
fn an_idle_timeout_that_is_shortened_to_a_time_already_past_ends_the_connection_at_once() {
    let script = Script {
        open: |conn| {
            conn.set_timer(in_seconds(10));
            Ok(())
        },
        timer: |conn| {
            conn.set_idle_timeout(5 * SECOND);
            Ok(())
        },
        ..Script::new()
    };
    for server in [script.server().idle_timeout(60 * SECOND), script.server()] {
        serving(server, async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            assert_eq!(closed_after(&client).await, 10);
            assert_eq!(script.last(), "closed: timeout");
        });
    }
}

#[test]
fn an_idle_timeout_of_zero_is_never_as_on_a_server() {
    let script = Script {
        open: |conn| {
            conn.set_idle_timeout(Duration::ZERO);
            assert_eq!(conn.idle_timeout(), None);
            conn.set_timer(in_seconds(100));
            Ok(())
        },
        timer: close,
        ..Script::new()
    };
    let server = script.server().idle_timeout(5 * SECOND);
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        assert_eq!(closed_after(&client).await, 100);
        assert_eq!(script.last(), "closed");
    });
}

/// How long after a byte of its client the connection's `idle` is called.
fn idle_after(script: &Script, timeout: Duration) -> Duration {
    let server = script.server().idle_timeout(timeout);
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"x").await.unwrap();
        let start = time::now();
        time::timeout(
            20 * SECOND,
            until(|| script.said().contains(&"idle".to_owned())),
        )
        .await
        .expect("it is never idle");
        let took = time::now() - start;
        // Lets the task that writes see the end.
        time::sleep(SECOND).await;
        took
    })
}

#[test]
fn what_handles_write_is_no_sign_of_life_of_a_peer_that_takes_nothing() {
    let script = Script {
        open: |conn| {
            conn.write(&[7; 8 << 20])?;
            let handle = conn.handle();
            spawn(async move {
                while handle.write(b"x").is_ok() {
                    time::sleep(300 * MILLISECOND).await;
                }
            });
            Ok(())
        },
        ..Script::new()
    };
    let took = idle_after(&script, 2 * SECOND);
    // What the system's buffers still take at the first try counts as taken.
    assert!(took >= 2 * SECOND && took < 5 * SECOND, "{took:?}");
}

#[test]
fn what_a_handle_writes_that_is_then_dropped_is_no_sign_of_life() {
    let script = Script {
        data: |conn, bytes| {
            let handle = conn.handle();
            spawn(async move {
                time::sleep(1500 * MILLISECOND).await;
                handle.write(b"news").unwrap();
            });
            Ok(bytes.len())
        },
        ..Script::new()
    };
    let took = idle_after(&script, 2 * SECOND);
    assert!(took >= 2 * SECOND && took < 3 * SECOND, "{took:?}");
}
