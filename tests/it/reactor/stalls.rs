//! Invariants 3 and 4 on the bare reactor, turn by turn, on a scripted selector.

use std::cell::Cell;
use std::future::pending;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use Direction::{Read as ForRead, Write as ForWrite};
use netpoller::reactor::{
    Descriptor, Direction, Entries, Event, Harvest, Park, Reactor, Readiness, Refusal, Token,
};
use netpoller::{Runtime, Source, spawn};

use crate::support::scripted_selector::{Nothing, SharedPlay, harvest, scripted};
use crate::support::stall::stall;
use crate::support::watchdog::watchdog;

const NOW: Option<Duration> = Some(Duration::ZERO);
const SOON: Duration = Duration::from_millis(5);
const STALL: Duration = Duration::from_millis(15);
const NOTHING: [usize; 0] = [];

struct Bench {
    reactor: Reactor<usize>,
    script: SharedPlay,
    descriptor: Descriptor<usize>,
    token: Token,
    /// Of a descriptor that is not under test.
    other: Token,
    others: Descriptor<usize>,
}

/// Two descriptors, and 1 parked to read from the first with a deadline close by.
fn bench() -> Bench {
    let (selector, script) = scripted();
    let reactor = Reactor::with(selector);
    let descriptor = reactor.open(&mut Nothing).unwrap();
    let others = reactor.open(&mut Nothing).unwrap();
    reactor.turn(NOW, &mut Vec::new()).unwrap();
    descriptor.set_deadline(ForRead, Some(Instant::now() + SOON));
    assert_eq!(descriptor.park(ForRead, 1), Park::Parked);
    let (token, other) = (script.borrow().tokens[0], script.borrow().tokens[1]);
    Bench {
        reactor,
        script,
        descriptor,
        token,
        other,
        others,
    }
}

impl Bench {
    /// Takes a turn that harvests this. Returns what is handed back.
    fn turn(&self, said: (Vec<Event>, Harvest)) -> Vec<usize> {
        self.script.borrow_mut().next.push_back(said);
        let mut out = Vec::new();
        self.reactor.turn(NOW, &mut out).unwrap();
        out
    }

    fn quiet(&self) -> Vec<usize> {
        self.turn((Vec::new(), Harvest::Complete))
    }
}

mod invariant_4 {
    use super::*;

    #[test]
    fn a_turn_without_readiness_expires_up_to_the_reading_before_its_poll() {
        let bench = bench();
        stall(STALL);
        assert_eq!(bench.quiet(), [1]);
        assert_eq!(bench.descriptor.check(ForRead), Err(Refusal::TimedOut));
    }

    #[test]
    fn a_turn_with_readiness_expires_only_up_to_what_the_turns_before_have_settled() {
        let bench = bench();
        stall(STALL);
        let others = || harvest(bench.other, Readiness::READ);
        assert_eq!(
            bench.turn(others()),
            NOTHING,
            "the deadline passed after the last harvest"
        );
        assert_eq!(bench.turn(others()), [1], "what came with that has run");
    }

    #[test]
    fn an_incomplete_harvest_proves_nothing() {
        let bench = bench();
        stall(STALL);
        for _ in 0..10 {
            let full = (harvest(bench.other, Readiness::READ).0, Harvest::Partial);
            assert_eq!(
                bench.turn(full),
                NOTHING,
                "a full buffer: the bytes may still be outside"
            );
            let signal = (Vec::new(), Harvest::Partial);
            assert_eq!(bench.turn(signal), NOTHING, "a signal: there was no poll");
        }
        assert_eq!(bench.turn(harvest(bench.token, Readiness::READ)), [1]);
        assert_eq!(
            bench.descriptor.check(ForRead),
            Ok(()),
            "the bytes had come"
        );
    }

    #[test]
    fn what_comes_while_a_poll_is_held_up_is_found_before_a_deadline_expires() {
        let bench = bench();
        // The poll finds nothing, and returns long after; the bytes are there by the next turn.
        bench.script.borrow_mut().stalls.push_back(STALL);
        assert_eq!(bench.quiet(), NOTHING);
        assert_eq!(bench.turn(harvest(bench.token, Readiness::READ)), [1]);
        assert_eq!(bench.descriptor.check(ForRead), Ok(()));
    }

    #[test]
    fn a_wait_that_ends_without_an_event_is_followed_by_a_second_poll() {
        let bench = bench();
        let second = vec![harvest(bench.token, Readiness::READ)];
        assert_eq!(waits_then_finds(&bench, second), [1]);
        assert_eq!(bench.descriptor.check(ForRead), Ok(()));
    }

    #[test]
    fn a_second_poll_that_finds_nothing_settles_its_reading_at_once() {
        let bench = bench();
        assert_eq!(waits_then_finds(&bench, Vec::new()), [1]);
        assert_eq!(bench.descriptor.check(ForRead), Err(Refusal::TimedOut));
    }

    #[test]
    fn an_incomplete_second_poll_proves_nothing() {
        let bench = bench();
        let full = (harvest(bench.other, Readiness::READ).0, Harvest::Partial);
        assert_eq!(waits_then_finds(&bench, vec![full.clone()]), NOTHING);
        assert_eq!(
            bench.turn(full),
            NOTHING,
            "nothing was complete since the deadline"
        );
        assert_eq!(bench.turn(harvest(bench.token, Readiness::READ)), [1]);
        assert_eq!(bench.descriptor.check(ForRead), Ok(()));
    }

    #[test]
    fn a_second_poll_that_a_signal_cut_short_is_repeated() {
        let bench = bench();
        let signal = || (Vec::new(), Harvest::Partial);
        let second = vec![signal(), signal(), (Vec::new(), Harvest::Complete)];
        assert_eq!(waits_then_finds(&bench, second), [1]);
        assert_eq!(bench.descriptor.check(ForRead), Err(Refusal::TimedOut));
    }

    #[test]
    fn bytes_first_seen_after_the_settled_reading_come_too_late() {
        let bench = bench();
        stall(STALL);
        assert_eq!(bench.turn(harvest(bench.other, Readiness::READ)), NOTHING);
        // The deadline is settled by then: what had come before it was in that harvest.
        assert_eq!(bench.turn(harvest(bench.token, Readiness::READ)), [1]);
        assert_eq!(bench.descriptor.check(ForRead), Err(Refusal::TimedOut));
        // Expired is not for ever: the reader moves it, and finds its bytes.
        let later = Instant::now() + STALL;
        bench.descriptor.set_deadline(ForRead, Some(later));
        assert_eq!(bench.descriptor.park(ForRead, 1), Park::Ready(1));
    }

    #[test]
    fn of_many_that_become_ready_in_one_stall_none_expires() {
        let _watchdog = watchdog();
        const MANY: usize = 18_000;
        const LIMIT: Duration = Duration::from_secs(1);
        // The clock moves by a tick with each machine that runs, and by the stall.
        let start = Instant::now();
        let passed = Rc::new(Cell::new(Duration::ZERO));
        let reads = passed.clone();
        let (selector, script) = scripted();
        let builder = Runtime::builder().clock(move || start + reads.get());
        let runtime = builder.selector(selector).build().unwrap();
        let (late, moved) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        runtime.block_on(async {
            for _ in 0..MANY {
                let source = Source::new(Nothing).unwrap();
                let (late, moved, passed) = (late.clone(), moved.clone(), passed.clone());
                source.set_deadline(ForRead, Some(start + LIMIT)).unwrap();
                drop(spawn(async move {
                    let mut tries = 0;
                    let bytes = source.io(ForRead, |_| {
                        tries += 1;
                        match tries {
                            1 => Err(io::ErrorKind::WouldBlock.into()),
                            _ => Ok(()),
                        }
                    });
                    late.set(late.get() + usize::from(bytes.await.is_err()));
                    passed.set(passed.get() + Duration::from_millis(1));
                    let far = start + 3600 * LIMIT;
                    source.set_deadline(ForRead, Some(far)).unwrap();
                    moved.set(moved.get() + 1);
                    pending::<()>().await;
                }));
            }
        });
        while runtime.turn(NOW).unwrap().more {}
        // All their bytes come before the deadline. They are harvested after it, by the thousand.
        passed.set(2 * LIMIT);
        let tokens = script.borrow().tokens.clone();
        for some in tokens.chunks(1024) {
            let events = some.iter().map(|&token| harvest(token, Readiness::READ).0);
            let said = events.flatten().collect();
            script.borrow_mut().next.push_back((said, Harvest::Partial));
        }
        while runtime.turn(NOW).unwrap().more {}
        assert_eq!(moved.get(), MANY);
        assert_eq!(
            late.get(),
            0,
            "so many expired, though their bytes had come"
        );
    }
}

/// A turn waits in vain until the deadline, and then polls again. Returns what is handed back.
fn waits_then_finds(bench: &Bench, second: Vec<(Vec<Event>, Harvest)>) -> Vec<usize> {
    let mut script = bench.script.borrow_mut();
    script.stalls.push_back(STALL);
    script.next.push_back((Vec::new(), Harvest::Complete));
    script.next.extend(second);
    drop(script);
    let mut out = Vec::new();
    bench.reactor.turn(Some(STALL), &mut out).unwrap();
    out
}

mod invariant_3 {
    use super::*;

    #[test]
    fn a_deadline_that_is_not_moved_passes_under_endless_events_too() {
        let _watchdog = watchdog();
        let bench = bench();
        let give_up = Instant::now() + Duration::from_secs(5);
        while bench.descriptor.check(ForRead).is_ok() {
            assert!(Instant::now() < give_up, "it never expires");
            // Every turn brings bytes, which are read to the last.
            for _ in bench.turn(harvest(bench.token, Readiness::READ)) {
                if bench.descriptor.check(ForRead).is_ok() {
                    bench.descriptor.drained(ForRead);
                    assert_eq!(bench.descriptor.park(ForRead, 1), Park::Parked);
                }
            }
            stall(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_deadline_passes_though_each_turn_begins_with_something_pending() {
        let _watchdog = watchdog();
        let bench = bench();
        let (other, mut out) = (&bench.others, Vec::new());
        while !out.contains(&1) {
            stall(Duration::from_millis(1));
            out.clear();
            other.set_deadline(ForRead, None);
            assert_eq!(other.park(ForRead, 2), Park::Parked);
            other.set_deadline(ForRead, Some(Instant::now()));
            bench.reactor.turn(NOW, &mut out).unwrap();
            assert!(out.contains(&2));
        }
    }

    #[test]
    fn clearing_one_direction_leaves_the_others_deadline_standing() {
        let bench = bench();
        let later = Instant::now() + 2 * STALL;
        bench.descriptor.set_deadline(ForWrite, Some(later));
        bench.descriptor.set_deadline(ForWrite, None);
        stall(STALL);
        assert_eq!(bench.quiet(), [1]);
        assert_eq!(bench.descriptor.check(ForRead), Err(Refusal::TimedOut));
        assert_eq!(bench.descriptor.check(ForWrite), Ok(()));
        // And the other way round: the entry in the wheel was placed for the one that went.
        bench.descriptor.set_deadline(ForRead, None);
        bench
            .descriptor
            .set_deadline(ForRead, Some(Instant::now() + SOON));
        bench
            .descriptor
            .set_deadline(ForWrite, Some(Instant::now() + STALL));
        bench.descriptor.set_deadline(ForRead, None);
        stall(2 * STALL);
        bench.quiet();
        assert_eq!(bench.descriptor.check(ForRead), Ok(()));
        assert_eq!(bench.descriptor.check(ForWrite), Err(Refusal::TimedOut));
    }

    #[test]
    fn a_deadline_that_fires_and_is_moved_before_its_waiter_runs_is_no_timeout() {
        let bench = bench();
        stall(STALL);
        assert_eq!(bench.quiet(), [1]);
        bench
            .descriptor
            .set_deadline(ForRead, Some(Instant::now() + Duration::from_secs(60)));
        assert_eq!(bench.descriptor.check(ForRead), Ok(()));
        assert_eq!(bench.descriptor.park(ForRead, 1), Park::Parked);
        assert_eq!(bench.quiet(), NOTHING);
    }

    #[test]
    fn a_deadline_of_now_expires_at_once_although_the_loops_reading_is_old() {
        let bench = bench();
        stall(STALL);
        bench.descriptor.set_deadline(ForRead, Some(Instant::now()));
        assert_eq!(bench.descriptor.check(ForRead), Err(Refusal::TimedOut));
    }

    #[test]
    fn a_deadline_in_the_past_hands_its_waiter_to_the_next_turn_which_does_not_block() {
        let bench = bench();
        bench.descriptor.set_deadline(ForRead, Some(Instant::now()));
        assert_eq!(bench.descriptor.check(ForRead), Err(Refusal::TimedOut));
        assert_eq!(bench.reactor.next_timeout(), NOW);
        bench.script.borrow_mut().waits.clear();
        let mut out = Vec::new();
        bench.reactor.turn(None, &mut out).unwrap();
        assert_eq!(out, [1]);
        assert_eq!(bench.script.borrow().waits, [NOW]);
        assert_eq!(bench.descriptor.park(ForRead, 2), Park::TimedOut(2));
        let Entries { held, stale, .. } = bench.reactor.entries();
        assert!(held - stale <= 1, "the entry stayed when it came up");
        stall(STALL);
        bench.quiet();
        assert_eq!(bench.reactor.entries().held, 0, "a timer is left");
    }
}
