//! Copying from one connection to another, and relaying between two. `transfer.rs` is one direction.
// Mirrors Go's `io.Copy` over `net/splice_linux.go`, which is what a proxy is made of there: two goroutines
// with `io.Copy` in them, and `CloseWrite` behind each.

mod transfer;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Poll, ready};
use std::time::Duration;

use super::fd::{Failure, Fd};
use crate::reactor::Refusal;
use crate::time;
use transfer::{Conduit, transfer, transfer_to_the_end, with_count};

pub use transfer::{CopySink, CopySource};

/// Copies everything from `source` to `sink`, until end of file, and says how much it was: Go's
/// `io.Copy`.
///
/// An end is `&TcpStream` or `&UnixStream`, or `&mut` anything that futures-io can read or write: a
/// file, a pipe, memory. Between two streams of ours large amounts are spliced in the kernel, on Linux;
/// small messages, for which that would cost more, are read and written. The sink is not closed, and
/// may be the source: that is an echo server.
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
/// Each end's deadline holds. Another operation may read between two reads; or write, after all of a read was
/// written.
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
    let copied = transfer(&source, &sink, &conduit).await;
    copied.map_err(|error| with_count(error, &conduit))?;
    Ok(conduit.into_inner().written)
}

/// Copies both ways between `a` and `b` until both have ended, and says how much went from `a` to
/// `b`, and how much from `b` to `a`.
///
/// When one side ends, the other's writing side is closed (a half-close is passed on), and the other
/// direction goes on; [`Relay::linger`] limits that. If one direction fails, the other goes on, except
/// if the connection that it writes to is gone. So an answer that came before a reset is passed on.
/// Neither stream is closed altogether: drop its last handle, or call `close`.
///
/// A proxy in one task:
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// use netpoller::{TcpListener, TcpStream, net, spawn};
/// let upstream = TcpListener::bind("127.0.0.1:0").await?;
/// let (proxy, to) = (TcpListener::bind("127.0.0.1:0").await?, upstream.local_addr()?);
/// let client = TcpStream::connect(proxy.local_addr()?).await?;
/// let relaying = spawn(async move {
///     let (client, _) = proxy.accept().await?;
///     net::copy_bidirectional(&client, &TcpStream::connect(to).await?).await
/// });
///
/// let (server, _) = upstream.accept().await?;
/// client.write_all(b"ping").await?;
/// client.close_write()?;
/// net::copy(&server, &server).await?;
/// server.close()?;
/// assert_eq!(client.read_with(|bytes| bytes.to_vec()).await?, b"ping");
/// assert_eq!(relaying.await.unwrap()?, (4, 4));
/// # Ok(())
/// # })
/// # }
/// ```
///
/// # Errors
///
/// As [`copy`](copy()), of the direction that failed first, once both have ended; `written`
/// is the count of that direction.
///
/// # Cancel safety
///
/// As [`copy`](copy()), for each direction.
pub fn copy_bidirectional<A, B>(a: A, b: B) -> impl Future<Output = io::Result<(u64, u64)>>
where
    A: CopySource + CopySink,
    B: CopySource + CopySink,
{
    Relay::new().run(a, b)
}

/// How to relay between two connections.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// use netpoller::{TcpListener, TcpStream, net::Relay};
/// use std::time::Duration;
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let address = listener.local_addr()?;
/// let client = TcpStream::connect(address).await?;
/// let (a, _) = listener.accept().await?;
/// let server = TcpStream::connect(address).await?;
/// let (b, _) = listener.accept().await?;
///
/// client.write_all(b"ping").await?;
/// client.close_write()?;
/// // The server never ends its side: the relay does, once nothing has come for a moment.
/// let relay = Relay::new().linger(Duration::from_millis(20));
/// assert_eq!(relay.run(&a, &b).await?, (4, 0));
/// assert_eq!(server.read_with(|bytes| bytes.to_vec()).await?, b"ping");
/// # Ok(())
/// # })
/// # }
/// ```
#[must_use]
#[derive(Clone, Debug, Default)]
pub struct Relay {
    linger: Option<Duration>,
}

impl Relay {
    /// One that ends when both sides have.
    pub fn new() -> Self {
        Relay::default()
    }

    /// Once one direction has ended, ends the relay when nothing has gone the other way for
    /// `linger`. A transfer that goes on is not cut off: to do that, set deadlines on the streams.
    ///
    /// Such an end is no error, unless bytes are in hand that the sink did not take: then the error is
    /// a timeout of that write.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # netpoller::Runtime::builder().virtual_clock().build()?.block_on(async {
    /// use netpoller::{Relay, UnixStream};
    /// use std::time::Duration;
    /// let (client, a) = UnixStream::pair()?;
    /// let (b, server) = UnixStream::pair()?;
    /// client.write_all(b"bye").await?;
    /// client.close_write()?;
    /// // The server never ends: the relay does, when it has been quiet for ten seconds.
    /// let relay = Relay::new().linger(Duration::from_secs(10));
    /// assert_eq!(relay.run(&a, &b).await?, (3, 0));
    /// # drop(server);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = Some(linger);
        self
    }

    /// Relays: see [`copy_bidirectional`].
    ///
    /// # Errors
    ///
    /// As [`copy_bidirectional`].
    ///
    /// # Cancel safety
    ///
    /// As [`copy_bidirectional`].
    pub fn run<A, B>(&self, a: A, b: B) -> impl Future<Output = io::Result<(u64, u64)>> + use<A, B>
    where
        A: CopySource + CopySink,
        B: CopySource + CopySink,
    {
        let linger = self.linger;
        async move {
            let [a_fd, b_fd] = [a.fd().cloned(), b.fd().cloned()];
            let (a, b) = (RefCell::new(a), RefCell::new(b));
            let [forth, back]: [RefCell<Conduit>; 2] = Default::default();
            let mut directions = [
                OneWay {
                    copying: pin!(transfer_to_the_end(&a, &b, &forth)),
                    conduit: &forth,
                    sink: &b_fd,
                },
                OneWay {
                    copying: pin!(transfer_to_the_end(&b, &a, &back)),
                    conduit: &back,
                    sink: &a_fd,
                },
            ];
            let (at, ended) = poll_fn(|cx| {
                // The first may use up the budget, so each poll starts with the other.
                directions.reverse();
                for (at, direction) in directions.iter_mut().enumerate() {
                    if let Poll::Ready(ended) = direction.copying.as_mut().poll(cx) {
                        return Poll::Ready((at, ended));
                    }
                }
                Poll::Pending
            })
            .await;
            directions.swap(0, at);
            let [first, mut second] = directions;
            let mut failed = ended.err().map(|error| with_count(error, first.conduit));
            // If the first one's source is gone, nothing that the second writes to it arrives.
            if failed.is_none() || !second.sink_is_gone() {
                let ended = match linger {
                    Some(linger) => second.linger(linger).await,
                    None => second.copying.await,
                };
                let error = ended.err().map(|error| with_count(error, second.conduit));
                failed = failed.or(error);
            }
            let is_empty = [&forth, &back].map(|conduit| conduit.borrow().is_empty());
            debug_assert!(failed.is_some() || is_empty == [true; 2], "bytes are lost");
            let written = (forth.borrow().written, back.borrow().written);
            failed.map_or(Ok(written), Err)
        }
    }
}

/// One direction of a relay.
struct OneWay<'a> {
    copying: Pin<&'a mut dyn Future<Output = io::Result<()>>>,
    conduit: &'a RefCell<Conduit>,
    sink: &'a Option<Fd>,
}

impl OneWay<'_> {
    /// Goes on to its end, or until nothing has moved for `linger`. Bytes in hand are then an error.
    async fn linger(&mut self, linger: Duration) -> io::Result<()> {
        // A sink is ready only when much of its buffer is free. So its peer may have taken bytes although
        // nothing more was written.
        let moved = || {
            let unacknowledged = self.sink.as_ref().map_or(0, Fd::unacknowledged);
            (self.conduit.borrow().written, unacknowledged)
        };
        let (mut quiet, mut before) = (time::sleep(linger), moved());
        poll_fn(|cx| {
            if let Poll::Ready(ended) = self.copying.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            if before != moved() {
                before = moved();
                quiet.reset(time::after(time::now(), linger));
            }
            ready!(Pin::new(&mut quiet).poll(cx));
            Poll::Ready(match self.sink {
                _ if self.conduit.borrow().is_empty() => Ok(()),
                Some(fd) => Err(fd.error("write", Failure::Refused(Refusal::TimedOut))),
                None => Err(io::ErrorKind::TimedOut.into()),
            })
        })
        .await
    }

    /// Whether the connection that it writes to is closed or reset.
    fn sink_is_gone(&self) -> bool {
        let sink = self.sink.as_ref();
        sink.is_some_and(|fd| fd.with_socket(|socket| socket.peer_addr()).is_err())
    }
}
