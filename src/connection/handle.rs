//! Writing to a connection from elsewhere: by a handle on its thread, by its id on any thread. It only
//! queues, and never calls back.
//!
//! What is written waits in the connection's inbox, which has a lock. The first write from another thread,
//! and each from this one, wakes the connection. Its next run takes in all that waits.

// Mirrors a Go channel to the goroutine that writes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::mem;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::error::{Limit, QUEUED, QUEUED_IN_ALL, direction_ended, over_limit};
use super::limits::Quota;
use super::out_queue::{OutQueue, Piece, SMALL};
use super::state::{ABORT, ATTEND, CLOSE, END};
use crate::endpoints::{Addr, End};
use crate::net::fd::Fd;
use crate::net::{Cause, OpError};
use crate::reactor::Token;
use crate::runtime::machine::MachineId;
use crate::runtime::sync::{Mutex, MutexGuard, lock};
use crate::runtime::{Handle, context};

/// What others have put there for a connection, until it runs.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// What was written by id since a handle last wrote. Its last small pieces are in `small`.
    written: Vec<Arc<[u8]>>,
    small: Vec<u8>,
    put: Put,
    /// How many bytes wait in the connection's own queue, as it was noted last.
    pub(super) queued: usize,
    /// Bits. [`CLOSE`], [`ABORT`]: a handle or an id has asked, and the connection is told once.
    /// [`END`]: it takes no more for another reason. Unless it is zero, writes are refused.
    asked: u8,
    /// The socket is closed.
    is_closed: bool,
    pub(super) is_busy: bool,
}

/// What is there for a connection to take.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Put {
    /// How many bytes handles and ids have put there. They are charged to the limit over all.
    pub(super) bytes: usize,
    /// A write met the limit of the connection, which ends by it.
    pub(super) is_over: bool,
    /// It is busy no more.
    pub(super) was_busy: bool,
}

impl Inbox {
    /// Whether there is nothing for the connection to take.
    pub(super) fn is_empty(&self) -> bool {
        self.put == Put::default()
    }

    /// Takes in what was written by id. Small pieces are put together.
    fn push(&mut self, bytes: &Arc<[u8]>) {
        if bytes.len() < SMALL {
            return self.small.extend_from_slice(bytes);
        }
        if !self.small.is_empty() {
            self.written.push(mem::take(&mut self.small).into());
        }
        self.written.push(bytes.clone());
    }

    /// Moves what was written by id behind what handles have queued.
    fn move_to(&mut self, queue: &mut OutQueue) {
        let written = mem::take(&mut self.written).into_iter();
        written.for_each(|bytes| queue.push_piece(Piece::Sent(bytes)));
        queue.push(&mem::take(&mut self.small));
    }

    /// The connection takes nothing more.
    pub(super) fn end(&mut self) {
        self.asked |= END;
    }
}

/// What a connection shares with all that write to it.
#[derive(Debug)]
pub(super) struct Mailbox {
    /// Set once the connection is asked for it.
    id: OnceLock<ConnId>,
    /// The runtime of its worker.
    thread: Handle,
    machine: MachineId,
    token: Token,
    /// For the names in errors.
    net: &'static str,
    ends: [Option<Addr>; 2],
    most_queued: usize,
    /// Over all connections.
    quota: Arc<Quota>,
    inbox: Mutex<Inbox>,
}

impl Mailbox {
    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        lock(&self.inbox)
    }

    fn error(&self, op: &'static str, cause: Cause) -> io::Error {
        let [source, addr] = self.ends.clone();
        let error = OpError::new(op, self.net, addr, cause);
        OpError { source, ..error }.into()
    }

    /// Wakes the connection: at once on its own thread, else in its thread's next turn.
    fn wake(&self, asked: u8) {
        let (token, machine) = (self.token, self.machine);
        // A runtime that is gone has closed the connection, or is about to.
        self.thread.tell(move |scheduler| {
            let registry = &scheduler.reactor.core.registry;
            let desc = registry.borrow().get(token.key()).cloned();
            if let Some(desc) = desc
                && desc.token() == token
            {
                let note = &desc.user_data.note;
                note.set(note.get() | asked | ATTEND);
                scheduler.wake(machine);
            }
        });
    }

    /// Puts `more` bytes there: `push` queues them.
    fn put(&self, more: usize, push: impl FnOnce(&mut Inbox)) -> io::Result<()> {
        let mut inbox = self.inbox();
        if inbox.is_closed {
            return Err(self.error("write", Cause::Closed));
        }
        if inbox.asked != 0 {
            return Err(direction_ended());
        }
        if more == 0 {
            return Ok(());
        }
        debug_assert!(!inbox.put.is_over, "it takes nothing more");
        let was_empty = inbox.is_empty();
        let refused = |limit: Limit| Err(self.error(limit.0, over_limit(limit)));
        let waiting = inbox.put.bytes + inbox.queued;
        let result = if waiting.saturating_add(more) > self.most_queued {
            inbox.put.is_over = true;
            inbox.end();
            refused(QUEUED)
        } else if self.quota.charge(more) {
            inbox.put.bytes += more;
            push(&mut inbox);
            Ok(())
        } else {
            refused(QUEUED_IN_ALL)
        };
        let is_empty = inbox.is_empty();
        // A selector's break may run any code.
        drop(inbox);
        // Another thread's wake may still be in the mail. So the connection's own thread wakes it again:
        // then what a callback writes next comes after these bytes.
        if !is_empty && (was_empty || self.thread.if_here(|_| ()).is_some()) {
            self.wake(0);
        }
        result
    }

    /// Ends the connection, unless it is closed.
    fn ask(&self, asked: u8) {
        let mut inbox = self.inbox();
        if !inbox.is_closed && inbox.asked & asked == 0 {
            inbox.asked |= asked;
            drop(inbox);
            self.wake(asked);
        }
    }
}

/// Writes to a connection from other connections and tasks of its thread: to fan out, to answer
/// later.
///
/// Clones are the same connection. A write only queues, and calls no callback: the bytes go out when
/// the loop next runs that connection. It stays on its thread, as its queue does: it is not `Send`.
///
/// A peer that does not take what it is sent holds up nothing else: when more waits than
/// [`Limits::most_queued`](crate::Limits::most_queued) allows, the peer is dropped, with a RST.
/// Write no more than that in one run of a task: the peer is offered it afterwards.
///
/// ```
/// use std::io;
/// use std::time::Duration;
/// use netpoller::{Conn, Protocol, spawn, time};
///
/// struct Later;
/// impl Protocol for Later {
///     fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
///         let handle = conn.handle();
///         let answer = bytes.to_ascii_uppercase();
///         spawn(async move {
///             time::sleep(Duration::from_millis(1)).await;
///             let _ = handle.write(&answer); // An error if the peer has gone meanwhile.
///         });
///         Ok(bytes.len())
///     }
/// }
/// ```
#[derive(Clone)]
pub struct ConnHandle {
    pub(super) mailbox: Arc<Mailbox>,
    /// What handles have written, and what was written by id before that.
    queue: Rc<RefCell<OutQueue>>,
}

impl ConnHandle {
    /// For the connection whose callback runs.
    pub(super) fn new(fd: &Fd, most_queued: usize, quota: Arc<Quota>, inbox: Inbox) -> Self {
        let mailbox = Mailbox {
            id: OnceLock::new(),
            thread: Handle::current(),
            machine: context::running_machine(),
            token: fd.desc.token(),
            net: fd.network().name(),
            ends: [fd.endpoint(End::Local), fd.endpoint(End::Peer)],
            most_queued,
            quota,
            inbox: Mutex::new(inbox),
        };
        ConnHandle {
            mailbox: Arc::new(mailbox),
            queue: Rc::default(),
        }
    }

    /// Queues a copy of the bytes.
    ///
    /// ```
    /// use netpoller::ConnHandle;
    ///
    /// /// Answers when a job on another thread has ended.
    /// fn answer_later(handle: ConnHandle, job: impl FnOnce() -> Vec<u8> + Send + 'static) {
    ///     netpoller::spawn(async move {
    ///         if let Ok(answer) = netpoller::spawn_blocking(job).await {
    ///             let _ = handle.write(&answer); // An error if the peer has gone meanwhile.
    ///         }
    ///     });
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// The connection is closed, or its direction to the peer has ended or is to. More would wait
    /// than [`Limits::most_queued`](crate::Limits::most_queued) allows: then the connection ends.
    /// More would wait on all connections than
    /// [`Limits::most_queued_in_all`](crate::Limits::most_queued_in_all) allows: then nothing else
    /// happens.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.queue(bytes.len(), |queue| queue.push(bytes))
    }

    /// Queues bytes that are shared with other connections, and not copied unless they are few.
    ///
    /// ```
    /// # use std::{io, rc::Rc};
    /// # use netpoller::ConnHandle;
    /// fn tell_all(peers: &[ConnHandle], news: &str) {
    ///     let news: Rc<[u8]> = news.as_bytes().into();
    ///     for peer in peers {
    ///         // A peer that is gone, or too slow, does not concern the others.
    ///         let _ = peer.write_shared(&news);
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`write`](ConnHandle::write).
    pub fn write_shared(&self, bytes: &Rc<[u8]>) -> io::Result<()> {
        self.queue(bytes.len(), |queue| {
            queue.push_piece(Piece::Shared(bytes.clone()))
        })
    }

    fn queue(&self, more: usize, push: impl FnOnce(&mut OutQueue)) -> io::Result<()> {
        self.mailbox.put(more, |inbox| {
            let mut queue = self.queue.borrow_mut();
            inbox.move_to(&mut queue);
            push(&mut queue);
        })
    }

    /// Bytes that wait to be written.
    ///
    /// ```
    /// use netpoller::ConnHandle;
    ///
    /// /// News of the moment, for those who can follow.
    /// fn tell(listeners: &mut Vec<ConnHandle>, news: &[u8]) {
    ///     listeners.retain(|listener| !listener.is_closed());
    ///     for listener in listeners.iter().filter(|listener| listener.queued() < 64 << 10) {
    ///         let _ = listener.write(news);
    ///     }
    /// }
    /// ```
    pub fn queued(&self) -> usize {
        let inbox = self.mailbox.inbox();
        inbox.put.bytes + inbox.queued
    }

    /// Whether the connection is closed.
    pub fn is_closed(&self) -> bool {
        self.mailbox.inbox().is_closed
    }

    /// As [`Conn::set_busy`](crate::Conn::set_busy).
    pub fn set_busy(&self, busy: bool) {
        let mut inbox = self.mailbox.inbox();
        if !inbox.is_closed
            && mem::replace(&mut inbox.is_busy, busy)
            && !busy
            && !mem::replace(&mut inbox.put.was_busy, true)
        {
            drop(inbox);
            // A drain may have waited for just that, and the peer's time begins anew.
            self.mailbox.wake(0);
        }
    }

    /// Closes the connection once all is written. Later writes are refused.
    ///
    /// ```
    /// use netpoller::ConnHandle;
    ///
    /// /// Room for one more: the oldest goes, with a word if it takes it.
    /// fn make_room(members: &mut Vec<ConnHandle>) {
    ///     let oldest = members.remove(0);
    ///     match oldest.write(b"good-bye\n") {
    ///         Ok(()) => oldest.close(), // once that is written
    ///         Err(_) => oldest.abort(),
    ///     }
    /// }
    /// ```
    pub fn close(&self) {
        self.mailbox.ask(CLOSE);
    }

    /// Closes the connection with a RST.
    pub fn abort(&self) {
        self.mailbox.ask(ABORT);
    }

    // ---- the connection's own ----

    /// Whether there is nothing to take, and no other handle or id can put anything there.
    pub(super) fn is_idle(&self) -> bool {
        let inbox = self.mailbox.inbox();
        Arc::strong_count(&self.mailbox) == 1 && inbox.is_empty() && !inbox.is_busy
    }

    pub(super) fn take(&self) -> (OutQueue, Put) {
        let mut inbox = self.mailbox.inbox();
        let mut queue = self.queue.take();
        inbox.move_to(&mut queue);
        let put = mem::take(&mut inbox.put);
        debug_assert_eq!(queue.len(), put.bytes, "all of it is charged");
        // The bytes go into the connection's queue, whose length is noted later. Until then they count
        // here.
        inbox.queued += put.bytes;
        (queue, put)
    }

    /// The connection is closed. Returns how many bytes are left.
    pub(super) fn end(&self) -> usize {
        drop(self.queue.take());
        let mut inbox = self.mailbox.inbox();
        debug_assert!(!inbox.is_closed, "a connection is closed once");
        let bytes = mem::take(&mut *inbox).put.bytes;
        inbox.is_closed = true;
        bytes
    }
}

impl Drop for ConnHandle {
    fn drop(&mut self) {
        // Only the connection's own handle is left: the connection is woken, and drops it.
        if Arc::strong_count(&self.mailbox) == 2 && !self.is_closed() {
            self.mailbox.wake(0);
        }
    }
}

impl fmt::Debug for ConnHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnHandle")
            .field("queued", &self.queued())
            .field("closed", &self.is_closed())
            .finish()
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
pub struct ConnId(u64);

/// The connections of a server that were asked for their id, on all its workers.
#[derive(Debug, Default)]
pub(crate) struct Remotes(Mutex<HashMap<ConnId, Arc<Mailbox>>>);

impl Remotes {
    /// Queues bytes for a connection, from any thread.
    ///
    /// # Errors
    ///
    /// As of [`ConnHandle::write`](crate::ConnHandle::write). No connection that lives has this id.
    pub(crate) fn write(&self, id: ConnId, bytes: &Arc<[u8]>) -> io::Result<()> {
        let push = |inbox: &mut Inbox| inbox.push(bytes);
        self.find(id, "write")?.put(bytes.len(), push)
    }

    /// Closes a connection once all is written, from any thread.
    ///
    /// # Errors
    ///
    /// No connection that lives has this id.
    pub(crate) fn close(&self, id: ConnId) -> io::Result<()> {
        self.find(id, "close")?.ask(CLOSE);
        Ok(())
    }

    fn find(&self, id: ConnId, op: &'static str) -> io::Result<Arc<Mailbox>> {
        let found = lock(&self.0).get(&id).cloned();
        found.ok_or_else(|| OpError::new(op, "tcp", None, Cause::Closed).into())
    }

    /// The connection was asked for its id.
    pub(super) fn enter(&self, handle: &ConnHandle) -> ConnId {
        /// The next id of this process.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        debug_assert!(!handle.is_closed(), "it would never leave");
        *handle.mailbox.id.get_or_init(|| {
            let id = ConnId(NEXT.fetch_add(1, Ordering::Relaxed));
            lock(&self.0).insert(id, handle.mailbox.clone());
            id
        })
    }

    /// The connection is closed.
    pub(super) fn leave(&self, handle: &ConnHandle) {
        debug_assert!(handle.is_closed(), "it could enter again");
        if let Some(id) = handle.mailbox.id.get() {
            lock(&self.0).remove(id);
        }
    }
}
