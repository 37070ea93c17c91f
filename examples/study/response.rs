//! Which answers there are, and how they are written.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u16, &'static str);

impl Status {
    pub const OK: Status = Status(200, "OK");
    pub const BAD_REQUEST: Status = Status(400, "Bad Request");
    pub const FORBIDDEN: Status = Status(403, "Forbidden");
    pub const NOT_FOUND: Status = Status(404, "Not Found");
    pub const NOT_ALLOWED: Status = Status(405, "Method Not Allowed");
    pub const CONFLICT: Status = Status(409, "Conflict");
    pub const BODY_TOO_LARGE: Status = Status(413, "Content Too Large");
    pub const EXPECTATION_FAILED: Status = Status(417, "Expectation Failed");
    pub const HEAD_TOO_LARGE: Status = Status(431, "Request Header Fields Too Large");
    pub const INTERNAL: Status = Status(500, "Internal Server Error");
    pub const NOT_IMPLEMENTED: Status = Status(501, "Not Implemented");
    pub const VERSION: Status = Status(505, "HTTP Version Not Supported");
}

/// Before the events, which have no length and no end.
pub const EVENTS: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Content-Type: text/event-stream\r\n\
    Cache-Control: no-store\r\n\
    Connection: close\r\n\r\n";

/// Lets a client that has asked first send its body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

pub const TEXT: &str = "text/plain; charset=utf-8";
pub const JSON: &str = "application/json";

pub struct Response<'a> {
    pub status: Status,
    pub kind: &'static str,
    pub body: &'a str,
}

impl Response<'_> {
    /// Appends it to `bytes`. A HEAD gets the answer to a GET, without the body.
    pub fn put(&self, bytes: &mut Vec<u8>, keep_alive: bool, with_body: bool) {
        let Status(code, reason) = self.status;
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let head = format!(
            "HTTP/1.1 {code} {reason}\r\n\
             Connection: {connection}\r\n\
             Content-Type: {}\r\n\
             Content-Security-Policy: default-src 'self'; img-src 'self' data:\r\n\
             X-Content-Type-Options: nosniff\r\n\
             Cache-Control: no-store\r\n\
             Content-Length: {}\r\n\r\n",
            self.kind,
            self.body.len(),
        );
        bytes.extend(head.as_bytes());
        if with_body {
            bytes.extend(self.body.as_bytes());
        }
    }
}
