//! fork(2): which process made something, and values that each process has of its own.
//!
//! A child inherits memory and descriptors, and no thread but the one that forked. So what needs other
//! threads starts anew in a child, and an inherited runtime, which shares the kernel's registrations
//! with its parent, is not used there.

// Go has no counterpart: a Go program can't fork without exec.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

/// How many forks lie between this process and its ancestor that first called `current`. Children count
/// them.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Whether forks are noticed. Not a `Once`: a child could inherit one in progress.
static IS_WATCHED: AtomicBool = AtomicBool::new(false);

/// A process: the one that made something, or this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(u32);

impl Process {
    /// This process. From the first call on, forks are seen.
    pub(crate) fn current() -> Process {
        if !IS_WATCHED.load(Ordering::Acquire) {
            // SAFETY: the handler is a plain function that lives as long as the process. It runs
            // after fork, and does an atomic store alone, which is async-signal-safe. Two threads may
            // both come here: then a fork counts twice, which does no harm.
            unsafe { libc::pthread_atfork(None, None, Some(is_forked)) };
            IS_WATCHED.store(true, Ordering::Release);
        }
        Process(FORKS.load(Ordering::Relaxed))
    }

    /// Fails in a child of it. `what` was made before the fork.
    pub(crate) fn check(&self, what: &str) -> io::Result<()> {
        match self.is_current() {
            true => Ok(()),
            false => Err(io::Error::other(format!(
                "netpoller: this {what} belongs to the parent process: after fork(2), make a new one in the child"
            ))),
        }
    }

    /// Whether it is this process.
    pub(crate) fn is_current(&self) -> bool {
        self.0 == FORKS.load(Ordering::Relaxed)
    }
}

/// Runs in the child.
extern "C" fn is_forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// A static that each process makes for itself. What a child inherits is left alone and never
/// dropped: a thread that does not exist any more may have been changing it.
pub(crate) struct PerProcess<T: 'static>(AtomicPtr<Made<T>>);

struct Made<T> {
    process: Process,
    value: T,
}

impl<T: Send + Sync> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        PerProcess(AtomicPtr::new(ptr::null_mut()))
    }

    /// This process's value, which `make` makes if there is none yet. Of two threads that both make
    /// one, the first wins, and the other's is forgotten.
    pub(crate) fn get(&'static self, make: impl Fn() -> T) -> &'static T {
        let process = Process::current();
        loop {
            let known = self.0.load(Ordering::Acquire);
            // SAFETY: null, or a value that was published below and is never freed or changed.
            if let Some(made) = unsafe { known.as_ref() }
                && made.process == process
            {
                return &made.value;
            }
            let value = make();
            let new = Box::into_raw(Box::new(Made { process, value }));
            let (order, failed) = (Ordering::AcqRel, Ordering::Acquire);
            let _ = self.0.compare_exchange(known, new, order, failed);
        }
    }
}
