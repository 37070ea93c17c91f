//! From the bytes of a request to its answer. Knows files, and no socket.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The longest request.
pub const LONGEST: usize = 8 * 1024;

pub struct Answer {
    pub status: &'static str,
    /// The head, and the body too if that is no file.
    pub head: Vec<u8>,
    /// The file, and how much of it is to be sent.
    pub body: Option<(File, u64)>,
}

/// The answer to a request, or `None` if that goes on.
pub fn answer(request: &[u8], root: &Path) -> Option<Answer> {
    let ends = |end: &[u8]| request.windows(end.len()).any(|part| part == end);
    // A request of HTTP/0.9 or one typed by hand may end its lines with LF alone.
    if !ends(b"\r\n\r\n") && !ends(b"\n\n") {
        return (request.len() >= LONGEST)
            .then(|| refusal("431 Request Header Fields Too Large", true));
    }
    let line = request.split(|&byte| byte == b'\n').next()?;
    let mut words = line.trim_ascii_end().split(|&byte| byte == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let is_http = version.is_some_and(|version| version.starts_with(b"HTTP/1."));
    let (Some(method), Some(target), true, None) = (method, target, is_http, words.next()) else {
        return Some(refusal("400 Bad Request", true));
    };
    let with_body = match method {
        b"GET" => true,
        b"HEAD" => false,
        _ => return Some(refusal("501 Not Implemented", true)),
    };
    let Some(path) = path(target) else {
        return Some(refusal("400 Bad Request", true));
    };
    let answer = open(&root.join(path)).map(|(file, length, kind)| Answer {
        status: "200 OK",
        head: head("200 OK", length, kind),
        body: with_body.then_some((file, length)),
    });
    Some(answer.unwrap_or_else(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => refusal("403 Forbidden", with_body),
        // Out of descriptors, or a broken disk: says nothing of the file.
        _ if matches!(
            error.raw_os_error(),
            Some(libc::EMFILE | libc::ENFILE | libc::EIO)
        ) =>
        {
            refusal("503 Service Unavailable", with_body)
        }
        _ => refusal("404 Not Found", with_body),
    }))
}

/// The path of a target below the root: `/a%20b?query` is `a b`. `None` if it would lead out.
fn path(target: &[u8]) -> Option<PathBuf> {
    let target = target.strip_prefix(b"/")?;
    let mut bytes = target.split(|&byte| byte == b'?').next()?.iter();
    let mut decoded = Vec::new();
    while let Some(&byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || (*bytes.next()? as char).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    // Decoded before it is looked at: `%2e%2e` leads out too.
    let leads_out = |part: &[u8]| part == b".." || part.contains(&0);
    if decoded.first() == Some(&b'/') || decoded.split(|&byte| byte == b'/').any(leads_out) {
        return None;
    }
    if decoded.is_empty() || decoded.ends_with(b"/") {
        decoded.extend(b"index.html");
    }
    Some(PathBuf::from(OsStr::from_bytes(&decoded)))
}

/// Opens a regular file. Gives its length and its media type.
fn open(path: &Path) -> io::Result<(File, u64, &'static str)> {
    // Opening a named pipe would wait for its other end.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let kind = match path.extension().and_then(OsStr::to_str) {
        Some("html") => "text/html",
        Some("css") => "text/css",
        Some("js") => "text/javascript",
        Some("txt" | "md" | "rs" | "toml") => "text/plain; charset=utf-8",
        Some("png") => "image/png",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    };
    Ok((file, metadata.len(), kind))
}

fn head(status: &str, length: u64, kind: &str) -> Vec<u8> {
    format!(
        "HTTP/1.0 {status}\r\nContent-Length: {length}\r\nContent-Type: {kind}\r\n\
         Connection: close\r\n\r\n"
    )
    .into_bytes()
}

fn refusal(status: &'static str, with_body: bool) -> Answer {
    let body = format!("{status}\n");
    let mut head = head(status, body.len() as u64, "text/plain");
    if with_body {
        head.extend(body.as_bytes());
    }
    Answer {
        status,
        head,
        body: None,
    }
}
