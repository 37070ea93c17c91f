//! What a server counts: why connections end, and what its loops have done.

use std::io;
use std::rc::Rc;

use netpoller::{Conn, Limits, Protocol, Server, TcpStream, time};

use crate::support::running::{Echo, SECOND, echo, start};
use crate::support::scripted_protocol::{dial, serving, until};
use crate::support::watchdog::watchdog;

/// Ends as the first byte says; other bytes wait for more.
struct Obeys;

impl Protocol for Obeys {
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        match bytes[0] {
            b'c' => conn.close(),
            b'e' => return Err(io::Error::other("as asked")),
            b'p' => panic!("as asked"),
            b'l' => conn.write(&[0; 2000])?,
            b'b' => conn.set_busy(true),
            _ => return Ok(0),
        }
        Ok(bytes.len())
    }
}

/// So many connections have ended for each reason, and these are all that have ended.
fn check(stats: &netpoller::ServerStats, expected: &[(&str, u64)]) {
    let worker = stats.workers()[0];
    let ended: Vec<_> = worker.ends().into_iter().filter(|end| end.1 > 0).collect();
    assert_eq!(ended, expected);
    let all: u64 = worker.ends().iter().map(|(_, count)| count).sum();
    assert_eq!(all, stats.accepted() - stats.live(), "{stats}");
}

#[test]
fn each_end_is_counted_by_its_reason_and_together_they_are_all_that_ended() {
    let mut limits = Limits::default();
    limits.most_queued = 1000;
    let server = Server::new(|_| Obeys)
        .idle_timeout(5 * SECOND)
        .minimum_read_rate(10, 10 * SECOND)
        .limits(limits);
    serving(server, async |bound: Rc<netpoller::Bound<_>>| {
        let handle = bound.handle();
        let ended = |count| {
            let handle = handle.clone();
            until(move || {
                let stats = handle.stats();
                stats.accepted() - stats.live() == count
            })
        };
        for (count, word) in (1..).zip(["c", "e", "p", "l"]) {
            let client = dial(&bound).await;
            client.write_all(word.as_bytes()).await.unwrap();
            ended(count).await;
        }
        let silent = dial(&bound).await;
        time::sleep(5 * SECOND).await;
        ended(5).await;
        let slow = dial(&bound).await;
        while slow.write_all(b"x").await.is_ok() {
            time::sleep(SECOND).await;
        }
        ended(6).await;
        let leaves = dial(&bound).await;
        leaves.close_write().unwrap();
        ended(7).await;
        drop((silent, leaves));
        let busy: TcpStream = dial(&bound).await;
        busy.write_all(b"b").await.unwrap();
        let rests = dial(&bound).await;
        until(|| handle.stats().live() == 2).await;
        time::sleep(2 * SECOND).await;
        handle.drain(10 * SECOND);
        time::sleep(10 * SECOND).await;
        ended(9).await;
        drop(rests);
        check(
            &handle.stats(),
            &[
                ("peer", 1),
                ("asked", 1),
                ("drained", 1),
                ("idle", 1),
                ("too_slow", 1),
                ("limit", 1),
                ("stopped", 1),
                ("error", 2),
            ],
        );
        assert_eq!(handle.runtimes()[0].stats().panicked(), 1);
    });
}

#[test]
fn a_factory_that_panics_counts_as_an_end_too() {
    let _watchdog = watchdog();
    let server = start(Server::new(|_| -> Echo { panic!("as it should") }));
    drop(server.dial());
    server.wait_for(|stats| stats.failed() == 1);
    check(&server.handle.stats(), &[("error", 1)]);
    server.stop();
}

#[test]
fn the_loops_of_all_workers_are_read_while_they_run() {
    let _watchdog = watchdog();
    let server = start(Server::new(|_| Echo).workers(3));
    echo(&mut server.dial(), b"hello");
    server.wait_for(|stats| stats.live() == 0);
    let (stats, runtimes) = (server.handle.stats(), server.handle.runtimes());
    assert_eq!(runtimes.len(), 3, "all have started: one has accepted");
    let turns: u64 = runtimes.iter().map(|runtime| runtime.stats().turns()).sum();
    assert!(turns >= stats.turns() && stats.turns() > 0, "{stats}");
    let descriptors = runtimes.iter().map(|runtime| runtime.stats().descriptors());
    assert!(descriptors.sum::<u64>() > 0, "a listener at least");
    // Once it has ended, what it has done is still known, and nothing lives.
    let ended = server.stop();
    assert!(ended.turns() >= turns);
    let descriptors = runtimes.iter().map(|runtime| runtime.stats().descriptors());
    assert_eq!(descriptors.sum::<u64>(), 0);
}
