//! Both directions between two connections.
// Mirrors what a proxy in Go is: two goroutines with `io.Copy` in them, and `CloseWrite` behind each.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use super::conduit::Conduit;
use super::transfer::{AtEnd, CopySink, CopySource, transfer, with_count};
use crate::net::fd::{Failure, Fd};
use crate::reactor::Refusal;
use crate::time;

/// Copies both ways between `a` and `b` until both have ended, and says how much went from `a` to
/// `b`, and how much from `b` to `a`.
///
/// When one side ends, the other's writing side is closed (half-close is carried across), and the
/// other direction goes on; [`Relay::linger`] limits that. When a direction fails, the other still
/// runs to its end, so that an answer that came before a reset is passed on; unless the connection
/// that the other writes to is gone. Neither stream is closed altogether: dropping the last handle
/// does, or `close`.
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
/// As [`copy`](super::copy()), of the direction that failed first, once both have ended; `written`
/// is the count of that direction.
///
/// # Cancel safety
///
/// As [`copy`](super::copy()), for each direction.
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
        relay(a, b, self.linger)
    }
}

async fn relay<A, B>(a: A, b: B, linger: Option<Duration>) -> io::Result<(u64, u64)>
where
    A: CopySource + CopySink,
    B: CopySource + CopySink,
{
    let fds = [a.fd().cloned(), b.fd().cloned()];
    let (a, b) = (RefCell::new(a), RefCell::new(b));
    let [forth, back]: [RefCell<Conduit>; 2] = Default::default();
    let mut directions: [Pin<&mut dyn Future<Output = io::Result<()>>>; 2] = [
        pin!(transfer(&a, &b, &forth, AtEnd::Close)),
        pin!(transfer(&b, &a, &back, AtEnd::Close)),
    ];
    let written = || (forth.borrow().written, back.borrow().written);
    let mut running = [true, true];
    // The first error.
    let mut failed = None;
    // They share a budget, which the first may use up. So they take turns in being first.
    let mut first = 1;
    // The sleep, and what both directions had written when it began.
    let mut lingering = None;
    poll_fn(|cx| {
        first = 1 - first;
        for direction in [first, 1 - first] {
            if !running[direction] {
                continue;
            }
            let Poll::Ready(ended) = directions[direction].as_mut().poll(cx) else {
                continue;
            };
            running[direction] = false;
            if let Err(error) = ended {
                failed.get_or_insert(with_count(error, [&forth, &back][direction]));
                // The other direction writes to this one's source.
                if is_gone(&fds[direction]) {
                    return Poll::Ready(());
                }
            }
        }
        let linger = match (running, linger) {
            ([false, false], _) => return Poll::Ready(()),
            ([true, true], _) | (_, None) => return Poll::Pending,
            (_, Some(linger)) => linger,
        };
        // One direction has ended: the other ends too once it has been quiet for long enough.
        let now = written();
        let (sleep, before) = lingering.get_or_insert_with(|| (time::sleep(linger), now));
        if *before != now {
            *before = now;
            sleep.reset(time::after(time::now(), linger));
        }
        Pin::new(sleep).poll(cx)
    })
    .await;
    for (conduit, sink) in [(&forth, &fds[1]), (&back, &fds[0])] {
        if failed.is_none() && !conduit.borrow().is_empty() {
            failed = Some(with_count(timed_out(sink), conduit));
        }
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(written()),
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
