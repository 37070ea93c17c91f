//! Handing accepted sockets over to the worker that has fewest connections, on whichever thread.
//!
//! May touch: the permits, the tallies. Go has no counterpart: there idle processors steal.
//!
//! One worker accepts for all and knows the [`Roster`]; each has a [`Seat`] there, and takes what
//! is put on it.
//!
//! | a seat | who moves it there | what is handed over |
//! |---|---|---|
//! | Open | `Roster::new` | waits on it for the worker |
//! | Left | the worker leaves it, or dies | goes to another seat; back to the giver, where none is open |
//!
//! What waits on a seat that is left goes to the others at once: a worker that dies takes no
//! client with it, but those whom it served.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::connection::stats::Tally;
use crate::net::accept_loop::Permit;

/// A connection on its way to the worker that will serve it.
pub(crate) struct Handed {
    pub(crate) socket: OwnedFd,
    pub(crate) peer: SocketAddr,
    pub(crate) permit: Permit,
}

/// All workers of a server, for whoever accepts.
pub(crate) struct Roster {
    places: Vec<Place>,
    /// Who comes first among equals, so that each is in turn.
    turn: AtomicUsize,
    finished: AtomicBool,
}

struct Place {
    tally: Arc<Tally>,
    /// Handed over, and not served yet.
    waiting: AtomicU64,
    tray: Mutex<Tray>,
}

#[derive(Default)]
struct Tray {
    handed: VecDeque<Handed>,
    waker: Option<Waker>,
    left: bool,
}

impl Place {
    fn tray(&self) -> MutexGuard<'_, Tray> {
        // Nothing of anybody's runs under the lock.
        self.tray.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self) -> u64 {
        self.tally.live.load(Ordering::Relaxed) + self.waiting.load(Ordering::Relaxed)
    }

    /// Back, if the seat is left.
    fn put(&self, handed: Handed) -> Result<(), Handed> {
        let mut tray = self.tray();
        if tray.left {
            return Err(handed);
        }
        tray.handed.push_back(handed);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let waker = tray.waker.take();
        drop(tray);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }
}

impl Roster {
    pub(crate) fn new(tallies: &[Arc<Tally>]) -> Arc<Self> {
        let place = |tally: &Arc<Tally>| Place {
            tally: tally.clone(),
            waiting: AtomicU64::new(0),
            tray: Mutex::default(),
        };
        Arc::new(Roster {
            places: tallies.iter().map(place).collect(),
            turn: AtomicUsize::new(0),
            finished: AtomicBool::new(false),
        })
    }

    pub(crate) fn seat(self: &Arc<Self>, at: usize) -> Seat {
        Seat {
            roster: self.clone(),
            at,
        }
    }

    /// Gives it to whoever has fewest. Back, if nobody is there any more.
    pub(crate) fn hand_over(&self, mut handed: Handed) -> Result<(), Handed> {
        let count = self.places.len();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut order: Vec<_> = (0..count)
            .map(|n| &self.places[(turn + n) % count])
            .collect();
        order.sort_by_key(|place| place.load());
        for place in order {
            match place.put(handed) {
                Ok(()) => return Ok(()),
                Err(back) => handed = back,
            }
        }
        Err(handed)
    }

    /// Nothing more will be handed over.
    pub(crate) fn finish(&self) {
        self.finished.store(true, Ordering::Release);
        for place in &self.places {
            let waker = place.tray().waker.take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// A worker's seat; leaving it is dropping it.
pub(crate) struct Seat {
    roster: Arc<Roster>,
    at: usize,
}

impl Seat {
    fn place(&self) -> &Place {
        &self.roster.places[self.at]
    }

    /// The next that is handed over; `None` when no more will be.
    pub(crate) fn poll_next(&self, waker: &Waker) -> Poll<Option<Handed>> {
        let waker = waker.clone();
        let mut tray = self.place().tray();
        if let Some(handed) = tray.handed.pop_front() {
            return Poll::Ready(Some(handed));
        }
        // After the tray's lock was taken: `finish` takes it after it has said so.
        if self.roster.finished.load(Ordering::Acquire) {
            return Poll::Ready(None);
        }
        let old = tray.waker.replace(waker);
        drop(tray);
        drop(old);
        Poll::Pending
    }

    /// What came by `poll_next` counts among the live now, or is gone.
    pub(crate) fn served(&self) {
        self.place().waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut tray = self.place().tray();
        tray.left = true;
        let handed = std::mem::take(&mut tray.handed);
        let waker = tray.waker.take();
        drop(tray);
        drop(waker);
        for handed in handed {
            // Where nobody is left, the client finds its connection closed.
            drop(self.roster.hand_over(handed));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::task::{Poll, Waker};

    use super::{Handed, Roster, Seat};
    use crate::connection::stats::Tally;
    use crate::net::accept_loop::Permits;

    struct Office {
        listener: TcpListener,
        permits: Arc<Permits>,
        tallies: Vec<Arc<Tally>>,
        roster: Arc<Roster>,
    }

    fn office(workers: usize) -> Office {
        let tallies: Vec<Arc<Tally>> = (0..workers).map(|_| Arc::default()).collect();
        Office {
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            permits: Arc::new(Permits::new(100)),
            roster: Roster::new(&tallies),
            tallies,
        }
    }

    impl Office {
        fn accept(&self) -> (TcpStream, Handed) {
            let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
            let (socket, peer) = self.listener.accept().unwrap();
            let handed = Handed {
                socket: socket.into(),
                peer,
                permit: self.permits.take().unwrap(),
            };
            (client, handed)
        }
    }

    fn count(seat: &Seat) -> usize {
        let next = || seat.poll_next(Waker::noop());
        std::iter::from_fn(|| matches!(next(), Poll::Ready(Some(_))).then_some(())).count()
    }

    #[test]
    fn the_least_loaded_gets_it_and_equals_in_turn() {
        let office = office(3);
        let seats: Vec<_> = (0..3).map(|at| office.roster.seat(at)).collect();
        office.tallies[1].live.store(5, Ordering::Relaxed);
        let mut clients = Vec::new();
        for _ in 0..10 {
            let (client, handed) = office.accept();
            assert!(office.roster.hand_over(handed).is_ok());
            clients.push(client);
        }
        let counts: Vec<_> = seats.iter().map(count).collect();
        assert_eq!(counts, [5, 0, 5]);
    }

    #[test]
    fn a_worker_that_died_swallows_no_socket() {
        let office = office(2);
        let (dies, lives) = (office.roster.seat(0), office.roster.seat(1));
        let mut clients = Vec::new();
        let mut give = || {
            let (client, handed) = office.accept();
            clients.push(client);
            office.roster.hand_over(handed).is_ok()
        };
        assert!((0..4).all(|_| give()));
        drop(dies);
        assert!((0..4).all(|_| give()));
        assert_eq!(count(&lives), 8);
    }

    #[test]
    fn when_nobody_is_left_the_client_is_told_and_the_permit_comes_back() {
        let office = office(1);
        let seat = office.roster.seat(0);
        let (mut waits, handed) = office.accept();
        assert!(office.roster.hand_over(handed).is_ok());
        drop(seat);
        assert_eq!(waits.read(&mut [0]).unwrap(), 0);
        let (mut late, handed) = office.accept();
        drop(office.roster.hand_over(handed).unwrap_err());
        assert_eq!(late.read(&mut [0]).unwrap(), 0);
        let all: Vec<_> = (0..100).map_while(|_| office.permits.take()).collect();
        assert_eq!(all.len(), 100);
    }

    #[test]
    fn at_the_end_each_takes_what_waits_and_learns_of_it() {
        let office = office(1);
        let seat = office.roster.seat(0);
        let (_client, handed) = office.accept();
        assert!(office.roster.hand_over(handed).is_ok());
        office.roster.finish();
        let next = || seat.poll_next(Waker::noop());
        assert!(matches!(next(), Poll::Ready(Some(_))));
        assert!(matches!(next(), Poll::Ready(None)));
    }
}
