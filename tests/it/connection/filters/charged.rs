//! What counts under the limits while it is in a filter.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use netpoller::{Bound, ConnId, Filter, FilterIo, Limits, ServerHandle, time};

use super::{Frames, PanicsOnBang, greeted};
use crate::support::bytes::read_all;
use crate::support::scripted_protocol::{
    MILLISECOND, Script, close, dial, nothing, serving, until,
};

#[test]
fn bytes_on_their_way_through_a_filter_count_for_a_write_by_id() {
    thread_local! {
        static ID: Cell<Option<ConnId>> = const { Cell::new(None) };
        static AGAIN: Cell<Option<(ServerHandle, ConnId)>> = const { Cell::new(None) };
    }

    /// Writes as much again by the connection's id, once, while the first bytes pass.
    struct Again;
    impl Filter for Again {
        fn incoming(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
            io.to_protocol(bytes);
            Ok(bytes.len())
        }
        fn outgoing(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
            if let Some((handle, id)) = AGAIN.take() {
                let again = handle.write(id, bytes.into());
                again.expect_err("both together are above the limit");
            }
            io.to_peer(bytes);
            Ok(bytes.len())
        }
    }
    let script = Script {
        open: |conn| {
            ID.set(Some(conn.id()));
            Ok(())
        },
        ..Script::new()
    };
    let limits = Limits::default().with_most_queued(100_000);
    let server = script.server().limits(limits).filter(|_| Again);
    serving(server, async |bound: Rc<Bound<_>>| {
        let _client = dial(&bound).await;
        until(|| ID.get().is_some()).await;
        let id = ID.get().unwrap();
        let handle = bound.handle();
        AGAIN.set(Some((handle.clone(), id)));
        handle.write(id, [7; 90_000].as_slice().into()).unwrap();
        until(|| bound.handle().stats().live() == 0).await;
        assert_eq!(bound.handle().stats().limited(), 1);
    });
}

#[test]
fn what_a_filter_holds_back_counts_as_queued() {
    let script = Script {
        open: |conn| {
            let error = (0..100)
                .find_map(|_| conn.write(&[7; 10_000]).err())
                .unwrap();
            assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
            Ok(())
        },
        end: close,
        idle: nothing,
        ..Script::new()
    };
    let limits = Limits::default()
        .with_most_queued(300_000)
        .with_most_queued_in_all(400_000);
    let server = script.server().limits(limits).filter(|_| Frames::default());
    serving(server, async |bound: Rc<Bound<_>>| {
        for _ in 0..3 {
            // The whole charge is returned when the connection ends.
            let client = greeted(&bound).await;
            let mut got = vec![0; 290_000];
            client.read_exact(&mut got).await.unwrap();
            drop(client);
            until(|| bound.handle().stats().live() == 0).await;
        }
    });
}

#[test]
fn a_panic_of_a_filter_leaves_nothing_charged_however_much_was_on_its_way() {
    let script = Script {
        data: |conn, bytes| {
            let shared: Rc<[u8]> = vec![b'!'; 100_000].into();
            match bytes[0] {
                b'm' => {
                    let handle = conn.handle();
                    handle.write_shared(&shared)?;
                    handle.write_shared(&shared)?;
                }
                b'b' => {
                    conn.handle().write_shared(&shared)?;
                    conn.write(b"!")?;
                }
                b's' => {
                    conn.write(b"!")?;
                    conn.write_shared(&shared)?;
                }
                _ => {
                    conn.write(&[b'!'; 200_000])?;
                    conn.write(&[b'!'; 100_000])?;
                }
            }
            Ok(bytes.len())
        },
        ..Script::new()
    };
    let limits = Limits::default()
        .with_most_queued(300_000)
        .with_most_queued_in_all(400_000);
    let server = script.server().limits(limits).filter(|_| PanicsOnBang);
    serving(server, async |bound: Rc<Bound<_>>| {
        for way in ["m", "b", "s", "w"] {
            for round in 0..5 {
                let client = dial(&bound).await;
                client.write_all(way.as_bytes()).await.unwrap();
                let _ = read_all(&client).await;
                until(|| bound.handle().stats().live() == 0).await;
                assert_eq!(script.last(), "closed: Other", "{way}, round {round}");
            }
        }
    });
}

/// Uses nothing.
struct Idle;

impl Filter for Idle {
    fn incoming(&mut self, _: &[u8], _: &mut FilterIo) -> io::Result<usize> {
        Ok(0)
    }
    fn outgoing(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        io.to_peer(bytes);
        Ok(bytes.len())
    }
}

#[test]
fn input_that_a_filter_leaves_counts_under_the_limit_over_all() {
    let script = Script::new();
    let limits = Limits::default()
        .with_most_unused(100_000)
        .with_most_unused_in_all(30_000);
    let server = script.server().limits(limits).filter(|_| Idle);
    serving(server, async |bound: Rc<Bound<_>>| {
        let mut clients = Vec::new();
        for _ in 0..5 {
            let client = dial(&bound).await;
            client.write_all(&[b'n'; 10_000]).await.unwrap();
            clients.push(client);
        }
        until(|| bound.handle().stats().received() == 50_000).await;
        time::sleep(MILLISECOND).await;
        let stats = bound.handle().stats();
        assert_eq!((stats.limited(), stats.live()), (2, 3));
        // All of it is returned.
        drop(clients);
        until(|| bound.handle().stats().live() == 0).await;
        let client = dial(&bound).await;
        client.write_all(&[b'n'; 30_000]).await.unwrap();
        until(|| bound.handle().stats().received() == 80_000).await;
        time::sleep(MILLISECOND).await;
        assert_eq!(bound.handle().stats().live(), 1);
    });
}

/// Leaves the last 40,000 bytes, if it is offered more than 30,000.
struct Behind;

impl Filter for Behind {
    fn incoming(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        let left = if bytes.len() > 30_000 { 40_000 } else { 0 };
        let used = bytes.len().saturating_sub(left);
        io.to_protocol(&bytes[..used]);
        Ok(used)
    }
    fn outgoing(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        io.to_peer(bytes);
        Ok(bytes.len())
    }
}

#[test]
fn what_a_filter_leaves_and_what_it_passed_on_count_together_when_room_is_made() {
    let script = Script {
        data: |_, _| Ok(0),
        ..Script::new()
    };
    let limits = Limits::default().with_most_unused_in_all(75_000);
    let server = script.server().limits(limits).filter(|_| Behind);
    serving(server, async |bound: Rc<Bound<_>>| {
        let mut clients = Vec::new();
        for (bytes, all) in [(30_000, 30_000), (30_000, 60_000), (60_000, 120_000)] {
            let client = dial(&bound).await;
            client.write_all(&vec![b'n'; bytes]).await.unwrap();
            clients.push(client);
            until(|| bound.handle().stats().received() == all).await;
        }
        time::sleep(MILLISECOND).await;
        // The last one keeps most: 20,000 bytes for its protocol, and 40,000 in its filter.
        let stats = bound.handle().stats();
        assert_eq!((stats.limited(), stats.live()), (1, 2));
    });
}
