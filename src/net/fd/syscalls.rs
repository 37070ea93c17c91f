//! One function for each system call. Those of streams clear the readiness after a short transfer.

// Mirrors `internal/poll/fd_unix.go` (`FD.Read`, `FD.Write`, `FD.ReadFrom`, `FD.WriteTo`).

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::os::fd::BorrowedFd;

use socket2::SockAddr;

use super::{Failure, Fd, Name};
use crate::reactor::Direction;
use crate::runtime::context;
use crate::sys::{self, Filling, SEND_FLAGS};

impl Fd {
    // ---- the bare calls: nothing is charged, nothing proved ----

    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket().owned.receive(sys::uninit(buffer))
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.socket().owned.send(bytes)
    }

    // ---- streams ----

    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let asked = buffer.len();
        self.transfer(Direction::Read, asked, || self.receive(buffer))
    }

    pub(crate) fn read_uninit(&self, buffer: &mut Filling<'_>) -> io::Result<usize> {
        let asked = buffer.room();
        let file = &self.socket().owned;
        self.transfer(Direction::Read, asked, || buffer.receive(file))
    }

    pub(crate) fn read_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let at_once = sys::at_once(buffers);
        let offered = match &mut buffers[at_once] {
            // `read` limits the length to `MAX_AT_ONCE`.
            [one] => return self.read(one),
            offered => offered,
        };
        let asked = offered.iter().map(|buffer| buffer.len()).sum();
        self.transfer(Direction::Read, asked, || {
            Read::read_vectored(&mut &*self.sock_ref(), offered)
        })
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.transfer(Direction::Write, bytes.len(), || self.send(bytes))
    }

    pub(crate) fn write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let offered = match &buffers[sys::at_once(buffers)] {
            [one] => return self.write(one),
            offered => offered,
        };
        let asked = offered.iter().map(|buffer| buffer.len()).sum();
        self.transfer(Direction::Write, asked, || {
            self.sock_ref()
                .send_vectored_with_flags(offered, SEND_FLAGS)
        })
    }

    /// One call that moves up to `asked` bytes. Without bytes to move no call is made: it could say
    /// EAGAIN, and the operation would wait.
    fn transfer(
        &self,
        direction: Direction,
        asked: usize,
        call: impl FnOnce() -> io::Result<usize>,
    ) -> io::Result<usize> {
        if asked == 0 {
            return Ok(0);
        }
        call().inspect(|&moved| self.transferred(direction, moved, asked))
    }

    /// Charges a read or write, and notes what it proves.
    pub(crate) fn transferred(&self, direction: Direction, bytes: usize, asked: usize) {
        context::charge(bytes);
        self.note_short(direction, bytes, asked);
    }

    /// When a read or write moves less than was asked for, the kernel's buffer is empty, or full: the next
    /// try waits for an edge, which saves a system call. That holds on TCP alone (a Unix stream's read
    /// stops at passed descriptors), and only if `asked` was not reduced to `MAX_AT_ONCE`.
    pub(crate) fn note_short(&self, direction: Direction, bytes: usize, asked: usize) {
        debug_assert!(bytes <= asked, "more than there is room for");
        if asked <= sys::MAX_AT_ONCE {
            self.desc.transferred(direction, bytes, asked);
        }
    }

    /// Takes nothing out, so it proves nothing.
    pub(crate) fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let seen = self.sock_ref().peek(sys::uninit(buffer));
        seen.inspect(|&seen| context::charge(seen))
    }

    // ---- datagrams: a whole message, or as much of it as there is room for ----

    pub(crate) fn receive_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SockAddr)> {
        let received = self.sock_ref().recv_from(sys::uninit(buffer));
        received.inspect(|&(got, _)| context::charge(got))
    }

    pub(crate) fn send_message(&self, message: &[u8]) -> io::Result<usize> {
        let sent = self.send(message).inspect(|&sent| context::charge(sent));
        debug_assert!(sent.iter().all(|&sent| sent == message.len()));
        sent
    }

    pub(crate) fn send_to(&self, message: &[u8], to: &SockAddr) -> io::Result<usize> {
        let sent = self.sock_ref().send_to_with_flags(message, to, SEND_FLAGS);
        debug_assert!(sent.iter().all(|&sent| sent == message.len()));
        sent.inspect(|&sent| context::charge(sent))
    }

    // ---- what is no socket ----

    pub(crate) fn read_file(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (file, asked) = (&self.socket().owned, buffer.len());
        self.transfer(Direction::Read, asked, || sys::read(file, buffer))
    }

    pub(crate) fn write_file(&self, bytes: &[u8]) -> io::Result<usize> {
        let file = &self.socket().owned;
        self.transfer(Direction::Write, bytes.len(), || sys::write(file, bytes))
    }

    // ---- the user's calls ----

    /// A system call of the user's own, on the lent descriptor.
    pub(crate) fn call<R>(
        &self,
        call: impl FnOnce(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        context::charge(0);
        self.with_fd(call)?
    }

    // ---- without waiting ----

    /// One try that succeeds or fails, `WouldBlock` included. It does not take the lock.
    // Always inlined, as `try_now`. The compiler would not inline it into a program that calls it twice,
    // which costs 38 instructions a message.
    #[inline(always)]
    pub(crate) fn try_once<R>(
        &self,
        direction: Direction,
        mut attempt: impl FnMut(&Fd) -> io::Result<R>,
    ) -> Result<R, Failure> {
        self.desc.check(direction).map_err(Failure::Refused)?;
        loop {
            match attempt(self) {
                Ok(done) => return Ok(done),
                Err(error) => match self.after_error(direction, error) {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(Failure::System(error)),
                },
            }
        }
    }

    /// As [`Fd::try_once`], with the error's names.
    #[inline(always)]
    pub(crate) fn try_now<R>(
        &self,
        direction: Direction,
        attempt: impl FnMut(&Fd) -> io::Result<R>,
    ) -> io::Result<R> {
        let tried = self.try_once(direction, attempt);
        tried.map_err(|failure| self.error(Name::of(direction).text(), failure))
    }

    /// A system call of the user's own without waiting, made once, whatever it says.
    pub(crate) fn try_call<R>(
        &self,
        direction: Direction,
        call: impl FnOnce(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        let checked = self.desc.check(direction).map_err(Failure::Refused);
        let called = checked.and_then(|()| {
            let called = self.call(call);
            called.map_err(|error| Failure::System(self.after_error(direction, error)))
        });
        called.map_err(|failure| self.error(Name::of(direction).text(), failure))
    }
}
