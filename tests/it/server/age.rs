//! The greatest age of a connection.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use netpoller::{CloseReason, Conn, Drain, Protocol, Server, spawn, time};

use crate::support::bytes::read_all;
use crate::support::running::SECOND;
use crate::support::scripted_protocol::{dial, serving, serving_in_real_time};
use crate::support::stall::stall;

/// Says good-bye, and notes why it ended.
struct Leaves {
    busy: bool,
    ended: Rc<RefCell<Vec<(Instant, CloseReason)>>>,
}

impl Protocol for Leaves {
    fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
        conn.set_busy(self.busy);
        Ok(())
    }
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        conn.write(bytes)?;
        conn.set_busy(false);
        Ok(bytes.len())
    }
    fn draining(&mut self, conn: &mut Conn) -> io::Result<Drain> {
        conn.write(b"bye")?;
        Ok(Drain::WhenQuiet)
    }
    fn ended(&mut self, why: CloseReason) {
        self.ended.borrow_mut().push((time::now(), why));
    }
}

const AGE: Duration = Duration::from_secs(100);
const JITTER: Duration = Duration::from_secs(10);

#[test]
fn connections_opened_together_are_told_and_end_apart_within_the_jitter() {
    let ended = Rc::new(RefCell::new(Vec::new()));
    let notes = ended.clone();
    let server = Server::new(move |_| Leaves {
        busy: false,
        ended: notes.clone(),
    });
    serving(server.max_connection_age(AGE, JITTER), async |bound| {
        let mut clients = Vec::new();
        for _ in 0..8 {
            clients.push(dial(&bound).await);
        }
        let opened = time::now();
        for client in &clients {
            assert_eq!(read_all(client).await.unwrap(), b"bye");
        }
        let mut ages = Vec::new();
        for (at, why) in ended.borrow().iter() {
            assert!(matches!(why, CloseReason::Drained), "{why}");
            ages.push(*at - opened);
        }
        assert_eq!(ages.len(), 8);
        let slack = SECOND / 2;
        let in_time = |age: &Duration| (AGE - slack..=AGE + JITTER + slack).contains(age);
        assert!(ages.iter().all(in_time), "{ages:?}");
        let (first, last) = (ages.iter().min().unwrap(), ages.iter().max().unwrap());
        assert!(*last - *first > JITTER / 2, "{ages:?}");
    });
}

#[test]
fn an_old_connection_that_is_busy_closes_when_it_is_no_longer_busy() {
    let ended = Rc::new(RefCell::new(Vec::new()));
    let notes = ended.clone();
    let server = Server::new(move |_| Leaves {
        busy: true,
        ended: notes.clone(),
    });
    serving(
        server.max_connection_age(AGE, Duration::ZERO),
        async |bound| {
            let client = dial(&bound).await;
            let mut good_bye = [0; 3];
            client.read_exact(&mut good_bye).await.unwrap();
            time::sleep(AGE).await;
            assert!(ended.borrow().is_empty());
            client.write_all(b"answered").await.unwrap();
            assert_eq!(read_all(&client).await.unwrap(), b"answered");
            assert_eq!(ended.borrow().len(), 1);
        },
    );
}

#[test]
fn traffic_makes_no_connection_younger_and_others_go_on() {
    let ended = Rc::new(RefCell::new(Vec::new()));
    let notes = ended.clone();
    let server = Server::new(move |_| Leaves {
        busy: false,
        ended: notes.clone(),
    });
    serving(
        server.max_connection_age(AGE, Duration::ZERO),
        async |bound| {
            let opened = time::now();
            let busy = dial(&bound).await;
            let talks = spawn(async move {
                while busy.write_all(b"x").await.is_ok() {
                    if busy.read(&mut [0; 8]).await.unwrap_or(0) == 0 {
                        break;
                    }
                    time::sleep(SECOND).await;
                }
                time::now()
            });
            time::sleep(AGE / 2).await;
            let young = dial(&bound).await;
            let closed = talks.await.unwrap();
            assert!(closed - opened < AGE + 5 * SECOND, "{:?}", closed - opened);
            young.write_all(b"y").await.unwrap();
            young.read_exact(&mut [0]).await.unwrap();
        },
    );
}

#[test]
fn without_an_age_a_connection_lives_on() {
    for none in [None, Some(Duration::ZERO)] {
        let server = Server::new(|_| Leaves {
            busy: false,
            ended: Rc::default(),
        });
        serving(server.max_connection_age(none, JITTER), async |bound| {
            let client = dial(&bound).await;
            time::sleep(10_000 * SECOND).await;
            client.write_all(b"x").await.unwrap();
            let mut answer = [0];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"x", "no good-bye");
        });
    }
}

#[test]
fn an_age_counts_from_the_opening_however_long_the_connections_before_it_took() {
    const SHORT: Duration = Duration::from_millis(200);
    /// Holds up the others of its turn, and says how old it was when it was told to leave.
    struct Slow(Option<Instant>, Rc<RefCell<Vec<Duration>>>);
    impl Protocol for Slow {
        fn open(&mut self, _: &mut Conn) -> io::Result<()> {
            stall(SHORT / 2);
            self.0 = Some(Instant::now());
            Ok(())
        }
        fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn draining(&mut self, _: &mut Conn) -> io::Result<Drain> {
            self.1.borrow_mut().push(self.0.unwrap().elapsed());
            Ok(Drain::WhenQuiet)
        }
    }
    let ages = Rc::new(RefCell::new(Vec::new()));
    let told = ages.clone();
    let server = Server::new(move |_| Slow(None, told.clone()));
    let server = server.max_connection_age(SHORT, Duration::ZERO);
    serving_in_real_time(server, async |bound| {
        let mut clients = Vec::new();
        for _ in 0..6 {
            clients.push(dial(&bound).await);
        }
        for client in &clients {
            read_all(client).await.unwrap();
        }
        assert!(ages.borrow().iter().all(|&age| age >= SHORT), "{ages:?}");
        assert_eq!(ages.borrow().len(), 6);
    });
}
