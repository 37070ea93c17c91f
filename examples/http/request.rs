//! Bytes in, requests or refusals out. It does no I/O and holds no bytes.

use httparse::{EMPTY_HEADER, Error, Header, Status::Complete};

use super::response::Status;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub keep_alive: bool,
}

/// The longest head: request line and headers.
pub const HEAD: usize = 16 << 10;
/// The longest body. No route wants one, but a body that is sent must be read past.
pub const BODY: usize = 64 << 10;
/// The most headers.
const HEADERS: usize = 64;

/// What [`take`] has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A whole request. Its bytes are gone, those of its body too.
    Request(Request),
    /// Nothing, or a part of a request.
    Part,
    /// A whole head. Its client waits for `100 Continue` before it sends the body.
    Expects,
}

/// Takes the first request out of `bytes`, with its body.
///
/// # Errors
///
/// The answer after which to close: where the next request would begin is unknown.
pub fn take(bytes: &mut Vec<u8>) -> Result<Taken, Status> {
    let mut headers = [EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let head = match parsed.parse(bytes) {
        Ok(Complete(length)) if length <= HEAD => length,
        Ok(Complete(_)) | Err(Error::TooManyHeaders) => return Err(Status::HEAD_TOO_LARGE),
        Ok(_) if bytes.len() > HEAD => return Err(Status::HEAD_TOO_LARGE),
        Ok(_) => return Ok(Taken::Part),
        Err(Error::Version) => return Err(Status::VERSION),
        Err(_) => return Err(Status::BAD_REQUEST),
    };
    let body = body_length(parsed.headers)?;
    let newer = parsed.version == Some(1);
    if newer && values(parsed.headers, "host").count() != 1 {
        return Err(Status::BAD_REQUEST);
    }
    let expects = newer && expects_continue(parsed.headers)?;
    if bytes.len() < head + body {
        return Ok(match expects && bytes.len() == head {
            true => Taken::Expects,
            false => Taken::Part,
        });
    }
    let says = |word: &str| {
        let mut connection = values(parsed.headers, "connection");
        connection.any(|value| list(value).any(|item| item.eq_ignore_ascii_case(word)))
    };
    let request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path(parsed.path.unwrap_or_default()).to_owned(),
        keep_alive: !says("close") && (newer || says("keep-alive")),
        headers: parsed.headers.iter().map(owned).collect(),
    };
    bytes.drain(..head + body);
    Ok(Taken::Request(request))
}

/// Whether the client asks before it sends the body. Any other expectation is refused.
fn expects_continue(headers: &[Header<'_>]) -> Result<bool, Status> {
    let mut expected = values(headers, "expect").flat_map(list);
    match expected.next() {
        None => Ok(false),
        Some(what) if what.eq_ignore_ascii_case("100-continue") => Ok(true),
        Some(_) => Err(Status::EXPECTATION_FAILED),
    }
}

/// The number of bytes between this head and the next. Two programs that read it differently take
/// a body for a request (request smuggling), so anything doubtful is refused.
fn body_length(headers: &[Header<'_>]) -> Result<usize, Status> {
    if values(headers, "transfer-encoding").next().is_some() {
        return Err(Status::NOT_IMPLEMENTED);
    }
    let mut lengths = values(headers, "content-length").flat_map(list);
    let Some(first) = lengths.next() else {
        return Ok(0);
    };
    let digits = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || lengths.any(|other| other != first) {
        return Err(Status::BAD_REQUEST);
    }
    let length = first.parse().unwrap_or(usize::MAX);
    match length <= BODY {
        true => Ok(length),
        false => Err(Status::BODY_TOO_LARGE),
    }
}

/// All values under a name. A value that is not text reads as a wrong one.
fn values<'a>(headers: &'a [Header<'_>], name: &'a str) -> impl Iterator<Item = &'a str> {
    let named = move |header: &&Header<'_>| header.name.eq_ignore_ascii_case(name);
    let text = |header: &'a Header<'_>| str::from_utf8(header.value).unwrap_or("?");
    headers.iter().filter(named).map(text)
}

fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim)
}

fn owned(header: &Header<'_>) -> (String, String) {
    let value = String::from_utf8_lossy(header.value).into_owned();
    (header.name.to_owned(), value)
}

/// `/time` of `/time`, `/time?zone=utc`, `http://host/time`.
fn path(target: &str) -> &str {
    let target = match target.strip_prefix("http://") {
        Some(absolute) => absolute.find('/').map_or("/", |start| &absolute[start..]),
        None => target,
    };
    target.split('?').next().unwrap_or_default()
}
