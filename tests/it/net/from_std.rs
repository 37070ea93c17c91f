//! Sockets taken over from std know their ends, whatever becomes of the peer.

use std::time::Duration;

use netpoller::{KeepAlive, Runtime, TcpListener, TcpStream, UdpSocket, UnixStream, time};
use socket2::{Domain, SockRef, Socket, Type};

use crate::support::counting::counting;
use crate::support::run::{run, run_in};
use crate::support::temp_path::TempPath;

#[test]
fn a_connection_names_both_ends_after_its_peer_has_reset_it() {
    run(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = listener.local_addr().unwrap();
        let std = std::net::TcpStream::connect(peer).unwrap();
        let local = std.local_addr().unwrap();
        let stream = TcpStream::from_std(std).unwrap();

        let (accepted, _) = listener.accept().unwrap();
        let zero = Some(Duration::ZERO);
        SockRef::from(&accepted).set_linger(zero).unwrap();
        drop(accepted);

        let error = stream.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("read tcp {local}->{peer}: read: connection reset by peer")
        );
        assert_eq!(stream.peer_addr().unwrap(), peer);
        assert_eq!(stream.local_addr().unwrap(), local);
    });
}

#[test]
fn addresses_are_known_after_the_end_of_the_runtime() {
    let runtime = Runtime::new().unwrap();
    let listener = std::net::TcpListener::bind("[::1]:0").unwrap();
    let address = listener.local_addr().unwrap();
    let std = std::net::TcpStream::connect(address).unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let bound = udp.local_addr().unwrap();
    let (listener, stream, udp) = runtime.block_on(async {
        (
            TcpListener::from_std(listener).unwrap(),
            TcpStream::from_std(std).unwrap(),
            UdpSocket::from_std(udp).unwrap(),
        )
    });
    drop(runtime);
    assert_eq!(listener.local_addr().unwrap(), address);
    assert_eq!(stream.peer_addr().unwrap(), address);
    assert_eq!(udp.local_addr().unwrap(), bound);
}

#[test]
fn a_unix_connection_knows_its_peer_after_that_has_gone() {
    run(async {
        let path = TempPath::new();
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let std = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let stream = UnixStream::from_std(std).unwrap();
        drop(listener.accept().unwrap());
        drop(listener);
        stream.hung_up().await.unwrap();
        assert_eq!(stream.peer_addr().unwrap().as_pathname(), Some(&*path.0));
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    });
}

#[test]
fn a_socket_that_was_never_connected_fails_each_operation_and_keeps_no_loop_busy() {
    let (selector, counts) = counting();
    let runtime = Runtime::builder().selector(selector).build().unwrap();
    run_in(&runtime, async {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let stream = TcpStream::from_std(socket.into()).unwrap();
        assert!(stream.read(&mut [0]).await.is_err());
        assert!(stream.write(b"?").await.is_err());
        assert!(stream.write_all(b"?").await.is_err());
        assert!(stream.peer_addr().is_err());
        let before = counts.netpolls();
        time::sleep(Duration::from_millis(50)).await;
        assert!(counts.netpolls() - before < 10, "it keeps the loop busy");
        stream.close().unwrap();
    });
}

#[test]
fn what_is_accepted_from_a_listener_of_std_s_has_go_s_defaults() {
    run(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert!(stream.nodelay().unwrap());
        assert_eq!(stream.keepalive().unwrap(), Some(KeepAlive::new()));
    });
}
