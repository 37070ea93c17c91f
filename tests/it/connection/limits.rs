//! What connections may keep in memory: limits that hold across callbacks, and what they do not count.

use std::cell::RefCell;
use std::rc::Rc;

use netpoller::{Bound, ConnHandle, Limits, Server, time};
use socket2::SockRef;

use crate::support::bytes::read_all;
use crate::support::running::PassesAll;
use crate::support::scripted_protocol::{
    MILLISECOND, SECOND, Script, dial, serving, serving_in_real_time, until,
};

const MEGABYTE: usize = 1 << 20;

fn small_answers() -> Script {
    Script {
        data: |conn, bytes| {
            conn.write(&[7; 100_000])?;
            Ok(bytes.len())
        },
        ..Script::new()
    }
}

#[test]
fn many_small_answers_meet_the_limit_of_a_connection_as_one_large_one_does() {
    let mut limits = Limits::default();
    limits.high_water = 1 << 30;
    limits.most_queued = MEGABYTE;
    // One answers with bytes of its own, the other with what it was offered.
    for script in [small_answers(), Script::new()] {
        let server = script.server().limits(limits);
        serving_in_real_time(server, async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            while script.last() != "closed: QuotaExceeded" {
                let _ = client.try_write(&[1; 60_000]);
                time::sleep(MILLISECOND).await;
            }
        });
    }
}

#[test]
fn heartbeats_to_a_peer_that_takes_none_meet_the_limit_too() {
    let script = Script {
        heartbeat: |conn| conn.write(&[7; 100_000]),
        ..Script::new()
    };
    let mut limits = Limits::default();
    limits.most_queued = MEGABYTE;
    let server = script.server().heartbeat(SECOND).limits(limits);
    serving(server, async |bound: Rc<Bound<_>>| {
        let _client = dial(&bound).await;
        time::sleep(100 * SECOND).await;
    });
    assert_eq!(script.last(), "closed: QuotaExceeded");
}

#[test]
fn a_callback_can_write_exactly_as_much_as_a_small_limit_allows() {
    thread_local! { static TAKEN: RefCell<usize> = const { RefCell::new(0) } }
    let script = Script {
        open: |conn| {
            while conn.write(&[7; 1000]).is_ok() {
                TAKEN.with_borrow_mut(|taken| *taken += 1000);
            }
            Ok(())
        },
        ..Script::new()
    };
    let mut limits = Limits::default();
    limits.most_queued = 50_000;
    serving(
        script.server().limits(limits),
        async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            let mut all = vec![0; 50_000];
            client.read_exact(&mut all).await.unwrap();
            assert_eq!(TAKEN.take(), 50_000);
        },
    );
}

#[test]
fn many_small_answers_meet_the_limit_of_the_server_and_what_needs_no_room_is_served() {
    thread_local! { static PEERS: RefCell<Vec<ConnHandle>> = const { RefCell::new(Vec::new()) } }
    let script = Script {
        open: |conn| {
            conn.with_fd(|fd| SockRef::from(&fd).set_send_buffer_size(1))??;
            let handle = conn.handle();
            PEERS.with_borrow_mut(|peers| peers.push(handle));
            Ok(())
        },
        data: |conn, bytes| {
            match bytes {
                b"all" => conn.write(&[7; 200_000])?,
                _ => conn.write(bytes)?,
            }
            Ok(bytes.len())
        },
        ..Script::new()
    };
    let mut limits = Limits::default();
    limits.most_queued_in_all = MEGABYTE;
    let server = script.server().limits(limits);
    serving_in_real_time(Server::clone(&server), async |bound: Rc<Bound<_>>| {
        let mut clients = Vec::new();
        for n in 1..=20 {
            let client = dial(&bound).await;
            client.set_read_buffer(1).unwrap();
            client.write_all(b"all").await.unwrap();
            clients.push(client);
            until(|| {
                script
                    .said()
                    .iter()
                    .filter(|line| *line == "data 3")
                    .count()
                    == n
            })
            .await;
            let queued = PEERS.with_borrow(|peers| peers.iter().map(ConnHandle::queued).sum());
            assert!((0..=MEGABYTE).contains(&queued), "{queued}");
        }
        assert_eq!(script.last(), "closed: QuotaExceeded");
        let healthy = dial(&bound).await;
        healthy.write_all(b"hello").await.unwrap();
        healthy.read_exact(&mut [0; 5]).await.unwrap();
    });
    PEERS.take();
}

#[test]
fn bytes_that_were_not_offered_yet_do_not_count_as_unused() {
    // Requests of 100 bytes each. The first answers fill the queue, so reading and offering stop.
    let script = Script {
        data: |conn, bytes| {
            if bytes.len() < 100 {
                return Ok(0);
            }
            conn.write(&[7; 10_000])?;
            Ok(100)
        },
        ..Script::new()
    };
    let closes = Script {
        data: |conn, _| {
            conn.write(b"bye")?;
            conn.close();
            Ok(1)
        },
        ..Script::new()
    };
    let mut limits = Limits::default();
    limits.most_unused = 1000;
    let server = script.server().limits(limits);
    serving_in_real_time(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(&[1; 30_000]).await.unwrap();
        client.read_exact(&mut vec![0; 3_000_000]).await.unwrap();
    });
    let server = closes.server().limits(limits);
    serving_in_real_time(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(&[1; 30_000]).await.unwrap();
        until(|| closes.last().starts_with("closed")).await;
    });
    assert_eq!(closes.last(), "closed");
}

#[test]
fn the_write_that_meets_the_limit_of_the_server_is_the_one_that_fails() {
    thread_local! { static FAILED: RefCell<Option<usize>> = const { RefCell::new(None) } }
    let script = Script {
        open: |conn| conn.with_fd(|fd| SockRef::from(&fd).set_send_buffer_size(1))?,
        data: |conn, bytes| {
            let failed = (0..100).find(|_| conn.write(&[7; 50_000]).is_err());
            FAILED.set(failed);
            Ok(bytes.len())
        },
        ..Script::new()
    };
    let limits = Limits::default().with_most_queued_in_all(MEGABYTE);
    let server = script.server().limits(limits);
    serving_in_real_time(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.set_read_buffer(1).unwrap();
        client.write_all(b"x").await.unwrap();
        until(|| script.said().len() >= 2).await;
        // Twenty fit under the limit, and some into the system's buffers.
        let failed = FAILED.take().expect("one fails");
        assert!((20..=60).contains(&failed), "{failed}");
    });
}

#[test]
fn a_peer_that_does_not_read_harms_no_peer_that_does() {
    for is_filtered in [false, true] {
        thread_local! { static PEERS: RefCell<Vec<ConnHandle>> = const { RefCell::new(Vec::new()) } }
        let script = Script {
            open: |conn| {
                conn.with_fd(|fd| SockRef::from(&fd).set_send_buffer_size(1))??;
                let handle = conn.handle();
                PEERS.with_borrow_mut(|peers| peers.push(handle));
                Ok(())
            },
            ..Script::new()
        };
        let limits = Limits::default().with_most_queued_in_all(MEGABYTE);
        let filter = move |_: &_| is_filtered.then_some(PassesAll);
        let server = script.server().limits(limits).filter(filter);
        serving_in_real_time(server, async |bound: Rc<Bound<_>>| {
            let dead = dial(&bound).await;
            dead.set_read_buffer(1).unwrap();
            until(|| PEERS.with_borrow(Vec::len) == 1).await;
            let peers = PEERS.with_borrow(Vec::clone);
            // It uses nearly all that the server allows. Its own limit is far above.
            while peers[0].queued() < MEGABYTE - 1000 {
                // The pieces shrink towards the end, so that little room is left.
                let piece = (MEGABYTE - peers[0].queued()).min(20_000) / 2;
                let _ = peers[0].write(&vec![7; piece]);
                time::sleep(MILLISECOND / 20).await;
            }
            for n in 2..=6 {
                let healthy = dial(&bound).await;
                until(|| PEERS.with_borrow(Vec::len) == n).await;
                let handle = PEERS.with_borrow(|peers| peers[n - 1].clone());
                // There is no room for it; a write that is refused changes nothing.
                handle.write(&[9; 10_000]).unwrap_err();
                // Answers that are taken at once need no room.
                for _ in 0..3 {
                    healthy.write_all(&[8; 1000]).await.unwrap();
                    healthy.read_exact(&mut [0; 1000]).await.unwrap();
                }
                assert!(!handle.is_closed());
            }
            assert!(!peers[0].is_closed());
        });
        PEERS.take();
    }
}

#[test]
fn what_was_queued_for_peers_that_are_gone_leaves_room_for_others() {
    let script = Script {
        data: |conn, bytes| {
            conn.with_fd(|fd| SockRef::from(&fd).set_send_buffer_size(1))??;
            conn.write(&[7; MEGABYTE / 2])?;
            Ok(bytes.len())
        },
        ..Script::new()
    };
    let limits = Limits::default().with_most_queued_in_all(MEGABYTE);
    let server = script.server().limits(limits);
    serving(server, async |bound: Rc<Bound<_>>| {
        for _ in 0..5 {
            let gone = dial(&bound).await;
            gone.set_read_buffer(1).unwrap();
            gone.write_all(b"x").await.unwrap();
            gone.readable().await.unwrap();
            gone.abort().unwrap();
            until(|| script.last().starts_with("closed")).await;
        }
        let healthy = dial(&bound).await;
        healthy.write_all(b"x").await.unwrap();
        let mut answer = vec![0; MEGABYTE / 2];
        healthy.read_exact(&mut answer).await.unwrap();
    });
}

#[test]
fn a_heartbeat_that_the_limit_over_all_refuses_ends_no_connection() {
    // The answers to both clients nearly fill the limit, and the first client reads nothing: a
    // heartbeat finds no room.
    let script = Script {
        data: |conn, bytes| {
            conn.with_fd(|fd| SockRef::from(&fd).set_send_buffer_size(1))??;
            conn.write(&[7; MEGABYTE / 2 - 1])?;
            Ok(bytes.len())
        },
        ..Script::new()
    };
    let limits = Limits::default().with_most_queued_in_all(MEGABYTE);
    let server = script.server().limits(limits);
    let server = server.heartbeat_with(20 * MILLISECOND, [1; 300_000]);
    serving_in_real_time(server, async |bound: Rc<Bound<_>>| {
        let (dead, slow) = (dial(&bound).await, dial(&bound).await);
        dead.set_read_buffer(1).unwrap();
        for client in [&dead, &slow] {
            client.write_all(b"x").await.unwrap();
        }
        until(|| bound.handle().stats().heartbeats() > 6).await;
        // All of the answer comes, and then heartbeats.
        let mut answer = vec![0; MEGABYTE / 2 - 1];
        slow.read_exact(&mut answer).await.unwrap();
        assert!(answer.iter().all(|&byte| byte == 7));
    });
}

#[test]
fn a_shared_piece_counts_until_its_last_byte_has_gone() {
    // Each answer is a piece of a megabyte. Two clients take seven eighths of theirs, and stop.
    let script = Script {
        data: |conn, bytes| {
            conn.with_fd(|fd| SockRef::from(&fd).set_send_buffer_size(1))??;
            conn.write_shared(&vec![7; MEGABYTE].into())?;
            Ok(bytes.len())
        },
        ..Script::new()
    };
    let limits = Limits::default().with_most_queued_in_all(2 * MEGABYTE);
    serving_in_real_time(
        script.server().limits(limits),
        async |bound: Rc<Bound<_>>| {
            let mut clients = Vec::new();
            for _ in 0..3 {
                let client = dial(&bound).await;
                client.set_read_buffer(20_000).unwrap();
                client.write_all(b"x").await.unwrap();
                let mut most = vec![0; MEGABYTE / 8 * 7];
                let read = client.read_exact(&mut most).await;
                assert_eq!(read.is_ok(), clients.len() < 2);
                clients.push(client);
            }
        },
    );
}

#[test]
fn a_connection_is_full_from_the_high_water_mark_until_the_low_one() {
    const ANSWER: usize = 8 << 20;
    let script = Script {
        data: |conn, bytes| {
            assert!(!conn.is_full());
            conn.write(&vec![7; ANSWER])?;
            conn.set_timer(Some(time::now()));
            Ok(bytes.len())
        },
        timer: |conn| {
            assert!(conn.is_full());
            Ok(())
        },
        drained: |conn| {
            assert!(!conn.is_full());
            Ok(())
        },
        ..Script::new()
    };

    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"?").await.unwrap();
        until(|| script.last() == "timer").await;
        client.close_write().unwrap();
        assert_eq!(read_all(&client).await.unwrap().len(), ANSWER);
    });
    let said = script.said();
    assert_eq!(said[2..], ["timer", "drained", "end", "closed"]);
}
