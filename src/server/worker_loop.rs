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
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use super::bound::Common;
use super::builder::Server;
use super::dispatch::{AcceptGuard, WorkerInbox};
use super::orders::Follower;
use crate::connection::protocol::Protocol;
use crate::connection::run::Connection;
use crate::connection::stats::{Tally, add};
use crate::connection::worker::{Phase, Worker};
use crate::endpoints::{Addr, End, Network};
use crate::net::TcpListener;
use crate::net::accept_loop::{AcceptLoop, Accepted, Episode, Permit, Sink};
use crate::net::fd::Fd;
use crate::runtime::select::{Either, select};
use crate::runtime::{context, panics};
use crate::time;

/// Where a worker's connections come from: from listeners of its own, or from an inbox. The worker
/// that accepts for all has both.
pub(crate) struct Incoming {
    pub(crate) listeners: Vec<StdListener>,
    /// What the listeners accept goes to all workers in place of this one.
    pub(crate) for_all: Option<AcceptGuard>,
    pub(crate) inbox: Option<WorkerInbox>,
}

/// The same, in the worker's runtime.
struct Open {
    listeners: Vec<TcpListener>,
    for_all: Option<AcceptGuard>,
    inbox: Option<WorkerInbox>,
}

/// One worker.
pub(crate) struct WorkerLoop<F> {
    pub(crate) server: Server<F>,
    pub(crate) common: Arc<Common>,
    pub(crate) number: usize,
    worker: Rc<Worker>,
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
        server: Server<F>,
        common: Arc<Common>,
        number: usize,
        incoming: Incoming,
    ) -> io::Result<()> {
        let make = |scheduler: &_| {
            Worker::new(
                scheduler,
                &server.settings,
                common.account.clone(),
                common.tallies[number].clone(),
                common.permits.clone(),
            )
        };
        let worker = Rc::new(context::with("a server", make));
        // However this future ends, aborted too: nothing else could end its connections.
        let _stops = StopOnDrop(worker.clone());
        let this = WorkerLoop {
            server,
            common,
            number,
            worker,
        };
        let result = this.serve_and_drain(incoming).await;
        this.worker.stop();
        poll_fn(|cx| this.worker.poll_empty(cx.waker())).await;
        result
    }

    /// Returns when a drain is done or has reached its limit, at an order to stop, or with an error
    /// of accepting. The listeners are closed then.
    async fn serve_and_drain(&self, incoming: Incoming) -> io::Result<()> {
        let listeners = incoming.listeners.into_iter().map(TcpListener::from_std);
        let mut open = Some(Open {
            listeners: listeners.collect::<io::Result<_>>()?,
            for_all: incoming.for_all,
            inbox: incoming.inbox,
        });
        let mut orders = self.common.orders.follow();
        let mut order = match select(orders.changed(), self.take(open.as_ref(), None)).await {
            Either::First(order) => order,
            Either::Second(result) => {
                result?;
                // Nothing more comes, which is no reason to end what is served.
                orders.changed().await
            }
        };
        let mut deadline = time::after(time::now(), Duration::MAX);
        while order.phase == Phase::Draining {
            deadline = deadline.min(time::after(time::now(), order.limit));
            let drained = time::timeout(left(deadline), self.drain(&mut open, deadline));
            order = match select(orders.changed(), drained).await {
                // Stop, or drain within a shorter limit.
                Either::First(order) => order,
                Either::Second(Ok(drained)) => return drained,
                Either::Second(Err(_)) => {
                    let open = self.common.tallies[self.number].read_live();
                    log::warn!("the limit of the drain has passed: {open} connections are cut off");
                    return Ok(());
                }
            };
        }
        Ok(())
    }

    /// Takes what is queued, and waits until no connection is left. Dropped and called again, it
    /// goes on where it was.
    async fn drain(&self, incoming: &mut Option<Open>, deadline: Instant) -> io::Result<()> {
        // First: a connection that is closed now may make room for one that is queued.
        self.worker.drain(self.server.settings.grace);
        self.take(incoming.as_ref(), Some(deadline)).await?;
        *incoming = None;
        poll_fn(|cx| self.worker.poll_empty(cx.waker())).await;
        Ok(())
    }

    // ---- taking connections ----

    /// Takes connections from everywhere: for ever, or until `limit` those that are queued already.
    async fn take(&self, incoming: Option<&Open>, limit: Option<Instant>) -> io::Result<()> {
        let Some(incoming) = incoming else {
            return Ok(());
        };
        let accept = async |listener| {
            let mut accept_loop = AcceptLoop::new(self.common.permits.clone());
            let sink = &mut Take {
                worker: self,
                for_all: incoming.for_all.as_ref(),
            };
            match limit {
                None => accept_loop.run(listener, sink).await,
                Some(limit) => accept_loop.run_queued(listener, sink, limit).await,
            }
        };
        let mut ways: Vec<Way<'_>> = Vec::new();
        for listener in &incoming.listeners {
            ways.push(Box::pin(accept(listener)));
        }
        if let Some(inbox) = &incoming.inbox {
            ways.push(Box::pin(self.take_from(inbox)));
        }
        all(ways).await
    }

    /// Takes what is handed over until accepting has ended.
    async fn take_from(&self, inbox: &WorkerInbox) -> io::Result<()> {
        let next = || {
            poll_fn(|cx| {
                ready!(context::poll_budget(cx.waker()));
                inbox.poll_next(cx.waker())
            })
        };
        while let Some(Accepted {
            socket,
            peer,
            permit,
        }) = next().await
        {
            let open = |scheduler: &_| Fd::open(scheduler, socket, Network::Tcp);
            match context::with("a server", open) {
                Ok(fd) => {
                    fd.resource().set_endpoint(End::Peer, peer.clone());
                    self.begin(fd, peer, permit);
                }
                Err(error) => {
                    log::warn!("{peer}: closed before it was served: {error}");
                    add(&self.tally().refused, 1);
                }
            }
            inbox.begun();
        }
        Ok(())
    }

    /// A connection begins. A factory that panics costs this connection alone.
    fn begin(&self, fd: Fd, peer: Addr, permit: Permit) {
        let make = AssertUnwindSafe(|| (self.server.factory)(peer.clone()));
        match panics::catch(make) {
            Ok(protocol) => {
                let connection = Connection::new(fd, self.worker.clone(), protocol);
                self.worker.spawn(Box::new(connection), permit);
            }
            Err(_) => {
                log::error!("{peer}: closed: the factory panicked");
                add(&self.tally().accepted, 1);
                add(&self.tally().failed, 1);
            }
        }
    }

    fn tally(&self) -> &Tally {
        &self.common.tallies[self.number]
    }
}
