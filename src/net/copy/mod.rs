//! Copying from one connection to another, and relaying between two.
//!
//! | file | what it is |
//! |---|---|
//! | `transfer.rs` | one direction: read, write all of it, again; and the ends |
//! | `conduit.rs` | what is in hand between a read and its writes: a pipe or a buffer |
//! | `relay.rs` | both directions |
// Mirrors Go's `io.Copy` over `net/splice_linux.go`, which is what a proxy is made of there.

mod conduit;
mod relay;
mod transfer;

use std::cell::RefCell;
use std::io;

use conduit::Conduit;
pub use relay::{Relay, copy_bidirectional};
use transfer::{AtEnd, transfer, with_count};
pub use transfer::{CopySink, CopySource};

/// Copies everything from `source` to `sink`, until end of file, and says how much it was: Go's
/// `io.Copy`.
///
/// An end is `&TcpStream` or `&UnixStream`, or `&mut` anything that futures-io can read or write:
/// a file, a pipe, memory. Between two streams of ours a flood stays in the kernel, on Linux (by
/// splice(2)); messages, for which that would cost more, are read and written. The sink is not
/// closed, and may be the source: that is an echo server.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// use netpoller::{TcpListener, TcpStream, net};
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let client = TcpStream::connect(listener.local_addr()?).await?;
/// let (server, _) = listener.accept().await?;
///
/// net::copy(&mut &b"from memory"[..], &client).await?;
/// client.close_write()?;
/// net::copy(&server, &server).await?;
/// server.close()?;
/// let mut echoed = futures_lite::io::Cursor::new(Vec::new());
/// assert_eq!(net::copy(&client, &mut echoed).await?, 11);
/// assert_eq!(echoed.into_inner(), b"from memory");
/// # Ok(())
/// # })
/// # }
/// ```
///
/// Each end's deadline holds. Others may read and write between two steps, never within one: a
/// step is a read, and the writing of all that it brought.
///
/// # Errors
///
/// Those of the end that failed. If it is a stream of ours, the [`OpError`](crate::OpError) says
/// in `written` how much had gone to the sink by then.
///
/// # Cancel safety
///
/// Dropped while it waits for its source, it loses nothing. Dropped while it waits for its sink,
/// it loses what it had read and not yet written, up to a pipe full (64 KiB).
pub async fn copy<R: CopySource, W: CopySink>(source: R, sink: W) -> io::Result<u64> {
    let (source, sink) = (RefCell::new(source), RefCell::new(sink));
    let conduit = RefCell::new(Conduit::default());
    let copied = transfer(&source, &sink, &conduit, AtEnd::Flush).await;
    copied.map_err(|error| with_count(error, &conduit))?;
    Ok(conduit.into_inner().written)
}
