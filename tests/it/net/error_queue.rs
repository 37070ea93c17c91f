//! Linux keeps messages about a socket in a queue of their own (`MSG_ERRQUEUE`), and reports EPOLLERR
//! for as long as one is there.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use netpoller::{Runtime, TcpStream, UdpSocket, spawn, time, yield_now};

use crate::support::bytes::{noise, read};
use crate::support::counting::{Counts, counting};
use crate::support::loopback::pair;
use crate::support::run::run_in;

/// Sets an option that is a number.
fn set(fd: BorrowedFd<'_>, level: i32, option: i32, value: libc::c_uint) {
    let length = size_of_val(&value) as libc::socklen_t;
    let value = (&raw const value).cast();
    // SAFETY: the descriptor is open, and `value` is a live number of that length.
    let done = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, value, length) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

/// Takes one message out of the queue, and says whether there was one.
fn take_message(fd: BorrowedFd<'_>) -> bool {
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    let mut room = [0u8; 64];
    let (room, length) = (room.as_mut_ptr().cast(), room.len());
    // SAFETY: the descriptor is open, and the buffer is as long as is said.
    unsafe { libc::recv(fd.as_raw_fd(), room, length, flags) >= 0 }
}

async fn assert_quiet(counts: &Counts) {
    let before = counts.netpolls();
    time::sleep(Duration::from_millis(50)).await;
    let calls = counts.netpolls() - before;
    assert!(
        calls < 10,
        "{calls} calls to the selector while nothing happens"
    );
}

#[test]
fn a_refusal_that_stays_in_the_queue_is_told_once_and_keeps_no_loop_busy() {
    let (selector, counts) = counting();
    let runtime = Runtime::builder().selector(selector).build().unwrap();
    run_in(&runtime, async {
        let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = gone.local_addr().unwrap();
        gone.close().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client
            .with_fd(|fd| set(fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1))
            .unwrap();
        client.connect(address).await.unwrap();
        client.send(b"hello?").await.unwrap();
        let error = client.recv(&mut [0; 9]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");

        let waiting = spawn({
            let client = client.clone();
            async move { client.recv(&mut [0; 9]).await }
        });
        yield_now().await;
        assert_quiet(&counts).await;
        assert!(!waiting.is_finished());
        let back = UdpSocket::bind(address).await.unwrap();
        back.send_to(b"here", client.local_addr().unwrap())
            .await
            .unwrap();
        assert_eq!(waiting.await.unwrap().unwrap(), 4);
        assert!(client.with_fd(take_message).unwrap(), "it had stayed");
    });
}

#[test]
fn a_parked_read_takes_no_message_of_the_queue_for_bytes_or_an_error() {
    let (selector, counts) = counting();
    let runtime = Runtime::builder().selector(selector).build().unwrap();
    run_in(&runtime, async {
        let (server, client) = pair().await;
        // A message for each write of ours: when it went, and when it was acknowledged.
        let stamps = libc::SOF_TIMESTAMPING_TX_SOFTWARE
            | libc::SOF_TIMESTAMPING_TX_ACK
            | libc::SOF_TIMESTAMPING_SOFTWARE;
        server
            .with_fd(|fd| set(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, stamps))
            .unwrap();
        let parked = spawn({
            let server = server.clone();
            async move { read(&server, 9).await }
        });
        for byte in noise(100) {
            server.write_all(&[byte]).await.unwrap();
            client.read_exact(&mut [0]).await.unwrap();
        }
        assert_quiet(&counts).await;
        assert!(!parked.is_finished());
        client.write_all(b"bytes").await.unwrap();
        assert_eq!(parked.await.unwrap().unwrap(), b"bytes");
        assert!(server.with_fd(take_message).unwrap(), "there were messages");
        // They count as received: with enough of them the peer may send no more.
        while server.with_fd(take_message).unwrap() {}
        flows(&server, &client).await;
    });
}

/// A megabyte each way.
async fn flows(a: &TcpStream, b: &TcpStream) {
    for (from, to) in [(a.clone(), b), (b.clone(), a)] {
        let sent = noise(1 << 20);
        let mut got = vec![0; sent.len()];
        let bytes = sent.clone();
        let writing = spawn(async move { from.write_all(&bytes).await });
        to.read_exact(&mut got).await.unwrap();
        writing.await.unwrap().unwrap();
        assert!(got == sent);
    }
}
