//! Listeners: many tasks that accept, servers that share one, ports taken, freed and taken again.
//!
//! Mirrors Go's `net/tcpsock_test.go` (ConcurrentAccept, Stress, ListenAfterClose),
//! `net/server_test.go`, `net/conn_test.go` and `net/listen_test.go`.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use netpoller::net::Stream;
use netpoller::{NetError, OpError, TcpListener, TcpStream, spawn, time};

use super::transport::*;

async fn concurrent_accept<T: Transport>() {
    const ACCEPTORS: usize = 10;
    let listener = T::listen().await.unwrap();
    let accepted = Rc::new(Cell::new(0));
    let acceptors: Vec<_> = (0..ACCEPTORS)
        .map(|_| {
            let (listener, accepted) = (listener.clone(), accepted.clone());
            spawn(async move {
                loop {
                    match T::accept(&listener).await {
                        Ok(_closed_by_being_dropped) => accepted.set(accepted.get() + 1),
                        Err(error) => return assert_closed::<()>(Err(error)),
                    }
                }
            })
        })
        .collect();
    for _ in 0..10 * ACCEPTORS {
        let near = T::dial(&listener).await.unwrap();
        assert_eq!(read_to_end(&near).await.unwrap(), b"");
    }
    listener.close().unwrap();
    for acceptor in acceptors {
        acceptor.await.unwrap();
    }
    assert_eq!(accepted.get(), 10 * ACCEPTORS);
}

#[test]
fn many_tasks_may_accept_on_one_listener() {
    over_streams(
        Clock::Real,
        concurrent_accept::<Tcp4>,
        concurrent_accept::<Tcp6>,
        concurrent_accept::<UnixPath>,
    );
}

async fn stress<T: Transport>() {
    const MESSAGES: usize = 500;
    const LENGTH: usize = 512;
    async fn play<K>(stream: Stream<K>, first: bool) {
        let mut buffer = [7; LENGTH];
        for _ in 0..MESSAGES {
            if first {
                stream.write_all(&buffer).await.unwrap();
            }
            stream.read_exact(&mut buffer).await.unwrap();
            if !first {
                stream.write_all(&buffer).await.unwrap();
            }
        }
        assert_eq!(buffer, [7; LENGTH]);
    }
    let listener = T::listen().await.unwrap();
    let accepting = spawn({
        let listener = listener.clone();
        async move {
            let mut served = Vec::new();
            while let Ok(stream) = T::accept(&listener).await {
                served.push(spawn(play(stream, false)));
            }
            served
        }
    });
    let clients = [0, 1, 2].map(|_| {
        let listener = listener.clone();
        spawn(async move { play(T::dial(&listener).await.unwrap(), true).await })
    });
    for client in clients {
        client.await.unwrap();
    }
    listener.close().unwrap();
    for served in accepting.await.unwrap() {
        served.await.unwrap();
    }
}

#[test]
fn several_conversations_at_once_stay_apart() {
    over_streams(
        Clock::Real,
        stress::<Tcp4>,
        stress::<Tcp6>,
        stress::<UnixPath>,
    );
}

/// More connections than are accepted just now: the backlog keeps them, with what they sent.
async fn backlog<T: Transport>() {
    const CLIENTS: u8 = 200;
    let listener = T::listen().await.unwrap();
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let client = T::dial(&listener).await.unwrap();
        client.write_all(&[number]).await.unwrap();
        clients.push(client);
    }
    for number in 0..CLIENTS {
        let server = T::accept(&listener).await.unwrap();
        let mut byte = [0];
        server.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, [number]);
    }
}

#[test]
fn connections_wait_their_turn_to_be_accepted() {
    over_streams(
        Clock::Real,
        backlog::<Tcp4>,
        backlog::<Tcp6>,
        backlog::<UnixPath>,
    );
}

async fn conn_and_listener<T: Transport>() {
    let listener = T::listen().await.unwrap();
    let (near, far) = connect::<T>(&listener).await;
    assert!(T::ends(&near).ends_with(&T::address(&listener)));
    assert!(T::ends(&far).starts_with(&T::address(&listener)));
    let (here, there) = T::ends(&near).split_once("->").map(own).unwrap();
    assert_eq!(T::ends(&far), format!("{there}->{here}"));
    near.set_deadline(in_time(millis(3_600_000))).unwrap();
    near.set_read_deadline(in_time(millis(3_600_000))).unwrap();
    near.set_write_deadline(in_time(millis(3_600_000))).unwrap();
    let echo = echo(far);
    near.write_all(b"CONN AND LISTENER TEST").await.unwrap();
    let mut buffer = [0; 22];
    near.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"CONN AND LISTENER TEST");
    near.close().unwrap();
    echo.await.unwrap();
}

fn own((one, two): (&str, &str)) -> (String, String) {
    (one.to_owned(), two.to_owned())
}

#[test]
fn both_ends_and_the_listener_agree_on_their_names() {
    over_streams(
        Clock::Real,
        conn_and_listener::<Tcp4>,
        conn_and_listener::<Tcp6>,
        conn_and_listener::<UnixPath>,
    );
}

/// Go's own test makes accept(2) fail by a hook. We make a connection that is reset before it is
/// accepted: Linux hands it out all the same, others report ECONNABORTED; `accept` returns that
/// connection or skips it, and never fails.
async fn aborted_before_accept<T: Transport<Kind = netpoller::net::Tcp>>() {
    let listener = T::listen().await.unwrap();
    T::dial(&listener).await.unwrap().abort().unwrap();
    let near = T::dial(&listener).await.unwrap();
    let mut far = T::accept(&listener).await.unwrap();
    if far.peer_addr().ok() != near.local_addr().ok() {
        assert!(far.read(&mut [0]).await.is_err(), "that one was reset");
        far = T::accept(&listener).await.unwrap();
    }
    near.write_all(b"!").await.unwrap();
    assert_eq!(far.read(&mut [0]).await.unwrap(), 1);
}

#[test]
fn a_connection_aborted_before_its_accept_does_not_fail_the_next() {
    by(Clock::Real, "tcp4", aborted_before_accept::<Tcp4>);
    by(Clock::Real, "tcp6", aborted_before_accept::<Tcp6>);
}

// ---- TCP's ports ----

fn is_in_use(error: &io::Error) -> bool {
    error.op_error().and_then(OpError::raw_os_error) == Some(libc::EADDRINUSE)
}

/// Go's TestClosingListener and TestTCPListenAfterClose: also with connections not accepted yet.
async fn listen_after_close<T: Transport<Kind = netpoller::net::Tcp>>() {
    let listener = T::listen().await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = listener.clone();
    let accepting = spawn(async move { T::accept(&accepting).await.map(drop) });
    let _accepted = T::dial(&listener).await.unwrap();
    accepting.await.unwrap().unwrap();
    let left_over = T::dial(&listener).await.unwrap();
    let parked = listener.clone();
    T::accept(&parked).await.unwrap();
    let parked = spawn(async move { T::accept(&parked).await.map(drop) });
    time::sleep(millis(10)).await;

    listener.close().unwrap();
    let again = TcpListener::bind(address).await.unwrap();
    assert_eq!(again.local_addr().unwrap(), address);
    assert_closed(parked.await.unwrap());
    assert_closed(listener.accept().await.map(drop));
    drop(left_over);
}

#[test]
fn a_closed_listeners_port_is_free_before_close_returns() {
    by(Clock::Virtual, "tcp4", listen_after_close::<Tcp4>);
    by(Clock::Virtual, "tcp6", listen_after_close::<Tcp6>);
}

async fn listen_twice(address: &str) {
    let first = TcpListener::bind(address).await.unwrap();
    let taken = first.local_addr().unwrap();
    assert_ne!(taken.port(), 0);
    let second = TcpListener::bind(taken).await;
    let error = second
        .err()
        .unwrap_or_else(|| panic!("{taken} was taken twice"));
    assert!(is_in_use(&error), "{error}");
    first.close().unwrap();
    TcpListener::bind(taken).await.unwrap();
}

#[test]
fn a_port_is_taken_once() {
    by(Clock::Real, "tcp4", || listen_twice("127.0.0.1:0"));
    by(Clock::Real, "tcp6", || listen_twice("[::1]:0"));
    by(Clock::Real, "all of tcp4", || listen_twice("0.0.0.0:0"));
    by(Clock::Real, "all of tcp6", || listen_twice("[::]:0"));
    by(Clock::Real, "mapped", || {
        listen_twice("[::ffff:127.0.0.1]:0")
    });
}

/// Each family has its own ports.
#[test]
fn the_same_port_may_be_taken_once_for_each_family() {
    by(Clock::Real, "tcp", || async {
        let mut tries = 0;
        loop {
            let one = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = one.local_addr().unwrap().port();
            match TcpListener::bind(SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), port))
                .await
            {
                Ok(_) => return,
                // Another process on this computer had it.
                Err(error) => assert!(is_in_use(&error) && tries < 5, "{error}"),
            }
            tries += 1;
        }
    });
}

// ---- servers on every kind of address ----

/// Three servers share a listener, three clients come.
async fn serve(listen: &str, dial: &str) {
    let listener = TcpListener::bind(listen).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let servers = [0, 1, 2].map(|_| {
        let listener = listener.clone();
        spawn(async move { echo(listener.accept().await.unwrap().0).await.unwrap() })
    });
    let clients = [0, 1, 2].map(|_| {
        let address = (dial.to_owned(), port);
        spawn(async move {
            let client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"TCP SERVER TEST").await.unwrap();
            let mut buffer = [0; 15];
            client.read_exact(&mut buffer).await.unwrap();
            assert_eq!(&buffer, b"TCP SERVER TEST");
        })
    });
    for task in servers.into_iter().chain(clients) {
        task.await.unwrap();
    }
}

#[test]
fn a_server_is_reached_on_every_address_it_listens_on() {
    by(Clock::Real, "127.0.0.1", || {
        serve("127.0.0.1:0", "127.0.0.1")
    });
    by(Clock::Real, "::1", || serve("[::1]:0", "::1"));
    by(Clock::Real, "0.0.0.0", || serve("0.0.0.0:0", "127.0.0.1"));
    by(Clock::Real, ":: by tcp6", || serve("[::]:0", "::1"));
    by(Clock::Real, ":: by tcp4", || serve("[::]:0", "127.0.0.1"));
    by(Clock::Real, "mapped", || {
        serve("[::ffff:127.0.0.1]:0", "127.0.0.1")
    });
}
