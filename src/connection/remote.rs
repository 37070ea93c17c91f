//! Writing to a connection from any thread, by its id.
//!
//! What other threads leave is kept under a lock. A job on the connection's own thread marks it and
//! wakes it, at once if that is this thread; its next run takes in what was left, as it does with the
//! mail of its handles.

// Go has no counterpart: there, any goroutine writes to a `net.Conn`.

use std::collections::HashMap;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::{direction_ended, over_limit};
use super::limits::{Limits, Quotas};
use super::state::{ATTEND, Asked, Takes};
use crate::endpoints::{Addr, End};
use crate::net::Cause;
use crate::net::OpError;
use crate::net::fd::Fd;
use crate::reactor::Token;
use crate::runtime::machine::MachineId;
use crate::runtime::{Handle, context};

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
    most_queued: usize,
    quotas: Arc<Quotas>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code of others runs under these locks, so that a poisoned one is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Remotes {
    pub(crate) fn new(limits: &Limits, quotas: Arc<Quotas>) -> Arc<Self> {
        static SERVERS: AtomicU64 = AtomicU64::new(0);
        Arc::new(Remotes {
            server: SERVERS.fetch_add(1, Ordering::Relaxed),
            asked: AtomicU64::new(0),
            live: Mutex::default(),
            most_queued: limits.most_queued,
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
        let mut left = lock(&conn.left);
        match left.takes {
            Takes::Open => {}
            Takes::Ended => return Err(direction_ended()),
            Takes::Closed => return Err(conn.error("write", Cause::Closed)),
        }
        let waiting = left.bytes + conn.queued.load(Ordering::Relaxed);
        let quota = &self.quotas.queued;
        if waiting.saturating_add(bytes.len()) > self.most_queued {
            let cause = || over_limit("most_queued", self.most_queued, waiting, bytes.len());
            left.over = Some(conn.error("write", cause()));
            left.takes = Takes::Ended;
            conn.deliver(&mut left);
            return Err(conn.error("write", cause()));
        }
        if !quota.charge(bytes.len()) {
            let limit = "most_queued_in_all";
            let cause = over_limit(limit, quota.limit(), quota.used(), bytes.len());
            return Err(conn.error("write", cause));
        }
        if !bytes.is_empty() {
            left.bytes += bytes.len();
            left.pieces.push(bytes.clone());
            conn.deliver(&mut left);
        }
        Ok(())
    }

    /// Closes a connection once all is written, from any thread.
    ///
    /// # Errors
    ///
    /// The id is of no connection that lives.
    pub(crate) fn close(&self, id: ConnId) -> io::Result<()> {
        let conn = self.find(id, "close")?;
        let mut left = lock(&conn.left);
        if left.takes == Takes::Closed {
            return Err(conn.error("close", Cause::Closed));
        }
        left.takes = Takes::Ended;
        left.asked = left.asked.max(Asked::Close);
        conn.deliver(&mut left);
        Ok(())
    }

    fn find(&self, id: ConnId, op: &'static str) -> io::Result<Arc<RemoteConn>> {
        let found = lock(&self.live).get(&id).cloned();
        found.ok_or_else(|| OpError::new(op, "tcp", None, Cause::Closed).into())
    }

    /// Enters the connection whose callback runs.
    pub(super) fn enter(
        &self,
        fd: &Fd,
        thread: Handle,
        queued: usize,
        takes: Takes,
    ) -> Arc<RemoteConn> {
        let id = ConnId {
            server: self.server,
            connection: self.asked.fetch_add(1, Ordering::Relaxed),
        };
        let conn = Arc::new(RemoteConn {
            id,
            thread,
            machine: context::running_machine(),
            token: fd.desc.token(),
            net: fd.network().name(),
            ends: [fd.endpoint(End::Local), fd.endpoint(End::Peer)],
            queued: AtomicUsize::new(queued),
            left: Mutex::new(Left {
                takes,
                ..Left::default()
            }),
        });
        lock(&self.live).insert(id, conn.clone());
        conn
    }

    /// The connection is closed.
    pub(super) fn leave(&self, conn: &RemoteConn) {
        lock(&self.live).remove(&conn.id);
        let closed = Left {
            takes: Takes::Closed,
            ..Left::default()
        };
        let left = mem::replace(&mut *lock(&conn.left), closed);
        self.quotas.queued.give_back(left.bytes);
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
    /// What waits in the connection's own queue, as it was noted last.
    queued: AtomicUsize,
    left: Mutex<Left>,
}

/// What other threads have left.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Charged to the limit over all.
    pub(super) pieces: Vec<Arc<[u8]>>,
    bytes: usize,
    pub(super) asked: Asked,
    takes: Takes,
    /// A write met the limit of the connection, which ends by it.
    pub(super) over: Option<io::Error>,
    /// A job is on its way.
    is_told: bool,
}

impl RemoteConn {
    fn error(&self, op: &'static str, cause: Cause) -> io::Error {
        let [source, addr] = self.ends.clone();
        let mut error = OpError::new(op, self.net, addr, cause);
        error.source = source;
        error.into()
    }

    /// Tells the connection's thread that something was left, once until it has looked.
    fn deliver(&self, left: &mut Left) {
        if mem::replace(&mut left.is_told, true) {
            return;
        }
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

    pub(super) fn has_mail(&self) -> bool {
        lock(&self.left).is_told
    }

    pub(super) fn set_queued(&self, queued: usize) {
        self.queued.store(queued, Ordering::Relaxed);
    }

    /// The connection takes nothing more.
    pub(super) fn end(&self) {
        let mut left = lock(&self.left);
        left.takes = left.takes.max(Takes::Ended);
    }

    /// Takes what other threads have left.
    pub(super) fn collect(&self, requests: Requests) -> Left {
        let mut left = lock(&self.left);
        // What stays is found at the end of the callback.
        let stays = match requests {
            Requests::All => Asked::Nothing,
            Requests::OfHandles => mem::take(&mut left.asked),
        };
        // It goes into the connection's queue, whose length is noted later: meanwhile it counts on.
        self.queued.fetch_add(left.bytes, Ordering::Relaxed);
        let kept = Left {
            takes: left.takes,
            asked: stays,
            is_told: stays != Asked::Nothing,
            ..Left::default()
        };
        mem::replace(&mut *left, kept)
    }
}

/// Which requests are taken with the mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Requests {
    /// In a callback: a close that another thread asks for meanwhile takes effect when the callback
    /// has ended, so that what it writes is taken.
    OfHandles,
    All,
}
