//! UDP: what Go's `UDPConn` promises.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use netpoller::{NetError, UdpSocket, spawn, time, yield_now};

use crate::support::run::run;
use crate::support::schedule::virtual_runtime;

async fn bound() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    assert_ne!(address.port(), 0);
    (socket, address)
}

#[test]
fn a_server_answers_each_sender_with_no_connection_before() {
    run(async {
        let (server, address) = bound().await;
        spawn(async move {
            let mut buffer = [0; 1500];
            loop {
                let (length, from) = server.recv_from(&mut buffer).await.unwrap();
                buffer[..length].reverse();
                server.send_to(&buffer[..length], from).await.unwrap();
            }
        });
        for text in ["abc", "hello", ""] {
            let (client, own) = bound().await;
            let sent = client.send_to(text.as_bytes(), address).await.unwrap();
            assert_eq!(sent, text.len());
            let mut buffer = [1; 1500];
            let (length, from) = client.recv_from(&mut buffer).await.unwrap();
            assert_eq!(from, address);
            assert_ne!(from, own);
            let reversed: String = text.chars().rev().collect();
            assert_eq!(&buffer[..length], reversed.as_bytes());
        }
    });
}

#[test]
fn deadlines_expire_and_their_errors_read_as_in_go() {
    let runtime = virtual_runtime();
    runtime.block_on(async {
        let (socket, address) = bound().await;
        let deadline = time::now() + Duration::from_secs(5);
        socket.set_read_deadline(Some(deadline)).unwrap();
        let error = socket.recv_from(&mut [0; 10]).await.unwrap_err();
        assert!(time::now() >= deadline);
        assert_eq!(
            error.to_string(),
            format!("read udp {address}: i/o timeout")
        );
        assert!(error.is_timeout() && error.is_temporary());
        // Expired stays expired, writes are not affected, and a moved deadline ends that.
        assert!(socket.recv(&mut [0]).await.unwrap_err().is_timeout());
        socket.send_to(b"x", address).await.unwrap();
        socket.set_deadline(None).unwrap();
        assert_eq!(socket.recv_from(&mut [0]).await.unwrap(), (1, address));
        socket.set_write_deadline(Some(deadline)).unwrap();
        let error = socket.send_to(b"x", address).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("write udp {address}->{address}: i/o timeout")
        );
    });
}

#[test]
fn a_message_longer_than_the_buffer_is_cut_and_the_rest_is_lost() {
    run(async {
        let ((server, address), (client, _)) = (bound().await, bound().await);
        client.send_to(b"0123456789", address).await.unwrap();
        client.send_to(b"next", address).await.unwrap();
        let mut buffer = [0; 4];
        assert_eq!(server.peek(&mut buffer).await.unwrap(), 4);
        assert_eq!(server.recv_from(&mut buffer).await.unwrap().0, 4);
        assert_eq!(&buffer, b"0123");
        assert_eq!(server.recv(&mut buffer).await.unwrap(), 4);
        assert_eq!(&buffer, b"next");
    });
}

#[test]
fn an_empty_message_is_a_message() {
    run(async {
        let ((server, address), (client, own)) = (bound().await, bound().await);
        client.connect(address).await.unwrap();
        assert_eq!(client.send(b"").await.unwrap(), 0);
        assert_eq!(server.recv_from(&mut [0; 4]).await.unwrap(), (0, own));
        server.send_to(b"", own).await.unwrap();
        assert_eq!(client.recv(&mut [0; 4]).await.unwrap(), 0);
    });
}

#[test]
fn a_connected_socket_receives_from_its_peer_only_and_can_be_connected_again() {
    run(async {
        let ((client, own), (one, first)) = (bound().await, bound().await);
        let (two, second) = bound().await;
        assert_eq!(
            client.peer_addr().unwrap_err().kind(),
            io::ErrorKind::NotConnected
        );
        client.connect(first).await.unwrap();
        assert_eq!(client.peer_addr().unwrap(), first);
        two.send_to(b"two", own).await.unwrap();
        one.send_to(b"one", own).await.unwrap();
        let mut buffer = [0; 3];
        client.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"one");

        client.connect(second.to_string()).await.unwrap();
        assert_eq!(client.peer_addr().unwrap(), second);
        client.send(b"again").await.unwrap();
        assert_eq!(two.recv_from(&mut [0; 9]).await.unwrap(), (5, own));
        let error = client.send_to(b"x", first).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("write udp {own}->{first}: use of send_to with a connected socket")
        );
    });
}

#[test]
fn a_connected_socket_survives_connection_refused() {
    run(async {
        let (gone, address) = bound().await;
        gone.close().unwrap();
        let (client, own) = bound().await;
        client.connect(address).await.unwrap();
        for _ in 0..3 {
            client.send(b"hello?").await.unwrap();
            let error = client.recv(&mut [0; 9]).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("read udp {own}->{address}: read: connection refused")
            );
        }
        // Each refusal is reported once. Then a receive waits again, and gets the next message.
        let waits = spawn({
            let client = client.clone();
            async move { client.recv(&mut [0; 9]).await }
        });
        yield_now().await;
        yield_now().await;
        assert!(!waits.is_finished());
        let back = UdpSocket::bind(address).await.unwrap();
        back.send_to(b"here", own).await.unwrap();
        assert_eq!(waits.await.unwrap().unwrap(), 4);
        client.send(b"good").await.unwrap();
        assert_eq!(back.recv_from(&mut [0; 9]).await.unwrap(), (4, own));
    });
}

#[test]
fn receives_are_served_in_the_order_they_came() {
    run(async {
        let ((server, address), (client, _)) = (bound().await, bound().await);
        let served = Rc::new(RefCell::new(Vec::new()));
        let tasks: Vec<_> = (0..4_u8)
            .map(|task| {
                let (server, served) = (server.clone(), served.clone());
                spawn(async move {
                    let mut byte = [0];
                    server.recv_from(&mut byte).await.unwrap();
                    served.borrow_mut().push((task, byte[0]));
                })
            })
            .collect();
        yield_now().await;
        yield_now().await;
        for byte in 0..4 {
            client.send_to(&[byte], address).await.unwrap();
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*served.borrow(), [(0, 0), (1, 1), (2, 2), (3, 3)]);
    });
}

#[test]
fn a_close_ends_parked_receives_and_frees_the_port() {
    run(async {
        let (socket, address) = bound().await;
        let parked = spawn({
            let socket = socket.clone();
            async move { socket.recv_from(&mut [0]).await.unwrap_err() }
        });
        yield_now().await;
        socket.close().unwrap();
        let _again = UdpSocket::bind(address).await.unwrap();
        let closed = format!("udp {address}: use of closed network connection");
        assert_eq!(parked.await.unwrap().to_string(), format!("read {closed}"));
        let (_, other) = bound().await;
        let error = socket.send_to(b"x", other).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("write udp {address}->{other}: use of closed network connection")
        );
        let error = socket.set_broadcast(true).unwrap_err();
        assert_eq!(error.to_string(), format!("set {closed}"));
        assert!(socket.connect(other).await.unwrap_err().is_closed());
        assert!(socket.close().unwrap_err().is_closed());
    });
}

#[test]
fn errors_read_as_in_go() {
    run(async {
        let (_taken, address) = bound().await;
        let error = UdpSocket::bind(address).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("listen udp {address}: bind: address already in use")
        );
        let (socket, own) = bound().await;
        let error = socket.send(b"x").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("write udp {own}: write: destination address required")
        );
        let error = socket.send_to(&[0; 70_000], address).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("write udp {own}->{address}: sendto: message too long")
        );
        // The socket still works.
        socket.send_to(b"x", own).await.unwrap();
        assert_eq!(socket.recv_from(&mut [0]).await.unwrap(), (1, own));
    });
}

#[test]
fn try_recv_says_would_block_and_then_receives() {
    run(async {
        let ((server, address), (client, _)) = (bound().await, bound().await);
        let mut buffer = [0; 9];
        let error = server.try_recv(&mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        client.connect(address).await.unwrap();
        client.writable().await.unwrap();
        assert_eq!(client.try_send(b"now").unwrap(), 3);
        server.readable().await.unwrap();
        assert_eq!(server.try_recv(&mut buffer).unwrap(), 3);
    });
}

#[test]
fn ipv6_and_a_socket_of_both_families_work() {
    run(async {
        let Ok(both) = UdpSocket::bind("[::]:0").await else {
            return eprintln!("no IPv6 here");
        };
        let port = both.local_addr().unwrap().port();
        let (v4, own) = bound().await;
        v4.send_to(b"four", ("127.0.0.1", port)).await.unwrap();
        // An IPv4 peer shows as IPv4, and is answered as that.
        let (length, from) = both.recv_from(&mut [0; 9]).await.unwrap();
        assert_eq!((length, from), (4, own));
        both.send_to(b"back", from).await.unwrap();
        assert_eq!(v4.recv(&mut [0; 9]).await.unwrap(), 4);
        let (other, address) = bound().await;
        for (socket, to) in [(&v4, own), (&other, address)] {
            both.connect(to).await.unwrap();
            assert_eq!(both.send(b"hi").await.unwrap(), 2);
            assert_eq!(socket.recv(&mut [0; 9]).await.unwrap(), 2);
        }

        let Ok(both) = UdpSocket::bind("[::]:0").await else {
            return;
        };
        let port = both.local_addr().unwrap().port();
        if let Ok(v6) = UdpSocket::bind("[::1]:0").await {
            v6.send_to(b"six", ("::1", port)).await.unwrap();
            let (length, from) = both.recv_from(&mut [0; 9]).await.unwrap();
            assert_eq!((length, from), (3, v6.local_addr().unwrap()));
            v6.set_ttl(3).unwrap();
            assert_eq!(v6.ttl().unwrap(), 3);
        }
    });
}

#[test]
fn names_and_empty_hosts_work_as_in_go() {
    run(async {
        let everywhere = UdpSocket::bind(":0").await.unwrap();
        let port = everywhere.local_addr().unwrap().port();
        let (client, own) = bound().await;
        client.send_to(b"x", ("localhost", port)).await.unwrap();
        assert_eq!(everywhere.recv_from(&mut [0]).await.unwrap(), (1, own));
        client.connect(format!(":{port}")).await.unwrap();
        client.send(b"y").await.unwrap();
        assert_eq!(everywhere.recv_from(&mut [0]).await.unwrap().0, 1);
        let error = client.connect("127.0.0.1:99999").await.unwrap_err();
        assert!(error.to_string().starts_with("dial udp"), "{error}");
        let error = UdpSocket::bind("127.0.0.1").await.unwrap_err();
        assert!(error.to_string().starts_with("listen udp"), "{error}");
    });
}

#[test]
fn many_messages_both_ways_at_once_all_arrive() {
    run(async {
        let ((server, address), (client, _)) = (bound().await, bound().await);
        client.connect(address).await.unwrap();
        let echo = spawn(async move {
            let mut buffer = [0; 100];
            for _ in 0..1000 {
                let (length, from) = server.recv_from(&mut buffer).await.unwrap();
                server.send_to(&buffer[..length], from).await.unwrap();
            }
        });
        let mut buffer = [0; 100];
        for n in 0..1000_u32 {
            client.send(&n.to_be_bytes()).await.unwrap();
            assert_eq!(client.recv(&mut buffer).await.unwrap(), 4);
            assert_eq!(buffer[..4], n.to_be_bytes());
        }
        echo.await.unwrap();
    });
}

#[test]
fn a_socket_comes_from_std_and_goes_back() {
    run(async {
        let std = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = std.local_addr().unwrap();
        let socket = UdpSocket::from_std(std).unwrap();
        let (client, own) = bound().await;
        client.send_to(b"x", address).await.unwrap();
        assert_eq!(socket.recv_from(&mut [0]).await.unwrap(), (1, own));
        let std = socket.into_std().unwrap();
        assert_eq!(std.local_addr().unwrap(), address);
    });
}

#[test]
fn a_receive_into_an_empty_buffer_takes_no_message_unless_it_asks_for_the_sender() {
    run(async {
        let (ours, own) = bound().await;
        let (theirs, address) = bound().await;
        ours.connect(address).await.unwrap();
        // With nothing there it waits for nothing.
        assert_eq!(ours.recv(&mut []).await.unwrap(), 0);
        assert_eq!(ours.try_recv(&mut []).unwrap(), 0);
        assert_eq!(ours.peek(&mut []).await.unwrap(), 0);
        theirs.send_to(b"kept", own).await.unwrap();
        ours.readable().await.unwrap();
        assert_eq!(ours.recv(&mut []).await.unwrap(), 0);
        assert_eq!(ours.try_recv(&mut []).unwrap(), 0);
        assert_eq!(ours.peek(&mut []).await.unwrap(), 0);
        let mut buffer = [0; 8];
        assert_eq!(ours.recv(&mut buffer).await.unwrap(), 4);
        assert_eq!(&buffer[..4], b"kept");

        // Where the sender is asked for, one is taken, as in Go.
        let (sender, from) = bound().await;
        sender.send_to(b"cut", address).await.unwrap();
        sender.send_to(b"next", address).await.unwrap();
        assert_eq!(theirs.recv_from(&mut []).await.unwrap(), (0, from));
        assert_eq!(theirs.recv_from(&mut buffer).await.unwrap(), (4, from));
    });
}

#[test]
fn a_mapped_address_is_an_ipv4_address() {
    run(async {
        let (receiver, address) = bound().await;
        let (sender, own) = bound().await;
        let mapped = |address: SocketAddr| match address {
            SocketAddr::V4(v4) => SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())),
            SocketAddr::V6(_) => address,
        };
        let mut buffer = [0; 8];
        sender.send_to(b"1", mapped(address)).await.unwrap();
        let text = mapped(address).to_string();
        sender.send_to(b"2", text).await.unwrap();
        for _ in 0..2 {
            assert_eq!(receiver.recv_from(&mut buffer).await.unwrap(), (1, own));
        }
        // A socket of both families sends to it as well.
        if let Ok(both) = UdpSocket::bind("[::]:0").await {
            both.send_to(b"3", mapped(address)).await.unwrap();
            assert_eq!(receiver.recv_from(&mut buffer).await.unwrap().0, 1);
        }
        sender.connect(mapped(address)).await.unwrap();
        assert_eq!(sender.peer_addr().unwrap(), address);
        let bound = UdpSocket::bind(mapped("127.0.0.1:0".parse().unwrap())).await;
        assert!(bound.unwrap().local_addr().unwrap().is_ipv4());
        let group = "224.0.0.251".parse::<std::net::Ipv4Addr>().unwrap();
        let joined = sender.join_multicast(group.to_ipv6_mapped().into(), 0);
        // A machine without a route for groups reports ENODEV, and for a wrong family another
        // error.
        if let Err(error) = joined {
            let number = error.op_error().unwrap().raw_os_error();
            assert_eq!(number, Some(libc::ENODEV), "{error}");
        }
    });
}

#[test]
fn the_ends_of_a_connected_socket_are_what_the_system_says() {
    run(async {
        let (peer, address) = bound().await;
        // Bound to every address, it gets the one that the route has.
        let ours = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        assert!(ours.local_addr().unwrap().ip().is_unspecified());
        ours.connect(("0.0.0.0", address.port())).await.unwrap();
        assert_eq!(ours.peer_addr().unwrap(), address);
        assert_eq!(ours.local_addr().unwrap().ip(), address.ip());
        ours.close().unwrap();
        assert_eq!(ours.peer_addr().unwrap(), address);
        drop(peer);
    });
}
