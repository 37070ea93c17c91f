//! The examples as processes: flags, exit status, signals.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::dial_race::Silent;
use crate::watchdog::{Watchdog, watchdog};

const ALL: [&str; 24] = [
    "broadcast",
    "capture",
    "deadlines",
    "dial_race",
    "echo_client",
    "echo_server",
    "embed_host_loop",
    "frames",
    "game",
    "http",
    "idle_server",
    "lines",
    "metrics",
    "monitor",
    "ping_server",
    "pinger",
    "proxy",
    "reactor_http",
    "retry_write",
    "rooms",
    "tcp_ping",
    "time_server",
    "tlv",
    "udp",
];

/// An example, as its sources are now: `cargo test --test examples` alone builds none.
pub fn binary(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.ancestors().nth(2).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        cargo.args(["build", "--quiet"]);
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        if cfg!(feature = "trace") {
            cargo.args(["--features", "trace"]);
        }
        cargo.args(ALL.iter().flat_map(|name| ["--example", name]));
        assert!(cargo.status().unwrap().success(), "{cargo:?}");
        profile.join("examples")
    });
    built.join(name)
}

pub fn run(name: &str, flags: &[&str]) -> Output {
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

/// A server that is an example. It is killed with its test.
pub struct Server {
    pub addr: SocketAddr,
    process: Child,
    /// Kept open: a server that prints to a pipe without a reader fails.
    _stdout: BufReader<ChildStdout>,
    log: BufReader<ChildStderr>,
    /// What has been read of the log.
    read: String,
    _watchdog: Watchdog,
}

impl Server {
    pub fn start(name: &str, flags: &[&str]) -> Server {
        Server::run(Command::new(binary(name)).args(flags))
    }

    /// Starts a server that may have so many descriptors open.
    pub fn with_descriptors(limit: usize, name: &str, flags: &[&str]) -> Server {
        let limited = format!("ulimit -n {limit}; exec \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &limited, "sh"]).arg(binary(name));
        Server::run(command.args(flags))
    }

    /// Starts a server whose log can't be written.
    pub fn without_log(name: &str, flags: &[&str]) -> Server {
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$@\" 2>/dev/full", "sh"]);
        Server::run(command.arg(binary(name)).args(flags))
    }

    /// Starts a server that logs at this level.
    pub fn logging(level: &str, name: &str, flags: &[&str]) -> Server {
        Server::run(
            Command::new(binary(name))
                .args(flags)
                .env("RUST_LOG", level),
        )
    }

    fn run(command: &mut Command) -> Server {
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut first = String::new();
        stdout.read_line(&mut first).unwrap();
        let addr = first.trim_end().strip_prefix("listening on ");
        let addr = addr.unwrap_or_else(|| panic!("{command:?} begins with {first:?}"));
        Server {
            addr: addr.parse().unwrap(),
            log: BufReader::new(process.stderr.take().unwrap()),
            process,
            _stdout: stdout,
            read: String::new(),
            _watchdog: watchdog(),
        }
    }

    /// Connects, with a time limit for every read and write.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Waits until the log has a line with this text.
    pub fn wait_for_log(&mut self, text: &str) -> String {
        loop {
            let mut line = String::new();
            let length = self.log.read_line(&mut line).unwrap();
            assert!(length > 0, "no {text:?} in {}", self.read);
            self.read += &line;
            if line.contains(text) {
                return line;
            }
        }
    }

    pub fn signal(&self, signal: &str) {
        let id = self.process.id().to_string();
        let kill = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(kill.success());
    }

    /// Waits for the end. Its status, and the whole log.
    pub fn end(&mut self) -> (Option<i32>, String) {
        self.log.read_to_string(&mut self.read).unwrap();
        let status = self.process.wait().unwrap().code();
        (status, std::mem::take(&mut self.read))
    }
}

/// A limit that only a fault reaches.
pub const PATIENCE: Duration = Duration::from_secs(20);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn each_listed_example_explains_its_flags() {
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
        "metrics",
        "monitor",
        "reactor_http",
        "rooms",
        "time_server",
        "tlv",
    ];
    for (name, signal) in servers
        .into_iter()
        .zip(["-INT", "-TERM"].into_iter().cycle())
    {
        let mut server = Server::start(name, &["--addr", "127.0.0.1:0"]);
        assert_ne!(server.addr.port(), 0);
        let mut connection = server.connect();
        server.signal(signal);
        assert_eq!(server.end().0, Some(0), "{name}");
        // What was open is closed, and the port is free.
        let _ = connection.read_to_end(&mut Vec::new());
        assert!(TcpStream::connect(server.addr).is_err(), "{name}");
    }
    let mut server = Server::start("udp", &[]);
    server.signal("-INT");
    assert_eq!(server.end().0, Some(0));
    let mut server = Server::start("proxy", &["--to", "127.0.0.1:1"]);
    server.signal("-INT");
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn an_error_is_one_line_and_status_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let ran = run("time_server", &["--addr", &addr]);
    let expected = format!("time_server: listen tcp {addr}: bind: address already in use\n");
    assert_eq!(String::from_utf8(ran.stderr).unwrap(), expected);
    assert_eq!(ran.status.code(), Some(1));

    let ran = run("monitor", &["--log", "/no/such/file"]);
    let said = String::from_utf8(ran.stderr).unwrap();
    assert!(said.starts_with("monitor: --log /no/such/file: "), "{said}");
    assert_eq!((said.lines().count(), ran.status.code()), (1, Some(1)));
}

#[test]
fn wrong_flags_are_explained_with_status_2() {
    for (name, flags, says) in [
        ("proxy", ["--to", "foo"], "missing port in address"),
        ("proxy", ["--to", "[::1]"], "missing port in address"),
        ("proxy", ["--addr", "127.0.0.1:0"], "--to <TO>"),
        ("idle_server", ["--idle", "3 days"], "such as 500ms"),
    ] {
        let ran = run(name, &flags);
        let said = String::from_utf8(ran.stderr).unwrap();
        assert!(said.contains(says), "{name} {flags:?}: {said}");
        assert_eq!(ran.status.code(), Some(2), "{name} {flags:?}");
    }
}

/// As under `| true`: the reader of standard output has left.
#[test]
fn an_example_whose_reader_has_left_ends_quietly() {
    for name in [
        "deadlines",
        "dial_race",
        "embed_host_loop",
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

/// It opens a file, which it must find from every directory.
#[test]
fn the_proxy_shows_itself_from_any_directory() {
    let mut command = Command::new(binary("proxy"));
    let ran = command.current_dir("/").output().unwrap();
    let said = String::from_utf8(ran.stderr).unwrap();
    assert!(ran.status.success(), "{said}");
}

#[test]
fn the_status_of_a_ping_is_1_after_a_permanent_error_and_without_an_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let went_well = run("tcp_ping", &["-c", "2", "-i", "10ms", &addr]);
    assert_eq!(went_well.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(went_well.stdout).unwrap().lines().count(),
        3
    );

    // A port that another process may not take meanwhile.
    let addr = "127.0.0.1:1";
    let refused = run("tcp_ping", &["-c", "2", "-i", "10ms", addr]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stdout).unwrap();
    let error = format!(": dial tcp {addr}: connect: connection refused\n");
    assert!(
        said.starts_with(&format!("PING {addr}\n1 fail in ")),
        "{said}"
    );
    assert!(said.ends_with(&error), "{said}");
    assert_eq!(said.lines().count(), 2);

    let silent = Silent::new().unwrap();
    let addr = silent.addr.to_string();
    let silence = run("tcp_ping", &["-c", "2", "-i", "1ms", "-W", "10ms", &addr]);
    assert_eq!(silence.status.code(), Some(1));
    let said = String::from_utf8(silence.stdout).unwrap();
    assert_eq!(said.lines().count(), 3, "{said}");
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
fn examples_without_flags_show_their_rows_and_end() {
    let watched = |says| match cfg!(mio_unsupported_force_poll_poll) {
        true => "poll(2) has no descriptor",
        false => says,
    };
    for (name, flags, says) in [
        ("capture", &[][..], "closed by RST"),
        ("deadlines", &[], "after 2s: \"hello\""),
        ("dial_race", &[], "connected to [::1]"),
        ("embed_host_loop", &[], watched("notified: ")),
        (
            "embed_host_loop",
            &["--by", "calloop"],
            watched("in calloop: "),
        ),
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
