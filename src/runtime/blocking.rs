//! Threads for work that blocks: three lanes, each with its own bound.
//!
//! | lane | work | bound |
//! |---|---|---|
//! | [`look_ups`] | name look-ups; one for the process | 64 threads |
//! | [`closes`] | closes that linger; one for the process | 64 threads |
//! | of a runtime | that of `spawn_blocking`; one for each runtime | `Builder::blocking_threads` |
//!
//! Each kind of work has a bound of its own: a lane that is full delays its own work alone. A lane
//! starts a thread only when work comes for which none is idle, since a second thread makes each `send`
//! and `recv` of glibc slower. A thread ends after ten idle seconds, a runtime's also once the runtime is
//! gone and no work is left. No thread holds up a loop or the exit of the process. A child of fork(2) has
//! none of its parent's threads, so it begins with new lanes.

// Mirrors Go's `acquireThread` (`net/net.go`), which bounds look-ups alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::current;
use super::join::{JoinError, Receiver, channel};
use super::panics::catch;
use super::sync::lock;
use crate::sys::{PerProcess, Process};

/// Threads of a lane at most, unless the user says otherwise. Go allows 500 for cgo look-ups.
pub(crate) const MAX_THREADS: usize = 64;

/// How long a thread waits for work before it ends.
const IDLE: Duration = Duration::from_secs(10);

pub(crate) type Work = Box<dyn FnOnce() + Send>;

/// Names a piece of work of a lane.
pub(crate) type WorkId = u64;

/// Threads that share a queue and a bound.
pub(crate) struct Lane {
    max_threads: usize,
    /// The process that started these threads.
    process: Process,
    state: Mutex<LaneState>,
    /// Notified for each piece of work for which no thread is started.
    work: Condvar,
    /// Notified when `unfinished` falls to zero.
    finished: Condvar,
}

#[derive(Default)]
struct LaneState {
    /// In the order in which it was given.
    queue: BTreeMap<WorkId, Work>,
    /// How many pieces of work were given so far.
    given: WorkId,
    /// Threads that live, those about to start included.
    threads: usize,
    /// Threads that wait on `Lane::work`.
    idle: usize,
    /// Pieces of work that are queued or under way.
    unfinished: usize,
    /// Each thread ends once there is no work for it: the runtime is gone.
    is_closed: bool,
}

/// The lane of name look-ups.
pub(crate) fn look_ups() -> &'static Arc<Lane> {
    static LANE: PerProcess<Arc<Lane>> = PerProcess::new();
    LANE.get(|| Lane::new(MAX_THREADS))
}

/// The lane of closes that linger.
pub(crate) fn closes() -> &'static Arc<Lane> {
    static LANE: PerProcess<Arc<Lane>> = PerProcess::new();
    LANE.get(|| Lane::new(MAX_THREADS))
}

impl Lane {
    pub(crate) fn new(max_threads: usize) -> Arc<Self> {
        debug_assert!(max_threads > 0, "work would never run");
        Arc::new(Lane {
            max_threads,
            process: Process::current(),
            state: Mutex::default(),
            work: Condvar::new(),
            finished: Condvar::new(),
        })
    }

    /// Runs `work` on a thread of the lane. Work begins in the order in which it was given.
    ///
    /// If the system can't start a thread and the lane has none, the work runs on the calling thread,
    /// which blocks.
    pub(crate) fn run(self: &Arc<Self>, work: Work) -> WorkId {
        let mut state = lock(&self.state);
        state.given += 1;
        let id = state.given;
        state.queue.insert(id, work);
        state.unfinished += 1;
        if state.idle >= state.queue.len() || state.threads >= self.max_threads {
            self.work.notify_one();
            return id;
        }
        state.threads += 1;
        debug_assert!(state.idle < state.threads);
        drop(state);
        let lane = self.clone();
        let started = thread::Builder::new()
            .name("netpoller-blocking".into())
            .spawn(move || lane.serve());
        if let Err(error) = started {
            log::warn!("can't start a thread for blocking work: {error}");
            let mut state = lock(&self.state);
            state.threads -= 1;
            while state.threads == 0
                && let Some((_, work)) = state.queue.pop_first()
            {
                drop(state);
                state = self.perform(work);
            }
        }
        id
    }

    /// Does one piece of work, and locks the lane again.
    fn perform(&self, work: Work) -> MutexGuard<'_, LaneState> {
        if catch(work).is_err() {
            log::error!("a destructor of blocking work panicked");
        }
        let mut state = lock(&self.state);
        debug_assert!(state.unfinished > 0, "it was counted when it came");
        state.unfinished -= 1;
        debug_assert!(state.unfinished >= state.queue.len());
        if state.unfinished == 0 {
            self.finished.notify_all();
        }
        state
    }

    /// A thread of the lane.
    fn serve(&self) {
        let mut state = lock(&self.state);
        loop {
            if let Some((_, work)) = state.queue.pop_first() {
                drop(state);
                state = self.perform(work);
                continue;
            }
            if state.is_closed {
                break;
            }
            state.idle += 1;
            let waited = self.work.wait_timeout(state, IDLE);
            let (woken, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            debug_assert!((1..=state.threads).contains(&state.idle));
            state.idle -= 1;
            // If work came as the wait timed out, it is done before the thread ends.
            if waited.timed_out() && state.queue.is_empty() {
                break;
            }
        }
        debug_assert!(state.idle < state.threads, "this one is not idle");
        state.threads -= 1;
    }

    /// `None` in a child of fork, which has no such threads, and where the mutex may be locked for ever.
    fn state(&self) -> Option<MutexGuard<'_, LaneState>> {
        self.process.is_current().then(|| lock(&self.state))
    }

    /// Ends its threads, each once there is no work for it.
    pub(crate) fn close(&self) {
        if let Some(mut state) = self.state() {
            state.is_closed = true;
            self.work.notify_all();
        }
    }

    /// Its threads, and the pieces of work that are queued or under way.
    pub(crate) fn figures(&self) -> [usize; 2] {
        let state = self.state();
        state.map_or([0, 0], |state| [state.threads, state.unfinished])
    }

    /// Blocks this thread until all work is done or `limit` has passed. Returns whether all of it is
    /// done; false in a child of fork.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let Some(state) = self.state() else {
            return false;
        };
        let waited = (self.finished).wait_timeout_while(state, limit, |state| state.unfinished > 0);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

/// Dropping this removes the work from the queue, if it has not begun.
pub(crate) struct CancelOnDrop<'a>(pub(crate) &'a Lane, pub(crate) WorkId);

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        let CancelOnDrop(lane, id) = self;
        let work = lane.state().and_then(|mut state| state.queue.remove(id));
        if let Some(work) = work {
            drop(lane.perform(Box::new(|| drop(work))));
        }
    }
}

/// Runs `work` on a lane, for a future of the runtime that is entered on this thread.
///
/// A virtual clock of that runtime does not jump before the work has ended. Dropping the receiver
/// lets the work run on: see [`CancelOnDrop`].
///
/// # Panics
///
/// Outside a runtime, saying that `what` was called.
#[track_caller]
pub(crate) fn call<T: Send + 'static>(
    what: &str,
    lane: &Arc<Lane>,
    work: impl FnOnce() -> T + Send + 'static,
) -> (Receiver<T>, WorkId) {
    let out = current::with(what, |scheduler| scheduler.remote.begin_work());
    let (sender, outcome) = channel();
    let id = lane.run(Box::new(move || {
        sender.send(catch(work).map_err(JoinError::panicked));
        // Dropped after the wake, so that a virtual clock sees the waiter before it may jump.
        drop(out);
    }));
    (outcome, id)
}
