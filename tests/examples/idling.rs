//! `idle_server`: the limit for a silent client.

use std::time::Duration;

use netpoller::{TcpStream, spawn, time};

use crate::idle_server::{Mode, serve};
use crate::{SECOND, listener, read_all, run_virtual};

/// A client that sends a byte at each of these times. What it reads, and when it reads the end.
fn client(mode: Mode, idle: u32, sends: &[u32]) -> (Vec<u8>, Duration) {
    run_virtual(async move {
        let (listener, addr) = listener().await;
        spawn(serve(listener, mode, idle * SECOND));
        let stream = TcpStream::connect(addr).await.unwrap();
        let start = time::now();
        for &send in sends {
            time::sleep_until(start + send * SECOND).await;
            stream.write_all(b".").await.unwrap();
        }
        let said = read_all(&stream).await.unwrap();
        (said, time::now() - start)
    })
}

fn assert_at(seconds: u32, when: Duration) {
    // Early or late by rounding, and by the virtual clock's two polls.
    let due = seconds * SECOND;
    assert!(
        (due - SECOND / 10..due + SECOND / 10).contains(&when),
        "{when:?}"
    );
}

#[test]
fn the_deadline_counts_from_the_last_byte() {
    for (sends, end) in [(&[][..], 3), (&[2], 5), (&[2, 4, 6], 9)] {
        let (said, when) = client(Mode::Timeout, 3, sends);
        assert_eq!(said, b"");
        assert_at(end, when);
    }
}

#[test]
fn with_an_activity_signal_the_server_says_goodbye_first() {
    for (sends, end) in [(&[][..], 3), (&[2], 5), (&[2, 4, 6], 9)] {
        let (said, when) = client(Mode::Goodbye, 3, sends);
        assert_eq!(said, b"goodbye\n");
        assert_at(end, when);
    }
}

#[test]
fn a_server_that_timed_out_moves_its_deadline_and_reads_the_byte() {
    let (said, when) = client(Mode::Patient, 5, &[7]);
    assert_eq!(said, b"");
    assert_at(7, when);
    // A client that stays silent is closed in the end.
    assert_at(10, client(Mode::Patient, 5, &[]).1);
}
