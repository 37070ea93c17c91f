//! For a host that can't watch a descriptor: a thread watches it, and calls the host when a turn is due.

// Go has no counterpart: there the scheduler is the host.
//
// | state | meaning | moved there by | on to |
// |---|---|---|---|
// | Turning | a turn is under way, or the host was called and has not turned yet: the thread does not call | the start of a turn; the thread, just before it calls | Sleeping, Gone |
// | Sleeping | the host sleeps; it is called when the descriptor is readable, or at the instant in `Sleeping` | the end of a turn | Turning, Gone |
// | Gone | the runtime ends | its drop | nothing |
//
// If the host does something between two turns that makes a turn due sooner, a break makes the
// descriptor readable: see `Core::wake_host`.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Waker};

use super::Runtime;
use super::current;
use super::panics::{catch, drop_quietly};
use super::scheduler::Scheduler;
use super::sync::lock;

/// How long the thread sleeps if only readiness can come.
const LONG: Duration = Duration::from_secs(365 * 24 * 3600);

const RUNTIME: mio::Token = mio::Token(0);
const CHANGED: mio::Token = mio::Token(1);

/// The runtime's side.
pub(super) struct Host {
    shared: Arc<Shared>,
    thread: thread::JoinHandle<()>,
}

struct Shared {
    state: Mutex<HostState>,
    /// Ends the thread's wait for the descriptor.
    waker: Waker,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum HostState {
    Turning,
    Sleeping(Instant),
    Gone,
}

impl Shared {
    /// The thread: calls the host when a turn is due, until the runtime is gone.
    fn watch(&self, mut poll: Poll, runtime: &OwnedFd, call: &mut dyn FnMut()) {
        let mut events = Events::with_capacity(2);
        loop {
            let seen = *lock(&self.state);
            let until = match seen {
                HostState::Gone => return,
                HostState::Turning => {
                    thread::park();
                    continue;
                }
                HostState::Sleeping(until) => until,
            };
            // Registered again before each wait: then readiness that is there already is reported.
            let (fd, readable) = (runtime.as_raw_fd(), Interest::READABLE);
            let armed = poll
                .registry()
                .reregister(&mut SourceFd(&fd), RUNTIME, readable);
            let wait = until.saturating_duration_since(Instant::now());
            let waited = armed.and_then(|()| poll.poll(&mut events, Some(wait)));
            let mut is_due = events.iter().any(|event| event.token() == RUNTIME);
            if let Err(error) = waited
                && error.kind() != io::ErrorKind::Interrupted
            {
                // The host is called: its turn looks for itself.
                log::error!("can't watch the runtime for its host: {error}");
                is_due = true;
            }
            let mut state = lock(&self.state);
            // If a turn has come in between, it has dealt with what was seen.
            if *state == seen && (is_due || until <= Instant::now()) {
                *state = HostState::Turning;
                drop(state);
                if catch(&mut *call).is_err() {
                    log::error!(
                        "the function of notify_host panicked; it is called again after the next turn"
                    );
                }
            }
        }
    }
}

impl Runtime {
    /// Calls `f` when a turn is due: for a host that can't watch a descriptor, such as a GUI or a game,
    /// whose loop waits for a queue of its own. `f` puts something into that queue, and the host then
    /// calls [`turn`](Runtime::turn) with a wait of zero, or [`turn_for`](Runtime::turn_for).
    ///
    /// A small thread watches the runtime's descriptor and its next deadline. It calls `f` once, and
    /// not again before the next turn has ended. The thread lives until the runtime is dropped.
    ///
    /// ```
    /// # #[cfg(not(mio_unsupported_force_poll_poll))]
    /// # fn main() -> std::io::Result<()> {
    /// use std::sync::mpsc;
    /// use std::time::Duration;
    /// use netpoller::{Runtime, time};
    ///
    /// enum Event { Turn, /* Key(char), Redraw, ... */ }
    /// let (queue, events) = mpsc::channel();
    /// let runtime = Runtime::new()?;
    /// runtime.notify_host(move || queue.send(Event::Turn).unwrap_or(()))?;
    ///
    /// let task = runtime.spawn(async { time::sleep(Duration::from_millis(5)).await });
    /// while !task.is_finished() {
    ///     match events.recv().expect("the runtime lives") {
    ///         Event::Turn => runtime.turn(Some(Duration::ZERO))?,
    ///     };
    /// }
    /// # Ok(())
    /// # }
    /// # #[cfg(mio_unsupported_force_poll_poll)]
    /// # fn main() {}
    /// ```
    ///
    /// `f` may use a [`Handle`](crate::Handle), but must not wait for the runtime nor for the thread
    /// that drops the runtime. A selector of your own must keep the descriptor that it has now. If `f`
    /// panics, that is logged, and `f` is called again after the next turn.
    ///
    /// # Errors
    ///
    /// `Unsupported` if the selector has no descriptor, as under poll(2); `AlreadyExists` the second
    /// time; the system's, when it has no descriptor or thread to spare.
    pub fn notify_host(&self, mut f: impl FnMut() + Send + 'static) -> io::Result<()> {
        let scheduler = &self.scheduler;
        scheduler.remote.process.check("runtime")?;
        if scheduler.host.borrow().is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let fd = scheduler.reactor.with_fd(|fd| fd.try_clone_to_owned());
        let fd = fd.ok_or(io::ErrorKind::Unsupported)??;
        let poll = Poll::new()?;
        let raw = fd.as_raw_fd();
        poll.registry()
            .register(&mut SourceFd(&raw), RUNTIME, Interest::READABLE)?;
        let shared = Arc::new(Shared {
            state: Mutex::new(HostState::Turning),
            waker: Waker::new(poll.registry(), CHANGED)?,
        });
        let watched = shared.clone();
        let builder = thread::Builder::new().name("netpoller host".into());
        let thread = builder.spawn(move || watched.watch(poll, &fd, &mut f))?;
        scheduler.host.replace(Some(Host { shared, thread }));
        // Inside a turn, the end of that turn says how long the host may sleep.
        if current::at_home(&scheduler.remote, |_| ()).is_none() {
            scheduler.reactor.core.clock.read();
            scheduler.turn_ended();
        }
        Ok(())
    }
}

impl Scheduler {
    /// A turn begins. The host is not called for what comes during it.
    pub(super) fn turn_began(&self) {
        if let Some(host) = &*self.host.borrow() {
            self.reactor.core.host_sleeps.set(false);
            let before = mem::replace(&mut *lock(&host.shared.state), HostState::Turning);
            debug_assert!(before != HostState::Gone, "no turn comes after the end");
        }
    }

    /// A turn has ended.
    pub(super) fn turn_ended(&self) {
        if self.host.borrow().is_some() {
            // A clock of the user's may panic: the host's turn will say so.
            let wait = catch(|| self.next_timeout()).unwrap_or(Some(Duration::ZERO));
            let wait = wait.map_or(LONG, |wait| wait.min(LONG));
            self.reactor.core.host_sleeps.set(true);
            self.tell_host(HostState::Sleeping(Instant::now() + wait));
        }
    }

    fn tell_host(&self, state: HostState) {
        // A child of fork has no such thread, and the lock may be held for ever.
        if let Some(host) = &*self.host.borrow()
            && !self.remote.is_inherited()
        {
            *lock(&host.shared.state) = state;
            host.thread.thread().unpark();
            if let Err(error) = host.shared.waker.wake() {
                log::error!("can't tell the thread that calls the host: {error}");
            }
        }
    }

    /// The runtime ends, and the host is not called any more.
    pub(super) fn forget_host(&self) {
        self.tell_host(HostState::Gone);
    }

    /// Waits for the thread, which drops `f`. The machines and the mail are dropped before this, so an `f`
    /// that waits for them returns.
    pub(super) fn end_host(&self) {
        if let Some(host) = self.host.take() {
            match self.remote.is_inherited() {
                true => mem::forget(host),
                // `join` returns an error if a destructor in `f` panicked. Dropping the error may panic too.
                false => drop(drop_quietly(host.thread.join())),
            }
        }
    }
}
