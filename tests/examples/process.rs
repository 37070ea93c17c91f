//! The examples as processes: flags, exit codes, Ctrl-C.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

const ALL: [&str; 18] = [
    "broadcast",
    "capture",
    "dial_race",
    "echo_client",
    "echo_server",
    "frames",
    "http",
    "idle_server",
    "lines",
    "monitor",
    "ping_server",
    "pinger",
    "proxy",
    "retry_write",
    "tcp_ping",
    "time_server",
    "tlv",
    "udp",
];

/// An example that was built. `cargo test` builds all of them; `cargo test --test examples` builds
/// none, so that what is missing is built here.
fn binary(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.ancestors().nth(2).unwrap();
        let examples = profile.join("examples");
        if ALL.iter().all(|name| examples.join(name).exists()) {
            return examples;
        }
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        cargo.args(["build", "--quiet"]);
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        cargo.args(ALL.iter().flat_map(|name| ["--example", name]));
        assert!(cargo.status().unwrap().success(), "{cargo:?}");
        examples
    });
    built.join(name)
}

fn run(name: &str, flags: &[&str]) -> Output {
    Command::new(binary(name)).args(flags).output().unwrap()
}

/// Whether this process may have many files open. If not, `test` is run in one that may.
pub fn with_many_files(test: &str) -> bool {
    const HERE: &str = "NETPOLLER_MANY_FILES";
    if std::env::var_os(HERE).is_some() {
        return true;
    }
    let ran = Command::new("sh")
        .args(["-c", "ulimit -n 8192; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(HERE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "in the other process: {said}");
    false
}

/// A server that is an example. It goes with its test.
pub struct Server {
    pub addr: SocketAddr,
    process: Child,
    /// Kept open: who prints to a pipe that nobody holds fails.
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    pub fn start(name: &str, flags: &[&str]) -> Server {
        let mut process = Command::new(binary(name))
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut first = String::new();
        stdout.read_line(&mut first).unwrap();
        let addr = first.trim_end().strip_prefix("listening on ");
        let addr = addr.unwrap_or_else(|| panic!("{name} begins with {first:?}"));
        Server {
            addr: addr.parse().unwrap(),
            process,
            _stdout: stdout,
        }
    }

    /// Sends a signal, and gives the status.
    fn signal(&mut self, signal: &str) -> Option<i32> {
        let id = self.process.id().to_string();
        let kill = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(kill.success());
        self.process.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn every_example_explains_its_flags() {
    for name in ALL {
        let help = run(name, &["--help"]);
        assert!(help.status.success(), "{name}");
        let said = String::from_utf8(help.stdout).unwrap();
        assert!(said.contains("Usage: "), "{name}: {said}");
        assert_eq!(
            run(name, &["--no-such-flag"]).status.code(),
            Some(2),
            "{name}"
        );
    }
}

#[test]
fn servers_say_the_real_port_and_end_cleanly_by_ctrl_c() {
    let servers = [
        "broadcast",
        "echo_server",
        "frames",
        "http",
        "idle_server",
        "lines",
        "monitor",
        "time_server",
        "tlv",
    ];
    for (name, signal) in servers
        .into_iter()
        .zip(["-INT", "-TERM"].into_iter().cycle())
    {
        let mut server = Server::start(name, &["--addr", "127.0.0.1:0"]);
        assert_ne!(server.addr.port(), 0);
        let mut connection = TcpStream::connect(server.addr).unwrap();
        assert_eq!(server.signal(signal), Some(0), "{name}");
        // What was open is closed, and the port is free.
        connection
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let _ = connection.read_to_end(&mut Vec::new());
        assert!(TcpStream::connect(server.addr).is_err(), "{name}");
    }
    let mut server = Server::start("udp", &[]);
    assert_eq!(server.signal("-INT"), Some(0));
    let mut server = Server::start("proxy", &["--to", "127.0.0.1:1"]);
    assert_eq!(server.signal("-INT"), Some(0));
}

#[test]
fn an_error_is_one_line_and_status_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let ran = run("time_server", &["--addr", &addr]);
    let expected = format!("time_server: listen tcp {addr}: bind: address already in use\n");
    assert_eq!(String::from_utf8(ran.stderr).unwrap(), expected);
    assert_eq!(ran.status.code(), Some(1));
}

/// As under `| true`: whoever was to read has left.
#[test]
fn who_prints_for_nobody_ends_quietly() {
    for name in [
        "dial_race",
        "pinger",
        "ping_server",
        "tcp_ping",
        "time_server",
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let flags: &[&str] = match name {
            "tcp_ping" => &["127.0.0.1:1"],
            "time_server" => &["--addr", "127.0.0.1:0"],
            _ => &[],
        };
        let mut command = Command::new(binary(name));
        let ran = command.args(flags).stdout(writer).output().unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert_eq!((ran.status.code(), said.as_str()), (Some(0), ""), "{name}");
    }
}

/// The example that opens a file finds it wherever it is run.
#[test]
fn the_proxy_shows_itself_from_any_directory() {
    let mut command = Command::new(binary("proxy"));
    let ran = command.current_dir("/").output().unwrap();
    let said = String::from_utf8(ran.stderr).unwrap();
    assert!(ran.status.success(), "{said}");
}

#[test]
fn the_ping_s_status_is_1_after_a_permanent_error_and_else_0() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let went_well = run("tcp_ping", &["-c", "2", "-i", "10ms", &addr]);
    assert_eq!(went_well.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(went_well.stdout).unwrap().lines().count(),
        3
    );

    drop(listener);
    let refused = run("tcp_ping", &["-c", "2", "-i", "10ms", &addr]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stdout).unwrap();
    let error = format!(": dial tcp {addr}: connect: connection refused\n");
    assert!(
        said.starts_with(&format!("PING {addr}\n1 fail in ")),
        "{said}"
    );
    assert!(said.ends_with(&error), "{said}");
    assert_eq!(said.lines().count(), 2);
}

#[test]
fn a_count_of_zero_is_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    for count in ["0", "-1"] {
        let mut ping = Command::new(binary("tcp_ping"))
            .args(["-c", count, "-i", "1ms", &addr])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(ping.stdout.take().unwrap()).lines();
        let tenth = lines
            .map(Result::unwrap)
            .find(|line| line.starts_with("10 "));
        assert!(tenth.is_some());
        ping.kill().unwrap();
        ping.wait().unwrap();
    }
}

#[test]
fn those_that_show_themselves_come_to_an_end() {
    for (name, flags, says) in [
        ("capture", &[][..], "closed by RST"),
        ("dial_race", &[], "connected to [::1]"),
        ("ping_server", &[], "9s: end of file"),
        ("pinger", &[], "9s: end of file"),
        ("retry_write", &[], "threshold exceeded"),
    ] {
        let ran = run(name, flags);
        let said = String::from_utf8(ran.stdout).unwrap();
        assert!(
            ran.status.success() && said.contains(says),
            "{name}: {said}"
        );
    }
    for (name, flags) in [
        ("echo_client", &["--seconds", "0"][..]),
        ("echo_client", &["--seconds", "0", "--linger", "0"]),
        ("proxy", &[]),
    ] {
        assert!(run(name, flags).status.success(), "{name}");
    }
}
