//! Tokens out of bytes, however they come. It does no I/O but in `read`, so that it can be tried
//! with every cut. Go's `bufio.Scanner`.

use std::io;
use std::ops::Range;

use netpoller::TcpStream;

/// Where the next token lies in what has come, and how much it uses up with what delimits it.
/// `None`: that is not known before more comes. Go's `bufio.SplitFunc`.
type Split = fn(bytes: &[u8], end: bool) -> Option<(Range<usize>, usize)>;

/// Lines, without their end.
pub fn line(bytes: &[u8], end: bool) -> Option<(Range<usize>, usize)> {
    let without_cr = |length: usize| length - usize::from(bytes[..length].ends_with(b"\r"));
    match bytes.iter().position(|&byte| byte == b'\n') {
        Some(length) => Some((0..without_cr(length), length + 1)),
        None if end && !bytes.is_empty() => Some((0..bytes.len(), bytes.len())),
        None => None,
    }
}

/// What stands between white space.
pub fn word(bytes: &[u8], end: bool) -> Option<(Range<usize>, usize)> {
    let start = bytes.iter().position(|byte| !byte.is_ascii_whitespace())?;
    let length = bytes[start..].iter().position(u8::is_ascii_whitespace);
    match length {
        Some(length) => Some((start..start + length, start + length + 1)),
        None if end => Some((start..bytes.len(), bytes.len())),
        None => None,
    }
}

/// Cuts tokens out of bytes as they come.
pub struct Splitter {
    split: Split,
    bytes: Vec<u8>,
    ended: bool,
}

impl Splitter {
    /// No token is longer, as in Go's `bufio.Scanner`: a peer that never ends one fills no memory.
    pub const LONGEST: usize = 64 << 10;

    pub fn new(split: Split) -> Self {
        Splitter {
            split,
            bytes: Vec::new(),
            ended: false,
        }
    }

    /// The next token of a stream; `None` at its end.
    pub async fn read(&mut self, stream: &TcpStream) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(token) = self.take() {
                return Ok(Some(token));
            }
            if self.ended {
                return Ok(None);
            }
            if self.bytes.len() > Self::LONGEST {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "token too long"));
            }
            stream.read_with(|bytes| self.push(bytes)).await?;
        }
    }

    /// Takes what came. Nothing is the end: what is left is a token too.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ended |= bytes.is_empty();
    }

    /// The next token, if it has come whole.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        let (token, used) = (self.split)(&self.bytes, self.ended)?;
        let token = self.bytes[token].to_vec();
        self.bytes.drain(..used);
        Some(token)
    }
}
