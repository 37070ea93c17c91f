//! An operation as a future: one try or several, under one lock. Also one poll of futures-io, where no
//! future lives between two polls.

// Go has a method for each (`FD.Read`, `FD.Accept`, ...), and nothing like futures-io.

use std::future::Future;
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use super::{Claim, Failure, Fd, Name};
use crate::net::error::with_written;
use crate::reactor::{Direction, May};
use crate::runtime::context::{self, ParkKey};

/// One operation as a future: [`Fd::op`], [`Fd::steps`].
pub(crate) struct Op<'a, F> {
    claim: Claim<'a>,
    name: Name,
    pub(super) needs: Needs,
    /// How many bytes its tries have moved so far. The error of a write says it.
    moved: usize,
    attempt: F,
}

/// What an operation waits for before a try.
#[derive(Clone, Copy)]
pub(crate) enum Needs {
    /// For the lock of its direction, and for readiness.
    Readiness,
    /// For the lock alone.
    Lock,
    /// For nothing: it moves no bytes.
    Nothing,
}

impl Needs {
    pub(crate) fn of(moves_nothing: bool) -> Self {
        match moves_nothing {
            true => Needs::Nothing,
            false => Needs::Readiness,
        }
    }
}

impl Fd {
    /// An operation that ends with the first successful try.
    #[inline]
    pub(crate) fn op<'a, R>(
        &'a self,
        direction: Direction,
        mut attempt: impl FnMut(&Fd) -> io::Result<R>,
    ) -> Op<'a, impl FnMut(&Fd, usize) -> io::Result<ControlFlow<R, usize>>> {
        self.steps(direction, move |fd, _| attempt(fd).map(ControlFlow::Break))
    }

    /// As [`Fd::op`]. If `empty`, it makes the one attempt at once, without the lock and without
    /// readiness. As in Go, a write of zero bytes fails if the deadline has passed, and a read of zero
    /// bytes does not.
    pub(crate) fn op_on<R>(
        &self,
        direction: Direction,
        empty: bool,
        attempt: impl FnMut(&Fd) -> io::Result<R>,
    ) -> impl Future<Output = io::Result<R>> {
        let mut op = self.op(direction, attempt);
        op.needs = Needs::of(empty);
        op
    }

    /// Waits until a try of the direction may succeed, or would report an end of file or an error.
    pub(crate) fn readiness(&self, direction: Direction) -> impl Future<Output = io::Result<()>> {
        self.op(direction, |_| {
            context::charge(0);
            Ok(())
        })
    }

    /// Tries until `length` bytes have moved; no other operation that locks the direction comes between.
    /// A try is told how many bytes moved before it.
    pub(crate) fn move_all(
        &self,
        direction: Direction,
        length: usize,
        mut attempt: impl FnMut(&Fd, usize) -> io::Result<usize>,
    ) -> impl Future<Output = io::Result<()>> {
        let nothing = match direction {
            Direction::Read => io::ErrorKind::UnexpectedEof,
            // An error in Go too: otherwise it would be tried for ever.
            Direction::Write => io::ErrorKind::WriteZero,
        };
        let mut steps = self.steps(direction, move |fd, moved| match attempt(fd, moved)? {
            more if moved + more == length => Ok(ControlFlow::Break(())),
            0 => Err(nothing.into()),
            more => Ok(ControlFlow::Continue(more)),
        });
        steps.needs = Needs::of(length == 0);
        steps
    }

    /// An operation of several tries that holds the lock until the last. `attempt` is told how many bytes
    /// moved before it. It says how many more did, or ends the operation by a `Break`.
    #[inline]
    pub(crate) fn steps<'a, R, F>(&'a self, direction: Direction, attempt: F) -> Op<'a, F>
    where
        F: FnMut(&Fd, usize) -> io::Result<ControlFlow<R, usize>>,
    {
        Op {
            claim: Claim::new(self, direction),
            name: Name::of(direction),
            needs: Needs::Readiness,
            moved: 0,
            attempt,
        }
    }
}

impl<F> Op<'_, F> {
    /// Gives it a name that is not its direction's.
    pub(crate) fn named(mut self, name: Name) -> Self {
        self.name = name;
        self
    }
}

// Nothing in it is ever pinned: an operation holds borrows and plain values.
impl<F> Unpin for Op<'_, F> {}

impl<F, R> Future for Op<'_, F>
where
    F: FnMut(&Fd, usize) -> io::Result<ControlFlow<R, usize>>,
{
    type Output = io::Result<R>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let ended = loop {
            let attempt = |fd: &Fd| (this.attempt)(fd, this.moved);
            let step = match this.needs {
                Needs::Readiness => this.claim.poll_step(cx, attempt),
                needs => this.claim.poll_at_once(needs, cx, attempt),
            };
            match ready!(step) {
                Ok(ControlFlow::Continue(more)) => this.moved += more,
                Ok(ControlFlow::Break(done)) => break Ok(done),
                Err(failure) => break Err(failure),
            }
        };
        this.claim.release();
        Poll::Ready(ended.map_err(|failure| {
            let error = this.claim.fd.error(this.name.text(), failure);
            match this.name {
                Name::Write => with_written(error, this.moved),
                _ => error,
            }
        }))
    }
}

impl Claim<'_> {
    /// As [`Claim::poll_step`], without waiting for readiness. It may yield.
    fn poll_at_once<R>(
        &mut self,
        needs: Needs,
        cx: &Context<'_>,
        attempt: impl FnOnce(&Fd) -> io::Result<R>,
    ) -> Poll<Result<R, Failure>> {
        let (fd, direction) = (self.fd, self.direction);
        let needs_lock = matches!(needs, Needs::Lock);
        if needs_lock && !fd.socket().lock(direction, &mut self.lock, cx.waker()) {
            return self.poll_refused(cx);
        }
        ready!(self.poll_yield(cx));
        let checked = match direction {
            Direction::Write if !needs_lock => fd.desc.check(direction).map_err(Failure::Refused),
            _ => fd.check_open(),
        };
        Poll::Ready(checked.and_then(|()| attempt(fd).map_err(Failure::System)))
    }
}

impl Fd {
    /// One poll by a caller of `poll_read` or `poll_write`. If an operation holds the lock, waits for it;
    /// if not, tries, and parks without the lock.
    pub(crate) fn poll_unheld<R>(
        &self,
        direction: Direction,
        name: &'static str,
        needs: Needs,
        cx: &Context<'_>,
        mut attempt: impl FnMut(&Fd) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        let socket = &self.desc.user_data;
        // Cloned first: cloning may run any code.
        let waker = cx.waker().clone();
        // If another task's poller waits here, the last wins.
        let other = socket.take_poller(direction);
        drop(other.and_then(ParkKey::take_waker));
        let mut claim = Claim::new(self, direction);
        claim.yielded = socket.take_poller_yielded(direction);
        let polled = match needs {
            Needs::Readiness if !socket.is_locked(direction) => claim.poll_step(cx, attempt),
            Needs::Readiness if fault!("heartbeat_inside_message") => {
                attempt(self).map_or(Poll::Pending, |done| Poll::Ready(Ok(done)))
            }
            Needs::Readiness | Needs::Lock if socket.is_locked(direction) => claim.poll_refused(cx),
            needs => claim.poll_at_once(needs, cx, attempt),
        };
        // It holds the lock only while it is polled.
        claim.release();
        if polled.is_pending() {
            self.keep_poller(direction, waker);
            if claim.yielded {
                socket.note_poller_yielded(direction);
            }
        }
        polled.map_err(|failure| self.error(name, failure))
    }

    /// Stores the key of a poller's waker in `SocketExtra::pollers`, where an operation that locks the
    /// direction finds it; and also in the slot if the direction is not locked and not ready. Both have the
    /// same key, so that the waker is woken once. It replaces the key that `poll_step` parked.
    fn keep_poller(&self, direction: Direction, waker: Waker) {
        let poller = ParkKey::keep(waker);
        self.socket().keep_poller(direction, poller);
        if !self.socket().is_locked(direction) && self.desc.may_try(direction) == May::Wait {
            let before = self.desc.park_waiting(direction, poller);
            drop(before.and_then(ParkKey::take_waker));
        }
    }
}
