//! Names and addresses: what Go's `net.Dial` and `net.Listen` make of them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use netpoller::{Addr, Dialer, ListenConfig, NetError, TcpListener, TcpStream, ToAddr};

use crate::support::run::run;

/// What a dial of `addr` comes to, without connecting anywhere.
async fn dialled(dialer: Dialer, addr: impl ToAddr) -> Result<Vec<SocketAddr>, String> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let tell = seen.clone();
    let dialer = dialer.control(move |_, address| {
        tell.lock().unwrap().push(address);
        Err(io::Error::other("far enough"))
    });
    let error = dialer.dial(addr).await.unwrap_err().to_string();
    let seen = seen.lock().unwrap().clone();
    match seen.is_empty() {
        true => Err(error),
        false => Ok(seen),
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn what_is_no_address_is_refused_in_go_s_words() {
    let too_long = format!("{}:1", ["a"; 200].join("."));
    let label_too_long = format!("{}:1", "a".repeat(64));
    let cases = [
        ("", "missing address"),
        ("127.0.0.1", "address 127.0.0.1: missing port in address"),
        ("::1:80", "address ::1:80: too many colons in address"),
        ("[::1", "address [::1: missing ']' in address"),
        ("[::1]", "address [::1]: missing port in address"),
        ("a[b:80", "address a[b:80: unexpected '[' in address"),
        ("a]b:80", "address a]b:80: unexpected ']' in address"),
        ("127.0.0.1:xyz", "lookup tcp/xyz: unknown port"),
        ("127.0.0.1:ht\0tp", "lookup tcp/ht\0tp: unknown port"),
        ("127.0.0.1:65536", "address 65536: invalid port"),
        ("127.0.0.1:-1", "address -1: invalid port"),
        (":99999999999", "address 99999999999: invalid port"),
        ("127.0.0.1: 9", "lookup tcp/ 9: unknown port"),
        ("127.0.0.1: 70000", "lookup tcp/ 70000: unknown port"),
        ("127.0.0.1: +9", "lookup tcp/ +9: unknown port"),
        ("127.0.0.1:9 ", "lookup tcp/9 : unknown port"),
        ("nosuch.invalid:80", "lookup nosuch.invalid: no such host"),
        ("a b:1", "lookup a b: no such host"),
        ("a\0b:1", "lookup a\0b: no such host"),
        ("-a:1", "lookup -a: no such host"),
        ("300.1.1.1:1", "lookup 300.1.1.1: no such host"),
        ("1.2:1", "lookup 1.2: no such host"),
        ("0x7f.1:1", "lookup 0x7f.1: no such host"),
        ("0x7f000001:1", "lookup 0x7f000001: no such host"),
        ("[fe80::1%]:1", "lookup fe80::1%: no such host"),
        ("127.0.0.1%lo:1", "lookup 127.0.0.1%lo: no such host"),
        (
            "[fe80::1%nosuch]:1",
            "address fe80::1%nosuch: no such network interface",
        ),
        (
            "[fe80::1%+1]:1",
            "address fe80::1%+1: no such network interface",
        ),
    ];
    run(async {
        for (addr, reason) in cases {
            let error = TcpStream::connect(addr).await.unwrap_err();
            assert_eq!(error.to_string(), format!("dial tcp: {reason}"), "{addr:?}");
            let asked = error.op_error().unwrap().addr.clone();
            assert_eq!(
                asked,
                Some(Addr::Name(addr.into())),
                "the error keeps what was asked for"
            );
            assert!(!error.is_timeout() && !error.is_temporary(), "{addr:?}");
            if !addr.is_empty() {
                let error = TcpListener::bind(addr).await.unwrap_err();
                assert_eq!(error.to_string(), format!("listen tcp: {reason}"));
            }
        }
        for addr in [&too_long, &label_too_long] {
            let error = TcpStream::connect(addr).await.unwrap_err();
            let name = addr.strip_suffix(":1").unwrap();
            assert_eq!(
                error.to_string(),
                format!("dial tcp: lookup {name}: no such host")
            );
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        }
    });
}

#[test]
fn an_unknown_network_is_an_error_of_the_operation() {
    run(async {
        for network in ["foo", "", "TCP", "udp", "unix", "tcp5"] {
            let error = Dialer::new().network(network).dial("127.0.0.1:1").await;
            let text = format!("dial {network}: unknown network {network}");
            assert_eq!(error.unwrap_err().to_string(), text);
            let error = ListenConfig::new().network(network).bind(":0").await;
            let text = format!("listen {network}: unknown network {network}");
            assert_eq!(error.unwrap_err().to_string(), text);
        }
    });
}

#[test]
fn the_network_chooses_the_family() {
    run(async {
        for (network, addr, found) in [
            ("tcp", "127.0.0.1:1", Ok("127.0.0.1:1")),
            ("tcp4", "127.0.0.1:1", Ok("127.0.0.1:1")),
            ("tcp6", "127.0.0.1:1", Err("127.0.0.1")),
            ("tcp", "[::1]:1", Ok("[::1]:1")),
            ("tcp4", "[::1]:1", Err("::1")),
            ("tcp6", "[::1]:1", Ok("[::1]:1")),
            ("tcp", "[::ffff:127.0.0.1]:1", Ok("127.0.0.1:1")),
            ("tcp6", "[::ffff:127.0.0.1]:1", Err("::ffff:127.0.0.1")),
            ("tcp", ":1", Ok("127.0.0.1:1")),
            ("tcp4", "[]:1", Ok("127.0.0.1:1")),
            ("tcp6", ":1", Ok("[::1]:1")),
            ("tcp", "0.0.0.0:1", Ok("127.0.0.1:1")),
            ("tcp6", "[::]:1", Ok("[::1]:1")),
            ("tcp", "both.test:1", Ok("127.0.0.7:1 [::7]:1")),
            ("tcp4", "both.test:1", Ok("127.0.0.7:1")),
            ("tcp6", "both.test:1", Ok("[::7]:1")),
            ("tcp6", "four.test:1", Err("four.test")),
        ] {
            let dialer = Dialer::new().network(network).resolver(|host| {
                let four = Ipv4Addr::new(127, 0, 0, 7).into();
                let six = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 7).into();
                match host {
                    "both.test" => Ok(vec![four, six]),
                    _ => Ok(vec![four]),
                }
            });
            let expected = match found {
                Ok(all) => Ok(all.split(' ').map(address).collect()),
                Err(host) => Err(format!(
                    "dial {network}: address {host}: no suitable address found"
                )),
            };
            assert_eq!(dialled(dialer, addr).await, expected, "{network} {addr}");
        }
    });
}

#[test]
fn ports_have_names_and_may_be_empty() {
    run(async {
        for (addr, found) in [
            ("[::1]:http", "[::1]:80"),
            ("127.0.0.1:HTTPS", "127.0.0.1:443"),
            ("127.0.0.1:domain", "127.0.0.1:53"),
            ("127.0.0.1:", "127.0.0.1:0"),
            (":", "127.0.0.1:0"),
            ("127.0.0.1:+080", "127.0.0.1:80"),
            ("127.0.0.1:+", "127.0.0.1:0"),
        ] {
            let seen = dialled(Dialer::new(), addr).await;
            assert_eq!(seen, Ok(vec![address(found)]), "{addr}");
        }
    });
}

#[test]
fn zones_are_interfaces_by_name_or_number() {
    run(async {
        let loopback = match cfg!(target_os = "linux") {
            true => "lo",
            false => "lo0",
        };
        let expected = vec![address("[fe80::1%1]:80")];
        for zone in [loopback, "1"] {
            let addr = format!("[fe80::1%{zone}]:80");
            assert_eq!(dialled(Dialer::new(), &addr).await, Ok(expected.clone()));
            let host = format!("fe80::1%{zone}");
            assert_eq!(
                dialled(Dialer::new(), (host, 80)).await,
                Ok(expected.clone())
            );
        }
    });
}

#[test]
fn an_address_can_be_given_in_many_ways() {
    run(async {
        let four = address("127.0.0.1:80");
        let expected = Ok(vec![four]);
        let text = String::from("127.0.0.1:80");
        let dialer = Dialer::new;
        assert_eq!(dialled(dialer(), "127.0.0.1:80").await, expected);
        assert_eq!(dialled(dialer(), &text).await, expected);
        assert_eq!(dialled(dialer(), text.clone()).await, expected);
        assert_eq!(dialled(dialer(), four).await, expected);
        assert_eq!(dialled(dialer(), &four).await, expected);
        assert_eq!(dialled(dialer(), ("127.0.0.1", 80)).await, expected);
        assert_eq!(
            dialled(dialer(), (String::from("127.0.0.1"), 80)).await,
            expected
        );
        assert_eq!(dialled(dialer(), (four.ip(), 80)).await, expected);
        assert_eq!(dialled(dialer(), &("127.0.0.1", 80)).await, expected);
        assert_eq!(dialled(dialer(), ("", 80)).await, expected);
        assert_eq!(
            dialled(dialer(), ("::1", 80)).await,
            Ok(vec![address("[::1]:80")])
        );
    });
}

#[test]
fn a_path_of_a_unix_socket_is_no_tcp_address_even_if_it_is_empty() {
    run(async {
        for path in ["", "@abstract", "/tmp/socket"] {
            let addr = Addr::Path(path.into());
            let text = format!("listen tcp: address {addr}: missing port in address");
            let error = TcpListener::bind(&addr).await.unwrap_err();
            assert_eq!(error.to_string(), text);
            let text = format!("dial tcp: address {addr}: missing port in address");
            let error = TcpStream::connect(&addr).await.unwrap_err();
            assert_eq!(error.to_string(), text);
        }
    });
}

#[test]
fn listening_without_a_host_is_listening_everywhere() {
    run(async {
        for (network, addr, local) in [
            ("tcp", "", "::"),
            ("tcp", ":0", "::"),
            ("tcp", ":", "::"),
            ("tcp", "0.0.0.0:0", "::"),
            ("tcp", "[::]:0", "::"),
            ("tcp4", ":0", "0.0.0.0"),
            ("tcp4", "[::]:0", "0.0.0.0"),
            ("tcp6", ":0", "::"),
            ("tcp6", "[::]:0", "::"),
            ("tcp", "127.0.0.1:0", "127.0.0.1"),
            ("tcp", "[::1]:0", "::1"),
            ("tcp", "localhost:0", "127.0.0.1"),
        ] {
            let listener = ListenConfig::new()
                .network(network)
                .bind(addr)
                .await
                .unwrap();
            let bound = listener.local_addr().unwrap();
            assert_eq!(
                bound.ip(),
                local.parse::<IpAddr>().unwrap(),
                "{network} {addr}"
            );
            assert_ne!(bound.port(), 0, "port 0 is reported");
        }
        let error = ListenConfig::new()
            .network("tcp6")
            .bind("127.0.0.1:0")
            .await;
        let text = "listen tcp6: address 127.0.0.1: no suitable address found";
        assert_eq!(error.unwrap_err().to_string(), text);
    });
}

#[test]
fn listening_everywhere_takes_both_families_and_shows_ipv4_peers_as_such() {
    run(async {
        let listener = TcpListener::bind(":0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "::1", "", "localhost"] {
            let stream = TcpStream::connect((host, port)).await.unwrap();
            let (accepted, peer) = listener.accept().await.unwrap();
            assert_eq!(peer, stream.local_addr().unwrap());
            assert_eq!(accepted.local_addr().unwrap(), stream.peer_addr().unwrap());
            assert_eq!(peer.is_ipv4(), host != "::1");
        }
    });
}

#[test]
fn ipv4_stays_out_of_tcp6_and_only_v6() {
    run(async {
        for config in [
            ListenConfig::new().network("tcp6"),
            ListenConfig::new().only_v6(true),
        ] {
            let listener = config.bind(":0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let refused = TcpStream::connect(("127.0.0.1", port)).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            TcpStream::connect(("::1", port)).await.unwrap();
        }
        let both = ListenConfig::new().network("tcp6").only_v6(false);
        let listener = both.bind(":0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    });
}

#[test]
fn a_listener_without_a_runtime_is_bound_as_one_in_a_runtime_is() {
    let config = ListenConfig::new();
    for (addr, local) in [("", "::"), ("localhost:0", "127.0.0.1"), ("[::1]:0", "::1")] {
        let bound = config.bind_std(addr).unwrap().local_addr().unwrap();
        assert_eq!(bound.ip(), local.parse::<IpAddr>().unwrap(), "{addr:?}");
    }
    let error = config.bind_std("nosuch.invalid:1").unwrap_err();
    let text = "listen tcp: lookup nosuch.invalid: no such host";
    assert_eq!(error.to_string(), text);
    run(async {
        let listener = TcpListener::from_std(config.bind_std("127.0.0.1:0").unwrap()).unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await;
        listener.accept().await.unwrap();
        dialled.unwrap();
    });
}

#[test]
fn a_taken_port_is_an_error_that_names_what_was_asked_for() {
    run(async {
        let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let taken = first.local_addr().unwrap();
        let error = TcpListener::bind(taken).await.unwrap_err();
        let text = format!("listen tcp {taken}: bind: address already in use");
        assert_eq!(error.to_string(), text);
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(error.op_error().unwrap().addr, Some(Addr::Socket(taken)));

        // `only_v6` changes which addresses will do, and not what was asked for.
        let only_v6 = ListenConfig::new().only_v6(true);
        let first = only_v6.bind("[::1]:0").await.unwrap();
        let taken = first.local_addr().unwrap();
        let text = format!("listen tcp {taken}: bind: address already in use");
        assert_eq!(only_v6.bind(taken).await.unwrap_err().to_string(), text);
        assert_eq!(only_v6.bind_std(taken).unwrap_err().to_string(), text);
        let unsuitable = only_v6.bind("127.0.0.1:0").await.unwrap_err();
        let text = "listen tcp: address 127.0.0.1: no suitable address found";
        assert_eq!(unsuitable.to_string(), text);
        let error = only_v6.network("tcp6").bind(taken).await.unwrap_err();
        assert!(error.to_string().starts_with("listen tcp6 "), "{error}");

        let everywhere = TcpListener::bind(":0").await.unwrap();
        let port = everywhere.local_addr().unwrap().port();
        let error = TcpListener::bind(format!(":{port}")).await.unwrap_err();
        let text = format!("listen tcp :{port}: bind: address already in use");
        assert_eq!(error.to_string(), text);
    });
}

#[test]
fn a_listener_s_hook_sees_the_socket_before_it_is_bound() {
    run(async {
        let config = ListenConfig::new().control(|socket, address| {
            let socket = socket2::SockRef::from(&socket);
            assert_eq!(socket.local_addr()?.as_socket().unwrap().port(), 0);
            assert!(address.ip().is_loopback());
            socket.set_recv_buffer_size(8192)
        });
        config.bind("127.0.0.1:0").await.unwrap();
        let config = ListenConfig::new().control(|_, _| Err(io::Error::other("not today")));
        let error = config.bind("127.0.0.1:7").await.unwrap_err();
        assert_eq!(error.to_string(), "listen tcp 127.0.0.1:7: not today");
    });
}

#[test]
fn a_listener_takes_ipv4_of_a_name_that_has_both() {
    run(async {
        let config = ListenConfig::new()
            .resolver(|_| Ok(vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]));
        let listener = config.bind("here.test:0").await.unwrap();
        assert_eq!(listener.local_addr().unwrap().ip(), Ipv4Addr::LOCALHOST);
    });
}

#[test]
fn a_pair_of_any_kind_of_host_and_port_is_an_address() {
    let expected = "127.0.0.1:80".to_addr();
    assert_eq!((std::net::Ipv4Addr::LOCALHOST, 80).to_addr(), expected);
    assert_eq!(("127.0.0.1", 80).to_addr(), expected);
    let expected = "[::1]:80".to_addr();
    assert_eq!((std::net::Ipv6Addr::LOCALHOST, 80).to_addr(), expected);
}
