//! `Reactor::for_each`, and what the reactor counts.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use mio::net::UnixStream;
use netpoller::reactor::{Descriptor, Direction, Park, Reactor, Readiness};

use crate::support::script::{Nothing, harvest, scripted};

const NOW: Option<Duration> = Some(Duration::ZERO);
const SECOND: Duration = Duration::from_secs(1);

/// What is parked, in the three slots of each descriptor.
fn parked(reactor: &Reactor<String>) -> Vec<[Option<String>; 3]> {
    let mut all = Vec::new();
    reactor.for_each(|view| {
        let slots = [view.read.parked, view.write.parked, view.hang_up];
        all.push(slots.map(|w| w.cloned()));
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
    let (hang_up, before) = descriptor.park_hang_up("watcher".to_owned());
    assert_eq!((hang_up, before), (Park::Parked, None));
    let all = ["reader", "writer", "watcher"];
    for _ in 0..2 {
        assert_eq!(parked(&reactor), [all.map(|w| Some(w.to_owned()))]);
    }
    let token = script.borrow().tokens[0];
    let everything = Readiness::READ | Readiness::WRITE | Readiness::HUNG_UP;
    let harvest = harvest(token, everything);
    script.borrow_mut().next.push_back(harvest);
    let mut out = Vec::new();
    reactor.turn(NOW, &mut out).unwrap();
    assert_eq!(out, all);
    assert_eq!(parked(&reactor), [[None, None, None]]);
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
    reactor.for_each(|view| {
        seen += 1;
        assert_eq!(view.token, token);
        let shown = view.read.deadline.unwrap();
        assert!(when <= shown && shown <= when + Duration::from_millis(1));
        assert_eq!((view.read.is_expired, view.read.is_ready), (false, true));
        assert_eq!((view.write.is_expired, view.write.is_ready), (true, false));
        assert_eq!((view.write.deadline, view.is_closed), (None, false));
    });
    assert_eq!(seen, 1);
    descriptor.evict();
    reactor.for_each(|view| assert!(view.is_closed && view.read.deadline.is_none()));
    reactor.close(descriptor, &mut Nothing).unwrap();
    reactor.for_each(|view| panic!("{view:?} is closed"));
}

#[test]
fn a_look_that_panics_loses_no_waiter() {
    let reactor: Reactor<String> = Reactor::new().unwrap();
    let (mut ours, _theirs) = UnixStream::pair().unwrap();
    let descriptor = reactor.open(&mut ours).unwrap();
    park(&descriptor, Direction::Read, "reader");
    let look = || reactor.for_each(|_| panic!("a look that fails"));
    assert!(catch_unwind(AssertUnwindSafe(look)).is_err());
    let w = descriptor.unpark(Direction::Read);
    assert_eq!(w.as_deref(), Some("reader"));
    reactor.close(descriptor, &mut ours).unwrap();
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
