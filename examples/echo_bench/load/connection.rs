//! One connection of the loader: what it has sent, what came back, and the check of every byte.
//!
//! The bytes of a message are computed from the numbers of the connection and of the message, so none are kept. After
//! a partial write they are computed again from where it stopped. An echo is compared with the bytes of its place, so
//! that a byte of another connection or message is found.

use std::io::{ErrorKind, Read, Write};

use mio::net::TcpStream;

/// How much one read or write moves at most.
const CHUNK: usize = 256 * 1024;

/// Scratch space that all connections share.
pub struct Buffers {
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    expected: Vec<u8>,
}

impl Buffers {
    pub fn new() -> Buffers {
        Buffers {
            outgoing: vec![0; CHUNK],
            incoming: vec![0; CHUNK],
            expected: vec![0; CHUNK],
        }
    }
}

/// The size of a message, and how many a connection may have in flight.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub size: u64,
    pub depth: u64,
}

/// Positions count the stream's bytes from the connection's first: echoed <= sent <= wanted.
pub struct Connection {
    stream: TcpStream,
    number: u64,
    shape: Shape,
    wanted: u64,
    sent: u64,
    echoed: u64,
}

impl Connection {
    pub fn new(stream: TcpStream, number: usize, shape: Shape) -> Connection {
        Connection {
            stream,
            number: number as u64,
            shape,
            wanted: 0,
            sent: 0,
            echoed: 0,
        }
    }

    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Whether a message has been wanted.
    pub fn has_begun(&self) -> bool {
        self.wanted > 0
    }

    /// Messages that have come back whole.
    pub fn messages_echoed(&self) -> u64 {
        self.echoed / self.shape.size
    }

    /// Asks for more messages; `send` sends them as far as the depth and the kernel let it.
    pub fn want(&mut self, messages: u64) {
        self.wanted += messages * self.shape.size;
    }

    /// Forgets wanted messages that have not begun.
    pub fn want_no_more(&mut self) {
        let begun = self.sent.div_ceil(self.shape.size);
        self.wanted = self.wanted.min(begun * self.shape.size);
    }

    /// Whether nothing is in flight and nothing is wanted.
    pub fn is_quiet(&self) -> bool {
        self.echoed == self.wanted
    }

    pub fn send(&mut self, buffers: &mut Buffers) -> Result<(), String> {
        let allowed = (self.messages_echoed() + self.shape.depth) * self.shape.size;
        let end = self.wanted.min(allowed);
        while self.sent < end {
            let length = (end - self.sent).min(CHUNK as u64) as usize;
            let outgoing = &mut buffers.outgoing[..length];
            fill(self.number, self.shape.size, self.sent, outgoing);
            match self.stream.write(outgoing) {
                Ok(taken) => self.sent += taken as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.trouble("writing", &error)),
            }
        }
        Ok(())
    }

    /// Reads and checks what came back. Returns how many messages it completed.
    ///
    /// A short read has emptied the socket, and new data makes a new edge, so no second read is made. After a hang-up,
    /// which is an edge that comes once, reading goes on to the end.
    pub fn receive(&mut self, buffers: &mut Buffers, hung_up: bool) -> Result<u64, String> {
        let before = self.messages_echoed();
        while self.echoed < self.sent || hung_up {
            match self.stream.read(&mut buffers.incoming) {
                Ok(0) => return Err(self.trouble("reading", &"the server closed it")),
                Ok(length) => {
                    self.check(&buffers.incoming[..length], &mut buffers.expected[..length])?;
                    self.echoed += length as u64;
                    if length < CHUNK && !hung_up {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.trouble("reading", &error)),
            }
        }
        Ok(self.messages_echoed() - before)
    }

    fn check(&self, incoming: &[u8], expected: &mut [u8]) -> Result<(), String> {
        if self.echoed + incoming.len() as u64 > self.sent {
            return Err(self.trouble("reading", &"more came back than was sent"));
        }
        fill(self.number, self.shape.size, self.echoed, expected);
        if incoming == expected {
            return Ok(());
        }
        let at = incoming.iter().zip(&*expected).position(|(a, b)| a != b);
        let at = at.expect("two slices of one length that differ, differ somewhere");
        let what = format!(
            "byte {} of the stream was sent as {:#04x} and came back as {:#04x}",
            self.echoed + at as u64,
            expected[at],
            incoming[at]
        );
        Err(self.trouble("reading", &what))
    }

    fn trouble(&self, doing: &str, what: &dyn std::fmt::Display) -> String {
        format!("connection {}, {doing}: {what}", self.number + 1)
    }
}

/// Writes the stream's bytes from `position` on.
fn fill(connection: u64, size: u64, position: u64, mut out: &mut [u8]) {
    let mut message = position / size;
    let mut offset = position % size;
    while !out.is_empty() {
        let length = (size - offset).min(out.len() as u64) as usize;
        let (part, rest) = out.split_at_mut(length);
        fill_message(connection, message, offset, part);
        out = rest;
        message += 1;
        offset = 0;
    }
}

/// Writes one message's bytes from `offset` on: eight at a time, each word a step of an odd constant further.
fn fill_message(connection: u64, message: u64, offset: u64, out: &mut [u8]) {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let seed = ((connection << 40) ^ message).wrapping_add(1);
    let mut word = seed
        .wrapping_mul(0xd6e8_feb8_6659_fd93)
        .wrapping_add((offset / 8).wrapping_mul(STEP));
    let skip = (offset % 8) as usize;
    let (head, body) = out.split_at_mut(((8 - skip) % 8).min(out.len()));
    if !head.is_empty() {
        head.copy_from_slice(&word.to_le_bytes()[skip..skip + head.len()]);
        word = word.wrapping_add(STEP);
    }
    let mut words = body.chunks_exact_mut(8);
    for eight in &mut words {
        eight.copy_from_slice(&word.to_le_bytes());
        word = word.wrapping_add(STEP);
    }
    let tail = words.into_remainder();
    tail.copy_from_slice(&word.to_le_bytes()[..tail.len()]);
}

#[cfg(test)]
mod tests {
    use super::fill;

    #[test]
    fn a_stream_cut_anywhere_is_the_same_stream() {
        for size in [1u64, 3, 7, 8, 9, 64, 100] {
            let mut whole = vec![0; 500];
            fill(3, size, 0, &mut whole);
            for start in 0..200 {
                for length in [1, 2, 7, 8, 15, 64, 200] {
                    let mut part = vec![0; length];
                    fill(3, size, start as u64, &mut part);
                    assert_eq!(
                        part,
                        whole[start..start + length],
                        "{size} {start} {length}"
                    );
                }
            }
        }
    }

    #[test]
    fn connections_and_messages_differ() {
        let (mut first, mut second) = ([0; 64], [0; 64]);
        fill(1, 32, 0, &mut first);
        fill(2, 32, 0, &mut second);
        assert_ne!(first, second);
        assert_ne!(first[..32], first[32..]);
    }
}
