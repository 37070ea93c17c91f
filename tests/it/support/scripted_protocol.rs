//! A protocol of closures that logs its calls, and a server of it on a virtual clock.
#![allow(dead_code, reason = "each test file uses some")]

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use netpoller::{
    Addr, Bound, Conn, Drain, NetError, Protocol, Runtime, Server, TcpStream, spawn, time,
};

use crate::support::schedule::virtual_runtime;
use crate::support::watchdog::watchdog;

pub const SECOND: Duration = Duration::from_secs(1);
pub const MILLISECOND: Duration = Duration::from_millis(1);

pub type Log = Arc<Mutex<Vec<String>>>;

/// A protocol of closures, so that a test says only what it is about.
#[derive(Clone)]
pub struct Script {
    pub log: Log,
    pub open: fn(&mut Conn) -> io::Result<()>,
    pub data: fn(&mut Conn, &[u8]) -> io::Result<usize>,
    pub end: fn(&mut Conn) -> io::Result<()>,
    pub heartbeat: fn(&mut Conn) -> io::Result<()>,
    pub idle: fn(&mut Conn) -> io::Result<()>,
    pub drained: fn(&mut Conn) -> io::Result<()>,
    pub timer: fn(&mut Conn) -> io::Result<()>,
    pub draining: fn(&mut Conn) -> io::Result<Drain>,
}

pub fn echo(conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    conn.write(bytes)?;
    Ok(bytes.len())
}

/// Marks the connection as busy. After `wait` a task answers, and says that it is no longer busy.
pub fn answer_after(wait: Duration, conn: &mut Conn, answer: &'static [u8]) {
    conn.set_busy(true);
    let handle = conn.handle();
    spawn(async move {
        time::sleep(wait).await;
        handle.write(answer).unwrap();
        handle.set_busy(false);
    });
}

pub fn nothing(_: &mut Conn) -> io::Result<()> {
    Ok(())
}

pub fn close(conn: &mut Conn) -> io::Result<()> {
    conn.close();
    Ok(())
}

pub fn ping(conn: &mut Conn) -> io::Result<()> {
    conn.write(b"ping")
}

impl Script {
    pub fn new() -> Self {
        Script {
            log: Log::default(),
            open: nothing,
            data: echo,
            end: close,
            heartbeat: ping,
            idle: nothing,
            drained: nothing,
            timer: nothing,
            draining: |_| Ok(Drain::WhenQuiet),
        }
    }

    pub fn say(&self, what: impl Into<String>) {
        self.log.lock().unwrap().push(what.into());
    }

    pub fn server(&self) -> Server<impl Fn(Addr) -> Script + Send + Sync + use<>> {
        let script = self.clone();
        Server::new(move |_| script.clone())
    }

    pub fn last(&self) -> String {
        self.said().pop().unwrap_or_default()
    }

    pub fn said(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

impl Protocol for Script {
    fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
        self.say("open");
        (self.open)(conn)
    }
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        self.say(format!("data {}", bytes.len()));
        (self.data)(conn, bytes)
    }
    fn end(&mut self, conn: &mut Conn) -> io::Result<()> {
        self.say("end");
        (self.end)(conn)
    }
    fn heartbeat(&mut self, conn: &mut Conn) -> io::Result<()> {
        self.say("heartbeat");
        (self.heartbeat)(conn)
    }
    fn idle(&mut self, conn: &mut Conn) -> io::Result<()> {
        self.say("idle");
        (self.idle)(conn)
    }
    fn drained(&mut self, conn: &mut Conn) -> io::Result<()> {
        self.say("drained");
        (self.drained)(conn)
    }
    fn draining(&mut self, conn: &mut Conn) -> io::Result<Drain> {
        self.say("draining");
        (self.draining)(conn)
    }
    fn timer(&mut self, conn: &mut Conn) -> io::Result<()> {
        self.say("timer");
        (self.timer)(conn)
    }
    fn closed(&mut self, why: io::Result<()>) {
        self.say(match why {
            Ok(()) => "closed".to_owned(),
            Err(error) if error.is_timeout() => "closed: timeout".to_owned(),
            Err(error) => format!("closed: {:?}", error.kind()),
        });
    }
}

/// Serves in a runtime on a virtual clock, and runs the test beside it.
pub fn serving<F, P, T, R>(server: Server<F>, test: impl FnOnce(Rc<Bound<F>>) -> T) -> R
where
    F: Fn(Addr) -> P + 'static,
    P: Protocol,
    T: Future<Output = R>,
{
    serving_in(&virtual_runtime(), server, test)
}

/// The same on the real clock. Where the system itself waits, as for a delayed acknowledgement, a
/// virtual clock would meanwhile come to the last deadline there is.
pub fn serving_in_real_time<F, P, T, R>(
    server: Server<F>,
    test: impl FnOnce(Rc<Bound<F>>) -> T,
) -> R
where
    F: Fn(Addr) -> P + 'static,
    P: Protocol,
    T: Future<Output = R>,
{
    serving_in(&Runtime::new().unwrap(), server, test)
}

fn serving_in<F, P, T, R>(
    runtime: &Runtime,
    server: Server<F>,
    test: impl FnOnce(Rc<Bound<F>>) -> T,
) -> R
where
    F: Fn(Addr) -> P + 'static,
    P: Protocol,
    T: Future<Output = R>,
{
    let _watchdog = watchdog();
    let bound = Rc::new(server.bind("127.0.0.1:0").unwrap());
    let running = bound.run_in(runtime).unwrap();
    let result = runtime.block_on(test(bound.clone()));
    bound.handle().stop();
    runtime.block_on(running).unwrap().unwrap();
    let stats = runtime.stats();
    assert_eq!((stats.connections, stats.tasks), (0, 0), "nothing is left");
    result
}

pub async fn dial<F>(bound: &Bound<F>) -> TcpStream {
    TcpStream::connect(bound.local_addr()).await.unwrap()
}

pub async fn until(what: impl Fn() -> bool) {
    while !what() {
        time::sleep(MILLISECOND).await;
    }
}
