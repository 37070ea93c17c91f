//! `udp`: an answer to each sender, and asking again.

use netpoller::{NetError, UdpSocket, spawn, time};

use crate::{SECOND, run, run_virtual, udp};

#[test]
fn each_sender_gets_its_own_answer() {
    run(async {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = server.local_addr().unwrap();
        spawn(async move { udp::echo(&server).await });
        let clients = ["one", "two"].map(|word| {
            spawn(async move {
                let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                socket.connect(addr).await.unwrap();
                let answer = udp::ask(&socket, word.as_bytes(), 10 * SECOND).await;
                assert_eq!(answer.unwrap(), word.as_bytes());
            })
        });
        for client in clients {
            client.await.unwrap();
        }
    });
}

#[test]
fn a_client_without_an_answer_asks_three_times_and_says_timeout() {
    run_virtual(async {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(silent.local_addr().unwrap()).await.unwrap();
        let start = time::now();
        let error = udp::ask(&socket, b"hello", SECOND).await.unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert!(time::now() - start >= 3 * SECOND);
        for _ in 0..3 {
            assert_eq!(silent.recv(&mut [0; 9]).await.unwrap(), 5);
        }
        assert!(silent.try_recv(&mut [0; 9]).is_err());
    });
}
