//! Accepted sockets, handed over to the worker that has fewest connections.
//!
//! The first worker accepts for all. Each worker has a [`WorkerInbox`] and takes what is put into
//! it. A worker that drops its inbox, also when it dies, leaves what waits there to the others, so
//! that it takes with it only the clients that it has served.

// Go has no counterpart: there idle processors steal.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::task::{Poll, Waker};

use crate::connection::stats::Tally;
use crate::net::accept_loop::Accepted;
use crate::runtime::sync::{Mutex, MutexGuard};
use crate::runtime::wake_quietly;

/// The inboxes of all workers.
pub(crate) struct Dispatcher {
    /// By worker: how many connections it has. Other threads change it at any time.
    tallies: Vec<Arc<Tally>>,
    state: Mutex<State>,
}

struct State {
    /// By worker; none once the worker has left.
    inboxes: Vec<Option<Inbox>>,
    /// Where the next choice begins: workers with equal loads take turns.
    next: usize,
    /// Accepting has ended: nothing more will be sent.
    is_finished: bool,
}

#[derive(Default)]
struct Inbox {
    arrivals: VecDeque<Arrival>,
    waker: Option<Waker>,
}

/// A connection, and the number of the listener that it came to.
pub(crate) struct Arrival {
    pub(crate) accepted: Accepted,
    pub(crate) listener: usize,
}

impl Dispatcher {
    /// With an inbox for each worker.
    pub(crate) fn inboxes(tallies: &[Arc<Tally>]) -> Vec<WorkerInbox> {
        let dispatcher = Arc::new(Dispatcher {
            tallies: tallies.to_vec(),
            state: Mutex::new(State {
                inboxes: tallies.iter().map(|_| Some(Inbox::default())).collect(),
                next: 0,
                is_finished: false,
            }),
        });
        let inbox = |worker| WorkerInbox {
            dispatcher: dispatcher.clone(),
            worker,
        };
        (0..tallies.len()).map(inbox).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code of others runs under the lock, so that a poisoned one is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a connection to the worker that has fewest, with those that wait for it. Gives it back
    /// if all workers have left.
    pub(crate) fn send(&self, arrival: Arrival) -> Result<(), Arrival> {
        let mut state = self.state();
        let (count, first) = (self.tallies.len(), state.next);
        state.next = (first + 1) % count;
        let load = |worker: usize| {
            let waiting = state.inboxes[worker].as_ref()?.arrivals.len();
            Some((self.tallies[worker].live.get() as usize + waiting, worker))
        };
        // Each load is read once: it changes meanwhile, so that two readings of one could
        // contradict each other.
        let in_turn = (first..first + count).map(|n| n % count);
        let least = in_turn.filter_map(load).min_by_key(|(load, _)| *load);
        let inbox = least.and_then(|(_, worker)| state.inboxes[worker].as_mut());
        let Some(inbox) = inbox else {
            return Err(arrival);
        };
        inbox.arrivals.push_back(arrival);
        let waker = inbox.waker.take();
        drop(state);
        waker.into_iter().for_each(wake_quietly);
        Ok(())
    }

    /// Accepting has ended: each worker takes what waits for it, and then learns of the end.
    pub(crate) fn finish(&self) {
        let mut state = self.state();
        state.is_finished = true;
        let inboxes = state.inboxes.iter_mut().flatten();
        let wakers: Vec<Waker> = inboxes.filter_map(|inbox| inbox.waker.take()).collect();
        drop(state);
        wakers.into_iter().for_each(wake_quietly);
    }
}

/// A worker's inbox. Dropped by the first worker, which accepts, it ends the accepting too.
pub(crate) struct WorkerInbox {
    pub(crate) dispatcher: Arc<Dispatcher>,
    worker: usize,
}

impl WorkerInbox {
    /// The next connection; `None` when there will be no more.
    pub(crate) fn poll_next(&self, waker: &Waker) -> Poll<Option<Arrival>> {
        let waker = waker.clone();
        let mut state = self.dispatcher.state();
        let is_finished = state.is_finished;
        let Some(inbox) = &mut state.inboxes[self.worker] else {
            return Poll::Ready(None);
        };
        if let Some(arrival) = inbox.arrivals.pop_front() {
            return Poll::Ready(Some(arrival));
        }
        if is_finished {
            return Poll::Ready(None);
        }
        let old = inbox.waker.replace(waker);
        drop(state);
        drop(old);
        Poll::Pending
    }
}

impl Drop for WorkerInbox {
    fn drop(&mut self) {
        let left = self.dispatcher.state().inboxes[self.worker].take();
        for arrival in left.into_iter().flat_map(|inbox| inbox.arrivals) {
            if let Err(arrival) = self.dispatcher.send(arrival) {
                log::debug!("{}: closed before it was served", arrival.accepted.peer);
            }
        }
        // Last: a worker that learns of the end takes no more.
        if self.worker == 0 {
            self.dispatcher.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::task::{Poll, Waker};
    use std::thread;

    use super::{Accepted, Arrival, Dispatcher, WorkerInbox};
    use crate::connection::stats::Tally;
    use crate::endpoints::Network;
    use crate::net::permits::Permits;

    struct Accepts {
        listener: TcpListener,
        permits: Arc<Permits>,
        tallies: Vec<Arc<Tally>>,
    }

    fn accepts(workers: usize) -> (Accepts, Vec<WorkerInbox>) {
        let tallies: Vec<Arc<Tally>> = (0..workers).map(|_| Arc::default()).collect();
        let inboxes = Dispatcher::inboxes(&tallies);
        let accepts = Accepts {
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            permits: Arc::new(Permits::new(100)),
            tallies,
        };
        (accepts, inboxes)
    }

    impl Accepts {
        fn accept(&self) -> (TcpStream, Arrival) {
            let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
            let (socket, peer) = self.listener.accept().unwrap();
            let accepted = Accepted {
                socket: socket.into(),
                network: Network::Tcp,
                peer: peer.into(),
                permit: self.permits.take().unwrap(),
            };
            let listener = 0;
            (client, Arrival { accepted, listener })
        }

        fn send(&self, inbox: &WorkerInbox) -> TcpStream {
            let (client, arrival) = self.accept();
            assert!(inbox.dispatcher.send(arrival).is_ok());
            client
        }
    }

    fn count(inbox: &WorkerInbox) -> usize {
        let next = || inbox.poll_next(Waker::noop());
        std::iter::from_fn(|| matches!(next(), Poll::Ready(Some(_))).then_some(())).count()
    }

    #[test]
    fn the_least_loaded_worker_is_chosen_and_equal_ones_in_turn() {
        let (accepts, inboxes) = accepts(3);
        accepts.tallies[1].live.add(5);
        let _clients: Vec<_> = (0..10).map(|_| accepts.send(&inboxes[0])).collect();
        let counts: Vec<_> = inboxes.iter().map(count).collect();
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
                assert_eq!(inboxes.iter().map(count).sum::<usize>(), 1);
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
        assert_eq!(count(&lives), 8);
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
        drop(dispatcher.send(arrival).unwrap_err());
        assert_eq!(late.read(&mut [0]).unwrap(), 0);
        let all: Vec<_> = (0..100).map_while(|_| accepts.permits.take()).collect();
        assert_eq!(all.len(), 100);
    }

    #[test]
    fn when_accepting_ends_each_worker_takes_what_waits_and_learns_of_it() {
        let (accepts, mut inboxes) = accepts(2);
        let (other, accepting) = (inboxes.pop().unwrap(), inboxes.pop().unwrap());
        accepts.tallies[0].live.add(5);
        let _client = accepts.send(&accepting);
        drop(accepting);
        let next = || other.poll_next(Waker::noop());
        assert!(matches!(next(), Poll::Ready(Some(_))));
        assert!(matches!(next(), Poll::Ready(None)));
    }
}
