//! `tcp_ping`, `dial_race`, `retry_write`: what is tried again, and what ends.

use std::io;

use clap::Parser;
use netpoller::{CancelError, CancelToken, NetError, spawn, time};

use crate::dial_race::{Silent, first_of};
use crate::loopback::pair;
use crate::{SECOND, listener, read_all, retry_write, run, run_virtual, tcp_ping};

fn ping(flags: &[&str]) -> (Vec<String>, std::process::ExitCode) {
    let flags = tcp_ping::Flags::parse_from([&["tcp_ping"], flags].concat());
    let mut out = Vec::new();
    let code = run_virtual(tcp_ping::ping(&flags, &mut out)).unwrap();
    let out = String::from_utf8(out).unwrap();
    (out.lines().map(str::to_owned).collect(), code)
}

#[test]
fn a_ping_is_a_number_and_the_time_of_a_handshake() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = held.local_addr().unwrap().to_string();
    let (lines, _) = ping(&["-c", "2", &addr]);
    assert_eq!(lines[0], format!("PING {addr}"));
    for (line, number) in lines[1..].iter().zip(["1 ", "2 "]) {
        let took = line.strip_prefix(number).unwrap();
        assert!(
            took.ends_with('s') && took.as_bytes()[0].is_ascii_digit(),
            "{line}"
        );
    }
    assert_eq!(lines.len(), 3);
}

#[test]
fn a_ping_continues_after_a_temporary_error() {
    let silent = Silent::new().unwrap();
    let (lines, _) = ping(&["-c", "2", "-W", "5s", &silent.addr.to_string()]);
    for (line, number) in lines[1..].iter().zip(1..=2) {
        assert!(line.starts_with(&format!("{number} fail in ")), "{line}");
        let error = format!(": dial tcp {}: i/o timeout", silent.addr);
        assert!(line.ends_with(&error), "{line}");
    }
    assert_eq!(lines.len(), 3);
}

#[test]
fn the_first_of_ten_wins_and_its_scope_ends() {
    run_virtual(async {
        let silent = Silent::new().unwrap();
        let (_listener, addr) = listener().await;
        let mut targets = vec![silent.addr.to_string(); 10];
        targets[4].clone_from(&addr);
        let scope = CancelToken::new().with_timeout(10 * SECOND);
        let start = time::now();
        let (winner, stream) = first_of(targets, &scope).await.unwrap();
        assert_eq!(
            (&winner, stream.peer_addr().unwrap().to_string()),
            (&addr, addr.clone())
        );
        assert_eq!(scope.err(), Some(CancelError::Canceled));
        assert!(time::now() - start < 10 * SECOND);
    });
}

#[test]
fn without_an_answer_the_deadline_of_the_scope_ends_all_dials() {
    run_virtual(async {
        let silent = Silent::new().unwrap();
        let scope = CancelToken::new().with_timeout(5 * SECOND);
        let start = time::now();
        let dialled = first_of(vec![silent.addr.to_string(); 3], &scope).await;
        assert!(dialled.unwrap_err().is_timeout());
        assert_eq!(scope.err(), Some(CancelError::DeadlineExceeded));
        assert!(time::now() - start >= 5 * SECOND);
    });
}

/// Numbers in a row, and more than the kernel takes.
fn much() -> Vec<u8> {
    let mut bytes = vec![0; 12 << 20];
    for (number, place) in (0_u32..).zip(bytes.chunks_exact_mut(64)) {
        place[..4].copy_from_slice(&number.to_be_bytes());
    }
    bytes
}

#[test]
fn a_write_continues_after_temporary_errors() {
    run_virtual(async {
        let (writer, reader) = pair().await;
        let reading = spawn(async move {
            time::sleep(40 * SECOND).await;
            read_all(&reader).await
        });
        retry_write::write(&writer, &much()).await.unwrap();
        writer.close().unwrap();
        assert!(reading.await.unwrap().unwrap() == much());
    });
}

#[test]
fn after_seven_temporary_errors_it_gives_up() {
    run_virtual(async {
        let (writer, _silent) = pair().await;
        let start = time::now();
        let error = retry_write::write(&writer, &much()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "temporary write failure threshold exceeded"
        );
        let (tries, pauses) = (7 * retry_write::PATIENCE, 6 * retry_write::PAUSE);
        assert!(time::now() - start >= tries + pauses);
    });
}

#[test]
fn a_permanent_error_returns_at_once() {
    run(async {
        let (writer, peer) = pair().await;
        peer.abort().unwrap();
        writer.hung_up().await.unwrap();
        let error = retry_write::write(&writer, &much()).await.unwrap_err();
        let kinds = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
        assert!(kinds.contains(&error.kind()), "{error}");
    });
}
