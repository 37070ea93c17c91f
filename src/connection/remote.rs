//! Writing to a connection from any thread, by its id.
//!
//! What other threads leave is kept under a lock. A job on the connection's own thread marks it and
//! wakes it, at once if that is this thread; its next run takes in what was left, as it does with the
//! mail of its handles.

// Go has no counterpart: there, any goroutine writes to a `net.Conn`.

use std::collections::HashMap;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::{direction_ended, over_limit};
use super::limits::Quotas;
use super::out_queue::OutQueue;
use super::state::{ATTEND, Takes};
use crate::endpoints::{Addr, End};
use crate::net::Cause;
use crate::net::OpError;
use crate::net::fd::Fd;
use crate::reactor::Token;
use crate::runtime::machine::MachineId;
use crate::runtime::{Handle, context};

/// What others have left for a connection, until it runs: its handles, or other threads.
#[derive(Debug, Default)]
pub(super) struct Inbox<Q> {
    pub(super) queue: Q,
    /// How long that is. It is charged to the limit over all.
    pub(super) bytes: usize,
    /// What waits in the connection's own queue, as it was noted last.
    pub(super) queued: usize,
    /// Another thread asked for a close.
    pub(super) closes: bool,
    pub(super) takes: Takes,
    /// A write met the limit of the connection, which ends by it.
    pub(super) over: Option<io::Error>,
}

impl<Q: Default> Inbox<Q> {
    /// Whether there is nothing for the connection to look at.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0 && !self.closes && self.over.is_none()
    }

    /// Leaves `more` bytes: `push` puts them into the queue.
    pub(super) fn leave(
        &mut self,
        more: usize,
        quotas: &Quotas,
        error: impl Fn(Cause) -> io::Error,
        push: impl FnOnce(&mut Q),
    ) -> io::Result<()> {
        match self.takes {
            Takes::Open if more == 0 => return Ok(()),
            Takes::Open => {}
            Takes::Ended => return Err(direction_ended()),
            Takes::Closed => return Err(error(Cause::Closed)),
        }
        let waiting = self.bytes + self.queued;
        if waiting.saturating_add(more) > quotas.limits.most_queued {
            self.over = Some(error(over_limit("most_queued")));
            self.end();
            return Err(error(over_limit("most_queued")));
        }
        if !quotas.queued.charge(more) {
            return Err(error(over_limit("most_queued_in_all")));
        }
        self.bytes += more;
        push(&mut self.queue);
        Ok(())
    }

    /// Takes out what was left, but for a close: what a running callback writes still goes before it.
    pub(super) fn take(&mut self) -> Self {
        let kept = Inbox {
            // It goes into the connection's queue, whose length is noted later: meanwhile it counts.
            queued: self.queued + self.bytes,
            closes: self.closes,
            takes: self.takes,
            ..Inbox::default()
        };
        mem::replace(self, kept)
    }

    /// The connection takes nothing more.
    pub(super) fn end(&mut self) {
        self.takes = self.takes.max(Takes::Ended);
    }

    /// The connection is closed. Returns how many bytes are left.
    pub(super) fn close(&mut self) -> usize {
        let takes = Takes::Closed;
        let left = mem::replace(
            self,
            Inbox {
                takes,
                ..Inbox::default()
            },
        );
        left.bytes
    }
}

/// Names a connection of a server, for any thread: see [`Conn::id`](crate::Conn::id).
///
/// It names this connection alone, and none that comes later.
///
/// ```
/// use netpoller::{Conn, ConnId, Protocol};
/// use std::io;
/// use std::sync::mpsc::Sender;
///
/// /// Tells a thread which connections there are. That one writes with `ServerHandle::write`.
/// struct Member(Sender<ConnId>);
///
/// impl Protocol for Member {
///     fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
///         self.0.send(conn.id()).map_err(io::Error::other)
///     }
///     fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
///         Ok(bytes.len())
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// Counts the servers of this process.
    server: u64,
    /// Counts the connections that were asked for their id.
    connection: u64,
}

const _: () = assert!(size_of::<ConnId>() == 16);

/// The connections of a server that were asked for their id, on all its workers.
#[derive(Debug)]
pub(crate) struct Remotes {
    server: u64,
    asked: AtomicU64,
    live: Mutex<HashMap<ConnId, Arc<RemoteConn>>>,
    quotas: Arc<Quotas>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code of others runs under these locks, so that a poisoned one is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Remotes {
    pub(crate) fn new(quotas: Arc<Quotas>) -> Arc<Self> {
        static SERVERS: AtomicU64 = AtomicU64::new(0);
        Arc::new(Remotes {
            server: SERVERS.fetch_add(1, Ordering::Relaxed),
            asked: AtomicU64::new(0),
            live: Mutex::default(),
            quotas,
        })
    }

    /// Queues bytes for a connection, from any thread.
    ///
    /// # Errors
    ///
    /// As of [`ConnHandle::write`](crate::ConnHandle::write). The id is of no connection that lives.
    pub(crate) fn write(&self, id: ConnId, bytes: &Arc<[u8]>) -> io::Result<()> {
        let conn = self.find(id, "write")?;
        let error = |cause| conn.error("write", cause);
        let push = |queue: &mut OutQueue<_>| queue.push_shared(bytes.clone());
        conn.change(|inbox| inbox.leave(bytes.len(), &self.quotas, error, push))
    }

    /// Closes a connection once all is written, from any thread.
    ///
    /// # Errors
    ///
    /// The id is of no connection that lives.
    pub(crate) fn close(&self, id: ConnId) -> io::Result<()> {
        let conn = self.find(id, "close")?;
        conn.change(|inbox| match inbox.takes {
            Takes::Closed => Err(conn.error("close", Cause::Closed)),
            Takes::Open | Takes::Ended => {
                inbox.end();
                inbox.closes = true;
                Ok(())
            }
        })
    }

    fn find(&self, id: ConnId, op: &'static str) -> io::Result<Arc<RemoteConn>> {
        let found = lock(&self.live).get(&id).cloned();
        found.ok_or_else(|| OpError::new(op, "tcp", None, Cause::Closed).into())
    }

    /// Enters the connection whose callback runs.
    pub(super) fn enter(&self, fd: &Fd, inbox: Inbox<OutQueue<Arc<[u8]>>>) -> Arc<RemoteConn> {
        let id = ConnId {
            server: self.server,
            connection: self.asked.fetch_add(1, Ordering::Relaxed),
        };
        let conn = Arc::new(RemoteConn {
            id,
            thread: Handle::current(),
            machine: context::running_machine(),
            token: fd.desc.token(),
            net: fd.network().name(),
            ends: [fd.endpoint(End::Local), fd.endpoint(End::Peer)],
            inbox: Mutex::new(inbox),
        });
        lock(&self.live).insert(id, conn.clone());
        conn
    }

    /// The connection is closed.
    pub(super) fn leave(&self, conn: &RemoteConn) {
        lock(&self.live).remove(&conn.id);
        self.quotas.queued.give_back(lock(&conn.inbox).close());
    }
}

/// What other threads see of a connection.
#[derive(Debug)]
pub(super) struct RemoteConn {
    pub(super) id: ConnId,
    /// The runtime of its worker.
    thread: Handle,
    machine: MachineId,
    token: Token,
    /// For the names in errors.
    net: &'static str,
    ends: [Option<Addr>; 2],
    pub(super) inbox: Mutex<Inbox<OutQueue<Arc<[u8]>>>>,
}

impl RemoteConn {
    fn error(&self, op: &'static str, cause: Cause) -> io::Error {
        let [source, addr] = self.ends.clone();
        let mut error = OpError::new(op, self.net, addr, cause);
        error.source = source;
        error.into()
    }

    /// Changes what is left for the connection. If there was nothing before, tells its thread.
    fn change<R>(&self, change: impl FnOnce(&mut Inbox<OutQueue<Arc<[u8]>>>) -> R) -> R {
        let mut inbox = lock(&self.inbox);
        let was_empty = inbox.is_empty();
        let changed = change(&mut inbox);
        if was_empty && !inbox.is_empty() {
            let (token, machine) = (self.token, self.machine);
            // A runtime that is gone has closed the connection, or is about to.
            self.thread.tell(move |scheduler| {
                if let Some(desc) = scheduler.reactor.core().by_key(token.key())
                    && desc.token() == token
                {
                    let note = &desc.user_data.note;
                    note.set(note.get() | ATTEND);
                    scheduler.wake(machine);
                }
            });
        }
        changed
    }
}
