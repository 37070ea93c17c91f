//! Signals that end a server: the first drains it, the second stops it.
//!
//! A signal's handler puts a byte into a socket. Every worker waits for it in a task of its loop, so
//! that the last worker that lives still hears of a signal; the one that gets the byte gives the
//! order to all.

// Mirrors `signal.NotifyContext` with `Server.Shutdown` in a Go program.

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mio::unix::SourceFd;

use crate::net::Source;
use crate::reactor::Direction;
use crate::runtime::sync::lock;
use crate::runtime::{JoinHandle, spawn};
use crate::sys::{SignalNotes, note_signals};

/// One call of [`ServerHandle::drain_on`](super::ServerHandle::drain_on).
struct Watch {
    /// A byte for each signal comes out of it. Every worker registers it with its own selector.
    socket: StdStream,
    limit: Duration,
    /// A signal has come.
    has_come: AtomicBool,
    /// Fills the socket.
    _notes: SignalNotes,
}

/// All of a server.
#[derive(Default)]
pub(crate) struct Watches(Mutex<Vec<Arc<Watch>>>);

impl Watches {
    pub(crate) fn add(&self, signals: &[i32], limit: Duration) -> io::Result<()> {
        let (socket, filled) = StdStream::pair()?;
        socket.set_nonblocking(true)?;
        filled.set_nonblocking(true)?;
        lock(&self.0).push(Arc::new(Watch {
            socket,
            limit,
            has_come: AtomicBool::new(false),
            _notes: note_signals(signals, filled)?,
        }));
        Ok(())
    }
}

/// The tasks of one worker that wait for signals. They end with it.
#[derive(Default)]
pub(crate) struct Hearing(Vec<JoinHandle<()>>);

impl Hearing {
    /// Begins to wait for those that were added since it was called last. `end` is told the limit of
    /// a drain, and at a later signal `None`.
    pub(crate) fn follow(
        &mut self,
        watches: &Watches,
        end: impl Fn(Option<Duration>) + Clone + 'static,
    ) {
        for watch in &lock(&watches.0)[self.0.len()..] {
            let (watch, end) = (watch.clone(), end.clone());
            self.0.push(spawn(async move {
                if let Err(error) = hear(&watch, end).await {
                    log::error!("a server's signals are not heard: {error}");
                }
            }));
        }
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

async fn hear(watch: &Watch, end: impl Fn(Option<Duration>)) -> io::Result<()> {
    let raw = watch.socket.as_raw_fd();
    let source = Source::new(SourceFd(&raw))?;
    // The other end is open as long as the watch lives.
    loop {
        let mut notes = [0; 64];
        let read = source.io(Direction::Read, |_| (&watch.socket).read(&mut notes));
        for _ in 0..read.await? {
            let is_first = !watch.has_come.swap(true, Ordering::Relaxed);
            end(is_first.then_some(watch.limit));
        }
    }
}
