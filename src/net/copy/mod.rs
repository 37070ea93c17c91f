//! Copying from one connection to another, and relaying between two. `transfer.rs` is one direction.
// Mirrors Go's `io.Copy` over `net/splice_linux.go`, which is what a proxy is made of there: two goroutines
// with `io.Copy` in them, and `CloseWrite` behind each.

mod transfer;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use super::fd::{Failure, Fd};
use crate::reactor::Refusal;
use crate::time;
use transfer::{Conduit, end, transfer, with_count};

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
/// Each end's deadline holds. Another operation may read between two reads, and write once all that one
/// read brought is written.
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
/// Neither stream is closed altogether: dropping the last handle does, or `close`.
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
    /// `linger`. A transfer that goes on is not cut off: for that, set deadlines on the streams.
    ///
    /// Such an end is no error, unless bytes are in hand that the sink did not take: then the error is
    /// a timeout of that write.
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
            let fds = [a.fd().cloned(), b.fd().cloned()];
            let (a, b) = (RefCell::new(a), RefCell::new(b));
            let [forth, back]: [RefCell<Conduit>; 2] = Default::default();
            let mut directions: [Option<Pin<&mut dyn Future<Output = io::Result<()>>>>; 2] = [
                Some(pin!(async {
                    transfer(&a, &b, &forth).await?;
                    end(&b).await
                })),
                Some(pin!(async {
                    transfer(&b, &a, &back).await?;
                    end(&a).await
                })),
            ];
            let written = || (forth.borrow().written, back.borrow().written);
            // The first error.
            let mut failed = None;
            // The first may use up the budget, so each poll starts with the other.
            let mut first = 1;
            // The sleep; what both directions had written when it began, and what of it the sink's peer
            // had not acknowledged.
            let mut lingering = None;
            let both = poll_fn(|cx| {
                first = 1 - first;
                for at in [first, 1 - first] {
                    let Some(direction) = &mut directions[at] else {
                        continue;
                    };
                    let Poll::Ready(ended) = direction.as_mut().poll(cx) else {
                        continue;
                    };
                    directions[at] = None;
                    if let Err(error) = ended {
                        failed.get_or_insert(with_count(error, [&forth, &back][at]));
                        // The other direction writes to this one's source.
                        if is_gone(&fds[at]) {
                            return Poll::Ready(());
                        }
                    }
                }
                let (sink, linger) = match (&directions, linger) {
                    ([None, None], _) => return Poll::Ready(()),
                    ([Some(_), Some(_)], _) | (_, None) => return Poll::Pending,
                    ([forth, _], Some(linger)) => (&fds[usize::from(forth.is_some())], linger),
                };
                // One direction has ended: the other ends too once it has been quiet for long enough.
                let now = written();
                let unsent = || sink.as_ref().and_then(Fd::unacknowledged);
                let (sleep, before, left) =
                    lingering.get_or_insert_with(|| (time::sleep(linger), now, unsent()));
                if *before != now {
                    (*before, *left) = (now, unsent());
                    sleep.reset(time::after(time::now(), linger));
                }
                while Pin::new(&mut *sleep).poll(cx).is_ready() {
                    // A sink is ready only when much of its buffer is free: its peer may have taken
                    // some of it, although nothing more was written.
                    let before = mem::replace(left, unsent());
                    if before <= *left {
                        return Poll::Ready(());
                    }
                    sleep.reset(time::after(time::now(), linger));
                }
                Poll::Pending
            });
            both.await;
            for (conduit, sink) in [(&forth, &fds[1]), (&back, &fds[0])] {
                if failed.is_none() && !conduit.borrow().is_empty() {
                    failed = Some(with_count(timed_out(sink), conduit));
                }
            }
            failed.map_or(Ok(written()), Err)
        }
    }
}

/// Whether the connection is closed or reset, so that nothing written to it arrives.
fn is_gone(end: &Option<Fd>) -> bool {
    let end = end.as_ref();
    end.is_some_and(|fd| fd.with_socket(|socket| socket.peer_addr()).is_err())
}

/// The error of a write that was given up for want of time.
fn timed_out(sink: &Option<Fd>) -> io::Error {
    match sink {
        Some(fd) => fd.error("write", Failure::Refused(Refusal::TimedOut), 0),
        None => io::ErrorKind::TimedOut.into(),
    }
}
