//! Writing to a connection from elsewhere on its thread. It only queues, and never calls back.

// Mirrors a Go channel to the goroutine that writes.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;

use super::out_queue::{OutQueue, Payload};
use super::remote::Inbox;
use super::shared::WorkerShared;
use super::state::{ATTEND, Asked, Status, Takes};
use crate::net::fd::Fd;
use crate::runtime::machine::MachineId;

/// What a connection shares with its handles.
pub(super) struct Mailbox {
    /// For the names in errors.
    pub(super) fd: Fd,
    pub(super) shared: Rc<WorkerShared>,
    pub(super) id: MachineId,
    pub(super) inbox: RefCell<Inbox<OutQueue>>,
    pub(super) busy: Cell<bool>,
}

impl Mailbox {
    /// The connection has mail, or has lost its last handle: its next run attends to it.
    fn attend(&self) {
        let note = &self.fd.socket().note;
        note.set(note.get() | ATTEND);
    }

    /// Changes what is left for the connection, which is to run if there was nothing before.
    fn change<R>(&self, change: impl FnOnce(&mut Inbox<OutQueue>) -> R) -> R {
        let mut inbox = self.inbox.borrow_mut();
        let was_empty = inbox.is_empty();
        let changed = change(&mut inbox);
        if was_empty && !inbox.is_empty() {
            self.attend();
            self.shared.wake(self.id);
        }
        changed
    }

    pub(super) fn set_busy(&self, busy: bool) {
        // A drain may have waited for just that.
        let status = Status(self.fd.socket().note.get());
        if self.busy.replace(busy) && !busy && status.drains() {
            self.shared.wake(self.id);
        }
    }
}

/// Writes to a connection from other connections and tasks of its thread: to fan out, to answer
/// later.
///
/// Clones are the same connection. It only queues: what is written goes out when the loop comes to
/// that connection, and no callback runs before. It stays on its thread (it is not `Send`): the
/// queue has no lock.
///
/// A peer that does not take what it is sent holds up nothing else: when more waits than
/// [`Limits::most_queued`](crate::Limits::most_queued) allows, the peer is dropped, with a RST.
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
    mailbox: Rc<Mailbox>,
}

impl ConnHandle {
    pub(super) fn new(mailbox: Rc<Mailbox>) -> Self {
        ConnHandle { mailbox }
    }

    /// Queues a copy of the bytes.
    ///
    /// # Errors
    ///
    /// The connection is closed, or its direction to the peer has ended or is to. More would wait
    /// than [`Limits::most_queued`](crate::Limits::most_queued) allows: then the connection ends.
    /// More would wait on all connections than
    /// [`Limits::most_queued_in_all`](crate::Limits::most_queued_in_all) allows: then nothing else
    /// happens.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.queue(bytes.len(), |mail| mail.push(bytes))
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
        self.queue(bytes.len(), |mail| {
            mail.push_shared(Payload::Here(bytes.clone()))
        })
    }

    fn queue(&self, more: usize, push: impl FnOnce(&mut OutQueue)) -> io::Result<()> {
        let Mailbox { fd, shared, .. } = &*self.mailbox;
        let error = |cause| fd.op_error("write", cause);
        let leave = |inbox: &mut Inbox<_>| inbox.leave(more, &shared.quotas, error, push);
        self.mailbox.change(leave)
    }

    /// Bytes that wait to be written.
    pub fn queued(&self) -> usize {
        let inbox = self.mailbox.inbox.borrow();
        inbox.bytes + inbox.queued
    }

    /// Whether the connection is closed.
    pub fn is_closed(&self) -> bool {
        self.mailbox.inbox.borrow().takes == Takes::Closed
    }

    /// As [`Conn::set_busy`](crate::Conn::set_busy).
    pub fn set_busy(&self, busy: bool) {
        if !self.is_closed() {
            self.mailbox.set_busy(busy);
        }
    }

    /// Closes the connection once all is written. Later writes are refused.
    pub fn close(&self) {
        self.ask(Asked::Close);
    }

    /// Closes the connection with a RST.
    pub fn abort(&self) {
        self.ask(Asked::Abort);
    }

    fn ask(&self, asked: Asked) {
        if !self.is_closed() {
            let Mailbox {
                fd,
                shared,
                id,
                inbox,
                ..
            } = &*self.mailbox;
            inbox.borrow_mut().end();
            let note = &fd.socket().note;
            note.set(Status(note.get()).and_asked(asked).0);
            shared.wake(*id);
        }
    }
}

impl Drop for ConnHandle {
    fn drop(&mut self) {
        // The last one but the connection's own, which lets go of the mailbox then.
        if Rc::strong_count(&self.mailbox) == 2 {
            self.mailbox.attend();
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
