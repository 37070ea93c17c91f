//! Look-ups while the process is short of descriptors: its shortage says nothing of a name.

use std::io;
use std::net::SocketAddr;

use netpoller::{NetError, Server, TcpListener, TcpStream, UdpSocket};

use crate::child::{in_child, limit_open_files, take_all_descriptors, threads};
use crate::support::run::run;

#[test]
fn without_descriptors_a_look_up_fails_as_a_dial_does_and_the_name_exists_again_afterwards() {
    in_child(|| {
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            limit_open_files(64);
            for left in 0..3 {
                let mut taken = take_all_descriptors();
                taken.truncate(taken.len() - left);
                if left == 0 {
                    let by_address = TcpStream::connect(("127.0.0.1", port)).await.unwrap_err();
                    assert!(by_address.is_temporary(), "{by_address}");
                }
                for name in ["localhost", "there-is-none.test"] {
                    // With some descriptors left it may succeed. It never fails for good.
                    if let Err(by_name) = TcpStream::connect((name, port)).await {
                        let text = by_name.to_string();
                        assert!(text.ends_with("too many open files"), "{text}");
                        assert!(by_name.is_temporary() && !by_name.is_timeout(), "{text}");
                        assert_ne!(by_name.kind(), io::ErrorKind::NotFound, "{text}");
                    }
                }
                drop(taken);
                TcpStream::connect(("localhost", port)).await.unwrap();
            }
        });
    });
}

#[test]
fn without_descriptors_a_zone_is_not_said_to_be_missing() {
    in_child(|| {
        run(async {
            limit_open_files(64);
            let taken = take_all_descriptors();
            let error = TcpStream::connect("[fe80::1%lo]:1").await.unwrap_err();
            assert!(error.is_temporary(), "{error}");
            drop(taken);
            let error = TcpStream::connect("[fe80::1%nosuch]:1").await.unwrap_err();
            let text = "dial tcp: address fe80::1%nosuch: no such network interface";
            assert_eq!(error.to_string(), text);
        });
    });
}

#[test]
fn what_is_tried_without_descriptors_is_not_remembered_as_what_the_system_can_not_do() {
    in_child(|| {
        run(async {
            limit_open_files(64);
            let taken = take_all_descriptors();
            assert!(TcpListener::bind(":0").await.unwrap_err().is_temporary());
            assert!(UdpSocket::bind(":0").await.unwrap_err().is_temporary());
            drop(taken);
            // Both families, on one socket.
            let listener = TcpListener::bind(":0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            for host in ["127.0.0.1", "::1"] {
                let address = SocketAddr::new(host.parse().unwrap(), port);
                TcpStream::connect(address).await.unwrap();
            }
        });
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_server_is_bound_inside_a_runtime_without_a_second_thread() {
    in_child(|| {
        struct Nothing;
        impl netpoller::Protocol for Nothing {
            fn data(&mut self, _: &mut netpoller::Conn, bytes: &[u8]) -> io::Result<usize> {
                Ok(bytes.len())
            }
        }
        let before = threads();
        netpoller::Runtime::new().unwrap().block_on(async {
            let bound = Server::new(|_| Nothing)
                .workers(3)
                .bind("localhost:0")
                .unwrap();
            TcpStream::connect(bound.local_addr()).await.unwrap();
        });
        assert_eq!(threads(), before);
    });
}
