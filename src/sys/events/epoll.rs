//! epoll, asked directly.
//!
//! May touch: libc. Mirrors `netpoll` in Go's `runtime/netpoll_epoll.go`.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// One event, as the kernel wrote it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Event(libc::epoll_event);

const IN: u32 = libc::EPOLLIN as u32;
const OUT: u32 = libc::EPOLLOUT as u32;
const ERR: u32 = libc::EPOLLERR as u32;
const HUP: u32 = libc::EPOLLHUP as u32;
const RDHUP: u32 = libc::EPOLLRDHUP as u32;
const PRI: u32 = libc::EPOLLPRI as u32;

impl Event {
    /// Under which token it was registered.
    #[inline]
    pub(crate) fn token(&self) -> usize {
        self.0.u64 as usize
    }

    #[inline]
    fn has(&self, bits: u32) -> bool {
        self.0.events & bits != 0
    }

    /// Ready for both, and nothing else.
    #[inline]
    pub(crate) fn is_usual(&self) -> bool {
        self.0.events == IN | OUT
    }

    pub(crate) fn is_readable(&self) -> bool {
        self.has(IN | PRI)
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.has(OUT)
    }

    pub(crate) fn is_error(&self) -> bool {
        self.has(ERR)
    }

    pub(crate) fn is_priority(&self) -> bool {
        self.has(PRI)
    }

    pub(crate) fn is_read_closed(&self) -> bool {
        self.has(HUP) || self.has(IN) && self.has(RDHUP)
    }

    pub(crate) fn is_write_closed(&self) -> bool {
        self.has(HUP) || self.has(OUT) && self.has(ERR) || self.0.events == ERR
    }
}

/// Room for the events of one wait, and those of the last.
pub(crate) struct Events {
    events: Vec<Event>,
}

impl Events {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Events {
            events: Vec::with_capacity(capacity),
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.events.capacity()
    }

    pub(crate) fn clear(&mut self) {
        self.events.clear();
    }

    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = Event> + Clone {
        self.events.iter().copied()
    }

    /// Waits for something, up to `max_wait`, in milliseconds and rounded up.
    #[inline(always)]
    pub(crate) fn wait(
        &mut self,
        poll: &mut mio::Poll,
        max_wait: Option<Duration>,
    ) -> io::Result<()> {
        let timeout = max_wait.map_or(-1, |wait| {
            let millis = wait.as_nanos().div_ceil(1_000_000);
            i32::try_from(millis).unwrap_or(i32::MAX)
        });
        self.events.clear();
        let most = i32::try_from(self.events.capacity()).unwrap_or(i32::MAX);
        // SAFETY: `Event` is `epoll_event`, and the vector has room for so many of them.
        let count = unsafe {
            let at = self.events.as_mut_ptr().cast();
            libc::epoll_wait(poll.as_raw_fd(), at, most, timeout)
        };
        let Ok(count) = usize::try_from(count) else {
            return Err(io::Error::last_os_error());
        };
        // SAFETY: the kernel has written so many.
        unsafe { self.events.set_len(count) };
        Ok(())
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events")
            .field("count", &self.events.len())
            .finish_non_exhaustive()
    }
}
