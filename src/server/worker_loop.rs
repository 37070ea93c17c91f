//! One worker: it accepts connections, serves them, and waits until they end.
//!
//! ```text
//!   take connections: from its own listeners and from its inbox
//!        │ an order: drain
//!        ▼
//!   close what is not in flight ─► take what is queued ─► close the listeners ─► wait for the rest
//!        │ an order: stop               │                        │ the limit          │
//!        └──────────────────────────────┴────────────────────────┴──► end the rest ◄──┘
//! ```

// Mirrors `Server.Serve` and `Server.Shutdown` in Go's `net/http/server.go`.

use std::future::{Future, pending, poll_fn};
use std::io;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::dispatch::{Arrival, Order, WorkerInbox};
use super::settings::{At, Common, Factory, Peer, Port};
use crate::connection::conn::Conn;
use crate::connection::run::Connection;
use crate::connection::shared::{Phase, WorkerShared};
use crate::net::Hook;
use crate::net::accept_loop::{ALL, Failed, QUEUED, accept_each};
use crate::net::fd::Fd;
use crate::net::permits::{Permit, Permits};
use crate::runtime::look::noted;
use crate::runtime::scheduler::Scheduler;
use crate::runtime::{self, Either, Handle, context, current, panics, select};
use crate::time;

/// How long a drain pauses when descriptors or memory are short.
const SHORTAGE: Duration = Duration::from_millis(100);

/// What a worker begins with.
pub(super) type Start = (WorkerInbox, Vec<Port>);

/// One worker.
pub(crate) struct WorkerLoop<F> {
    factory: Arc<F>,
    common: Arc<Common>,
    inbox: WorkerInbox,
    /// For log lines.
    name: String,
    /// What its connections share.
    shared: Rc<WorkerShared>,
}

type Boxed<'a> = Pin<Box<dyn Future<Output = io::Result<()>> + 'a>>;

impl<F: Factory> WorkerLoop<F> {
    /// Serves until a handle ends it, and then until its last connection has ended.
    ///
    /// # Errors
    ///
    /// Those of accepting, if trying again does not help; those of `on_worker`.
    pub(crate) async fn run(
        factory: Arc<F>,
        common: Arc<Common>,
        (inbox, ports): Start,
    ) -> io::Result<()> {
        let tally = common.dispatcher.tallies[inbox.worker].clone();
        let set = common.runtimes[inbox.worker].set(Handle::current());
        debug_assert!(set.is_ok(), "a server runs once");
        let this = WorkerLoop {
            shared: Rc::new(WorkerShared::new(common.shared.clone(), tally)),
            name: format!("{}: worker {}", common.name(), inbox.worker),
            factory,
            common,
            inbox,
        };
        let result = this.serve_and_drain(ports).await;
        this.shared.enter(Phase::Stopped);
        this.shared.emptied().await;
        result
    }

    /// Returns when a drain is done or has reached its limit, at an order to stop, or with an error of
    /// starting or accepting. The listeners are closed then.
    async fn serve_and_drain(&self, ports: Vec<Port>) -> io::Result<()> {
        let open = |port: Port| {
            let fd = Fd::adopt("a server", port.socket, port.network)?;
            Ok((fd, port.at))
        };
        let listeners: Vec<_> = ports.into_iter().map(open).collect::<io::Result<_>>()?;
        self.start()?;
        let mut order: Option<Order> = None;
        let mut deadline = time::after(time::now(), Duration::MAX);
        loop {
            let follow = async {
                let Some(order) = order else {
                    // Not all workers have started.
                    return pending().await;
                };
                match order.phase {
                    Phase::Serving => {
                        self.take(&listeners, ALL).await?;
                        // Nothing more is accepted. The connections that are served go on.
                        pending().await
                    }
                    Phase::Draining => {
                        let now = time::now();
                        deadline = deadline.min(time::after(now, order.limit));
                        let drained = time::timeout(deadline - now, self.drain(&listeners));
                        drained.await.unwrap_or_else(|_elapsed| {
                            let (name, live) = (&self.name, self.shared.tally.live.get());
                            let open = live + self.inbox.discard() as u64;
                            if open > 0 {
                                log::warn!(
                                    "{name}: the drain's limit has passed; connections cut off: {open}"
                                );
                            }
                            Ok(())
                        })
                    }
                    Phase::Stopped => Ok(()),
                }
            };
            #[cfg(feature = "signal")]
            let follow =
                (self.common.watches).hear_beside(follow, |within| self.common.end(within));
            match select(noted("order", self.inbox.order(order)), follow).await {
                Either::First(next) => order = Some(next),
                Either::Second(ended) => return ended,
            }
        }
    }

    /// Calls `on_worker`, inside the runtime. When all workers have started, the server serves.
    fn start(&self) -> io::Result<()> {
        let worker = self.inbox.worker;
        if let Some(Hook(on_worker)) = &self.common.settings.on_worker {
            let panicked = |_| Err(io::Error::other("it panicked"));
            let started = panics::catch(|| on_worker(worker)).unwrap_or_else(panicked);
            started.map_err(|error| {
                let text = format!("worker {worker} does not start: {error}");
                io::Error::new(error.kind(), text)
            })?;
        }
        self.inbox.started();
        Ok(())
    }

    /// Takes what is queued, and waits until no connection is left. If the future is dropped, call it
    /// again: it continues.
    async fn drain(&self, listeners: &[(Fd, At)]) -> io::Result<()> {
        // First: a connection that is closed now may make room for one that was queued.
        self.shared.enter(Phase::Draining);
        let resets = fault!("drain_resets_queued_client");
        let tries = if resets { Some(0) } else { QUEUED };
        self.take(listeners, tries).await?;
        // Those that are not in flight close in their next run.
        runtime::yield_now().await;
        let (name, open) = (&self.name, self.shared.tally.live.get());
        log::info!("{name}: connections in flight: {open}");
        noted("connections", self.shared.emptied()).await;
        Ok(())
    }

    // ---- taking connections ----

    /// Takes connections from its listeners and from its inbox, until accepting has ended.
    async fn take(&self, listeners: &[(Fd, At)], tries: Option<u32>) -> io::Result<()> {
        let accepting = async {
            let accept = |listener| -> Boxed<'_> { Box::pin(self.accept(listener, tries)) };
            all(listeners.iter().map(accept).collect()).await?;
            self.inbox.finish();
            Ok(())
        };
        all(vec![Box::pin(accepting), Box::pin(self.receive())]).await
    }

    async fn accept(&self, (fd, at): &(Fd, At), tries: Option<u32>) -> io::Result<()> {
        let drains = tries.is_some();
        // A drain accepts first, and `receive` takes permits afterwards: else a full server would
        // accept no faster than connections end, and the queue would never be empty while clients
        // arrive.
        let no_limit = Arc::new(Permits::new(usize::MAX));
        let permits = match drains {
            true => &no_limit,
            false => &self.common.shared.permits,
        };
        let failed = |why, _| self.not_accepted(why);
        let take = |accepted, permit| {
            let arrival = Arrival {
                accepted,
                listener: at.listener,
            };
            if at.worker.is_some() && !drains {
                return self.begin(arrival, permit);
            }
            let permit = (!drains).then_some(permit);
            let dispatcher = &self.inbox.dispatcher;
            dispatcher.send(arrival, permit, at.worker);
            Ok(())
        };
        let result = accept_each(fd, permits, tries, failed, take).await;
        if drains {
            let _closed_by_an_earlier_drain = fd.close();
        }
        result
    }

    /// Counts an accept that failed.
    fn not_accepted(&self, why: Failed) {
        let tally = &self.shared.tally;
        let counter = match why {
            Failed::NoDescriptor => &tally.no_descriptor,
            Failed::NoMemory => &tally.no_memory,
            Failed::Aborted => &tally.aborted,
            Failed::Otherwise => &tally.not_accepted,
        };
        counter.add(1);
        tally.refused.add(1);
    }

    /// Takes what is in its inbox until accepting has ended.
    async fn receive(&self) -> io::Result<()> {
        loop {
            context::yield_once().await;
            let arrival = self.inbox.arrival(&self.common.shared.permits);
            let Some((arrival, permit)) = arrival.await else {
                return Ok(());
            };
            // An order drops this future. So nothing is awaited before the connection has begun: it would
            // be lost.
            let peer = arrival.accepted.peer.clone();
            if let Err(error) = self.begin(arrival, permit) {
                log::warn!("{peer}: closed before it was served: {error}");
                self.not_accepted(Failed::by(&error));
                if self.shared.phase.get() == Phase::Draining {
                    // The next one would meet the same shortage.
                    time::sleep(SHORTAGE).await;
                }
            }
        }
    }

    /// A connection begins. A factory that panics costs this connection alone.
    fn begin(&self, arrival: Arrival, permit: Permit) -> io::Result<()> {
        let peer = Peer {
            addr: arrival.accepted.peer.clone(),
            listener: arrival.listener,
        };
        let open = |scheduler: &Rc<Scheduler>| arrival.accepted.open(&scheduler.reactor.core);
        let fd = current::with("a server", open)?;
        let make = || {
            let filter = self.common.settings.filter.as_ref();
            let filter = filter.and_then(|Hook(make)| make(&peer));
            (self.factory.make(peer.clone()), filter)
        };
        match panics::catch(make) {
            Ok((protocol, filter)) => {
                let conn = Conn::new(fd, self.shared.clone(), filter);
                let connection = Connection { protocol, conn };
                let place = self.common.settings.place;
                self.shared.spawn(place, Box::new(connection), permit);
            }
            Err(_) => {
                log::error!("{}: closed: the factory panicked", peer.addr);
                self.shared.tally.accepted.add(1);
                self.shared.tally.failed.add(1);
            }
        }
        Ok(())
    }
}

/// When the worker's future is dropped, also by an abort, its connections are stopped. Nothing else
/// would stop them.
impl<F> Drop for WorkerLoop<F> {
    fn drop(&mut self) {
        self.shared.enter(Phase::Stopped);
    }
}

/// Waits until all are done, or the first of them fails.
async fn all(mut futures: Vec<Boxed<'_>>) -> io::Result<()> {
    poll_fn(|cx| {
        let mut result = Ok(());
        futures.retain_mut(|future| match future.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(ended) => {
                result = mem::replace(&mut result, Ok(())).and(ended);
                false
            }
        });
        match result {
            Ok(()) if !futures.is_empty() => Poll::Pending,
            ended => Poll::Ready(ended),
        }
    })
    .await
}
