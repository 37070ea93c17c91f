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

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::Arc;
use std::task::ready;
use std::time::{Duration, Instant};

use super::accept::{Accepting, Sink};
use super::control::{Control, Order};
use super::hand_over::{Handed, Roster, Seat};
use super::permits::Permit;
use super::protocol::Protocol;
use super::run::Connection;
use super::stats::add;
use super::worker::Worker;
use crate::endpoints::{Addr, End, Network};
use crate::net::TcpListener;
use crate::net::fd::Fd;
use crate::runtime::{JoinHandle, context, spawn};
use crate::time;

/// Where a worker's connections come from.
pub(super) enum Source {
    /// A listener of its own.
    Own(StdListener),
    /// Handed over by whoever accepts: by this one itself, if it has the listener.
    Handed(Seat, Option<(StdListener, Arc<Roster>)>),
}

/// The same, in its runtime.
enum Intake {
    Own(TcpListener),
    Handed(Seat),
}

impl<F, P> Accepting<F>
where
    F: Fn(SocketAddr) -> P + Send + Sync + 'static,
    P: Protocol,
{
    pub(super) async fn serve(self, source: Source) -> io::Result<()> {
        let mut acceptor = None;
        let intake = match source {
            Source::Own(listener) => Intake::Own(TcpListener::from_std(listener)?),
            Source::Handed(seat, None) => Intake::Handed(seat),
            Source::Handed(seat, Some((listener, roster))) => {
                let listener = TcpListener::from_std(listener)?;
                acceptor = Some(self.accept_for_all(listener, roster));
                Intake::Handed(seat)
            }
        };
        let make = |scheduler: &_| self.worker_in(scheduler);
        let worker = Rc::new(context::with("a server", make));

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
            Intake::Own(listener) => {
                let sink = Sink::Worker(worker);
                return self.accept(listener, &sink, order, queued).await;
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
    pub(super) fn begin(&self, permit: Permit, fd: Fd, peer: SocketAddr, worker: &Rc<Worker>) {
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

pub(super) fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(time::now())
}
