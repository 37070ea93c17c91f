//! What fails and how it reads; limits in time; scopes.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use netpoller::CancelError::{Canceled, DeadlineExceeded};
use netpoller::{Addr, CancelToken, Dialer, NetError, TcpListener, TcpStream, spawn, time};

use super::{SECOND, both_families};
use crate::support::dead_ends::{Silent, closed};
use crate::support::run::{run_clean as run, run_clean_in, run_virtual_clean as run_virtual};
use crate::support::schedule::virtual_runtime;
use crate::support::stall::stall;

#[test]
fn a_closed_port_refuses_at_once_and_the_error_says_all() {
    run_virtual(async {
        let start = time::now();
        let closed = closed();
        let address = SocketAddr::from(([127, 0, 0, 1], closed.port));
        let error = TcpStream::connect(address).await.unwrap_err();
        let text = format!("dial tcp {address}: connect: connection refused");
        assert_eq!(error.to_string(), text);
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(!error.is_timeout() && !error.is_temporary() && !error.is_canceled());
        let error = error.op_error().unwrap();
        assert_eq!((error.op, error.net, &error.source), ("dial", "tcp", &None));
        assert_eq!(error.addr, Some(Addr::Socket(address)));
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        assert_eq!(error.attempts().len(), 1);
        assert_eq!(time::now(), start, "a timer was waited for");
    });
}

#[test]
fn an_address_that_never_answers_is_a_timeout_after_that_time() {
    run_virtual(async {
        let silent = Silent::v4();
        let start = time::now();
        let dialer = Dialer::new().timeout(3 * SECOND);
        let error = dialer.dial(silent.address).await.unwrap_err();
        let text = format!("dial tcp {}: i/o timeout", silent.address);
        assert_eq!(error.to_string(), text);
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.is_timeout() && error.is_temporary() && !error.is_canceled());
        let passed = time::now() - start;
        assert!((3 * SECOND..4 * SECOND).contains(&passed), "{passed:?}");
    });
}

#[test]
fn a_timeout_holds_on_the_real_clock_too() {
    run(async {
        let silent = Silent::v4();
        let (start, limit) = (Instant::now(), Duration::from_millis(30));
        let error = Dialer::new()
            .timeout(limit)
            .dial(silent.address)
            .await
            .unwrap_err();
        assert!(error.is_timeout() && start.elapsed() >= limit);
    });
}

#[test]
fn a_timeout_counts_from_a_fresh_reading_of_the_clock() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // The loop's own reading is older than the whole limit by now.
        stall(Duration::from_millis(60));
        let dialer = Dialer::new().timeout(Duration::from_millis(50));
        dialer.dial(listener.local_addr().unwrap()).await.unwrap();
    });
}

#[test]
fn a_deadline_or_timeout_that_is_over_fails_at_once() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for dialer in [
            Dialer::new().deadline(time::now()),
            Dialer::new().deadline(time::now()).timeout(SECOND),
            Dialer::new()
                .deadline(time::now() + SECOND)
                .timeout(Duration::from_nanos(1)),
        ] {
            let error = dialer.dial(address).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("dial tcp {address}: i/o timeout")
            );
        }
    });
}

#[test]
fn a_timeout_of_zero_is_none_and_one_that_overflows_does_not_fail() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for limit in [Some(Duration::ZERO), None, Some(Duration::MAX)] {
            let dialer = Dialer::new().timeout(Duration::from_nanos(1));
            dialer.timeout(limit).dial(address).await.unwrap();
        }
        // Of two limits, zero is none and the other holds.
        let dialer = Dialer::new().timeout(Duration::ZERO).deadline(time::now());
        assert!(dialer.dial(address).await.unwrap_err().is_timeout());
    });
}

#[test]
fn a_dial_ends_with_its_scope_s_deadline() {
    run_virtual(async {
        let silent = Silent::v4();
        let scope = CancelToken::new().with_timeout(SECOND);
        let error = Dialer::new()
            .cancel(&scope)
            .dial(silent.address)
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("dial tcp {}: i/o timeout", silent.address)
        );
        assert!(error.is_timeout() && error.is_temporary());
        assert_eq!(scope.err(), Some(DeadlineExceeded));

        // A limit of the dial's own ends the dial, not the scope.
        let scope = CancelToken::new().with_timeout(10 * SECOND);
        let dialer = Dialer::new().cancel(&scope).timeout(SECOND);
        assert!(dialer.dial(silent.address).await.unwrap_err().is_timeout());
        assert_eq!(scope.err(), None);
    });
}

#[test]
fn a_dial_that_is_canceled_returns_at_once() {
    run_virtual(async {
        let silent = Silent::v4();
        let scope = CancelToken::new();
        let start = time::now();
        let canceler = scope.clone();
        let task = spawn(async move { canceler.cancel() });
        let error = Dialer::new()
            .cancel(&scope)
            .dial(silent.address)
            .await
            .unwrap_err();
        let text = format!("dial tcp {}: operation was canceled", silent.address);
        assert_eq!(error.to_string(), text);
        assert!(error.is_canceled() && !error.is_timeout());
        assert_eq!(error.kind(), io::ErrorKind::Other);
        assert_eq!((scope.err(), time::now()), (Some(Canceled), start));
        task.await.unwrap();

        // In a scope that has ended, a dial makes no socket.
        let dialer = Dialer::new()
            .cancel(&scope)
            .control(|_, _| panic!("a socket was made"));
        assert_eq!(
            dialer.dial(silent.address).await.unwrap_err().to_string(),
            text
        );
    });
}

#[test]
fn canceling_a_scope_leaves_what_was_dialled_in_it() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scope = CancelToken::new().with_timeout(SECOND);
        let dialer = Dialer::new().cancel(&scope).timeout(SECOND);
        let stream = dialer.dial(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        scope.cancel();
        stream.write_all(b"ping").await.unwrap();
        let mut ping = [0; 4];
        accepted.read_exact(&mut ping).await.unwrap();
        accepted.write_all(&ping).await.unwrap();
        stream.read_exact(&mut ping).await.unwrap();
        assert_eq!(&ping, b"ping");
    });
}

#[test]
fn of_ten_dials_in_one_scope_the_first_to_answer_wins() {
    run_virtual(async {
        let silent = Silent::v4();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scope = CancelToken::new().with_timeout(10 * SECOND);
        let won = Rc::new(RefCell::new(None));
        let dials: Vec<_> = (0..10)
            .map(|n| {
                let address = match n {
                    7 => listener.local_addr().unwrap(),
                    _ => silent.address,
                };
                let (scope, won) = (scope.clone(), won.clone());
                spawn(async move {
                    let stream = Dialer::new().cancel(&scope).dial(address).await?;
                    scope.cancel();
                    won.borrow_mut().get_or_insert((n, stream));
                    io::Result::Ok(())
                })
            })
            .collect();
        for (n, dial) in dials.into_iter().enumerate() {
            match dial.await.unwrap() {
                Ok(()) => assert_eq!(n, 7),
                Err(error) => assert!(error.is_canceled(), "{error}"),
            }
        }
        assert_eq!(scope.err(), Some(Canceled));
        let (n, stream) = won.take().unwrap();
        assert_eq!(
            (n, stream.peer_addr().unwrap()),
            (7, listener.local_addr().unwrap())
        );
    });
}

#[test]
fn a_dial_that_is_dropped_leaves_nothing_behind() {
    let runtime = virtual_runtime();
    run_clean_in(&runtime, async {
        let silent = Silent::v4();
        for _ in 0..20 {
            let dialer = Dialer::new().timeout(1000 * SECOND);
            let dial = dialer.dial(silent.address);
            assert!(time::timeout(SECOND, dial).await.is_err());
            let name = ("both.test", silent.address.port());
            let racing = both_families();
            assert!(time::timeout(SECOND / 5, racing.dial(name)).await.is_err());
        }
    });
}
