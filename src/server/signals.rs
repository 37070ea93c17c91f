//! Signals that end a server: the first drains it, the second stops it.
//!
//! A signal's handler puts a byte into a socket. Every worker waits for this byte beside its work, so
//! that the last worker that lives still hears of a signal; the one that gets the byte gives the order
//! to all.

// Mirrors `signal.NotifyContext` with `Server.Shutdown` in a Go program.

use std::future::{Future, poll_fn};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use mio::unix::SourceFd;

use crate::net::Source;
use crate::reactor::Direction;
use crate::runtime::sync::lock;
use crate::runtime::{Either, select};
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

/// All watches of a server.
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

    /// Does the work, and meanwhile waits for the signals that are watched by now. Calls `end` with the
    /// limit of the drain at a watch's first signal, and with `None` at each later one.
    pub(crate) async fn hear_beside<T>(
        &self,
        work: impl Future<Output = T>,
        end: impl Fn(Option<Duration>),
    ) -> T {
        let watches = lock(&self.0).clone();
        let hear = async |watch: &Watch| {
            if let Err(error) = hear(watch, &end).await {
                log::error!("a server's signals are not heard: {error}");
            }
        };
        let mut all: Vec<_> = watches.iter().map(|watch| Box::pin(hear(watch))).collect();
        let never = poll_fn(|cx| {
            all.retain_mut(|hears| hears.as_mut().poll(cx).is_pending());
            Poll::Pending
        });
        match select(work, never).await {
            Either::First(done) | Either::Second(done) => done,
        }
    }
}

async fn hear(watch: &Watch, end: impl Fn(Option<Duration>)) -> io::Result<()> {
    let raw = watch.socket.as_raw_fd();
    let source = Source::new(SourceFd(&raw))?;
    // It never reads an end of file: the other end is open as long as the watch lives.
    loop {
        let mut notes = [0; 64];
        let read = source.io(Direction::Read, |_| (&watch.socket).read(&mut notes));
        let read = read.await?;
        debug_assert!(read > 0, "the other end is open");
        for _ in 0..read {
            let is_first = !watch.has_come.swap(true, Ordering::Relaxed);
            end(is_first.then_some(watch.limit));
        }
    }
}
