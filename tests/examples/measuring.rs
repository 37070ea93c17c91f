//! `metrics`: the page, requests that are none, and scrapers that do not read.

use std::collections::HashMap;

use netpoller::{Server, ServerHandle, TcpStream, time};

use crate::metrics::{Echo, page};
use crate::support::schedule::{Virtual, virtual_runtime};
use crate::{SECOND, read_all, watchdog::watchdog};

/// An echo server and the page of its figures, in one runtime on a virtual clock.
struct Watched {
    runtime: Virtual,
    echo: String,
    page: String,
    scrapers: ServerHandle,
}

fn watched() -> Watched {
    let runtime = virtual_runtime();
    let echo = Server::new(|_| Echo).bind("127.0.0.1:0").unwrap();
    let page = page::server(echo.handle()).bind("127.0.0.1:0").unwrap();
    echo.run_in(&runtime).unwrap();
    page.run_in(&runtime).unwrap();
    Watched {
        echo: echo.local_addr().to_string(),
        page: page.local_addr().to_string(),
        scrapers: page.handle(),
        runtime,
    }
}

/// Sends a request, and reads until the server closes.
async fn ask(address: &str, request: &str) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    String::from_utf8(read_all(&stream).await.unwrap()).unwrap()
}

const SCRAPE: &str = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

async fn scrape(address: &str) -> String {
    let answer = ask(address, SCRAPE).await;
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    let kind = format!("\r\nContent-Type: {}\r\n", page::OPEN_METRICS);
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains(&kind),
        "{head}"
    );
    page.to_owned()
}

/// The samples of a page, by name and labels. It has to be well-formed: each is of a family that has a
/// type and a help, families do not mingle, and the end is marked.
fn samples(page: &str) -> HashMap<String, f64> {
    let page = page.strip_suffix("# EOF\n").expect("the end is marked");
    let (mut family, mut samples) = (String::new(), HashMap::new());
    let mut families = Vec::new();
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap().to_owned();
            assert!(!families.contains(&family), "{family} comes twice");
            families.push(family.clone());
        } else if let Some(rest) = line.strip_prefix("# ") {
            let (_, of) = rest.split_once(' ').unwrap();
            assert!(of.starts_with(&format!("{family} ")), "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(series.starts_with(&family), "{line} within {family}");
            assert!(series.contains("worker=\"0\""), "{line}");
            let old = samples.insert(series.to_owned(), value.parse().unwrap());
            assert_eq!(old, None, "{series} comes twice");
        }
    }
    samples
}

#[test]
fn what_the_server_does_is_on_the_page() {
    let _watchdog = watchdog();
    let watched = watched();
    watched.runtime.block_on(async {
        let before = samples(&scrape(&watched.page).await);
        let client = TcpStream::connect(watched.echo.as_str()).await.unwrap();
        client.write_all(&[b'x'; 1000]).await.unwrap();
        client.read_exact(&mut [0; 1000]).await.unwrap();
        let during = samples(&scrape(&watched.page).await);
        client.close_write().unwrap();
        assert_eq!(read_all(&client).await.unwrap(), b"");
        let after = samples(&scrape(&watched.page).await);

        let of = |name: &str| [&before, &during, &after].map(|page| page[name]);
        assert_eq!(
            of("netpoller_received_bytes_total{worker=\"0\"}"),
            [0.0, 1000.0, 1000.0]
        );
        assert_eq!(
            of("netpoller_sent_bytes_total{worker=\"0\"}"),
            [0.0, 1000.0, 1000.0]
        );
        assert_eq!(
            of("netpoller_connections_accepted_total{worker=\"0\"}"),
            [0.0, 1.0, 1.0]
        );
        assert_eq!(of("netpoller_connections{worker=\"0\"}"), [0.0, 1.0, 0.0]);
        let left = "netpoller_connections_ended_total{worker=\"0\",reason=\"peer\"}";
        assert_eq!(after[left], 1.0);
        let turns = of("netpoller_loop_turns_total{worker=\"0\"}");
        assert!(turns[0] < turns[1] && turns[1] < turns[2], "{turns:?}");
        assert_eq!(of("netpoller_loop_turn_events_count{worker=\"0\"}"), turns);
        let all = "netpoller_loop_turn_events_bucket{le=\"+Inf\",worker=\"0\"}";
        assert_eq!(of(all), turns, "the last bucket holds them all");
    });
}

#[test]
fn a_reader_of_plain_text_gets_the_older_format() {
    let _watchdog = watchdog();
    let watched = watched();
    watched.runtime.block_on(async {
        let accepting =
            |what: &str| SCRAPE.replace("Host: x", &format!("Host: x\r\nAccept: {what}"));
        let kind = |answer: &str| {
            let (_, rest) = answer.split_once("\r\nContent-Type: ").unwrap();
            rest.split_once("\r\n").unwrap().0.to_owned()
        };
        for (accept, expected) in [
            ("text/plain", page::PROMETHEUS),
            ("*/*", page::OPEN_METRICS),
            (
                "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
                page::OPEN_METRICS,
            ),
        ] {
            let answer = ask(&watched.page, &accepting(accept)).await;
            assert_eq!(kind(&answer), expected, "{accept}");
        }
    });
}

#[test]
fn what_is_no_scrape_is_refused_and_what_is_no_request_closes() {
    let _watchdog = watchdog();
    let watched = watched();
    watched.runtime.block_on(async {
        let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(20_000));
        for (request, status) in [
            (
                "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                "404",
            ),
            (
                "POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                "405",
            ),
            (
                "HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                "200",
            ),
            ("GET /metrics HTTP/1.0\r\n\r\n", "200"),
            ("GET /metrics HTTP/1.1\r\n\r\n", "400"),
            ("\x16\x03\x01 hello\r\n\r\n", "400"),
            (
                "GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
                "400",
            ),
            (
                "GET /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
                "501",
            ),
            (&long, "431"),
        ] {
            let answer = ask(&watched.page, request).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{request}: {answer}"
            );
        }
        // Two requests at once, on one connection: two answers, in order.
        let twice =
            SCRAPE.replace("Connection: close\r\n", "") + &SCRAPE.replace("/metrics", "/no");
        let answers = ask(&watched.page, &twice).await;
        let statuses: Vec<_> = answers.match_indices("HTTP/1.1 ").collect();
        assert_eq!(statuses.len(), 2, "{answers}");
        assert!(answers[statuses[1].0..].starts_with("HTTP/1.1 404"));
    });
}

#[test]
fn a_request_that_comes_a_byte_a_second_is_given_up() {
    let _watchdog = watchdog();
    let watched = watched();
    watched.runtime.block_on(async {
        let slow = TcpStream::connect(watched.page.as_str()).await.unwrap();
        let start = time::now();
        while slow.write_all(b"G").await.is_ok() {
            time::sleep(SECOND).await;
        }
        let lasted = time::now() - start;
        assert!(lasted <= 15 * SECOND, "{lasted:?}");
        assert_eq!(watched.scrapers.stats().slow(), 1);
    });
}

#[test]
fn a_scraper_that_never_reads_holds_up_nothing_and_is_dropped() {
    let _watchdog = watchdog();
    let watched = watched();
    watched.runtime.block_on(async {
        let stuck = TcpStream::connect(watched.page.as_str()).await.unwrap();
        // Requests for hundreds of megabytes of answers.
        let flood = SCRAPE.replace("Connection: close\r\n", "").repeat(50_000);
        let end = time::now() + SECOND;
        stuck.set_write_deadline(Some(end)).unwrap();
        // As much as fits, on the way and at the server.
        let _ = stuck.write_all(flood.as_bytes()).await;
        time::sleep(SECOND).await;
        // Nothing more is read from it, and no answers are made in advance.
        let stats = watched.scrapers.stats();
        assert!(stats.sent() > 0 && stats.sent() < 64 << 20, "{stats}");
        assert!(stats.received() < flood.len() as u64, "{stats}");
        assert_eq!(stats.live(), 1, "{stats}");

        // Others are served meanwhile, and so is the echo.
        let turns = "netpoller_loop_turns_total{worker=\"0\"}";
        assert!(samples(&scrape(&watched.page).await)[turns] > 0.0);
        let client = TcpStream::connect(watched.echo.as_str()).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        client.read_exact(&mut [0; 5]).await.unwrap();

        let start = time::now();
        while watched.scrapers.stats().slow() == 0 {
            time::sleep(SECOND).await;
        }
        let lasted = time::now() - start;
        assert!(lasted <= 30 * SECOND, "{lasted:?}");
        let now = samples(&scrape(&watched.page).await);
        assert_eq!(
            now["netpoller_connections{worker=\"0\"}"], 1.0,
            "the echo's client alone"
        );
    });
}
