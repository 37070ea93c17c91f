//! Bytes that a protocol has not used: what is kept, when it is offered again, and how much may be.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use netpoller::{Bound, Limits, time};

use crate::support::bytes::read_all;
use crate::support::scripted_protocol::{
    MILLISECOND, SECOND, Script, dial, nothing, serving, serving_in_real_time, until,
};
use crate::support::stall::stall;

fn offers(script: &Script) -> Vec<String> {
    let said = script.said().into_iter();
    said.filter(|line| line.starts_with("data")).collect()
}

#[test]
fn a_protocol_is_not_asked_again_before_what_it_needs_is_there() {
    // Messages of 1,000 bytes, which come byte by byte or all at once.
    let script = Script {
        data: |conn, bytes| {
            if bytes.len() < 1000 {
                conn.need(1000);
                return Ok(0);
            }
            Ok(1000)
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        for _ in 0..100 {
            client.write_all(&[7; 10]).await.unwrap();
            time::sleep(MILLISECOND).await;
        }
        assert_eq!(offers(&script), ["data 10", "data 1000"]);
        client.write_all(&[7; 2500]).await.unwrap();
        until(|| bound.handle().stats().received() == 3500).await;
        let wanted = ["data 2500", "data 1500", "data 500"];
        assert_eq!(offers(&script)[2..], wanted);
        client.close().unwrap();
        until(|| script.last() == "closed").await;
    });
}

#[test]
fn a_need_is_kept_until_the_next_offer() {
    let script = Script {
        data: |conn, bytes| {
            conn.need(100);
            Ok(bytes.len())
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        for _ in 0..10 {
            client.write_all(&[7; 30]).await.unwrap();
            time::sleep(MILLISECOND).await;
        }
        assert_eq!(offers(&script), ["data 30", "data 120", "data 120"]);
        client.close_write().unwrap();
        until(|| script.last() == "closed").await;
    });
    // What is left when the peer ends is offered however little it is.
    assert_eq!(script.said()[4..], ["data 30", "end", "closed"]);
}

#[test]
fn a_need_holds_for_the_next_offer_alone() {
    let script = Script {
        open: |conn| {
            conn.need(20);
            Ok(())
        },
        data: |conn, bytes| {
            if bytes.len() == 30 {
                conn.need(100);
            }
            Ok(bytes.len())
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        for bytes in [30, 120, 5, 6] {
            client.write_all(&[7; 120][..bytes]).await.unwrap();
            time::sleep(MILLISECOND).await;
        }
        let wanted = ["data 30", "data 120", "data 5", "data 6"];
        assert_eq!(offers(&script), wanted);
    });
}

#[test]
fn what_is_left_behind_a_used_message_is_offered_once_more_when_the_peer_ends() {
    // Each time it uses a part and needs more than the rest.
    let script = Script {
        data: |conn, bytes| {
            conn.need(20);
            Ok(bytes.len().min(4))
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(&[7; 10]).await.unwrap();
        until(|| bound.handle().stats().received() == 10).await;
        client.close_write().unwrap();
        until(|| script.last() == "closed").await;
    });
    let wanted = ["data 10", "data 6", "data 2", "end", "closed"];
    assert_eq!(script.said()[1..], wanted);
}

#[test]
fn what_came_after_the_last_offer_is_offered_before_the_end_is_told() {
    // With the rate checked between the bytes and the end, and without.
    thread_local! { static USED: Cell<usize> = const { Cell::new(0) } }
    for looks in [false, true] {
        USED.set(0);
        // After the first message it ends its direction, holds the loop up, and reads on.
        let script = Script {
            data: |conn, bytes| {
                if bytes.len() < 4 {
                    return Ok(0);
                }
                if USED.get() == 0 {
                    conn.close_write();
                    stall(Duration::from_millis(150));
                }
                USED.set(USED.get() + 4);
                Ok(4)
            },
            ..Script::new()
        };
        let server = script.server();
        let server = match looks {
            true => server.minimum_read_rate(1, 800 * MILLISECOND),
            false => server,
        };
        serving_in_real_time(server, async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            client.write_all(b"p").await.unwrap();
            until(|| script.said().len() >= 2).await;
            client.write_all(&[b'q'; 65_536]).await.unwrap();
            client.close_write().unwrap();
            until(|| script.last().starts_with("closed")).await;
        });
        assert_eq!(USED.get(), 65_536, "{looks}");
    }
}

#[test]
fn a_need_above_the_limit_ends_the_connection_at_once() {
    let script = Script {
        data: |conn, _| {
            conn.need(100_001);
            Ok(0)
        },
        ..Script::new()
    };
    let limits = Limits::default().with_most_unused(100_000);
    serving(
        script.server().limits(limits),
        async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            client.write_all(b"x").await.unwrap();
            let error = client.read(&mut [0]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            assert_eq!(bound.handle().stats().limited(), 1);
        },
    );
    assert_eq!(script.said()[2..], ["closed: QuotaExceeded"]);
}

#[test]
fn the_connection_that_keeps_most_ends_at_the_limit_over_all() {
    let script = Script {
        data: |_, _| Ok(0),
        heartbeat: nothing,
        ..Script::new()
    };
    let limits = Limits::default().with_most_unused_in_all(300_000);
    serving(
        script.server().limits(limits),
        async |bound: Rc<Bound<_>>| {
            let hog = dial(&bound).await;
            hog.write_all(&[7; 250_000]).await.unwrap();
            until(|| bound.handle().stats().received() == 250_000).await;
            let mut others = Vec::new();
            for n in 1..=10 {
                let other = dial(&bound).await;
                other.write_all(&[7; 20_000]).await.unwrap();
                until(|| bound.handle().stats().received() == 250_000 + n * 20_000).await;
                others.push(other);
            }
            // All the others together are within the limit.
            let error = hog.read(&mut [0]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            time::sleep(SECOND).await;
            let stats = bound.handle().stats();
            assert_eq!((stats.limited(), stats.live()), (1, 10));
            drop(others);
        },
    );
}

#[test]
fn of_many_that_keep_too_much_at_once_so_many_end_that_the_rest_is_within_the_limit() {
    let script = Script {
        data: |_, _| Ok(0),
        heartbeat: nothing,
        ..Script::new()
    };
    let limits = Limits::default().with_most_unused_in_all(100_000);
    serving(
        script.server().limits(limits),
        async |bound: Rc<Bound<_>>| {
            let mut clients = Vec::new();
            for _ in 0..20 {
                clients.push(dial(&bound).await);
            }
            until(|| bound.handle().stats().live() == 20).await;
            // All in one turn. The first keeps most, and each of the next less than the one before.
            let sizes = (0..20).map(|n| 60_000 - 1_000 * n);
            for (client, size) in clients.iter().zip(sizes.clone()) {
                assert_eq!(client.try_write(&vec![7; size]).unwrap(), size);
            }
            let all = sizes.clone().sum::<usize>() as u64;
            until(|| bound.handle().stats().received() == all).await;
            time::sleep(SECOND).await;
            let live = bound.handle().stats().live() as usize;
            let kept: usize = sizes.rev().take(live).sum();
            assert!(
                live > 0 && kept <= 100_000,
                "{live} connections: {kept} bytes"
            );
        },
    );
}

#[test]
fn a_protocol_that_waits_is_offered_the_rest_only_with_new_bytes() {
    // Messages of two bytes.
    let script = Script {
        data: |conn, bytes| {
            conn.wait();
            Ok(bytes.len() / 2 * 2)
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        for part in [&b"aab"[..], b"bcc", b"d", b"d"] {
            client.write_all(part).await.unwrap();
            time::sleep(MILLISECOND).await;
        }
        assert_eq!(offers(&script), ["data 3", "data 4", "data 1", "data 2"]);
        // The end does not offer again what was offered before.
        client.write_all(b"e").await.unwrap();
        client.close().unwrap();
        until(|| script.last() == "closed").await;
        assert_eq!(offers(&script)[4..], ["data 1"]);
    });
}

#[test]
fn a_wait_holds_for_one_offer_and_goes_together_with_a_need() {
    let script = Script {
        data: |conn, bytes| {
            if bytes.len() == 5 {
                conn.wait();
                conn.need(2);
            }
            Ok(1)
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        for bytes in [5, 2, 3] {
            client.write_all(&[7; 5][..bytes]).await.unwrap();
            time::sleep(MILLISECOND).await;
        }
        let wanted = [5, 6, 5, 7, 6, 5].map(|bytes| format!("data {bytes}"));
        assert_eq!(offers(&script), wanted);
    });
}

#[test]
fn a_need_holds_where_the_callback_has_used_everything_too() {
    let script = Script {
        data: |conn, bytes| {
            conn.need(5);
            Ok(bytes.len())
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        for part in [&b"a"[..], b"bc", b"def", b"ghijk"] {
            client.write_all(part).await.unwrap();
            time::sleep(MILLISECOND).await;
        }
        assert_eq!(offers(&script), ["data 1", "data 5", "data 5"]);
    });
}

#[test]
fn a_wait_holds_for_its_own_offer_alone_also_when_all_of_that_is_used() {
    let script = Script {
        // With an id, the connection keeps its `Extra`, and `waits` in it.
        open: |conn| {
            conn.id();
            Ok(())
        },
        data: |conn, bytes| match bytes {
            b"all\n" => {
                conn.wait();
                Ok(4)
            }
            // A line at a time.
            _ => Ok(bytes.iter().position(|&byte| byte == b'\n').unwrap() + 1),
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"all\n").await.unwrap();
        time::sleep(MILLISECOND).await;
        client.write_all(b"a\nb\nc\n").await.unwrap();
        time::sleep(MILLISECOND).await;
        let wanted = ["data 4", "data 6", "data 4", "data 2"];
        assert_eq!(offers(&script), wanted);
    });
}

#[test]
fn what_is_left_under_a_need_is_offered_at_the_end_although_none_of_it_was_used() {
    let script = Script {
        data: |conn, _| {
            conn.need(100);
            Ok(0)
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(&[7; 10]).await.unwrap();
        until(|| script.last() == "data 10").await;
        client.close_write().unwrap();
        read_all(&client).await.unwrap();
    });
    assert_eq!(
        script.said(),
        ["open", "data 10", "data 10", "end", "closed"]
    );
}
