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
use crate::connection::allowance::Account;
use crate::connection::protocol::Protocol;
use crate::connection::stats::{Tally, add};
use crate::connection::worker::Worker;
use crate::endpoints::Addr;
use crate::net::TcpListener;
use crate::net::accept_loop::{self, AcceptLoop, Accepted, Episode, Permits};
use crate::net::fd::Fd;
use crate::runtime::scheduler::Scheduler;

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
        let mut accepting = AcceptLoop::new(self.permits.clone());
        let mut taking = Taking {
            accepting: self,
            sink,
        };
        let known = *order;
        let ended = match queued {
            None => {
                let run = accepting.run(listener, &mut taking);
                self.unless_ordered(run, known, false).await
            }
            Some(limit) => {
                let run = accepting.run_queued(listener, &mut taking, limit);
                self.unless_ordered(run, known, false).await
            }
        };
        match ended {
            Ok(ended) => ended.unwrap_or(Ok(())),
            Err(next) => {
                *order = next;
                Ok(())
            }
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

/// Passes on what one listener accepts.
struct Taking<'a, F> {
    accepting: &'a Accepting<F>,
    sink: &'a Sink<'a>,
}

impl<F, P> accept_loop::Sink for Taking<'_, F>
where
    F: Fn(SocketAddr) -> P + Send + Sync + 'static,
    P: Protocol,
{
    fn take(&mut self, listener: &Fd, accepted: Accepted) -> io::Result<()> {
        let Addr::Socket(peer) = accepted.peer else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        match self.sink {
            Sink::Worker(worker) => {
                let fd = listener.open_accepted(accepted.socket, accepted.peer)?;
                self.accepting.begin(accepted.permit, fd, peer, worker);
                Ok(())
            }
            Sink::Roster(roster) => {
                let handed = Handed {
                    socket: accepted.socket,
                    peer,
                    permit: accepted.permit,
                };
                roster.hand_over(handed).map_err(|handed| {
                    log::error!("nobody is left to serve {}", handed.peer);
                    io::Error::other("no worker is left")
                })
            }
        }
    }

    fn put_off(&mut self, _episode: Episode) {
        add(&self.accepting.tally.refused, 1);
    }
}
