//! The root: `block_on`'s own future, which lies on the caller's stack.
//!
//! May touch: what its parent does. Mirrors `main.main`, the goroutine the program lives as long as.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::Scheduler;
use crate::runtime::context;
use crate::runtime::current::Entered;
use crate::runtime::machine::MachineId;
use crate::runtime::waker::MachineWaker;

/// The future of `block_on`.
///
/// | state | meaning | on to |
/// |---|---|---|
/// | Absent | no `block_on` is under way | Woken, when one begins |
/// | Idle | it waits | Woken, by a waker; Absent, at its end |
/// | Woken | it is to be polled before the next turn | Idle, when it is |
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Root {
    Absent,
    Idle,
    Woken,
}

/// There is a root while this lives: it ends with a panic, too.
struct Rooted<'a>(&'a Cell<Root>);

impl<'a> Rooted<'a> {
    fn new(root: &'a Cell<Root>) -> Self {
        root.set(Root::Woken);
        Rooted(root)
    }
}

impl Drop for Rooted<'_> {
    fn drop(&mut self) {
        self.0.set(Root::Absent);
    }
}

impl Scheduler {
    /// Its wakers may outlive it: then they wake nobody, and no host's loop is kept from sleeping.
    pub(super) fn wake_root(&self) {
        if self.root.get() != Root::Absent {
            self.root.set(Root::Woken);
        }
    }

    pub(crate) fn block_on<F: Future>(self: &Rc<Self>, future: F) -> F::Output {
        let _entered = Entered::new(self);
        let _rooted = Rooted::new(&self.root);
        let mut future = std::pin::pin!(future);
        let waker = MachineWaker::waker(MachineId::ROOT, &self.remote);
        loop {
            if self.root.get() == Root::Woken {
                self.root.set(Root::Idle);
                context::begin(MachineId::ROOT, &waker);
                let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
                context::end();
                if let Poll::Ready(output) = polled {
                    return output;
                }
            }
            if let Err(error) = self.turn(None) {
                panic!("netpoller: the selector failed, and nothing can go on: {error}");
            }
        }
    }
}
