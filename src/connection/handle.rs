//! Writing to a connection from elsewhere on its thread: it only queues, and never calls back.
//!
//! May touch: the worker, the scheduler. Mirrors a Go channel to a goroutine that writes.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;

use super::conn::ended;
use super::out_queue::Piece;
use super::standing::Asked;
use super::worker::Worker;
use crate::net::{Cause, OpError};
use crate::runtime::context;
use crate::runtime::machine::MachineId;

/// What others have left for a connection, until it runs.
pub(crate) struct Mailbox {
    worker: Rc<Worker>,
    id: MachineId,
    pieces: RefCell<Vec<Piece>>,
    bytes: Cell<usize>,
    /// What waits in the connection's own queue, when it last looked.
    queued: Cell<usize>,
    asked: Cell<Asked>,
    closed: Cell<bool>,
    /// Our direction has ended, or is to: the connection takes nothing more.
    ended: Cell<bool>,
    overflowed: Cell<bool>,
}

/// What a connection finds in its mailbox.
pub(crate) struct Mail {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) asked: Asked,
    pub(crate) overflowed: bool,
}

impl Mailbox {
    /// Of the connection whose callback runs.
    pub(crate) fn new(worker: Rc<Worker>) -> Self {
        Mailbox {
            worker,
            id: context::running_machine(),
            pieces: RefCell::default(),
            bytes: Cell::new(0),
            queued: Cell::new(0),
            asked: Cell::new(Asked::Nothing),
            closed: Cell::new(false),
            ended: Cell::new(false),
            overflowed: Cell::new(false),
        }
    }

    pub(crate) fn collect(&self) -> Option<Mail> {
        let is_empty = self.pieces.borrow().is_empty();
        if is_empty && self.asked.get() == Asked::Nothing && !self.overflowed.get() {
            return None;
        }
        let left = self.bytes.take();
        self.worker.queued_elsewhere(left);
        Some(Mail {
            pieces: self.pieces.take(),
            asked: self.asked.replace(Asked::Nothing),
            overflowed: self.overflowed.take(),
        })
    }

    /// The connection parks: what waits in its queue, and whether it takes more.
    pub(crate) fn note(&self, queued: usize, takes_writes: bool) {
        self.queued.set(queued);
        self.ended.set(!takes_writes);
    }

    pub(crate) fn close(&self) {
        self.closed.set(true);
        drop(self.collect());
        self.worker.room_unused();
    }
}

/// Writes to a connection from other connections and tasks of its thread: to fan out, to answer
/// later.
///
/// Clones are the same connection. It only queues: what is written goes out when the loop comes
/// to that connection, and no callback runs before. A peer that does not take what it is sent
/// holds up nobody: when more waits than its [`Limits`](crate::Limits) allow, it is dropped.
#[derive(Clone)]
pub struct ConnHandle {
    mailbox: Rc<Mailbox>,
}

impl ConnHandle {
    pub(crate) fn new(mailbox: Rc<Mailbox>) -> Self {
        ConnHandle { mailbox }
    }

    /// Queues a copy of the bytes.
    ///
    /// # Errors
    ///
    /// The connection is closed. Its direction to the peer has ended. More waits than its limits
    /// allow: then it will be closed.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.queue(bytes.len(), || Piece::Own(bytes.to_vec()))
    }

    /// Queues bytes that are shared with other connections, and not copied.
    ///
    /// ```
    /// # use std::{io, rc::Rc};
    /// # use netpoller::ConnHandle;
    /// fn tell_all(peers: &[ConnHandle], news: &str) {
    ///     let news: Rc<[u8]> = news.as_bytes().into();
    ///     for peer in peers {
    ///         // One that is gone, or too slow, is of no concern to the others.
    ///         let _ = peer.write_shared(&news);
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`write`](ConnHandle::write).
    pub fn write_shared(&self, bytes: &Rc<[u8]>) -> io::Result<()> {
        self.queue(bytes.len(), || Piece::Shared(bytes.clone()))
    }

    fn queue(&self, more: usize, piece: impl FnOnce() -> Piece) -> io::Result<()> {
        let mailbox = &*self.mailbox;
        if mailbox.closed.get() {
            return Err(closed());
        }
        if mailbox.ended.get() {
            return Err(ended());
        }
        if more == 0 {
            return Ok(());
        }
        let waiting = mailbox.bytes.get() + mailbox.queued.get();
        if let Err(full) = mailbox.worker.check_room(waiting, more) {
            mailbox.overflowed.set(true);
            mailbox.worker.wake(mailbox.id);
            return Err(full);
        }
        let is_first = mailbox.bytes.get() == 0;
        mailbox.bytes.set(mailbox.bytes.get() + more);
        mailbox.worker.queued_more(more);
        mailbox.pieces.borrow_mut().push(piece());
        if is_first {
            mailbox.worker.wake(mailbox.id);
        }
        Ok(())
    }

    /// Bytes that wait to be written.
    pub fn queued(&self) -> usize {
        self.mailbox.bytes.get() + self.mailbox.queued.get()
    }

    /// Whether the connection is closed.
    pub fn is_closed(&self) -> bool {
        self.mailbox.closed.get()
    }

    /// Closes the connection once all is written.
    pub fn close(&self) {
        self.ask(Asked::Close);
    }

    /// Closes the connection with a RST.
    pub fn abort(&self) {
        self.ask(Asked::Abort);
    }

    fn ask(&self, asked: Asked) {
        let mailbox = &*self.mailbox;
        if !mailbox.closed.get() {
            mailbox.asked.set(mailbox.asked.get().max(asked));
            mailbox.worker.wake(mailbox.id);
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

fn closed() -> io::Error {
    OpError {
        op: "write",
        net: "tcp",
        source: None,
        addr: None,
        written: 0,
        cause: Cause::Closed,
    }
    .into()
}
