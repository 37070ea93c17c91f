//! Waiting for the system's selector, and what a wait brings in.
//!
//! May touch: mio, libc. Sources are registered through mio, everywhere. To wait, epoll is asked
//! directly, because mio keeps the word of the kernel to itself: that an event is the usual one is
//! then a dozen instructions for each message, and one compare when the word is at hand. Elsewhere
//! it is mio that waits. Mirrors the two halves of Go's `netpoll_epoll.go` and `netpoll_kqueue.go`.
//!
//! Both have the same two types. `Events`: `with_capacity`, `capacity`, `wait`, `clear`, `iter`.
//! `Event`: mio's questions (`is_readable`, …), and `is_usual`: ready for both, and nothing else.

#[cfg(all(
    any(target_os = "linux", target_os = "android"),
    not(mio_unsupported_force_poll_poll)
))]
#[path = "epoll.rs"]
mod system;

#[cfg(not(all(
    any(target_os = "linux", target_os = "android"),
    not(mio_unsupported_force_poll_poll)
)))]
#[path = "through_mio.rs"]
mod system;

pub(crate) use system::{Event, Events};
