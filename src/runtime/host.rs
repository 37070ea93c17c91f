//! A host that can't watch a descriptor: a thread watches it, and calls the host when a turn is due.

// Go has no counterpart: there the scheduler is the host.
//
// | state | meaning | moved there by | on to |
// |---|---|---|---|
// | Turning | a turn is under way, or the host was called and has not turned yet | the start of a turn; the thread, just before it calls | Sleeping, Gone |
// | Sleeping | the host sleeps, and is called when the descriptor is readable or this instant has come | the end of a turn; between two turns, what is due sooner (`Core::hasten`) | Turning, Gone |
// | Gone | the runtime ends | its drop | never |

use std::cell::Cell;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;

use super::Runtime;
use super::current;
use super::panics::catch;
use super::scheduler::Scheduler;
use super::waker::INHERITED;
use crate::reactor::{Break, MioSelector, Readiness, Selector};
use crate::sys::Process;
use crate::wheel::Tick;

/// How long the thread sleeps where nothing is to come but readiness.
const LONG: Duration = Duration::from_secs(365 * 24 * 3600);

const RUNTIME: mio::Token = mio::Token(0);

/// The runtime's side.
pub(super) struct Host {
    shared: Arc<Shared>,
    /// Until the runtime has ended, and has waited for the thread.
    thread: Cell<Option<thread::JoinHandle<()>>>,
}

struct Shared {
    now: Mutex<Now>,
    /// The thread waits for it in Turning.
    changed: Condvar,
    /// Ends the thread's wait in its selector.
    breaker: Arc<dyn Break>,
    /// In a child of fork the thread is not there, and the lock may be held for ever.
    process: Process,
}

struct Now {
    state: State,
    /// Turns so far. The thread forgets what it saw before the last one.
    turns: u64,
    /// Until when the thread waits in its selector, while it does.
    waits_until: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Turning,
    Sleeping(Instant),
    Gone,
}

fn sleeping(wait: Option<Duration>) -> State {
    let wait = wait.map_or(LONG, |wait| wait.min(LONG));
    State::Sleeping(Instant::now() + wait)
}

impl Shared {
    fn now(&self) -> MutexGuard<'_, Now> {
        // Nothing panics under the lock.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, next: impl FnOnce(State) -> State) {
        if !self.process.is_current() {
            return;
        }
        let mut now = self.now();
        let before = now.state;
        if before == State::Gone {
            return;
        }
        now.state = next(before);
        let (state, waits_until) = (now.state, now.waits_until);
        now.turns += u64::from(state == State::Turning);
        drop(now);
        match (state, waits_until) {
            (State::Turning, _) => {}
            (_, None) => self.changed.notify_one(),
            // A wait that ends early is begun anew, so it is broken only if it would end late.
            (State::Sleeping(until), Some(end)) if end <= until => {}
            _ => {
                if let Err(error) = self.breaker.break_netpoll() {
                    log::error!("can't tell the thread that calls the host: {error}");
                }
            }
        }
    }

    /// The thread: calls the host when a turn is due, until the runtime is gone.
    fn watch(&self, mut selector: MioSelector, runtime: &OwnedFd, call: &mut dyn FnMut()) {
        let fd = runtime.as_raw_fd();
        let mut events = Vec::new();
        let mut now = self.now();
        loop {
            let until = match now.state {
                State::Gone => return,
                State::Sleeping(until) => until,
                State::Turning => {
                    let woken = self.changed.wait(now);
                    now = woken.unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
            };
            now.waits_until = Some(until);
            let turns = now.turns;
            drop(now);

            // Armed anew before each wait: so what was there before is reported too.
            events.clear();
            let wait = until.saturating_duration_since(Instant::now());
            let waited = selector
                .rearm(&mut SourceFd(&fd), RUNTIME.into(), Readiness::READ)
                .and_then(|()| selector.netpoll(Some(wait), &mut events));
            let mut is_due = events.iter().any(|event| event.token == RUNTIME.into());
            if let Err(error) = waited {
                // The host turns, and so looks itself.
                log::error!("can't watch the runtime for its host: {error}");
                is_due = true;
            }

            now = self.now();
            now.waits_until = None;
            let State::Sleeping(until) = now.state else {
                continue;
            };
            is_due &= now.turns == turns;
            if is_due || until <= Instant::now() {
                now.state = State::Turning;
                drop(now);
                if catch(&mut *call).is_err() {
                    log::error!("the host panicked when it was called; it is called again");
                }
                now = self.now();
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
    /// not again before the next turn has ended. It stays until the runtime is dropped.
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
    /// that drops it. While it runs, the host is not called again. If it panics, that is logged, and
    /// it is called again after the next turn.
    ///
    /// # Errors
    ///
    /// `Unsupported` where the selector has no descriptor, as under poll(2); `AlreadyExists` the
    /// second time; the system's, when it has no descriptor or thread to spare.
    pub fn notify_host(&self, mut f: impl FnMut() + Send + 'static) -> io::Result<()> {
        let scheduler = &self.scheduler;
        if scheduler.remote.is_inherited() {
            return Err(io::Error::other(INHERITED));
        }
        if scheduler.host.get().is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let fd = scheduler.reactor.with_fd(|fd| fd.try_clone_to_owned());
        let fd = fd.ok_or(io::ErrorKind::Unsupported)??;
        let selector = MioSelector::new()?;
        let shared = Arc::new(Shared {
            now: Mutex::new(Now {
                state: State::Turning,
                turns: 0,
                waits_until: None,
            }),
            changed: Condvar::new(),
            breaker: selector.breaker(),
            process: Process::current(),
        });
        let its = shared.clone();
        let thread = thread::Builder::new().name("netpoller host".into());
        let thread = thread.spawn(move || its.watch(selector, &fd, &mut f))?;
        let core = scheduler.reactor.core();
        let sooner = shared.clone();
        // Both are set here alone, and once.
        let tell = move |wait| {
            sooner.change(|state| match state {
                State::Sleeping(_) => sleeping(Some(wait)),
                // It has been called, and turns.
                other => other,
            });
        };
        let _ = core.tell_host.set(Box::new(tell));
        let thread = Cell::new(Some(thread));
        let _ = scheduler.host.set(Host { shared, thread });
        // Inside a turn, the end of that tells how long the host may sleep.
        if current::at_home(&scheduler.remote, |_| ()).is_none() {
            core.clock.read();
            scheduler.host_sleeps();
        }
        Ok(())
    }
}

impl Scheduler {
    /// A turn begins. For what comes meanwhile the host is not called.
    #[inline]
    pub(super) fn host_turns(&self) {
        if let Some(host) = self.host.get() {
            self.reactor.core().host_sleeps.set(Tick::ZERO);
            host.shared.change(|_| State::Turning);
        }
    }

    /// A turn has ended.
    #[inline]
    pub(super) fn host_sleeps(&self) {
        if let Some(host) = self.host.get() {
            let (wait, core) = (self.next_timeout(), self.reactor.core());
            let until = wait.map(|wait| core.clock.tick_of(core.clock.now() + wait));
            core.host_sleeps.set(until.unwrap_or(Tick::MAX));
            host.shared.change(|_| sleeping(wait));
        }
    }

    /// The runtime ends, and the host is not called any more.
    pub(super) fn forget_host(&self) {
        if let Some(host) = self.host.get() {
            host.shared.change(|_| State::Gone);
        }
    }

    /// Waits for the thread, which drops `f`. The runtime's machines and mail are gone by then: `f`
    /// may have waited for them.
    pub(super) fn end_host(&self) {
        if let Some(host) = self.host.get() {
            let thread = host.thread.take();
            match host.shared.process.is_current() {
                true => drop(thread.map(thread::JoinHandle::join)),
                false => mem::forget(thread),
            }
        }
    }
}
