//! Socket options: Go's defaults, and that what is set is what the system has.

use std::fmt::Debug;
use std::time::Duration;

use netpoller::{Dialer, KeepAlive, NetError, TcpListener, UdpSocket, UnixDatagram, UnixStream};
use socket2::SockRef;

use crate::support::loopback::pair;
use crate::support::run::run;

#[test]
fn both_ends_have_gos_defaults() {
    run(async {
        let (server, client) = pair().await;
        for stream in [client, server] {
            assert!(stream.nodelay().unwrap());
            assert_eq!(stream.linger().unwrap(), None);
            let keepalive = KeepAlive {
                idle: Duration::from_secs(15),
                interval: Duration::from_secs(15),
                count: 9,
            };
            assert_eq!(stream.keepalive().unwrap(), Some(keepalive));
        }
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        assert!(udp.broadcast().unwrap());
    });
}

/// As in Go, where a dial asks for it and does not insist.
#[test]
fn a_keep_alive_that_the_system_refuses_fails_no_dial() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refused = KeepAlive {
            idle: Duration::from_secs(1 << 20),
            interval: Duration::from_secs(1 << 20),
            count: 9,
        };
        let dialer = Dialer::new().keepalive(Some(refused));
        let client = dialer.dial(listener.local_addr().unwrap()).await.unwrap();
        assert!(client.nodelay().unwrap());
        if cfg!(target_os = "linux") {
            client.set_keepalive(Some(refused)).unwrap_err();
        }
    });
}

#[test]
fn keep_alive_is_set_on_the_socket() {
    run(async {
        let (_server, client) = pair().await;
        client.set_keepalive(None).unwrap();
        assert_eq!(client.keepalive().unwrap(), None);
        let ours = KeepAlive::new()
            .with_idle(Duration::from_secs(7))
            .with_interval(Duration::from_secs(3))
            .with_count(4);
        client.set_keepalive(Some(ours)).unwrap();
        assert_eq!(client.keepalive().unwrap(), Some(ours));
        let system = client.with_fd(|fd| {
            let socket = SockRef::from(&fd);
            let on = socket.keepalive().unwrap();
            let interval = socket.tcp_keepalive_interval().unwrap().as_secs();
            let count = socket.tcp_keepalive_retries().unwrap();
            (on, socket.tcp_keepalive_time().unwrap(), interval, count)
        });
        assert_eq!(system.unwrap(), (true, ours.idle, 3, 4));
    });
}

#[test]
fn keep_alive_takes_zero_for_the_default_and_rounds_fractions_up() {
    run(async {
        let (_server, client) = pair().await;
        let odd = KeepAlive {
            idle: Duration::from_millis(1),
            interval: Duration::from_millis(2001),
            count: 0,
        };
        client.set_keepalive(Some(odd)).unwrap();
        let set = client.keepalive().unwrap().unwrap();
        assert_eq!(set.idle, Duration::from_secs(1));
        assert_eq!(set.interval, Duration::from_secs(3));
        assert_eq!(set.count, 9);
        let zero = KeepAlive {
            idle: Duration::ZERO,
            interval: Duration::ZERO,
            count: 0,
        };
        client.set_keepalive(Some(zero)).unwrap();
        assert_eq!(client.keepalive().unwrap(), Some(KeepAlive::default()));
    });
}

#[test]
fn nodelay_linger_and_ttl_are_set_on_the_socket() {
    run(async {
        let (_server, client) = pair().await;
        client.set_nodelay(false).unwrap();
        assert!(!client.nodelay().unwrap());
        client.set_linger(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(client.linger().unwrap(), Some(Duration::from_secs(5)));
        // Half a second must not become zero: that would be a RST.
        client.set_linger(Some(Duration::from_millis(500))).unwrap();
        assert_eq!(client.linger().unwrap(), Some(Duration::from_secs(1)));
        client.set_linger(Some(Duration::ZERO)).unwrap();
        assert_eq!(client.linger().unwrap(), Some(Duration::ZERO));
        client.set_linger(None).unwrap();
        assert_eq!(client.linger().unwrap(), None);
        client.set_ttl(42).unwrap();
        assert_eq!(client.ttl().unwrap(), 42);
    });
}

#[test]
fn buffers_are_set_and_bounded_by_the_system() {
    run(async {
        let (_server, client) = pair().await;
        let (unix, _other) = UnixStream::pair().unwrap();
        let (gram, _other) = UnixDatagram::pair().unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for (set, size) in [(16_384, 16_384), (1 << 30, 1 << 18)] {
            client.set_read_buffer(set).unwrap();
            client.set_write_buffer(set).unwrap();
            assert!(client.read_buffer().unwrap() >= size.min(set));
            assert!(client.write_buffer().unwrap() >= size.min(set));
            unix.set_read_buffer(set).unwrap();
            unix.set_write_buffer(set).unwrap();
            assert!(unix.write_buffer().unwrap() >= size.min(set));
            gram.set_write_buffer(set).unwrap();
            assert!(gram.write_buffer().unwrap() >= size.min(set));
            udp.set_read_buffer(set).unwrap();
            udp.set_write_buffer(set).unwrap();
            assert!(udp.read_buffer().unwrap() >= size.min(set));
        }
        // The system gives at most a gibibyte, and for 16 KiB about as much.
        assert!(client.read_buffer().unwrap() <= 1 << 30);
        client.set_read_buffer(16_384).unwrap();
        assert!(client.read_buffer().unwrap() <= 2 * 16_384);
        assert!(gram.read_buffer().unwrap() > 0 && udp.write_buffer().unwrap() > 0);
        assert!(unix.read_buffer().unwrap() > 0);
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_value_too_large_for_the_system_becomes_its_largest_and_not_zero() {
    run(async {
        let (_server, client) = pair().await;
        for seconds in [Duration::from_secs(1 << 32), Duration::MAX] {
            // Its lower 32 bits may be zero, which would be a RST.
            client.set_linger(Some(seconds)).unwrap();
            let most = Duration::from_secs(i32::MAX as u64);
            assert_eq!(client.linger().unwrap(), Some(most));
        }
        client.set_linger(None).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for bytes in [1 << 32, usize::MAX] {
            client.set_read_buffer(bytes).unwrap();
            assert!(client.read_buffer().unwrap() >= 1 << 17);
            client.set_write_buffer(bytes).unwrap();
            assert!(client.write_buffer().unwrap() >= 1 << 17);
            udp.set_read_buffer(bytes).unwrap();
            assert!(udp.read_buffer().unwrap() >= 1 << 17);
            udp.set_write_buffer(bytes).unwrap();
            assert!(udp.write_buffer().unwrap() >= 1 << 17);
        }
    });
}

#[test]
fn a_setting_that_the_system_refuses_fails_in_go_s_words() {
    run(async {
        let (_server, client) = pair().await;
        let error = client.set_ttl(4242).unwrap_err();
        let local = client.local_addr().unwrap();
        assert_eq!(
            error.to_string(),
            format!("set tcp {local}: setsockopt: invalid argument")
        );
        // As a number of the system's it would be -1, which asks for the default.
        assert!(client.set_ttl(u32::MAX).is_err());
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        assert!(udp.set_ttl(u32::MAX).is_err());
    });
}

#[test]
fn udp_options_are_set_on_the_socket() {
    run(async {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        udp.set_broadcast(false).unwrap();
        assert!(!udp.broadcast().unwrap());
        udp.set_ttl(7).unwrap();
        assert_eq!(udp.ttl().unwrap(), 7);
        let not_a_group = "127.0.0.1".parse().unwrap();
        let error = udp.join_multicast(not_a_group, 0).unwrap_err();
        assert!(error.to_string().starts_with("set udp 127.0.0.1:"));
    });
}

#[test]
fn a_group_is_left_once_after_it_was_joined() {
    run(async {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let group = "224.0.0.251".parse().unwrap();
        udp.leave_multicast(group, 0).unwrap_err();
        match udp.join_multicast(group, 0) {
            Ok(()) => udp.leave_multicast(group, 0).unwrap(),
            // A machine without a route for groups.
            Err(error) => {
                let number = error.op_error().unwrap().raw_os_error();
                assert_eq!(number, Some(libc::ENODEV), "{error}");
            }
        }
        udp.leave_multicast(group, 0).unwrap_err();
    });
}

#[test]
fn debug_names_the_network_and_the_close() {
    run(async {
        let (_server, client) = pair().await;
        let (unix, _other) = UnixStream::pair().unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let all: [&dyn Debug; 3] = [&client, &unix, &udp];
        for (it, network) in all.into_iter().zip(["\"tcp\"", "\"unix\"", "\"udp\""]) {
            assert!(format!("{it:?}").contains(network), "{it:?}");
        }
        client.close().unwrap();
        assert!(format!("{client:?}").contains("closed: true"));
    });
}
