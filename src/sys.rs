//! The only `unsafe` in the crate: what std, mio and socket2 do not offer safely.
//!
//! May touch: libc. Knows nothing of the reactor or the runtime.
//! Mirrors Go's `internal/poll/sock_cloexec.go`, `splice_linux.go` and `fd_unix.go`'s `Sysfd`.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

/// An owned descriptor that can be closed through a shared reference, exactly once.
///
/// Every handle to a socket shares one of these, so that `close` on any of them is seen by all.
/// While somebody holds the borrowed descriptor ([`Handle::with`]), a close is put off until
/// they are done: the number must not be reused under them.
#[derive(Debug)]
pub(crate) struct Handle {
    fd: Cell<RawFd>,
    lent: Cell<u16>,
    close_asked: Cell<bool>,
}

const CLOSED: RawFd = -1;

impl Handle {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Handle {
            fd: Cell::new(fd.into_raw_fd()),
            lent: Cell::new(0),
            close_asked: Cell::new(false),
        }
    }

    /// A handle that owns nothing, for sources that somebody else owns.
    pub(crate) fn none() -> Self {
        Handle {
            fd: Cell::new(CLOSED),
            lent: Cell::new(0),
            close_asked: Cell::new(false),
        }
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.fd.get()
    }

    /// The socket, for one call. Our own code only: nothing that runs meanwhile may close.
    #[inline]
    pub(crate) fn socket(&self) -> SockRef<'_> {
        SockRef::from(self)
    }

    /// Lends the descriptor to a caller's closure; `None` if it is closed. A close that was put
    /// off meanwhile is left to `close`.
    pub(crate) fn with<R>(
        &self,
        f: impl FnOnce(BorrowedFd<'_>) -> R,
        close: fn(OwnedFd),
    ) -> Option<R> {
        struct Return<'a>(&'a Handle, fn(OwnedFd));
        impl Drop for Return<'_> {
            fn drop(&mut self) {
                self.0.lent.set(self.0.lent.get() - 1);
                if self.0.lent.get() == 0 && self.0.close_asked.get() {
                    self.0.take().into_iter().for_each(self.1);
                }
            }
        }
        if self.fd.get() == CLOSED || self.close_asked.get() {
            return None;
        }
        self.lent.set(self.lent.get() + 1);
        let _returned_even_on_panic = Return(self, close);
        // SAFETY: open, owned by us, and not closed while `lent` is above zero.
        Some(f(unsafe { BorrowedFd::borrow_raw(self.fd.get()) }))
    }

    pub(crate) fn is_lent(&self) -> bool {
        self.lent.get() > 0
    }

    /// Takes the descriptor out: the one who gets it closes it. `None` the second time, and
    /// while it is lent (then it is closed when it comes back).
    pub(crate) fn take(&self) -> Option<OwnedFd> {
        if self.fd.get() == CLOSED {
            return None;
        }
        if self.lent.get() > 0 {
            self.close_asked.set(true);
            return None;
        }
        // SAFETY: we own it, and it is forgotten here, so that nobody takes it twice.
        Some(unsafe { OwnedFd::from_raw_fd(self.fd.replace(CLOSED)) })
    }
}

impl AsFd for Handle {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        debug_assert_ne!(self.fd.get(), CLOSED, "used after close");
        // SAFETY: the descriptor is open (callers check the closing flag first), we own it, and
        // nothing between here and the end of the caller's one system call can close it.
        unsafe { BorrowedFd::borrow_raw(self.fd.get()) }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        drop(self.take());
    }
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const SEND_FLAGS: libc::c_int = libc::MSG_NOSIGNAL;
/// Elsewhere the socket itself says so (`SO_NOSIGPIPE`, set by socket2 when it makes one).
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
const SEND_FLAGS: libc::c_int = 0;

impl Handle {
    /// Sends without ever raising SIGPIPE: a C host may not have it ignored.
    #[inline]
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        // SAFETY: the slice is valid for reads of its length. A descriptor that is closed is -1,
        // which the system refuses.
        let sent =
            unsafe { libc::send(self.raw(), bytes.as_ptr().cast(), bytes.len(), SEND_FLAGS) };
        count(sent)
    }

    /// Reads what is there.
    #[inline]
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the slice is valid for writes of its length. A descriptor that is closed is -1,
        // which the system refuses.
        let got = unsafe { libc::recv(self.raw(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        count(got)
    }
}

/// A count of bytes, or the error that a negative one stands for.
#[inline]
fn count(returned: isize) -> io::Result<usize> {
    if returned < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(returned as usize)
}

/// As [`Handle::send`], to an address.
pub(crate) fn send_to(socket: &SockRef<'_>, bytes: &[u8], to: &SockAddr) -> io::Result<usize> {
    socket.send_to_with_flags(bytes, to, SEND_FLAGS)
}

/// As [`Handle::send`], from several buffers; of more than the system takes at once, the first ones.
pub(crate) fn send_vectored(socket: &SockRef<'_>, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
    const MOST_BUFFERS: usize = 1024;
    let buffers = &buffers[..buffers.len().min(MOST_BUFFERS)];
    socket.send_vectored_with_flags(buffers, SEND_FLAGS)
}

/// Reads into several buffers, through a shared reference.
pub(crate) fn receive_vectored(
    socket: &SockRef<'_>,
    buffers: &mut [IoSliceMut<'_>],
) -> io::Result<usize> {
    Read::read_vectored(&mut &**socket, buffers)
}

/// Reads without taking out.
pub(crate) fn peek(socket: &SockRef<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    socket.peek(uninit(buffer))
}

/// A buffer for calls that only ever write initialised bytes into it.
pub(crate) fn uninit(buffer: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    // SAFETY: same layout, and the calls it is given to (socket2's) only store bytes that the
    // kernel wrote, so it is as initialised afterwards as it was before.
    unsafe { &mut *(std::ptr::from_mut(buffer) as *mut [MaybeUninit<u8>]) }
}

/// A descriptor that `owner` keeps open for as long as it lives.
pub(crate) fn borrow<O: ?Sized>(fd: RawFd, _owner: &O) -> BorrowedFd<'_> {
    // SAFETY: the callers ask for the selector's descriptor, which its owner never replaces, and
    // closes only when it goes itself.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// A new socket, non-blocking and close-on-exec.
pub(crate) fn socket(domain: Domain, kind: Type) -> io::Result<Socket> {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    {
        Socket::new(domain, kind.nonblocking(), None)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    {
        let socket = Socket::new(domain, kind, None)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// `accept4`: the connection comes non-blocking and close-on-exec in one call where it can.
pub(crate) fn accept(listener: &Socket) -> io::Result<(OwnedFd, SockAddr)> {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    {
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: `address` and `length` are valid for the call and say their true size; the
        // kernel fills them in, and a descriptor that is not negative is ours.
        let (fd, address) = unsafe {
            SockAddr::try_init(|address, length| {
                match libc::accept4(listener.as_raw_fd(), address.cast(), length, flags) {
                    -1 => Err(io::Error::last_os_error()),
                    fd => Ok(OwnedFd::from_raw_fd(fd)),
                }
            })?
        };
        Ok((fd, address))
    }
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    {
        let (socket, address) = listener.accept()?;
        socket.set_nonblocking(true)?;
        Ok((socket.into(), address))
    }
}

/// A future and the waker it runs with, in one allocation.
///
/// Apart, the waker would have to be moved out of the scheduler's slab and back on every run, for
/// the slab can't stay borrowed while anything runs; that is a dozen instructions a message.
pub(crate) struct WithWaker<F> {
    pub(crate) waker: Waker,
    future: F,
}

impl<F: Future> WithWaker<F> {
    pub(crate) fn new(waker: Waker, future: F) -> Self {
        WithWaker { waker, future }
    }

    /// Polls the future with the waker.
    #[inline]
    pub(crate) fn poll(self: Pin<&mut Self>) -> Poll<F::Output> {
        // SAFETY: `future` is pinned whenever the whole is: nothing here moves it or hands out
        // `&mut F`, there is no `Drop` impl, and the whole is `Unpin` only if `F` is. `waker` is
        // never pinned, and only lent.
        let (waker, future) = unsafe {
            let this = self.get_unchecked_mut();
            (&this.waker, Pin::new_unchecked(&mut this.future))
        };
        future.poll(&mut Context::from_waker(waker))
    }
}
