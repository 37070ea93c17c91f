//! What a server's workers are told, by whoever has its handle, on whichever thread.
//!
//! May touch: stats.rs. Mirrors `Server.inShutdown` and `doneChan` in Go's `net/http/server.go`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::connection::stats::{Stats, Tally};

/// What the workers are to do. It only ever goes on to a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Serve,
    /// Within so long.
    Drain(Duration),
    Stop,
}

impl Order {
    fn rank(self) -> u8 {
        match self {
            Order::Serve => 0,
            Order::Drain(_) => 1,
            Order::Stop => 2,
        }
    }
}

/// What the workers and the handles share.
pub(crate) struct Control {
    orders: Mutex<Orders>,
    pub(crate) tallies: Vec<Arc<Tally>>,
}

struct Orders {
    order: Order,
    /// Who waits for another order: by worker, and one more, who accepts for all.
    waiters: Vec<Option<Waker>>,
}

impl Control {
    pub(crate) fn new(workers: usize) -> Self {
        Control {
            orders: Mutex::new(Orders {
                order: Order::Serve,
                waiters: vec![None; workers + 1],
            }),
            tallies: (0..workers).map(|_| Arc::default()).collect(),
        }
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        // Nothing of anybody's runs under the lock.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn give(&self, order: Order) {
        let mut orders = self.orders();
        if order.rank() <= orders.order.rank() {
            return;
        }
        orders.order = order;
        let waiters: Vec<_> = orders.waiters.iter_mut().filter_map(Option::take).collect();
        drop(orders);
        waiters.into_iter().for_each(Waker::wake);
    }

    /// Ready with another order than `known`.
    pub(crate) fn poll_order(&self, worker: usize, known: Order, waker: &Waker) -> Poll<Order> {
        let waker = waker.clone();
        let mut orders = self.orders();
        if orders.order != known {
            return Poll::Ready(orders.order);
        }
        let old = orders.waiters[worker].replace(waker);
        drop(orders);
        drop(old);
        Poll::Pending
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            workers: self.tallies.iter().map(|tally| tally.read()).collect(),
        }
    }
}
