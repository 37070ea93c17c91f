//! Invariant 12: the wheel does not grow when deadlines move. Whatever is done to deadlines, it holds at most
//! one live entry for each open descriptor, and of all entries at most twice the live timers and a constant.

use std::time::{Duration, Instant};

use Direction::{Read as ForRead, Write as ForWrite};
use netpoller::reactor::{Descriptor, Direction, Entries, Reactor};
use netpoller::{Runtime, time};

use crate::support::loopback::{pair, virtual_runtime};
use crate::support::scripted_selector::{Nothing, scripted};
use crate::support::stall::stall;
use crate::support::watchdog::watchdog;

const SECOND: Duration = Duration::from_secs(1);
const CONSTANT: usize = 128;

fn assert_bounded(reactor: &Reactor<usize>, timers: usize) {
    let Entries { held, stale, .. } = reactor.entries();
    assert!(
        held <= 2 * timers + CONSTANT,
        "{held} entries, {timers} timers"
    );
    assert!(
        held - stale <= timers,
        "{held} entries, {stale} stale, {timers} timers"
    );
}

mod invariant_12 {
    use super::*;

    #[test]
    fn near_and_far_deadlines_that_alternate_leave_bounded_entries() {
        let reactor = Reactor::with(scripted().0);
        let all: Vec<Descriptor<usize>> = (0..200)
            .map(|_| reactor.open(&mut Nothing).unwrap())
            .collect();
        let base = Instant::now() + 3600 * SECOND;
        for round in 0..500 {
            for descriptor in &all {
                // Ever nearer, so that each move earlier needs an entry of its own.
                descriptor.set_deadline(ForRead, Some(base + 3600 * SECOND));
                descriptor.set_deadline(ForRead, Some(base - round * SECOND));
                descriptor.set_deadline(ForWrite, Some(base - round * SECOND / 2));
                descriptor.set_deadline(ForWrite, None);
            }
            assert_bounded(&reactor, all.len());
        }
    }

    #[test]
    fn near_deadlines_moved_to_the_same_far_one_leave_bounded_entries() {
        let _watchdog = watchdog();
        let runtime = virtual_runtime();
        runtime.block_on(async {
            let mut pairs = Vec::new();
            for _ in 0..50 {
                pairs.push(pair().await);
            }
            let far = time::now() + 36_000 * SECOND;
            for _ in 0..100 {
                for (at, (server, _client)) in pairs.iter().enumerate() {
                    let near = time::now() + Duration::from_millis(1 + at as u64 % 3);
                    // Each is moved away before it fires, and its entry goes on to the far
                    // deadline, where an older entry of it may lie.
                    server.set_read_deadline(Some(far)).unwrap();
                    server.set_read_deadline(Some(near)).unwrap();
                    server.set_read_deadline(Some(far)).unwrap();
                }
                time::sleep(Duration::from_millis(5)).await;
            }
        });
        let stats = runtime.stats();
        assert_eq!(stats.descriptors, 0);
        assert!(stats.places <= 2 * stats.timers + CONSTANT, "{stats:?}");
    }

    #[test]
    fn the_bound_holds_at_every_step_while_near_entries_fire() {
        let _watchdog = watchdog();
        let reactor = Reactor::with(scripted().0);
        let all: Vec<Descriptor<usize>> = (0..100)
            .map(|_| reactor.open(&mut Nothing).unwrap())
            .collect();
        let far = Instant::now() + 3600 * SECOND;
        let mut out = Vec::new();
        for _ in 0..60 {
            for (at, descriptor) in all.iter().enumerate() {
                descriptor.set_deadline(ForRead, Some(far));
                let near = Instant::now() + Duration::from_millis(2 + at as u64 % 2);
                descriptor.set_deadline(ForRead, Some(near));
                descriptor.set_deadline(ForRead, Some(far));
                assert_bounded(&reactor, all.len());
            }
            stall(Duration::from_millis(4));
            reactor.turn(Some(Duration::ZERO), &mut out).unwrap();
            assert_bounded(&reactor, all.len());
        }
        assert!(out.is_empty(), "{} passed", out.len());
    }

    #[test]
    fn connections_that_churn_under_long_timeouts_leave_bounded_entries() {
        let reactor = Reactor::with(scripted().0);
        let hour = Instant::now() + 3600 * SECOND;
        for _ in 0..20_000 {
            let descriptor = reactor.open(&mut Nothing).unwrap();
            descriptor.set_deadline(ForRead, Some(hour));
            descriptor.set_deadline(ForWrite, Some(hour - SECOND));
            drop(descriptor);
            assert_bounded(&reactor, 0);
        }
    }

    #[test]
    fn deadlines_in_the_past_and_none_leave_one_entry_for_each_descriptor() {
        let reactor = Reactor::with(scripted().0);
        let descriptor: Descriptor<usize> = reactor.open(&mut Nothing).unwrap();
        for round in 0..1000 {
            descriptor.set_deadline(ForRead, Some(Instant::now() + (4000 - round) * SECOND));
            let end = if round % 2 == 0 {
                None
            } else {
                Some(Instant::now())
            };
            descriptor.set_deadline(ForRead, end);
            assert_bounded(&reactor, 1);
        }
    }

    #[test]
    fn timeouts_that_are_dropped_leave_no_timer_and_no_waiter() {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            for round in 0..5000 {
                let sleep =
                    time::timeout((7200 - round) * SECOND / 2, std::future::pending::<()>());
                let mut sleep = std::pin::pin!(sleep);
                std::future::poll_fn(|cx| {
                    assert!(sleep.as_mut().poll(cx).is_pending());
                    std::task::Poll::Ready(())
                })
                .await;
            }
        });
        let stats = runtime.stats();
        assert_eq!((stats.timers, stats.waiters), (0, 0));
        assert!(stats.places <= CONSTANT, "{stats:?}");
    }
}
