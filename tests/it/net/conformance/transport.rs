//! What the suite runs over, and how it is watched.
//!
//! A claim is an async function, generic over [`Transport`]; a test runs it over each of them. To
//! add a transport, implement the trait and name it in [`over_streams`]'s callers.
//! Mirrors `nettest.MakePipe` and Go's `net/mockserver_test.go`.

use std::env;
use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::os::unix::net::SocketAddr;
use std::panic;
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use netpoller::net::{Listener, Stream, Tcp, Unix};
use netpoller::{
    JoinHandle, NetError, Runtime, TcpListener, TcpStream, UnixListener, UnixStream, spawn, time,
    yield_now,
};

/// One kind of connected byte stream.
pub trait Transport: 'static {
    /// What [`Stream`] and [`Listener`] are of.
    type Kind: 'static;
    /// Its network, as errors name it.
    const NETWORK: &'static str;

    async fn listen() -> io::Result<Listener<Self::Kind>>;
    async fn dial(listener: &Listener<Self::Kind>) -> io::Result<Stream<Self::Kind>>;
    async fn accept(listener: &Listener<Self::Kind>) -> io::Result<Stream<Self::Kind>>;

    /// Both ends as errors print them: `here->there`.
    fn ends(stream: &Stream<Self::Kind>) -> String;
    /// A listener's address as errors print it.
    fn address(listener: &Listener<Self::Kind>) -> String;
}

pub struct Tcp4;
pub struct Tcp6;

/// TCP, by the address to listen on.
trait Loopback: 'static {
    const ANY_PORT: &'static str;
}

impl Loopback for Tcp4 {
    const ANY_PORT: &'static str = "127.0.0.1:0";
}

impl Loopback for Tcp6 {
    const ANY_PORT: &'static str = "[::1]:0";
}

impl<L: Loopback> Transport for L {
    type Kind = Tcp;
    const NETWORK: &'static str = "tcp";

    async fn listen() -> io::Result<TcpListener> {
        TcpListener::bind(L::ANY_PORT).await
    }

    async fn dial(listener: &TcpListener) -> io::Result<TcpStream> {
        TcpStream::connect(listener.local_addr()?).await
    }

    async fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
        listener.accept().await.map(|(stream, _)| stream)
    }

    fn ends(stream: &TcpStream) -> String {
        let (here, there) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        format!("{here}->{there}")
    }

    fn address(listener: &TcpListener) -> String {
        listener.local_addr().unwrap().to_string()
    }
}

/// Unix stream sockets, each listener at a path of its own.
pub struct UnixPath;

impl Transport for UnixPath {
    type Kind = Unix;
    const NETWORK: &'static str = "unix";

    async fn listen() -> io::Result<UnixListener> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("netpoller-{}-{number}", process::id());
        UnixListener::bind(env::temp_dir().join(name)).await
    }

    async fn dial(listener: &UnixListener) -> io::Result<UnixStream> {
        let address = listener.local_addr()?;
        UnixStream::connect(address.as_pathname().expect("a path")).await
    }

    async fn accept(listener: &UnixListener) -> io::Result<UnixStream> {
        listener.accept().await.map(|(stream, _)| stream)
    }

    fn ends(stream: &UnixStream) -> String {
        let (here, there) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        format!("{}->{}", name(&here), name(&there))
    }

    fn address(listener: &UnixListener) -> String {
        name(&listener.local_addr().unwrap())
    }
}

/// As Go prints it: the end that dialled has no name, which is `@`.
fn name(address: &SocketAddr) -> String {
    match address.as_pathname() {
        Some(path) => path.display().to_string(),
        None => "@".to_owned(),
    }
}

/// Both ends of a connection; the listener is gone.
pub async fn pair<T: Transport>() -> (Stream<T::Kind>, Stream<T::Kind>) {
    let listener = T::listen().await.expect("listen");
    connect::<T>(&listener).await
}

/// Both ends of a new connection through `listener`.
pub async fn connect<T: Transport>(
    listener: &Listener<T::Kind>,
) -> (Stream<T::Kind>, Stream<T::Kind>) {
    let near = T::dial(listener).await.expect("dial");
    let far = T::accept(listener).await.expect("accept");
    (near, far)
}

// ---- running ----

/// Which clock a claim runs by.
#[derive(Clone, Copy)]
pub enum Clock {
    /// Where nothing depends on time, or where the system's own is the point.
    Real,
    /// Where time matters: hours pass at once, and only when nothing can run.
    Virtual,
}

/// Far longer than any claim takes, on however loaded a machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `test` on a thread of its own; one that hangs fails, instead of hanging the suite.
pub fn watched(name: &str, test: impl FnOnce() + Send + 'static) {
    let (tell, told) = mpsc::channel();
    let run = move || {
        let result = panic::catch_unwind(panic::AssertUnwindSafe(test));
        let _ = tell.send(result);
    };
    thread::spawn(run);
    match told.recv_timeout(PATIENCE) {
        Ok(Ok(())) => {}
        Ok(Err(panicked)) => {
            eprintln!("over {name}");
            panic::resume_unwind(panicked)
        }
        Err(_) => panic!("over {name}: still not done after {PATIENCE:?}"),
    }
}

/// Runs a claim to its end on a runtime of its own.
pub fn by<F: Future<Output = ()> + 'static>(clock: Clock, name: &str, claim: fn() -> F) {
    watched(name, move || runtime(clock).block_on(claim()));
}

pub fn runtime(clock: Clock) -> Runtime {
    let built = match clock {
        Clock::Real => Runtime::new(),
        Clock::Virtual => Runtime::builder().virtual_clock().build(),
    };
    built.expect("a runtime")
}

/// Runs a claim over every stream transport, one after the other.
pub fn over_streams<A, B, C>(clock: Clock, tcp4: fn() -> A, tcp6: fn() -> B, unix: fn() -> C)
where
    A: Future<Output = ()> + 'static,
    B: Future<Output = ()> + 'static,
    C: Future<Output = ()> + 'static,
{
    by(clock, "tcp4", tcp4);
    by(clock, "tcp6", tcp6);
    by(clock, "unix", unix);
}

// ---- what claims are made of ----

/// More than the system's buffers hold between two ends.
pub const PLENTY: usize = 64 << 20;

/// Reads to the end of file, 1 KiB at a time as nettest's chunkedCopy does.
pub async fn read_to_end<K>(stream: &Stream<K>) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(all),
            got => all.extend_from_slice(&buffer[..got]),
        }
    }
}

/// Sends back what comes, until that ends.
pub fn echo<K: 'static>(stream: Stream<K>) -> JoinHandle<()> {
    spawn(async move {
        let mut buffer = [0; 1024];
        while let Ok(got @ 1..) = stream.read(&mut buffer).await {
            if stream.write_all(&buffer[..got]).await.is_err() {
                return;
            }
        }
    })
}

/// An instant that has passed, well before the runtime was made.
pub fn a_long_time_ago() -> Option<Instant> {
    let ago = Duration::from_secs(3600);
    Some(Instant::now().checked_sub(ago).unwrap_or_else(Instant::now))
}

/// A deadline so far ahead by the loop's clock.
pub fn in_time(ahead: Duration) -> Option<Instant> {
    Some(time::now() + ahead)
}

pub const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Lets every other task run until it has to wait for the system.
pub async fn let_others_park() {
    for _ in 0..4 {
        yield_now().await;
    }
}

#[track_caller]
pub fn assert_timeout<R: Debug>(result: io::Result<R>) {
    let error = result.expect_err("should have timed out");
    assert!(error.is_timeout(), "not a timeout: {error}");
    assert!(error.is_temporary(), "a timeout is temporary: {error}");
    assert!(!error.is_closed(), "a timeout is no close: {error}");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    assert!(error.to_string().contains(": i/o timeout"), "{error}");
}

#[track_caller]
pub fn assert_closed<R: Debug>(result: io::Result<R>) {
    let error = result.expect_err("should have said closed");
    assert!(error.is_closed(), "not closed: {error}");
    assert!(
        !error.is_timeout() && !error.is_temporary(),
        "closing is for good: {error}"
    );
    assert_eq!(error.kind(), io::ErrorKind::NotConnected, "{error}");
    let text = error.to_string();
    assert!(text.contains("use of closed network connection"), "{text}");
}
