//! `reactor_http`: files, refusals, deadlines, and clients that take their time.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::process::Server;
use crate::reactor_http::request::{self, LONGEST};
use crate::support::stall::stall;

/// A directory with files to serve, removed with its test.
struct Files(PathBuf);

impl Files {
    fn new() -> Files {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("netpoller-files-{}-{count}", std::process::id());
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(root.join("a b")).unwrap();
        fs::write(root.join("hello.txt"), "hello\n").unwrap();
        fs::write(root.join("empty"), "").unwrap();
        fs::write(root.join("a b/index.html"), "<p>in").unwrap();
        Files(root)
    }

    /// A server of these files.
    fn serve(&self, flags: &[&str]) -> Server {
        let root = self.0.to_str().unwrap();
        let mut all = vec!["--addr", "127.0.0.1:0", "--root", root];
        all.extend(flags);
        Server::start("reactor_http", &all)
    }

    fn with_large(length: usize) -> (Files, Vec<u8>) {
        let files = Files::new();
        let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        fs::write(files.0.join("large"), &bytes).unwrap();
        (files, bytes)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the server sends until it closes.
fn rest(mut stream: &TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

fn get(server: &Server, request: &str) -> String {
    let mut stream = server.connect();
    stream.write_all(request.as_bytes()).unwrap();
    String::from_utf8(rest(&stream)).unwrap()
}

fn body(answer: &[u8]) -> &[u8] {
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n");
    &answer[end.expect("a head") + 4..]
}

/// The status of the answer to a request, by the parser alone.
fn status(root: &Path, request: &str) -> String {
    let answer = request::answer(request.as_bytes(), root).expect("the request is whole");
    String::from_utf8(answer.bytes[9..12].to_vec()).unwrap()
}

#[test]
fn files_are_served_with_their_length_and_kind() {
    let files = Files::new();
    let server = files.serve(&[]);
    let hello = get(&server, "GET /hello.txt HTTP/1.0\r\n\r\n");
    let head = "HTTP/1.0 200 OK\r\nContent-Length: 6\r\nContent-Type: text/plain; charset=utf-8\r\n\
                Connection: close\r\n\r\n";
    assert_eq!(hello, format!("{head}hello\n"));
    let headers_only = get(&server, "HEAD /hello.txt?x=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(headers_only, head);
    assert!(get(&server, "HEAD /nothing HTTP/1.0\r\n\r\n").ends_with("\r\n\r\n"));
    assert!(get(&server, "GET /empty HTTP/1.0\n\n").ends_with("\r\n\r\n"));
    assert!(get(&server, "GET /a%20b/ HTTP/1.0\r\n\r\n").ends_with("<p>in"));
}

#[test]
fn what_is_no_file_below_the_root_is_refused() {
    let files = Files::new();
    let root = &files.0;
    let pipe = root.join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    symlink("nowhere", root.join("broken")).unwrap();
    for (target, expected) in [
        ("/hello.txt", "200"),
        ("/nothing", "404"),
        ("/a%20b", "404"),
        ("/pipe", "404"),
        ("/broken", "404"),
        ("/hello.txt/", "404"),
        (&format!("/{}", "x".repeat(300)), "404"),
        ("/../hello.txt", "400"),
        ("/%2e%2E/hello.txt", "400"),
        ("//etc/passwd", "400"),
        ("/%2fetc/passwd", "400"),
        ("/a%00b", "400"),
        ("/a%2", "400"),
        ("/a%zz", "400"),
        ("hello.txt", "400"),
    ] {
        let request = format!("GET {target} HTTP/1.0\r\n\r\n");
        assert_eq!(status(root, &request), expected, "{target}");
    }
    for (request, expected) in [
        ("\r\n\r\n", "400"),
        ("GET /\r\n\r\n", "400"),
        ("GET / HTTP/1.0 x\r\n\r\n", "400"),
        ("GET / FTP/1.0\r\n\r\n", "400"),
        ("PUT / HTTP/1.0\r\n\r\n", "501"),
    ] {
        assert_eq!(status(root, request), expected, "{request:?}");
    }
}

#[test]
fn a_request_may_come_in_any_pieces_and_has_an_end() {
    let files = Files::new();
    let request = "GET /hello.txt HTTP/1.0\r\nA: b\r\n\r\n";
    for cut in 0..request.len() {
        assert!(request::answer(&request.as_bytes()[..cut], &files.0).is_none());
    }
    assert_eq!(status(&files.0, request), "200");
    assert!(request::answer(&[b'x'; LONGEST - 1], &files.0).is_none());
    assert_eq!(status(&files.0, &"x".repeat(LONGEST)), "431");

    let server = files.serve(&[]);
    let mut stream = server.connect();
    stream.set_nodelay(true).unwrap();
    for byte in request.as_bytes() {
        stream.write_all(&[*byte]).unwrap();
    }
    assert!(rest(&stream).ends_with(b"hello\n"));
    // Too long: it is refused, and what comes behind is read past, so that no RST overtakes the
    // answer.
    let mut stream = server.connect();
    stream.write_all(&[b'x'; 512 * 1024]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(rest(&stream).starts_with(b"HTTP/1.0 431 "));
}

#[test]
fn ten_mebibytes_reach_a_slow_reader_whole_and_hold_up_no_other() {
    let (files, expected) = Files::with_large(10 << 20);
    let server = files.serve(&[]);
    let mut slow = server.connect();
    slow.write_all(b"GET /large HTTP/1.0\r\n\r\n").unwrap();
    // The buffers between are full long before the end, so the server waits for this client.
    let mut first = [0; 1000];
    slow.read_exact(&mut first).unwrap();
    assert!(get(&server, "GET /hello.txt HTTP/1.0\r\n\r\n").ends_with("hello\n"));
    let mut all = first.to_vec();
    let mut piece = [0; 10_000];
    loop {
        match slow.read(&mut piece).unwrap() {
            0 => break,
            got => all.extend_from_slice(&piece[..got]),
        }
    }
    assert_eq!(body(&all), expected);
}

#[test]
fn a_request_that_never_ends_and_an_answer_that_is_not_taken_run_into_their_deadlines() {
    let (files, _) = Files::with_large(64 << 20);
    let mut server = files.serve(&["--timeout", "200ms"]);
    let mut silent = server.connect();
    silent.write_all(b"GET /").unwrap();
    let mut stuck = server.connect();
    stuck.write_all(b"GET /large HTTP/1.0\r\n\r\n").unwrap();
    server.wait_for_log("i/o timeout");
    server.wait_for_log("i/o timeout");
    assert_eq!(rest(&silent), b"");
    // What was cut off does not look whole.
    let cut_off = stuck.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(cut_off.kind(), ErrorKind::ConnectionReset);
    // A client that has its answer and does not close does not stay either.
    let mut served = server.connect();
    served
        .write_all(b"GET /hello.txt HTTP/1.0\r\n\r\n")
        .unwrap();
    assert!(rest(&served).ends_with(b"hello\n"));
    server.wait_for_log("done");
}

#[test]
fn a_client_that_takes_little_at_a_time_is_not_judged_by_the_kernels_buffer() {
    let (files, expected) = Files::with_large(10 << 20);
    let server = files.serve(&["--timeout", "1s"]);
    let mut slow = server.connect();
    slow.write_all(b"GET /large HTTP/1.0\r\n\r\n").unwrap();
    let (mut all, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
    // It takes 2.5 s in all, and within a second less than a third of a buffer of megabytes.
    for _ in 0..25 {
        let got = slow.read(&mut piece).unwrap();
        all.extend_from_slice(&piece[..got]);
        stall(Duration::from_millis(100));
    }
    all.extend(rest(&slow));
    assert_eq!(body(&all), expected);
}

#[test]
fn a_client_that_resets_ends_its_own_connection_alone() {
    let (files, _) = Files::with_large(10 << 20);
    let server = files.serve(&[]);
    for _ in 0..20 {
        let mut stream = server.connect();
        stream.write_all(b"GET /large HTTP/1.0\r\n\r\n").unwrap();
        stream.read_exact(&mut [0; 100]).unwrap();
        // With unread bytes a close is a RST.
        drop(stream);
    }
    assert!(get(&server, "GET /hello.txt HTTP/1.0\r\n\r\n").ends_with("hello\n"));
}

#[test]
fn after_more_clients_than_descriptors_the_next_is_served() {
    let files = Files::new();
    let root = files.0.to_str().unwrap();
    let flags = ["--addr", "127.0.0.1:0", "--root", root, "--timeout", "1s"];
    let mut server = Server::with_descriptors(24, "reactor_http", &flags);
    let silent: Vec<TcpStream> = (0..30).map(|_| server.connect()).collect();
    server.wait_for_log("accepting pauses");
    drop(silent);
    assert!(get(&server, "GET /hello.txt HTTP/1.0\r\n\r\n").ends_with("hello\n"));
}

#[test]
fn curl_gets_a_file() {
    let (files, expected) = Files::with_large(1 << 20);
    let server = files.serve(&[]);
    let url = format!("http://{}/large", server.addr);
    let curl = Command::new("curl").args(["-sf", &url]).output();
    let Ok(curl) = curl else {
        return eprintln!("curl is not installed");
    };
    assert!(curl.status.success(), "{curl:?}");
    assert!(curl.stdout == expected);
}
