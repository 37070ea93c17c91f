//! Cuts tokens out of bytes: the same tokens however the bytes arrive. Only `read` does I/O, so
//! that a test can try every cut. Go's `bufio.Scanner`.

use std::io;
use std::mem;
use std::ops::Range;

use netpoller::TcpStream;

/// Returns where the next token is and how many bytes it uses up. Without a token those bytes are
/// skipped, and more are needed. `end` says that no more will come. Go's
/// `bufio.SplitFunc`.
pub type Split = fn(bytes: &[u8], end: bool) -> (Option<Range<usize>>, usize);

/// Lines, without their end.
pub fn line(bytes: &[u8], end: bool) -> (Option<Range<usize>>, usize) {
    let without_cr = |length: usize| length - usize::from(bytes[..length].ends_with(b"\r"));
    match bytes.iter().position(|&byte| byte == b'\n') {
        Some(length) => (Some(0..without_cr(length)), length + 1),
        None if end && !bytes.is_empty() => (Some(0..bytes.len()), bytes.len()),
        None => (None, 0),
    }
}

/// Words, without the white space between them.
pub fn word(bytes: &[u8], end: bool) -> (Option<Range<usize>>, usize) {
    let Some(start) = bytes.iter().position(|byte| !byte.is_ascii_whitespace()) else {
        return (None, bytes.len());
    };
    match bytes[start..].iter().position(u8::is_ascii_whitespace) {
        Some(length) => (Some(start..start + length), start + length + 1),
        None if end => (Some(start..bytes.len()), bytes.len()),
        None => (None, start),
    }
}

/// Cuts tokens out of bytes as they come.
pub struct Splitter {
    split: Split,
    /// What has come. The tokens before `at` are taken.
    bytes: Vec<u8>,
    at: usize,
    /// No more bytes will come.
    ended: bool,
}

impl Splitter {
    /// A longer token is an error, as in Go's `bufio.Scanner`. Without this limit a peer that never
    /// ends a token would fill the memory.
    pub const LONGEST: usize = 64 << 10;

    pub fn new(split: Split) -> Self {
        Splitter {
            split,
            bytes: Vec::new(),
            at: 0,
            ended: false,
        }
    }

    /// The next token of a stream; `None` at its end.
    pub async fn read(&mut self, stream: &TcpStream) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(token) = self.take()? {
                return Ok(Some(token));
            }
            if self.ended {
                return Ok(None);
            }
            stream.read_with(|bytes| self.push(bytes)).await?;
        }
    }

    /// Appends what was read. An empty slice is the end: then what is left is a token too.
    pub fn push(&mut self, bytes: &[u8]) {
        // Here, and not for each token: the rest moves to the front.
        self.bytes.drain(..mem::take(&mut self.at));
        self.bytes.extend_from_slice(bytes);
        self.ended |= bytes.is_empty();
    }

    /// The next token, if it has come whole.
    ///
    /// # Errors
    ///
    /// A token is longer than [`LONGEST`](Splitter::LONGEST), whether it has come whole or in part.
    pub fn take(&mut self) -> io::Result<Option<Vec<u8>>> {
        let bytes = &self.bytes[self.at..];
        let (token, used) = (self.split)(bytes, self.ended);
        let length = match &token {
            Some(token) => token.len(),
            // One byte more may be a `\r`, which is not part of the line.
            None => (bytes.len() - used).saturating_sub(1),
        };
        if length > Self::LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "token too long"));
        }
        let token = token.map(|token| bytes[token].to_vec());
        self.at += used;
        Ok(token)
    }
}
