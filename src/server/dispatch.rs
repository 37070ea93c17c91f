//! What passes between the threads of a server: orders, which a handle gives on any thread to every
//! worker, and accepted connections, which go to the worker that has the fewest. A worker's inbox also
//! keeps what a drain has accepted, until there is a permit for it.
//!
//! | phase | moved there by | on to |
//! |---|---|---|
//! | Serving | `Dispatcher::new` | Draining, Stopped |
//! | Draining | [`ServerHandle::drain`](super::ServerHandle::drain); a watch's first signal | Stopped; Draining with a shorter limit |
//! | Stopped | [`ServerHandle::stop`](super::ServerHandle::stop); a watch's next signal; under `Bound::run`, a worker that fails, a panic of the first worker, or a thread that could not be started | - |
//!
//! Until all workers have started, they see no order but Stopped.
//!
//! Where connections are handed over, the first worker accepts for all. A worker that drops its
//! inbox, also when it dies, leaves what waits there to the others: only the clients that it has begun
//! to serve are lost with it.

// Mirrors `Server.inShutdown` and `doneChan` in Go's `net/http/server.go`. Handing over has no
// counterpart: there idle processors steal.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::mem;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::connection::shared::Phase;
use crate::connection::stats::Tally;
use crate::net::listener::Accepted;
use crate::net::permits::{Permit, Permits};
use crate::runtime::look::noted;
use crate::runtime::sync::{Mutex, lock};
use crate::runtime::wake_quietly;

/// What the workers are to do. The phase and the number of watches only rise, the limit only falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) phase: Phase,
    /// How long a drain may take, from when a worker gets the order, after all have started.
    pub(crate) limit: Duration,
    /// The number of watches for signals. When it rises, each worker listens to the new ones.
    pub(crate) watches: usize,
}

/// The order in force, and the inboxes of all workers.
pub(crate) struct Dispatcher {
    /// By worker, what it counts; `live` is its load. Other threads change it at any time.
    pub(crate) tallies: Vec<Arc<Tally>>,
    workers: Mutex<Workers>,
}

struct Workers {
    order: Order,
    /// By worker; `None` once the worker has left. Empty before the server runs.
    inboxes: Vec<Option<Inbox>>,
    /// Workers that have not started yet.
    starting: usize,
    /// Workers that may still send a connection, to themselves or to others.
    accepting: usize,
    /// Where the next choice begins: workers with equal loads take turns.
    next: usize,
}

#[derive(Default)]
struct Inbox {
    /// Each with its permit, unless a drain accepted it.
    arrivals: VecDeque<(Arrival, Option<Permit>)>,
    /// The waker of the worker's one task, which waits here for an order, for a connection, or for both.
    waker: Option<Waker>,
}

/// A connection, and the number of the listener that it came to.
pub(crate) struct Arrival {
    pub(crate) accepted: Accepted,
    pub(crate) listener: usize,
}

impl Dispatcher {
    /// For `workers` workers at most.
    pub(crate) fn new(workers: usize) -> Self {
        Dispatcher {
            tallies: (0..workers).map(|_| Arc::default()).collect(),
            workers: Mutex::new(Workers {
                order: Order {
                    phase: Phase::Serving,
                    limit: Duration::MAX,
                    watches: 0,
                },
                inboxes: Vec::new(),
                starting: 0,
                accepting: 0,
                next: 0,
            }),
        }
    }

    /// The inboxes of the server's workers.
    pub(crate) fn open(self: &Arc<Self>, workers: usize) -> Vec<WorkerInbox> {
        let mut state = lock(&self.workers);
        debug_assert!(state.inboxes.is_empty(), "a server runs once");
        state.inboxes = (0..workers).map(|_| Some(Inbox::default())).collect();
        (state.starting, state.accepting) = (workers, workers);
        let inbox = |worker| WorkerInbox {
            dispatcher: self.clone(),
            worker,
            accepts: Cell::new(true),
        };
        (0..workers).map(inbox).collect()
    }

    /// Gives an order. False if it changes nothing: the order in force asks for as much.
    pub(crate) fn give(&self, phase: Phase, limit: Duration) -> bool {
        debug_assert!(phase >= Phase::Draining, "an order ends the server");
        self.change(|state| {
            let old = state.order;
            state.order.phase = old.phase.max(phase);
            state.order.limit = old.limit.min(limit);
            state.order != old
        })
    }

    /// Tells the workers of one more watch for signals.
    #[cfg(feature = "signal")]
    pub(crate) fn add_watch(&self) {
        self.change(|state| state.order.watches += 1);
    }

    /// Sends a connection to this worker, or to the one that has the fewest, counting those that wait for
    /// it. If all workers have left, it is closed.
    pub(crate) fn send(&self, arrival: Arrival, permit: Option<Permit>, worker: Option<usize>) {
        let mut state = lock(&self.workers);
        let (count, first) = (state.inboxes.len(), state.next);
        debug_assert!(count > 0, "connections are sent after `open`");
        state.next = (first + 1) % count;
        let load = |worker: usize| {
            let waiting = state.inboxes[worker].as_ref()?.arrivals.len();
            Some((self.tallies[worker].live.get() as usize + waiting, worker))
        };
        // Each load is read once: it changes meanwhile, so that two readings of one could
        // contradict each other.
        let in_turn = (first..first + count).map(|n| n % count);
        let least = || in_turn.filter_map(load).min_by_key(|(load, _)| *load);
        let worker = worker.or_else(|| Some(least()?.1));
        let inbox = worker.and_then(|worker| state.inboxes[worker].as_mut());
        let Some(inbox) = inbox else {
            drop(state);
            log::debug!("{}: closed before it was served", arrival.accepted.peer);
            return;
        };
        inbox.arrivals.push_back((arrival, permit));
        let waker = inbox.waker.take();
        drop(state);
        waker.into_iter().for_each(wake_quietly);
    }

    /// Changes what all workers look at. They are woken after the lock is released.
    fn change<R>(&self, change: impl FnOnce(&mut Workers) -> R) -> R {
        let mut state = lock(&self.workers);
        let changed = change(&mut state);
        let inboxes = state.inboxes.iter_mut().flatten();
        let wakers: Vec<Waker> = inboxes.filter_map(|inbox| inbox.waker.take()).collect();
        drop(state);
        wakers.into_iter().for_each(wake_quietly);
        changed
    }
}

/// One worker's side.
pub(crate) struct WorkerInbox {
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) worker: usize,
    /// Whether it may still send a connection.
    accepts: Cell<bool>,
}

impl WorkerInbox {
    /// The worker has started. When all have, the server serves.
    pub(crate) fn started(&self) {
        self.dispatcher.change(|state| state.starting -= 1);
    }

    /// Waits for another order than the one that is known.
    pub(crate) async fn order(&self, known: Option<Order>) -> Order {
        self.wait(|state| {
            // A drain accepts what is queued, so it waits until all workers have started too.
            let is_seen = state.starting == 0 || state.order.phase == Phase::Stopped;
            Some(state.order).filter(|order| is_seen && known != Some(*order))
        })
        .await
    }

    /// The worker accepts no more. Once no worker does, each takes what waits for it, and then learns of
    /// the end.
    pub(crate) fn finish(&self) {
        if self.accepts.take() {
            self.dispatcher.change(|state| state.accepting -= 1);
        }
    }

    /// Closes the connections that wait for the worker. Returns how many.
    pub(crate) fn discard(&self) -> usize {
        let mut state = lock(&self.dispatcher.workers);
        let inbox = state.inboxes[self.worker].as_mut();
        let arrivals = inbox.map(|inbox| mem::take(&mut inbox.arrivals));
        drop(state);
        arrivals.map_or(0, |arrivals| arrivals.len())
    }

    /// Waits for the next connection, and for a permit if it has none. `None` when there will be no more.
    pub(crate) async fn arrival(&self, permits: &Arc<Permits>) -> Option<(Arrival, Permit)> {
        let look = |state: &mut Workers| {
            let first = state.inboxes[self.worker].as_ref()?.arrivals.front();
            let has_permit = first.map(|(_, permit)| permit.is_some());
            (has_permit.is_some() || state.accepting == 0).then_some(has_permit)
        };
        let permit = match noted("arrival", self.wait(look)).await? {
            true => None,
            false => Some(noted("permit", permits.take()).await),
        };
        // It is the first still: no other worker takes from this inbox.
        let mut state = lock(&self.dispatcher.workers);
        let (arrival, held) = state.inboxes[self.worker].as_mut()?.arrivals.pop_front()?;
        Some((arrival, held.or(permit)?))
    }

    async fn wait<T>(&self, look: impl Fn(&mut Workers) -> Option<T>) -> T {
        poll_fn(|cx| {
            // A waker is cloned and dropped while nothing is locked: both may run any code.
            let waker = cx.waker().clone();
            let mut state = lock(&self.dispatcher.workers);
            if let Some(found) = look(&mut state) {
                return Poll::Ready(found);
            }
            let inbox = state.inboxes[self.worker].as_mut();
            debug_assert!(inbox.is_some(), "its inbox goes when it is dropped");
            let old = inbox.and_then(|inbox| inbox.waker.replace(waker));
            drop(state);
            drop(old);
            Poll::Pending
        })
        .await
    }
}

impl Drop for WorkerInbox {
    fn drop(&mut self) {
        let left = lock(&self.dispatcher.workers).inboxes[self.worker].take();
        let waiting = left.into_iter().flat_map(|inbox| inbox.arrivals);
        waiting.for_each(|(arrival, permit)| self.dispatcher.send(arrival, permit, None));
        // Last: a worker that learns that accepting has ended takes no more.
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};
    use std::thread;
    use std::time::Duration;

    use super::{Accepted, Arrival, Dispatcher, Order, Permit, Phase, WorkerInbox};
    use crate::connection::stats::Tally;
    use crate::endpoints::Network;
    use crate::net::permits::Permits;

    struct Accepts {
        listener: TcpListener,
        permits: Arc<Permits>,
        tallies: Vec<Arc<Tally>>,
    }

    fn accepts(workers: usize) -> (Accepts, Vec<WorkerInbox>) {
        let dispatcher = Arc::new(Dispatcher::new(workers));
        let inboxes = dispatcher.open(workers);
        let accepts = Accepts {
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            permits: Arc::new(Permits::new(100)),
            tallies: dispatcher.tallies.clone(),
        };
        (accepts, inboxes)
    }

    impl Accepts {
        fn permit(&self) -> Option<Permit> {
            match now(self.permits.take()) {
                Poll::Ready(permit) => Some(permit),
                Poll::Pending => None,
            }
        }

        fn accept(&self) -> (TcpStream, Arrival) {
            let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
            let (socket, peer) = self.listener.accept().unwrap();
            let accepted = Accepted {
                socket: socket.into(),
                network: Network::Tcp,
                peer: peer.into(),
            };
            let arrival = Arrival {
                accepted,
                listener: 0,
            };
            (client, arrival)
        }

        fn send(&self, inbox: &WorkerInbox) -> TcpStream {
            let (client, arrival) = self.accept();
            let permit = self.permit();
            inbox.dispatcher.send(arrival, permit, None);
            client
        }

        fn next(&self, inbox: &WorkerInbox) -> Poll<Option<(Arrival, Permit)>> {
            now(inbox.arrival(&self.permits))
        }

        fn count(&self, inbox: &WorkerInbox) -> usize {
            let next = || self.next(inbox);
            std::iter::from_fn(|| matches!(next(), Poll::Ready(Some(_))).then_some(())).count()
        }
    }

    fn now<T>(future: impl Future<Output = T>) -> Poll<T> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_least_loaded_worker_is_chosen_and_equal_ones_in_turn() {
        let (accepts, inboxes) = accepts(3);
        accepts.tallies[1].live.add(5);
        let _clients: Vec<_> = (0..10).map(|_| accepts.send(&inboxes[0])).collect();
        let counts: Vec<_> = inboxes.iter().map(|inbox| accepts.count(inbox)).collect();
        assert_eq!(counts, [5, 0, 5]);
    }

    #[test]
    fn loads_that_change_while_a_worker_is_chosen_do_no_harm() {
        let (accepts, inboxes) = accepts(64);
        thread::scope(|scope| {
            let changes = scope.spawn(|| {
                for round in 0..2_000 {
                    for (at, tally) in accepts.tallies.iter().enumerate() {
                        let load = (at as u64 + 1).wrapping_mul(round * 0x9e37_79b9) % 97;
                        let before = tally.live.get();
                        tally.live.add(load);
                        tally.live.sub(before);
                    }
                }
            });
            while !changes.is_finished() {
                let _client = accepts.send(&inboxes[0]);
                let sent = inboxes.iter().map(|inbox| accepts.count(inbox));
                assert_eq!(sent.sum::<usize>(), 1);
            }
        });
    }

    #[test]
    fn a_worker_that_died_swallows_no_connection() {
        let (accepts, mut inboxes) = accepts(2);
        let (dies, lives) = (inboxes.pop().unwrap(), inboxes.pop().unwrap());
        let mut clients: Vec<_> = (0..4).map(|_| accepts.send(&lives)).collect();
        drop(dies);
        clients.extend((0..4).map(|_| accepts.send(&lives)));
        assert_eq!(accepts.count(&lives), 8);
    }

    #[test]
    fn when_all_workers_have_left_the_client_is_told_and_the_permit_comes_back() {
        let (accepts, mut inboxes) = accepts(1);
        let inbox = inboxes.pop().unwrap();
        let dispatcher = inbox.dispatcher.clone();
        let mut waits = accepts.send(&inbox);
        drop(inbox);
        assert_eq!(waits.read(&mut [0]).unwrap(), 0);
        let (mut late, arrival) = accepts.accept();
        dispatcher.send(arrival, accepts.permit(), None);
        assert_eq!(late.read(&mut [0]).unwrap(), 0);
        let all: Vec<_> = (0..100).map_while(|_| accepts.permit()).collect();
        assert_eq!(all.len(), 100);
    }

    #[test]
    fn when_accepting_ends_each_worker_takes_what_waits_and_learns_of_it() {
        let (accepts, mut inboxes) = accepts(2);
        let (other, accepting) = (inboxes.pop().unwrap(), inboxes.pop().unwrap());
        accepts.tallies[0].live.add(5);
        let _client = accepts.send(&accepting);
        other.finish();
        drop(accepting);
        assert!(matches!(accepts.next(&other), Poll::Ready(Some(_))));
        assert!(matches!(accepts.next(&other), Poll::Ready(None)));
    }

    #[test]
    fn a_connection_without_a_permit_waits_for_one_and_is_not_lost_meanwhile() {
        let (accepts, inboxes) = accepts(2);
        let (_client, arrival) = accepts.accept();
        inboxes[0].dispatcher.send(arrival, None, Some(1));
        inboxes.iter().for_each(WorkerInbox::finish);
        let mut all: Vec<_> = (0..100).map_while(|_| accepts.permit()).collect();
        assert_eq!(accepts.count(&inboxes[1]), 0);
        all.pop();
        assert_eq!(accepts.count(&inboxes[1]), 1);
        assert!(matches!(accepts.next(&inboxes[0]), Poll::Ready(None)));
    }

    #[test]
    fn a_shorter_drain_wins_a_longer_one_changes_nothing_and_a_stop_is_the_last() {
        let second = Duration::from_secs(1);
        let (_accepts, inboxes) = accepts(1);
        let dispatcher = &inboxes[0].dispatcher;
        let next = |known| match now(inboxes[0].order(known)) {
            Poll::Ready(order) => Some(order),
            Poll::Pending => None,
        };
        let drain = |limit| dispatcher.give(Phase::Draining, limit);
        let stop = || dispatcher.give(Phase::Stopped, Duration::ZERO);
        assert_eq!(next(None), None);
        assert!(drain(10 * second));
        assert_eq!(next(None), None);
        inboxes[0].started();
        let long = next(None);
        let asked = |order: Order| (order.phase, order.limit);
        assert_eq!(long.map(asked), Some((Phase::Draining, 10 * second)));
        assert!(!drain(20 * second) && !drain(10 * second));
        assert_eq!(next(long), None);
        assert!(drain(second));
        assert_eq!(next(long).map(asked), Some((Phase::Draining, second)));
        assert!(stop() && !stop() && !drain(second));
        let last = next(long);
        assert_eq!(last.map(|order| order.phase), Some(Phase::Stopped));
        assert_eq!(next(last), None, "nothing is behind it");
        assert_eq!(next(None), last, "given earlier");
    }

    #[test]
    fn a_drain_begins_when_all_workers_have_started_and_a_stop_at_once() {
        let (_accepts, inboxes) = accepts(2);
        let order = || now(inboxes[0].order(None));
        inboxes[0].started();
        inboxes[0].dispatcher.give(Phase::Draining, Duration::ZERO);
        assert!(order().is_pending());
        inboxes[1].started();
        assert!(matches!(order(), Poll::Ready(order) if order.phase == Phase::Draining));

        let (_accepts, inboxes) = accepts(2);
        inboxes[0].dispatcher.give(Phase::Stopped, Duration::ZERO);
        let order = now(inboxes[0].order(None));
        assert!(matches!(order, Poll::Ready(order) if order.phase == Phase::Stopped));
    }
}
