//! Connections run as machines: delivery and backpressure.

use std::io::{self, Read, Write};
use std::net::TcpStream as StdStream;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use netpoller::{Bound, Conn, Limits, Protocol, Server, spawn, time};
use socket2::SockRef;

use crate::support::bytes::read_all;
use crate::support::random::Random;
use crate::support::scripted_protocol::{
    MILLISECOND, SECOND, Script, dial, serving, serving_in_real_time, until,
};
use crate::support::watchdog::watchdog;

// ---- delivery ----

/// A frame is a length byte and that many bytes. Answers each with the same frame.
fn frames(conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    let Some(&length) = bytes.first() else {
        return Ok(0);
    };
    let Some(frame) = bytes.get(..1 + usize::from(length)) else {
        return Ok(0);
    };
    conn.write(frame)?;
    Ok(frame.len())
}

#[test]
fn pipelined_frames_are_answered_in_one_write() {
    let script = Script {
        data: frames,
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        let sent: Vec<u8> = (0..100u8).flat_map(|n| [2, n, n]).collect();
        client.write_all(&sent).await.unwrap();
        let first = client.read_with(|bytes| bytes.to_vec()).await.unwrap();
        assert_eq!(first, sent, "in one write, in order");
    });
}

#[test]
fn half_frames_wait_when_bytes_come_one_by_one() {
    let script = Script {
        data: frames,
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        let sent = [3, 1, 2, 3, 1, 9, 0, 2, 7, 7];
        for byte in sent {
            client.write_all(&[byte]).await.unwrap();
            time::sleep(MILLISECOND).await;
        }
        let mut got = [0; 10];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(got, sent);
        client.close().unwrap();
        until(|| script.last() == "closed").await;
    });
    let offered: Vec<_> = script
        .said()
        .into_iter()
        .filter(|line| line.starts_with("data"))
        .collect();
    assert_eq!(
        offered[..4].join(" "),
        "data 1 data 2 data 3 data 4",
        "the half frame comes again, with more"
    );
}

#[test]
fn a_protocol_that_never_consumes_is_ended_at_the_limit() {
    let script = Script {
        data: |_, _| Ok(0),
        ..Script::new()
    };
    let mut limits = Limits::default();
    limits.most_unused = 100_000;
    serving(
        script.server().limits(limits),
        async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            let _ = client.write_all(&[7; 1_000_000]).await;
            until(|| script.last().starts_with("closed")).await;
        },
    );
    assert_eq!(script.last(), "closed: QuotaExceeded");
}

#[test]
fn using_more_than_was_offered_is_an_error() {
    let script = Script {
        data: |_, bytes| Ok(bytes.len() + 1),
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"x").await.unwrap();
        assert_eq!(read_all(&client).await.unwrap(), b"");
    });
    assert_eq!(script.last(), "closed: InvalidInput");
}

#[test]
fn a_server_of_two_workers_serves_a_blocking_client() {
    let _watchdog = watchdog();
    let bound = Server::new(|_| Script::new())
        .workers(2)
        .bind("127.0.0.1:0")
        .unwrap();
    let (address, handle) = (bound.local_addr(), bound.handle());
    let server = std::thread::spawn(move || bound.run());
    let mut client = StdStream::connect(address).unwrap();
    client.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    handle.stop();
    server.join().unwrap().unwrap();
}

#[test]
fn input_written_back_keeps_its_place_among_other_writes() {
    type Write = fn(&mut Conn, &[u8]) -> io::Result<()>;
    const CASES: [(&[u8], Write); 7] = [
        (b"bc", |conn, bytes| conn.write(&bytes[1..3])),
        (b"bca", |conn, bytes| {
            conn.write(&bytes[1..3])?;
            conn.write(&bytes[..1])
        }),
        (b"<abc>", |conn, bytes| {
            conn.write(b"<")?;
            conn.write(bytes)?;
            conn.write(b">")
        }),
        (b"abc>", |conn, bytes| {
            conn.write(bytes)?;
            conn.write(b">")
        }),
        (b"abcshared", |conn, bytes| {
            conn.write(bytes)?;
            conn.write_shared(&Rc::from(*b"shared"))
        }),
        (b"sharedabc", |conn, bytes| {
            conn.write_shared(&Rc::from(*b"shared"))?;
            conn.write(bytes)
        }),
        (b"xabc", |conn, bytes| {
            conn.write(b"")?;
            conn.write(&bytes[3..])?;
            conn.write(b"x")?;
            conn.write(bytes)
        }),
    ];
    struct Writes(usize);
    impl Protocol for Writes {
        fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
            CASES[self.0].1(conn, bytes)?;
            self.0 += 1;
            Ok(bytes.len())
        }
    }
    serving(Server::new(|_| Writes(0)), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        for (wanted, _) in CASES {
            client.write_all(b"abc").await.unwrap();
            let mut got = vec![0; wanted.len()];
            client.read_exact(&mut got).await.unwrap();
            assert_eq!(got, wanted, "{}", got.escape_ascii());
        }
    });
}

// ---- backpressure ----

#[test]
fn what_is_echoed_arrives_whole_wherever_a_write_stops() {
    let script = Script {
        open: |conn| {
            conn.with_fd(|fd| socket2::SockRef::from(&fd).set_send_buffer_size(1))??;
            Ok(())
        },
        ..Script::new()
    };
    serving_in_real_time(script.server(), async |bound: Rc<Bound<_>>| {
        for chunk in [1, 7, 1000, 4093] {
            let client = dial(&bound).await;
            let length = if chunk == 1 { 50_000 } else { 300_000u32 };
            let sent: Vec<u8> = (0..length).map(|n| (n * 7 + n / 251) as u8).collect();
            let (writer, bytes) = (client.clone(), sent.clone());
            let writing = spawn(async move {
                writer.write_all(&bytes).await.unwrap();
                writer.close_write().unwrap();
            });
            let mut got: Vec<u8> = Vec::new();
            let mut buffer = vec![0; chunk];
            loop {
                match client.read(&mut buffer).await.unwrap() {
                    0 => break,
                    more => got.extend(&buffer[..more]),
                }
            }
            writing.await.unwrap();
            assert!(got == sent);
        }
    });
}

#[test]
fn a_peer_that_does_not_read_is_not_read_from_and_the_flow_resumes() {
    // At a fixed size, no system buffer grows until it takes everything, and none is so small that
    // TCP delays its window updates.
    const BUFFER: usize = 256 << 10;
    const ALL: usize = 8 << 20;
    let script = Script {
        open: |conn| {
            conn.with_fd(|fd| {
                let socket = SockRef::from(&fd);
                socket.set_recv_buffer_size(BUFFER)?;
                socket.set_send_buffer_size(BUFFER)
            })?
        },
        ..Script::new()
    };
    let mut limits = Limits::default();
    limits.high_water = 100_000;
    limits.low_water = 50_000;
    limits.most_queued = 400_000;
    serving(
        script.server().limits(limits),
        async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            client.set_read_buffer(BUFFER).unwrap();
            client.set_write_buffer(BUFFER).unwrap();
            let writer = client.clone();
            let writing = spawn(async move {
                writer.write_all(&vec![5; ALL]).await.unwrap();
                writer.close_write().unwrap();
            });
            let waiting = || {
                let stats = bound.handle().stats();
                stats.received() - stats.sent()
            };
            until(|| waiting() > 100_000).await;
            for _ in 0..100 {
                // At most one read above the high mark. Without the mark, the connection would
                // reach the limit and end.
                assert!(waiting() <= 100_000 + (64 << 10), "{}", waiting());
                time::sleep(MILLISECOND).await;
            }
            assert!(!writing.is_finished());
            assert_eq!(read_all(&client).await.unwrap().len(), ALL);
            writing.await.unwrap();
        },
    );
    assert!(script.said().iter().any(|line| line == "drained"));
    assert_eq!(script.last(), "closed");
}

#[test]
fn a_protocol_that_writes_without_end_is_refused_at_the_limit() {
    let script = Script {
        open: |conn| {
            loop {
                conn.write(&[0; 10_000])?;
            }
        },
        ..Script::new()
    };
    serving(script.server(), async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        until(|| script.said().len() == 2).await;
        drop(client);
    });
    assert_eq!(script.said(), ["open", "closed: QuotaExceeded"]);
}

#[test]
fn the_limit_of_the_server_holds_for_all_its_connections_together() {
    let script = Script {
        open: |conn| conn.write(&[0; 6 << 20]),
        ..Script::new()
    };
    let mut limits = Limits::default();
    limits.most_queued_in_all = 10 << 20;
    serving(
        script.server().limits(limits),
        async |bound: Rc<Bound<_>>| {
            let first = dial(&bound).await;
            until(|| script.said().len() == 1).await;
            time::sleep(SECOND).await;
            let mut others = Vec::new();
            for _ in 0..4 {
                others.push(dial(&bound).await);
            }
            until(|| script.said().contains(&"closed: QuotaExceeded".to_owned())).await;
            drop((first, others));
        },
    );
}

#[test]
fn all_arrives_whichever_byte_of_a_piece_a_write_stops_at() {
    // A write stops where the smallest system buffer is full. `before` bytes precede the pieces;
    // over all its values, the write stops at every byte of a piece, own and shared.
    const PIECE: usize = 13;
    thread_local! { static BEFORE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) }; }
    fn sent(before: usize) -> Vec<u8> {
        let all = (0..before + 1000 * PIECE).map(|n| (n * 7 + n / 251) as u8);
        all.collect()
    }
    let script = Script {
        open: |conn| {
            conn.with_fd(|fd| SockRef::from(&fd).set_send_buffer_size(1))??;
            let before = BEFORE.get();
            let all = sent(before);
            conn.write_shared(&Rc::from(&all[..before]))?;
            for (n, piece) in all[before..].chunks(PIECE).enumerate() {
                match n % 2 {
                    0 => conn.write_shared(&Rc::from(piece))?,
                    _ => conn.write(piece)?,
                }
            }
            conn.close();
            Ok(())
        },
        ..Script::new()
    };
    serving_in_real_time(script.server(), async |bound: Rc<Bound<_>>| {
        for before in 0..2 * PIECE {
            BEFORE.set(before);
            let client = dial(&bound).await;
            assert!(read_all(&client).await.unwrap() == sent(before), "{before}");
        }
    });
}

// ---- what is written ----

/// Answers by random choices of the ways to write, and records what must arrive.
struct Mixed {
    random: Random,
    wanted: Arc<Mutex<Vec<u8>>>,
}

impl Protocol for Mixed {
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        for _ in 0..self.random.below(4) {
            let some = self.random.below(bytes.len() as u64 + 1) as usize;
            let mine = vec![
                self.random.below(256) as u8;
                [3, 300, 300_000][self.random.below(3) as usize]
            ];
            let written = match self.random.below(12) {
                0..5 => bytes,
                5 => &bytes[..some],
                6 => &bytes[some..],
                7 => b"",
                _ => &mine,
            };
            if self.random.below(3) == 0 {
                conn.write_shared(&written.into())?;
            } else {
                conn.write(written)?;
            }
            self.wanted.lock().unwrap().extend_from_slice(written);
        }
        match self.random.below(3) {
            0 => Ok(self.random.below(bytes.len() as u64 + 1) as usize),
            _ => Ok(bytes.len()),
        }
    }
}

#[test]
fn what_a_callback_writes_in_mixed_ways_arrives_in_order() {
    let mut all = 0;
    for seed in 0..20 {
        let wanted = Arc::new(Mutex::new(Vec::new()));
        let theirs = wanted.clone();
        let server = Server::new(move |_| Mixed {
            random: Random::new(seed),
            wanted: theirs.clone(),
        });
        let mut limits = Limits::default();
        limits.most_queued = usize::MAX;
        let server = server.limits(limits);
        serving(server, async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            let sink = client.clone();
            let reading = spawn(async move { read_all(&sink).await.unwrap() });
            for round in 0..30 {
                let piece = vec![round; [1, 64, 5000][usize::from(round % 3)]];
                client.write_all(&piece).await.unwrap();
                if round % 4 != 0 {
                    time::sleep(MILLISECOND).await;
                }
            }
            client.close_write().unwrap();
            let got = reading.await.unwrap();
            assert!(got == *wanted.lock().unwrap(), "seed {seed}");
            all += got.len();
        });
    }
    assert!(all > 1 << 20, "{all}");
}
