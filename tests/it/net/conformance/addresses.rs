//! Dials and listens that fail: what was asked for, and why it can't be had. Literal addresses
//! only; names and networks are in `tests/it/net/dial/` and `tests/it/net/resolve.rs`.
//!
//! Mirrors TestDialError and TestListenError of Go's `net/error_test.go`.

use std::io;
use std::net::SocketAddr;

use netpoller::{Addr, NetError, TcpListener, TcpStream};

use super::errors::{Expected, assert_says, assert_valid};
use super::transport::*;

fn tcp<'a>(op: &'a str, at: &'a str, cause: &'a str, kind: io::ErrorKind) -> Expected<'a> {
    Expected {
        op,
        net: "tcp",
        ends: at,
        cause,
        kind,
    }
}

async fn refused(any_port: &str) {
    let listener = TcpListener::bind(any_port).await.unwrap();
    let address = listener.local_addr().unwrap();
    listener.close().unwrap();
    let result = TcpStream::connect(address).await;
    let inner = result.as_ref().unwrap_err().op_error().unwrap();
    assert_eq!(inner.addr, Some(Addr::Socket(address)));
    assert_eq!(inner.raw_os_error(), Some(libc::ECONNREFUSED));
    let error = result.as_ref().unwrap_err();
    assert!(!error.is_timeout() && !error.is_temporary() && !error.is_closed());
    let kind = io::ErrorKind::ConnectionRefused;
    let at = address.to_string();
    assert_says(
        result,
        &tcp("dial", &at, "connect: connection refused", kind),
    );
}

#[test]
fn a_refused_dial_names_the_address() {
    by(Clock::Real, "tcp4", || refused("127.0.0.1:0"));
    by(Clock::Real, "tcp6", || refused("[::1]:0"));
}

async fn in_use(any_port: &str) {
    let listener = TcpListener::bind(any_port).await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let result = TcpListener::bind(address).await;
    let kind = io::ErrorKind::AddrInUse;
    let at = address.to_string();
    assert_says(
        result,
        &tcp("listen", &at, "bind: address already in use", kind),
    );
}

#[test]
fn a_listen_on_a_taken_port_names_the_address() {
    by(Clock::Real, "tcp4", || in_use("127.0.0.1:0"));
    by(Clock::Real, "tcp6", || in_use("[::1]:0"));
}

/// 192.0.2.0/24 is for documentation: no host has it.
#[test]
fn a_listen_on_an_address_of_another_host_names_it() {
    by(Clock::Real, "tcp4", || async {
        let error = TcpListener::bind("192.0.2.1:0").await.unwrap_err();
        let inner = error.op_error().unwrap();
        assert_eq!(inner.raw_os_error(), Some(libc::EADDRNOTAVAIL));
        let text = error.to_string();
        assert!(text.starts_with("listen tcp 192.0.2.1:0: bind: "), "{text}");
        assert!(!text.contains("os error"), "{text}");
    });
}

/// What was asked for, and the part that is wrong, which the error names as Go's does.
const NO_ADDRESSES: [(&str, &str); 9] = [
    ("127.0.0.1:☺", "☺"),
    ("127.0.0.1:-1", "-1"),
    ("127.0.0.1:65536", "65536"),
    ("127.0.0.1:123456789", "123456789"),
    ("127.0.0.1", "127.0.0.1"),
    ("::1:80:90", "::1:80:90"),
    ("[::1]", "[::1]"),
    ("[::1:80", "[::1:80"),
    ("[127.0.0.1:80]:90]", "[127.0.0.1:80]:90]"),
];

#[test]
fn what_is_no_address_gives_one_clear_error_and_no_descriptor() {
    watched("tcp", || {
        let runtime = runtime(Clock::Real);
        for (text, wrong) in NO_ADDRESSES {
            let (dial, listen) = runtime.block_on(async move {
                let dial = TcpStream::connect(text).await.map(drop);
                (dial, TcpListener::bind(text).await.map(drop))
            });
            assert_no_address(dial, "dial", wrong);
            assert_no_address(listen, "listen", wrong);
            assert_eq!(runtime.stats().descriptors, 0, "{text}");
        }
    });
}

#[track_caller]
fn assert_no_address(result: io::Result<()>, op: &str, wrong: &str) {
    let Err(error) = result else {
        panic!("{op} {wrong} should have failed");
    };
    let inner = error.op_error().expect("an OpError");
    assert_eq!((inner.op, inner.net), (op, "tcp"), "{error}");
    assert_valid(inner);
    assert!(error.to_string().contains(wrong), "{error}: of which?");
    assert!(
        !error.is_timeout() && !error.is_temporary() && !error.is_closed(),
        "{error}"
    );
}
