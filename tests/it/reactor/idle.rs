//! Invariant 9: nothing wakes an idle loop. Calls to the selector are counted.

use std::future::pending;
use std::thread;
use std::time::{Duration, Instant};

use netpoller::reactor::{Direction, Park, Reactor};
use netpoller::{Runtime, spawn, time};

use crate::support::counting::counting;
use crate::support::loopback::plain_pair;
use crate::support::scripted_selector;
use crate::support::stall::moment;
use crate::support::watchdog::watchdog;

const SECOND: Duration = Duration::from_secs(1);

mod invariant_9 {
    use super::*;

    #[test]
    fn an_idle_loop_is_blocked_in_the_selector_until_its_next_deadline() {
        let _watchdog = watchdog();
        let (selector, counts) = counting();
        let runtime = Runtime::builder().selector(selector).build().unwrap();
        let mut connections = Vec::new();
        for _ in 0..50 {
            connections.push(plain_pair(&runtime));
        }
        for (stream, _) in &connections {
            let stream = stream.clone();
            stream
                .set_read_deadline(Some(Instant::now() + 3600 * SECOND))
                .unwrap();
            drop(runtime.spawn(async move { stream.read(&mut [0; 8]).await }));
        }
        runtime.block_on(async {
            time::sleep(Duration::from_millis(5)).await;
            let before = counts.netpolls();
            time::sleep(Duration::from_millis(300)).await;
            // One call sleeps, and one polls again before anything expires.
            let calls = counts.netpolls() - before;
            assert!(calls <= 4, "{calls} calls in a sleep");
        });
    }

    #[test]
    fn a_wait_of_less_than_a_millisecond_is_rounded_up_and_not_spun_through() {
        let _watchdog = watchdog();
        let (selector, counts) = counting();
        let runtime = Runtime::builder().selector(selector).build().unwrap();
        runtime.block_on(async {
            let before = counts.netpolls();
            for _ in 0..20 {
                time::sleep(Duration::from_micros(900)).await;
            }
            let calls = counts.netpolls() - before;
            assert!(calls <= 20 * 4, "{calls} calls in 20 sleeps");
        });
    }

    #[test]
    fn without_any_deadline_the_wait_is_for_ever() {
        let _watchdog = watchdog();
        let (selector, counts) = counting();
        let runtime = Runtime::builder().selector(selector).build().unwrap();
        let handle = runtime.handle();
        drop(runtime.spawn(pending::<()>()));
        let thread = thread::spawn(move || {
            moment();
            handle.spawn(|| async {});
        });
        while runtime.stats().spawned < 2 {
            runtime.turn(None).unwrap();
        }
        thread.join().unwrap();
        let waits = counts.waits.lock().unwrap();
        assert_eq!(waits.last(), Some(&None));
        assert!(waits.len() <= 3, "{waits:?}");
    }

    #[test]
    fn a_moved_deadline_costs_one_wake_up_for_the_entry_it_left() {
        let _watchdog = watchdog();
        let (selector, counts) = counting();
        let runtime = Runtime::builder().selector(selector).build().unwrap();
        let (stream, _peer) = plain_pair(&runtime);
        runtime.block_on(async {
            let reading = stream.clone();
            drop(spawn(async move { reading.read(&mut [0; 8]).await }));
            let start = Instant::now();
            // Moved a thousand times, over one entry.
            stream
                .set_read_deadline(Some(start + Duration::from_millis(50)))
                .unwrap();
            for step in 0..1000 {
                stream
                    .set_read_deadline(Some(start + (60 + step) * SECOND))
                    .unwrap();
            }
            time::sleep(Duration::from_millis(5)).await;
            let before = counts.sleeps();
            time::sleep(Duration::from_millis(200)).await;
            let sleeps = counts.sleeps() - before;
            assert!(
                sleeps <= 3,
                "{sleeps} sleeps: one up to the entry left behind, one to the end"
            );
        });
    }

    #[test]
    fn no_wake_up_comes_at_the_wheels_boundaries() {
        // Ticks around which slots of the first three levels begin, from a wheel that has run a while.
        for (ran, ahead) in [
            (3, 70),
            (50, 64),
            (63, 66),
            (1, 4100),
            (60, 4096),
            (10, 300_000),
        ] {
            let (selector, script) = scripted_selector::scripted();
            let reactor: Reactor<usize> = Reactor::with(selector);
            let descriptor = reactor.open(&mut scripted_selector::Nothing).unwrap();
            reactor
                .turn(Some(Duration::from_millis(ran)), &mut Vec::new())
                .unwrap();
            let when = Instant::now() + Duration::from_millis(ahead);
            descriptor.set_deadline(Direction::Read, Some(when));
            script.borrow_mut().waits.clear();
            let called = Instant::now();
            reactor.turn(None, &mut Vec::new()).unwrap();
            let wait = script.borrow().waits[0].expect("there is a deadline");
            let whole = when - called;
            assert!(
                wait + Duration::from_millis(5) >= whole,
                "{wait:?} of {whole:?}"
            );
            assert!(
                wait <= whole + Duration::from_millis(2),
                "{wait:?} of {whole:?}"
            );
        }
    }

    #[test]
    fn spin_without_end_waits_until_there_is_an_event() {
        let reactor: Reactor<usize> = Reactor::new().unwrap();
        reactor.set_spin(Duration::MAX);
        let (mut ours, theirs) = mio::net::UnixStream::pair().unwrap();
        let descriptor = reactor.open(&mut ours).unwrap();
        assert_eq!(descriptor.park(Direction::Read, 1), Park::Parked);
        drop(theirs);
        let mut out = Vec::new();
        reactor.turn(None, &mut out).unwrap();
        assert_eq!(out, [1]);
        reactor.close(descriptor, &mut ours).unwrap();
    }

    #[test]
    fn spin_polls_only_as_long_as_it_was_asked_to() {
        let _watchdog = watchdog();
        let (selector, counts) = counting();
        let spin = Duration::from_millis(2);
        let runtime = Runtime::builder()
            .selector(selector)
            .spin(spin)
            .build()
            .unwrap();
        runtime.block_on(async { time::sleep(Duration::from_millis(200)).await });
        let waits = counts.waits.lock().unwrap();
        let slept: Duration = waits.iter().flatten().sum();
        assert!(slept >= Duration::from_millis(150), "it spun on: {slept:?}");
        assert!(waits.contains(&Some(Duration::ZERO)), "it did not spin");
    }
}
