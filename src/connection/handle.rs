//! Writing to a connection from elsewhere on its thread. It only queues, and never calls back.

// Mirrors a Go channel to the goroutine that writes.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;

use super::error::{direction_ended, over_limit};
use super::out_queue::OutQueue;
use super::shared::WorkerShared;
use super::state::{ATTEND, Asked, Status, Takes};
use crate::net::Cause;
use crate::net::fd::Fd;
use crate::runtime::context;
use crate::runtime::machine::MachineId;

/// What a connection shares with its handles.
pub(super) struct Mailbox {
    /// For the names in errors.
    fd: Fd,
    shared: Rc<WorkerShared>,
    id: MachineId,
    /// What handles have left, until the connection runs. Charged to the limit over all.
    mail: RefCell<OutQueue>,
    /// What waits in the connection's own queue, always.
    pub(super) queued: Cell<usize>,
    asked: Cell<Asked>,
    takes: Cell<Takes>,
    pub(super) busy: Cell<bool>,
    /// A handle's write met the limit of the connection, which ends by it.
    over: RefCell<Option<io::Error>>,
}

/// What a connection finds in its mailbox.
#[derive(Default)]
pub(super) struct Mail {
    pub(super) queue: OutQueue,
    pub(super) asked: Asked,
    pub(super) over: Option<io::Error>,
}

impl Mailbox {
    /// Of the connection whose callback runs, with so many bytes in its queue.
    pub(super) fn new(fd: Fd, shared: Rc<WorkerShared>, queued: usize, takes: Takes) -> Self {
        Mailbox {
            fd,
            shared,
            id: context::running_machine(),
            mail: RefCell::default(),
            queued: Cell::new(queued),
            asked: Cell::new(Asked::Nothing),
            takes: Cell::new(takes),
            busy: Cell::new(false),
            over: RefCell::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.mail.borrow().is_empty()
            && self.asked.get() == Asked::Nothing
            && self.over.borrow().is_none()
    }

    pub(super) fn collect(&self) -> Mail {
        Mail {
            queue: self.mail.take(),
            asked: self.asked.take(),
            over: self.over.take(),
        }
    }

    /// Bytes that handles have left.
    pub(super) fn len(&self) -> usize {
        self.mail.borrow().len()
    }

    /// The connection has mail, or has lost its last handle: its next run attends to it.
    fn attend(&self) {
        let note = &self.fd.socket().note;
        note.set(note.get() | ATTEND);
    }

    /// The connection has mail, and is to run.
    fn wake(&self) {
        self.attend();
        self.shared.wake(self.id);
    }

    pub(super) fn set_busy(&self, busy: bool) {
        // A drain may have waited for just that.
        let status = Status(self.fd.socket().note.get());
        if self.busy.replace(busy) && !busy && status.drains() {
            self.shared.wake(self.id);
        }
    }

    /// The connection takes nothing more.
    pub(super) fn end(&self) {
        if self.takes.get() == Takes::Open {
            self.takes.set(Takes::Ended);
        }
    }

    pub(super) fn close(&self) {
        self.takes.set(Takes::Closed);
        self.busy.set(false);
        let left = self.collect().queue.len();
        self.shared.quotas.queued.give_back(left);
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
        self.queue(bytes.len(), |mail| mail.push_shared(bytes))
    }

    fn queue(&self, more: usize, push: impl FnOnce(&mut OutQueue)) -> io::Result<()> {
        let mailbox = &*self.mailbox;
        match mailbox.takes.get() {
            Takes::Open => {}
            Takes::Ended => return Err(direction_ended()),
            Takes::Closed => return Err(mailbox.fd.op_error("write", Cause::Closed)),
        }
        if more == 0 {
            return Ok(());
        }
        let (limits, quota) = (&mailbox.shared.limits, &mailbox.shared.quotas.queued);
        let waiting = self.queued();
        if waiting.saturating_add(more) > limits.most_queued {
            let most = limits.most_queued;
            let error = || {
                let cause = over_limit("most_queued", most, waiting, more);
                mailbox.fd.op_error("write", cause)
            };
            mailbox.over.replace(Some(error()));
            mailbox.end();
            mailbox.wake();
            return Err(error());
        }
        if !quota.charge(more) {
            let cause = over_limit("most_queued_in_all", quota.limit(), quota.used(), more);
            return Err(mailbox.fd.op_error("write", cause));
        }
        let is_first = mailbox.is_empty();
        push(&mut mailbox.mail.borrow_mut());
        if is_first {
            mailbox.wake();
        }
        Ok(())
    }

    /// Bytes that wait to be written.
    pub fn queued(&self) -> usize {
        self.mailbox.len() + self.mailbox.queued.get()
    }

    /// Whether the connection is closed.
    pub fn is_closed(&self) -> bool {
        self.mailbox.takes.get() == Takes::Closed
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
        let mailbox = &*self.mailbox;
        if !self.is_closed() {
            mailbox.end();
            mailbox.asked.set(mailbox.asked.get().max(asked));
            mailbox.wake();
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
