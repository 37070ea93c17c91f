//! Filters between socket and protocol.

mod charged;
mod failing;
mod passing;

use std::io;

use netpoller::{Bound, Filter, FilterIo, TcpStream};

use crate::support::scripted_protocol::dial;

/// A frame is a length and so many bytes, each with one added. Before the first frame the client
/// says `hello`, and the filter answers `welcome`. At the end it says `.`.
#[derive(Default)]
pub struct Frames {
    is_greeted: bool,
}

pub fn framed(bytes: &[u8]) -> Vec<u8> {
    let frames = bytes.chunks(100).map(|chunk| {
        let body = chunk.iter().map(|byte| byte.wrapping_add(1));
        let head = [chunk.len() as u8];
        head.into_iter().chain(body).collect::<Vec<u8>>()
    });
    frames.flatten().collect()
}

pub fn unframed(mut bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while let Some((&length, rest)) = bytes.split_first() {
        let (body, rest) = rest.split_at(length.into());
        plain.extend(body.iter().map(|byte| byte.wrapping_sub(1)));
        bytes = rest;
    }
    plain
}

impl Filter for Frames {
    fn incoming(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        if !self.is_greeted {
            if bytes.len() < 5 {
                return Ok(0);
            }
            if !bytes.starts_with(b"hello") {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.is_greeted = true;
            io.to_peer(b"welcome");
            return Ok(5);
        }
        let length = 1 + usize::from(bytes[0]);
        let Some(frame) = bytes.get(..length) else {
            return Ok(0);
        };
        io.to_protocol(&unframed(frame));
        Ok(length)
    }
    fn outgoing(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        if !self.is_greeted {
            return Ok(0);
        }
        io.to_peer(&framed(bytes));
        Ok(bytes.len())
    }
    fn closing(&mut self, io: &mut FilterIo) -> io::Result<()> {
        io.to_peer(b".");
        Ok(())
    }
}

pub async fn greeted<F>(bound: &Bound<F>) -> TcpStream {
    let client = dial(bound).await;
    client.write_all(b"hello").await.unwrap();
    let mut welcome = [0; 7];
    client.read_exact(&mut welcome).await.unwrap();
    assert_eq!(&welcome, b"welcome");
    client
}

/// Panics at a `!` on its way out.
pub struct PanicsOnBang;

impl Filter for PanicsOnBang {
    fn incoming(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        io.to_protocol(bytes);
        Ok(bytes.len())
    }
    fn outgoing(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        assert_ne!(bytes[0], b'!', "a test's filter panics");
        io.to_peer(bytes);
        Ok(bytes.len())
    }
}

/// What the protocol writes comes back to it as input.
pub struct Echoes;

impl Filter for Echoes {
    fn incoming(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        io.to_protocol(bytes);
        Ok(bytes.len())
    }
    fn outgoing(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
        io.to_protocol(bytes);
        Ok(bytes.len())
    }
}
