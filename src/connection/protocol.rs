//! What one writes to serve connections: a few callbacks.
//!
//! May touch: conn.rs. Go has no counterpart: there, one writes a goroutine.

use std::io;

use super::conn::Conn;

/// What a connection does: one of these lives with each, made by the server's factory in the
/// connection's own thread.
///
/// The loop calls it, and nothing else runs meanwhile on that thread: no callback may block. What a
/// callback writes goes out in one write at its end. An error that it returns ends the connection,
/// once what was written before has been tried; so does a panic, and the neighbours go on.
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
    /// # Errors
    ///
    /// End the connection.
    fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
        let _ = conn;
        Ok(())
    }

    /// The peer sent something. Returns how many of the bytes are used; the others are kept, and
    /// offered again: at once if some were used, and else together with more.
    ///
    /// # Errors
    ///
    /// End the connection.
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize>;

    /// The peer will send no more. Closes the connection, once all is written, unless this is
    /// written otherwise: then it stays open for writing.
    ///
    /// # Errors
    ///
    /// End the connection.
    fn end(&mut self, conn: &mut Conn) -> io::Result<()> {
        conn.close();
        Ok(())
    }

    /// Nothing has come for the interval of [`Server::heartbeat`](crate::Server::heartbeat). Sends
    /// `ping`, unless this is written otherwise.
    ///
    /// # Errors
    ///
    /// End the connection.
    fn heartbeat(&mut self, conn: &mut Conn) -> io::Result<()> {
        conn.write(b"ping")
    }

    /// Nothing has come for the time of [`Server::idle_timeout`](crate::Server::idle_timeout), and
    /// the connection is about to be closed. What is written now is the last.
    ///
    /// # Errors
    ///
    /// End the connection at once.
    fn idle(&mut self, conn: &mut Conn) -> io::Result<()> {
        let _ = conn;
        Ok(())
    }

    /// The peer has taken so much of what waited for it that there is room again: see
    /// [`Limits`](crate::Limits).
    ///
    /// # Errors
    ///
    /// End the connection.
    fn drained(&mut self, conn: &mut Conn) -> io::Result<()> {
        let _ = conn;
        Ok(())
    }

    /// The connection is closed: in good order, or why not. The last call, and always made once,
    /// after a panic in another and at the runtime's end too.
    fn closed(&mut self, why: io::Result<()>) {
        let _ = why;
    }
}
