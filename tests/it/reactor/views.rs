//! `Reactor::for_each`, and what the reactor counts.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use mio::net::UnixStream;
use netpoller::reactor::{Descriptor, Direction, Harvest, Park, Reactor, Readiness, Refusal};

use crate::support::scripted_selector::{Nothing, harvest, scripted};

const NOW: Option<Duration> = Some(Duration::ZERO);
const SECOND: Duration = Duration::from_secs(1);

/// What is parked, in the two slots of each descriptor.
fn parked(reactor: &Reactor<String>) -> Vec<[Option<String>; 2]> {
    let mut all = Vec::new();
    reactor.for_each(|descriptor| {
        let mut slots = [const { None }; 2];
        descriptor.parked(|direction, w| {
            slots[direction as usize] = Some(w.clone());
        });
        all.push(slots);
    });
    all
}

fn park(descriptor: &Descriptor<String>, direction: Direction, w: &str) {
    assert_eq!(descriptor.park(direction, w.to_owned()), Park::Parked);
}

#[test]
fn what_is_parked_is_shown_and_stays_parked() {
    let (selector, script) = scripted();
    let reactor = Reactor::with(selector);
    let descriptor = reactor.open(&mut Nothing).unwrap();
    park(&descriptor, Direction::Read, "reader");
    park(&descriptor, Direction::Write, "writer");
    let all = ["reader", "writer"];
    for _ in 0..2 {
        assert_eq!(parked(&reactor), [all.map(|w| Some(w.to_owned()))]);
    }
    let token = script.borrow().tokens[0];
    let everything = Readiness::READ | Readiness::WRITE;
    let harvest = harvest(token, everything);
    script.borrow_mut().next.push_back(harvest);
    let mut out = Vec::new();
    reactor.turn(NOW, &mut out).unwrap();
    assert_eq!(out, all);
    assert_eq!(parked(&reactor), [[None, None]]);
}

#[test]
fn deadlines_and_readiness_are_shown_as_they_are() {
    let (selector, script) = scripted();
    let reactor: Reactor<String> = Reactor::with(selector);
    let descriptor = reactor.open(&mut Nothing).unwrap();
    let when = Instant::now() + 9 * SECOND;
    descriptor.set_deadline(Direction::Read, Some(when));
    descriptor.set_deadline(Direction::Write, Some(Instant::now()));
    let token = script.borrow().tokens[0];
    let harvest = harvest(token, Readiness::READ);
    script.borrow_mut().next.push_back(harvest);
    reactor.turn(NOW, &mut Vec::new()).unwrap();
    let mut seen = 0;
    reactor.for_each(|shown| {
        seen += 1;
        assert_eq!(shown.token(), token);
        let reading = shown.deadline(Direction::Read).unwrap();
        assert!(when <= reading && reading <= when + Duration::from_millis(1));
        let checks = Direction::BOTH.map(|at| shown.check(at));
        assert_eq!(checks, [Ok(()), Err(Refusal::TimedOut)]);
        let ready = Direction::BOTH.map(|at| shown.is_ready(at));
        assert_eq!(ready, [true, false]);
        assert_eq!(shown.deadline(Direction::Write), None);
        assert!(!shown.is_closed());
    });
    assert_eq!(seen, 1);
    descriptor.evict();
    reactor
        .for_each(|shown| assert!(shown.is_closed() && shown.deadline(Direction::Read).is_none()));
    reactor.close(descriptor, &mut Nothing).unwrap();
    reactor.for_each(|shown| panic!("{shown:?} is closed"));
}

#[test]
fn a_closure_of_for_each_that_panics_loses_no_waiter() {
    let reactor: Reactor<String> = Reactor::new().unwrap();
    let (mut ours, _theirs) = UnixStream::pair().unwrap();
    let descriptor = reactor.open(&mut ours).unwrap();
    park(&descriptor, Direction::Read, "reader");
    let visit = || reactor.for_each(|shown| shown.parked(|_, w| panic!("at {w}")));
    assert!(catch_unwind(AssertUnwindSafe(visit)).is_err());
    let w = descriptor.unpark(Direction::Read);
    assert_eq!(w.as_deref(), Some("reader"));
    reactor.close(descriptor, &mut ours).unwrap();
}

#[test]
fn a_timer_of_now_is_handed_back_by_the_next_turn() {
    let reactor: Reactor<u8> = Reactor::with(scripted().0);
    for _ in 0..20 {
        let later = reactor.timer(Instant::now() + SECOND, 1);
        let mut out = Vec::new();
        reactor.timer(Instant::now(), 2);
        assert!(reactor.move_timer(later, Instant::now()));
        reactor.turn(NOW, &mut out).unwrap();
        out.sort_unstable();
        assert_eq!(out, [1, 2]);
    }
}

#[test]
fn timers_are_counted_until_they_fire_or_are_canceled() {
    let (selector, _script) = scripted();
    let reactor: Reactor<u8> = Reactor::with(selector);
    let now = Instant::now();
    reactor.timer(now, 1);
    let far = reactor.timer(now + 9 * SECOND, 2);
    assert_eq!(reactor.timers(), 2);
    let mut out = Vec::new();
    while out.is_empty() {
        reactor.turn(NOW, &mut out).unwrap();
    }
    assert_eq!((out, reactor.timers()), (vec![1], 1));
    assert_eq!(reactor.cancel_timer(far), Some(2));
    assert_eq!((reactor.cancel_timer(far), reactor.timers()), (None, 0));
    assert!(!reactor.move_timer(far, now));
}

#[test]
fn after_a_full_harvest_there_is_more_and_after_a_signal_there_is_not() {
    let (selector, script) = scripted();
    let reactor: Reactor<u8> = Reactor::with(selector);
    let _descriptor = reactor.open(&mut Nothing).unwrap();
    let token = script.borrow().tokens[0];
    let (events, _) = harvest(token, Readiness::READ);
    for (events, more) in [(events, true), (Vec::new(), false)] {
        let partial = (events, Harvest::Partial);
        script.borrow_mut().next.push_back(partial);
        let turn = reactor.turn(NOW, &mut Vec::new()).unwrap();
        assert_eq!(turn.more, more);
        assert_eq!(reactor.next_timeout(), more.then_some(Duration::ZERO));
    }
}
