//! One worker's accepting, and its end.
//!
//! May touch: net's listeners. Mirrors the loop of `Server.Serve`, and `Server.Shutdown`, in Go's
//! `net/http/server.go`.
//!
//! ```text
//!   accept, with a permit ◄─► wait for a permit, or for a shortage to pass
//!        │ an order: drain
//!        ▼
//!   accept what is queued ─► close the listener ─► wait until none is left ─► done
//!        │ an order: stop          │                        │ the limit
//!        └─────────────────────────┴────────────► end them all, and wait
//! ```

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::allowance::Account;
use super::bound::{Control, Order};
use super::permits::{Permit, Permits};
use super::protocol::Protocol;
use super::run::Connection;
use super::server::Server;
use super::stats::{Tally, add};
use super::worker::Worker;
use crate::net::serve::{Shortage, may_pass};
use crate::net::{NetError, TcpListener};
use crate::runtime::context;
use crate::runtime::shortage::UntilClosed;
use crate::time;

/// What a worker needs to know.
pub(super) struct Accepting<F> {
    pub(super) server: Server<F>,
    pub(super) permits: Arc<Permits>,
    pub(super) account: Option<Arc<Account>>,
    pub(super) control: Arc<Control>,
    pub(super) tally: Arc<Tally>,
    pub(super) worker: usize,
}

impl<F, P> Accepting<F>
where
    F: Fn(SocketAddr) -> P + Send + Sync + 'static,
    P: Protocol,
{
    pub(super) async fn serve(self, listener: std::net::TcpListener) -> io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        let settings = &self.server.settings;
        let (tally, permits) = (self.tally.clone(), self.permits.clone());
        let account = self.account.clone();
        let make = |scheduler: &_| Worker::new(scheduler, settings, account, tally, permits);
        let worker = Rc::new(context::with("a server", make));

        let mut order = Order::Serve;
        let accepted = self.accept(&listener, &worker, &mut order, None).await;
        if accepted.is_err() {
            order = Order::Stop;
        }
        if let Order::Drain(limit) = order {
            let deadline = time::now() + limit;
            let _ = self
                .accept(&listener, &worker, &mut order, Some(deadline))
                .await;
            let _ = listener.close();
            worker.drain(settings.grace.min(limit));
            self.wait_for_the_end(&worker, &mut order, Some(deadline))
                .await;
        }
        let _ = listener.close();
        worker.stop();
        self.wait_for_the_end(&worker, &mut Order::Stop, None).await;
        accepted
    }

    /// Accepts until another order comes; until `queued`, only what waits already.
    async fn accept(
        &self,
        listener: &TcpListener,
        worker: &Rc<Worker>,
        order: &mut Order,
        queued: Option<Instant>,
    ) -> io::Result<()> {
        let mut shortage = Shortage::default();
        let mut held: Option<Permit> = None;
        loop {
            let start = |permit: Permit, fd, peer| {
                let protocol = (self.server.factory)(peer);
                let connection = Connection::new(fd, worker.clone(), protocol);
                worker.spawn(Box::new(connection), permit);
            };
            let mut permit = || held.take().or_else(|| self.permits.take());
            let accept = listener.accept_fd(&mut permit, start);
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

    /// What `wanted` gives, or the order that comes meanwhile. `None` if it would have to wait,
    /// and is not to.
    async fn unless_ordered<T>(
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

fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(time::now())
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
