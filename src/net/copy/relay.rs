//! Both directions between two connections.
// Mirrors what a proxy in Go is: two goroutines with `io.Copy` in them, and `CloseWrite` behind each.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::transfer::{AtEnd, CopySink, CopySource, Transfer};
use crate::time::{self, Sleep};

/// Copies both ways between `a` and `b` until both have ended, and says how much went from `a` to
/// `b`, and how much from `b` to `a`.
///
/// When one side ends, the other's writing side is closed (half-close is carried across), and the
/// other direction goes on; [`Relay::linger`] limits that. A direction that fails lets the other run
/// to its own end as well, so that an answer that came before a reset is passed on; unless the
/// connection that the other writes to is gone. Neither stream is closed altogether: dropping the
/// last handle does, or `close`.
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
#[derive(Clone, Debug, Default)]
pub struct Relay {
    linger: Option<Duration>,
}

impl Relay {
    /// One that ends when both sides have.
    #[must_use]
    pub fn new() -> Self {
        Relay::default()
    }

    /// Ends the relay, once one direction has ended, when nothing has gone the other way for so
    /// long. A transfer that goes on is not cut off: for that, set deadlines on the streams.
    ///
    /// That is no error, unless bytes were left in hand that the sink did not take: then it is
    /// that write's timeout.
    #[must_use]
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
        Relaying {
            a,
            b,
            forth: Transfer::new::<A, B>(AtEnd::Close),
            back: Transfer::new::<B, A>(AtEnd::Close),
            back_first: false,
            failed: None,
            linger: self.linger,
            lingering: None,
        }
    }
}

/// [`Relay::run`] under way.
struct Relaying<A: CopySource + CopySink, B: CopySource + CopySink> {
    a: A,
    b: B,
    forth: Transfer,
    back: Transfer,
    /// They share a budget, and the second may find it used up, so they take turns.
    back_first: bool,
    /// The first error.
    failed: Option<io::Error>,
    linger: Option<Duration>,
    lingering: Option<Lingering>,
}

struct Lingering {
    sleep: Sleep,
    /// What both directions had written when it began to sleep.
    written: u64,
}

impl<A: CopySource + CopySink, B: CopySource + CopySink> Relaying<A, B> {
    /// Ready when both directions are done.
    fn poll_both(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.back_first = !self.back_first;
        for backwards in [self.back_first, !self.back_first] {
            let polled = match backwards {
                true => self.back.poll(&mut self.b, &mut self.a, cx),
                false => self.forth.poll(&mut self.a, &mut self.b, cx),
            };
            if let Poll::Ready(Err(error)) = polled {
                self.failed.get_or_insert(error);
                // The other direction writes to this one's source.
                let is_vain = match backwards {
                    true => self.b.is_gone(),
                    false => self.a.is_gone(),
                };
                if is_vain {
                    return Poll::Ready(());
                }
            }
        }
        match self.forth.is_done() && self.back.is_done() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn written(&self) -> u64 {
        self.forth.written() + self.back.written()
    }

    /// Ready once one direction has ended and the other has been quiet for long enough.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(linger) = self.linger else {
            return Poll::Pending;
        };
        if !self.forth.is_done() && !self.back.is_done() {
            return Poll::Pending;
        }
        let written = self.written();
        let lingering = self.lingering.get_or_insert_with(|| Lingering {
            sleep: time::sleep(linger),
            written,
        });
        if lingering.written != written {
            lingering.written = written;
            lingering.sleep.reset(time::after(time::now(), linger));
        }
        Pin::new(&mut lingering.sleep).poll(cx)
    }
}

impl<A: CopySource + CopySink, B: CopySource + CopySink> Future for Relaying<A, B> {
    type Output = io::Result<(u64, u64)>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let mut stopped = Ok(());
        if this.poll_both(cx).is_pending() {
            if this.poll_linger(cx).is_pending() {
                return Poll::Pending;
            }
            let (forth, back) = (this.forth.stop(&this.b), this.back.stop(&this.a));
            stopped = forth.and(back);
        }
        Poll::Ready(match this.failed.take() {
            Some(error) => Err(error),
            None => stopped.map(|()| (this.forth.written(), this.back.written())),
        })
    }
}

impl<A: CopySource + CopySink, B: CopySource + CopySink> Drop for Relaying<A, B> {
    fn drop(&mut self) {
        self.forth.give_up(&mut self.a, &mut self.b);
        self.back.give_up(&mut self.b, &mut self.a);
    }
}
