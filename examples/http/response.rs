//! Which answer a request gets, and how it is written.

use std::fmt::Write;

use super::request::Request;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u16, &'static str);

impl Status {
    pub const OK: Status = Status(200, "OK");
    pub const BAD_REQUEST: Status = Status(400, "Bad Request");
    pub const NOT_FOUND: Status = Status(404, "Not Found");
    pub const NOT_ALLOWED: Status = Status(405, "Method Not Allowed");
    pub const TIMEOUT: Status = Status(408, "Request Timeout");
    pub const EXPECTATION_FAILED: Status = Status(417, "Expectation Failed");
    pub const BODY_TOO_LARGE: Status = Status(413, "Content Too Large");
    pub const HEAD_TOO_LARGE: Status = Status(431, "Request Header Fields Too Large");
    pub const NOT_IMPLEMENTED: Status = Status(501, "Not Implemented");
    pub const VERSION: Status = Status(505, "HTTP Version Not Supported");
}

/// Lets a client that has asked first send its body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

pub struct Response {
    status: Status,
    kind: &'static str,
    body: String,
}

const TEXT: &str = "text/plain; charset=utf-8";
const PAGE: &str = "<!doctype html><title>netpoller</title>\
    <p>There is <a href=/time>the time</a>, and <a href=/headers>what you sent</a>.\n";

/// The routes.
pub fn respond(request: &Request) -> Response {
    let found = match request.path.as_str() {
        "/" => ("text/html; charset=utf-8", PAGE.to_owned()),
        "/time" => (TEXT, time()),
        "/headers" => (TEXT, headers(request)),
        _ => return refuse(Status::NOT_FOUND),
    };
    match request.method.as_str() {
        "GET" | "HEAD" => Response::ok(found.0, found.1),
        _ => refuse(Status::NOT_ALLOWED),
    }
}

fn time() -> String {
    let now = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S\n");
    now.to_string()
}

fn headers(request: &Request) -> String {
    let lines = request.headers.iter();
    lines
        .map(|(name, value)| format!("{name}: {value}\n"))
        .collect()
}

pub fn refuse(status: Status) -> Response {
    let body = format!("{} {}\n", status.0, status.1);
    Response {
        status,
        kind: TEXT,
        body,
    }
}

impl Response {
    pub fn ok(kind: &'static str, body: String) -> Self {
        Response {
            status: Status::OK,
            kind,
            body,
        }
    }

    /// Appends the response to `bytes`. A HEAD gets the answer to a GET, without the body.
    pub fn put(&self, bytes: &mut Vec<u8>, keep_alive: bool, with_body: bool) {
        let Status(code, reason) = self.status;
        let date = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT");
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let mut head = format!(
            "HTTP/1.1 {code} {reason}\r\n\
             Date: {date}\r\n\
             Connection: {connection}\r\n\
             Content-Type: {}\r\n\
             X-Content-Type-Options: nosniff\r\n\
             Content-Length: {}\r\n",
            self.kind,
            self.body.len(),
        );
        if self.status == Status::NOT_ALLOWED {
            let _ = write!(head, "Allow: GET, HEAD\r\n");
        }
        bytes.extend(head.as_bytes());
        bytes.extend(b"\r\n");
        if with_body {
            bytes.extend(self.body.as_bytes());
        }
    }
}
