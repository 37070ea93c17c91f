//! Reading into the loop's own buffer, which is lent to a closure.
//!
//! May touch: fd/, the lent buffer. Go has no counterpart: there, whoever waits holds a buffer.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::net::fd::Fd;
use crate::reactor::Direction;
use crate::runtime::lent;
use crate::runtime::resource::Hold;
use crate::sys::ErrorNumber;

/// [`Stream::read_with`](super::Stream::read_with). The way of a busy connection is written straight, and everything else is
/// out of its way: that halves the instructions of an echo.
pub(super) struct ReadWith<'a, F> {
    fd: &'a Fd,
    hold: Hold,
    f: Option<F>,
}

impl<'a, F> ReadWith<'a, F> {
    #[inline]
    pub(super) fn new(fd: &'a Fd, f: F) -> Self {
        ReadWith {
            fd,
            hold: Hold::Free,
            f: Some(f),
        }
    }
}

impl<F> Unpin for ReadWith<'_, F> {}

impl<F: FnOnce(&[u8]) -> R, R> Future for ReadWith<'_, F> {
    type Output = io::Result<R>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let (buffer, got) = 'got: {
            let mut met = None;
            match this.hold {
                // Woken, and there is something.
                Hold::Parked if this.fd.may_try(Direction::Read) => {
                    let mut buffer = lent::take();
                    match this.fd.resource().handle.receive(&mut buffer[..]).result() {
                        Ok(got) => break 'got (buffer, got),
                        Err(number) => met = Some(number),
                    }
                    lent::give_back(buffer);
                }
                // Come round again, and there is nothing yet.
                Hold::Free if this.fd.park_at_once(Direction::Read, cx.waker()) => {
                    this.hold = Hold::Parked;
                    return Poll::Pending;
                }
                _ => {}
            }
            match this.fd.poll_read_with_care(&mut this.hold, cx, met) {
                Poll::Ready(Ok(got)) => got,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        };
        let fd = this.fd;
        fd.moved_and_done(Direction::Read, got, lent::LENGTH, &mut this.hold);
        let f = this.f.take();
        let f = f.expect("an operation that is done is not polled");
        let result = f(&buffer[..got]);
        lent::give_back(buffer);
        Poll::Ready(Ok(result))
    }
}

impl Fd {
    /// [`ReadWith`]'s other ways: what it reads lies in the buffer, and it still has the direction.
    #[cold]
    #[inline(never)]
    fn poll_read_with_care(
        &self,
        hold: &mut Hold,
        cx: &mut Context<'_>,
        mut met: Option<ErrorNumber>,
    ) -> Poll<io::Result<(lent::Buffer, usize)>> {
        let mut buffer = lent::take();
        let read = |fd: &Fd| match met.take() {
            // The system tells a reset once, and then speaks of an end of file.
            Some(number) => Err(number.into()),
            None => fd.receive(&mut buffer[..]),
        };
        let failure = match self.poll_step(Direction::Read, hold, cx, read) {
            Poll::Ready(Ok(got)) => return Poll::Ready(Ok((buffer, got))),
            Poll::Ready(Err(failure)) => Some(failure),
            Poll::Pending => None,
        };
        lent::give_back(buffer);
        match failure {
            None => Poll::Pending,
            Some(failure) => {
                self.resource().release(Direction::Read, hold);
                Poll::Ready(Err(self.error("read", failure, 0)))
            }
        }
    }
}

impl<F> Drop for ReadWith<'_, F> {
    #[inline]
    fn drop(&mut self) {
        if self.hold != Hold::Free {
            self.fd.give_up(Direction::Read, &mut self.hold);
        }
    }
}
