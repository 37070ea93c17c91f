//! Minimum rates: which peers are dropped for being slow, and which are not.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use netpoller::{
    Addr, Bound, Conn, Limits, NetError, Protocol, Runtime, Server, TcpStream, spawn, time,
};

use crate::support::bytes::read_all;
use crate::support::schedule::virtual_runtime;
use crate::support::scripted_protocol::{
    MILLISECOND, SECOND, Script, answer_after, dial, nothing, serving, until,
};
use crate::support::stall::stall;
use crate::support::watchdog::watchdog;

/// Uses a message of a thousand bytes, and no less.
fn thousands(_: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    Ok(bytes.len() / 1000 * 1000)
}

fn script() -> Script {
    Script {
        data: thousands,
        ..Script::new()
    }
}

/// Sends a byte a second until it is dropped; how long that took.
async fn drip(client: &TcpStream) -> Duration {
    let start = time::now();
    while client.write_all(b"x").await.is_ok() {
        time::sleep(SECOND).await;
    }
    time::now() - start
}

/// What `closed` is told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Option<io::Error>>>);

impl Told {
    fn server(
        &self,
        data: fn(&mut Conn, &[u8]) -> io::Result<usize>,
    ) -> Server<impl Fn(Addr) -> Teller + Send + Sync + use<>> {
        let told = self.clone();
        Server::new(move |_| Teller(told.clone(), data))
    }

    async fn error(&self) -> io::Error {
        loop {
            if let Some(error) = self.0.lock().unwrap().take() {
                return error;
            }
            time::sleep(100 * MILLISECOND).await;
        }
    }
}

struct Teller(Told, fn(&mut Conn, &[u8]) -> io::Result<usize>);

impl Protocol for Teller {
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        self.1(conn, bytes)
    }
    fn closed(&mut self, why: io::Result<()>) {
        *self.0.0.lock().unwrap() = why.err();
    }
}

// ---- reading ----

#[test]
fn a_peer_that_sends_too_slowly_is_dropped_after_a_window_though_it_is_never_idle() {
    let told = Told::default();
    let server = told
        .server(thousands)
        .idle_timeout(2 * SECOND)
        .minimum_read_rate(10, 10 * SECOND);
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        let lasted = drip(&client).await;
        let error = told.error().await;
        assert!(
            lasted >= 10 * SECOND && lasted <= 12 * SECOND,
            "{lasted:?}, {error}"
        );
        assert!(error.is_timeout());
        assert_eq!(error.op_error().unwrap().op, "read");
        let text = error.to_string();
        assert!(
            text.contains("minimum rate not met: 9 bytes in 10 s, 100 asked")
                || text.contains("minimum rate not met: 10 bytes in 10 s, 100 asked"),
            "{text}"
        );
        let worker = bound.handle().stats().workers[0];
        assert_eq!((worker.slow, worker.idled, worker.failed), (1, 0, 0));
    });
}

#[test]
fn a_peer_that_is_slow_and_above_the_rate_stays_and_its_messages_come() {
    let script = script();
    let server = script.server().minimum_read_rate(10, 10 * SECOND);
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        for _ in 0..200 {
            client.write_all(&[7; 15]).await.unwrap();
            time::sleep(SECOND).await;
        }
        client.close().unwrap();
        until(|| script.last() == "closed").await;
    });
}

#[test]
fn between_messages_no_peer_is_judged() {
    let script = script();
    let server = script.server().minimum_read_rate(1000, SECOND);
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        for _ in 0..3 {
            // In two pieces, so that a watch begins and ends.
            client.write_all(&[7; 400]).await.unwrap();
            time::sleep(MILLISECOND).await;
            client.write_all(&[7; 600]).await.unwrap();
            time::sleep(3600 * SECOND).await;
        }
        assert_eq!(script.said().len(), 7, "{:?}", script.said());
        client.close().unwrap();
        until(|| script.last() == "closed").await;
    });
}

#[test]
fn each_message_has_a_window_of_its_own() {
    let script = script();
    let server = script.server().minimum_read_rate(100, 10 * SECOND);
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        for _ in 0..5 {
            client.write_all(&[7; 10]).await.unwrap();
            time::sleep(9 * SECOND).await;
            client.write_all(&[7; 990]).await.unwrap();
            time::sleep(SECOND / 10).await;
        }
        client.close().unwrap();
        until(|| script.last() == "closed").await;
    });
}

#[test]
fn a_protocol_that_uses_all_as_it_comes_is_left_to_the_idle_timeout() {
    let script = Script::new();
    let server = script
        .server()
        .idle_timeout(5 * SECOND)
        .minimum_read_rate(1000, SECOND);
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        for _ in 0..10 {
            client.write_all(b"x").await.unwrap();
            time::sleep(2 * SECOND).await;
        }
        assert_eq!(read_all(&client).await.unwrap(), b"xxxxxxxxxx");
    });
    assert_eq!(script.last(), "closed: timeout");
}

#[test]
fn while_backpressure_stops_the_reading_its_time_is_not_charged() {
    // Half a message is held, and eight megabytes wait that the peer does not take.
    let script = Script {
        data: |conn, bytes| {
            if conn.queued() == 0 {
                conn.write(&[0; 8 << 20])?;
            }
            Ok(bytes.len() / 1000 * 1000)
        },
        ..Script::new()
    };
    let server = script.server().minimum_read_rate(10, 10 * SECOND);
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(&[7; 500]).await.unwrap();
        time::sleep(600 * SECOND).await;
        assert_eq!(script.said(), ["open", "data 500"]);
        let mut all = vec![0; 8 << 20];
        client.read_exact(&mut all).await.unwrap();
        let start = time::now();
        assert!(client.read(&mut all).await.is_err());
        let lasted = time::now() - start;
        assert!(lasted >= 9 * SECOND && lasted < 12 * SECOND, "{lasted:?}");
    });
    assert_eq!(script.last(), "closed: timeout");
}

// ---- writing ----

#[test]
fn a_peer_that_takes_too_little_of_what_waits_is_dropped_after_a_window() {
    let told = Told::default();
    let data = |conn: &mut Conn, bytes: &[u8]| {
        conn.write(&[0; 12 << 20])?;
        Ok(bytes.len())
    };
    let server = told.server(data).minimum_write_rate(100_000, 10 * SECOND);
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"x").await.unwrap();
        let start = time::now();
        let error = told.error().await;
        let lasted = time::now() - start;
        assert!(lasted >= 10 * SECOND && lasted < 11 * SECOND, "{lasted:?}");
        assert_eq!(error.op_error().unwrap().op, "write");
        let text = error.to_string();
        assert!(text.ends_with("bytes in 10 s, 1000000 asked"), "{text}");
    });
}

#[test]
fn a_peer_that_takes_what_waits_above_the_rate_gets_it_all() {
    let script = Script {
        open: |conn| conn.write(&[0; 12 << 20]),
        ..Script::new()
    };
    let server = script.server().minimum_write_rate(50_000, 10 * SECOND);
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        let mut got = vec![0; 400_000];
        let mut left = 12 << 20;
        while left > 0 {
            let more = got.len().min(left);
            client.read_exact(&mut got[..more]).await.unwrap();
            left -= more;
            time::sleep(SECOND).await;
        }
        client.close().unwrap();
        until(|| script.last() == "closed").await;
    });
}

/// Writes much into a send buffer of which a third is free only after many windows: until then the
/// system reports no room.
fn floods() -> Script {
    Script {
        open: |conn| {
            conn.with_fd(|fd| socket2::SockRef::from(&fd).set_send_buffer_size(4 << 20))??;
            conn.write(&[0; 12 << 20])
        },
        end: nothing,
        ..Script::new()
    }
}

/// Takes 64 KiB every four seconds.
async fn trickles(client: &TcpStream) {
    client.set_read_buffer(64 << 10).unwrap();
    time::sleep(SECOND).await;
    let mut got = vec![0; 64 << 10];
    for _ in 0..40 {
        client.read_exact(&mut got).await.unwrap();
        time::sleep(4 * SECOND).await;
    }
}

#[test]
fn what_a_peer_takes_steadily_counts_before_the_system_reports_room() {
    let script = floods();
    let rated = script.server().minimum_write_rate(1000, 10 * SECOND);
    // What the peer takes is a sign of life, also while nothing is read from it: reading has
    // stopped, or the peer has ended.
    let idles = script.server().idle_timeout(10 * SECOND);
    let ended = Server::clone(&idles).limits(Limits::default().with_high_water(usize::MAX));
    for (server, last) in [(rated, "open"), (idles, "open"), (ended, "end")] {
        serving(server, async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            if last == "end" {
                client.close_write().unwrap();
            }
            trickles(&client).await;
            assert_eq!(script.last(), last);
        });
    }
}

#[test]
fn both_directions_are_judged_apart() {
    let script = Script {
        open: |conn| conn.write(&[0; 12 << 20]),
        data: thousands,
        ..Script::new()
    };
    // No high mark, so that half a message is read although much waits.
    let mut limits = Limits::default();
    limits.high_water = usize::MAX;
    let server = script.server().limits(limits);
    let reading = Server::clone(&server).minimum_read_rate(100, 10 * SECOND);
    let writing = Server::clone(&server).minimum_write_rate(100, 10 * SECOND);
    // Fast in sending, slow in taking; and the other way round.
    serving(reading, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        for _ in 0..30 {
            client.write_all(&[7; 150]).await.unwrap();
            time::sleep(SECOND).await;
        }
        assert!(!script.last().starts_with("closed"));
    });
    serving(writing, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        let reader = client.clone();
        let taken = Rc::new(Cell::new(0));
        let counted = taken.clone();
        let taking = spawn(async move {
            let mut buffer = vec![0; 300_000];
            while let Ok(got @ 1..) = reader.read(&mut buffer).await {
                counted.set(counted.get() + got);
                time::sleep(SECOND).await;
            }
        });
        for _ in 0..30 {
            client.write_all(b"x").await.unwrap();
            time::sleep(SECOND).await;
        }
        assert!(taken.get() > 1_000_000);
        taking.abort();
    });
}

// ---- stalls ----

#[test]
fn time_in_which_the_loop_was_held_up_is_not_charged() {
    // The first connection's callback holds the loop up, three times longer than the window. The
    // second's peer is in the middle of a message all the time. It is dropped only for the time
    // after that.
    const WINDOW: Duration = Duration::from_millis(400);
    struct Blocks;
    impl Protocol for Blocks {
        fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
            if bytes == b"block" {
                stall(3 * WINDOW);
                return Ok(bytes.len());
            }
            Ok(bytes.len() / 1000 * 1000)
        }
    }
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let server = Server::new(|_| Blocks).minimum_read_rate(100, WINDOW);
    let bound = server.bind("127.0.0.1:0").unwrap();
    let serving = bound.run_in(&runtime).unwrap();
    let handle = bound.handle();
    runtime.block_on(async {
        let held = TcpStream::connect(bound.local_addr()).await.unwrap();
        let blocks = TcpStream::connect(bound.local_addr()).await.unwrap();
        held.write_all(&[7; 10]).await.unwrap();
        while handle.stats().received() < 10 {
            time::sleep(MILLISECOND).await;
        }
        blocks.write_all(b"block").await.unwrap();
        while handle.stats().received() < 15 {
            time::sleep(MILLISECOND).await;
        }
        // The loop runs again after three windows, and has checked the rate.
        time::sleep(10 * MILLISECOND).await;
        assert_eq!(handle.stats().workers[0].slow, 0);
        let mut end = [0];
        assert!(held.read(&mut end).await.is_err());
        assert_eq!(handle.stats().workers[0].slow, 1);
        handle.stop();
        serving.await.unwrap().unwrap();
    });
}

#[test]
fn a_watch_leaves_no_timer_behind() {
    let script = Script {
        data: thousands,
        end: nothing,
        ..Script::new()
    };
    let server = script
        .server()
        .minimum_read_rate(1, 3600 * SECOND)
        .minimum_write_rate(1, 3600 * SECOND);
    let _watchdog = watchdog();
    let runtime = virtual_runtime();
    let bound = server.bind("127.0.0.1:0").unwrap();
    let serving = bound.run_in(&runtime).unwrap();
    runtime.block_on(async {
        let client = TcpStream::connect(bound.local_addr()).await.unwrap();
        for _ in 0..200 {
            client.write_all(&[7; 500]).await.unwrap();
            time::sleep(MILLISECOND).await;
            client.write_all(&[7; 500]).await.unwrap();
            time::sleep(MILLISECOND).await;
        }
        bound.handle().stop();
        serving.await.unwrap().unwrap();
    });
    assert!(runtime.stats().timers <= 2, "{:?}", runtime.stats());
}

#[test]
fn no_bytes_are_expected_of_a_peer_while_the_connection_is_busy() {
    // A message has ten bytes. The next has begun when the first is answered, after three seconds.
    let script = Script {
        data: |conn, bytes| {
            if bytes.len() < 10 {
                return Ok(0);
            }
            answer_after(3 * SECOND, conn, b"answer");
            Ok(10)
        },
        ..Script::new()
    };
    let server = script.server().minimum_read_rate(10, SECOND);
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"0123456789half").await.unwrap();
        let mut answer = [0; 6];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"answer");
    });
}

#[test]
fn what_comes_while_the_connection_is_busy_counts_for_the_peer() {
    // The first message keeps the connection busy for three seconds. After it, a line is a message.
    let script = Script {
        data: |conn, bytes| {
            if bytes.ends_with(b"\n") {
                conn.write(b"second")?;
                return Ok(bytes.len());
            }
            if !bytes.starts_with(b"first") {
                return Ok(0);
            }
            answer_after(3 * SECOND, conn, b"answer");
            Ok(5)
        },
        ..Script::new()
    };
    let server = script.server().minimum_read_rate(10, SECOND);
    serving(server, async |bound: Rc<Bound<_>>| {
        let client = dial(&bound).await;
        client.write_all(b"firsthalf").await.unwrap();
        time::sleep(SECOND).await;
        client.write_all(b"enough for a window").await.unwrap();
        let mut answer = [0; 6];
        client.read_exact(&mut answer).await.unwrap();
        time::sleep(1500 * MILLISECOND).await;
        client.write_all(b"\n").await.unwrap();
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"second");
    });
}
