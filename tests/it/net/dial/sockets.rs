//! Where a socket dials from, with what options, and what the system gets wrong.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use netpoller::reactor::{Event, Harvest, MioSelector, Readiness, Selector, Token};
use netpoller::{Addr, Dialer, KeepAlive, NetError, Runtime, TcpListener, spawn};
use socket2::SockRef;

use super::{SECOND, both_families};
use crate::support::dead_ends::{Silent, closed};
use crate::support::hooked::{Hook, hooked_by};
use crate::support::run::{run_clean as run, run_clean_in, run_virtual_clean as run_virtual};

#[test]
fn the_local_address_is_used_and_named_in_errors() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let free = closed();
        let local = SocketAddr::from(([127, 0, 0, 1], free.port));
        let stream = dialer_from(local).dial(address).await.unwrap();
        assert_eq!(stream.local_addr().unwrap(), local);
        assert_eq!(listener.accept().await.unwrap().1, local);

        // Written as IPv6, it is the same address.
        for mapped in ["::ffff:127.0.0.1", "::ffff:0.0.0.0"] {
            let mapped = SocketAddr::new(mapped.parse().unwrap(), 0);
            let dialer = Dialer::new().local_addr(mapped);
            let stream = dialer.dial(address).await.unwrap();
            assert_eq!(stream.local_addr().unwrap().ip(), Ipv4Addr::LOCALHOST);
        }

        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let stream = Dialer::new().local_addr(any).dial(address).await.unwrap();
        assert_eq!(stream.local_addr().unwrap().ip(), Ipv4Addr::LOCALHOST);

        let (local, closed) = (SocketAddr::from(([127, 0, 0, 1], 0)), free.port);
        let error = Dialer::new()
            .local_addr(local)
            .dial(("127.0.0.1", closed))
            .await
            .unwrap_err();
        let text = format!("dial tcp 127.0.0.1:0->127.0.0.1:{closed}: connect: connection refused");
        assert_eq!(error.to_string(), text);
        assert_eq!(error.op_error().unwrap().source, Some(Addr::Socket(local)));

        let error = Dialer::new()
            .local_addr(local)
            .dial("[::1]:1")
            .await
            .unwrap_err();
        let text = "dial tcp: address 127.0.0.1:0: no suitable address found";
        assert_eq!(error.to_string(), text);
    });
}

#[test]
fn options_are_go_s_unless_others_are_asked_for() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let tell = seen.clone();
        let dialer = Dialer::new().control(move |socket: BorrowedFd<'_>, _| {
            let socket = SockRef::from(&socket);
            let keepalive = socket.keepalive()?.then(|| socket.tcp_keepalive_time());
            let state = (socket.tcp_nodelay()?, keepalive.transpose()?);
            tell.lock().unwrap().push(state);
            Ok(())
        });
        let custom = KeepAlive {
            idle: 77 * SECOND,
            ..KeepAlive::default()
        };
        dialer.dial(address).await.unwrap();
        dialer
            .clone()
            .keepalive(Some(custom))
            .dial(address)
            .await
            .unwrap();
        dialer.clone().keepalive(None).dial(address).await.unwrap();
        let expected = [
            (true, Some(15 * SECOND)),
            (true, Some(77 * SECOND)),
            (true, None),
        ];
        assert_eq!(*seen.lock().unwrap(), expected);
    });
}

#[test]
fn the_hook_sees_every_socket_before_it_connects_and_can_refuse() {
    run_virtual(async {
        let closed = closed();
        let port = closed.port;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let tell = seen.clone();
        let dialer = both_families().control(move |socket, address| {
            assert!(SockRef::from(&socket).peer_addr().is_err());
            tell.lock().unwrap().push(address);
            Err(io::Error::other("not there"))
        });
        let error = dialer.dial(("both.test", port)).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("dial tcp 127.0.0.1:{port}: not there")
        );
        let expected = ["127.0.0.1", "::1"].map(|ip| SocketAddr::new(ip.parse().unwrap(), port));
        assert_eq!(*seen.lock().unwrap(), expected);
    });
}

#[test]
fn a_socket_that_connected_to_itself_is_tried_twice_more() {
    run(async {
        let closed = closed();
        let address = SocketAddr::from(([127, 0, 0, 1], closed.port));
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = tries.clone();
        // Forces a port that the system might choose: the one that is dialled.
        let dialer = Dialer::new().control(move |socket, address| {
            counted.fetch_add(1, Ordering::Relaxed);
            let socket = SockRef::from(&socket);
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())
        });
        // The third connection to itself is given out: no accident.
        let stream = dialer.dial(address).await.unwrap();
        assert_eq!(stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        assert_eq!(tries.load(Ordering::Relaxed), 3);
        stream.abort().unwrap();

        // From a local address that was asked for, it is given out the first time.
        let stream = dialer_from(address).dial(address).await.unwrap();
        assert_eq!(stream.local_addr().unwrap(), address);
        stream.abort().unwrap();
    });
}

/// Neither of the two addresses that the system reports has the zone.
#[test]
#[cfg(target_os = "linux")]
fn a_socket_that_connected_to_itself_by_an_address_with_a_zone_is_tried_twice_more() {
    run(async {
        let closed = closed();
        for host in ["[::1]", "[::1%lo]"] {
            let tries = Arc::new(AtomicUsize::new(0));
            let counted = tries.clone();
            let itself = SocketAddr::from((Ipv6Addr::LOCALHOST, closed.port));
            let dialer = Dialer::new().control(move |socket, _| {
                counted.fetch_add(1, Ordering::Relaxed);
                let socket = SockRef::from(&socket);
                socket.set_reuse_address(true)?;
                socket.bind(&itself.into())
            });
            let stream = dialer
                .dial(format!("{host}:{}", closed.port))
                .await
                .unwrap();
            assert_eq!(stream.local_addr().unwrap(), stream.peer_addr().unwrap());
            assert_eq!(tries.load(Ordering::Relaxed), 3, "{host}");
            stream.abort().unwrap();
        }
    });
}

/// Go gives such a connection out too: its first read finds the reset.
#[test]
#[cfg(target_os = "linux")]
fn a_dial_that_connects_at_once_succeeds_although_the_peer_has_reset_it_since() {
    run(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // Then the dial's own connect says EISCONN.
        let dialer = Dialer::new().control(move |fd, address| {
            let socket = SockRef::from(&fd);
            socket.set_nonblocking(false)?;
            socket.connect(&address.into())?;
            let (peer, _) = listener.accept()?;
            SockRef::from(&peer).set_linger(Some(Duration::ZERO))?;
            drop(peer);
            // The reset has arrived when the system knows no peer any more.
            while socket.peer_addr().is_ok() {
                std::thread::yield_now();
            }
            socket.set_nonblocking(true)
        });
        let stream = dialer.dial(address).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        let error = stream.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

fn dialer_from(address: SocketAddr) -> Dialer {
    Dialer::new()
        .local_addr(address)
        .control(|socket, _| SockRef::from(&socket).set_reuse_address(true))
}

#[test]
fn an_address_that_is_not_available_is_asked_for_twice_more() {
    run(async {
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = tries.clone();
        // An address for documentation: no machine has it.
        let elsewhere = SocketAddr::from(([203, 0, 113, 1], 0));
        let dialer = Dialer::new().local_addr(elsewhere).control(move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        let error = dialer.dial("127.0.0.1:1").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
        assert_eq!(tries.load(Ordering::Relaxed), 3);
    });
}

/// Reports everything as ready, in so many harvests.
struct Liar {
    open: Vec<Token>,
    lies: usize,
}

impl Hook for Liar {
    fn opens(&mut self, token: Token) -> io::Result<()> {
        self.open.push(token);
        Ok(())
    }

    fn netpoll(
        &mut self,
        system: &mut MioSelector,
        wait: Option<Duration>,
        events: &mut Vec<Event>,
    ) -> io::Result<Harvest> {
        let harvest = system.netpoll(wait, events)?;
        if self.lies > 0 {
            self.lies -= 1;
            let ready = |&token| Event {
                token,
                readiness: Readiness::READ | Readiness::WRITE,
            };
            events.extend(self.open.iter().map(ready));
        }
        Ok(harvest)
    }
}

#[test]
fn readiness_without_a_connection_is_not_believed() {
    let liar = hooked_by(Liar {
        open: Vec::new(),
        lies: 50,
    });
    let runtime = Runtime::builder().selector(liar).build().unwrap();
    run_clean_in(&runtime, async {
        let silent = Silent::v4();
        let beside = spawn(async {
            for _ in 0..100 {
                netpoller::yield_now().await;
            }
        });
        let dialer = Dialer::new().timeout(Duration::from_millis(30));
        let error = dialer.dial(silent.address).await.unwrap_err();
        assert!(error.is_timeout(), "{error}");
        beside.await.unwrap();
    });
}
