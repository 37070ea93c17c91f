//! Heartbeats and idle timeouts of a server's connections, on the virtual clock.

use std::cell::RefCell;
use std::rc::Rc;

use netpoller::{Bound, Server, time};

use crate::support::bytes::read_all;
use crate::support::scripted_protocol::{MILLISECOND, SECOND, Script, dial, serving};

#[test]
fn pings_come_each_interval_and_a_peer_is_closed_five_seconds_after_its_last_byte() {
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
                // The only byte of the peer. The idle timeout starts again.
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
