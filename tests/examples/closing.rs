//! `time_server`, `echo_client`, `capture`: which end closes, how, and what the other end sees.

use std::io;

use clap::Parser;
use netpoller::{TcpStream, spawn, time};

use crate::capture::{self, State};
use crate::{SECOND, echo_client, listener, process, read_all, run, run_virtual, time_server};

#[test]
fn the_time_server_sends_the_time_and_closes() {
    run(async {
        let (listener, addr) = listener().await;
        spawn(time_server::serve(listener));
        for _ in 0..3 {
            let client = TcpStream::connect(&addr).await.unwrap();
            let said = String::from_utf8(read_all(&client).await.unwrap()).unwrap();
            // 2006-01-02 15:04:05
            let shape: String = said.replace(|c: char| c.is_ascii_digit(), "0");
            assert_eq!(shape, "0000-00-00 00:00:00\n");
        }
    });
}

#[test]
fn the_backlog_absorbs_a_thousand_clients_of_a_slow_server() {
    // Two descriptors a client: more than most shells allow.
    if !process::with_many_files("closing::the_backlog_absorbs_a_thousand_clients_of_a_slow_server")
    {
        return;
    }
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
    let clients = most.trim().parse().unwrap_or(128).min(1024);
    run_virtual(async move {
        let (listener, addr) = listener().await;
        let dials: Vec<_> = (0..clients)
            .map(|_| {
                let addr = addr.clone();
                spawn(async move {
                    let client = TcpStream::connect(addr).await?;
                    client.set_read_deadline(Some(time::now() + 60 * SECOND))?;
                    read_all(&client).await
                })
            })
            .collect();
        for _ in 0..clients {
            time::sleep(SECOND / 200).await;
            let (stream, _) = listener.accept().await.unwrap();
            time_server::tell(stream).await.unwrap();
        }
        for dial in dials {
            assert_eq!(dial.await.unwrap().unwrap().len(), 20);
        }
    });
}

/// What the server reads from a client that closes after ten seconds.
fn echo_until_closed(flags: &[&str]) -> io::Result<u64> {
    let flags = echo_client::Flags::parse_from([&["echo_client"], flags].concat());
    run_virtual(async move {
        let (listener, addr) = listener().await;
        let server = spawn(async move {
            let (stream, peer) = listener.accept().await?;
            echo_client::echo(stream, peer).await
        });
        let start = time::now();
        echo_client::talk(addr, &flags).await.unwrap();
        let took = time::now() - start;
        assert!((10 * SECOND..11 * SECOND).contains(&took), "{took:?}");
        server.await.unwrap()
    })
}

#[test]
fn the_client_closes_after_10_s_by_fin_and_the_server_reads_the_end() {
    for linger in [&[][..], &["--linger", "5"]] {
        let flags = [&["--message", "four"], linger].concat();
        assert_eq!(echo_until_closed(&flags).unwrap(), 40);
    }
}

#[test]
fn the_client_closes_after_10_s_by_rst_and_the_server_reads_a_reset() {
    let error = echo_until_closed(&["--linger", "0"]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
}

/// The states after hello, after the client's close, after the server's.
fn states(by_rst: bool) -> Vec<[Option<State>; 2]> {
    run(async {
        let (listener, _) = listener().await;
        let mut seen = Vec::new();
        let note = |_, states| seen.push(states);
        capture::close(&listener, by_rst, note).await.unwrap();
        seen
    })
}

const ESTABLISHED: [Option<State>; 2] = [Some(State::ESTABLISHED); 2];

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "reads /proc/net/tcp")]
fn a_close_is_a_fin_and_leaves_time_wait_on_the_end_that_closed_first() {
    let closed = [Some(State::FIN_WAIT2), Some(State::CLOSE_WAIT)];
    let gone = [Some(State::TIME_WAIT), None];
    assert_eq!(states(false), [ESTABLISHED, closed, gone]);
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "reads /proc/net/tcp")]
fn a_linger_of_zero_is_a_rst_and_leaves_nothing() {
    assert_eq!(states(true), [ESTABLISHED, [None; 2], [None; 2]]);
}
