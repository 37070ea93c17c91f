//! The only `unsafe` in the crate: what std, mio and socket2 do not offer safely.
//!
//! May touch: libc. Knows nothing of the reactor or the runtime.
//! Mirrors Go's `internal/poll/sock_cloexec.go`, `splice_linux.go`, `fd_unix.go`'s `Sysfd`, and
//! `net/cgo_unix.go`.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::{self, MaybeUninit};
use std::net::SocketAddr;
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
use std::os::fd::AsRawFd;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::ptr;
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

/// Why getaddrinfo found nothing.
#[derive(Debug)]
pub(crate) enum NotFound {
    /// There is none of that name.
    NoSuch,
    /// It could not be asked now; in the system's words.
    Again(String),
    /// Anything else, in the system's words.
    Failed(String),
    /// A system call of its own failed.
    System(io::Error),
}

/// Asks the system for a host's addresses or a service's port, and blocks until it knows. Unlike
/// std it tells "none of that name" from "can't say now", and knows services.
pub(crate) fn address_info(
    host: Option<&str>,
    service: Option<&str>,
    kind: libc::c_int,
) -> Result<Vec<SocketAddr>, NotFound> {
    let text = |text: Option<&str>| text.map(CString::new).transpose();
    // No name has a NUL in it.
    let (Ok(host), Ok(service)) = (text(host), text(service)) else {
        return Err(NotFound::NoSuch);
    };
    let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
    // SAFETY: plain integers and pointers, for which zero means "anything".
    let mut hints: libc::addrinfo = unsafe { mem::zeroed() };
    hints.ai_socktype = kind;
    let mut list = ptr::null_mut();
    // SAFETY: the strings end in NUL and outlive the call, as do the hints and the place for the
    // answer, which is ours to free if the call succeeds.
    let code =
        unsafe { libc::getaddrinfo(pointer(&host), pointer(&service), &hints, &raw mut list) };
    if code != 0 {
        return Err(not_found(code));
    }
    let mut found = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: a member of the list that getaddrinfo made and nobody has freed yet.
        let entry = unsafe { &*next };
        found.extend(socket_addr(entry));
        next = entry.ai_next;
    }
    // SAFETY: made by the call above, freed once, and nothing of it is kept.
    unsafe { libc::freeaddrinfo(list) };
    Ok(found)
}

fn not_found(code: libc::c_int) -> NotFound {
    #[cfg(any(target_os = "freebsd", target_os = "dragonfly"))]
    const NO_DATA: libc::c_int = libc::EAI_NONAME;
    #[cfg(not(any(target_os = "freebsd", target_os = "dragonfly")))]
    const NO_DATA: libc::c_int = libc::EAI_NODATA;
    // SAFETY: the system's own text, which ends in NUL and is never freed.
    let words = || unsafe { CStr::from_ptr(libc::gai_strerror(code)) };
    let words = || words().to_string_lossy().into_owned();
    match code {
        libc::EAI_SYSTEM => NotFound::System(io::Error::last_os_error()),
        libc::EAI_AGAIN => NotFound::Again(words()),
        libc::EAI_NONAME | libc::EAI_SERVICE => NotFound::NoSuch,
        _ if code == NO_DATA => NotFound::NoSuch,
        _ => NotFound::Failed(words()),
    }
}

/// The address of an entry, if it is of IP.
fn socket_addr(entry: &libc::addrinfo) -> Option<SocketAddr> {
    let length = entry.ai_addrlen as usize;
    // SAFETY: getaddrinfo says how many bytes the address has; they are checked to fit, and copied
    // over zeroes.
    let copied = unsafe {
        SockAddr::try_init(|storage, room| {
            if entry.ai_addr.is_null() || length > *room as usize {
                return Err(io::ErrorKind::InvalidData.into());
            }
            ptr::copy_nonoverlapping(entry.ai_addr.cast::<u8>(), storage.cast::<u8>(), length);
            *room = entry.ai_addrlen;
            Ok(())
        })
    };
    copied.ok()?.1.as_socket()
}

/// The number of a network interface, by its name.
pub(crate) fn interface_index(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: a string that ends in NUL and outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
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

/// Whether [`splice`] works here: where not, nobody makes a pipe for it.
pub(crate) const SPLICES: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Moves up to `most` bytes between a pipe and something else, inside the kernel. It never waits,
/// for the pipe either.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    let flags = libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE;
    let none = std::ptr::null_mut();
    // SAFETY: both are open for the call, and no offsets are given.
    let moved = unsafe { libc::splice(from, none, to, none, most, flags) };
    usize::try_from(moved).map_err(|_negative| io::Error::last_os_error())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn splice(_: BorrowedFd<'_>, _: BorrowedFd<'_>, _: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// As [`splice`], from a pipe to a socket, and without a SIGPIPE.
///
/// Splicing to a socket whose peer is gone raises it (seen on Linux 6.18, TCP and Unix alike), and
/// there is no flag like MSG_NOSIGNAL. A Rust program has it ignored, and that costs one short
/// system call to find out; in a C host that has not, the thread blocks the signal meanwhile, and
/// takes out the one that our own call left pending. The signal is sent to the thread that made
/// the call, so no other can get it.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn splice_to_socket(
    pipe: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    most: usize,
) -> io::Result<usize> {
    if sigpipe::is_ignored() {
        return splice(pipe, socket, most);
    }
    let blocked = sigpipe::Blocked::new()?;
    let moved = splice(pipe, socket, most);
    if matches!(&moved, Err(error) if error.raw_os_error() == Some(libc::EPIPE)) {
        blocked.take_out();
    }
    moved
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn splice_to_socket(
    pipe: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    most: usize,
) -> io::Result<usize> {
    splice(pipe, socket, most)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod sigpipe {
    use std::io;
    use std::mem::MaybeUninit;
    use std::ptr;

    fn set(fill: impl FnOnce(*mut libc::sigset_t)) -> libc::sigset_t {
        let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
        fill(set.as_mut_ptr());
        // SAFETY: a set of signals is plain bits: all zeros is one, and `fill` wrote another.
        unsafe { set.assume_init() }
    }

    fn only_sigpipe() -> libc::sigset_t {
        set(|set| {
            // SAFETY: `set` is valid, and the signal exists: neither call can fail.
            unsafe {
                libc::sigemptyset(set);
                libc::sigaddset(set, libc::SIGPIPE);
            }
        })
    }

    fn is_pending() -> bool {
        let pending = set(|set| {
            // SAFETY: `set` is valid.
            unsafe { libc::sigpending(set) };
        });
        // SAFETY: `pending` is valid, and the signal exists.
        unsafe { libc::sigismember(&raw const pending, libc::SIGPIPE) == 1 }
    }

    /// Asked anew each time, for a host may change its mind.
    pub(super) fn is_ignored() -> bool {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: nothing is set, and what is asked for goes where there is room for it.
        let asked = unsafe { libc::sigaction(libc::SIGPIPE, ptr::null(), action.as_mut_ptr()) };
        // SAFETY: zeros are a value of it, and the call, if it succeeded, wrote another.
        asked == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
    }

    /// SIGPIPE is blocked in this thread while this lives.
    pub(super) struct Blocked {
        before: libc::sigset_t,
        was_pending: bool,
    }

    impl Blocked {
        pub(super) fn new() -> io::Result<Self> {
            let was_pending = is_pending();
            let mut failed = 0;
            let before = set(|before| {
                let signal = only_sigpipe();
                // SAFETY: both sets are valid.
                failed =
                    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signal, before) };
            });
            match failed {
                0 => Ok(Blocked {
                    before,
                    was_pending,
                }),
                number => Err(io::Error::from_raw_os_error(number)),
            }
        }

        /// Takes out the signal that is pending by our doing. One that was there before us is the
        /// host's, who had it blocked and will want to see it.
        pub(super) fn take_out(&self) {
            if self.was_pending {
                return;
            }
            let signal = only_sigpipe();
            let at_once = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            // SAFETY: the set and the time are valid. EAGAIN says there was none: as well.
            unsafe { libc::sigtimedwait(&raw const signal, ptr::null_mut(), &raw const at_once) };
        }
    }

    impl Drop for Blocked {
        fn drop(&mut self) {
            // SAFETY: `before` is the mask as it was.
            unsafe {
                libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut())
            };
        }
    }
}
