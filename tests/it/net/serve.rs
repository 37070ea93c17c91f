//! Serving: for ever, through shortages, up to a limit, until the listener is closed.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use netpoller::net::{self, Serve};
use netpoller::{
    NetError, Runtime, TcpListener, TcpStream, UnixListener, UnixStream, spawn, time, yield_now,
};

use crate::support::loopback::{dial, listen, ping};
use crate::support::run::{run, run_virtual};
use crate::support::temp_path::TempPath;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn every_connection_is_served_at_once_until_the_listener_is_closed() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let listener = listen().await;
        let accepting = listener.clone();
        let serving = spawn(async move {
            let echo = async |stream: TcpStream, _| net::copy(&stream, &stream).await;
            accepting.serve(echo).await
        });
        let mut clients = Vec::new();
        for _ in 0..50 {
            clients.push(dial(&listener).await);
        }
        for client in clients.iter().chain(clients.iter().rev()) {
            ping(client).await;
        }
        listener.close().unwrap();
        assert!(serving.await.unwrap().is_ok());
        // Those under way go on.
        ping(&clients[7]).await;
        drop(clients);
    });
    while runtime.stats().tasks > 0 {
        runtime.turn(Some(SECOND)).unwrap();
    }
    assert_eq!(
        (runtime.stats().descriptors, runtime.stats().waiters),
        (0, 0)
    );
}

#[test]
fn unix_listeners_serve_too() {
    run(async {
        let path = TempPath::new();
        let listener = UnixListener::bind(&path).await.unwrap();
        let accepting = listener.clone();
        let echo = async |stream: UnixStream, _| net::copy(&stream, &stream).await;
        let serving = spawn(async move { accepting.serve(echo).await });
        let client = UnixStream::connect(&path).await.unwrap();
        client.write_all(b"ping").await.unwrap();
        client.read_exact(&mut [0; 4]).await.unwrap();
        listener.close().unwrap();
        serving.await.unwrap().unwrap();
    });
}

#[test]
fn the_next_connection_is_not_accepted_before_one_is_gone() {
    run(async {
        let listener = listen().await;
        let serve = Serve::new(listener.clone()).max_connections(2);
        let counters = serve.counters();
        let most = Rc::new(Cell::new(0));
        let (seen, counted) = (most.clone(), counters.clone());
        let serving = spawn(serve.run(move |stream: TcpStream, _| {
            seen.set(seen.get().max(counted.live()));
            async move { net::copy(&stream, &stream).await }
        }));
        let mut clients = Vec::new();
        for _ in 0..5 {
            clients.push(dial(&listener).await);
        }
        for (served, client) in clients.into_iter().enumerate() {
            // The system has accepted all of them. The server takes two at a time.
            ping(&client).await;
            assert!((served as u64 + 1..=served as u64 + 2).contains(&counters.accepted()));
            client.close().unwrap();
        }
        assert_eq!(most.get(), 2);
        while counters.live() > 0 {
            yield_now().await;
        }
        listener.close().unwrap();
        serving.await.unwrap().unwrap();
        assert_eq!(counters.accepted(), 5);
    });
}

#[test]
fn a_permit_comes_back_from_a_handler_that_panics() {
    run(async {
        let listener = listen().await;
        let serve = Serve::new(listener.clone()).max_connections(1);
        let counters = serve.counters();
        spawn(serve.run(async |_stream, _| -> () { panic!("on purpose") }));
        for _ in 0..3 {
            let client = dial(&listener).await;
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        }
        assert_eq!((counters.accepted(), counters.live()), (3, 0));
    });
}

#[test]
fn closing_the_listener_ends_it_also_while_it_is_full() {
    run(async {
        let listener = listen().await;
        let serve = Serve::new(listener.clone()).max_connections(1);
        let counters = serve.counters();
        let hold = async |stream: TcpStream, _| stream.hung_up().await;
        let serving = spawn(serve.run(hold));
        let _client = dial(&listener).await;
        while counters.live() == 0 {
            yield_now().await;
        }
        yield_now().await;
        listener.close().unwrap();
        serving.await.unwrap().unwrap();
    });
}

#[test]
fn a_listener_s_deadline_ends_it_with_a_timeout() {
    run_virtual(async {
        let listener = listen().await;
        listener.set_deadline(Some(time::now() + SECOND)).unwrap();
        let error = listener.serve(async |_, _| ()).await.unwrap_err();
        assert!(error.is_timeout(), "{error}");
    });
}

#[test]
fn a_listener_s_deadline_ends_it_also_while_it_is_full() {
    run_virtual(async {
        let listener = listen().await;
        let deadline = time::now() + SECOND;
        listener.set_deadline(Some(deadline)).unwrap();
        let _clients = [dial(&listener).await, dial(&listener).await];
        let serve = Serve::new(listener).max_connections(1);
        let hold = async |stream: TcpStream, _| stream.hung_up().await;
        let ended = time::timeout(2 * SECOND, serve.run(hold)).await;
        let error = ended.expect("it ends at its deadline").unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert!(time::now() >= deadline);
    });
}

/// The clock jumps only while the loop finds nothing to do.
#[test]
#[cfg(target_os = "linux")]
fn a_listener_that_was_shut_down_ends_it_also_while_it_is_full() {
    run_virtual(async {
        let listener = listen().await;
        let _clients = [dial(&listener).await, dial(&listener).await];
        let serve = Serve::new(listener.clone()).max_connections(1);
        let counters = serve.counters();
        let hold = async |stream: TcpStream, _| stream.hung_up().await;
        let serving = spawn(serve.run(hold));
        while counters.live() == 0 {
            yield_now().await;
        }
        yield_now().await;
        let shut =
            listener.with_fd(|fd| socket2::SockRef::from(&fd).shutdown(std::net::Shutdown::Both));
        shut.unwrap().unwrap();
        let ended = time::timeout(SECOND, serving).await;
        let error = ended.expect("it ends").unwrap().unwrap_err();
        assert!(error.to_string().ends_with("invalid argument"), "{error}");
    });
}

#[test]
#[cfg(target_os = "linux")]
fn an_accept_that_the_system_fails_names_its_call_as_in_go() {
    run_virtual(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let shut =
            listener.with_fd(|fd| socket2::SockRef::from(&fd).shutdown(std::net::Shutdown::Read));
        shut.unwrap().unwrap();
        let error = listener.accept().await.unwrap_err();
        let said = format!("accept tcp {at}: accept4: invalid argument");
        assert_eq!(error.to_string(), said);
    });
}
