//! Errors: which operation, on which network, between which addresses, in which words; for every
//! operation that can fail.
//!
//! Mirrors Go's `net/error_test.go`. Words are the system's, as Go prints them; the numbers behind
//! them are checked where the words differ from system to system.

use std::error::Error;
use std::io;

use netpoller::net::{Listener, Stream};
use netpoller::{Cause, NetError, OpError, spawn};

use super::transport::*;

/// What an operation should have said.
pub struct Expected<'a> {
    pub op: &'a str,
    pub net: &'a str,
    /// The ends, as they are printed.
    pub ends: &'a str,
    pub cause: &'a str,
    pub kind: io::ErrorKind,
}

#[track_caller]
pub fn assert_says<R>(result: io::Result<R>, expected: &Expected<'_>) {
    let Err(error) = result else {
        panic!("{} {} should have failed", expected.op, expected.net);
    };
    let Expected {
        op,
        net,
        ends,
        cause,
        kind,
    } = expected;
    assert_eq!(error.to_string(), format!("{op} {net} {ends}: {cause}"));
    assert_eq!(error.kind(), *kind, "{error}");
    let inner = error.op_error().expect("every error is an OpError");
    assert_eq!((inner.op, inner.net, inner.written), (*op, *net, 0));
    assert_valid(inner);
}

/// Go's OpError.isValid, and that the chain of sources ends at the system's error.
#[track_caller]
pub fn assert_valid(error: &OpError) {
    assert!(!error.op.is_empty() && !error.net.is_empty(), "{error}");
    for end in [&error.source, &error.addr].into_iter().flatten() {
        assert!(
            !end.to_string().is_empty(),
            "an end without a name: {error}"
        );
    }
    match &error.cause {
        Cause::System { call, .. } => {
            assert!(!call.is_empty());
            let source = error
                .source()
                .and_then(|source| source.downcast_ref::<io::Error>());
            let number = source.expect("the system's error").raw_os_error();
            assert_eq!(number, error.raw_os_error());
            assert!(number.is_some(), "{error}");
        }
        Cause::Timeout | Cause::Closed | Cause::Canceled => {
            assert!(error.source().is_none() && error.raw_os_error().is_none());
        }
        _ => {}
    }
}

const CLOSED: &str = "use of closed network connection";

// ---- on a stream ----

async fn timeouts<T: Transport>() {
    let (near, _far) = pair::<T>().await;
    let ends = T::ends(&near);
    let says = |op| Expected {
        op,
        net: T::NETWORK,
        ends: &ends,
        cause: "i/o timeout",
        kind: io::ErrorKind::TimedOut,
    };
    near.set_deadline(a_long_time_ago()).unwrap();
    assert_says(near.read(&mut [0]).await, &says("read"));
    assert_says(near.read_exact(&mut [0]).await, &says("read"));
    assert_says(near.read_with(|_| ()).await, &says("read"));
    assert_says(near.peek(&mut [0]).await, &says("read"));
    assert_says(near.readable().await, &says("read"));
    assert_says(near.try_read(&mut [0]), &says("read"));
    assert_says(near.write(b"x").await, &says("write"));
    assert_says(near.write_all(b"x").await, &says("write"));
    assert_says(near.writable().await, &says("write"));
    assert_says(near.try_write(b"x"), &says("write"));
}

#[test]
fn a_timeout_names_the_operation_and_both_ends() {
    over_streams(
        Clock::Real,
        timeouts::<Tcp4>,
        timeouts::<Tcp6>,
        timeouts::<UnixPath>,
    );
}

/// Closes by the only handle before any address was asked for: its errors have both ends all the same, as
/// Go's do.
async fn closed<T: Transport>() {
    let listener = T::listen().await.unwrap();
    let at = T::address(&listener);
    let (near, far) = connect::<T>(&listener).await;
    // The other's view has the same ends the other way round.
    let ends = reversed(&T::ends(&far));
    assert_all_say_closed::<T>(near, &ends, &at).await;
    let (near, far) = connect::<T>(&listener).await;
    let ends = reversed(&T::ends(&near));
    assert_all_say_closed::<T>(far, &ends, &at).await;
}

fn reversed(ends: &str) -> String {
    let (here, there) = ends.split_once("->").unwrap();
    format!("{there}->{here}")
}

async fn assert_all_say_closed<T: Transport>(stream: Stream<T::Kind>, ends: &str, listener: &str) {
    let says = |op| Expected {
        op,
        net: T::NETWORK,
        ends,
        cause: CLOSED,
        kind: io::ErrorKind::NotConnected,
    };
    stream.close().unwrap();
    assert!(ends.contains(listener), "{ends}");
    for _ in 0..3 {
        assert_says(stream.read(&mut [0]).await, &says("read"));
        assert_says(stream.hung_up().await, &says("read"));
        assert_says(stream.write_all(b"x").await, &says("write"));
        assert_says(stream.close_read(), &says("close"));
        assert_says(stream.close_write(), &says("close"));
        assert_says(stream.close(), &says("close"));
    }
    let (here, _) = ends.split_once("->").unwrap();
    let says = Expected {
        ends: here,
        ..says("set")
    };
    assert_says(stream.set_deadline(None), &says);
    assert_says(stream.set_read_deadline(None), &says);
    assert_says(stream.set_write_deadline(None), &says);
}

#[test]
fn use_of_a_closed_connection_names_the_operation_and_both_ends() {
    over_streams(
        Clock::Real,
        closed::<Tcp4>,
        closed::<Tcp6>,
        closed::<UnixPath>,
    );
}

async fn broken<T: Transport>() {
    let (near, far) = pair::<T>().await;
    let ends = T::ends(&near);
    near.close_write().unwrap();
    let says = Expected {
        op: "write",
        net: T::NETWORK,
        ends: &ends,
        cause: "write: broken pipe",
        kind: io::ErrorKind::BrokenPipe,
    };
    assert_says(near.write(b"x").await, &says);
    assert_says(near.write_all(b"x").await, &says);
    assert_says(near.try_write(b"x"), &says);
    drop(far);
}

#[test]
fn a_broken_pipe_is_told_in_the_systems_words() {
    over_streams(
        Clock::Real,
        broken::<Tcp4>,
        broken::<Tcp6>,
        broken::<UnixPath>,
    );
}

/// TCP only: a RST, and a socket that is not connected any more.
async fn reset<T: Transport<Kind = netpoller::net::Tcp>>() {
    let (near, far) = pair::<T>().await;
    let ends = T::ends(&near);
    far.abort().unwrap();
    near.hung_up().await.unwrap();
    let says = |op, cause, kind| Expected {
        op,
        net: T::NETWORK,
        ends: &ends,
        cause,
        kind,
    };
    let reset = says(
        "read",
        "read: connection reset by peer",
        io::ErrorKind::ConnectionReset,
    );
    assert_says(near.read(&mut [0]).await, &reset);
    if cfg!(target_os = "linux") {
        let cause = "shutdown: transport endpoint is not connected";
        let kind = io::ErrorKind::NotConnected;
        assert_says(near.close_write(), &says("close", cause, kind));
    }
}

#[test]
fn a_reset_names_both_ends_though_the_peer_has_gone() {
    by(Clock::Real, "tcp4", reset::<Tcp4>);
    by(Clock::Real, "tcp6", reset::<Tcp6>);
}

/// There is no OpError at the end of the file, nor when a try would have to wait: those are no
/// failures of the operation, and helpers look at their kinds only.
async fn plain<T: Transport>() {
    let (near, far) = pair::<T>().await;
    let error = near.try_read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    far.write_all(b"abc").await.unwrap();
    far.close().unwrap();
    let error = near.read_exact(&mut [0; 4]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(!error.is_timeout() && !error.is_closed() && !error.is_temporary());
}

#[test]
fn an_end_of_file_is_no_failed_operation() {
    over_streams(Clock::Real, plain::<Tcp4>, plain::<Tcp6>, plain::<UnixPath>);
}

// ---- on a listener ----

async fn accept_errors<T: Transport>() {
    let listener = T::listen().await.unwrap();
    let at = T::address(&listener);
    let says = |op, cause, kind| Expected {
        op,
        net: T::NETWORK,
        ends: &at,
        cause,
        kind,
    };
    let timeout = says("accept", "i/o timeout", io::ErrorKind::TimedOut);
    // As Go's TestAcceptError: over and over, until it is closed.
    for _ in 0..10 {
        listener.set_deadline(in_time(millis(5))).unwrap();
        let accepted = T::accept(&listener).await;
        assert!(accepted.as_ref().is_err_and(|error| error.is_temporary()));
        assert_says(accepted, &timeout);
    }
    let only = listener;
    close_and_fail::<T>(only, &at).await;
}

async fn close_and_fail<T: Transport>(listener: Listener<T::Kind>, at: &str) {
    let kind = io::ErrorKind::NotConnected;
    let says = |op| Expected {
        op,
        net: T::NETWORK,
        ends: at,
        cause: CLOSED,
        kind,
    };
    listener.close().unwrap();
    for _ in 0..3 {
        assert_says(T::accept(&listener).await, &says("accept"));
        assert_says(listener.set_deadline(None), &says("set"));
        let close = listener.close();
        let inner = close.as_ref().unwrap_err().op_error().unwrap();
        let ends = (inner.source.is_some(), inner.addr.is_some());
        assert_eq!(ends, (false, true), "a listener's one end is the address");
        assert_says(close, &says("close"));
    }
}

#[test]
fn a_failed_accept_names_the_listeners_address() {
    over_streams(
        Clock::Virtual,
        accept_errors::<Tcp4>,
        accept_errors::<Tcp6>,
        accept_errors::<UnixPath>,
    );
}

/// Threads may carry errors about, and `?` turns them into anything.
#[test]
fn errors_are_what_rust_expects_of_errors() {
    fn is_error<E: Error + Send + Sync + 'static>() {}
    is_error::<OpError>();
    by(Clock::Real, "tcp4", || async {
        let (near, _far) = pair::<Tcp4>().await;
        near.close().unwrap();
        let task = spawn(async move {
            near.write_all(b"x").await?;
            Ok::<(), Box<dyn Error + Send + Sync>>(())
        });
        let error = task.await.unwrap().unwrap_err();
        let error = error.downcast::<io::Error>().unwrap();
        assert!(error.is_closed());
    });
}
