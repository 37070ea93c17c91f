//! From the bytes of a request to its answer: files, and no socket.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Cursor, ErrorKind, Read, Take};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// From this length on, a request without its end is refused.
pub const LONGEST: usize = 8 * 1024;

pub struct Answer {
    /// First the head, then the body, piece by piece.
    pub bytes: Vec<u8>,
    pub body: Take<Box<dyn Read>>,
}

/// The answer to a request. `None` if the end of the request has not come yet.
pub fn answer(request: &[u8], root: &Path) -> Option<Answer> {
    let contains = |end: &[u8]| request.windows(end.len()).any(|part| part == end);
    // Lines that were typed by hand may end with LF alone.
    if !contains(b"\r\n\r\n") && !contains(b"\n\n") {
        let is_too_long = request.len() >= LONGEST;
        return is_too_long.then(|| refusal("431 Request Header Fields Too Large"));
    }
    let line = request.split(|&byte| byte == b'\n').next()?;
    let words = line.trim_ascii_end().split(|&byte| byte == b' ');
    let [method, target, version] = words.collect::<Vec<_>>()[..] else {
        return Some(refusal("400 Bad Request"));
    };
    let mut answer = match path(target) {
        Some(path) if version.starts_with(b"HTTP/1.") => match method {
            b"GET" | b"HEAD" => file(&root.join(path)),
            _ => refusal("501 Not Implemented"),
        },
        _ => refusal("400 Bad Request"),
    };
    if method == b"HEAD" {
        answer.body.set_limit(0);
    }
    Some(answer)
}

/// The path of a target, below the root: of `/a%20b?query` it is `a b`. `None` if it leads out.
fn path(target: &[u8]) -> Option<PathBuf> {
    let before_query = target.split(|&byte| byte == b'?').next()?;
    let mut bytes = before_query.strip_prefix(b"/")?.iter();
    let mut path = Vec::new();
    while let Some(&byte) = bytes.next() {
        let mut digit = || char::from(*bytes.next()?).to_digit(16);
        path.push(match byte {
            b'%' => (digit()? * 16 + digit()?) as u8,
            byte => byte,
        });
    }
    // The path is decoded before it is judged: `%2e%2e` leads out too.
    let leads_out = |part: &[u8]| part == b".." || part.contains(&0);
    if path.starts_with(b"/") || path.split(|&byte| byte == b'/').any(leads_out) {
        return None;
    }
    if path.is_empty() || path.ends_with(b"/") {
        path.extend(b"index.html");
    }
    Some(OsStr::from_bytes(&path).into())
}

fn file(path: &Path) -> Answer {
    let kind = match path.extension().and_then(OsStr::to_str) {
        Some("html") => "text/html",
        Some("txt" | "md" | "rs") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    };
    let opened = path
        .metadata()
        .and_then(|metadata| match metadata.is_file() {
            true => Ok((File::open(path)?, metadata.len())),
            // To open a named pipe would wait for its other end.
            false => Err(ErrorKind::NotFound.into()),
        });
    use ErrorKind::{InvalidFilename, NotADirectory, NotFound, PermissionDenied};
    match opened.map_err(|error| error.kind()) {
        Ok((file, length)) => respond("200 OK", kind, length, file),
        Err(NotFound | NotADirectory | InvalidFilename) => refusal("404 Not Found"),
        Err(PermissionDenied) => refusal("403 Forbidden"),
        // Descriptors are short, or the disk is broken.
        Err(_) => refusal("500 Internal Server Error"),
    }
}

fn refusal(status: &str) -> Answer {
    let text = format!("{status}\n").into_bytes();
    respond(status, "text/plain", text.len() as u64, Cursor::new(text))
}

fn respond(status: &str, kind: &str, length: u64, body: impl Read + 'static) -> Answer {
    let fields = format!("Content-Length: {length}\r\nContent-Type: {kind}");
    let head = format!("HTTP/1.0 {status}\r\n{fields}\r\nConnection: close\r\n\r\n");
    let body: Box<dyn Read> = Box::new(body);
    Answer {
        bytes: head.into_bytes(),
        body: body.take(length),
    }
}
