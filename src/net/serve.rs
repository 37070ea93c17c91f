//! Serving with tasks: one task for each connection.
// Mirrors `http.Serve`, and `x/net/netutil.LimitListener`.

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use super::accept_loop::{ALL, Failed, accept_each};
use super::addr::Kind;
use super::listener::Listener;
use super::permits::Permits;
use super::stream::Stream;
use crate::runtime::spawn;
use crate::runtime::sync::Counter;

impl<K: Kind> Listener<K> {
    /// Accepts until the listener is closed, and runs `handler` for each connection, in a task of
    /// its own: [`Serve`] with its defaults.
    ///
    /// # Errors
    ///
    /// As [`Serve::run`].
    pub fn serve<H: FnMut(Stream<K>, K::Addr) -> F, F: Future<Output: 'static> + 'static>(
        &self,
        handler: H,
    ) -> impl Future<Output = io::Result<()>> + use<K, H, F> {
        Serve::new(self.clone()).run(handler)
    }
}

/// Accepts until its listener is closed, and runs a task for each connection.
///
/// After an error that may pass, such as a shortage of descriptors or memory, accepting neither ends nor
/// spins: it pauses, 5 ms at first and twice as long each time, up to a second, and goes on early
/// when a socket of this thread is closed. One warning is logged when accepting pauses, with the
/// reason, and one when it goes on; at debug each accepted connection has a line with its peer.
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
#[must_use]
#[derive(Debug)]
pub struct Serve<K> {
    listener: Listener<K>,
    counters: ServeCounters,
    max: usize,
}

impl<K: Kind> Serve<K> {
    /// Serves a listener: give it a clone, to keep the handle that closes it.
    pub fn new(listener: Listener<K>) -> Self {
        Serve {
            listener,
            counters: ServeCounters::default(),
            max: usize::MAX,
        }
    }

    /// At most `max` connections at once; without a limit by default. While there are so many, the
    /// next is not accepted: it waits in the system's backlog until one has ended, with its task.
    ///
    /// # Panics
    ///
    /// If it is zero: nothing would ever be served.
    pub fn max_connections(mut self, max: usize) -> Self {
        assert!(
            max > 0,
            "netpoller: a server of zero connections would never serve"
        );
        self.max = max;
        self
    }

    /// What it has done and does, to be read while it runs.
    pub fn counters(&self) -> ServeCounters {
        self.counters.clone()
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
    pub async fn run<F: Future<Output: 'static> + 'static>(
        self,
        mut handler: impl FnMut(Stream<K>, K::Addr) -> F,
    ) -> io::Result<()> {
        let counts = &self.counters.0;
        let failed = |why, begins| {
            counts.refused.add(u64::from(why != Failed::Aborted));
            counts.episodes.add(u64::from(begins));
        };
        let take = |accepted, permit| {
            let (stream, peer) = self.listener.open(accepted)?;
            counts.accepted.add(1);
            let live = counts.live.clone();
            let handled = handler(stream, peer);
            spawn(async move {
                // Both go with the task, however it ends.
                let (_permit, _live) = (permit, live);
                handled.await
            });
            Ok(())
        };
        let permits = Arc::new(Permits::new(self.max));
        accept_each(&self.listener.fd, &permits, ALL, failed, take).await
    }
}

#[derive(Debug, Default)]
struct Counts {
    accepted: Counter,
    /// Each task of a connection has a clone.
    live: Rc<()>,
    refused: Counter,
    episodes: Counter,
}

/// The counters of a [`Serve`], which has an example: what it has done, and what it serves now.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # netpoller::Runtime::new()?.block_on(async {
/// use netpoller::{Serve, TcpListener};
///
/// let serve = Serve::new(TcpListener::bind("127.0.0.1:0").await?);
/// let counters = serve.counters();
/// assert_eq!((counters.accepted(), counters.live(), counters.refused()), (0, 0, 0));
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct ServeCounters(Rc<Counts>);

impl ServeCounters {
    /// Connections accepted.
    pub fn accepted(&self) -> u64 {
        self.0.accepted.get()
    }

    /// Connections being served.
    pub fn live(&self) -> usize {
        Rc::strong_count(&self.0.live) - 1
    }

    /// Accepts that failed, those of connections that their peers aborted not counted.
    pub fn refused(&self) -> u64 {
        self.0.refused.get()
    }

    /// Shortages: failures within 5 s of each other count as one.
    pub fn episodes(&self) -> u64 {
        self.0.episodes.get()
    }
}
