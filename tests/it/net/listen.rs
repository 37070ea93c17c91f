//! Listening: the port, parked accepts, and the close.

use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use futures_lite::future::zip;
use netpoller::{NetError, Runtime, TcpListener, TcpStream, spawn, yield_now};
use socket2::SockRef;

use crate::support::hooked::with_room_for;
use crate::support::run::{run, run_in};

#[test]
fn a_listener_tells_its_port_frees_it_on_close_and_wakes_a_parked_accept() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_ne!(address.port(), 0);
        let accepting = listener.clone();
        let parked = spawn(async move { accepting.accept().await.map(drop) });
        yield_now().await;
        listener.close().unwrap();
        let again = std::net::TcpListener::bind(address).expect("the port is free");
        drop(again);
        let error = parked.await.unwrap().unwrap_err();
        assert!(error.is_closed());
        assert!(
            error
                .to_string()
                .ends_with("use of closed network connection"),
            "{error}"
        );
        assert!(listener.close().unwrap_err().is_closed());
        assert!(listener.accept().await.unwrap_err().is_closed());
    });
}

#[test]
fn closing_a_listener_from_a_clone_ends_accept_and_frees_the_port() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = spawn({
            let listener = listener.clone();
            async move { listener.accept().await.unwrap_err() }
        });
        yield_now().await;
        listener.clone().close().unwrap();
        let again = TcpListener::bind(address).await.unwrap();
        assert_eq!(
            accepting.await.unwrap().to_string(),
            format!("accept tcp {address}: use of closed network connection")
        );
        assert!(listener.close().unwrap_err().is_closed());
        drop(listener);
        let std = again.into_std().unwrap();
        let listener = TcpListener::from_std(std).unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        client.close_write().unwrap();
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
    });
}

#[test]
fn a_closed_listener_of_which_std_has_a_duplicate_wakes_the_loop_no_more() {
    let runtime = Runtime::new().unwrap();
    let theirs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = theirs.try_clone().unwrap();
    let ours = runtime.block_on(async { TcpListener::from_std(ours).unwrap() });
    ours.close().unwrap();
    while runtime.turn(Some(Duration::ZERO)).unwrap().more {}
    let _client = std::net::TcpStream::connect(theirs.local_addr().unwrap()).unwrap();
    let before = Instant::now();
    runtime.turn(Some(Duration::from_millis(50))).unwrap();
    assert!(
        before.elapsed() >= Duration::from_millis(50),
        "it was woken"
    );
}

#[test]
fn a_listener_that_is_shut_down_through_its_descriptor_ends_accept_with_the_systems_error() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let parked = spawn({
            let listener = listener.clone();
            async move { listener.accept().await.map(drop) }
        });
        yield_now().await;
        // Not every system can shut a listener down.
        let shut = listener.with_fd(|fd| SockRef::from(&fd).shutdown(std::net::Shutdown::Both));
        if shut.unwrap().is_err() {
            return;
        }
        let error = parked.await.unwrap().unwrap_err();
        assert!(!error.is_temporary() && !error.is_closed(), "{error}");
        let address = listener.local_addr().unwrap();
        assert!(
            error
                .to_string()
                .starts_with(&format!("accept tcp {address}: ")),
            "{error}"
        );
        // The next says so too, and so does whatever serves on it.
        assert!(listener.accept().await.is_err());
        assert!(listener.serve(|_, _| async {}).await.is_err());
    });
}

#[test]
fn a_try_to_accept_takes_what_is_queued_and_waits_for_nothing() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let none = listener.try_accept().unwrap_err();
        assert_eq!(none.kind(), ErrorKind::WouldBlock);
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        for client in &clients {
            let (_stream, peer) = listener.try_accept().unwrap();
            assert_eq!(peer, client.local_addr().unwrap());
        }
        let none = listener.try_accept().unwrap_err();
        assert_eq!(none.kind(), ErrorKind::WouldBlock);
        // A later accept waits for the next connection.
        let (next, client) = zip(listener.accept(), TcpStream::connect(address)).await;
        assert_eq!(next.unwrap().1, client.unwrap().local_addr().unwrap());
        listener.close().unwrap();
        assert!(listener.try_accept().unwrap_err().is_closed());
    });
}

#[test]
fn an_accept_or_a_dial_for_which_the_selector_has_no_room_names_epoll_ctl() {
    let selector = with_room_for(1);
    let runtime = Runtime::builder().selector(selector).build().unwrap();
    run_in(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        let error = listener.accept().await.unwrap_err();
        let why = format!("accept tcp {address}: epoll_ctl: no space left on device");
        assert_eq!(error.to_string(), why);
        let error = TcpStream::connect(address).await.unwrap_err();
        let why = format!("dial tcp {address}: epoll_ctl: no space left on device");
        assert_eq!(error.to_string(), why);
    });
}

#[test]
fn an_address_that_the_system_does_not_tell_fails_with_the_system_s_error() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let no_socket = std::fs::File::open("/dev/null").unwrap();
        let replaced = listener.with_fd(|fd| {
            // SAFETY: both are open, and the second stays so.
            unsafe { libc::dup2(no_socket.as_raw_fd(), fd.as_raw_fd()) }
        });
        assert!(replaced.unwrap() >= 0);
        let error = listener.local_addr().unwrap_err();
        assert_ne!(error.kind(), ErrorKind::NotConnected);
        let said = error.to_string();
        assert!(
            said.starts_with("get tcp: getsockname: socket operation on non-socket"),
            "{said}"
        );
    });
}
