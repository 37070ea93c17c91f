//! Waking machines: from this thread straight into the queue, from any other through the mail.

// Mirrors `goready`, and `netpollBreak` with its one pending wake-up (`netpollWakeSig`).
//
// | `Remote::pending` | meaning | moved there by | on to |
// |---|---|---|---|
// | NO_BREAK | no break is pending, and no mail waits, except what is being put in or taken just now | `take_mail` | ON_ITS_WAY by `interrupt` |
// | ON_ITS_WAY | the loop will take the mail without another break: one is on its way, or the loop left jobs | `interrupt`; `take_mail` that leaves jobs | NO_BREAK by `take_mail`; FAILED if the break fails |
// | FAILED | the break failed: the next turn takes the mail, and the next wake calls `break_netpoll` again | `interrupt` | ON_ITS_WAY by `interrupt`; NO_BREAK by `take_mail` |

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Wake, Waker};
use std::thread::{self, ThreadId};

use super::blocking::Lane;
use super::current;
use super::machine::MachineId;
use super::panics::catch;
use super::running::Running;
use super::sync::{AtomicBool, AtomicU8, AtomicUsize, Mutex, MutexGuard, lock};
use crate::reactor::Breaker;
use crate::sys::Process;
use crate::trace::Tape;

/// Something sent to the loop from another thread.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// The largest number of `Mail::jobs` that run in one turn, so that many do not hold the loop up.
const JOBS: usize = 1024;

const NO_BREAK: u8 = 0;
const ON_ITS_WAY: u8 = 1;
const FAILED: u8 = 2;

/// What other threads see of a runtime.
pub(crate) struct Remote {
    mail: Mutex<Mail>,
    /// Whether the loop has to take the mail: see the table above.
    pending: AtomicU8,
    /// Look-ups and work of `spawn_blocking` that have not ended. A virtual clock waits for them.
    pub(crate) work_out: AtomicUsize,
    /// The threads of `spawn_blocking`.
    pub(crate) lane: Arc<Lane>,
    /// What the loop publishes about itself.
    pub(crate) running: Arc<Running>,
    /// What the loop has done.
    #[cfg_attr(not(feature = "trace"), allow(dead_code))]
    pub(super) trace: Tape,
    breaker: Breaker,
    /// The thread that made the runtime. A runtime never moves to another thread.
    pub(super) thread: ThreadId,
    /// The process that made the runtime. A child of fork shares the kernel's side of it, and must
    /// leave it alone.
    pub(super) process: Process,
}

/// Counts a piece of work until its waiter has been woken: see `Remote::work_out`.
pub(crate) struct WorkOut(Arc<Remote>);

impl Drop for WorkOut {
    fn drop(&mut self) {
        let out = self.0.work_out.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(out > 0);
        // A virtual clock that waits for this work checks again.
        self.0.interrupt();
    }
}

#[derive(Default)]
struct Mail {
    /// Each machine's waker once, however often it was woken.
    woken: Vec<Arc<MachineWaker>>,
    /// Jobs of the runtime's own. All of them run in the next turn. Each is short: what another thread has
    /// dropped is removed from a table.
    told: VecDeque<Job>,
    /// Jobs of the user's, and the portions of dumps.
    jobs: VecDeque<Job>,
    closed: bool,
}

impl Mail {
    /// Takes all that were told, and then `max` others at most.
    fn take_jobs(&mut self, max: usize) -> VecDeque<Job> {
        let mut jobs = mem::take(&mut self.told);
        let max = max.min(self.jobs.len());
        jobs.extend(self.jobs.drain(..max));
        jobs
    }
}

impl Remote {
    pub(crate) fn new(breaker: Breaker, lane: Arc<Lane>, trace: Tape) -> Self {
        Remote {
            lane,
            mail: Mutex::default(),
            pending: AtomicU8::new(NO_BREAK),
            work_out: AtomicUsize::new(0),
            running: Arc::default(),
            trace,
            breaker,
            thread: thread::current().id(),
            process: Process::current(),
        }
    }

    /// Whether the runtime belongs to an ancestor of this process.
    pub(crate) fn is_inherited(&self) -> bool {
        !self.process.is_current()
    }

    /// The mail. `None` if the runtime is gone, or of another process: in a child of fork the mutex may
    /// be locked for ever.
    fn mail(&self) -> Option<MutexGuard<'_, Mail>> {
        let mail = (!self.is_inherited()).then(|| lock(&self.mail));
        mail.filter(|mail| !mail.closed)
    }

    fn wake_machine(&self, waker: &Arc<MachineWaker>) {
        if !waker.is_mailed.swap(true, Ordering::AcqRel) {
            self.put(|mail| mail.woken.push(waker.clone()));
        } else if self.pending.load(Ordering::Acquire) == FAILED {
            // It is in the mail, and the last break failed: break again.
            self.interrupt();
        }
    }

    /// Sends a job of the user's, or a portion of a dump. False if the runtime is gone, or of another
    /// process: then the job is dropped.
    pub(crate) fn send(&self, job: Job) -> bool {
        self.put(|mail| mail.jobs.push_back(job))
    }

    /// As [`send`](Remote::send), for a job of the runtime's own. The next turn runs all of them.
    pub(crate) fn tell(&self, job: Job) -> bool {
        self.put(|mail| mail.told.push_back(job))
    }

    /// Puts something into the mail, and makes the loop take it. If that can't be, drops `put`, with nothing
    /// locked.
    fn put(&self, put: impl FnOnce(&mut Mail)) -> bool {
        let Some(mut mail) = self.mail() else {
            return false;
        };
        put(&mut mail);
        drop(mail);
        self.interrupt();
        true
    }

    /// Makes the loop take the mail: call this after the mail was put in. At most one break is pending.
    pub(crate) fn interrupt(&self) {
        // In a child of fork it would wake the parent.
        if self.is_inherited() {
            return;
        }
        // The loop clears the flag before it takes the mail. So either it finds the mail, or this finds
        // the flag cleared and ends the wait.
        if self.pending.swap(ON_ITS_WAY, Ordering::AcqRel) == ON_ITS_WAY {
            return;
        }
        // A selector of the user's may have a break that panics.
        let broken = catch(|| self.breaker.break_netpoll());
        if let Err(error) = broken.unwrap_or_else(|_| Err(io::Error::other("it panicked"))) {
            self.pending.store(FAILED, Ordering::Release);
            log::error!("can't wake the loop from another thread: {error}");
        }
    }

    /// Takes the mail: all wakes, all jobs that were told, and [`JOBS`] others at most. Costs a load if there
    /// is none.
    pub(crate) fn take_mail(&self) -> Option<(Vec<Arc<MachineWaker>>, VecDeque<Job>)> {
        if !self.has_mail() {
            return None;
        }
        // A swap, since a store acquires nothing. If `interrupt` found the flag set, it made no break:
        // this swap makes visible what its thread wrote before, such as the end of a piece of work.
        self.pending.swap(NO_BREAK, Ordering::AcqRel);
        let mut mail = self.mail()?;
        let woken = mem::take(&mut mail.woken);
        let jobs = mail.take_jobs(JOBS);
        // The jobs that are left need no break: while the flag is set, the loop does not sleep.
        if !mail.jobs.is_empty() {
            self.pending.store(ON_ITS_WAY, Ordering::Release);
        }
        drop(mail);
        if fault!("lost_break") {
            self.pending.store(NO_BREAK, Ordering::Release);
        }
        Some((woken, jobs))
    }

    /// How many wakes and how many jobs are in the mail.
    pub(crate) fn mail_waiting(&self) -> [usize; 2] {
        let mail = self.mail();
        mail.map_or([0, 0], |mail| {
            [mail.woken.len(), mail.told.len() + mail.jobs.len()]
        })
    }

    pub(crate) fn has_mail(&self) -> bool {
        self.pending.load(Ordering::Acquire) != NO_BREAK
    }

    /// Counts a piece of work until the returned `WorkOut` is dropped.
    pub(crate) fn begin_work(self: &Arc<Self>) -> WorkOut {
        self.work_out.fetch_add(1, Ordering::AcqRel);
        WorkOut(self.clone())
    }

    /// Refuses mail from now on. The jobs that had come are handed back, to be dropped.
    pub(crate) fn close(&self) -> VecDeque<Job> {
        let Some(mut mail) = self.mail() else {
            return VecDeque::new();
        };
        mail.closed = true;
        // The wakers are dropped under the lock, which runs no code of the user's.
        mail.woken.clear();
        mail.take_jobs(usize::MAX)
    }
}

/// What a machine's [`Waker`] points to.
pub(crate) struct MachineWaker {
    id: MachineId,
    remote: Arc<Remote>,
    /// Set while it is in the mail, so that no number of wakes makes the mail longer.
    is_mailed: AtomicBool,
}

impl MachineWaker {
    pub(crate) fn waker(id: MachineId, remote: &Arc<Remote>) -> Waker {
        Waker::from(Arc::new(MachineWaker {
            id,
            remote: remote.clone(),
            is_mailed: AtomicBool::new(false),
        }))
    }

    /// Called when the loop has taken this out of the mail: the next wake mails it again. A swap, as in
    /// `take_mail`: what a thread wrote before an earlier wake is visible to the machine.
    pub(crate) fn unmail(&self) -> MachineId {
        let was_mailed = self.is_mailed.swap(false, Ordering::AcqRel);
        debug_assert!(was_mailed, "only the loop takes it out");
        self.id
    }
}

impl Wake for MachineWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let here = current::at_home(&self.remote, |scheduler| scheduler.wake(self.id));
        if here.is_none() {
            self.remote.wake_machine(self);
        }
    }
}
