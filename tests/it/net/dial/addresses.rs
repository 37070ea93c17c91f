//! Several addresses of one name: races, shares of the time, and this computer.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use netpoller::{CancelToken, Dialer, ListenConfig, NetError, TcpListener, spawn, time};

use super::{SECOND, both_families, silent_and_answering};
use crate::support::dead_ends::{Silent, closed};
use crate::support::run::{run_clean as run, run_clean_in, run_virtual_clean as run_virtual};
use crate::support::schedule::virtual_runtime;

#[test]
fn the_other_family_is_tried_300_ms_later() {
    run_virtual(async {
        let (silent, listener) = silent_and_answering().await;
        let name = ("both.test", silent.address.port());
        let dialer = both_families();
        // The look-up takes real time, in which this clock stands.
        let start = time::now();
        let stream = dialer.dial(name).await.unwrap();
        let passed = time::now() - start;
        let head_start = Duration::from_millis(300);
        assert!(
            (head_start..head_start * 11 / 10).contains(&passed),
            "{passed:?}"
        );
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());

        let start = time::now();
        dialer
            .clone()
            .fallback_delay(5 * SECOND)
            .dial(name)
            .await
            .unwrap();
        assert!(time::now() - start >= 5 * SECOND);

        let start = time::now();
        dialer
            .fallback_delay(Duration::ZERO)
            .dial(name)
            .await
            .unwrap();
        assert_eq!(time::now(), start);
    });
}

#[test]
fn the_other_family_is_tried_as_soon_as_the_first_has_failed() {
    run_virtual(async {
        let listener = TcpListener::bind("[::1]:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let start = time::now();
        let dialer = both_families().fallback_delay(Duration::MAX);
        let stream = dialer.dial(("both.test", port)).await.unwrap();
        assert!(stream.peer_addr().unwrap().is_ipv6());
        assert_eq!(time::now(), start);
    });
}

#[test]
fn the_first_family_is_that_of_the_first_address() {
    run_virtual(async {
        let listener = TcpListener::bind(":0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let six = Dialer::new()
            .resolver(|_| Ok(vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]));
        for (dialer, is_ipv6) in [(both_families(), false), (six, true)] {
            let stream = dialer.dial(("both.test", port)).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap().is_ipv6(), is_ipv6);
        }
    });
}

#[test]
fn the_first_success_wins_and_every_other_socket_is_closed() {
    let runtime = virtual_runtime();
    run_clean_in(&runtime, async {
        let (silent, listener) = silent_and_answering().await;
        let before = runtime.stats().descriptors;
        let name = ("both.test", silent.address.port());
        let stream = both_families().dial(name).await.unwrap();
        assert_eq!(runtime.stats().descriptors, before + 1);
        let (accepted, _) = listener.accept().await.unwrap();
        stream.write_all(b"!").await.unwrap();
        assert_eq!(accepted.read(&mut [0; 8]).await.unwrap(), 1);
    });
}

#[test]
fn if_all_fail_the_first_error_counts_and_the_others_can_be_had() {
    run_virtual(async {
        let closed = closed();
        let port = closed.port;
        let error = both_families().dial(("both.test", port)).await.unwrap_err();
        let first = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        let second = format!("dial tcp [::1]:{port}: connect: connection refused");
        assert_eq!(error.to_string(), first);
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let error = error.op_error().unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        let tried: Vec<_> = error.attempts().iter().map(ToString::to_string).collect();
        assert_eq!(tried, [first, second]);
    });
}

#[test]
fn the_time_is_shared_over_the_addresses() {
    run_virtual(async {
        let silent = Silent::v4();
        let start = time::now();
        let tried = Arc::new(Mutex::new(Vec::new()));
        let tell = tried.clone();
        let dialer = Dialer::new()
            .resolver(|_| Ok(vec![Ipv4Addr::LOCALHOST.into(); 3]))
            .control(move |_, _| {
                tell.lock()
                    .unwrap()
                    .push((time::now() - start).as_secs_f64().round());
                Ok(())
            })
            .timeout(12 * SECOND);
        let error = dialer
            .dial(("thrice.test", silent.address.port()))
            .await
            .unwrap_err();
        assert!(error.is_timeout());
        assert_eq!(error.op_error().unwrap().attempts().len(), 3);
        assert_eq!(*tried.lock().unwrap(), [0.0, 4.0, 8.0]);
        let passed = time::now() - start;
        assert!((12 * SECOND..13 * SECOND).contains(&passed), "{passed:?}");
    });
}

#[test]
fn a_cancel_ends_all_of_a_race() {
    run_virtual(async {
        let silent = Silent::v4();
        let other = SocketAddr::from((Ipv6Addr::LOCALHOST, silent.address.port()));
        let _other = Silent::on(other);
        let scope = CancelToken::new();
        let canceler = scope.clone();
        let task = spawn(async move {
            time::sleep(SECOND).await;
            canceler.cancel();
        });
        let dialer = both_families().cancel(&scope);
        let error = dialer
            .dial(("both.test", silent.address.port()))
            .await
            .unwrap_err();
        assert!(error.is_canceled(), "{error}");
        task.await.unwrap();
    });
}

#[test]
fn dialling_an_empty_host_dials_this_computer() {
    run(async {
        for network in ["tcp", "tcp4", "tcp6"] {
            let listener = ListenConfig::new()
                .network(network)
                .bind(":0")
                .await
                .unwrap();
            let port = listener.local_addr().unwrap().port();
            let stream = Dialer::new()
                .network(network)
                .dial(format!(":{port}"))
                .await
                .unwrap();
            assert!(stream.peer_addr().unwrap().ip().is_loopback());
            assert_eq!(stream.peer_addr().unwrap().is_ipv6(), network == "tcp6");
        }
    });
}
