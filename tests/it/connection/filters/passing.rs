//! What comes through, and when a connection ends whose filter holds something back.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use netpoller::{Bound, ConnHandle, Drain, Filter, FilterIo, spawn, time};

use super::{Echoes, Frames, framed, greeted, unframed};
use crate::support::bytes::read_all;
use crate::support::scripted_protocol::{
    MILLISECOND, SECOND, Script, dial, serving, serving_in_real_time, until,
};
use crate::support::stall::stall;

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
        // The server may cut its frames elsewhere.
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
fn the_factory_may_filter_some_connections_and_not_others() {
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

/// Writes by a handle of its connection, drops the handle, and passes nothing on.
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

#[test]
fn a_peer_that_never_shakes_hands_is_given_up_and_bytes_for_it_are_not_sent() {
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
fn what_a_filter_sends_after_the_end_of_our_direction_is_dropped_and_input_goes_on() {
    /// Also answers each message itself.
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

/// Passes everything on. Closes in `open` if `in_open` is set, and after a zero byte.
struct Closes {
    in_open: bool,
}

impl Filter for Closes {
    fn open(&mut self, io: &mut FilterIo) -> io::Result<()> {
        if self.in_open {
            io.to_peer(b"no");
            io.close();
        }
        Ok(())
    }
    fn incoming(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        io.to_protocol(bytes);
        if bytes.ends_with(&[0]) {
            io.close();
        }
        Ok(bytes.len())
    }
    fn outgoing(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        io.to_peer(bytes);
        Ok(bytes.len())
    }
}

#[test]
fn a_filter_that_closes_when_it_opens_ends_the_connection_before_the_protocol_is_told() {
    let script = Script {
        open: |conn| conn.write(b"hello"),
        ..Script::new()
    };
    let server = script.server().filter(|_| Closes { in_open: true });
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        assert_eq!(read_all(&client).await.unwrap(), b"no");
    });
    assert_eq!(script.said(), ["closed"]);
}

#[test]
fn what_a_filter_passed_on_before_it_closes_is_offered_and_answered() {
    let script = Script::new();
    let server = script.server().filter(|_| Closes { in_open: false });
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"request\0").await.unwrap();
        assert_eq!(read_all(&client).await.unwrap(), b"request\0");
    });
    assert_eq!(script.said(), ["open", "data 8", "closed"]);
}

#[test]
fn what_a_filter_passes_on_after_the_peer_s_end_is_offered_however_much_else_is_left() {
    let script = Script {
        data: |conn, bytes| match bytes {
            [7, 7, 7, 7, 7, 7, 7, 7, 7, 7] => {
                conn.need(100);
                conn.write(&[9; 5])?;
                Ok(5)
            }
            [.., 9] => Ok(bytes.len()),
            _ => {
                conn.need(100);
                Ok(0)
            }
        },
        ..Script::new()
    };
    let server = script.server().filter(|_| Echoes);
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(&[7; 6]).await.unwrap();
        until(|| script.last() == "data 6").await;
        client.write_all(&[7; 4]).await.unwrap();
        client.close_write().unwrap();
        read_all(&client).await.unwrap();
    });
    let said = script.said();
    assert_eq!(said[2..], ["data 10", "data 5", "data 10", "end", "closed"]);
}

#[test]
fn behind_a_filter_too_the_time_of_a_callback_does_not_count_as_silence_of_the_peer() {
    const IDLE: Duration = Duration::from_millis(200);
    thread_local! { static DONE: Cell<Option<Instant>> = const { Cell::new(None) }; }
    let script = Script {
        data: |_, bytes| {
            stall(2 * IDLE);
            DONE.set(Some(Instant::now()));
            Ok(bytes.len())
        },
        ..Script::new()
    };
    let server = script.server().filter(|_| Echoes).idle_timeout(IDLE);
    serving_in_real_time(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"work").await.unwrap();
        read_all(&client).await.unwrap();
        let quiet = DONE.take().unwrap().elapsed();
        assert!(quiet >= IDLE, "{quiet:?}");
    });
    assert_eq!(script.last(), "closed: timeout");
}
