//! Invariants 3 and 4 on the bare reactor, turn by turn, on a selector that says what it is told.

use std::thread;
use std::time::{Duration, Instant};

use netpoller::reactor::{
    Descriptor, Direction, Event, Harvest, Park, Reactor, Readiness, Refusal, Token,
};

use crate::support::script;
use crate::support::watchdog;

use Direction::{Read as ForRead, Write as ForWrite};
use script::{Nothing, Script, harvest, scripted};
use watchdog::watchdog;

const NOW: Option<Duration> = Some(Duration::ZERO);
const SOON: Duration = Duration::from_millis(5);
const STALL: Duration = Duration::from_millis(15);

struct Bench {
    reactor: Reactor<usize>,
    script: Script,
    descriptor: Descriptor<usize>,
    token: Token,
    /// Of somebody else's descriptor.
    other: Token,
    _others: Descriptor<usize>,
}

/// Two descriptors, and 1 parked to read from the first with a deadline close by.
fn bench() -> Bench {
    let (selector, script) = scripted();
    let reactor = Reactor::with(selector);
    let descriptor = reactor.open(&mut Nothing).unwrap();
    let _others = reactor.open(&mut Nothing).unwrap();
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
        _others,
    }
}

impl Bench {
    /// One turn that harvests this; who is handed back.
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

#[test]
fn invariant_4_a_turn_without_readiness_expires_up_to_now() {
    let bench = bench();
    thread::sleep(STALL);
    assert_eq!(bench.quiet(), [1]);
    assert_eq!(bench.descriptor.check(ForRead), Err(Refusal::TimedOut));
}

#[test]
fn invariant_4_a_turn_with_readiness_expires_only_up_to_the_harvest_before() {
    let bench = bench();
    thread::sleep(STALL);
    let others = || harvest(bench.other, Readiness::READ);
    assert_eq!(
        bench.turn(others()),
        [],
        "the deadline passed after the last harvest"
    );
    assert_eq!(bench.turn(others()), [1], "now it lies before it");
}

#[test]
fn invariant_4_an_incomplete_harvest_proves_nothing() {
    let bench = bench();
    thread::sleep(STALL);
    for _ in 0..10 {
        let full = (harvest(bench.other, Readiness::READ).0, Harvest::Partial);
        assert_eq!(
            bench.turn(full),
            [],
            "a full buffer: the bytes may still be outside"
        );
        let signal = (Vec::new(), Harvest::Partial);
        assert_eq!(bench.turn(signal), [], "a signal: nobody looked");
    }
    assert_eq!(bench.turn(harvest(bench.token, Readiness::READ)), [1]);
    assert_eq!(
        bench.descriptor.check(ForRead),
        Ok(()),
        "the bytes had come"
    );
}

#[test]
fn invariant_4_what_comes_between_the_harvest_and_the_clock_is_looked_for_before_anybody_expires() {
    let bench = bench();
    thread::sleep(STALL);
    // The first look finds nothing; the bytes are there by the second, in the same turn.
    let said = harvest(bench.token, Readiness::READ);
    bench
        .script
        .borrow_mut()
        .next
        .push_back((Vec::new(), Harvest::Complete));
    assert_eq!(bench.turn(said), [1]);
    assert_eq!(bench.descriptor.check(ForRead), Ok(()));
}

#[test]
fn invariant_4_an_incomplete_second_look_is_an_incomplete_harvest() {
    let bench = bench();
    thread::sleep(STALL);
    let full = (harvest(bench.other, Readiness::READ).0, Harvest::Partial);
    bench
        .script
        .borrow_mut()
        .next
        .push_back((Vec::new(), Harvest::Complete));
    assert_eq!(bench.turn(full.clone()), []);
    assert_eq!(
        bench.turn(full),
        [],
        "nothing was complete since the deadline"
    );
    assert_eq!(bench.turn(harvest(bench.token, Readiness::READ)), [1]);
    assert_eq!(bench.descriptor.check(ForRead), Ok(()));
}

#[test]
fn invariant_4_a_second_look_that_a_signal_cut_short_is_taken_again() {
    let bench = bench();
    thread::sleep(STALL);
    let (nothing, signal) = (Harvest::Complete, Harvest::Partial);
    for harvest in [nothing, signal, signal] {
        let said = (Vec::new(), harvest);
        bench.script.borrow_mut().next.push_back(said);
    }
    assert_eq!(bench.turn((Vec::new(), nothing)), [1]);
}

#[test]
fn invariant_4_bytes_that_come_with_the_expiring_turn_have_their_turn_first() {
    let bench = bench();
    thread::sleep(STALL);
    assert_eq!(bench.turn(harvest(bench.other, Readiness::READ)), []);
    // The deadline lies before the last harvest, but its bytes are here: they go first.
    assert_eq!(bench.turn(harvest(bench.token, Readiness::READ)), [1]);
    assert_eq!(bench.descriptor.check(ForRead), Ok(()));
    bench
        .descriptor
        .set_deadline(ForRead, Some(Instant::now() + STALL));
    bench.descriptor.drained(ForRead);
    assert_eq!(bench.descriptor.park(ForRead, 1), Park::Parked);
    assert_eq!(bench.quiet(), []);
}

#[test]
fn invariant_3_a_deadline_that_nobody_moves_passes_under_a_firehose_too() {
    let _watchdog = watchdog();
    let bench = bench();
    let give_up = Instant::now() + Duration::from_secs(5);
    while bench.descriptor.check(ForRead).is_ok() {
        assert!(Instant::now() < give_up, "spared for ever");
        // Every turn brings bytes, which are read to the last.
        for _ in bench.turn(harvest(bench.token, Readiness::READ)) {
            if bench.descriptor.check(ForRead).is_ok() {
                bench.descriptor.drained(ForRead);
                assert_eq!(bench.descriptor.park(ForRead, 1), Park::Parked);
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn invariant_3_clearing_one_direction_leaves_the_others_deadline_standing() {
    let bench = bench();
    thread::sleep(STALL);
    bench.turn(harvest(bench.other, Readiness::READ));
    bench.turn(harvest(bench.token, Readiness::READ));
    // Spared for its bytes; somebody clears the write deadline, and nobody moves the read one.
    bench.descriptor.set_deadline(ForWrite, None);
    bench.descriptor.drained(ForRead);
    assert_eq!(bench.descriptor.park(ForRead, 1), Park::Parked);
    thread::sleep(SOON);
    assert_eq!(bench.quiet(), [1]);
    assert_eq!(bench.descriptor.check(ForRead), Err(Refusal::TimedOut));
}

#[test]
fn invariant_3_moved_after_it_fired_and_before_its_waiter_ran_is_moved() {
    let bench = bench();
    thread::sleep(STALL);
    assert_eq!(bench.quiet(), [1]);
    bench
        .descriptor
        .set_deadline(ForRead, Some(Instant::now() + Duration::from_secs(60)));
    assert_eq!(bench.descriptor.check(ForRead), Ok(()));
    assert_eq!(bench.descriptor.park(ForRead, 1), Park::Parked);
    assert_eq!(bench.quiet(), []);
}

#[test]
fn invariant_3_now_expires_at_once_though_the_loops_time_is_old() {
    let bench = bench();
    thread::sleep(STALL);
    bench.descriptor.set_deadline(ForRead, Some(Instant::now()));
    assert_eq!(bench.descriptor.check(ForRead), Err(Refusal::TimedOut));
}

#[test]
fn invariant_3_a_deadline_in_the_past_hands_its_waiter_to_the_next_turn_which_does_not_block() {
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
    let (places, stale) = bench.reactor.places();
    assert_eq!(places - stale, 0, "no timer is left");
}
