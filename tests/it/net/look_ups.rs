//! Look-ups: they run on other threads, and a dial waits no longer than it wants to.

use std::io;
use std::net::Ipv4Addr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use netpoller::{CancelToken, Dialer, NetError, Runtime, TcpListener, TcpStream, spawn, time};

use crate::support::run::run;

#[test]
fn a_literal_is_not_looked_up() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialer = Dialer::new().resolver(|host| panic!("asked for {host}"));
        dialer.dial(listener.local_addr().unwrap()).await.unwrap();
        dialer
            .dial(listener.local_addr().unwrap().to_string())
            .await
            .unwrap();
    });
}

#[test]
fn a_resolver_s_failure_is_the_dial_s() {
    run(async {
        let dialer = Dialer::new().resolver(|host| match host {
            "none.test" => Ok(Vec::new()),
            "slow.test" => Err(io::ErrorKind::TimedOut.into()),
            "full.test" => Err(io::Error::from_raw_os_error(24)),
            _ => panic!("as resolvers do"),
        });
        let none = dialer.dial("none.test:1").await.unwrap_err();
        assert_eq!(none.to_string(), "dial tcp: lookup none.test: no such host");
        let slow = dialer.dial("slow.test:1").await.unwrap_err();
        assert!(slow.is_timeout() && slow.is_temporary());
        let full = dialer.dial("full.test:1").await.unwrap_err();
        assert_eq!(
            full.to_string(),
            "dial tcp: lookup full.test: too many open files"
        );
        assert!(full.is_temporary() && !full.is_timeout());
        let lost = dialer.dial("lost.test:1").await.unwrap_err().to_string();
        assert!(lost.starts_with("dial tcp: lookup lost.test: "), "{lost}");
        assert!(lost.ends_with("as resolvers do"), "{lost}");
    });
}

/// A resolver that answers when the sender is dropped, and says when it is asked.
fn stuck() -> (Dialer, Sender<()>, Receiver<()>) {
    let (answer, answered) = mpsc::channel::<()>();
    let (ask, asked) = mpsc::channel();
    let answered = Mutex::new(answered);
    let dialer = Dialer::new().resolver(move |_| {
        let _ = ask.send(());
        let _ = answered.lock().unwrap().recv();
        Ok(vec![Ipv4Addr::LOCALHOST.into()])
    });
    (dialer, answer, asked)
}

#[test]
fn a_look_up_ends_with_the_dial_s_time_and_its_scope() {
    let (dialer, answer, _asked) = stuck();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let start = Instant::now();
        let limit = Duration::from_millis(20);
        let error = dialer
            .clone()
            .timeout(limit)
            .dial("slow.test:1")
            .await
            .unwrap_err();
        assert!(start.elapsed() >= limit);
        assert_eq!(error.to_string(), "dial tcp: lookup slow.test: i/o timeout");
        assert!(error.is_timeout() && error.is_temporary() && !error.is_canceled());
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let scope = CancelToken::new();
        let dialling = dialer.clone().cancel(&scope);
        let dialling = spawn(async move { dialling.dial("slow.test:1").await });
        netpoller::yield_now().await;
        scope.cancel();
        let error = dialling.await.unwrap().unwrap_err();
        assert_eq!(
            error.to_string(),
            "dial tcp: lookup slow.test: operation was canceled"
        );
        assert!(error.is_canceled() && !error.is_timeout());

        let dropped = time::timeout(limit, dialer.dial("slow.test:1")).await;
        assert!(dropped.is_err());
    });
    let stats = runtime.stats();
    assert_eq!(
        (stats.tasks, stats.timers, stats.waiters),
        (0, 0, 0),
        "nothing waits for it"
    );
    drop(answer);
}

#[test]
fn a_look_up_holds_up_neither_the_loop_nor_its_end() {
    let (dialer, answer, asked) = stuck();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let dialling = spawn(async move { dialer.dial("slow.test:1").await.map(drop) });
        time::sleep(Duration::from_millis(5)).await;
        assert!(!dialling.is_finished());
    });
    asked.recv().unwrap();
    // The resolver is blocked just now: this would hang if the end waited for it.
    drop(runtime);
    drop(answer);
}

#[test]
fn jobs_that_look_names_up_in_runtimes_of_their_own_all_end() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let job = move || {
            let dial = async { TcpStream::connect(("localhost", port)).await.map(drop) };
            Runtime::new()?.block_on(dial)
        };
        let jobs: Vec<_> = (0..64).map(|_| netpoller::spawn_blocking(job)).collect();
        for job in jobs {
            job.await.unwrap().unwrap();
        }
    });
}

#[test]
fn a_look_up_that_is_given_up_before_it_begins_is_not_made() {
    // 64 look-ups run at a time: with those stuck, the next waits for its turn, and is given up.
    let (dialer, answer, _asked) = stuck();
    let begun = Arc::new(Mutex::new(Vec::new()));
    let tell = begun.clone();
    let last = Dialer::new()
        .timeout(Duration::from_millis(20))
        .resolver(move |host| {
            tell.lock().unwrap().push(host.to_owned());
            Ok(vec![Ipv4Addr::LOCALHOST.into()])
        });
    run(async move {
        let stuck: Vec<_> = (0..64)
            .map(|_| {
                let dialer = dialer.clone().timeout(Duration::from_secs(30));
                spawn(async move { dialer.dial("stuck.test:1").await.map(drop) })
            })
            .collect();
        netpoller::yield_now().await;
        assert!(last.dial("late.test:1").await.unwrap_err().is_timeout());
        drop(answer);
        for dialling in stuck {
            assert_eq!(
                dialling.await.unwrap().unwrap_err().kind(),
                io::ErrorKind::ConnectionRefused
            );
        }
        // The pool runs look-ups in order: once this one has returned, an earlier one would have
        // run.
        last.dial("after.test:1").await.unwrap_err();
    });
    let begun = begun.lock().unwrap().clone();
    assert!(!begun.contains(&"late.test".to_owned()), "{begun:?}");
}
