//! The load: plain blocking sockets and threads, so that what it finds is the server's.
//!
//! A cycle is each abuse once, beside a quiet client whose times are measured; then a rest.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::panic;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// No answer takes longer, whatever goes on beside it, on a computer that is busy with other things too.
const PATIENCE: Duration = Duration::from_secs(60);
/// Connections at once in a crowd: two of these are more than the server has descriptors.
const CROWD: usize = 200;

/// Abuses both servers for so long. Panics if one of them does wrong.
pub fn run(protocol: u16, tasks: u16, length: Duration) {
    // A thread that has found a fault ends the others too.
    let say_it = panic::take_hook();
    panic::set_hook(Box::new(move |fault| {
        say_it(fault);
        process::exit(1);
    }));
    let servers = [protocol, tasks].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    // They stay open all the time, and send nothing until the end.
    let idle: Vec<_> = (0..20).map(|at| dial(servers[at % 2])).collect();
    let start = Instant::now();
    while start.elapsed() < length {
        let abusing = AtomicBool::new(true);
        let mut times = thread::scope(|scope| {
            let quiet = scope.spawn(|| quiet_client(servers[0], &abusing));
            say("timers");
            for server in servers {
                let abuses = [short, flood, slow, resets, half_closes];
                let threads = abuses.map(|abuse| scope.spawn(move || abuse(server)));
                for thread in threads {
                    thread.join().expect("no fault");
                }
            }
            crowd(servers);
            abusing.store(false, Ordering::Relaxed);
            quiet.join().expect("no fault")
        });
        times.sort();
        let p99 = times[(times.len() - 1) * 99 / 100];
        say(&format!("rest {:.3}", p99.as_secs_f64() * 1000.0));
        rest();
    }
    // The idle ones are still served.
    idle.into_iter()
        .for_each(|mut stream| echo(&mut stream, b"still here"));
}

fn say(line: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .expect("the server listens");
}

/// Waits until the server has been measured.
fn rest() {
    let read = io::stdin().read_line(&mut String::new());
    assert_ne!(read.expect("the server is there"), 0, "the server has gone");
}

fn dial(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).expect("the backlog has room");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn echo(stream: &mut TcpStream, message: &[u8]) {
    stream.write_all(message).expect("it takes the message");
    let mut back = vec![0; message.len()];
    stream.read_exact(&mut back).expect("it answers");
    assert!(back == message, "other bytes come back");
}

/// How long each of its messages took.
fn quiet_client(server: SocketAddr, abusing: &AtomicBool) -> Vec<Duration> {
    let (mut stream, mut times) = (dial(server), Vec::new());
    while abusing.load(Ordering::Relaxed) {
        let start = Instant::now();
        echo(&mut stream, &[7; 64]);
        times.push(start.elapsed());
        thread::sleep(Duration::from_millis(5));
    }
    times
}

fn short(server: SocketAddr) {
    for at in 0..300_u32 {
        echo(&mut dial(server), &at.to_le_bytes());
    }
}

fn flood(server: SocketAddr) {
    let chunk: Vec<u8> = (0..1 << 16).map(|at| (at % 251) as u8).collect();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut stream = dial(server);
                (0..200).for_each(|_| echo(&mut stream, &chunk));
            });
        }
    });
}

/// Sends, and takes the answer a little at a time.
fn slow(server: SocketAddr) {
    let mut streams: Vec<_> = (0..10).map(|_| dial(server)).collect();
    let message = vec![5; 100_000];
    for stream in &mut streams {
        stream.write_all(&message).expect("it takes the message");
    }
    for _ in 0..50 {
        for stream in &mut streams {
            stream.read_exact(&mut [0; 1_000]).expect("it answers");
        }
        thread::sleep(Duration::from_millis(4));
    }
    // Half of the clients read the rest, the others leave.
    for stream in streams.iter_mut().take(5) {
        stream.read_exact(&mut [0; 50_000]).expect("it answers");
    }
}

/// Leaves with a RST: before an answer, or amid it.
fn resets(server: SocketAddr) {
    for at in 0..150 {
        let mut stream = dial(server);
        stream
            .write_all(&vec![1; 1 + at * 400])
            .expect("it takes the message");
        if at % 3 == 1 {
            stream.read_exact(&mut [0]).expect("it answers");
        }
        reset(stream);
    }
}

fn reset(stream: TcpStream) {
    use std::os::fd::AsRawFd;
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let (value, length) = ((&raw const linger).cast(), size_of_val(&linger) as u32);
    // SAFETY: the socket is open, and the option's value is live.
    unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            value,
            length,
        )
    };
}

fn half_closes(server: SocketAddr) {
    for at in 0..150_usize {
        let (mut stream, message) = (dial(server), vec![at as u8; 1 + at * 50]);
        stream.write_all(&message).expect("it takes the message");
        stream.shutdown(Shutdown::Write).expect("it is open");
        let mut back = Vec::new();
        stream
            .read_to_end(&mut back)
            .expect("it answers and closes");
        assert!(back == message, "other bytes come back");
    }
}

/// More connections than there are descriptors: all are served in the end, as others go.
fn crowd(servers: [SocketAddr; 2]) {
    let mut streams: Vec<_> = (0..2 * CROWD).map(|at| dial(servers[at % 2])).collect();
    for (at, stream) in streams.iter_mut().enumerate() {
        stream
            .write_all(&at.to_le_bytes())
            .expect("the system takes it");
    }
    for (at, stream) in streams.into_iter().enumerate() {
        let mut back = [0; 8];
        (&stream).read_exact(&mut back).expect("it answers");
        assert_eq!(back, at.to_le_bytes());
    }
}
