//! `http`: answers, limits of time, and curl.

use std::process::Command;
use std::time::Duration;

use netpoller::{TcpStream, spawn, time};

use crate::http::request::{HEAD, Taken, take};
use crate::http::server::{Limits, serve};
use crate::process::Server;
use crate::{SECOND, listener, read_all, run_virtual};

const LIMITS: Limits = Limits {
    request: Duration::from_secs(10),
    idle: Duration::from_secs(60),
    connections: 100,
};

async fn connect() -> TcpStream {
    let (listener, addr) = listener().await;
    spawn(serve(listener, LIMITS));
    TcpStream::connect(addr).await.unwrap()
}

/// The answer to these bytes, and the time until the server closed.
fn answer(bytes: &[u8]) -> (String, Duration) {
    run_virtual(async {
        let stream = connect().await;
        let start = time::now();
        stream.write_all(bytes).await.unwrap();
        let all = String::from_utf8(read_all(&stream).await.unwrap()).unwrap();
        (all, time::now() - start)
    })
}

/// The status of each answer.
fn statuses(answers: &str) -> Vec<&str> {
    let starts = answers.match_indices("HTTP/1.1 ");
    starts
        .map(|(start, found)| &answers[start + found.len()..][..3])
        .collect()
}

fn status(request: &str) -> String {
    let (answers, _) = answer(request.as_bytes());
    let statuses = statuses(&answers);
    assert_eq!(statuses.len(), 1, "{answers}");
    statuses[0].to_owned()
}

#[test]
fn time_and_headers_are_answered() {
    let (time, _) = answer(b"GET /time HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let (head, body) = time.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Length: 20"), "{head}");
    assert!(head.contains("\r\nConnection: close"), "{head}");
    let shape = body.replace(|c: char| c.is_ascii_digit(), "0");
    assert_eq!(shape, "0000-00-00 00:00:00\n");

    let (headers, _) = answer(b"GET /headers HTTP/1.0\r\nColour: blue\r\nSize:  L\r\n\r\n");
    assert!(
        headers.ends_with("\r\n\r\nColour: blue\nSize: L\n"),
        "{headers}"
    );
}

#[test]
fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let mut requests =
        "GET /time HTTP/1.1\r\nHost: x\r\n\r\nGET /no HTTP/1.1\r\nHost: x\r\n\r\n".repeat(500);
    // A body, which is read past, and a HEAD, whose answer has none.
    requests += "POST /time HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nGET";
    requests += "HEAD /time HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let (answers, _) = answer(requests.as_bytes());
    let mut expected = ["200", "404"].repeat(500);
    expected.extend(["405", "200"]);
    assert_eq!(statuses(&answers), expected);
    assert!(answers.ends_with("\r\nContent-Length: 20\r\n\r\n"));
}

#[test]
fn what_is_wrong_gets_its_status_and_ends_the_connection() {
    for (request, expected) in [
        ("GET /time HTTP/1.1\r\n\r\n", "400"),
        ("GET /time HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "400"),
        ("GET\r\n\r\n", "400"),
        ("GET /time HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", "400"),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 2\r\n\r\n",
            "400",
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
            "400",
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "413",
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            "501",
        ),
        ("GET / HTTP/2.0\r\nHost: x\r\n\r\n", "505"),
        ("\u{16}\u{3}\u{1}TLS\r\n\r\n", "400"),
    ] {
        assert_eq!(status(request), expected, "{request:?}");
    }
    let not_allowed = answer(b"PUT /time HTTP/1.0\r\n\r\n").0;
    assert!(not_allowed.starts_with("HTTP/1.1 405 ") && not_allowed.contains("Allow: GET, HEAD"));
    assert_eq!(status("GET http://x/time?zone=utc HTTP/1.0\r\n\r\n"), "200");
}

#[test]
fn a_client_that_expects_100_continue_gets_it_before_its_body() {
    run_virtual(async {
        let stream = connect().await;
        let head = "POST /time HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n";
        let head = format!("{head}Content-Length: 3\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut go_on = [0; 25];
        stream.read_exact(&mut go_on).await.unwrap();
        assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"abc").await.unwrap();
        let answer = String::from_utf8(read_all(&stream).await.unwrap()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    });
    // No body is awaited, or it has come: nothing to ask for.
    for (expect, body, expected) in [
        ("100-continue", "Content-Length: 3\r\n\r\nabc", "405"),
        ("100-Continue", "Content-Length: 0\r\n\r\n", "405"),
        ("200-ok", "Content-Length: 3\r\n\r\n", "417"),
        ("100-continue", "Content-Length: 99999999\r\n\r\n", "413"),
    ] {
        let head = "POST /time HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
        let request = format!("{head}Expect: {expect}\r\n{body}");
        assert_eq!(status(&request), expected, "{request}");
    }
}

#[test]
fn headers_without_end_are_refused() {
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nLong: {}", "x".repeat(HEAD));
    assert_eq!(status(&long), "431");
    assert_eq!(status(&(long + "\r\n\r\n")), "431");
    let many = "N: v\r\n".repeat(100);
    assert_eq!(
        status(&format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n")),
        "431"
    );
}

#[test]
fn a_request_that_comes_a_byte_a_second_gets_its_time_and_no_more() {
    run_virtual(async {
        let stream = connect().await;
        let start = time::now();
        let sender = stream.clone();
        let dripping = spawn(async move {
            for byte in b"GET /time HTTP/1.1\r\nHost: x".iter().cycle() {
                if sender.write_all(&[*byte]).await.is_err() {
                    break;
                }
                time::sleep(SECOND).await;
            }
        });
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 408");
        let took = time::now() - start;
        assert!((10 * SECOND..11 * SECOND).contains(&took), "{took:?}");
        dripping.abort();
    });
}

#[test]
fn an_idle_connection_is_closed_without_an_answer_and_a_busy_one_is_not() {
    let (answers, took) = answer(b"GET /time HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(statuses(&answers), ["200"]);
    assert!((60 * SECOND..61 * SECOND).contains(&took), "{took:?}");

    run_virtual(async {
        let stream = connect().await;
        let start = time::now();
        // Each half comes in time, and all together take far longer than one may.
        for _ in 0..10 {
            for half in ["GET /time HTTP/1.1\r\nHo", "st: x\r\n\r\n"] {
                stream.write_all(half.as_bytes()).await.unwrap();
                time::sleep(8 * SECOND).await;
            }
            let status = stream.read_with(|bytes| bytes[9..12].to_vec()).await;
            assert_eq!(status.unwrap(), b"200");
        }
        assert!(time::now() - start >= 160 * SECOND);
    });
}

#[test]
fn a_request_is_the_same_however_it_is_cut() {
    let bytes = b"POST /time HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
    let mut whole = bytes.to_vec();
    let request = take(&mut whole).unwrap();
    assert!(matches!(request, Taken::Request(_)));
    assert!(whole.is_empty());
    for cut in 1..bytes.len() {
        let mut come = bytes[..cut].to_vec();
        assert_eq!(take(&mut come), Ok(Taken::Part), "cut at {cut}");
        come.extend_from_slice(&bytes[cut..]);
        assert_eq!(take(&mut come), Ok(request.clone()), "cut at {cut}");
    }
}

#[test]
fn curl_gets_its_answers() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("there is no curl here");
        return;
    }
    let server = Server::start("http", &["--addr", "127.0.0.1:0"]);
    let curl = |flags: &[&str], paths: &[&str]| {
        let urls = paths
            .iter()
            .map(|path| format!("http://{}{path}", server.addr));
        let ran = Command::new("curl")
            .args(["-sS", "--noproxy", "*", "--max-time", "30"])
            .args(flags)
            .args(urls)
            .output()
            .unwrap();
        assert!(
            ran.status.success(),
            "{}",
            String::from_utf8_lossy(&ran.stderr)
        );
        String::from_utf8(ran.stdout).unwrap()
    };
    // Two on one connection.
    let said = curl(
        &["-w", "%{http_code} %{num_connects}\n"],
        &["/time", "/time"],
    );
    assert!(
        said.contains("200 1\n") && said.ends_with("200 0\n"),
        "{said}"
    );
    let said = curl(&["-H", "Colour: blue"], &["/headers"]);
    assert!(
        said.contains("Colour: blue\n") && said.contains("User-Agent: curl/"),
        "{said}"
    );
    assert!(curl(&["-I"], &["/time"]).starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(curl(&["-i", "-d", "abc"], &["/time"]).starts_with("HTTP/1.1 405 "));
    let expects = ["-i", "-H", "Expect: 100-continue", "-d", "abc"];
    let said = curl(
        &[&expects[..], &["--expect100-timeout", "30"]].concat(),
        &["/time"],
    );
    assert!(
        said.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 405 "),
        "{said}"
    );
}
