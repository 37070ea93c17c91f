//! What a descriptor of the runtime carries: its handle, its ends' addresses, its locks, and the
//! wakers of other people's futures.
//!
//! May touch: sys and the reactor. Mirrors `poll.FD` in Go's `internal/poll`. The locks are in
//! `resource/lock.rs`, the wakers in `resource/wakers.rs`.

mod lock;
mod wakers;

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::task::Waker;

pub(crate) use super::parked::{Parked, Place, Who};
use crate::endpoints::{Addr, End, Endpoints, Network};
use crate::sys::OwnedSocket;

pub(crate) use lock::Hold;

/// What stays out of the common case: it is made when first needed.
#[derive(Default)]
pub(crate) struct Extra {
    /// The foreign wakers parked, by direction.
    wakers: [Option<Waker>; 2],
    /// Those who wait for the peer to go.
    hung_up: Vec<(u32, Waker)>,
    /// The pollers that wait, by direction.
    pollers: [Option<Waker>; 2],
    /// Whether that poller has yielded: see `Claim` in net/fd.
    poller_yielded: [bool; 2],
    queues: [VecDeque<(u32, Waker)>; 2],
    granted: [Option<u32>; 2],
    tickets: u32,
    /// The ends' addresses that do not fit into [`Endpoints`].
    ends: [Option<Addr>; 2],
    /// What ends with the socket.
    attached: Option<Box<dyn Any>>,
}

/// What is seldom looked at comes first: see `Registered` in `reactor/core.rs`.
#[repr(C)]
pub(crate) struct Resource {
    extra: OnceCell<Box<RefCell<Extra>>>,
    endpoints: Endpoints,
    /// For whoever has the socket to himself.
    pub(crate) note: Cell<u8>,
    /// Bits for each direction: held, somebody is queued, a poller waits.
    locks: Cell<u8>,
    pub(crate) handle: OwnedSocket,
}

/// With the descriptor's state and a reference count that is 120 bytes of malloc's 128.
const _: () = assert!(size_of::<Resource>() <= 32);

impl Resource {
    pub(crate) fn new(handle: OwnedSocket, endpoints: Endpoints) -> Self {
        Resource {
            handle,
            endpoints,
            locks: Cell::new(0),
            note: Cell::new(0),
            extra: OnceCell::new(),
        }
    }

    fn extra(&self) -> &RefCell<Extra> {
        self.extra.get_or_init(Box::default)
    }

    // ---- its two ends ----

    #[inline]
    pub(crate) fn network(&self) -> Network {
        self.endpoints.network
    }

    /// An end's address, if it was noted.
    pub(crate) fn endpoint(&self, end: End) -> Option<Addr> {
        let inline = self.endpoints.get(end);
        inline.or_else(|| self.extra.get()?.borrow().ends[end as usize].clone())
    }

    /// Notes an end, once: a second address for an end that is known is dropped.
    pub(crate) fn set_endpoint(&self, end: End, address: Addr) {
        if self.endpoint(end).is_some() {
            return;
        }
        if let Some(address) = self.endpoints.set(end, address) {
            self.extra().borrow_mut().ends[end as usize] = Some(address);
        }
    }

    /// Forgets both, when a datagram socket is connected: its own may change with the peer's.
    pub(crate) fn forget_endpoints(&self) {
        self.endpoints.forget();
        if let Some(extra) = self.extra.get() {
            extra.borrow_mut().ends = [None, None];
        }
    }

    /// Keeps what is to be dropped when the socket is closed, such as a Unix listener's path; what
    /// was kept before comes back.
    pub(crate) fn attach(&self, attached: Option<Box<dyn Any>>) -> Option<Box<dyn Any>> {
        if attached.is_none() && self.extra.get().is_none() {
            return None;
        }
        std::mem::replace(&mut self.extra().borrow_mut().attached, attached)
    }
}
