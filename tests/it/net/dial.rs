//! Dialling: limits, scopes, races, hooks, and what the system gets wrong.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use netpoller::CancelError::{Canceled, DeadlineExceeded};
use netpoller::reactor::{Break, Event, Harvest, MioSelector, Readiness, Selector, Token, Traits};
use netpoller::{
    Addr, CancelToken, Dialer, KeepAlive, ListenConfig, NetError, Runtime, TcpListener, TcpStream,
    spawn, time,
};
use socket2::SockRef;

use crate::support::dead_ends::{Silent, closed};

use crate::support::run::{run_clean as run, run_clean_in, run_virtual_clean as run_virtual};

const SECOND: Duration = Duration::from_secs(1);

/// A port that is silent for IPv4 and answers for IPv6.
async fn silent_and_answering() -> (Silent, TcpListener) {
    loop {
        let silent = Silent::v4();
        let other = SocketAddr::from((Ipv6Addr::LOCALHOST, silent.address.port()));
        if let Ok(listener) = TcpListener::bind(other).await {
            return (silent, listener);
        }
    }
}

/// Resolves every name to `127.0.0.1`, then `::1`.
fn both_families() -> Dialer {
    Dialer::new().resolver(|_| Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]))
}

// ---- what fails, and how it reads ----

#[test]
fn a_closed_port_refuses_at_once_and_the_error_says_all() {
    run_virtual(async {
        let start = time::now();
        let closed = closed();
        let address = SocketAddr::from(([127, 0, 0, 1], closed.port));
        let error = TcpStream::connect(address).await.unwrap_err();
        let text = format!("dial tcp {address}: connect: connection refused");
        assert_eq!(error.to_string(), text);
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(!error.is_timeout() && !error.is_temporary() && !error.is_canceled());
        let error = error.op_error().unwrap();
        assert_eq!((error.op, error.net, &error.source), ("dial", "tcp", &None));
        assert_eq!(error.addr, Some(Addr::Socket(address)));
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        assert_eq!(error.attempts().len(), 1);
        assert_eq!(time::now(), start, "no timer was waited for");
    });
}

#[test]
fn an_address_that_never_answers_is_a_timeout_after_that_time() {
    run_virtual(async {
        let silent = Silent::v4();
        let start = time::now();
        let dialer = Dialer::new().timeout(3 * SECOND);
        let error = dialer.dial(silent.address).await.unwrap_err();
        let text = format!("dial tcp {}: i/o timeout", silent.address);
        assert_eq!(error.to_string(), text);
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.is_timeout() && error.is_temporary() && !error.is_canceled());
        let passed = time::now() - start;
        assert!((3 * SECOND..4 * SECOND).contains(&passed), "{passed:?}");
    });
}

#[test]
fn a_limit_holds_on_the_real_clock_too() {
    run(async {
        let silent = Silent::v4();
        let (start, limit) = (Instant::now(), Duration::from_millis(30));
        let error = Dialer::new()
            .timeout(limit)
            .dial(silent.address)
            .await
            .unwrap_err();
        assert!(error.is_timeout() && start.elapsed() >= limit);
    });
}

#[test]
fn a_limit_counts_from_a_fresh_reading_of_the_clock() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // The loop's own reading is older than the whole limit by now.
        std::thread::sleep(Duration::from_millis(60));
        let dialer = Dialer::new().timeout(Duration::from_millis(50));
        dialer.dial(listener.local_addr().unwrap()).await.unwrap();
    });
}

#[test]
fn a_limit_that_is_over_fails_at_once() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for dialer in [
            Dialer::new().timeout(Duration::ZERO),
            Dialer::new().deadline(time::now()),
            Dialer::new().deadline(time::now()).timeout(SECOND),
            Dialer::new()
                .deadline(time::now() + SECOND)
                .timeout(Duration::ZERO),
        ] {
            let error = dialer.dial(address).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("dial tcp {address}: i/o timeout")
            );
        }
        let dialer = Dialer::new().timeout(Duration::MAX);
        dialer.dial(address).await.unwrap();
    });
}

// ---- scopes ----

#[test]
fn a_dial_ends_with_its_scope_s_deadline() {
    run_virtual(async {
        let silent = Silent::v4();
        let scope = CancelToken::new().with_timeout(SECOND);
        let error = Dialer::new()
            .cancel(&scope)
            .dial(silent.address)
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("dial tcp {}: i/o timeout", silent.address)
        );
        assert!(error.is_timeout() && error.is_temporary());
        assert_eq!(scope.err(), Some(DeadlineExceeded));

        // A limit of the dial's own ends the dial, not the scope.
        let scope = CancelToken::new().with_timeout(10 * SECOND);
        let dialer = Dialer::new().cancel(&scope).timeout(SECOND);
        assert!(dialer.dial(silent.address).await.unwrap_err().is_timeout());
        assert_eq!(scope.err(), None);
    });
}

#[test]
fn a_dial_that_is_cancelled_returns_at_once() {
    run_virtual(async {
        let silent = Silent::v4();
        let scope = CancelToken::new();
        let start = time::now();
        let canceller = scope.clone();
        let task = spawn(async move { canceller.cancel() });
        let error = Dialer::new()
            .cancel(&scope)
            .dial(silent.address)
            .await
            .unwrap_err();
        let text = format!("dial tcp {}: operation was canceled", silent.address);
        assert_eq!(error.to_string(), text);
        assert!(error.is_canceled() && !error.is_timeout());
        assert_eq!(error.kind(), io::ErrorKind::Other);
        assert_eq!((scope.err(), time::now()), (Some(Canceled), start));
        task.await.unwrap();

        // And one that is not begun yet, is not.
        let dialer = Dialer::new()
            .cancel(&scope)
            .control(|_, _| panic!("a socket was made"));
        assert_eq!(
            dialer.dial(silent.address).await.unwrap_err().to_string(),
            text
        );
    });
}

#[test]
fn cancelling_a_scope_leaves_what_was_dialled_in_it() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scope = CancelToken::new().with_timeout(SECOND);
        let dialer = Dialer::new().cancel(&scope).timeout(SECOND);
        let stream = dialer.dial(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        scope.cancel();
        stream.write_all(b"ping").await.unwrap();
        let mut ping = [0; 4];
        accepted.read_exact(&mut ping).await.unwrap();
        accepted.write_all(&ping).await.unwrap();
        stream.read_exact(&mut ping).await.unwrap();
        assert_eq!(&ping, b"ping");
    });
}

#[test]
fn of_ten_dials_in_one_scope_the_first_to_answer_wins() {
    run_virtual(async {
        let silent = Silent::v4();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scope = CancelToken::new().with_timeout(10 * SECOND);
        let won = Rc::new(RefCell::new(None));
        let dials: Vec<_> = (0..10)
            .map(|n| {
                let address = match n {
                    7 => listener.local_addr().unwrap(),
                    _ => silent.address,
                };
                let (scope, won) = (scope.clone(), won.clone());
                spawn(async move {
                    let stream = Dialer::new().cancel(&scope).dial(address).await?;
                    scope.cancel();
                    won.borrow_mut().get_or_insert((n, stream));
                    io::Result::Ok(())
                })
            })
            .collect();
        for (n, dial) in dials.into_iter().enumerate() {
            match dial.await.unwrap() {
                Ok(()) => assert_eq!(n, 7),
                Err(error) => assert!(error.is_canceled(), "{error}"),
            }
        }
        assert_eq!(scope.err(), Some(Canceled));
        let (n, stream) = won.take().unwrap();
        assert_eq!(
            (n, stream.peer_addr().unwrap()),
            (7, listener.local_addr().unwrap())
        );
    });
}

#[test]
fn a_dial_that_is_dropped_leaves_nothing_behind() {
    let runtime = Runtime::builder().virtual_clock().build().unwrap();
    run_clean_in(&runtime, async {
        let silent = Silent::v4();
        for _ in 0..20 {
            let dialer = Dialer::new().timeout(1000 * SECOND);
            let dial = dialer.dial(silent.address);
            assert!(time::timeout(SECOND, dial).await.is_err());
            let name = ("both.test", silent.address.port());
            let racing = both_families();
            assert!(time::timeout(SECOND / 5, racing.dial(name)).await.is_err());
        }
    });
}

// ---- several addresses ----

#[test]
fn the_other_family_is_tried_300_ms_later() {
    run_virtual(async {
        let (silent, listener) = silent_and_answering().await;
        let name = ("both.test", silent.address.port());
        let dialer = both_families();
        // The look-up once before: it takes real time, in which this clock stands.
        let start = time::now();
        let stream = dialer.dial(name).await.unwrap();
        let passed = time::now() - start;
        let head_start = Duration::from_millis(300);
        assert!(
            (head_start..head_start * 11 / 10).contains(&passed),
            "{passed:?}"
        );
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());

        let start = time::now();
        dialer
            .clone()
            .fallback_delay(5 * SECOND)
            .dial(name)
            .await
            .unwrap();
        assert!(time::now() - start >= 5 * SECOND);

        let start = time::now();
        dialer
            .fallback_delay(Duration::ZERO)
            .dial(name)
            .await
            .unwrap();
        assert_eq!(time::now(), start);
    });
}

#[test]
fn the_other_family_is_tried_as_soon_as_the_first_has_failed() {
    run_virtual(async {
        let listener = TcpListener::bind("[::1]:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let start = time::now();
        let dialer = both_families().fallback_delay(Duration::MAX);
        let stream = dialer.dial(("both.test", port)).await.unwrap();
        assert!(stream.peer_addr().unwrap().is_ipv6());
        assert_eq!(time::now(), start);
    });
}

#[test]
fn the_first_family_is_that_of_the_first_address() {
    run_virtual(async {
        let listener = TcpListener::bind(":0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let six = Dialer::new()
            .resolver(|_| Ok(vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]));
        for (dialer, is_ipv6) in [(both_families(), false), (six, true)] {
            let stream = dialer.dial(("both.test", port)).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap().is_ipv6(), is_ipv6);
        }
    });
}

#[test]
fn the_first_success_wins_and_every_other_socket_is_closed() {
    let runtime = Runtime::builder().virtual_clock().build().unwrap();
    run_clean_in(&runtime, async {
        let (silent, listener) = silent_and_answering().await;
        let before = runtime.stats().descriptors;
        let name = ("both.test", silent.address.port());
        let stream = both_families().dial(name).await.unwrap();
        assert_eq!(runtime.stats().descriptors, before + 1);
        let (accepted, _) = listener.accept().await.unwrap();
        stream.write_all(b"!").await.unwrap();
        assert_eq!(accepted.read(&mut [0; 8]).await.unwrap(), 1);
    });
}

#[test]
fn if_all_fail_the_first_error_counts_and_the_others_can_be_had() {
    run_virtual(async {
        let closed = closed();
        let port = closed.port;
        let error = both_families().dial(("both.test", port)).await.unwrap_err();
        let first = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        let second = format!("dial tcp [::1]:{port}: connect: connection refused");
        assert_eq!(error.to_string(), first);
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let error = error.op_error().unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        let tried: Vec<_> = error.attempts().iter().map(ToString::to_string).collect();
        assert_eq!(tried, [first, second]);
    });
}

#[test]
fn the_time_is_shared_over_the_addresses() {
    run_virtual(async {
        let silent = Silent::v4();
        let start = time::now();
        let tried = Arc::new(Mutex::new(Vec::new()));
        let tell = tried.clone();
        let dialer = Dialer::new()
            .resolver(|_| Ok(vec![Ipv4Addr::LOCALHOST.into(); 3]))
            .control(move |_, _| {
                tell.lock()
                    .unwrap()
                    .push((time::now() - start).as_secs_f64().round());
                Ok(())
            })
            .timeout(12 * SECOND);
        let error = dialer
            .dial(("thrice.test", silent.address.port()))
            .await
            .unwrap_err();
        assert!(error.is_timeout());
        assert_eq!(error.op_error().unwrap().attempts().len(), 3);
        assert_eq!(*tried.lock().unwrap(), [0.0, 4.0, 8.0]);
        let passed = time::now() - start;
        assert!((12 * SECOND..13 * SECOND).contains(&passed), "{passed:?}");
    });
}

#[test]
fn a_cancel_ends_all_of_a_race() {
    run_virtual(async {
        let silent = Silent::v4();
        let other = SocketAddr::from((Ipv6Addr::LOCALHOST, silent.address.port()));
        let _other = Silent::on(other);
        let scope = CancelToken::new();
        let canceller = scope.clone();
        let task = spawn(async move {
            time::sleep(SECOND).await;
            canceller.cancel();
        });
        let dialer = both_families().cancel(&scope);
        let error = dialer
            .dial(("both.test", silent.address.port()))
            .await
            .unwrap_err();
        assert!(error.is_canceled(), "{error}");
        task.await.unwrap();
    });
}

// ---- where from, and with what options ----

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

// ---- what the system gets wrong ----

#[test]
fn a_socket_that_connected_to_itself_is_tried_twice_more() {
    run(async {
        let closed = closed();
        let address = SocketAddr::from(([127, 0, 0, 1], closed.port));
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = tries.clone();
        // The system's choice of a port, forced: the very one that is dialled.
        let dialer = Dialer::new().control(move |socket, address| {
            counted.fetch_add(1, Ordering::Relaxed);
            let socket = SockRef::from(&socket);
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())
        });
        // Three times is no accident: then it is what somebody wants.
        let stream = dialer.dial(address).await.unwrap();
        assert_eq!(stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        assert_eq!(tries.load(Ordering::Relaxed), 3);
        stream.abort().unwrap();

        // With a port of one's own it is meant the first time.
        let stream = dialer_from(address).dial(address).await.unwrap();
        assert_eq!(stream.local_addr().unwrap(), address);
        stream.abort().unwrap();
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
        // Documentation's own network: nobody has it.
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

/// The system's selector, which says again and again that all is ready.
struct Liar {
    inner: MioSelector,
    open: Vec<Token>,
    lies: usize,
}

impl Selector for Liar {
    fn open(&mut self, source: &mut dyn mio::event::Source, token: Token) -> io::Result<()> {
        self.open.push(token);
        self.inner.open(source, token)
    }

    fn rearm(
        &mut self,
        source: &mut dyn mio::event::Source,
        token: Token,
        interest: Readiness,
    ) -> io::Result<()> {
        self.inner.rearm(source, token, interest)
    }

    fn close(&mut self, source: &mut dyn mio::event::Source) -> io::Result<()> {
        self.inner.close(source)
    }

    fn netpoll(
        &mut self,
        max_wait: Option<Duration>,
        events: &mut Vec<Event>,
    ) -> io::Result<Harvest> {
        let harvest = self.inner.netpoll(max_wait, events)?;
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

    fn breaker(&self) -> Arc<dyn Break> {
        self.inner.breaker()
    }

    fn traits(&self) -> Traits {
        self.inner.traits()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.inner.descriptor()
    }
}

#[test]
fn readiness_without_a_connection_is_not_believed() {
    let liar = Liar {
        inner: MioSelector::new().unwrap(),
        open: Vec::new(),
        lies: 50,
    };
    let runtime = Runtime::builder().selector(Box::new(liar)).build().unwrap();
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

// ---- both ends ----

#[test]
fn dialling_an_empty_host_dials_this_machine() {
    run(async {
        for network in ["tcp", "tcp4", "tcp6"] {
            let listener = ListenConfig::new()
                .network(network)
                .bind(":0")
                .await
                .unwrap();
            let port = listener.local_addr().unwrap().port();
            let stream = Dialer::new()
                .network(network)
                .dial(format!(":{port}"))
                .await
                .unwrap();
            assert!(stream.peer_addr().unwrap().ip().is_loopback());
            assert_eq!(stream.peer_addr().unwrap().is_ipv6(), network == "tcp6");
        }
    });
}
