//! The pipes that splice(2) moves bytes through, and the few that wait to be used again.
//!
//! May touch: sys. Mirrors `splicePipe` and `splicePipePool` in Go's
//! `internal/poll/splice_linux.go`.
//!
//! A copy has a pipe only while bytes are in it, so that one that waits for its source holds no
//! descriptor. Go keeps idle pipes for the collector to close; here the last copy on the thread
//! closes them.

use std::cell::RefCell;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, BorrowedFd};

use crate::runtime::shortage;
use crate::sys;

/// Idle pipes kept: as many as copies that take turns within a turn of the loop are likely to need.
const MOST_IDLE: usize = 8;

/// What is asked of one splice: more than a pipe holds by default (64 KiB), so that the pipe says
/// how much it is.
const MOST_AT_ONCE: usize = 1 << 20;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { copies: 0, idle: Vec::new() }) };
}

struct Pool {
    copies: usize,
    idle: Vec<Pipe>,
}

/// A copy that may use pipes is under way while this lives.
#[derive(Debug)]
pub(super) struct Membership(());

impl Membership {
    pub(super) fn new() -> Self {
        let _ = POOL.try_with(|pool| pool.borrow_mut().copies += 1);
        Membership(())
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let idle = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            pool.copies = pool.copies.saturating_sub(1);
            match pool.copies {
                0 => std::mem::take(&mut pool.idle),
                _ => Vec::new(),
            }
        });
        let idle = idle.unwrap_or_default();
        if !idle.is_empty() {
            drop(idle);
            shortage::descriptor_closed();
        }
    }
}

/// A pipe, and how much is in it. With bytes in it, it is never given back, only closed.
#[derive(Debug)]
pub(super) struct Pipe {
    reader: PipeReader,
    writer: PipeWriter,
    pub(super) holds: usize,
}

impl Pipe {
    /// An empty pipe; `None` where there is no splice, or the system has no descriptors to spare:
    /// then a plain loop has to do.
    pub(super) fn take() -> Option<Pipe> {
        if !sys::SPLICES {
            return None;
        }
        let idle = POOL.try_with(|pool| pool.borrow_mut().idle.pop());
        if let Ok(Some(pipe)) = idle {
            return Some(pipe);
        }
        let made = io::pipe().ok()?;
        Some(Pipe {
            reader: made.0,
            writer: made.1,
            holds: 0,
        })
    }

    /// Keeps it for the next who needs one.
    pub(super) fn give_back(self) {
        debug_assert_eq!(self.holds, 0, "gave back a pipe with bytes in it");
        let mut this = Some(self);
        let _ = POOL.try_with(|pool| {
            let idle = &mut pool.borrow_mut().idle;
            if idle.len() < MOST_IDLE {
                idle.extend(this.take());
            }
        });
        drop(this);
    }

    /// From a socket into the pipe, which is empty: EAGAIN is the socket's then, without doubt.
    pub(super) fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        debug_assert_eq!(self.holds, 0, "EAGAIN could be the pipe's");
        let moved = sys::splice(socket, self.writer.as_fd(), MOST_AT_ONCE)?;
        self.holds = moved;
        Ok(moved)
    }

    /// From the pipe, which is not empty, to a socket: again EAGAIN can only be the socket's.
    pub(super) fn drain(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        debug_assert_ne!(self.holds, 0, "EAGAIN could be the pipe's");
        let moved = sys::splice_to_socket(self.reader.as_fd(), socket, self.holds)?;
        self.holds -= moved;
        Ok(moved)
    }

    /// Reads it out, for a socket that can't be spliced to. It is known how much there is: this
    /// does not wait.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.holds);
        let got = self.reader.read(&mut buffer[..most])?;
        self.holds -= got;
        Ok(got)
    }
}
