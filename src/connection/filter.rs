//! What stands between a socket and its protocol: bytes come in and go out through it.
//!
//! ```text
//!   socket ── raw ──► incoming ──► unused ──► Protocol::data
//!   socket ◄─ queue ◄─ outgoing ◄─ held ◄──── Conn::write, handles, ids
//! ```

// Mirrors Go's `tls.Conn`, which is a `net.Conn` over a `net.Conn`.

use std::io;
use std::mem;

use super::error::{Limit, QUEUED, UNUSED, checked};

/// Bytes between the socket and a [`Protocol`](crate::Protocol): encryption, compression, a header
/// before the first message. A server makes one for each connection: see
/// [`Server::filter`](crate::Server::filter).
///
/// The protocol and its handles do not notice it. A filter never waits: it leaves what it can't use
/// yet, and is offered that again. An error that it returns closes the connection once what it has
/// passed to the peer is sent; a panic ends it at once. The other connections go on.
///
/// Bytes that a filter leaves or passes on count under the connection's [`Limits`](crate::Limits):
/// input as unused, output as queued. Output may exceed `most_queued` by an eighth, for framing.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use std::io::{self, Read, Write};
/// use netpoller::{Conn, Filter, FilterIo, Protocol, Server};
///
/// /// Both sides add a secret number to each byte.
/// struct Secret(u8);
/// impl Filter for Secret {
///     fn incoming(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
///         let plain: Vec<u8> = bytes.iter().map(|byte| byte.wrapping_sub(self.0)).collect();
///         io.to_protocol(&plain);
///         Ok(bytes.len())
///     }
///     fn outgoing(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
///         let secret: Vec<u8> = bytes.iter().map(|byte| byte.wrapping_add(self.0)).collect();
///         io.to_peer(&secret);
///         Ok(bytes.len())
///     }
/// }
///
/// struct Shout;
/// impl Protocol for Shout {
///     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
///         conn.write(&bytes.to_ascii_uppercase())?;
///         Ok(bytes.len())
///     }
/// }
///
/// let bound = Server::new(|_peer| Shout).filter(|_peer| Secret(1)).bind("127.0.0.1:0")?;
/// let (addr, handle) = (bound.local_addr(), bound.handle());
/// let server = std::thread::spawn(move || bound.run());
/// let mut client = std::net::TcpStream::connect(addr)?;
/// client.write_all(b"bcd")?; // "abc", with the secret number
/// let mut answer = [0; 3];
/// client.read_exact(&mut answer)?;
/// assert_eq!(&answer, b"BCD"); // "ABC"
/// handle.stop();
/// # server.join().unwrap()?;
/// # Ok(())
/// # }
/// ```
pub trait Filter: 'static {
    /// The connection begins. It is called before [`Protocol::open`](crate::Protocol::open), which is not
    /// called if this closes the connection.
    ///
    /// ```
    /// use netpoller::FilterIo;
    ///
    /// /// A filter's `open`: says which version it speaks, before the protocol says anything.
    /// fn open(io: &mut FilterIo) -> std::io::Result<()> {
    ///     io.to_peer(b"v2\n");
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// An error closes the connection.
    fn open(&mut self, io: &mut FilterIo) -> io::Result<()> {
        let _ = io;
        Ok(())
    }

    /// The peer sent something. Returns how many of the bytes are used; the others are offered again,
    /// at once if some were used, and else together with more.
    ///
    /// ```
    /// use netpoller::FilterIo;
    ///
    /// /// A filter's `incoming`, of frames behind their length in a byte.
    /// fn incoming(bytes: &[u8], io: &mut FilterIo) -> std::io::Result<usize> {
    ///     let Some((&length, rest)) = bytes.split_first() else {
    ///         return Ok(0);
    ///     };
    ///     let Some(frame) = rest.get(..length.into()) else {
    ///         return Ok(0); // half a frame: it comes again, with more
    ///     };
    ///     io.to_protocol(frame);
    ///     Ok(1 + frame.len())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// An error closes the connection.
    fn incoming(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize>;

    /// The protocol, a handle or a heartbeat writes. Returns how many of the bytes are used; the
    /// others are offered again, together with what is written next, and after
    /// [`incoming`](Filter::incoming) was offered the bytes of a read.
    ///
    /// ```
    /// use netpoller::FilterIo;
    ///
    /// /// A filter's `outgoing`, which makes frames of 255 bytes at most.
    /// fn outgoing(bytes: &[u8], io: &mut FilterIo) -> std::io::Result<usize> {
    ///     let frame = &bytes[..bytes.len().min(255)];
    ///     io.to_peer(&[frame.len() as u8]);
    ///     io.to_peer(frame);
    ///     Ok(frame.len())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// An error closes the connection.
    fn outgoing(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize>;

    /// The peer will send no more. It is called before [`Protocol::end`](crate::Protocol::end).
    ///
    /// # Errors
    ///
    /// An error closes the connection.
    fn end(&mut self, io: &mut FilterIo) -> io::Result<()> {
        let _ = io;
        Ok(())
    }

    /// Our direction ends, and all that was written has gone out: write the last bytes to the peer
    /// here. Later output is dropped. It is not called when the connection is aborted or broken.
    ///
    /// ```
    /// use netpoller::FilterIo;
    ///
    /// /// A filter's `closing`: an empty frame, so that the peer can tell the end from a cut.
    /// fn closing(io: &mut FilterIo) -> std::io::Result<()> {
    ///     io.to_peer(&[0]);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// An error closes the connection.
    fn closing(&mut self, io: &mut FilterIo) -> io::Result<()> {
        let _ = io;
        Ok(())
    }
}

/// A [`Filter`], or an `Option` of one, for a connection: `None` leaves it without, and costs nothing.
///
/// ```
/// use netpoller::{IntoFilter, Peer};
/// # use netpoller::{Filter, FilterIo};
/// # use std::io;
/// # struct Plain;
/// # impl Filter for Plain {
/// #     fn incoming(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
/// #         io.to_protocol(bytes);
/// #         Ok(bytes.len())
/// #     }
/// #     fn outgoing(&mut self, bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
/// #         io.to_peer(bytes);
/// #         Ok(bytes.len())
/// #     }
/// # }
/// /// For `Server::filter`: peers of this machine go without.
/// fn choose(peer: &Peer) -> Option<Plain> {
///     let is_local = peer.addr.socket().is_some_and(|addr| addr.ip().is_loopback());
///     (!is_local).then_some(Plain)
/// }
/// assert!(Plain.into_filter().is_some());
/// ```
pub trait IntoFilter {
    /// The connection's filter, if it is to have one.
    fn into_filter(self) -> Option<Box<dyn Filter>>;
}

impl<F: Filter> IntoFilter for F {
    fn into_filter(self) -> Option<Box<dyn Filter>> {
        Some(Box::new(self))
    }
}

impl<F: Filter> IntoFilter for Option<F> {
    fn into_filter(self) -> Option<Box<dyn Filter>> {
        self.and_then(F::into_filter)
    }
}

/// Where a [`Filter`] passes bytes on to.
///
/// ```
/// use netpoller::FilterIo;
/// use std::io;
///
/// /// A filter's `incoming`: passes letters on, answers a bell by itself, and ends at a zero.
/// fn incoming(bytes: &[u8], io: &mut FilterIo) -> io::Result<usize> {
///     for &byte in bytes {
///         match byte {
///             0 => io.close(),
///             7 => io.to_peer(b"ding"),
///             letter => io.to_protocol(&[letter]),
///         }
///     }
///     Ok(bytes.len())
/// }
/// ```
#[derive(Debug)]
pub struct FilterIo {
    pub(super) to_protocol: Vec<u8>,
    pub(super) to_peer: Vec<u8>,
    /// How many bytes each of the two may hold. More are dropped, and the connection ends, so that
    /// input that expands can't exhaust memory.
    pub(super) room: [usize; 2],
    /// The limit that one of the two has met.
    pub(super) over: Option<Limit>,
    pub(super) closes: bool,
}

impl FilterIo {
    /// Passes bytes on to the protocol. Without room for them under the [limits](crate::Limits) they are
    /// dropped, and the connection ends.
    pub fn to_protocol(&mut self, bytes: &[u8]) {
        match self.to_protocol.len() + bytes.len() <= self.room[0] {
            true => self.to_protocol.extend_from_slice(bytes),
            false => self.over = Some(UNUSED),
        }
    }

    /// Passes bytes on to the peer. Without room for them the same happens.
    pub fn to_peer(&mut self, bytes: &[u8]) {
        match self.to_peer.len() + bytes.len() <= self.room[1] {
            true => self.to_peer.extend_from_slice(bytes),
            false => self.over = Some(QUEUED),
        }
    }

    /// Closes the connection, as [`Conn::close`](crate::Conn::close) does. Before that, the protocol is offered
    /// what was passed on to it, unless it [needs](crate::Conn::need) more, or too much waits for the peer.
    pub fn close(&mut self) {
        self.closes = true;
    }
}

/// A connection's filter, and what it has not used.
#[derive(Default)]
pub(super) struct Filtering {
    /// `None` while it runs, so that a panic drops it, and once it has failed: then nothing passes.
    pub(super) filter: Option<Box<dyn Filter>>,
    /// Input that it has not used.
    pub(super) raw: Vec<u8>,
    /// Output that it has not used.
    pub(super) held: Vec<u8>,
    /// The filter was told that our direction ends.
    pub(super) is_closing: bool,
}

/// The limit of a filter's output: an eighth more than `limit`, for framing.
pub(super) fn with_framing(limit: usize) -> usize {
    limit.saturating_add(limit / 8)
}

/// Offers bytes to a filter as long as it uses some. What is left stays.
pub(super) fn offer(
    bytes: &mut Vec<u8>,
    mut offer: impl FnMut(&[u8]) -> io::Result<usize>,
) -> io::Result<()> {
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        match checked(offer(rest)?, rest)? {
            0 => break,
            used => at += used,
        }
    }
    *bytes = without(mem::take(bytes), at);
    Ok(())
}

/// Removes the first `used` bytes, and frees memory that the rest does not need.
pub(super) fn without(mut bytes: Vec<u8>, used: usize) -> Vec<u8> {
    if used == bytes.len() {
        return Vec::new();
    }
    bytes.drain(..used);
    if bytes.capacity() / 4 > bytes.len() {
        bytes.shrink_to_fit();
    }
    bytes
}
