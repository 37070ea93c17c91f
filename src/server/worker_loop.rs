//! One worker's life: it takes connections as they come, and sees them to their end.
//!
//! May touch: accept.rs, hand_over.rs. Mirrors `Server.Serve` and `Server.Shutdown` in Go's
//! `net/http/server.go`.
//!
//! ```text
//!   take connections: from its own listener, or from its seat
//!        │ an order: drain
//!        ▼
//!   take what is queued ─► close the listener ─► wait until none is left ─► done
//!        │ an order: stop          │                        │ the limit
//!        └─────────────────────────┴────────────► end them all, and wait
//! ```

use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use super::accept::{Accepting, Sink};
use super::dispatch::{Handed, Roster, Seat};
use super::orders::{Control, Order};
use crate::connection::protocol::Protocol;
use crate::connection::run::Connection;
use crate::connection::stats::add;
use crate::connection::worker::Worker;
use crate::endpoints::{Addr, End, Network};
use crate::net::TcpListener;
use crate::net::accept_loop::Permit;
use crate::net::fd::Fd;
use crate::runtime::{JoinHandle, context, spawn};
use crate::time;

/// Where a worker's connections come from.
pub(crate) enum Source {
    /// A listener of its own; several, where one serves in place of all.
    Own(Vec<StdListener>),
    /// Handed over by whoever accepts: by this one itself, if it has the listener.
    Handed(Seat, Option<(StdListener, Arc<Roster>)>),
}

/// The same, in its runtime.
enum Intake {
    Own(Vec<TcpListener>),
    Handed(Seat),
}

impl<F, P> Accepting<F>
where
    F: Fn(SocketAddr) -> P + Send + Sync + 'static,
    P: Protocol,
{
    pub(crate) async fn serve(self, source: Source) -> io::Result<()> {
        let mut acceptor = None;
        let intake = match source {
            Source::Own(listeners) => {
                let listeners = listeners.into_iter().map(TcpListener::from_std);
                Intake::Own(listeners.collect::<io::Result<_>>()?)
            }
            Source::Handed(seat, None) => Intake::Handed(seat),
            Source::Handed(seat, Some((listener, roster))) => {
                let listener = TcpListener::from_std(listener)?;
                acceptor = Some(self.accept_for_all(listener, roster));
                Intake::Handed(seat)
            }
        };
        let make = |scheduler: &_| self.worker_in(scheduler);
        let worker = Rc::new(context::with("a server", make));
        let _all_end = StopsWorker(worker.clone());

        let mut order = Order::Serve;
        let mut accepted = self.take_in(&intake, &worker, &mut order, None).await;
        if accepted.is_err() {
            order = Order::Stop;
        }
        if let Order::Drain(limit) = order {
            let deadline = Some(time::after(time::now(), limit));
            // At once: who is idle may have the place of somebody who is queued.
            worker.drain(self.server.settings.grace.min(limit));
            let _ = self.take_in(&intake, &worker, &mut order, deadline).await;
            drop(intake);
            self.wait_for_the_end(&worker, &mut order, deadline).await;
        } else {
            drop(intake);
        }
        worker.stop();
        self.wait_for_the_end(&worker, &mut Order::Stop, None).await;
        if let Some(acceptor) = acceptor {
            let ended = acceptor.await.map_err(io::Error::other);
            accepted = accepted.and(ended.and_then(|ended| ended));
        }
        accepted
    }

    /// Takes connections until another order comes; until `queued`, only those that wait already.
    async fn take_in(
        &self,
        intake: &Intake,
        worker: &Rc<Worker>,
        order: &mut Order,
        queued: Option<Instant>,
    ) -> io::Result<()> {
        let seat = match intake {
            Intake::Own(listeners) => {
                return self.accept_from(listeners, worker, order, queued).await;
            }
            Intake::Handed(seat) => seat,
        };
        loop {
            let next = poll_fn(|cx| {
                ready!(context::poll_budget(cx.waker()));
                seat.poll_next(cx.waker())
            });
            // Serving, it waits for an order even where nothing more can come.
            let limit = queued.map_or(Duration::MAX, until);
            let next = self.unless_ordered(time::timeout(limit, next), *order, false);
            match next.await {
                Ok(Some(Ok(Some(handed)))) => {
                    self.welcome(handed, worker);
                    seat.served();
                }
                Ok(_) if queued.is_some() => return Ok(()),
                Ok(_) => {
                    let never = std::future::pending::<()>();
                    if let Err(next) = self.unless_ordered(never, *order, false).await {
                        *order = next;
                    }
                    return Ok(());
                }
                Err(next) => {
                    *order = next;
                    return Ok(());
                }
            }
        }
    }

    /// Accepts from each listener, until that is over for all of them or one fails.
    async fn accept_from(
        &self,
        listeners: &[TcpListener],
        worker: &Rc<Worker>,
        order: &mut Order,
        queued: Option<Instant>,
    ) -> io::Result<()> {
        let sink = Sink::Worker(worker);
        let (first, others) = listeners.split_first().expect("a server listens");
        if others.is_empty() {
            return self.accept(first, &sink, order, queued).await;
        }
        let mut orders = vec![*order; listeners.len()];
        let each = listeners.iter().zip(&mut orders);
        let mut under_way: Vec<_> = each
            .map(|(listener, order)| Box::pin(self.accept(listener, &sink, order, queued)))
            .collect();
        let ended = poll_fn(|cx| {
            let mut failed = None;
            under_way.retain_mut(|accepting| match accepting.as_mut().poll(cx) {
                Poll::Pending => true,
                Poll::Ready(ended) => {
                    failed = failed.take().or(ended.err());
                    false
                }
            });
            match failed {
                Some(error) => Poll::Ready(Err(error)),
                None if under_way.is_empty() => Poll::Ready(Ok(())),
                None => Poll::Pending,
            }
        });
        let ended = ended.await;
        drop(under_way);
        // It ended them all; a later one is found by whoever waits next.
        *order = orders[0];
        ended
    }

    /// Takes in a connection that came from another thread.
    fn welcome(&self, handed: Handed, worker: &Rc<Worker>) {
        let (peer, permit) = (handed.peer, handed.permit);
        let open = |scheduler: &_| Fd::open(scheduler, handed.socket, Network::Tcp);
        match context::with("a server", open) {
            Ok(fd) => {
                fd.resource().set_endpoint(End::Peer, Addr::Socket(peer));
                self.begin(permit, fd, peer, worker);
            }
            Err(error) => {
                log::warn!("a connection from {peer} is given up: {error}");
                add(&self.tally.refused, 1);
            }
        }
    }

    /// A connection begins. A factory that panics is one connection's misfortune.
    pub(crate) fn begin(&self, permit: Permit, fd: Fd, peer: SocketAddr, worker: &Rc<Worker>) {
        let make = AssertUnwindSafe(|| (self.server.factory)(peer));
        match panic::catch_unwind(make) {
            Ok(protocol) => {
                let connection = Connection::new(fd, worker.clone(), protocol);
                worker.spawn(Box::new(connection), permit);
            }
            Err(_) => {
                log::error!("the factory panicked for a connection from {peer}");
                add(&self.tally.accepted, 1);
                add(&self.tally.failed, 1);
            }
        }
    }

    /// Accepts for all workers, beside what this one serves.
    fn accept_for_all(
        &self,
        listener: TcpListener,
        roster: Arc<Roster>,
    ) -> JoinHandle<io::Result<()>> {
        let accepting = Accepting {
            worker: self.control.tallies.len(),
            ..self.clone()
        };
        spawn(async move {
            let mut door = Door {
                roster: roster.clone(),
                control: accepting.control.clone(),
                closed_by_order: false,
            };
            let sink = Sink::Roster(&roster);
            let mut order = Order::Serve;
            accepting.accept(&listener, &sink, &mut order, None).await?;
            door.closed_by_order = true;
            if let Order::Drain(limit) = order {
                let deadline = Some(time::after(time::now(), limit));
                let _ = accepting
                    .accept(&listener, &sink, &mut order, deadline)
                    .await;
            }
            Ok(())
        })
    }

    /// Until no connection is left, the deadline passes or another order comes.
    async fn wait_for_the_end(
        &self,
        worker: &Worker,
        order: &mut Order,
        deadline: Option<Instant>,
    ) {
        let empty = poll_fn(|cx| worker.poll_empty(cx.waker()));
        let Some(deadline) = deadline else {
            return empty.await;
        };
        let ended = self.unless_ordered(time::timeout(until(deadline), empty), *order, false);
        if let Err(next) = ended.await {
            *order = next;
        }
    }
}

/// However a worker's task ends, aborted too: nobody could end its connections any more.
struct StopsWorker(Rc<Worker>);

impl Drop for StopsWorker {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// However accepting for all ends, nobody waits for more; and if it was not by an order, all stop.
struct Door {
    roster: Arc<Roster>,
    control: Arc<Control>,
    closed_by_order: bool,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.roster.finish();
        if !self.closed_by_order {
            self.control.give(Order::Stop);
        }
    }
}

pub(crate) fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(time::now())
}
