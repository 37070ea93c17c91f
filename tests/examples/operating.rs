//! `echo_server` as its operator sees it: flags, log and end are the same in every mode.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::process::{PATIENCE, Server, binary, run};
use crate::support::stall::{moment, stall};
use crate::watchdog::watchdog;

const MODES: [&str; 3] = ["async", "reactor", "protocol"];

/// The limit of a drain.
const DRAIN: Duration = Duration::from_secs(5);

fn flags<'a>(mode: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["--addr", "127.0.0.1:0", "--mode", mode], more].concat()
}

fn start(mode: &str, more: &[&str]) -> Server {
    Server::start("echo_server", &flags(mode, more))
}

// ---- the end ----

#[test]
fn clients_in_the_accept_queue_are_answered_in_every_mode() {
    for mode in MODES {
        let mut server = start(mode, &[]);
        server.signal("-STOP");
        let mut clients: Vec<_> = (0..100).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.write_all(b"hi").unwrap();
        }
        server.signal("-TERM");
        server.signal("-CONT");
        for client in &mut clients {
            let mut answer = [0; 2];
            client.read_exact(&mut answer).expect(mode);
            assert_eq!(&answer, b"hi", "{mode}");
        }
        assert_eq!(server.end().0, Some(0), "{mode}");
    }
}

/// A client that reads nothing and has written until the server took nothing for a moment. (The
/// system grows its buffers for a while after it has said that they are full.)
fn stuck(server: &Server) -> TcpStream {
    let mut client = server.connect();
    client
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let bytes = [b'x'; 1 << 16];
    loop {
        match client.write(&bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return client,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_second_signal_ends_a_drain_at_once_in_every_mode() {
    for (mode, [first, second]) in
        MODES
            .into_iter()
            .zip([["-TERM", "-TERM"], ["-INT", "-INT"], ["-TERM", "-INT"]])
    {
        let mut server = start(mode, &[]);
        let _client = stuck(&server);
        server.signal(first);
        server.wait_for_log("the server drains within 5s; open connections: 1");
        let start = Instant::now();
        server.signal(second);
        let (status, log) = server.end();
        let took = start.elapsed();
        assert!(took < DRAIN, "{mode}: {took:?}");
        assert_eq!(status, Some(0), "{mode}: {log}");
        let stops = "the server stops; open connections: 1";
        assert!(log.contains(stops), "{mode}: {log}");
    }
}

#[test]
fn a_drain_of_several_workers_ends_by_a_second_signal_too() {
    for mode in MODES {
        let mut server = start(mode, &["--workers", "3"]);
        let _clients: Vec<_> = (0..6).map(|_| stuck(&server)).collect();
        server.signal("-TERM");
        server.wait_for_log("the server drains");
        let start = Instant::now();
        server.signal("-TERM");
        assert_eq!(server.end().0, Some(0), "{mode}");
        assert!(start.elapsed() < DRAIN, "{mode}");
    }
}

#[test]
fn a_normal_stop_logs_its_drain_and_no_error() {
    for mode in MODES {
        let mut server = start(mode, &[]);
        let mut client = server.connect();
        client.write_all(b"hi").unwrap();
        client.read_exact(&mut [0; 2]).unwrap();
        server.signal("-TERM");
        let (status, log) = server.end();
        assert_eq!(status, Some(0), "{mode}");
        let addr = server.addr;
        for said in [
            format!("INFO ] {addr}: the server drains within 5s; open connections: 1\n"),
            ": connections in flight: 1\n".to_owned(),
        ] {
            assert_eq!(log.matches(&said).count(), 1, "{mode}: {said} in {log}");
        }
        let bad = log.contains("WARN") || log.contains("ERROR");
        assert!(!bad, "{mode}: {log}");
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "{mode}");
    }
}

#[test]
fn a_message_on_its_way_at_the_signal_is_answered_in_every_mode() {
    for mode in MODES {
        let mut server = start(mode, &[]);
        let mut clients: Vec<_> = (0..50).map(|_| server.connect()).collect();
        let mut answer = [0; 7];
        for client in &mut clients {
            client.write_all(b"message").unwrap();
            client.read_exact(&mut answer).unwrap();
        }
        // The server finds the signal and all messages at once.
        server.signal("-STOP");
        for client in &mut clients {
            client.write_all(b"another").unwrap();
        }
        server.signal("-TERM");
        server.signal("-CONT");
        for client in &mut clients {
            client.read_exact(&mut answer).expect(mode);
            assert_eq!(&answer, b"another", "{mode}");
        }
        let (status, log) = server.end();
        assert_eq!(status, Some(0), "{mode}");
        assert!(!log.contains("cut off"), "{mode}: {log}");
    }
}

// ---- the log ----

#[test]
fn a_connection_has_two_lines_at_debug_in_the_same_form_in_every_mode() {
    for mode in MODES {
        let mut server = Server::logging("debug", "echo_server", &flags(mode, &[]));
        let mut client = server.connect();
        let peer = client.local_addr().unwrap();
        client.write_all(b"hello").unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
        drop(client);
        server.wait_for_log("ended after");
        server.signal("-TERM");
        let (_, log) = server.end();
        for said in ["accepted", "ended after 5 bytes: end of file"] {
            let line = format!("DEBUG] {peer}: {said}\n");
            assert_eq!(log.matches(&line).count(), 1, "{mode}: {line} in {log}");
        }
        assert_eq!(log.matches(&peer.to_string()).count(), 2, "{mode}: {log}");
    }
}

#[test]
fn the_trace_names_operations_addresses_and_readiness() {
    let mut server = Server::logging("trace", "echo_server", &flags("async", &[]));
    let mut client = server.connect();
    let ends = format!("{}->{}", server.addr, client.local_addr().unwrap());
    client.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    // The listener is the first source, and the connection the third: keys from 0. Before the
    // client ends: otherwise the end may be there when the server tries again, and nothing parks.
    server.wait_for_log(&format!("park Read: tcp {ends} (Token(2."));
    drop(client);
    server.wait_for_log("ended after");
    server.signal("-TERM");
    let (_, log) = server.end();
    for said in ["READ|WRITE\n".to_owned(), "|HUP\n".to_owned()] {
        assert!(log.contains(&said), "no {said} in {log}");
    }
}

#[test]
fn out_of_descriptors_a_server_warns_once_and_says_when_it_goes_on() {
    for mode in MODES {
        let mut server = Server::with_descriptors(24, "echo_server", &flags(mode, &[]));
        let clients: Vec<_> = (0..40).map(|_| server.connect()).collect();
        let addr = server.addr;
        server.wait_for_log(&format!(
            "accept tcp {addr}: accept4: too many open files; accepting pauses"
        ));
        drop(clients);
        server.wait_for_log(&format!("accepting on tcp {addr} goes on after "));
        let mut client = server.connect();
        client.write_all(b"hi").unwrap();
        client.read_exact(&mut [0; 2]).unwrap();
        drop(client);
        server.signal("-TERM");
        let (_, log) = server.end();
        assert_eq!(log.matches("accepting pauses").count(), 1, "{mode}: {log}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_dump_that_can_t_be_printed_ends_no_server_in_any_mode() {
    for mode in MODES {
        let mut server = Server::without_log("echo_server", &flags(mode, &[]));
        // Right after the server's first line.
        server.signal("-QUIT");
        let mut client = server.connect();
        for _ in 0..2 {
            server.signal("-QUIT");
            client.write_all(b"hi").unwrap();
            client.read_exact(&mut [0; 2]).expect(mode);
        }
        server.signal("-TERM");
        assert_eq!(server.end().0, Some(0), "{mode}");
    }
}

// ---- the flags ----

#[test]
fn every_address_is_read_in_the_same_way_in_every_mode() {
    for mode in MODES {
        let mut server = Server::start("echo_server", &["--addr", ":0", "--mode", mode]);
        assert_ne!(server.addr.port(), 0, "{mode}");
        server.signal("-TERM");
        assert_eq!(server.end().0, Some(0), "{mode}");
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr: SocketAddr = taken.local_addr().unwrap();
    for (addr, why) in [
        (addr.to_string(), "bind: address already in use"),
        ("127.0.0.1".into(), "missing port in address"),
    ] {
        for mode in MODES {
            let ran = run("echo_server", &["--addr", &addr, "--mode", mode]);
            let said = String::from_utf8(ran.stderr).unwrap();
            assert_eq!(said.lines().count(), 1, "{mode}: {said}");
            assert!(
                said.starts_with("echo_server: listen tcp"),
                "{mode}: {said}"
            );
            assert!(said.trim_end().ends_with(why), "{mode}: {said}");
            assert_eq!(ran.status.code(), Some(1), "{mode}");
        }
    }
}

#[test]
fn a_heartbeat_is_refused_where_there_is_none() {
    for mode in ["async", "reactor"] {
        let ran = run("echo_server", &flags(mode, &["--heartbeat", "1s"]));
        assert_eq!(ran.status.code(), Some(2), "{mode}");
        let said = String::from_utf8(ran.stderr).unwrap();
        assert!(
            said.contains("--heartbeat needs --mode protocol"),
            "{mode}: {said}"
        );
    }
    let server = start("protocol", &["--heartbeat", "10ms"]);
    let mut ping = [0; 4];
    server.connect().read_exact(&mut ping).unwrap();
    assert_eq!(&ping, b"ping");
}

#[test]
fn a_connection_that_never_sends_is_closed_by_the_idle_timeout_in_every_mode() {
    for mode in MODES {
        let server = start(mode, &["--idle-timeout", "100ms"]);
        let start = Instant::now();
        let mut client = server.connect();
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "{mode}");
        assert!(start.elapsed() >= Duration::from_millis(100), "{mode}");
    }
}

/// The process is stopped for longer than the idle timeout, as a paused computer is, while each client waits
/// for an echo.
fn pause_beside_busy_clients(mode: &str) {
    let server = start(mode, &["--idle-timeout", "1s"]);
    let is_over = AtomicBool::new(false);
    let echoes = |mut client: TcpStream| {
        while !is_over.load(Ordering::Relaxed) {
            client.write_all(&[7; 2000])?;
            client.read_exact(&mut [0; 2000])?;
        }
        Ok::<(), std::io::Error>(())
    };
    thread::scope(|threads| {
        let clients: Vec<_> = (0..32)
            .map(|_| server.connect())
            .map(|client| threads.spawn(|| echoes(client)))
            .collect();
        for _ in 0..3 {
            // A moment of the echo, and then the pause itself.
            moment();
            server.signal("-STOP");
            stall(Duration::from_millis(1200));
            server.signal("-CONT");
        }
        is_over.store(true, Ordering::Relaxed);
        for client in clients {
            let ended = client.join().unwrap();
            assert!(ended.is_ok(), "{mode}: {ended:?}");
        }
    });
}

#[test]
fn a_pause_of_the_process_closes_no_busy_client_in_any_mode() {
    thread::scope(|threads| {
        let modes = MODES.map(|mode| threads.spawn(move || pause_beside_busy_clients(mode)));
        modes.into_iter().for_each(|mode| mode.join().unwrap());
    });
}

#[test]
fn a_client_that_takes_nothing_is_closed_by_the_idle_timeout_in_every_mode() {
    for mode in MODES {
        let server = start(mode, &["--idle-timeout", "500ms"]);
        let mut client = server.connect();
        let start = Instant::now();
        // It never reads, so that the close is a reset, which the next write reports.
        while client.write_all(&[b'x'; 1 << 16]).is_ok() {}
        assert!(start.elapsed() >= Duration::from_millis(500), "{mode}");
        assert!(start.elapsed() < PATIENCE, "{mode}");
    }
}

// ---- dumps ----

#[test]
fn sigquit_shows_a_client_and_what_it_waits_for_in_every_mode_and_the_echo_goes_on() {
    for (mode, workers) in MODES
        .into_iter()
        .flat_map(|mode| [(mode, "1"), (mode, "2")])
    {
        let mut server = start(mode, &["--workers", workers, "--idle-timeout", "60m"]);
        let echo = |client: &mut TcpStream| {
            client.write_all(b"hi").unwrap();
            client.read_exact(&mut [0; 2]).expect(mode);
        };
        let mut chosen = server.connect();
        echo(&mut chosen);
        let mut others: Vec<_> = (0..20).map(|_| server.connect()).collect();
        thread::scope(|scope| {
            // The load lasts until this test has seen enough.
            let (round, rounds) = mpsc::channel();
            scope.spawn(move || {
                while round.send(()).is_ok() {
                    others.iter_mut().for_each(echo);
                }
            });
            let peer = chosen.local_addr().unwrap();
            for _ in 0..2 {
                // Its next read may be tried in the turn that follows. Then it is parked: a whole round
                // of the load takes more turns.
                rounds.try_iter().for_each(drop);
                (0..2).for_each(|_| rounds.recv().expect(mode));
                server.signal("-QUIT");
                let line = server.wait_for_log(&format!("peer {peer},"));
                assert!(
                    line.contains("read") && line.contains(", left 3"),
                    "{mode}: {line}"
                );
                echo(&mut chosen);
            }
        });
        server.signal("-TERM");
        assert_eq!(server.end().0, Some(0), "{mode}");
    }
}

#[test]
fn sigquit_makes_the_other_servers_say_what_they_wait_for() {
    for name in ["http", "lines", "time_server", "broadcast"] {
        let mut server = Server::start(name, &["--addr", "127.0.0.1:0"]);
        for _ in 0..2 {
            server.signal("-QUIT");
            server.wait_for_log("loop answered, ");
            server.wait_for_log("1 root, ");
        }
        server.signal("-INT");
        assert_eq!(server.end().0, Some(0), "{name}");
    }
}

#[test]
fn sigquit_makes_a_server_on_the_bare_reactor_say_what_each_connection_waits_for() {
    let mut server = Server::start("reactor_http", &["--addr", "127.0.0.1:0"]);
    let client = server.connect();
    let peer = client.local_addr().unwrap();
    server.signal("-QUIT");
    while !server.wait_for_log("connections ").contains('1') {
        server.signal("-QUIT");
    }
    // It takes its first step in the turn after the accept, and parks.
    server.signal("-QUIT");
    let line = server.wait_for_log("connection 0");
    let expected = format!("  connection 0: Read, peer {peer}, left ");
    assert!(line.starts_with(&expected), "{line}");
    server.signal("-INT");
    assert_eq!(server.end().0, Some(0));
}

/// Whether the process catches SIGQUIT yet.
#[cfg(target_os = "linux")]
fn catches_sigquit(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = u64::from_str_radix(caught.unwrap().trim(), 16).unwrap();
    caught & (1 << (libc::SIGQUIT - 1)) != 0
}

/// Runs the host of a loop whose standard output is full: its network's task waits in a `println!`.
#[cfg(target_os = "linux")]
#[test]
fn sigquit_names_the_task_that_holds_the_loop_of_an_example() {
    let _watchdog = watchdog();
    let (_reader, stdout) = UnixStream::pair().unwrap();
    stdout.set_nonblocking(true).unwrap();
    for size in [4096, 1] {
        while (&stdout).write(&vec![b'!'; size]).is_ok() {}
    }
    stdout.set_nonblocking(false).unwrap();
    let mut process = Command::new(binary("embed_host_loop"))
        .args(["--by", "turns"])
        .stdout(OwnedFd::from(stdout))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !catches_sigquit(process.id()) {
        thread::yield_now();
    }
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    let mut line = || lines.next().unwrap().unwrap();
    let id = process.id().to_string();
    loop {
        let kill = Command::new("kill").args(["-QUIT", &id]).status();
        assert!(kill.unwrap().success());
        if line_of_loop(&mut line).starts_with("loop held, ") {
            break;
        }
    }
    let holder = line();
    let task = "1 task, spawned at examples/embed_host_loop.rs:";
    assert!(
        holder.starts_with(task) && holder.ends_with(", running"),
        "{holder}"
    );
    process.kill().unwrap();
    process.wait().unwrap();
}

/// The next line that says how the loop is.
#[cfg(target_os = "linux")]
fn line_of_loop(line: &mut impl FnMut() -> String) -> String {
    loop {
        let line = line();
        if line.starts_with("loop ") {
            return line;
        }
    }
}

// ---- the trace ----

#[test]
#[cfg(not(feature = "trace"))]
fn without_its_feature_a_trace_is_refused_with_the_command_that_has_it() {
    for mode in MODES {
        let refused = run("echo_server", &flags(mode, &["--trace", "trace.json"]));
        assert_eq!(refused.status.code(), Some(2), "{mode}");
        let command = "cargo run --release --features trace --example echo_server -- --trace PATH";
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains(command), "{mode}: {said}");
    }
}

/// What a trace file has so far, once it is whole.
#[cfg(feature = "trace")]
fn slices(path: &std::path::Path) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(path).ok()?;
    let file: serde_json::Value = serde_json::from_str(&text).ok()?;
    let events = file["traceEvents"].as_array().expect("a list of events");
    let names = events.iter().filter_map(|event| event["name"].as_str());
    Some(names.map(str::to_owned).collect())
}

#[test]
#[cfg(feature = "trace")]
fn a_trace_is_written_at_each_sigusr1_and_at_the_end_and_the_echo_goes_on_in_every_mode() {
    let _watchdog = watchdog();
    for mode in MODES {
        let name = format!("netpoller-{}-{mode}.json", std::process::id());
        let path = std::env::temp_dir().join(name);
        let mut server = start(mode, &["--trace", path.to_str().unwrap()]);
        let mut client = server.connect();
        let mut echo = || {
            client.write_all(b"hi").unwrap();
            client.read_exact(&mut [0; 2]).unwrap();
        };
        let events = |path| {
            slices(path).map(|all| all.iter().filter(|name| name.starts_with("Event ")).count())
        };
        echo();
        // The file is there and empty, until the first signal.
        assert_eq!(events(&path), None, "{mode}");
        let mut last = 0;
        for _ in 0..2 {
            echo();
            server.signal("-USR1");
            while events(&path).is_none_or(|count| count <= last) {
                echo();
                thread::yield_now();
            }
            last = events(&path).unwrap_or(last);
        }
        if mode != "reactor" {
            let place = format!("spawned at examples/echo_server/{mode}_mode.rs:");
            let all = slices(&path).unwrap_or_default();
            assert!(
                all.iter()
                    .any(|name| name.starts_with("Run ") && name.contains(&place)),
                "{mode}: {all:?}"
            );
        }
        let before = events(&path).unwrap();
        echo();
        drop(client);
        server.signal("-TERM");
        assert_eq!(server.end().0, Some(0), "{mode}");
        assert!(events(&path).unwrap() > before, "{mode}");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
#[cfg(feature = "trace")]
fn a_trace_that_cannot_be_written_is_refused_before_the_server_begins() {
    for mode in MODES {
        let refused = run(
            "echo_server",
            &flags(mode, &["--trace", "/nonexistent/trace.json"]),
        );
        assert_eq!(refused.status.code(), Some(1), "{mode}");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains("/nonexistent/trace.json"), "{mode}: {said}");
    }
}
