//! The bare reactor, on the system's selector and on a scripted one.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use Direction::{Read as ForRead, Write as ForWrite};
use mio::net::UnixStream;
use mio::unix::SourceFd;
use netpoller::reactor::{
    Descriptor, Direction, Entries, Harvest, Park, Reactor, Readiness, Refusal, Token,
};

use crate::support::scripted_selector::{Nothing, harvest, scripted};
use crate::support::watchdog::watchdog;

const NOW: Option<Duration> = Some(Duration::ZERO);

/// An open source on a reactor, its descriptor, and the other end.
fn open(reactor: &Reactor<usize>) -> (UnixStream, Descriptor<usize>, UnixStream) {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let descriptor = reactor.open(&mut ours).unwrap();
    (ours, descriptor, theirs)
}

/// Turns until a W is handed back.
fn turn(reactor: &Reactor<usize>) -> Vec<usize> {
    let mut out = Vec::new();
    while out.is_empty() {
        reactor.turn(None, &mut out).unwrap();
    }
    out
}

fn would_block(source: &mut UnixStream) -> bool {
    matches!(source.read(&mut [0; 8]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn a_source_that_does_not_arm_itself_is_armed_by_rearm() {
    let _watchdog = watchdog();
    let reactor = Reactor::new().unwrap();
    let (mut ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let fd = ours.as_raw_fd();
    let mut source = SourceFd(&fd);
    let descriptor = reactor.open(&mut source).unwrap();
    for waiter in 0..3 {
        let failed = ours.read(&mut [0; 8]).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::WouldBlock);
        descriptor.drained(ForRead);
        descriptor.rearm(&mut source).unwrap();
        assert_eq!(descriptor.park(ForRead, waiter), Park::Parked);
        theirs.write_all(b"!").unwrap();
        assert_eq!(turn(&reactor), [waiter]);
        assert_eq!(ours.read(&mut [0; 8]).unwrap(), 1);
    }
    reactor.close(descriptor, &mut source).unwrap();
}

mod invariant_1 {
    use super::*;

    #[test]
    fn readiness_between_a_failed_attempt_and_parking_is_seen() {
        let _watchdog = watchdog();
        let reactor = Reactor::new().unwrap();
        let (mut ours, descriptor, mut theirs) = open(&reactor);
        reactor.turn(NOW, &mut Vec::new()).unwrap();
        assert!(would_block(&mut ours));
        descriptor.drained(ForRead);
        theirs.write_all(b"!").unwrap();
        while !descriptor.is_ready(ForRead) {
            assert_eq!(reactor.turn(None, &mut Vec::new()).unwrap().machines, 0);
        }
        assert_eq!(descriptor.park(ForRead, 1), Park::Ready(1));
        // That used the readiness up, so the next waiter parks. (poll(2) needs another attempt
        // before.)
        assert_eq!(ours.read(&mut [0; 8]).unwrap(), 1);
        assert!(would_block(&mut ours));
        assert_eq!(descriptor.park(ForRead, 2), Park::Parked);
        theirs.write_all(b"!").unwrap();
        assert_eq!(turn(&reactor), [2]);
    }
}

#[test]
fn directions_are_parked_and_woken_apart() {
    let _watchdog = watchdog();
    let (selector, script) = scripted();
    let reactor = Reactor::with(selector);
    let descriptor = reactor.open(&mut Nothing).unwrap();
    let token = script.borrow().tokens[0];
    assert_eq!(descriptor.park(ForRead, 1), Park::Parked);
    assert_eq!(descriptor.park(ForWrite, 2), Park::Parked);
    script
        .borrow_mut()
        .next
        .push_back(harvest(token, Readiness::WRITE));
    assert_eq!(turn(&reactor), [2]);
    let both = Readiness::READ | Readiness::WRITE;
    script.borrow_mut().next.push_back(harvest(token, both));
    assert_eq!(turn(&reactor), [1]);
    assert_eq!(descriptor.park(ForWrite, 3), Park::Ready(3));
}

mod invariant_2 {
    use super::*;

    #[test]
    fn an_event_for_an_earlier_owner_of_the_key_changes_nothing() {
        let (selector, script) = scripted();
        let reactor = Reactor::with(selector);
        let first = reactor.open(&mut Nothing).unwrap();
        reactor.close(first, &mut Nothing).unwrap();
        let second = reactor.open(&mut Nothing).unwrap();
        assert_eq!(second.park(ForRead, 2), Park::Parked);
        let (old, new) = (script.borrow().tokens[0], script.borrow().tokens[1]);
        assert_ne!(old, new);
        let made_up = [0xdead_beef, usize::MAX - 1].map(|bits| Token::from(mio::Token(bits)));
        for token in [old, Token::BREAK].into_iter().chain(made_up) {
            script
                .borrow_mut()
                .next
                .push_back(harvest(token, Readiness::READ));
            let mut out = Vec::new();
            assert_eq!(reactor.turn(NOW, &mut out).unwrap().events, 0);
            assert!(out.is_empty() && !second.is_ready(ForRead));
        }
        script
            .borrow_mut()
            .next
            .push_back(harvest(new, Readiness::READ));
        assert_eq!(turn(&reactor), [2]);
    }

    #[test]
    fn an_event_after_close_in_the_same_harvest_changes_nothing() {
        let (selector, script) = scripted();
        let reactor = Reactor::with(selector);
        let descriptor = reactor.open(&mut Nothing).unwrap();
        let other = descriptor.clone();
        let token = script.borrow().tokens[0];
        reactor.close(descriptor, &mut Nothing).unwrap();
        script
            .borrow_mut()
            .next
            .push_back(harvest(token, Readiness::READ));
        reactor.turn(NOW, &mut Vec::new()).unwrap();
        assert!(!other.is_ready(ForRead));
        assert_eq!(other.park(ForRead, 1), Park::Closed(1));
    }

    #[test]
    fn a_deadline_of_an_earlier_owner_of_the_key_changes_nothing() {
        let _watchdog = watchdog();
        let reactor = Reactor::new().unwrap();
        let (mut ours, descriptor, _theirs) = open(&reactor);
        let soon = Instant::now() + Duration::from_millis(20);
        descriptor.set_deadline(ForRead, Some(soon));
        reactor.close(descriptor, &mut ours).unwrap();
        let (_ours, next, _theirs) = open(&reactor);
        next.set_deadline(ForRead, Some(soon + Duration::from_secs(60)));
        assert_eq!(next.park(ForRead, 1), Park::Parked);
        let mut out = Vec::new();
        while Instant::now() < soon + Duration::from_millis(10) {
            reactor
                .turn(Some(Duration::from_millis(5)), &mut out)
                .unwrap();
        }
        assert!(out.is_empty());
        assert_eq!(next.check(ForRead), Ok(()));
    }
}

#[cfg(not(mio_unsupported_force_poll_poll))]
#[test]
fn a_reactor_nests_in_another_by_its_descriptor() {
    use std::os::fd::{AsFd, AsRawFd};
    let _watchdog = watchdog();
    let (outer, inner) = (Reactor::new().unwrap(), Reactor::new().unwrap());
    let number = inner.as_fd().as_raw_fd();
    let mut nested = mio::unix::SourceFd(&number);
    let whole = outer.open(&mut nested).unwrap();
    let (_source, descriptor, mut peer) = open(&inner);
    assert_eq!(descriptor.park(Direction::Read, 7), Park::Parked);
    assert_eq!(whole.park(Direction::Read, 1), Park::Parked);
    peer.write_all(b"!").unwrap();
    assert_eq!(turn(&outer), [1]);
    assert_eq!(turn(&inner), [7]);
    outer.close(whole, &mut nested).unwrap();
}

#[test]
fn evicting_hands_back_all_waiters_with_the_next_turn_which_does_not_block() {
    let _watchdog = watchdog();
    let reactor = Reactor::new().unwrap();
    let (_ours, descriptor, _theirs) = open(&reactor);
    assert_eq!(descriptor.park(ForRead, 1), Park::Parked);
    assert_eq!(descriptor.park(ForWrite, 2), Park::Parked);
    descriptor.evict();
    assert_eq!(reactor.next_timeout(), NOW);
    let mut out = Vec::new();
    reactor.turn(None, &mut out).unwrap();
    out.sort_unstable();
    assert_eq!(out, [1, 2]);
    assert_eq!(descriptor.check(ForRead), Err(Refusal::Closed));
    assert_eq!(descriptor.park(ForRead, 1), Park::Closed(1));
    descriptor.set_deadline(ForRead, None);
    assert_eq!(descriptor.check(ForRead), Err(Refusal::Closed), "for ever");
}

mod invariant_5 {
    use super::*;

    #[test]
    fn closing_through_one_handle_closes_all_and_frees_the_key_once() {
        let reactor = Reactor::new().unwrap();
        let (mut ours, descriptor, _theirs) = open(&reactor);
        let others = [descriptor.clone(), descriptor.clone()];
        assert_eq!(others[0].park(ForRead, 1), Park::Parked);
        assert_eq!(reactor.descriptors(), 1);
        reactor.close(descriptor, &mut ours).unwrap();
        assert_eq!(reactor.descriptors(), 0);
        // Another takes the key; what the old handles do must not touch it.
        let (_ours, newer, _theirs) = open(&reactor);
        others[1].evict();
        drop(others);
        assert_eq!(reactor.descriptors(), 1);
        assert_eq!(newer.check(ForRead), Ok(()));
        assert_eq!(turn(&reactor), [1]);
    }
}

#[test]
fn dropping_the_last_handle_frees_the_key_and_hands_back_the_waiters() {
    let reactor = Reactor::new().unwrap();
    let (_ours, descriptor, _theirs) = open(&reactor);
    descriptor.set_deadline(ForRead, Some(Instant::now() + Duration::from_secs(60)));
    assert_eq!(descriptor.park(ForRead, 1), Park::Parked);
    drop(descriptor.clone());
    assert_eq!(reactor.descriptors(), 1);
    drop(descriptor);
    assert_eq!(reactor.descriptors(), 0);
    assert_eq!(turn(&reactor), [1]);
    let Entries { held, stale, .. } = reactor.entries();
    assert_eq!(held - stale, 0, "its deadline went with it");
}

#[test]
fn a_descriptor_that_was_evicted_leaves_its_slot_with_its_last_handle() {
    let reactor = Reactor::new().unwrap();
    let (_source, descriptor, _peer) = open(&reactor);
    let other = descriptor.clone();
    descriptor.evict();
    drop(descriptor);
    assert_eq!(reactor.descriptors(), 1);
    drop(other);
    assert_eq!(reactor.descriptors(), 0);
}

#[test]
fn a_descriptor_that_outlives_its_reactor_is_closed() {
    let reactor = Reactor::new().unwrap();
    let (_ours, descriptor, _theirs) = open(&reactor);
    assert_eq!(descriptor.park(ForRead, 1), Park::Parked);
    drop(reactor);
    assert_eq!(descriptor.park(ForRead, 2), Park::Closed(2));
    descriptor.set_deadline(ForRead, Some(Instant::now()));
    assert_eq!(descriptor.check(ForRead), Err(Refusal::Closed));
    descriptor.evict();
}

#[test]
fn a_turn_counts_the_deadlines_that_pass_with_and_without_a_waiter() {
    let _watchdog = watchdog();
    let reactor = Reactor::new().unwrap();
    let (_source, descriptor, _peer) = open(&reactor);
    let soon = Some(Instant::now() + Duration::from_millis(5));
    descriptor.set_deadline(ForRead, soon);
    descriptor.set_deadline(ForWrite, soon);
    let (mut out, mut expired) = (Vec::new(), 0);
    while descriptor.check(ForRead).is_ok() {
        expired += reactor.turn(None, &mut out).unwrap().expired;
    }
    assert_eq!((out.len(), expired), (0, 2));
}

#[test]
fn a_break_from_another_thread_ends_a_blocked_turn() {
    let _watchdog = watchdog();
    let reactor: Reactor<usize> = Reactor::new().unwrap();
    let breaker = reactor.breaker();
    let thread = thread::spawn(move || breaker.break_netpoll().unwrap());
    let mut out = Vec::new();
    let turn = reactor.turn(None, &mut out).unwrap();
    assert!(out.is_empty() && turn.events == 0);
    thread.join().unwrap();
}

#[test]
fn a_signal_ends_a_turn_early_and_is_no_error() {
    let (selector, script) = scripted();
    let reactor = Reactor::with(selector);
    let descriptor = reactor.open(&mut Nothing).unwrap();
    assert_eq!(descriptor.park(ForRead, 1), Park::Parked);
    let token = script.borrow().tokens[0];
    script
        .borrow_mut()
        .next
        .push_back((Vec::new(), Harvest::Partial));
    script
        .borrow_mut()
        .next
        .push_back(harvest(token, Readiness::READ));
    let mut out = Vec::new();
    reactor.turn(None, &mut out).unwrap();
    assert!(out.is_empty(), "a signal: nothing, and no error");
    assert_eq!(turn(&reactor), [1]);
}

// ---- invariant 11: a W's drop may do anything ----

/// Uses its descriptor again when it is dropped.
struct Reentrant {
    reactor: Rc<Reactor<Reentrant>>,
    descriptor: Descriptor<Reentrant>,
    dropped: Rc<RefCell<usize>>,
}

impl Drop for Reentrant {
    fn drop(&mut self) {
        *self.dropped.borrow_mut() += 1;
        self.descriptor.set_deadline(ForRead, Some(Instant::now()));
        self.descriptor.set_deadline(ForWrite, None);
        self.descriptor.evict();
        drop(self.descriptor.unpark(ForWrite));
        let opened = self.reactor.open(&mut Nothing).unwrap();
        drop(opened);
        let mut out = Vec::new();
        self.reactor.turn(NOW, &mut out).unwrap();
    }
}

mod invariant_11 {
    use super::*;

    #[test]
    fn a_w_whose_drop_uses_the_reactor_finds_no_borrow() {
        let (selector, _script) = scripted();
        let reactor: Rc<Reactor<Reentrant>> = Rc::new(Reactor::with(selector));
        let dropped = Rc::new(RefCell::new(0));
        let descriptor = reactor.open(&mut Nothing).unwrap();
        let make = || Reentrant {
            reactor: reactor.clone(),
            descriptor: descriptor.clone(),
            dropped: dropped.clone(),
        };
        assert!(matches!(descriptor.park(ForRead, make()), Park::Parked));
        assert!(matches!(descriptor.park(ForWrite, make()), Park::Parked));
        // The drop of the first evicts the descriptor, and a turn hands the other out.
        drop(descriptor.unpark(ForRead));
        assert_eq!(*dropped.borrow(), 2);
        assert!(matches!(descriptor.park(ForRead, make()), Park::Closed(_)));
        assert_eq!(*dropped.borrow(), 3);
    }

    #[test]
    fn a_reactor_may_be_dropped_while_ws_that_use_it_are_parked() {
        let (selector, script) = scripted();
        let reactor: Reactor<Parting> = Reactor::with(selector);
        let descriptor = reactor.open(&mut Nothing).unwrap();
        let other = reactor.open(&mut Nothing).unwrap();
        assert!(matches!(
            other.park(ForRead, Parting(descriptor.clone())),
            Park::Parked
        ));
        assert!(matches!(
            descriptor.park(ForRead, Parting(other.clone())),
            Park::Parked
        ));
        drop((descriptor, other));
        drop(reactor);
        assert_eq!(Rc::strong_count(&script), 1, "a cycle is left");
    }
}

/// Evicts its descriptor when it is dropped, perhaps together with its reactor.
struct Parting(Descriptor<Parting>);

impl Drop for Parting {
    fn drop(&mut self) {
        self.0.evict();
        self.0.set_deadline(ForRead, Some(Instant::now()));
    }
}
