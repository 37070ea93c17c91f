//! A few threads for what can't be done without blocking: getaddrinfo, a lingering close.
//!
//! May touch: std's threads. The pool is the process's, its threads are started when first needed
//! (a second thread makes glibc's every send and recv dearer), end after ten idle seconds, and
//! hold up neither a loop nor the process's exit. Mirrors Go's `acquireThread` (`net/net.go`).

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Go allows 500 for cgo look-ups; ours are shared by the process and rarely more than a few.
const MOST_THREADS: usize = 64;
const IDLE: Duration = Duration::from_secs(10);

pub(crate) type Work = Box<dyn FnOnce() + Send>;

struct Pool {
    queue: VecDeque<Work>,
    threads: usize,
    idle: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    queue: VecDeque::new(),
    threads: 0,
    idle: 0,
});
static WORK: Condvar = Condvar::new();

fn pool() -> MutexGuard<'static, Pool> {
    // No work runs under the lock.
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `work` on a thread of the pool, in the order of asking as threads become free.
///
/// If no thread at all can be had, it runs here: late is better than never.
pub(crate) fn run(work: Work) {
    let mut pool = pool();
    pool.queue.push_back(work);
    if pool.idle >= pool.queue.len() || pool.threads >= MOST_THREADS {
        return WORK.notify_one();
    }
    pool.threads += 1;
    drop(pool);
    let started = thread::Builder::new()
        .name("netpoller-blocking".into())
        .spawn(serve);
    if let Err(error) = started {
        log::warn!("can't start a thread for blocking work: {error}");
        thread_gone();
    }
}

/// A thread could not be started. Others will do the work, or we must.
fn thread_gone() {
    let mut pool = pool();
    pool.threads -= 1;
    if pool.threads > 0 {
        return;
    }
    let stranded: Vec<Work> = pool.queue.drain(..).collect();
    drop(pool);
    for work in stranded {
        work();
    }
}

fn serve() {
    let mut pool = pool();
    loop {
        if let Some(work) = pool.queue.pop_front() {
            drop(pool);
            if panic::catch_unwind(AssertUnwindSafe(work)).is_err() {
                log::error!("blocking work panicked past its own guard");
            }
            pool = self::pool();
            continue;
        }
        pool.idle += 1;
        let (woken, waited) = WORK
            .wait_timeout(pool, IDLE)
            .unwrap_or_else(PoisonError::into_inner);
        pool = woken;
        pool.idle -= 1;
        if waited.timed_out() && pool.queue.is_empty() {
            pool.threads -= 1;
            return;
        }
    }
}
