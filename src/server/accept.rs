//! Accepting, through shortages and up to a limit, for one worker or for all.
//!
//! May touch: net's listeners, hand_over.rs. Mirrors the loop of `Server.Serve` in Go's
//! `net/http/server.go`.
//!
//! ```text
//!   accept, with a permit ──► begin, or hand over
//!        ▲  │ no permit, or a shortage
//!        │  ▼
//!   wait for one, or until it has passed          (an order ends it, wherever it is)
//! ```

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use super::builder::Server;
use super::dispatch::{Handed, Roster};
use super::orders::{Control, Order};
use super::worker_loop::until;
use crate::connection::allowance::Account;
use crate::connection::permits::{Permit, Permits};
use crate::connection::protocol::Protocol;
use crate::connection::stats::{Tally, add};
use crate::connection::worker::Worker;
use crate::endpoints::{Addr, End};
use crate::net::fd::Fd;
use crate::net::serve::{Shortage, may_pass};
use crate::net::{NetError, TcpListener};
use crate::runtime::scheduler::Scheduler;
use crate::runtime::shortage::UntilClosed;
use crate::time;

/// Who gets what is accepted.
pub(crate) enum Sink<'a> {
    Worker(&'a Rc<Worker>),
    Roster(&'a Roster),
}

/// What a worker needs to know.
pub(crate) struct Accepting<F> {
    pub(crate) server: Server<F>,
    pub(crate) permits: Arc<Permits>,
    pub(crate) account: Option<Arc<Account>>,
    pub(crate) control: Arc<Control>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) worker: usize,
}

impl<F> Clone for Accepting<F> {
    fn clone(&self) -> Self {
        Accepting {
            server: self.server.clone(),
            permits: self.permits.clone(),
            account: self.account.clone(),
            control: self.control.clone(),
            tally: self.tally.clone(),
            worker: self.worker,
        }
    }
}

impl<F, P> Accepting<F>
where
    F: Fn(SocketAddr) -> P + Send + Sync + 'static,
    P: Protocol,
{
    pub(crate) fn worker_in(&self, scheduler: &Rc<Scheduler>) -> Worker {
        Worker::new(
            scheduler,
            &self.server.settings,
            self.account.clone(),
            self.tally.clone(),
            self.permits.clone(),
        )
    }

    /// Accepts until another order comes; until `queued`, only what waits already.
    pub(crate) async fn accept(
        &self,
        listener: &TcpListener,
        sink: &Sink<'_>,
        order: &mut Order,
        queued: Option<Instant>,
    ) -> io::Result<()> {
        let mut shortage = Shortage::default();
        let mut held: Option<Permit> = None;
        loop {
            let mut permit = || held.take().or_else(|| self.permits.take());
            let take = |listener: &Fd, permit, socket, peer| {
                let handed = Handed {
                    socket,
                    peer,
                    permit,
                };
                self.take(sink, listener, handed)
            };
            let accept = listener.accept_socket(&mut permit, take);
            let only_queued = queued.is_some();
            let accepted = match self.unless_ordered(accept, *order, only_queued).await {
                Ok(Some(accepted)) => accepted,
                Ok(None) => return Ok(()),
                Err(next) => {
                    *order = next;
                    return Ok(());
                }
            };
            let error = match accepted {
                Ok(()) => {
                    shortage.over();
                    continue;
                }
                Err(error) => error,
            };
            if error.kind() == io::ErrorKind::ResourceBusy {
                let room = self.permits.wait();
                let Some(limit) = queued else {
                    match self.unless_ordered(room, *order, false).await {
                        Ok(permit) => held = permit,
                        Err(next) => {
                            *order = next;
                            return Ok(());
                        }
                    }
                    continue;
                };
                let limited = time::timeout(until(limit), room);
                match self.unless_ordered(limited, *order, false).await {
                    Ok(Some(Ok(permit))) => held = Some(permit),
                    _ => return Ok(()),
                }
                continue;
            }
            if !may_pass(&error) || error.is_closed() {
                return Err(error);
            }
            add(&self.tally.refused, 1);
            let (wait, _) = shortage.again(&error);
            let waited = either(time::sleep(wait), UntilClosed::default());
            if let Err(next) = self.unless_ordered(waited, *order, false).await {
                *order = next;
                return Ok(());
            }
        }
    }

    fn take(&self, sink: &Sink<'_>, listener: &Fd, handed: Handed) -> io::Result<()> {
        match sink {
            Sink::Worker(worker) => {
                let peer = handed.peer;
                let fd = listener.open_beside(handed.socket, listener.network())?;
                fd.resource().set_endpoint(End::Peer, Addr::Socket(peer));
                self.begin(handed.permit, fd, peer, worker);
                Ok(())
            }
            Sink::Roster(roster) => roster.hand_over(handed).map_err(|handed| {
                log::error!("nobody is left to serve {}", handed.peer);
                io::Error::other("no worker is left")
            }),
        }
    }

    /// What `wanted` gives, or the order that comes meanwhile. `None` if it would have to wait,
    /// and is not to.
    pub(crate) async fn unless_ordered<T>(
        &self,
        wanted: impl Future<Output = T>,
        known: Order,
        at_once: bool,
    ) -> Result<Option<T>, Order> {
        let mut wanted = pin!(wanted);
        let mut yielded = false;
        poll_fn(|cx| {
            if let Poll::Ready(order) = self.control.poll_order(self.worker, known, cx.waker()) {
                return Poll::Ready(Err(order));
            }
            match wanted.as_mut().poll(cx) {
                Poll::Ready(wanted) => Poll::Ready(Ok(Some(wanted))),
                // Once round, for its budget may be what it lacks.
                Poll::Pending if at_once && std::mem::replace(&mut yielded, true) => {
                    Poll::Ready(Ok(None))
                }
                Poll::Pending => {
                    if at_once {
                        cx.waker().wake_by_ref();
                    }
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// Until one of both is done.
async fn either(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|cx| {
        let done = one.as_mut().poll(cx).is_ready() || other.as_mut().poll(cx).is_ready();
        if done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
