//! The root: `block_on`'s own future, which lies on the caller's stack.
//!
//! May touch: what its parent does. Mirrors `main.main`, the goroutine the program lives as long as.

use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::Scheduler;
use crate::runtime::context::{self, Entered};
use crate::runtime::machine::MachineId;
use crate::runtime::waker::MachineWaker;

/// The future of `block_on`.
///
/// | state | meaning | on to |
/// |---|---|---|
/// | Absent | no `block_on` is under way | Idle, when one begins |
/// | Idle | it waits, or is polled | Queued, by a waker; Absent, at its end |
/// | Queued | its id stands in a queue | Idle, when it is polled; Absent, at its end |
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Root {
    Absent,
    Idle,
    Queued,
}

/// There is a root while this lives: it ends with a panic, too.
struct Rooted<'a>(&'a Scheduler);

impl<'a> Rooted<'a> {
    fn new(scheduler: &'a Scheduler) -> Self {
        scheduler.root.set(Root::Idle);
        Rooted(scheduler)
    }
}

impl Drop for Rooted<'_> {
    fn drop(&mut self) {
        // Of calls that never turn, none leaves an id behind.
        if self.0.root.replace(Root::Absent) == Root::Queued {
            for queue in [&self.0.queue, &self.0.woken] {
                queue.borrow_mut().retain(|&id| id != MachineId::ROOT);
            }
        }
    }
}

impl Scheduler {
    /// Whether there is a root, and it is in no queue. From here on it counts as queued. Its wakers
    /// may outlive it: then they wake nothing, and no host's loop is kept from sleeping.
    pub(super) fn mark_root_queued(&self) -> bool {
        let is_idle = self.root.get() == Root::Idle;
        if is_idle {
            self.root.set(Root::Queued);
        }
        is_idle
    }

    /// Its id came up in the queue.
    #[cold]
    #[inline(never)]
    pub(super) fn run_root(&self, root: &mut dyn FnMut() -> Poll<()>) -> Poll<()> {
        if self.root.get() != Root::Queued {
            return Poll::Pending;
        }
        self.root.set(Root::Idle);
        root()
    }

    pub(crate) fn block_on<F: Future>(self: &Rc<Self>, future: F) -> F::Output {
        let _entered = Entered::new(self);
        let _rooted = Rooted::new(self);
        let mut future = std::pin::pin!(future);
        let waker = MachineWaker::waker(MachineId::ROOT, &self.remote);
        let mut output = None;
        let mut poll = || {
            context::begin(MachineId::ROOT, &waker);
            let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            context::end();
            polled.map(|returned| output = Some(returned))
        };
        // At first before everything else, and then in its turn, as a machine.
        let mut polled = poll();
        while polled.is_pending() {
            let mut root = || {
                polled = poll();
                polled
            };
            if let Err(error) = self.turn(None, &mut root) {
                panic!("netpoller: the selector failed, and nothing can go on: {error}");
            }
        }
        output.expect("it was ready")
    }
}
