//! One worker's life: it takes connections as they come, and sees them to their end.
//!
//! ```text
//!   take connections: from its own listeners, or from its inbox
//!        │ an order: drain
//!        ▼
//!   close what is not in flight ─► take what is queued ─► close the listeners ─► wait for the rest
//!        │ an order: stop               │                        │ the limit          │
//!        └──────────────────────────────┴────────────────────────┴──► end the rest ◄──┘
//! ```

// Mirrors `Server.Serve` and `Server.Shutdown` in Go's `net/http/server.go`.

use std::future::{Future, pending, poll_fn};
use std::io;
use std::net::TcpListener as StdListener;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::dispatch::{AcceptGuard, WorkerInbox};
use super::orders::Common;
use crate::connection::protocol::Protocol;
use crate::connection::run::Connection;
use crate::connection::shared::{Phase, WorkerShared};
use crate::endpoints::{Addr, End, Network};
use crate::net::TcpListener;
use crate::net::accept_loop::{AcceptLoop, Accepted, Episode, Permit, Sink};
use crate::net::fd::Fd;
use crate::runtime::select::{Either, select};
use crate::runtime::{self, context, current, panics};
use crate::time;

/// Where a worker's connections come from: from listeners of its own, or from an inbox. The worker
/// that accepts for all has both. On its way to the worker's thread it holds std's listeners.
pub(crate) struct Incoming<L = StdListener> {
    pub(crate) listeners: Vec<L>,
    /// What the listeners accept goes to all workers in place of this one.
    pub(crate) for_all: Option<AcceptGuard>,
    pub(crate) inbox: Option<WorkerInbox>,
}

impl Incoming {
    /// Takes the listeners into the runtime that runs.
    fn open(self) -> io::Result<Incoming<TcpListener>> {
        let listeners = self.listeners.into_iter().map(TcpListener::from_std);
        Ok(Incoming {
            listeners: listeners.collect::<io::Result<_>>()?,
            for_all: self.for_all,
            inbox: self.inbox,
        })
    }
}

/// One worker.
pub(crate) struct WorkerLoop<F> {
    factory: Arc<F>,
    common: Arc<Common>,
    /// For log lines.
    name: String,
    /// What its connections share.
    shared: Rc<WorkerShared>,
}

type Way<'a> = Pin<Box<dyn Future<Output = io::Result<()>> + 'a>>;

impl<F, P> WorkerLoop<F>
where
    F: Fn(Addr) -> P + 'static,
    P: Protocol,
{
    /// Serves until a handle ends it, and then until its last connection has ended.
    ///
    /// # Errors
    ///
    /// Those of accepting, where trying again does not help.
    pub(crate) async fn run(
        factory: Arc<F>,
        common: Arc<Common>,
        number: usize,
        incoming: Incoming,
    ) -> io::Result<()> {
        let make = |scheduler: &_| {
            let (quotas, permits) = (common.quotas.clone(), common.permits.clone());
            let tally = common.tallies[number].clone();
            WorkerShared::new(scheduler, &common.settings, quotas, tally, permits)
        };
        let shared = Rc::new(current::with("a server", make));
        // However this future ends, aborted too: nothing else could end its connections.
        let _stops = StopOnDrop(shared.clone());
        let this = WorkerLoop {
            name: format!("{}: worker {number}", common.address),
            factory,
            common,
            shared,
        };
        let result = this.serve_and_drain(incoming).await;
        this.shared.stop();
        poll_fn(|cx| this.shared.poll_empty(cx.waker())).await;
        result
    }

    /// Returns when a drain is done or has reached its limit, at an order to stop, or with an error
    /// of accepting. The listeners are closed then.
    async fn serve_and_drain(&self, incoming: Incoming) -> io::Result<()> {
        let mut incoming = Some(incoming.open()?);
        let mut orders = self.common.orders.follow();
        let serve = async {
            self.take(incoming.as_ref(), None).await?;
            // Nothing more is accepted. The connections that are served go on.
            pending().await
        };
        let mut order = match select(orders.changed(), serve).await {
            Either::First(order) => order,
            Either::Second(failed) => return failed,
        };
        let mut deadline = time::after(time::now(), Duration::MAX);
        while order.phase == Phase::Draining {
            let now = time::now();
            deadline = deadline.min(time::after(now, order.limit));
            let drained = time::timeout(deadline - now, self.drain(&mut incoming, deadline));
            order = match select(orders.changed(), drained).await {
                // Stop, or drain within a shorter limit.
                Either::First(order) => order,
                Either::Second(Ok(drained)) => return drained,
                Either::Second(Err(_)) => {
                    let (name, open) = (&self.name, self.live());
                    if open > 0 {
                        log::warn!(
                            "{name}: the drain's limit has passed; {open} connections are cut off"
                        );
                    }
                    return Ok(());
                }
            };
        }
        Ok(())
    }

    /// Takes what is queued, and waits until no connection is left. Dropped and called again, it
    /// goes on where it was.
    async fn drain(
        &self,
        incoming: &mut Option<Incoming<TcpListener>>,
        deadline: Instant,
    ) -> io::Result<()> {
        // First: a connection that is closed now may make room for one that is queued.
        self.shared.begin_drain();
        if !fault!("drain_resets_queued_client") {
            self.take(incoming.as_ref(), Some(deadline)).await?;
        }
        *incoming = None;
        // Those that are not in flight close in their next run.
        runtime::yield_now().await;
        let (name, open) = (&self.name, self.live());
        log::info!("{name}: waits for {open} connections in flight");
        poll_fn(|cx| self.shared.poll_empty(cx.waker())).await;
        Ok(())
    }

    // ---- taking connections ----

    /// Takes connections from everywhere: for ever, or until `limit` those that are queued already.
    async fn take(
        &self,
        incoming: Option<&Incoming<TcpListener>>,
        limit: Option<Instant>,
    ) -> io::Result<()> {
        let Some(incoming) = incoming else {
            return Ok(());
        };
        let for_all = incoming.for_all.as_ref();
        let accepting = async {
            let accept = |listener| -> Way<'_> { Box::pin(self.accept(listener, for_all, limit)) };
            all(incoming.listeners.iter().map(accept).collect()).await?;
            // The inboxes get no more.
            for_all.inspect(|guard| guard.0.finish());
            Ok(())
        };
        let receiving = async {
            match &incoming.inbox {
                Some(inbox) => self.receive(inbox).await,
                None => Ok(()),
            }
        };
        all(vec![Box::pin(accepting), Box::pin(receiving)]).await
    }

    async fn accept(
        &self,
        listener: &TcpListener,
        for_all: Option<&AcceptGuard>,
        limit: Option<Instant>,
    ) -> io::Result<()> {
        let mut accept_loop = AcceptLoop::new(self.common.permits.clone());
        let worker = self;
        let mut sink = Take { worker, for_all };
        match limit {
            None => accept_loop.run(listener, &mut sink).await,
            Some(limit) => accept_loop.run_queued(listener, &mut sink, limit).await,
        }
    }

    /// Takes what is handed over until accepting has ended.
    async fn receive(&self, inbox: &WorkerInbox) -> io::Result<()> {
        loop {
            context::yield_once().await;
            let Some(accepted) = poll_fn(|cx| inbox.poll_next(cx.waker())).await else {
                return Ok(());
            };
            // An order drops this future: from here on nothing is awaited, or the connection that
            // was taken would be lost.
            let peer = accepted.peer;
            match Fd::adopt("a server", accepted.socket, Network::Tcp) {
                Ok(fd) => {
                    fd.socket().set_endpoint(End::Peer, peer.clone());
                    self.begin(fd, peer, accepted.permit);
                }
                Err(error) => {
                    log::warn!("{peer}: closed before it was served: {error}");
                    self.shared.tally.refused.add(1);
                }
            }
        }
    }

    /// A connection begins. A factory that panics costs this connection alone.
    fn begin(&self, fd: Fd, peer: Addr, permit: Permit) {
        match panics::catch(|| (self.factory)(peer.clone())) {
            Ok(protocol) => {
                let connection = Connection::new(fd, self.shared.clone(), protocol);
                self.shared.spawn(Box::new(connection), permit);
            }
            Err(_) => {
                log::error!("{peer}: closed: the factory panicked");
                self.shared.tally.accepted.add(1);
                self.shared.tally.failed.add(1);
            }
        }
    }

    fn live(&self) -> u64 {
        self.shared.tally.live.get()
    }
}

/// What becomes of what a worker accepts: a connection of its own, or one of all workers'.
struct Take<'a, F> {
    worker: &'a WorkerLoop<F>,
    for_all: Option<&'a AcceptGuard>,
}

impl<F, P> Sink for Take<'_, F>
where
    F: Fn(Addr) -> P + 'static,
    P: Protocol,
{
    fn take(&mut self, listener: &Fd, accepted: Accepted) -> io::Result<()> {
        if let Some(guard) = self.for_all {
            let sent = guard.0.send(accepted);
            return sent.map_err(|_| io::Error::other("no worker is left"));
        }
        let fd = listener.open_accepted(accepted.socket, accepted.peer.clone())?;
        self.worker.begin(fd, accepted.peer, accepted.permit);
        Ok(())
    }

    fn put_off(&mut self, _: Episode) {
        self.worker.shared.tally.refused.add(1);
    }
}

/// Ends the worker's connections.
struct StopOnDrop(Rc<WorkerShared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Waits until all are done, or the first of them fails.
async fn all(mut ways: Vec<Way<'_>>) -> io::Result<()> {
    poll_fn(|cx| {
        let mut failed = None;
        ways.retain_mut(|way| match way.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(ended) => {
                failed = failed.take().or(ended.err());
                false
            }
        });
        match failed {
            Some(error) => Poll::Ready(Err(error)),
            None if ways.is_empty() => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    })
    .await
}
