//! Filters that fail, panic, or never come to an end.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use netpoller::{Bound, Conn, ConnHandle, Filter, FilterIo, Limits, Server};

use super::{Echoes, PanicsOnBang};
use crate::support::bytes::read_all;
use crate::support::running::Echo;
use crate::support::schedule::virtual_runtime;
use crate::support::scripted_protocol::{Script, dial, serving, until};

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

/// Sends this as a client. Returns what comes back, and what `closed` is told. Another connection
/// must go on.
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

/// Makes a gigabyte of one byte, and notes how much of it is kept.
struct Expands(&'static AtomicUsize);

impl Filter for Expands {
    fn incoming(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        for _ in 0..16_384 {
            match bytes[0] {
                b'b' => io.to_protocol(&[7; 1 << 16]),
                _ => io.to_peer(&[7; 1 << 16]),
            }
        }
        // `Debug` prints `7, ` for each byte that `io` holds.
        self.0.store(format!("{io:?}").len(), Ordering::Relaxed);
        Ok(bytes.len())
    }
    fn outgoing(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        io.to_peer(bytes);
        Ok(bytes.len())
    }
}

#[test]
fn a_filter_that_makes_much_of_little_gets_no_more_memory_than_the_limits_allow() {
    static KEPT: AtomicUsize = AtomicUsize::new(0);
    for sent in [b"b", b"B"] {
        let script = Script::new();
        let limits = Limits::default()
            .with_most_unused(100_000)
            .with_most_queued(100_000);
        let server = script.server().limits(limits).filter(|_| Expands(&KEPT));
        serving(server, async |bound: Rc<Bound<_>>| {
            let client = dial(&bound).await;
            client.write_all(sent).await.unwrap();
            read_all(&client).await.expect_err("a reset");
            until(|| bound.handle().stats().live() == 0).await;
            assert_eq!(bound.handle().stats().limited(), 1);
        });
        let kept = KEPT.swap(0, Ordering::Relaxed);
        assert!((1..1_000_000).contains(&kept), "{kept}");
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

#[test]
fn a_filter_factory_that_panics_ends_that_connection_alone() {
    let first = AtomicUsize::new(0);
    let server = Script::new().server().filter(move |_| {
        assert!(
            first.fetch_add(1, Ordering::Relaxed) > 0,
            "the first is refused"
        );
        PanicsOnBang
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
            script.server().filter(|_| PanicsOnBang),
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
fn a_protocol_is_told_of_the_end_although_the_destructor_of_its_filter_panics() {
    struct Panics;
    impl Filter for Panics {
        fn incoming(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
            io.to_protocol(bytes);
            Ok(bytes.len())
        }
        fn outgoing(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
            io.to_peer(bytes);
            Ok(bytes.len())
        }
    }
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("a test's filter panics");
        }
    }
    let script = Script::new();
    let server = script.server().filter(|_| Panics);
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
    thread_local! { static HANDLE: Cell<Option<ConnHandle>> = const { Cell::new(None) } }
    struct Panics;
    impl Filter for Panics {
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
    let server = script.server().limits(limits).filter(|_| Panics);
    let runtime = virtual_runtime();
    let bound = server.bind("127.0.0.1:0").unwrap();
    let _running = bound.run_in(&runtime).unwrap();
    let handle = runtime.block_on(async {
        let _client = dial(&bound).await;
        until(|| script.said() == ["open"]).await;
        HANDLE.take().unwrap()
    });
    // The connection does not run again.
    handle.write(b"lost").unwrap();
    drop(runtime);
    assert_eq!(script.said(), ["open", "closed: Other"]);
    assert!(handle.is_closed());
}
