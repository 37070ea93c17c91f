//! Filters between socket and protocol.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use netpoller::{
    Bound, Conn, ConnHandle, ConnId, Drain, Filter, FilterIo, Limits, Server, ServerHandle,
    TcpStream, spawn, time,
};

use crate::support::running::Echo;
use crate::support::schedule::virtual_runtime;
use crate::support::scripted::{
    MILLISECOND, SECOND, Script, close, dial, nothing, read_all, serving, until,
};

// ---- one that only counts ----

#[derive(Clone, Default)]
struct Counts(Arc<[AtomicUsize; 2]>);

impl Counts {
    fn count(&self, way: usize, bytes: &[u8]) -> io::Result<usize> {
        self.0[way].fetch_add(bytes.len(), Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn get(&self) -> (usize, usize) {
        let [incoming, outgoing] = &*self.0;
        (
            incoming.load(Ordering::Relaxed),
            outgoing.load(Ordering::Relaxed),
        )
    }
}

impl Filter for Counts {
    fn incoming(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        io.to_protocol(bytes);
        self.count(0, bytes)
    }
    fn outgoing(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        io.to_peer(bytes);
        self.count(1, bytes)
    }
}

// ---- one that changes lengths, with a handshake ----

/// A frame is a length and so many bytes, each with one added. Before the first frame the client
/// says `hello`, and the filter answers `welcome`. At the end it says `.`.
#[derive(Default)]
struct Frames {
    is_greeted: bool,
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    let frames = bytes.chunks(100).map(|chunk| {
        let body = chunk.iter().map(|byte| byte.wrapping_add(1));
        let head = [chunk.len() as u8];
        head.into_iter().chain(body).collect::<Vec<u8>>()
    });
    frames.flatten().collect()
}

fn unframed(mut bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while let Some((&length, rest)) = bytes.split_first() {
        let (body, rest) = rest.split_at(length.into());
        plain.extend(body.iter().map(|byte| byte.wrapping_sub(1)));
        bytes = rest;
    }
    plain
}

impl Filter for Frames {
    fn incoming(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        if !self.is_greeted {
            if bytes.len() < 5 {
                return Ok(0);
            }
            if !bytes.starts_with(b"hello") {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.is_greeted = true;
            io.to_peer(b"welcome");
            return Ok(5);
        }
        let length = 1 + usize::from(bytes[0]);
        let Some(frame) = bytes.get(..length) else {
            return Ok(0);
        };
        io.to_protocol(&unframed(frame));
        Ok(length)
    }
    fn outgoing(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        if !self.is_greeted {
            return Ok(0);
        }
        io.to_peer(&framed(bytes));
        Ok(bytes.len())
    }
    fn closing(&mut self, io: &mut FilterIo) -> io::Result<()> {
        io.to_peer(b".");
        Ok(())
    }
}

async fn greeted<F>(bound: &Bound<F>) -> TcpStream {
    let client = dial(bound).await;
    client.write_all(b"hello").await.unwrap();
    let mut welcome = [0; 7];
    client.read_exact(&mut welcome).await.unwrap();
    assert_eq!(&welcome, b"welcome");
    client
}

#[test]
fn a_filter_sees_all_that_comes_and_all_that_goes_whichever_way_it_is_written() {
    let counts = Counts::default();
    let script = Script {
        data: |conn, bytes| {
            conn.write(bytes)?;
            conn.write_shared(&vec![b's'; 2000].into())?;
            let handle: ConnHandle = conn.handle();
            handle.write(b"h")?;
            spawn(async move {
                time::sleep(SECOND).await;
                handle.write(b"later").unwrap();
            });
            Ok(bytes.len())
        },
        ..Script::new()
    };
    let filter = counts.clone();
    let server = script
        .server()
        .heartbeat_with(9 * SECOND, b"beat")
        .filter(move |_| filter.clone());
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"data").await.unwrap();
        let mut got = vec![0; 4 + 2000 + 1 + 5 + 4];
        client.read_exact(&mut got).await.unwrap();
        assert!(got.starts_with(b"datasss") && got.ends_with(b"shlaterbeat"));
        assert_eq!(counts.get(), (4, got.len()));
    });
}

#[test]
fn messages_pass_through_a_framing_with_a_handshake_a_byte_at_a_time() {
    let server = Script::new().server().filter(|_| Frames::default());
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        for byte in b"hello" {
            client.write_all(&[*byte]).await.unwrap();
            time::sleep(MILLISECOND).await;
        }
        client.read_exact(&mut [0; 7]).await.unwrap();
        for message in [&b"a"[..], b"longer", &[7; 100]] {
            for byte in framed(message) {
                client.write_all(&[byte]).await.unwrap();
                time::sleep(MILLISECOND).await;
            }
            let mut got = vec![0; message.len() + 1];
            client.read_exact(&mut got).await.unwrap();
            assert_eq!(unframed(&got), message);
        }
    });
}

#[test]
fn a_large_message_arrives_whole_in_both_directions() {
    let script = Script {
        data: |conn, bytes| {
            conn.write(bytes)?;
            Ok(bytes.len())
        },
        ..Script::new()
    };
    let server = script.server().filter(|_| Frames::default());
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = greeted(&bound).await;
        let message: Vec<u8> = (0..3 << 20).map(|at| (at % 251) as u8).collect();
        let sent = framed(&message);
        let writer = client.clone();
        let length = sent.len();
        let write = spawn(async move {
            writer.write_all(&sent).await.unwrap();
            writer.close_write().unwrap();
        });
        let got = read_all(&client).await.unwrap();
        write.await.unwrap();
        // The server cuts its frames where it likes.
        assert!(got.len() >= length);
        assert_eq!(got.last(), Some(&b'.'));
        assert_eq!(unframed(&got[..got.len() - 1]), message);
    });
}

#[test]
fn what_is_written_before_the_handshake_goes_out_after_it_and_a_close_waits_for_that() {
    let script = Script {
        open: |conn| {
            conn.write(b"greeting")?;
            conn.close();
            Ok(())
        },
        ..Script::new()
    };
    let server = script.server().filter(|_| Frames::default());
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        time::sleep(SECOND).await;
        client.write_all(b"hello").await.unwrap();
        let got = read_all(&client).await.unwrap();
        let rest = got
            .strip_prefix(b"welcome")
            .unwrap()
            .strip_suffix(b".")
            .unwrap();
        assert_eq!(unframed(rest), b"greeting");
        until(|| script.last() == "closed").await;
    });
}

#[test]
fn a_peer_that_never_shakes_hands_is_given_up_and_its_bytes_are_not_sent() {
    let script = Script {
        open: |conn| {
            conn.write(b"secret")?;
            conn.close();
            Ok(())
        },
        ..Script::new()
    };
    let server = script
        .server()
        .idle_timeout(5 * SECOND)
        .filter(|_| Frames::default());
    serving(server, async |bound: Rc<Bound<_>>| {
        // One is silent, the other ends.
        let (silent, ends) = (dial(&bound).await, dial(&bound).await);
        ends.close_write().unwrap();
        for client in [silent, ends] {
            read_all(&client).await.expect_err("a reset");
        }
        until(|| bound.handle().stats().live() == 0).await;
    });
}

#[test]
fn a_drain_waits_for_half_a_frame_and_its_good_bye_goes_through_the_filter() {
    let script = Script {
        draining: |conn| {
            conn.write(b"bye")?;
            Ok(Drain::AtBoundary)
        },
        ..Script::new()
    };
    let server = script.server().filter(|_| Frames::default());
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = greeted(&bound).await;
        let frame = framed(b"request");
        client.write_all(&frame[..3]).await.unwrap();
        time::sleep(5 * SECOND).await;
        bound.handle().drain(Duration::from_secs(3600));
        time::sleep(5 * SECOND).await;
        client.write_all(&frame[3..]).await.unwrap();
        let got = read_all(&client).await.unwrap();
        assert_eq!(unframed(got.strip_suffix(b".").unwrap()), b"byerequest");
    });
}

#[test]
fn an_option_of_a_filter_is_one_for_some_connections_and_none_for_others() {
    let made = AtomicUsize::new(0);
    let server = Script::new().server().filter(move |_| {
        let number = made.fetch_add(1, Ordering::Relaxed);
        number.is_multiple_of(2).then(Frames::default)
    });
    serving(server, async |bound: Rc<Bound<_>>| {
        for wanted in [&b"welcome"[..], b"hello", b"welcome"] {
            let client = dial(&bound).await;
            client.write_all(b"hello").await.unwrap();
            let mut got = vec![0; wanted.len()];
            client.read_exact(&mut got).await.unwrap();
            assert_eq!(got, wanted);
        }
    });
}

thread_local! { static HANDLE: Cell<Option<ConnHandle>> = const { Cell::new(None) } }

/// Writes by a handle of its connection, which it lets go then, and passes nothing on.
struct Answers;

impl Filter for Answers {
    fn incoming(&mut self, bytes: &[u8], _: &mut FilterIo) -> io::Result<usize> {
        HANDLE.take().map(|handle| handle.write(b"by handle"));
        Ok(bytes.len())
    }
    fn outgoing(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        io.to_peer(bytes);
        Ok(bytes.len())
    }
}

#[test]
fn what_the_last_handle_has_written_in_a_filter_goes_out() {
    let script = Script {
        open: |conn| {
            HANDLE.set(Some(conn.handle()));
            Ok(())
        },
        ..Script::new()
    };
    let server = script.server().filter(|_| Answers);
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"x").await.unwrap();
        let mut got = [0; 9];
        let read = time::timeout(SECOND, client.read_exact(&mut got)).await;
        read.expect("nothing comes").unwrap();
        assert_eq!(&got, b"by handle");
    });
}

// ---- filters that fail ----

/// Fails as the first byte says.
struct Bad;

impl Filter for Bad {
    fn open(&mut self, io: &mut FilterIo) -> io::Result<()> {
        io.to_peer(b"open");
        Ok(())
    }
    fn incoming(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        match bytes[0] {
            b'e' => {
                io.to_peer(b" alert");
                Err(io::ErrorKind::InvalidData.into())
            }
            b'p' => panic!("a test's filter panics"),
            b'm' => Ok(bytes.len() + 1),
            b'c' => {
                io.close();
                Ok(bytes.len())
            }
            b'b' => {
                // A bomb.
                (0..1000).for_each(|_| io.to_protocol(&[7; 10_000]));
                Ok(bytes.len())
            }
            b'B' => {
                (0..1000).for_each(|_| io.to_peer(&[7; 10_000]));
                Ok(bytes.len())
            }
            b'n' => Ok(0),
            _ => {
                io.to_protocol(bytes);
                Ok(bytes.len())
            }
        }
    }
    fn outgoing(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        if bytes == b"w" {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        io.to_peer(bytes);
        Ok(bytes.len())
    }
}

fn bad(script: &Script) -> Server<impl Fn(netpoller::Addr) -> Script + Send + Sync + use<>> {
    let limits = Limits::default()
        .with_most_unused(10_000)
        .with_most_queued(1 << 20)
        .with_most_queued_in_all(2 << 20);
    script.server().limits(limits).filter(|_| Bad)
}

/// What a client gets that sends this, and what the protocol hears at the end; and that a neighbour
/// goes on, and nothing stays charged.
fn meets(sent: &'static [u8]) -> (io::Result<Vec<u8>>, String) {
    let script = Script::new();
    let got = serving(bad(&script), async |bound: Rc<Bound<_>>| {
        let neighbour = dial(&bound).await;
        neighbour.read_exact(&mut [0; 4]).await.unwrap();
        let client = dial(&bound).await;
        client.write_all(sent).await.unwrap();
        let got = read_all(&client).await;
        until(|| script.last().starts_with("closed")).await;
        neighbour.write_all(b"1 for all").await.unwrap();
        neighbour.read_exact(&mut [0; 9]).await.unwrap();
        got
    });
    (
        got,
        script
            .said()
            .into_iter()
            .find(|line| line.starts_with("closed"))
            .unwrap(),
    )
}

#[test]
fn a_filter_that_fails_closes_its_own_connection_alone_once_its_last_bytes_are_sent() {
    let (got, closed) = meets(b"e");
    assert_eq!(
        (got.unwrap(), &*closed),
        (b"open alert".to_vec(), "closed: InvalidData")
    );
    let (got, closed) = meets(b"w");
    assert_eq!(
        (got.unwrap(), &*closed),
        (b"open".to_vec(), "closed: InvalidInput")
    );
    let (got, closed) = meets(b"m");
    assert_eq!(
        (got.unwrap(), &*closed),
        (b"open".to_vec(), "closed: InvalidInput")
    );
}

#[test]
fn a_filter_that_panics_ends_its_own_connection_alone() {
    let (_, closed) = meets(b"p");
    assert_eq!(closed, "closed: Other");
}

#[test]
fn a_filter_may_ask_for_a_close() {
    let (got, closed) = meets(b"c");
    assert_eq!((got.unwrap(), &*closed), (b"open".to_vec(), "closed"));
}

#[test]
fn a_filter_that_never_uses_its_input_ends_by_the_limit() {
    static MANY: [u8; 20_000] = [b'n'; 20_000];
    let (got, closed) = meets(&MANY);
    got.expect_err("a reset");
    assert_eq!(closed, "closed: QuotaExceeded");
}

#[test]
fn a_filter_that_makes_much_of_little_ends_by_the_limits() {
    for sent in [b"b", b"B"] {
        let (_, closed) = meets(sent);
        assert_eq!(closed, "closed: QuotaExceeded");
    }
}

/// What the protocol writes comes back to it as input.
struct Echoes;

impl Filter for Echoes {
    fn incoming(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        io.to_protocol(bytes);
        Ok(bytes.len())
    }
    fn outgoing(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        io.to_protocol(bytes);
        Ok(bytes.len())
    }
}

#[test]
fn a_filter_that_gives_a_protocol_its_own_answers_without_end_holds_up_no_other_connection() {
    let made = AtomicUsize::new(0);
    let first = move || made.fetch_add(1, Ordering::Relaxed) == 0;
    let server = Server::new(|_| Echo).filter(move |_| first().then_some(Echoes));
    serving(server, async |bound: Rc<Bound<_>>| {
        let (endless, neighbour) = (dial(&bound).await, dial(&bound).await);
        endless.write_all(b"x").await.unwrap();
        for _ in 0..3 {
            neighbour.write_all(b"hello").await.unwrap();
            neighbour.read_exact(&mut [0; 5]).await.unwrap();
        }
    });
}

/// A server whose filter refuses the first client serves the second.
#[test]
fn a_factory_of_filters_that_panics_costs_its_connection_alone() {
    let first = AtomicUsize::new(0);
    let server = Script::new().server().filter(move |_| {
        assert!(
            first.fetch_add(1, Ordering::Relaxed) > 0,
            "the first is refused"
        );
        Counts::default()
    });
    serving(server, async |bound: Rc<Bound<_>>| {
        let (refused, served) = (dial(&bound).await, dial(&bound).await);
        let _ = read_all(&refused).await;
        served.write_all(b"x").await.unwrap();
        served.read_exact(&mut [0]).await.unwrap();
        assert_eq!(bound.handle().stats().failed(), 1);
    });
}

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
            // All of the quota comes back when the connection ends.
            let client = greeted(&bound).await;
            let mut got = vec![0; 290_000];
            client.read_exact(&mut got).await.unwrap();
            drop(client);
            until(|| bound.handle().stats().live() == 0).await;
        }
    });
}

/// Panics at a `!` on its way out.
struct Bang;

impl Filter for Bang {
    fn incoming(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        io.to_protocol(bytes);
        Ok(bytes.len())
    }
    fn outgoing(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        assert_ne!(bytes[0], b'!', "a test's filter panics");
        io.to_peer(bytes);
        Ok(bytes.len())
    }
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
    let server = script.server().limits(limits).filter(|_| Bang);
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

#[test]
fn an_answer_that_is_lost_when_a_filter_panics_ends_with_a_reset() {
    type Data = fn(&mut Conn, &[u8]) -> io::Result<usize>;
    let ways: [Data; 2] = [
        |conn, bytes| {
            conn.write(b"!half")?;
            Ok(bytes.len())
        },
        |conn, bytes| {
            conn.handle().write(b"!half")?;
            Ok(bytes.len())
        },
    ];
    for data in ways {
        let script = Script {
            open: |conn| conn.write(b"head"),
            data,
            ..Script::new()
        };
        serving(
            script.server().filter(|_| Bang),
            async |bound: Rc<Bound<_>>| {
                let client = dial(&bound).await;
                client.read_exact(&mut [0; 4]).await.unwrap();
                client.write_all(b"x").await.unwrap();
                let error = read_all(&client).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            },
        );
        assert_eq!(script.last(), "closed: Other");
    }
}

#[test]
fn input_that_a_filter_leaves_counts_under_the_limit_over_all() {
    let script = Script::new();
    let limits = Limits::default()
        .with_most_unused(100_000)
        .with_most_unused_in_all(30_000);
    let server = script.server().limits(limits).filter(|_| Bad);
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
        // It all comes back.
        drop(clients);
        until(|| bound.handle().stats().live() == 0).await;
        let client = dial(&bound).await;
        client.write_all(&[b'n'; 30_000]).await.unwrap();
        until(|| bound.handle().stats().received() == 80_000).await;
        time::sleep(MILLISECOND).await;
        assert_eq!(bound.handle().stats().live(), 1);
    });
}

#[test]
fn a_peer_that_only_talks_does_not_keep_a_closed_connection_that_holds_output_back() {
    let script = Script {
        open: |conn| {
            conn.write(b"after the handshake")?;
            conn.close();
            Ok(())
        },
        ..Script::new()
    };
    /// A handshake that never ends, though it uses its input.
    struct Endless;
    impl Filter for Endless {
        fn incoming(&mut self, bytes: &[u8], _: &mut FilterIo) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn outgoing(&mut self, _: &[u8], _: &mut FilterIo) -> io::Result<usize> {
            Ok(0)
        }
    }
    serving(
        script.server().filter(|_| Endless),
        async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            for _ in 0..100 {
                if client.write_all(b".").await.is_err() {
                    break;
                }
                time::sleep(SECOND).await;
            }
            assert_eq!(bound.handle().stats().live(), 0);
        },
    );
}

#[test]
fn a_peer_that_ends_before_the_handshake_is_closed_at_once() {
    let script = Script {
        open: |conn| conn.write(b"after the handshake"),
        ..Script::new()
    };
    let server = script.server().filter(|_| Frames::default());
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.close_write().unwrap();
        let begun = time::now();
        until(|| bound.handle().stats().live() == 0 && bound.handle().stats().accepted() == 1)
            .await;
        let took = time::now() - begun;
        assert!(took < SECOND, "{took:?}");
    });
}

#[test]
fn what_a_filter_says_after_its_last_bytes_breaks_nothing() {
    /// Answers each message itself too.
    struct Answers;
    impl Filter for Answers {
        fn incoming(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
            io.to_peer(b"a");
            io.to_protocol(bytes);
            Ok(bytes.len())
        }
        fn outgoing(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
            io.to_peer(bytes);
            Ok(bytes.len())
        }
    }
    let script = Script {
        open: |conn| {
            conn.close_write();
            Ok(())
        },
        data: |_, bytes| Ok(bytes.len()),
        ..Script::new()
    };
    let server = script.server().filter(|_| Answers);
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        assert_eq!(read_all(&client).await.unwrap(), b"");
        for _ in 0..3 {
            client.write_all(b"more").await.unwrap();
            time::sleep(MILLISECOND).await;
        }
        client.close_write().unwrap();
        until(|| script.last().starts_with("closed")).await;
    });
    let wanted = ["open", "data 4", "data 4", "data 4", "end", "closed"];
    assert_eq!(script.said(), wanted);
}

#[test]
fn a_protocol_is_told_of_the_end_although_the_destructor_of_its_filter_panics() {
    struct Falls;
    impl Filter for Falls {
        fn incoming(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
            io.to_protocol(bytes);
            Ok(bytes.len())
        }
        fn outgoing(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
            io.to_peer(bytes);
            Ok(bytes.len())
        }
    }
    impl Drop for Falls {
        fn drop(&mut self) {
            panic!("a test's filter panics");
        }
    }
    let script = Script::new();
    let server = script.server().filter(|_| Falls);
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.close_write().unwrap();
        assert_eq!(read_all(&client).await.unwrap(), b"");
        until(|| bound.handle().stats().live() == 0).await;
    });
    assert_eq!(script.said(), ["open", "end", "closed"]);
}

#[test]
fn at_the_end_of_its_runtime_no_filter_runs_and_the_protocol_is_told() {
    struct Falls;
    impl Filter for Falls {
        fn incoming(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
            io.to_protocol(bytes);
            Ok(bytes.len())
        }
        fn outgoing(&mut self, _: &[u8], _: &mut FilterIo) -> io::Result<usize> {
            panic!("a test's filter panics");
        }
    }
    let script = Script {
        open: |conn| {
            HANDLE.set(Some(conn.handle()));
            Ok(())
        },
        ..Script::new()
    };
    let limits = Limits::default().with_most_queued_in_all(1000);
    let server = script.server().limits(limits).filter(|_| Falls);
    let runtime = virtual_runtime();
    let bound = server.bind("127.0.0.1:0").unwrap();
    let _running = bound.run_in(&runtime).unwrap();
    let handle = runtime.block_on(async {
        let _client = dial(&bound).await;
        until(|| script.said() == ["open"]).await;
        HANDLE.take().unwrap()
    });
    // The connection does not run any more.
    handle.write(b"lost").unwrap();
    drop(runtime);
    assert_eq!(script.said(), ["open", "closed: Other"]);
    assert!(handle.is_closed());
}
