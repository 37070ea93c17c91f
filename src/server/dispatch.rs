//! Accepted sockets, handed over to the worker that has fewest connections.
//!
//! One worker accepts for all and has the [`Dispatcher`]. Each worker has a [`WorkerInbox`] and
//! takes what is put into it.
//!
//! | state of an inbox | who moves it there | what is sent |
//! |---|---|---|
//! | Open | `Dispatcher::new` | waits in it for the worker |
//! | Finished | accepting has ended | as before; the worker takes what waits, then learns of the end |
//! | Left | the worker drops its `WorkerInbox`, also when it dies | goes to another inbox; back to the sender if all are left |
//!
//! What waits in an inbox that is left goes to the others at once, so that a worker that dies takes
//! with it only the clients that it has served.

// Go has no counterpart: there idle processors steal.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::connection::stats::Tally;
use crate::net::accept_loop::Accepted;
use crate::runtime::wake_quietly;

/// The inboxes of all workers, for the one that accepts.
pub(crate) struct Dispatcher {
    inboxes: Vec<Inbox>,
    /// Where the next choice begins: workers with equal loads take turns.
    next: AtomicUsize,
}

struct Inbox {
    /// Of the worker: how many connections it has.
    tally: Arc<Tally>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    state: State,
    connections: VecDeque<Accepted>,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    Finished,
    Left,
}

impl Inbox {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // No code of others runs under the lock, so that a poisoned one is whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker's connections, with those that wait for it; none if it takes no more. Other
    /// threads change it at any time.
    fn load(&self) -> Option<usize> {
        let queue = self.queue();
        let live = self.tally.live.get() as usize;
        (queue.state != State::Left).then_some(live + queue.connections.len())
    }

    /// Gives the connection back if the inbox is left.
    fn put(&self, connection: Accepted) -> Result<(), Accepted> {
        let mut queue = self.queue();
        if queue.state == State::Left {
            return Err(connection);
        }
        queue.connections.push_back(connection);
        let waker = queue.waker.take();
        drop(queue);
        waker.into_iter().for_each(wake_quietly);
        Ok(())
    }
}

impl Dispatcher {
    pub(crate) fn new(tallies: &[Arc<Tally>]) -> Arc<Self> {
        let inbox = |tally: &Arc<Tally>| Inbox {
            tally: tally.clone(),
            queue: Mutex::default(),
        };
        Arc::new(Dispatcher {
            inboxes: tallies.iter().map(inbox).collect(),
            next: AtomicUsize::new(0),
        })
    }

    /// The inbox with the least load, of those that are not left. Each load is read once: the
    /// workers change them meanwhile, so that two readings of one could contradict each other.
    fn least_loaded(&self) -> Option<&Inbox> {
        let count = self.inboxes.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let in_turn = (0..count).map(|n| &self.inboxes[first.wrapping_add(n) % count]);
        let loads = in_turn.filter_map(|inbox| Some((inbox.load()?, inbox)));
        loads.min_by_key(|(load, _)| *load).map(|(_, inbox)| inbox)
    }

    /// Sends a connection to the worker that has fewest. Gives it back if all inboxes are
    /// left.
    pub(crate) fn send(&self, mut connection: Accepted) -> Result<(), Accepted> {
        // An inbox that has been left since it was chosen gives the connection back, and is not
        // chosen again.
        while let Some(inbox) = self.least_loaded() {
            match inbox.put(connection) {
                Ok(()) => return Ok(()),
                Err(back) => connection = back,
            }
        }
        Err(connection)
    }

    /// Accepting has ended: nothing more will be sent.
    pub(crate) fn finish(&self) {
        for inbox in &self.inboxes {
            let mut queue = inbox.queue();
            if queue.state == State::Open {
                queue.state = State::Finished;
            }
            let waker = queue.waker.take();
            drop(queue);
            waker.into_iter().for_each(wake_quietly);
        }
    }
}

/// The accepting side. However accepting ends, by an order, an error or a panic, no worker goes on
/// waiting for more.
pub(crate) struct AcceptGuard(pub(crate) Arc<Dispatcher>);

impl Drop for AcceptGuard {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// What a worker takes its connections from. Dropping it leaves the inbox.
pub(crate) struct WorkerInbox {
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) worker: usize,
}

impl WorkerInbox {
    fn inbox(&self) -> &Inbox {
        &self.dispatcher.inboxes[self.worker]
    }

    /// The next connection; `None` when there will be no more.
    pub(crate) fn poll_next(&self, waker: &Waker) -> Poll<Option<Accepted>> {
        let waker = waker.clone();
        let mut queue = self.inbox().queue();
        if let Some(connection) = queue.connections.pop_front() {
            return Poll::Ready(Some(connection));
        }
        if queue.state == State::Finished {
            return Poll::Ready(None);
        }
        let old = queue.waker.replace(waker);
        drop(queue);
        drop(old);
        Poll::Pending
    }
}

impl Drop for WorkerInbox {
    fn drop(&mut self) {
        let mut queue = self.inbox().queue();
        queue.state = State::Left;
        let connections = std::mem::take(&mut queue.connections);
        let waker = queue.waker.take();
        drop(queue);
        drop(waker);
        for connection in connections {
            if let Err(connection) = self.dispatcher.send(connection) {
                log::debug!("{}: closed before it was served", connection.peer);
            }
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

    use super::{AcceptGuard, Accepted, Dispatcher, WorkerInbox};
    use crate::connection::stats::Tally;
    use crate::net::accept_loop::Permits;

    struct Accepts {
        listener: TcpListener,
        permits: Arc<Permits>,
        tallies: Vec<Arc<Tally>>,
        dispatcher: Arc<Dispatcher>,
    }

    fn accepts(workers: usize) -> Accepts {
        let tallies: Vec<Arc<Tally>> = (0..workers).map(|_| Arc::default()).collect();
        Accepts {
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            permits: Arc::new(Permits::new(100)),
            dispatcher: Dispatcher::new(&tallies),
            tallies,
        }
    }

    impl Accepts {
        fn inbox(&self, worker: usize) -> WorkerInbox {
            WorkerInbox {
                dispatcher: self.dispatcher.clone(),
                worker,
            }
        }

        fn accept(&self) -> (TcpStream, Accepted) {
            let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
            let (socket, peer) = self.listener.accept().unwrap();
            let accepted = Accepted {
                socket: socket.into(),
                peer: peer.into(),
                permit: self.permits.take().unwrap(),
            };
            (client, accepted)
        }

        fn send(&self) -> TcpStream {
            let (client, accepted) = self.accept();
            assert!(self.dispatcher.send(accepted).is_ok());
            client
        }
    }

    fn count(inbox: &WorkerInbox) -> usize {
        let next = || inbox.poll_next(Waker::noop());
        std::iter::from_fn(|| matches!(next(), Poll::Ready(Some(_))).then_some(())).count()
    }

    #[test]
    fn the_least_loaded_worker_is_chosen_and_equal_ones_in_turn() {
        let accepts = accepts(3);
        let inboxes: Vec<_> = (0..3).map(|at| accepts.inbox(at)).collect();
        accepts.tallies[1].live.add(5);
        let _clients: Vec<_> = (0..10).map(|_| accepts.send()).collect();
        let counts: Vec<_> = inboxes.iter().map(count).collect();
        assert_eq!(counts, [5, 0, 5]);
    }

    #[test]
    fn loads_that_change_while_a_worker_is_chosen_do_no_harm() {
        let accepts = accepts(64);
        let _inboxes: Vec<_> = (0..64).map(|at| accepts.inbox(at)).collect();
        thread::scope(|scope| {
            let chooses = scope.spawn(|| {
                for _ in 0..20_000 {
                    assert!(accepts.dispatcher.least_loaded().is_some());
                }
            });
            for round in 0.. {
                for (at, tally) in accepts.tallies.iter().enumerate() {
                    let load = (at as u64 + 1).wrapping_mul(round * 0x9e37_79b9) % 97;
                    let before = tally.live.get();
                    tally.live.add(load);
                    tally.live.sub(before);
                }
                if chooses.is_finished() {
                    break;
                }
            }
        });
    }

    #[test]
    fn a_worker_that_died_swallows_no_connection() {
        let accepts = accepts(2);
        let (dies, lives) = (accepts.inbox(0), accepts.inbox(1));
        let mut clients: Vec<_> = (0..4).map(|_| accepts.send()).collect();
        drop(dies);
        clients.extend((0..4).map(|_| accepts.send()));
        assert_eq!(count(&lives), 8);
    }

    #[test]
    fn when_all_workers_have_left_the_client_is_told_and_the_permit_comes_back() {
        let accepts = accepts(1);
        let inbox = accepts.inbox(0);
        let mut waits = accepts.send();
        drop(inbox);
        assert_eq!(waits.read(&mut [0]).unwrap(), 0);
        let (mut late, accepted) = accepts.accept();
        drop(accepts.dispatcher.send(accepted).unwrap_err());
        assert_eq!(late.read(&mut [0]).unwrap(), 0);
        let all: Vec<_> = (0..100).map_while(|_| accepts.permits.take()).collect();
        assert_eq!(all.len(), 100);
    }

    #[test]
    fn when_accepting_ends_each_worker_takes_what_waits_and_learns_of_it() {
        let accepts = accepts(1);
        let inbox = accepts.inbox(0);
        let _client = accepts.send();
        drop(AcceptGuard(accepts.dispatcher.clone()));
        let next = || inbox.poll_next(Waker::noop());
        assert!(matches!(next(), Poll::Ready(Some(_))));
        assert!(matches!(next(), Poll::Ready(None)));
    }
}
