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
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::common::Common;
use super::dispatch::{Arrival, WorkerInbox};
use super::listeners::{Factory, Peer, Port};
use super::orders::{Follower, Order};
use crate::connection::run::Connection;
use crate::connection::shared::{Phase, WorkerShared};
use crate::net::accept_loop::{Which, accept_each};
use crate::net::fd::Fd;
use crate::runtime::select::{Either, select};
use crate::runtime::{self, context, current, panics};
use crate::time;

/// Where a worker's connections come from.
#[derive(Default)]
pub(crate) struct Incoming {
    pub(crate) ports: Vec<Port>,
    /// Of each worker, where one of them accepts for all.
    pub(crate) inbox: Option<WorkerInbox>,
}

/// A listener in the worker's runtime.
struct Listener {
    fd: Fd,
    number: usize,
    /// Whether what it accepts goes to the worker that has fewest connections, if there are several.
    is_for_all: bool,
}

impl Listener {
    fn open(port: Port) -> io::Result<Self> {
        Ok(Listener {
            fd: Fd::take_in("a server", port.socket, port.network)?,
            number: port.number,
            is_for_all: port.is_for_all,
        })
    }
}

/// One worker.
pub(crate) struct WorkerLoop<F> {
    factory: Arc<F>,
    common: Arc<Common>,
    number: usize,
    /// For log lines.
    name: String,
    inbox: Option<WorkerInbox>,
    /// What its connections share.
    shared: Rc<WorkerShared>,
    #[cfg(feature = "signal")]
    hearing: std::cell::RefCell<super::signals::Hearing>,
}

type Boxed<'a> = Pin<Box<dyn Future<Output = io::Result<()>> + 'a>>;

impl<F: Factory> WorkerLoop<F> {
    /// Serves until a handle ends it, and then until its last connection has ended.
    ///
    /// # Errors
    ///
    /// Those of accepting, where trying again does not help; of a start.
    pub(crate) async fn run(
        factory: Arc<F>,
        common: Arc<Common>,
        number: usize,
        incoming: Incoming,
    ) -> io::Result<()> {
        let make = |scheduler: &_| {
            let (quotas, permits) = (common.quotas.clone(), common.permits.clone());
            let tally = common.tallies[number].clone();
            let remotes = common.remotes.clone();
            WorkerShared::new(scheduler, &common.settings, quotas, tally, permits, remotes)
        };
        let shared = Rc::new(current::with("a server", make));
        // However this future ends, aborted too: nothing else could end its connections.
        let _stops = StopOnDrop(shared.clone());
        let this = WorkerLoop {
            name: format!("{}: worker {number}", common.name()),
            factory,
            common,
            number,
            inbox: incoming.inbox,
            shared,
            #[cfg(feature = "signal")]
            hearing: Default::default(),
        };
        let result = this.serve_and_drain(incoming.ports).await;
        this.shared.stop();
        poll_fn(|cx| this.shared.poll_empty(cx.waker())).await;
        result
    }

    /// Returns when a drain is done or has reached its limit, at an order to stop, or with an error
    /// of accepting. The listeners are closed then.
    async fn serve_and_drain(&self, ports: Vec<Port>) -> io::Result<()> {
        let listeners = ports.into_iter().map(Listener::open);
        let mut listeners: Vec<Listener> = listeners.collect::<io::Result<_>>()?;
        self.common.start(self.number)?;
        // The first order is to serve, once the other workers have started too; or to end.
        let mut orders = self.common.orders.follow();
        let mut order = self.next_order(&mut orders).await;
        while order.phase == Phase::Starting {
            order = self.next_order(&mut orders).await;
        }
        while order.phase == Phase::Serving {
            let serve = async {
                self.take(&listeners, Which::All).await?;
                // Nothing more is accepted. The connections that are served go on.
                pending().await
            };
            order = match select(self.next_order(&mut orders), serve).await {
                Either::First(order) => order,
                Either::Second(failed) => return failed,
            };
        }
        let mut deadline = time::after(time::now(), Duration::MAX);
        while order.phase == Phase::Draining {
            let now = time::now();
            deadline = deadline.min(time::after(now, order.limit));
            let drained = time::timeout(deadline - now, self.drain(&mut listeners));
            order = match select(self.next_order(&mut orders), drained).await {
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

    async fn next_order(&self, orders: &mut Follower<'_>) -> Order {
        let order = orders.changed().await;
        #[cfg(feature = "signal")]
        {
            let common = self.common.clone();
            let end = move |signals_before, limit| match signals_before {
                0 => common.drain(limit),
                _ => common.stop(),
            };
            self.hearing.borrow_mut().follow(&self.common.watches, end);
        }
        order
    }

    /// Takes what is queued, and waits until no connection is left. Dropped and called again, it
    /// goes on where it was.
    async fn drain(&self, listeners: &mut Vec<Listener>) -> io::Result<()> {
        // First: a connection that is closed now may make room for one that is queued.
        self.shared.begin_drain();
        if !fault!("drain_resets_queued_client") {
            self.take(listeners, Which::Queued).await?;
        }
        listeners.clear();
        // Those that are not in flight close in their next run.
        runtime::yield_now().await;
        let (name, open) = (&self.name, self.live());
        log::info!("{name}: waits for {open} connections in flight");
        poll_fn(|cx| self.shared.poll_empty(cx.waker())).await;
        Ok(())
    }

    // ---- taking connections ----

    /// Takes connections from everywhere, until accepting has ended.
    async fn take(&self, listeners: &[Listener], which: Which) -> io::Result<()> {
        let inbox = self.inbox.as_ref();
        let accepting = async {
            let accept = |listener| -> Boxed<'_> { Box::pin(self.accept(listener, which)) };
            all(listeners.iter().map(accept).collect()).await?;
            if let Some(inbox) = inbox.filter(|_| self.number == 0) {
                inbox.dispatcher.finish();
            }
            Ok(())
        };
        let receiving = async {
            match inbox {
                Some(inbox) => self.receive(inbox).await,
                None => Ok(()),
            }
        };
        all(vec![Box::pin(accepting), Box::pin(receiving)]).await
    }

    async fn accept(&self, listener: &Listener, which: Which) -> io::Result<()> {
        let for_all = self.inbox.as_ref().filter(|_| listener.is_for_all);
        let put_off = |_| self.shared.tally.refused.add(1);
        let take = |accepted| {
            let arrival = Arrival {
                accepted,
                listener: listener.number,
            };
            match for_all {
                None => self.begin(arrival),
                Some(inbox) => {
                    let sent = inbox.dispatcher.send(arrival);
                    sent.map_err(|_| io::Error::other("no worker is left"))
                }
            }
        };
        accept_each(&listener.fd, &self.common.permits, which, put_off, take).await
    }

    /// Takes what is handed over until accepting has ended.
    async fn receive(&self, inbox: &WorkerInbox) -> io::Result<()> {
        loop {
            context::yield_once().await;
            let Some(arrival) = poll_fn(|cx| inbox.poll_next(cx.waker())).await else {
                return Ok(());
            };
            // An order drops this future: from here on nothing is awaited, or the connection that
            // was taken would be lost.
            let peer = arrival.accepted.peer.clone();
            if let Err(error) = self.begin(arrival) {
                log::warn!("{peer}: closed before it was served: {error}");
                self.shared.tally.refused.add(1);
            }
        }
    }

    /// A connection begins. A factory that panics costs this connection alone.
    fn begin(&self, Arrival { accepted, listener }: Arrival) -> io::Result<()> {
        let opened = current::with("a server", |scheduler| {
            accepted.open(scheduler.reactor.core())
        });
        let (fd, addr, permit) = opened?;
        let peer = Peer {
            addr: addr.clone(),
            listener,
        };
        let make = || {
            let filter = self.common.filter.as_ref().map(|make| make.0(&peer));
            let filter = filter.filter(|filter| !filter.passes_all());
            (self.factory.make(peer), filter)
        };
        match panics::catch(make) {
            Ok((protocol, filter)) => {
                let connection = Connection::new(fd, self.shared.clone(), protocol, filter);
                self.shared.spawn(Box::new(connection), permit);
            }
            Err(_) => {
                log::error!("{addr}: closed: the factory panicked");
                self.shared.tally.accepted.add(1);
                self.shared.tally.failed.add(1);
            }
        }
        Ok(())
    }

    fn live(&self) -> u64 {
        self.shared.tally.live.get()
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
async fn all(mut futures: Vec<Boxed<'_>>) -> io::Result<()> {
    poll_fn(|cx| {
        let mut failed = None;
        futures.retain_mut(|future| match future.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(ended) => {
                failed = failed.take().or(ended.err());
                false
            }
        });
        match failed {
            Some(error) => Poll::Ready(Err(error)),
            None if futures.is_empty() => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    })
    .await
}
