//! Connections as hand-written state machines: a few hundred bytes each, no task, no buffer.
//!
//! A server makes a [`Protocol`] for each connection and calls it with a [`Conn`] when something
//! happens.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! use netpoller::{Conn, Protocol, Runtime, Server, TcpStream};
//! use std::io;
//!
//! /// Counts the bytes of its connection.
//! struct Count(usize);
//! impl Protocol for Count {
//!     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
//!         self.0 += bytes.len();
//!         conn.write(format!("{}\n", self.0).as_bytes())?;
//!         Ok(bytes.len())
//!     }
//! }
//!
//! let runtime = Runtime::new()?;
//! let bound = Server::new(|_peer| Count(0)).bind("127.0.0.1:0")?;
//! let _serving = bound.run_in(&runtime)?;
//! runtime.block_on(async {
//!     let stream = TcpStream::connect(bound.local_addr()).await?;
//!     for total in ["5\n", "10\n"] {
//!         stream.write_all(b"hello").await?;
//!         assert_eq!(stream.read_with(|bytes| bytes.to_vec()).await?, total.as_bytes());
//!     }
//!     Ok(())
//! })
//! # }
//! ```

// Mirrors Go's `net/http.Server` and its `conn`.
//
// | file | what it is |
// |---|---|
// | `state.rs` | the machine as a pure table; its state and requests in a byte |
// | this one | `Protocol`: the callbacks |
// | `conn.rs`, `handle.rs` | what the callbacks are given; writing from elsewhere |
// | `run.rs` | the machine as the loop runs it: the fast path, then the general loop |
// | `receive.rs`, `send.rs`, `out_queue.rs` | what comes in; what goes out, and what waits to |
// | `filter.rs` | what stands between the socket and the protocol |
// | `timers.rs`, `rate.rs` | the one timer; whether a peer is fast enough, which is pure |
// | `shared.rs` | what the connections of a thread share, and those of a server |
// | `stats.rs` | the counters of a server |
// | `limits.rs` | how much memory connections may take |
// | `error.rs` | why connections end |

pub(crate) mod conn;
pub(crate) mod error;
pub(crate) mod filter;
pub(crate) mod handle;
pub(crate) mod limits;
mod out_queue;
pub(crate) mod rate;
mod receive;
pub(crate) mod run;
mod send;
pub(crate) mod shared;
mod state;
pub(crate) mod stats;
mod timers;

use std::io;
use std::sync::atomic::Ordering;

pub use conn::Conn;
pub use error::CloseReason;
pub use filter::{Filter, FilterIo, IntoFilter};
pub use handle::{ConnHandle, ConnId};
pub use limits::Limits;
pub use state::Drain;

/// What a connection does. The server's factory makes one for each connection, in the thread that
/// will serve it.
///
/// The loop calls it, and nothing else runs on that thread meanwhile: no callback may block. Up to 256
/// KiB that a callback writes are gathered, and go out in one write at its end, unless bytes are queued
/// already, or there is a [`Filter`] or a limit over all connections ([`Limits::with_most_queued_in_all`]).
/// An error that a callback returns closes the connection once what was written before has been sent. A
/// panic closes it at once; the other connections go on.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use std::io::{self, Read, Write};
/// use netpoller::{Conn, Protocol, Server};
///
/// /// Answers each line with its length.
/// struct Lengths;
///
/// impl Protocol for Lengths {
///     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
///         let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
///             return Ok(0); // Half a line: it comes again, with more.
///         };
///         conn.write(format!("{end}\n").as_bytes())?;
///         Ok(end + 1)
///     }
/// }
///
/// let bound = Server::new(|_peer| Lengths).bind("127.0.0.1:0")?;
/// let (addr, handle) = (bound.local_addr(), bound.handle());
/// let server = std::thread::spawn(move || bound.run());
///
/// let mut client = std::net::TcpStream::connect(addr)?;
/// client.write_all(b"hello\nworl")?;
/// client.write_all(b"d!\n")?;
/// let mut answer = [0; 4];
/// client.read_exact(&mut answer)?;
/// assert_eq!(&answer, b"5\n6\n");
///
/// drop(client);
/// handle.stop();
/// assert_eq!(server.join().unwrap()?.accepted(), 1);
/// # Ok(())
/// # }
/// ```
pub trait Protocol: 'static {
    /// The connection begins.
    ///
    /// ```
    /// use netpoller::{Conn, Protocol};
    /// # use std::io;
    /// struct Smtp;
    /// impl Protocol for Smtp {
    ///     fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
    ///         conn.write(b"220 ready\r\n") // the server speaks first
    ///     }
    /// #   fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> { Ok(bytes.len()) }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// An error closes the connection.
    fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
        let _ = conn;
        Ok(())
    }

    /// The peer sent something. Returns how many of the bytes are used. The others are kept and
    /// offered again: at once, if some were used and the protocol does not [wait](Conn::wait);
    /// otherwise with new bytes, or when as many are there as the protocol [needs](Conn::need).
    ///
    /// ```
    /// use netpoller::{Conn, Protocol};
    /// # use std::io;
    /// /// Answers each pair of bytes with their sum.
    /// struct Sums;
    /// impl Protocol for Sums {
    ///     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         for pair in bytes.chunks_exact(2) {
    ///             conn.write(&[pair[0].wrapping_add(pair[1])])?;
    ///         }
    ///         Ok(bytes.len() / 2 * 2) // an odd byte comes again, with more
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// An error closes the connection.
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize>;

    /// The peer will send no more. The default closes the connection once all is written. An
    /// implementation that does not close leaves it open for writing.
    ///
    /// ```
    /// use netpoller::{Conn, Protocol};
    /// # use std::io;
    /// /// Counts what comes, and tells it at the end.
    /// struct Count(usize);
    /// impl Protocol for Count {
    ///     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         self.0 += bytes.len();
    ///         Ok(bytes.len())
    ///     }
    ///     fn end(&mut self, conn: &mut Conn) -> io::Result<()> {
    ///         conn.write(format!("{} bytes\n", self.0).as_bytes())?;
    ///         conn.close();
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// An error closes the connection.
    fn end(&mut self, conn: &mut Conn) -> io::Result<()> {
        conn.close();
        Ok(())
    }

    /// Nothing has come for the interval of [`Server::heartbeat`](crate::Server::heartbeat). The
    /// default writes nothing, and the first such call in a server logs a warning.
    ///
    /// ```
    /// use std::io;
    /// use netpoller::{Conn, Protocol};
    ///
    /// struct Events;
    /// impl Protocol for Events {
    ///     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         Ok(bytes.len())
    ///     }
    ///     fn heartbeat(&mut self, conn: &mut Conn) -> io::Result<()> {
    ///         conn.write(b": still here\n\n") // A comment of server-sent events.
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// An error closes the connection.
    fn heartbeat(&mut self, conn: &mut Conn) -> io::Result<()> {
        // Noted before it is logged: a logger may panic.
        if !conn.shared.server.has_warned.swap(true, Ordering::Relaxed) {
            log::warn!(
                "a heartbeat is set, and writes nothing: the protocol does not override \
                 Protocol::heartbeat (see Server::heartbeat_with)"
            );
        }
        Ok(())
    }

    /// The peer has shown no sign of life for the [idle timeout](crate::Server::idle_timeout), and
    /// the connection is about to be closed. What is written now is the last. A drain calls
    /// [`draining`](Protocol::draining) instead; this too, if the idle timeout passes meanwhile.
    ///
    /// ```
    /// use netpoller::{Conn, Protocol};
    /// # use std::io;
    /// struct Smtp;
    /// impl Protocol for Smtp {
    /// #   fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> { Ok(bytes.len()) }
    ///     fn idle(&mut self, conn: &mut Conn) -> io::Result<()> {
    ///         conn.write(b"421 timeout\r\n")
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// An error closes the connection too.
    fn idle(&mut self, conn: &mut Conn) -> io::Result<()> {
        let _ = conn;
        Ok(())
    }

    /// Called once, when the server drains or the connection has reached its greatest age, so that
    /// a protocol can say good-bye: what it writes is sent at once. Once nothing is in flight, the
    /// connection closes when the returned `Drain` says, or at the drain's limit. It is not called
    /// while the connection closes already.
    ///
    /// A connection with half a message waits for the rest, as long as the limit and the idle
    /// timeout let it. [`Conn::close`] in this callback ends it as soon as the good-bye is sent.
    ///
    /// ```
    /// use std::io;
    /// use netpoller::{Conn, Drain, Protocol};
    ///
    /// /// A line is a request, and its length the answer.
    /// struct Lengths;
    /// impl Protocol for Lengths {
    ///     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
    ///         let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
    ///             return Ok(0);
    ///         };
    ///         conn.write(format!("{end}\n").as_bytes())?;
    ///         Ok(end + 1)
    ///     }
    ///     fn draining(&mut self, conn: &mut Conn) -> io::Result<Drain> {
    ///         conn.write(b"-SHUTDOWN\n")?;
    ///         Ok(Drain::AtBoundary)
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// An error closes the connection.
    fn draining(&mut self, conn: &mut Conn) -> io::Result<Drain> {
        let _ = conn;
        Ok(Drain::WhenQuiet)
    }

    /// The time that was given to [`Conn::set_timer`] has come.
    ///
    /// # Errors
    ///
    /// An error closes the connection.
    fn timer(&mut self, conn: &mut Conn) -> io::Result<()> {
        let _ = conn;
        Ok(())
    }

    /// The peer has taken so much of what waited for it that there is room again: see
    /// [`Limits::low_water`](crate::Limits::low_water).
    ///
    /// ```
    /// use netpoller::{Conn, Protocol};
    /// # use std::io;
    /// /// Sends all numbers, as fast as the peer takes them.
    /// struct Numbers(u64);
    /// impl Protocol for Numbers {
    ///     fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
    ///         self.writable(conn)
    ///     }
    ///     fn writable(&mut self, conn: &mut Conn) -> io::Result<()> {
    ///         while !conn.is_full() {
    ///             conn.write(format!("{}\n", self.0).as_bytes())?;
    ///             self.0 += 1;
    ///         }
    ///         Ok(())
    ///     }
    /// #   fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> { Ok(bytes.len()) }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// An error closes the connection.
    fn writable(&mut self, conn: &mut Conn) -> io::Result<()> {
        #[expect(deprecated, reason = "the old name works on until 0.2")]
        self.drained(conn)
    }

    /// The old name of [`writable`](Protocol::writable), which calls it by default.
    ///
    /// # Errors
    ///
    /// An error closes the connection.
    #[deprecated(note = "implement `writable`")]
    fn drained(&mut self, conn: &mut Conn) -> io::Result<()> {
        let _ = conn;
        Ok(())
    }

    /// The connection has ended; `why` says why. It is the last call, and always made once, after a panic
    /// in another callback and at the runtime's end too. The default calls
    /// [`closed`](Protocol::closed).
    ///
    /// ```
    /// use netpoller::{CloseReason, Conn, Protocol};
    /// # use std::io;
    /// struct Player(u32);
    /// impl Protocol for Player {
    /// #   fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> { Ok(bytes.len()) }
    ///     fn ended(&mut self, why: CloseReason) {
    ///         println!("player {} is gone: {why}", self.0);
    ///     }
    /// }
    /// ```
    fn ended(&mut self, why: CloseReason) {
        self.closed(why.into_result());
    }

    /// As [`ended`](Protocol::ended), for protocols that only tell good order from failure.
    fn closed(&mut self, why: io::Result<()>) {
        let _ = why;
    }
}
