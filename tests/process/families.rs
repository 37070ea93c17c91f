//! A system with only one family of addresses: a filter of system calls refuses the other.

use netpoller::{ListenConfig, Server, TcpListener, TcpStream, UdpSocket, spawn};

use crate::child::{filter_calls, in_child};
use crate::support::run::run;

/// From here on `socket` fails with EAFNOSUPPORT for this family.
fn switch_off(family: i32) {
    const ERRNO: u32 = 0x0005_0000;
    const ALLOW: u32 = 0x7fff_0000;
    const NUMBER_AT: u32 = 0;
    const FIRST_ARGUMENT_AT: u32 = 16;
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let give = (libc::BPF_RET | libc::BPF_K) as u16;
    let line = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        line(load, 0, 0, NUMBER_AT),
        line(equal, 0, 3, libc::SYS_socket as u32),
        line(load, 0, 0, FIRST_ARGUMENT_AT),
        line(equal, 0, 1, family as u32),
        line(give, 0, 0, ERRNO | libc::EAFNOSUPPORT as u32),
        line(give, 0, 0, ALLOW),
    ];
    filter_calls(&mut filter);
}

/// What a listener says its address is can be dialled, and so can its host.
fn everything_works(hosts: &[&str]) {
    run(async {
        for host in hosts {
            let address = format!("{host}:0");
            let listener = TcpListener::bind(&address).await.unwrap();
            let at = listener.local_addr().unwrap();
            let serving = spawn({
                let listener = listener.clone();
                async move { listener.serve(|_, _| async {}).await }
            });
            TcpStream::connect(at).await.unwrap();
            let by_name = format!("{host}:{}", at.port());
            TcpStream::connect(&by_name).await.unwrap();
            listener.close().unwrap();
            serving.await.unwrap().unwrap();

            let socket = UdpSocket::bind(&address).await.unwrap();
            let to = format!("{host}:{}", socket.local_addr().unwrap().port());
            socket.send_to(b"hello", &to).await.unwrap();
            assert_eq!(socket.recv_from(&mut [0; 9]).await.unwrap().0, 5);
        }
        drop(ListenConfig::new().bind(":0").await.unwrap());
    });
    struct Nothing;
    impl netpoller::Protocol for Nothing {
        fn data(&mut self, _: &mut netpoller::Conn, bytes: &[u8]) -> std::io::Result<usize> {
            Ok(bytes.len())
        }
    }
    drop(Server::new(|_| Nothing).bind(":0").unwrap());
}

#[test]
fn without_ipv6_all_works_over_ipv4() {
    in_child(|| {
        switch_off(libc::AF_INET6);
        everything_works(&["", "localhost"]);
        run(async {
            let error = TcpStream::connect("[::1]:1").await.unwrap_err();
            assert!(error.to_string().contains("not supported"), "{error}");
        });
    });
}

#[test]
fn without_ipv4_all_works_over_ipv6() {
    in_child(|| {
        switch_off(libc::AF_INET);
        everything_works(&[""]);
        run(async {
            let error = TcpStream::connect("127.0.0.1:1").await.unwrap_err();
            assert!(error.to_string().contains("not supported"), "{error}");
        });
    });
}
