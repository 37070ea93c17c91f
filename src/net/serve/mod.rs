//! Serving: accepting for ever, one task a connection, through shortages and up to a limit.
//!
//! May touch: listen.rs, the runtime, time. Mirrors the loop of `Server.Serve` in Go's
//! `net/http/server.go`, and `x/net/netutil.LimitListener`.
//!
//! ```text
//!   room? ───► accept ──► spawn(handler, with a permit) ────┐
//!     ▲  ▲        │ short of descriptors or memory         │
//!     │  └─ wait: twice as long each time, or until ◄──────┘
//!     │     one of our own descriptors is closed           │
//!     └────────────────────────────────────────────────────┘
//! ```

mod limit;

use std::future::{Future, pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

pub use limit::ServeCounters;
use limit::{Limit, Permit, Room, count};

use super::error::NetError;
use super::fd::Fd;
use super::listen::Listener;
use super::tcp::{Tcp, TcpListener, TcpStream};
use super::unix::{Unix, UnixListener, UnixStream};
use crate::runtime;
use crate::runtime::shortage::UntilClosed;
use crate::time;

/// The first wait after an accept that found the system short of something, and the longest:
/// net/http's.
const FIRST_WAIT: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Failures further apart than this are not of one episode. More than the longest wait, so that
/// one log line is enough for a shortage that lasts, also if a connection gets through now and then.
const QUIET: Duration = Duration::from_secs(5);

/// What [`Serve`] can accept from.
pub trait Accept {
    /// A connection.
    type Connection: 'static;
    /// Where it comes from.
    type Peer: 'static;

    /// Waits for a connection. Dropping it must lose none.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Connection, Self::Peer)>>;

    /// Waits until there is no more to accept from, for one who does not accept just now.
    fn closed(&self) -> impl Future<Output = ()> {
        pending()
    }
}

impl Accept for TcpListener {
    type Connection = TcpStream;
    type Peer = SocketAddr;

    fn accept(&self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> {
        Listener::<Tcp>::accept(self)
    }

    fn closed(&self) -> impl Future<Output = ()> {
        Closed::new(&self.fd)
    }
}

impl Accept for UnixListener {
    type Connection = UnixStream;
    type Peer = std::os::unix::net::SocketAddr;

    fn accept(&self) -> impl Future<Output = io::Result<(UnixStream, Self::Peer)>> {
        Listener::<Unix>::accept(self)
    }

    fn closed(&self) -> impl Future<Output = ()> {
        Closed::new(&self.fd)
    }
}

impl<K> Listener<K>
where
    Self: Accept,
{
    /// Accepts until the listener is closed, and runs `handler` for each connection, in a task of
    /// its own: [`Serve`] with its defaults.
    ///
    /// # Errors
    ///
    /// As [`Serve::run`].
    pub fn serve<H, F>(&self, handler: H) -> impl Future<Output = io::Result<()>> + use<K, H, F>
    where
        H: FnMut(<Self as Accept>::Connection, <Self as Accept>::Peer) -> F,
        F: Future + 'static,
        F::Output: 'static,
    {
        Serve::new(self.clone()).run(handler)
    }
}

/// Accepts for ever, and runs a task for each connection.
///
/// When the process is short of descriptors, or the system of memory, it does not end and does
/// not spin: it waits, 5 ms at first and twice as long each time, up to a second; and it goes on
/// early when one of the sockets on this thread is closed. A shortage is logged once.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// use netpoller::{TcpListener, TcpStream, net, net::Serve};
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let serve = Serve::new(listener.clone()).max_connections(1000);
/// let counters = serve.counters();
/// let serving = netpoller::spawn(serve.run(async |stream: TcpStream, _peer| {
///     net::copy(&stream, &stream).await
/// }));
///
/// let client = TcpStream::connect(listener.local_addr()?).await?;
/// client.write_all(b"hello").await?;
/// assert_eq!(client.read_with(|bytes| bytes.to_vec()).await?, b"hello");
/// assert_eq!((counters.accepted(), counters.live()), (1, 1));
///
/// listener.close()?;
/// serving.await.unwrap()
/// # })
/// # }
/// ```
#[derive(Debug)]
pub struct Serve<L> {
    listener: L,
    limit: Rc<Limit>,
    most: usize,
}

impl<L: Accept> Serve<L> {
    /// Serves a listener: give it a clone, to keep the handle that closes it.
    #[must_use]
    pub fn new(listener: L) -> Self {
        Serve {
            listener,
            limit: Rc::default(),
            most: usize::MAX,
        }
    }

    /// No more than this many connections at once. The next is not accepted before one of them has
    /// gone, with its task: those that wait, wait in the system's backlog.
    ///
    /// # Panics
    ///
    /// If it is zero: nothing would ever be served.
    #[must_use]
    pub fn max_connections(mut self, most: usize) -> Self {
        assert!(
            most > 0,
            "netpoller: a server of zero connections serves nobody"
        );
        self.most = most;
        self
    }

    /// What it has done and does, to be read while it runs.
    pub fn counters(&self) -> ServeCounters {
        ServeCounters(self.limit.clone())
    }

    /// Serves until the listener is closed. What the handler's future returns is dropped; if it
    /// panics, that is logged, and the others go on.
    ///
    /// # Errors
    ///
    /// A timeout, if the listener has a deadline and it passed; the system's, where trying again
    /// does not help.
    ///
    /// # Panics
    ///
    /// Outside a runtime; and if `handler` panics before it has returned its future.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends the accepting, and leaves the connections running.
    pub async fn run<H, F>(self, mut handler: H) -> io::Result<()>
    where
        H: FnMut(L::Connection, L::Peer) -> F,
        F: Future + 'static,
        F::Output: 'static,
    {
        let mut shortage = Shortage::default();
        loop {
            // Before the accept: a connection that we can't serve stays the system's.
            let room = Room(&self.limit, self.most);
            if unless(self.listener.closed(), room).await.is_none() {
                return Ok(());
            }
            let error = match self.listener.accept().await {
                Ok((connection, peer)) => {
                    shortage.over();
                    let permit = Permit::new(&self.limit);
                    let handled = handler(connection, peer);
                    runtime::spawn(async move {
                        let _permit = permit;
                        handled.await
                    });
                    continue;
                }
                Err(error) => error,
            };
            if error.is_closed() {
                return Ok(());
            }
            if !may_pass(&error) {
                return Err(error);
            }
            count(&self.limit.refused);
            let (wait, is_new) = shortage.again(&error);
            if is_new {
                count(&self.limit.episodes);
            }
            // The first closing that is seen is one after the failure: nothing runs between.
            let more = unless(time::sleep(wait), UntilClosed::default());
            if unless(self.listener.closed(), more).await.is_none() {
                return Ok(());
            }
        }
    }
}

/// Beside Go's: an epoll that takes no more watches, and what befell the one connection alone.
/// Linux hands a network error that a connection has met to whoever accepts it, and asks to try
/// again (accept(2)); a firewall's word is EPERM.
const PASSING: &[i32] = &[
    libc::ENOSPC,
    libc::ETIMEDOUT,
    #[cfg(any(target_os = "linux", target_os = "android"))]
    libc::ENONET,
    libc::EPROTO,
    libc::ENOPROTOOPT,
    libc::EHOSTDOWN,
    libc::EHOSTUNREACH,
    libc::EOPNOTSUPP,
    libc::ENETDOWN,
    libc::ENETUNREACH,
    libc::EPERM,
];

/// Whether an accept failed for want of something, or by one connection's fault, so that the next
/// may be well. A deadline's passing says that it is temporary, too, but then the user wants to
/// hear of it.
pub(crate) fn may_pass(error: &io::Error) -> bool {
    let number = error.op_error().map(|error| error.raw_os_error());
    let number = number.unwrap_or(error.raw_os_error());
    let passes = number.is_some_and(|number| PASSING.contains(&number));
    passes || (error.is_temporary() && !error.is_timeout())
}

/// How long the system has been short of something.
#[derive(Debug, Default)]
pub(crate) struct Shortage {
    wait: Duration,
    last: Option<Instant>,
}

impl Shortage {
    /// An accept failed: how long to wait, and whether it is the first of an episode.
    pub(crate) fn again(&mut self, error: &io::Error) -> (Duration, bool) {
        self.wait = (self.wait * 2).clamp(FIRST_WAIT, LONGEST_WAIT);
        let now = time::now();
        let last = self.last.replace(now);
        let is_new = last.is_none_or(|last| now.saturating_duration_since(last) > QUIET);
        if is_new {
            log::warn!("{error}; trying again until it gets better");
        } else {
            log::trace!("{error}; trying again in {:?}", self.wait);
        }
        (self.wait, is_new)
    }

    pub(crate) fn over(&mut self) {
        self.wait = Duration::ZERO;
    }
}

/// What `wanted` gives, or `None` if `end` comes first.
async fn unless<T>(end: impl Future<Output = ()>, wanted: impl Future<Output = T>) -> Option<T> {
    let (mut end, mut wanted) = (pin!(end), pin!(wanted));
    poll_fn(|cx| match wanted.as_mut().poll(cx) {
        Poll::Ready(wanted) => Poll::Ready(Some(wanted)),
        Poll::Pending => end.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// Waits until a descriptor is closed on our side. Nobody hangs up on a listener, so that this is
/// all that can end the wait.
struct Closed<'a> {
    fd: &'a Fd,
    ticket: Option<u32>,
}

impl<'a> Closed<'a> {
    fn new(fd: &'a Fd) -> Self {
        Closed { fd, ticket: None }
    }
}

impl Future for Closed<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let polled = this.fd.poll_hung_up(&mut this.ticket, cx);
        polled.map(|_closed| ())
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.fd.forget_hang_up(ticket);
        }
    }
}
