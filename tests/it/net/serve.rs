//! Serving: for ever, through shortages, up to a limit, until the listener is closed.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use netpoller::net::{self, Accept, Serve};
use netpoller::{
    NetError, Runtime, TcpListener, TcpStream, UnixListener, UnixStream, spawn, time, yield_now,
};

const SECOND: Duration = Duration::from_secs(1);

fn run<T>(future: impl Future<Output = T>) -> T {
    let watched = async { time::timeout(30 * SECOND, future).await.expect("hangs") };
    Runtime::new().unwrap().block_on(watched)
}

fn run_virtually<T>(future: impl Future<Output = T>) -> T {
    let runtime = Runtime::builder().virtual_clock().build().unwrap();
    runtime.block_on(future)
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

async fn dial(listener: &TcpListener) -> TcpStream {
    let address = listener.local_addr().unwrap();
    TcpStream::connect(address).await.unwrap()
}

async fn ping(client: &TcpStream) {
    client.write_all(b"ping").await.unwrap();
    client.read_exact(&mut [0; 4]).await.unwrap();
}

#[test]
fn every_connection_is_served_at_once_until_the_listener_is_closed() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let listener = listen().await;
        let accepting = listener.clone();
        let serving = spawn(async move {
            let echo = async |stream: TcpStream, _| net::copy(&stream, &stream).await;
            accepting.serve(echo).await
        });
        let mut clients = Vec::new();
        for _ in 0..50 {
            clients.push(dial(&listener).await);
        }
        for client in clients.iter().chain(clients.iter().rev()) {
            ping(client).await;
        }
        listener.close().unwrap();
        assert!(serving.await.unwrap().is_ok());
        // Those under way go on.
        ping(&clients[7]).await;
        drop(clients);
    });
    while runtime.stats().tasks > 0 {
        runtime.turn(Some(SECOND)).unwrap();
    }
    assert_eq!(
        (runtime.stats().descriptors, runtime.stats().waiters),
        (0, 0)
    );
}

#[test]
fn unix_listeners_serve_too() {
    run(async {
        let name = format!("netpoller-serve-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&path).await.unwrap();
        let accepting = listener.clone();
        let echo = async |stream: UnixStream, _| net::copy(&stream, &stream).await;
        let serving = spawn(async move { accepting.serve(echo).await });
        let client = UnixStream::connect(&path).await.unwrap();
        client.write_all(b"ping").await.unwrap();
        client.read_exact(&mut [0; 4]).await.unwrap();
        listener.close().unwrap();
        serving.await.unwrap().unwrap();
    });
}

#[test]
fn the_next_connection_is_not_accepted_before_one_is_gone() {
    run(async {
        let listener = listen().await;
        let serve = Serve::new(listener.clone()).max_connections(2);
        let counters = serve.counters();
        let most = Rc::new(Cell::new(0));
        let (seen, counted) = (most.clone(), counters.clone());
        let serving = spawn(serve.run(move |stream: TcpStream, _| {
            seen.set(seen.get().max(counted.live()));
            async move { net::copy(&stream, &stream).await }
        }));
        let mut clients = Vec::new();
        for _ in 0..5 {
            clients.push(dial(&listener).await);
        }
        for (served, client) in clients.into_iter().enumerate() {
            // All have connected: to the system. Ours are two.
            ping(&client).await;
            assert!((served as u64 + 1..=served as u64 + 2).contains(&counters.accepted()));
            client.close().unwrap();
        }
        assert_eq!(most.get(), 2);
        while counters.live() > 0 {
            yield_now().await;
        }
        listener.close().unwrap();
        serving.await.unwrap().unwrap();
        assert_eq!(counters.accepted(), 5);
    });
}

#[test]
fn a_permit_comes_back_from_a_handler_that_panics() {
    run(async {
        let listener = listen().await;
        let serve = Serve::new(listener.clone()).max_connections(1);
        let counters = serve.counters();
        spawn(serve.run(async |_stream, _| -> () { panic!("on purpose") }));
        for _ in 0..3 {
            let client = dial(&listener).await;
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        }
        assert_eq!((counters.accepted(), counters.live()), (3, 0));
    });
}

#[test]
fn closing_the_listener_ends_it_also_while_it_is_full() {
    run(async {
        let listener = listen().await;
        let serve = Serve::new(listener.clone()).max_connections(1);
        let counters = serve.counters();
        let hold = async |stream: TcpStream, _| stream.hung_up().await;
        let serving = spawn(serve.run(hold));
        let _client = dial(&listener).await;
        while counters.live() == 0 {
            yield_now().await;
        }
        yield_now().await;
        listener.close().unwrap();
        serving.await.unwrap().unwrap();
    });
}

#[test]
fn a_listener_s_deadline_ends_it_with_a_timeout() {
    run_virtually(async {
        let listener = listen().await;
        listener.set_deadline(Some(time::now() + SECOND)).unwrap();
        let error = listener.serve(async |_, _| ()).await.unwrap_err();
        assert!(error.is_timeout(), "{error}");
    });
}

/// Says what it is told to, and notes when it was asked.
#[derive(Clone, Default)]
struct Script {
    errors: Rc<RefCell<Vec<Option<i32>>>>,
    asked: Rc<RefCell<Vec<Instant>>>,
}

impl Accept for Script {
    type Connection = ();
    type Peer = ();

    async fn accept(&self) -> io::Result<((), ())> {
        self.asked.borrow_mut().push(time::now());
        match self.errors.borrow_mut().pop() {
            None => Err(io::ErrorKind::BrokenPipe.into()),
            Some(None) => Ok(((), ())),
            Some(Some(number)) => Err(io::Error::from_raw_os_error(number)),
        }
    }
}

#[test]
fn it_waits_5_ms_doubling_to_a_second_and_5_ms_again_after_a_success() {
    run_virtually(async {
        let script = Script::default();
        let short = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
        let failures = short.iter().cycle().take(10).copied().map(Some);
        let then = [None, Some(libc::EMFILE)];
        let mut all: Vec<_> = failures.chain(then).collect();
        all.reverse();
        script.errors.replace(all);
        let serve = Serve::new(script.clone());
        let counters = serve.counters();
        let error = serve.run(async |(), ()| ()).await.unwrap_err();
        assert_eq!(
            error.kind(),
            io::ErrorKind::BrokenPipe,
            "what is permanent ends it"
        );
        let asked = script.asked.borrow();
        let waits: Vec<u128> = asked
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_millis())
            .collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000, 0, 5]);
        assert_eq!((counters.refused(), counters.episodes()), (11, 1));
    });
}

#[test]
fn one_connection_s_network_error_does_not_end_it() {
    run_virtually(async {
        let script = Script::default();
        let passing = [
            libc::EPROTO,
            libc::ENETDOWN,
            libc::EHOSTUNREACH,
            libc::EPERM,
            // The connection's, and not a deadline of ours.
            libc::ETIMEDOUT,
        ];
        script.errors.borrow_mut().push(None);
        script.errors.borrow_mut().extend(passing.map(Some));
        let serve = Serve::new(script);
        let counters = serve.counters();
        let ended = serve.run(async |(), ()| ()).await.unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!((counters.refused(), counters.accepted()), (5, 1));
    });
}

/// The words of Go's most often seen line of all that are about this.
#[test]
#[cfg(target_os = "linux")]
fn an_accept_that_the_system_fails_names_its_call_as_in_go() {
    run_virtually(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let shut =
            listener.with_fd(|fd| socket2::SockRef::from(&fd).shutdown(std::net::Shutdown::Read));
        shut.unwrap().unwrap();
        let error = listener.accept().await.unwrap_err();
        let said = format!("accept tcp {at}: accept4: invalid argument");
        assert_eq!(error.to_string(), said);
    });
}

#[test]
fn a_shortage_long_after_another_is_an_episode_of_its_own() {
    run_virtually(async {
        struct Slow(Cell<u32>);
        impl Accept for Slow {
            type Connection = ();
            type Peer = ();
            async fn accept(&self) -> io::Result<((), ())> {
                self.0.set(self.0.get() + 1);
                match self.0.get() {
                    1 | 2 => Err(io::Error::from_raw_os_error(libc::EMFILE)),
                    3 => {
                        time::sleep(60 * SECOND).await;
                        Ok(((), ()))
                    }
                    4 => Err(io::Error::from_raw_os_error(libc::EMFILE)),
                    _ => Err(io::ErrorKind::BrokenPipe.into()),
                }
            }
        }
        let serve = Serve::new(Slow(Cell::new(0)));
        let counters = serve.counters();
        serve.run(async |(), ()| ()).await.unwrap_err();
        assert_eq!((counters.refused(), counters.episodes()), (3, 2));
    });
}
