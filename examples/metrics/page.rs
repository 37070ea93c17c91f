//! The page: a protocol that answers one request at a time. A scraper that does not read its
//! answers is read from no more, costs one page of memory, and is dropped.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use netpoller::{Addr, Conn, Limits, Protocol, Server, ServerHandle};
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::registry::Registry;

use super::figures;
use super::request::{Request, Taken, take};
use super::response::{CONTINUE, Response, Status, refuse};

pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
pub const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Time between two requests.
pub const IDLE: Duration = Duration::from_secs(60);
/// A scraper has to send its request, and to take its answer, at this many bytes a second.
const RATE: u64 = 1024;
const WINDOW: Duration = Duration::from_secs(10);
const SCRAPERS: usize = 16;
/// What a page of 256 workers takes, and as much again.
const PAGE: usize = 16 << 20;

/// Serves the figures of another server.
pub fn server(watched: ServerHandle) -> Server<impl Fn(Addr) -> Page + Send + Sync> {
    let registry = Arc::new(figures::registry(watched));
    // While anything waits for the scraper, its next request is not looked at.
    let limits = Limits::default()
        .with_most_queued(PAGE)
        .with_high_water(1)
        .with_low_water(0);
    Server::new(move |_peer| Page(registry.clone()))
        .max_connections(SCRAPERS)
        .idle_timeout(IDLE)
        .minimum_read_rate(RATE, WINDOW)
        .minimum_write_rate(RATE, WINDOW)
        .limits(limits)
}

pub struct Page(Arc<Registry>);

impl Protocol for Page {
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes.to_vec();
        let mut answer = Vec::new();
        let mut keep_alive = true;
        match take(&mut rest) {
            Ok(Taken::Part) => return Ok(0),
            Ok(Taken::Expects) => answer.extend(CONTINUE),
            Ok(Taken::Request(request)) => {
                keep_alive = request.keep_alive;
                let with_body = request.method != "HEAD";
                self.respond(&request)
                    .put(&mut answer, keep_alive, with_body);
            }
            Err(status) => {
                keep_alive = false;
                refuse(status).put(&mut answer, keep_alive, true);
            }
        }
        conn.write(&answer)?;
        if keep_alive {
            return Ok(bytes.len() - rest.len());
        }
        conn.close();
        Ok(bytes.len())
    }
}

impl Page {
    fn respond(&self, request: &Request) -> Response {
        if request.path != "/metrics" {
            return refuse(Status::NOT_FOUND);
        }
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return refuse(Status::NOT_ALLOWED);
        }
        let mut page = String::new();
        let (kind, encoded) = match wants_open_metrics(request) {
            true => (OPEN_METRICS, text::encode(&mut page, &self.0)),
            false => (PROMETHEUS, prometheus_text::encode(&mut page, &self.0)),
        };
        encoded.expect("writing into a string does not fail");
        Response::ok(kind, page)
    }
}

/// A scraper that asks for plain text, and not for OpenMetrics, gets Prometheus' own format, which is
/// older.
fn wants_open_metrics(request: &Request) -> bool {
    let accepts = request.headers.iter();
    let accepts = accepts.filter(|(name, _)| name.eq_ignore_ascii_case("accept"));
    let accepts: Vec<String> = accepts
        .map(|(_, value)| value.to_ascii_lowercase())
        .collect();
    let accepts = accepts.join(",");
    accepts.contains("application/openmetrics-text") || !accepts.contains("text/plain")
}
