//! Invariant 4 in a runtime: bytes came in time, then the loop stalled past a deadline. Whatever
//! reads them, or is told of them, moves the deadline before it expires.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::Write;
use std::os::unix::net::UnixStream as PlainStream;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use netpoller::{Runtime, UnixStream, yield_now};

use crate::support::hand_clock::{Hand, by_hand};
use crate::support::loopback::plain_unix_pair;
use crate::support::run::turns;
use crate::support::wakers::each;

const NOW: Option<Duration> = Some(Duration::ZERO);
const DEADLINE: Duration = Duration::from_millis(400);
const STALL: Duration = Duration::from_millis(600);
const FAR: Duration = Duration::from_secs(3600);

/// Bytes for all of these come, and then the loop stalls.
fn send_and_stall(peers: &mut [PlainStream], hand: &Hand) {
    for peer in peers {
        peer.write_all(b"x").unwrap();
    }
    hand.pass(STALL);
}

/// Something that is told once.
#[derive(Clone, Default)]
struct News(Rc<(Cell<bool>, RefCell<Option<Waker>>)>);

impl News {
    fn tell(&self) {
        self.0.0.set(true);
        let waiter = self.0.1.take();
        waiter.into_iter().for_each(Waker::wake);
    }

    async fn hear(&self) {
        poll_fn(|cx| {
            if self.0.0.get() {
                return Poll::Ready(());
            }
            self.0.1.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

mod invariant_4 {
    use super::*;

    #[test]
    fn none_of_many_sockets_in_one_task_expires() {
        const MANY: usize = 150;
        let (runtime, hand) = by_hand();
        let until = hand.now() + DEADLINE;
        let mut peers = Vec::new();
        let mut reads = Vec::new();
        runtime.block_on(async {
            for _ in 0..MANY {
                let (stream, peer) = plain_unix_pair();
                peers.push(peer);
                stream.set_read_deadline(Some(until)).unwrap();
                reads.push(async move {
                    let read = stream.read(&mut [0; 8]).await;
                    stream.set_read_deadline(Some(until + FAR)).unwrap();
                    read.is_err()
                });
            }
        });
        let readers = runtime.spawn(each(reads));
        turns(&runtime);
        send_and_stall(&mut peers, &hand);
        let late = runtime.block_on(readers).unwrap();
        assert_eq!(late.into_iter().filter(|&late| late).count(), 0);
    }

    /// A byte on one stream makes `hops` tasks in turn move another's deadline. Returns whether
    /// that expired.
    fn passed_on(
        hops: usize,
        read_by: impl FnOnce(&Runtime, UnixStream, News),
        beside: usize,
    ) -> bool {
        let (runtime, hand) = by_hand();
        let until: Instant = hand.now() + DEADLINE;
        let ((other, _peer), (read, peer)) =
            runtime.block_on(async { (plain_unix_pair(), plain_unix_pair()) });
        other.set_read_deadline(Some(until)).unwrap();
        let waiting = other.clone();
        let waiter = runtime.spawn(async move { waiting.read(&mut [0; 8]).await.is_err() });
        for _ in 0..beside {
            drop(runtime.spawn(async {
                loop {
                    yield_now().await;
                }
            }));
        }
        let first = News::default();
        let mut last = first.clone();
        for _ in 1..hops {
            let (from, to) = (last, News::default());
            last = to.clone();
            drop(runtime.spawn(async move {
                from.hear().await;
                to.tell();
            }));
        }
        drop(runtime.spawn(async move {
            last.hear().await;
            other.set_read_deadline(Some(until + FAR)).unwrap();
        }));
        for _ in 0..20 {
            runtime.turn(NOW).unwrap();
        }
        send_and_stall(&mut [peer], &hand);
        read_by(&runtime, read, first);
        for _ in 0..100 {
            runtime.turn(NOW).unwrap();
        }
        let expired = waiter.is_finished();
        waiter.abort();
        expired
    }

    fn in_a_task(runtime: &Runtime, read: UnixStream, first: News) {
        drop(runtime.spawn(async move {
            read.read(&mut [0; 8]).await.unwrap();
            first.tell();
        }));
    }

    #[test]
    fn a_deadline_that_the_root_has_a_task_move_does_not_expire() {
        let in_the_root = |runtime: &Runtime, read: UnixStream, first: News| {
            runtime.block_on(async {
                read.read(&mut [0; 8]).await.unwrap();
                first.tell();
            });
        };
        assert!(!passed_on(1, in_the_root, 0));
    }

    #[test]
    fn a_deadline_that_the_last_of_ten_tasks_moves_does_not_expire() {
        assert!(!passed_on(10, in_a_task, 0));
    }

    #[test]
    fn a_deadline_that_the_last_of_ten_tasks_moves_does_not_expire_beside_machines_that_never_rest()
    {
        for beside in [1, 100, 2000] {
            assert!(!passed_on(10, in_a_task, beside), "beside {beside}");
        }
    }

    #[test]
    fn a_deadline_that_is_not_moved_expires_beside_machines_that_never_rest() {
        let reads_nothing = |_: &Runtime, _: UnixStream, _: News| {};
        assert!(passed_on(1, reads_nothing, 3));
    }
}
