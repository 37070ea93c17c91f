//! What a server listens on: any listener, and several.

use std::io::{self, Read, Write};
use std::net::{TcpListener as StdListener, TcpStream as StdStream};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use netpoller::server::Listeners;
use netpoller::{
    Addr, Conn, Dispatch, ListenConfig, Peer, Protocol, Runtime, Server, TcpStream, UnixStream,
};

use socket2::{SockRef, TcpKeepalive};

use crate::support::running::{Echo, SECOND};
use crate::support::temp_path::TempPath;
use crate::support::watchdog::watchdog;

fn tcp() -> StdListener {
    StdListener::bind("127.0.0.1:0").unwrap()
}

fn unix(path: &TempPath) -> StdUnixListener {
    StdUnixListener::bind(path).unwrap()
}

fn echoes(mut stream: impl Read + Write) {
    stream.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

#[test]
fn a_server_listens_on_tcp_and_unix_at_once_in_every_dispatch() {
    for dispatch in [Dispatch::Auto, Dispatch::ReusePort, Dispatch::HandOver] {
        for workers in [1, 3] {
            let _watchdog = watchdog();
            let path = TempPath::new();
            let config = ListenConfig::new().backlog(16);
            let listeners = Listeners::from(tcp())
                .and(unix(&path))
                .and((config, "127.0.0.1:0"));
            let server = Server::new(|_| Echo).workers(workers).dispatch(dispatch);
            let bound = server.bind_to(listeners).unwrap();
            let (addrs, handle) = (bound.local_addrs(), bound.handle());
            assert_eq!(addrs[0], bound.local_addr());
            assert_eq!(addrs[1], Addr::Path(path.0.clone()));
            let serving = thread::spawn(move || bound.run());
            for _ in 0..4 {
                echoes(StdStream::connect(&addrs[0]).unwrap());
                echoes(StdUnixStream::connect(&path.0).unwrap());
                echoes(StdStream::connect(&addrs[2]).unwrap());
            }
            handle.drain(10 * SECOND);
            assert_eq!(serving.join().unwrap().unwrap().accepted(), 12);
            // A path that was given stays.
            assert!(path.0.exists());
            assert!(StdStream::connect(&addrs[0]).is_err());
        }
    }
}

#[test]
fn connections_of_a_given_listener_are_spread_over_the_workers() {
    let _watchdog = watchdog();
    let path = TempPath::new();
    let bound = Server::new(|_| Echo).workers(2).bind_to(unix(&path));
    let bound = bound.unwrap();
    let handle = bound.handle();
    let serving = thread::spawn(move || bound.run());
    let connect = |_| {
        let client = StdUnixStream::connect(&path.0).unwrap();
        echoes(&client);
        client
    };
    let clients: Vec<_> = (0..10).map(connect).collect();
    let live: Vec<_> = handle.stats().workers.iter().map(|at| at.live).collect();
    assert_eq!(live, [5, 5]);
    handle.stop();
    serving.join().unwrap().unwrap();
    drop(clients);
}

#[test]
fn the_factory_is_told_which_listener_a_peer_came_to() {
    let _watchdog = watchdog();
    for workers in [1, 2] {
        let (tell, told) = mpsc::channel();
        let server = Server::with_peer(move |peer: Peer| {
            tell.send((peer.listener, peer.addr)).unwrap();
            Echo
        });
        let bound = server.workers(workers).bind_to(vec![tcp(), tcp(), tcp()]);
        let bound = bound.unwrap();
        let (addrs, handle) = (bound.local_addrs(), bound.handle());
        let serving = thread::spawn(move || bound.run());
        for listener in [2, 0, 1, 2] {
            let client = StdStream::connect(&addrs[listener]).unwrap();
            let peer = Addr::from(client.local_addr().unwrap());
            assert_eq!(told.recv().unwrap(), (listener, peer));
        }
        handle.stop();
        serving.join().unwrap().unwrap();
    }
}

#[test]
fn a_configured_listener_has_one_port_for_all_workers() {
    let _watchdog = watchdog();
    let config = ListenConfig::new().network("tcp4");
    let server = Server::new(|_| Echo).workers(3);
    let bound = server.bind_to([(config.clone(), "127.0.0.1:0"), (config, "127.0.0.1:0")]);
    let bound = bound.unwrap();
    assert_eq!(bound.local_addrs().len(), 2);
    let (addrs, handle) = (bound.local_addrs(), bound.handle());
    let serving = thread::spawn(move || bound.run());
    addrs
        .iter()
        .for_each(|addr| echoes(StdStream::connect(addr).unwrap()));
    handle.stop();
    assert_eq!(serving.join().unwrap().unwrap().accepted(), 2);
}

#[test]
fn in_a_runtime_of_yours_one_worker_serves_all_listeners() {
    let _watchdog = watchdog();
    let path = TempPath::new();
    let server = Server::new(|_| Echo).workers(4);
    let listeners = Listeners::from(unix(&path)).and((ListenConfig::new(), "127.0.0.1:0"));
    let bound = server.bind_to(listeners).unwrap();
    let runtime = Runtime::new().unwrap();
    let serving = bound.run_in(&runtime).unwrap();
    runtime.block_on(async {
        let tcp = TcpStream::connect(bound.local_addr()).await.unwrap();
        let unix = UnixStream::connect(&path.0).await.unwrap();
        let mut answer = [0; 2];
        tcp.write_all(b"hi").await.unwrap();
        tcp.read_exact(&mut answer).await.unwrap();
        unix.write_all(b"hi").await.unwrap();
        unix.read_exact(&mut answer).await.unwrap();
        bound.handle().stop();
        assert_eq!(serving.await.unwrap().unwrap().accepted(), 2);
    });
}

#[test]
fn a_unix_client_that_is_queued_is_served_in_a_drain() {
    let _watchdog = watchdog();
    let path = TempPath::new();
    let bound = Server::new(|_| Echo).bind_to(unix(&path)).unwrap();
    let mut clients: Vec<_> = (0..20)
        .map(|_| StdUnixStream::connect(&path.0).unwrap())
        .collect();
    for client in &mut clients {
        client.write_all(b"hello").unwrap();
    }
    bound.handle().drain(10 * SECOND);
    assert_eq!(bound.run().unwrap().accepted(), 20);
    for mut client in clients {
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"hello");
    }
}

#[test]
fn a_server_on_nothing_or_on_a_taken_port_is_an_error_and_no_port_stays_open() {
    let none = Server::new(|_| Echo).bind_to(Listeners::default());
    assert_eq!(none.unwrap_err().kind(), io::ErrorKind::InvalidInput);

    let (first, taken) = (tcp(), tcp());
    let address = first.local_addr().unwrap();
    let at = taken.local_addr().unwrap();
    let listeners = Listeners::from(first).and((ListenConfig::new(), at));
    let error = Server::new(|_| Echo).bind_to(listeners).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("listen tcp {at}: bind: address already in use")
    );
    assert!(StdStream::connect(address).is_err());
}

#[test]
fn a_server_on_unix_alone_has_no_tcp_address() {
    let path = TempPath::new();
    let bound = Server::new(|_| Echo).bind_to(unix(&path)).unwrap();
    let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bound.local_addr()));
    assert!(asked.is_err());
    assert_eq!(bound.local_addrs(), [Addr::Path(path.0.clone())]);
}

#[test]
fn a_connection_over_unix_is_opened_and_its_peer_has_an_empty_path() {
    struct Names;
    impl Protocol for Names {
        fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
            let peer = conn.peer_addr();
            conn.write(format!("{peer:?}").as_bytes())?;
            conn.close();
            Ok(())
        }
        fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
    }
    let _watchdog = watchdog();
    let path = TempPath::new();
    let bound = Server::new(|_| Names).bind_to(unix(&path)).unwrap();
    let handle = bound.handle();
    let serving = thread::spawn(move || bound.run());
    let text = io::read_to_string(StdUnixStream::connect(&path.0).unwrap()).unwrap();
    assert!(text.contains("Path(\"\")"), "{text}");
    handle.stop();
    serving.join().unwrap().unwrap();
}

#[test]
fn connections_of_a_given_tcp_listener_have_go_s_defaults_as_those_of_a_bound_one() {
    struct Tells;
    impl Protocol for Tells {
        fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
            let (nodelay, idle) = conn.with_fd(|fd| {
                let socket = SockRef::from(&fd);
                io::Result::Ok((socket.tcp_nodelay()?, socket.tcp_keepalive_time()?))
            })??;
            conn.write(format!("{nodelay}, {idle:?}").as_bytes())?;
            conn.close();
            Ok(())
        }
        fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
    }
    let _watchdog = watchdog();
    let other = TcpKeepalive::new().with_time(Duration::from_secs(77));
    for workers in [1, 2] {
        let other = other.clone();
        let hook =
            ListenConfig::new().control(move |fd, _| SockRef::from(&fd).set_tcp_keepalive(&other));
        let listeners = Listeners::from(tcp())
            .and((ListenConfig::new(), "127.0.0.1:0"))
            .and((hook, "127.0.0.1:0"));
        let bound = Server::new(|_| Tells).workers(workers).bind_to(listeners);
        let bound = bound.unwrap();
        let (addrs, handle) = (bound.local_addrs(), bound.handle());
        let serving = thread::spawn(move || bound.run());
        for (addr, idle) in addrs.into_iter().zip(["15s", "15s", "77s"]) {
            let told = io::read_to_string(StdStream::connect(addr).unwrap());
            assert_eq!(told.unwrap(), format!("true, {idle}"));
        }
        handle.stop();
        serving.join().unwrap().unwrap();
    }
}

#[test]
fn a_large_answer_over_unix_arrives_whole_before_a_close_and_in_a_drain() {
    const LENGTH: usize = 8 << 20;
    /// Answers with so much, and leaves a second message unread.
    struct Sends {
        closes: bool,
    }
    impl Protocol for Sends {
        fn data(&mut self, conn: &mut Conn, _: &[u8]) -> io::Result<usize> {
            conn.write(&vec![7; LENGTH])?;
            if self.closes {
                conn.close();
            }
            Ok(1)
        }
    }
    let _watchdog = watchdog();
    for closes in [true, false] {
        let path = TempPath::new();
        let server = Server::new(move |_| Sends { closes }).workers(2);
        let bound = server.bind_to(unix(&path)).unwrap();
        let handle = bound.handle();
        let serving = thread::spawn(move || bound.run());
        let mut client = StdUnixStream::connect(&path.0).unwrap();
        client.write_all(b"a").unwrap();
        client.read_exact(&mut [0]).unwrap();
        if closes {
            // It may be refused: the connection is closing.
            let _ = client.write_all(&[0; 1000]);
        } else {
            handle.drain(60 * SECOND);
        }
        let mut rest = 0;
        let mut buffer = [0; 64 << 10];
        loop {
            match client.read(&mut buffer) {
                Ok(0) => break,
                Ok(more) => rest += more,
                Err(error) => panic!("after {rest}: {error}"),
            }
        }
        assert_eq!(rest, LENGTH - 1, "closes: {closes}");
        handle.stop();
        serving.join().unwrap().unwrap();
    }
}
