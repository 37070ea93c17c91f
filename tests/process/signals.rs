//! Signals: many, one that stops the process, and the one that a broken pipe raises.

use std::io::{self, IoSlice, Read};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netpoller::net;
use netpoller::{
    Conn, NetError, Protocol, Runtime, Server, TcpStream, UnixDatagram, UnixStream, spawn, time,
};
use socket2::SockRef;

use crate::child::in_child;
use crate::support::bytes::{noise, read_all};
use crate::support::loopback::pair;
use crate::support::run::run;

/// Signals that have come.
static CAME: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_: i32) {
    CAME.fetch_add(1, Ordering::Relaxed);
}

/// Handles SIGUSR1 by counting, so that system calls are interrupted and none is restarted.
fn interrupt_by_sigusr1() {
    // SAFETY: all zeros is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = count as *const () as usize;
    // SAFETY: the action is live, and its handler touches an atomic alone.
    let set = unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) };
    assert_eq!(set, 0);
}

/// A read or a write that a signal cuts short moves fewer bytes than there are, and says nothing.
/// A hundred thousand signals, or as many as come within five seconds, which are a hundred at least.
#[test]
fn signals_without_end_during_a_flood_cost_no_byte() {
    const SIGNALS: usize = 100_000;
    const LIMIT: Duration = Duration::from_secs(5);
    in_child(|| {
        interrupt_by_sigusr1();
        // SAFETY: it takes no argument.
        let main = unsafe { libc::pthread_self() } as usize;
        let flooding = Arc::new(AtomicBool::new(true));
        let signals = thread::spawn({
            let flooding = flooding.clone();
            move || {
                while flooding.load(Ordering::Relaxed) {
                    // The next one when this has come: two that are pending are one.
                    let came = CAME.load(Ordering::Relaxed);
                    // SAFETY: the main thread outlives this one, which it joins.
                    unsafe { libc::pthread_kill(main as libc::pthread_t, libc::SIGUSR1) };
                    while CAME.load(Ordering::Relaxed) == came {
                        thread::yield_now();
                    }
                }
            }
        });
        let start = Instant::now();
        // On a busy computer the two threads alternate only by time slices.
        let enough = || match CAME.load(Ordering::Relaxed) {
            0..100 => false,
            came => came >= SIGNALS || start.elapsed() >= LIMIT,
        };
        while !enough() {
            run(async {
                let (a, source) = pair().await;
                let (sink, b) = pair().await;
                let (unix, c) = UnixStream::pair().unwrap();
                let sent = noise(4 << 20);
                let bytes = sent.clone();
                // By plain writes, spliced, and from TCP to a Unix stream.
                let writing = spawn(async move {
                    source.write_all(&bytes).await.unwrap();
                    source.close_write().unwrap();
                });
                let copying = spawn(async move {
                    net::copy(&a, &b).await.unwrap();
                    b.close_write().unwrap();
                });
                let crossing = spawn(async move {
                    net::copy(&sink, &c).await.unwrap();
                    c.close_write().unwrap();
                });
                assert!(read_all(&unix).await.unwrap() == sent);
                for task in [writing, copying, crossing] {
                    task.await.unwrap();
                }
                // And time passes.
                time::sleep(Duration::from_millis(2)).await;
            });
        }
        flooding.store(false, Ordering::Relaxed);
        signals.join().unwrap();
    });
}

#[test]
fn a_process_that_is_stopped_for_half_a_second_reads_what_came_meanwhile_and_goes_on() {
    in_child(|| {
        let limit = Duration::from_millis(200);
        run(async {
            let (server, client) = pair().await;
            // What has come before the stop is read after it, though the deadline has passed.
            server.set_read_deadline(Some(time::now() + limit)).unwrap();
            let reading = server.clone();
            let reading = spawn(async move { reading.read(&mut [0; 8]).await });
            let sleeping = spawn(time::sleep(limit));
            time::sleep(Duration::from_millis(1)).await;
            client.write_all(b"before").await.unwrap();
            let start = Instant::now();
            stop_for_half_a_second();
            assert!(start.elapsed() >= Duration::from_millis(400), "not stopped");
            assert_eq!(reading.await.unwrap().unwrap(), 6);
            sleeping.await.unwrap();

            // And a loop that is stopped in its wait goes on.
            server.set_read_deadline(None).unwrap();
            let mut stopper = stopper();
            let reading = server.clone();
            let reading = spawn(async move { reading.read(&mut [0; 8]).await });
            time::sleep(Duration::from_millis(700)).await;
            assert!(!reading.is_finished());
            client.write_all(b"!").await.unwrap();
            assert_eq!(reading.await.unwrap().unwrap(), 1);
            stopper.wait().unwrap();
        });
    });
}

#[test]
fn an_interval_does_not_make_up_for_the_ticks_that_it_missed_in_a_stop() {
    in_child(|| {
        run(async {
            let mut interval = time::interval(Duration::from_millis(20));
            interval.tick().await;
            stop_for_half_a_second();
            let goes_on = Instant::now();
            // The one that was due, and then the first that lies ahead: not two dozen at once.
            assert!(interval.tick().await < goes_on);
            assert!(interval.tick().await > goes_on);
        });
    });
}

/// A shell that stops this process, and lets it go on half a second later.
fn stopper() -> std::process::Child {
    let pid = std::process::id();
    let script = format!("kill -STOP {pid}; sleep 0.5; kill -CONT {pid}");
    Command::new("sh").args(["-c", &script]).spawn().unwrap()
}

fn stop_for_half_a_second() {
    stopper().wait().unwrap();
}

/// Answers with two megabytes, as one piece and as many.
struct Sends;

impl Protocol for Sends {
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        for _ in 0..32 {
            conn.write(&[0; 65_536])?;
        }
        Ok(bytes.len())
    }
}

#[test]
fn a_broken_pipe_is_an_error_and_no_signal_where_the_signal_is_not_ignored() {
    in_child(|| {
        // As in a C host that does not ignore the signal: it would end the process.
        // SAFETY: it sets a disposition, with no handler.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        run(async {
            let broken = async || {
                let (ours, theirs) = pair().await;
                theirs.abort().unwrap();
                ours.hung_up().await.unwrap();
                // It tells of the reset once; from then on it is a broken pipe.
                assert!(ours.write(b"x").await.is_err());
                ours
            };
            let is_broken = |error: io::Error| {
                assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "{error}");
            };
            is_broken(broken().await.write(b"x").await.unwrap_err());
            is_broken(broken().await.write_all(b"x").await.unwrap_err());
            is_broken(broken().await.try_write(b"x").unwrap_err());
            let pieces = [IoSlice::new(b"x"), IoSlice::new(b"y")];
            is_broken(broken().await.write_vectored(&pieces).await.unwrap_err());

            let (ours, theirs) = UnixStream::pair().unwrap();
            drop(theirs);
            is_broken(ours.write(b"x").await.unwrap_err());
            is_broken(ours.write_vectored(&pieces).await.unwrap_err());
            let (ours, theirs) = UnixDatagram::pair().unwrap();
            drop(theirs);
            assert!(ours.send(b"x").await.is_err());

            // Spliced.
            let (source, a) = pair().await;
            let writing = spawn(async move { source.write_all(&noise(1 << 20)).await });
            assert!(net::copy(&a, &broken().await).await.is_err());
            drop((a, writing));
        });
        // And in a server.
        let bound = Server::new(|_| Sends)
            .workers(1)
            .bind("127.0.0.1:0")
            .unwrap();
        let (address, handle) = (bound.local_addr(), bound.handle());
        let server = thread::spawn(|| bound.run());
        for _ in 0..20 {
            let mut client = std::net::TcpStream::connect(address).unwrap();
            io::Write::write_all(&mut client, b"go").unwrap();
            client.read_exact(&mut [0; 1000]).unwrap();
            SockRef::from(&client)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
        run(async {
            let client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"go").await.unwrap();
            client.read_exact(&mut vec![0; 2 << 20]).await.unwrap();
            client.set_read_deadline(Some(time::now())).unwrap();
            assert!(client.read(&mut [0]).await.unwrap_err().is_timeout());
        });
        handle.stop();
        server.join().unwrap().unwrap();
        drop(Runtime::new().unwrap());
    });
}
