//! `study`: the ten steps of its tour over HTTP, two readers, bad requests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::study;
use crate::watchdog::watchdog;

/// A server of its own for each test, in a thread that ends with the process.
fn server() -> SocketAddr {
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listening.local_addr().unwrap();
    thread::spawn(move || study::run(listening, |_| Ok(())));
    addr
}

/// The status and the body of the answer.
fn send(addr: SocketAddr, request: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).unwrap();
    // A request that is too long may be refused, and reset, before its end.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (status.unwrap_or_default(), body.to_owned())
}

fn ask(addr: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    send(addr, request.as_bytes())
}

fn get(addr: SocketAddr, path: &str) -> Value {
    let (status, body) = ask(addr, "GET", path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

fn version(addr: SocketAddr) -> u64 {
    get(addr, "/state")["version"].as_u64().unwrap()
}

/// Does a command as a reader that has seen everything. Returns the new state.
fn order(addr: SocketAddr, command: &str) -> Value {
    let path = format!("/do/{}/{command}", version(addr));
    let (status, body) = ask(addr, "POST", &path);
    assert_eq!(status, 200, "{command}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// Whether a check holds: the rules of `judge` in page.js.
fn holds(check: &Value, frames: &Value) -> bool {
    let value = frames
        .pointer(check["at"].as_str().unwrap())
        .unwrap_or(&Value::Null);
    let than = &check["than"];
    let than = match than.as_str().filter(|than| than.starts_with('/')) {
        Some(pointer) => frames.pointer(pointer).unwrap_or(&Value::Null),
        None => than,
    };
    let all = value.as_array();
    let text = |one: &Value| one["say"].as_str().or(one.as_str()).map(str::to_owned);
    match check["is"].as_str().unwrap() {
        "is" => value
            .as_f64()
            .map_or(value == than, |value| than.as_f64() == Some(value)),
        "differs" => value != than,
        "above" => value.as_f64() > than.as_f64() && value.is_number(),
        "below" => value.as_f64() < than.as_f64() && value.is_number(),
        "has" => all.is_some_and(|all| all.contains(than)),
        "contains" => {
            let texts = all.map_or(vec![text(value)], |all| all.iter().map(text).collect());
            texts
                .into_iter()
                .flatten()
                .any(|text| text.contains(than.as_str().unwrap()))
        }
        "distinct" => all.is_some_and(|all| {
            let mut all: Vec<String> = all.iter().map(Value::to_string).collect();
            all.sort();
            all.dedup();
            Some(all.len() as u64) == than.as_u64()
        }),
        other => panic!("no such rule: {other}"),
    }
}

#[test]
fn each_step_of_the_tour_does_what_its_sentence_says() {
    let _watchdog = watchdog();
    let addr = server();
    let tour = get(addr, "/tour");
    let steps = tour["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 10);
    for (number, step) in (1..).zip(steps) {
        let checks = step["checks"].as_array().unwrap();
        assert!(checks.len() >= 4);
        let failing = |frames: &Value| {
            let failing = checks.iter().filter(|check| !holds(check, frames));
            failing
                .map(|check| check["say"].to_string())
                .collect::<Vec<_>>()
        };
        let before = order(addr, &format!("scene/{number}"));
        assert_ne!(
            failing(&before["frames"]),
            [""; 0],
            "step {number} holds without its action"
        );
        // A second time on the same stage: the scene is set anew.
        for _ in 0..2 {
            let after = order(addr, "act");
            let title = &step["title"];
            assert_eq!(
                failing(&after["frames"]),
                [""; 0],
                "step {number}, {title}: {after:#}"
            );
        }
    }
}

#[test]
fn each_box_shows_code_that_is_in_the_sources() {
    for shown in study::code::ALL {
        let cut = shown.cut().map(|(_, text)| text);
        let found = cut.is_some_and(|text| text.lines().next().unwrap().contains(shown.begins));
        assert!(found, "{} has no {:?}", shown.file.0, shown.begins);
    }
    let ids: Vec<&str> = study::code::ALL.iter().map(|shown| shown.id).collect();
    // The boxes of the page, but for one that has the code of another name.
    let page = include_str!("../../examples/study/page.js");
    let boxes = page
        .split_once("const BOXES = [")
        .unwrap()
        .1
        .split_once("];")
        .unwrap()
        .0;
    let names = boxes
        .split('\'')
        .skip(1)
        .step_by(2)
        .filter(|name| !name.contains([' ', ',']));
    let missing: Vec<&str> = names
        .filter(|name| *name != "try" && !ids.contains(name))
        .collect();
    assert_eq!(missing, [""; 0]);
    let tour = get(server(), "/tour");
    for step in tour["steps"].as_array().unwrap() {
        for id in step["code"].as_array().unwrap() {
            assert!(ids.contains(&id.as_str().unwrap()), "{id}");
        }
    }
}

/// The ids of the next events.
fn ids(events: &mut impl BufRead) -> impl Iterator<Item = u64> {
    let lines = events.lines().map_while(Result::ok);
    lines.filter_map(|line| line.strip_prefix("id: ")?.parse().ok())
}

fn events(addr: SocketAddr) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(addr).unwrap();
    let request = format!("GET /events HTTP/1.1\r\nHost: {addr}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    BufReader::new(stream)
}

#[test]
fn of_two_readers_that_step_at_once_one_steps_and_both_see_it() {
    let _watchdog = watchdog();
    let addr = server();
    let mut readers = [events(addr), events(addr)];
    for _ in 0..20 {
        let seen = version(addr);
        let path = &format!("/do/{seen}/turn");
        let mut statuses = thread::scope(|scope| {
            let both = [0, 1].map(|_| scope.spawn(|| ask(addr, "POST", path).0));
            both.map(|one| one.join().unwrap())
        });
        statuses.sort();
        assert_eq!(statuses, [200, 409]);
        assert_eq!(version(addr), seen + 1);
        for reader in &mut readers {
            assert!(ids(reader).any(|id| id == seen + 1));
        }
    }
}

#[test]
fn a_reader_that_never_reads_its_events_holds_up_nothing_and_is_told_only_the_newest() {
    const COMMANDS: u64 = 600;
    let _watchdog = watchdog();
    let addr = server();
    let mut silent = events(addr);
    let first = ids(&mut silent).next().unwrap();
    order(addr, "scene/0");
    while ask(addr, "POST", &format!("/do/{}/connect", version(addr))).0 == 200 {}
    order(addr, "turns");
    let mut reader = events(addr);
    for _ in 0..COMMANDS {
        let state = order(addr, "turn");
        let new = state["version"].as_u64().unwrap();
        assert!(ids(&mut reader).any(|id| id == new));
    }
    // It gets what the kernel took at the time, and then only the newest.
    let last = version(addr);
    let told = ids(&mut silent).take_while(|&id| id < last).count() as u64;
    assert!(told < last - first - COMMANDS / 10, "{told} of {COMMANDS}");
}

#[test]
fn a_bad_request_gets_an_error_and_changes_nothing() {
    let _watchdog = watchdog();
    let addr = server();
    order(addr, "scene/0");
    let seen = version(addr);
    let now = |command: &str| format!("/do/{seen}/{command}");
    for (method, path, status) in [
        ("GET", "/nothing".to_owned(), 404),
        ("POST", "/".to_owned(), 405),
        ("DELETE", "/state".to_owned(), 405),
        ("POST", "/events".to_owned(), 405),
        ("GET", now("turn"), 405),
        ("POST", format!("/do/{}/turn", seen - 1), 409),
        ("POST", format!("/do/{}/turn", seen + 1), 409),
        ("POST", "/do/".to_owned(), 400),
        ("POST", "/do/x/turn".to_owned(), 400),
        ("POST", "/do/-1/turn".to_owned(), 400),
        ("POST", "/do/99999999999999999999/turn".to_owned(), 400),
        ("POST", now(""), 400),
        ("POST", now("dance"), 400),
        ("POST", now("turn/1"), 400),
        ("POST", now("act"), 400), // The free stage has no action.
        ("POST", now("scene/11"), 400),
        ("POST", now("scene/x"), 400),
        ("POST", now("pass/86401"), 400),
        ("POST", now("send/0/1048577"), 400),
        ("POST", now("send/0"), 400),
        ("POST", now("send/7/5"), 400),
        ("POST", now("reset/0/0"), 400),
        ("POST", now("%2e%2e/%00"), 400),
    ] {
        let (found, body) = ask(addr, method, &path);
        assert_eq!(found, status, "{method} {path}: {body}");
    }
    let foreign = format!(
        "POST {} HTTP/1.1\r\nHost: {addr}\r\nOrigin: http://example.com\r\nConnection: close\r\n\r\n",
        now("turn")
    );
    assert_eq!(send(addr, foreign.as_bytes()).0, 403);
    // A host name that its owner has made point to this address.
    for path in ["/", "/events", &now("turn")] {
        let method = if path.starts_with("/do") {
            "POST"
        } else {
            "GET"
        };
        for host in ["example.com", "1.example.com:80", "127.0.0.1.example.com"] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            assert_eq!(send(addr, request.as_bytes()).0, 403, "{path} of {host}");
        }
    }
    for host in [
        "localhost",
        "localhost:80",
        "[::1]:80",
        "[::1]",
        "127.0.0.1",
    ] {
        let request = format!("GET /state HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert_eq!(send(addr, request.as_bytes()).0, 200, "{host}");
    }
    assert_eq!(send(addr, b"\x16\x03\x01\x02\x00 hello\r\n\r\n").0, 400);
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20_000));
    assert_eq!(send(addr, long.as_bytes()).0, 431);
    let body = format!("POST / HTTP/1.1\r\nHost: {addr}\r\nContent-Length: 70000\r\n\r\n");
    assert_eq!(send(addr, body.as_bytes()).0, 413);
    // Half a request holds up no other.
    let mut half = TcpStream::connect(addr).unwrap();
    half.write_all(b"POST /do/").unwrap();
    assert_eq!(version(addr), seen);
    // A client that is gone, and a server that has ended, may be told to do something all the same.
    for command in [
        "reset/0", "send/0/5", "end/0", "read/0", "turns", "drain", "turns", "connect", "turns",
        "drain",
    ] {
        let path = format!("/do/{}/{command}", version(addr));
        let (status, body) = ask(addr, "POST", &path);
        assert!(status == 200 || status == 400, "{command}: {status} {body}");
    }
}

#[test]
fn the_page_takes_nothing_from_elsewhere() {
    let addr = server();
    for path in ["/", "/page.css", "/page.js"] {
        let (status, body) = ask(addr, "GET", path);
        assert_eq!(status, 200);
        let foreign = body
            .split("http")
            .skip(1)
            .filter(|rest| rest.starts_with("s:") || rest.starts_with(":"));
        let foreign = foreign.filter(|rest| !rest.starts_with("://www.w3.org/2000/svg'"));
        assert_eq!(foreign.count(), 0, "{path}");
        let (status, none) = ask(addr, "HEAD", path);
        assert_eq!((status, none.as_str()), (200, ""));
    }
    // For a while a browser keeps the connection.
    let mut kept = TcpStream::connect(addr).unwrap();
    kept.set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    for _ in 0..2 {
        let request = format!("GET /nothing HTTP/1.1\r\nHost: {addr}\r\n\r\n");
        kept.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 12];
        kept.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 404");
        let mut rest = BufReader::new(&kept);
        let mut line = String::new();
        while !line.ends_with("such page\n") {
            assert_ne!(rest.read_line(&mut line).unwrap(), 0);
        }
    }
}

#[test]
fn connections_that_ask_for_nothing_hold_up_no_reader_for_long() {
    let _watchdog = watchdog();
    let addr = server();
    let idle: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let begun = std::time::Instant::now();
    assert!(version(addr) < 2);
    assert!(begun.elapsed() < Duration::from_secs(30));
    drop(idle);
}
