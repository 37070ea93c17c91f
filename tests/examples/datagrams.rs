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

#[test]
fn a_sender_that_cannot_be_answered_ends_nothing() {
    run(async {
        let server = UdpSocket::bind("[::1]:0").await.unwrap();
        let addr = server.local_addr().unwrap();
        let same = server.clone();
        spawn(async move { udp::echo(&same).await });
        let client = UdpSocket::bind("[::1]:0").await.unwrap();
        client.connect(addr).await.unwrap();
        server.set_write_deadline(Some(time::now())).unwrap();
        client.send(b"lost").await.unwrap();
        time::sleep(SECOND / 50).await;
        server.set_write_deadline(None).unwrap();
        // The longest message that there is.
        let longest = vec![7; 65_527];
        let answer = udp::ask(&client, &longest, 10 * SECOND).await;
        assert_eq!(answer.unwrap(), longest);
    });
}
