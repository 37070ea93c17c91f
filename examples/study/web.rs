//! The page's server: HTTP and server-sent events, on netpoller.
//!
//! | request | answer |
//! |---|---|
//! | `GET /`, `/page.css`, `/page.js` | the page, which is embedded |
//! | `GET /tour` | the steps of the tour, and the code |
//! | `GET /state` | the stage: its version, and the frames of the last command |
//! | `GET /events` | the same as server-sent events, at each new version |
//! | `POST /do/VERSION/COMMAND/...` | does it, and gives the new state; 409 if the version is out of date |

use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use netpoller::net::Serve;
use netpoller::{TcpListener, TcpStream, time};

use super::book::Book;
use super::request::{Request, Taken, take};
use super::response::{CONTINUE, EVENTS, JSON, Response, Status, TEXT};

/// Connections at once.
const MOST: usize = 64;
/// How long a client may take over a request, an answer or an event. One that does not read its events has
/// its connection closed after that, and holds one state until then.
const PATIENCE: Duration = Duration::from_secs(10);
/// A browser keeps a connection for its next request. Not for long: the connections that it keeps may
/// take other readers' places.
const IDLE: Duration = Duration::from_secs(5);
/// A comment is sent after so long without news, so that a reader that is gone is noticed.
const QUIET: Duration = Duration::from_secs(15);

pub async fn serve(listener: TcpListener, book: Rc<Book>) -> io::Result<()> {
    let serve = Serve::new(listener).max_connections(MOST);
    let each = move |stream, peer| {
        let book = book.clone();
        async move {
            if let Err(error) = converse(&stream, &book).await {
                log::debug!("{peer}: {error}");
            }
        }
    };
    serve.run(each).await
}

async fn converse(stream: &TcpStream, book: &Book) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let limit = if bytes.is_empty() { IDLE } else { PATIENCE };
        stream.set_read_deadline(Some(time::now() + limit))?;
        let request = loop {
            let more = match take(&mut bytes) {
                Ok(Taken::Request(request)) => break request,
                Ok(Taken::Part) => true,
                Ok(Taken::Expects) => {
                    stream.write_all(CONTINUE).await?;
                    true
                }
                Err(status) => return answer(stream, &refusal(status), false, true).await,
            };
            let read = stream.read_with(|new| {
                bytes.extend_from_slice(new);
                new.len()
            });
            if more && read.await? == 0 {
                return Ok(());
            }
        };
        if request.path == "/events" && request.method == "GET" && has_own_host(&request) {
            return events(stream, book).await;
        }
        let with_body = request.method != "HEAD";
        let kept = request.keep_alive;
        match respond(&request, book).await {
            Ok((kind, body)) => {
                let body = &*body;
                let response = Response {
                    status: Status::OK,
                    kind,
                    body,
                };
                answer(stream, &response, kept, with_body).await?;
            }
            Err((status, body)) => {
                let response = Response {
                    status,
                    kind: TEXT,
                    body: &body,
                };
                answer(stream, &response, kept, with_body).await?;
            }
        }
        if !kept {
            return stream.close_write();
        }
    }
}

fn refusal(status: Status) -> Response<'static> {
    Response {
        status,
        kind: TEXT,
        body: "this request is not understood\n",
    }
}

async fn answer(
    stream: &TcpStream,
    response: &Response<'_>,
    keep_alive: bool,
    with_body: bool,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    response.put(&mut bytes, keep_alive, with_body);
    stream.set_write_deadline(Some(time::now() + PATIENCE))?;
    stream.write_all(&bytes).await
}

type Found = Result<(&'static str, Rc<str>), (Status, String)>;

async fn respond(request: &Request, book: &Book) -> Found {
    let refuse = |status, why: &str| Err((status, format!("{why}\n")));
    if !has_own_host(request) {
        return refuse(Status::FORBIDDEN, "ask for this page by its IP address");
    }
    if let Some(command) = request.path.strip_prefix("/do/") {
        if request.method != "POST" {
            return refuse(Status::NOT_ALLOWED, "a command is a POST");
        }
        if !is_own(request) {
            return refuse(
                Status::FORBIDDEN,
                "another site's page may not give commands",
            );
        }
        let words = command.split('/').map(str::to_owned).collect();
        let state = book.order(words).await?;
        return Ok((JSON, state));
    }
    let found = match request.path.as_str() {
        "/" => ("text/html; charset=utf-8", include_str!("page.html").into()),
        "/page.css" => ("text/css; charset=utf-8", include_str!("page.css").into()),
        "/page.js" => (
            "text/javascript; charset=utf-8",
            include_str!("page.js").into(),
        ),
        "/tour" => (JSON, book.tour.as_str().into()),
        "/state" => (JSON, book.state().1),
        "/events" => return refuse(Status::NOT_ALLOWED, "events are for GET"),
        _ => return refuse(Status::NOT_FOUND, "there is no such page"),
    };
    match request.method.as_str() {
        "GET" | "HEAD" => Ok(found),
        _ => refuse(Status::NOT_ALLOWED, "this is only read"),
    }
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let mut headers = request.headers.iter();
    let found = headers.find(|(of, _)| of.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

/// Whether it asks for an address, for `localhost`, or for no host. Another site may point its name at
/// our address: to a browser its page would then count as ours.
fn has_own_host(request: &Request) -> bool {
    let host = header(request, "host").unwrap_or_default();
    let name = host.trim_end_matches(|c: char| c.is_ascii_digit());
    let name = name.strip_suffix(':').unwrap_or(host);
    let plain = name.trim_matches(['[', ']']);
    plain.parse::<IpAddr>().is_ok() || ["localhost", ""].contains(&plain)
}

/// Whether a command comes from this page, or from no browser.
fn is_own(request: &Request) -> bool {
    let host = header(request, "host").unwrap_or_default();
    let origin = header(request, "origin");
    origin.is_none_or(|origin| origin.strip_prefix("http://") == Some(host))
}

/// Each new version, as soon as the reader has taken the one before. A reader that is slow misses versions,
/// and is told the newest.
async fn events(stream: &TcpStream, book: &Book) -> io::Result<()> {
    let mut bytes = EVENTS.to_vec();
    loop {
        let (version, state) = book.state();
        bytes.extend(format!("id: {version}\ndata: {state}\n\n").into_bytes());
        loop {
            stream.set_write_deadline(Some(time::now() + PATIENCE))?;
            stream.write_all(&bytes).await?;
            bytes.clear();
            match time::timeout(QUIET, book.changed(version)).await {
                Ok(()) => break,
                Err(_) => bytes.extend(b": nothing has happened\n\n"),
            }
        }
    }
}
