//! `descriptor.try_io`: try, EAGAIN, park, in one call.

use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use netpoller::reactor::{Descriptor, Direction, Park, Reactor, Readiness, Refusal, TryIo};

use crate::support::scripted_selector::{Nothing, SharedPlay, harvest, scripted};

const NOW: Option<Duration> = Some(Duration::ZERO);

struct Bench {
    reactor: Reactor<&'static str>,
    descriptor: Descriptor<&'static str>,
    script: SharedPlay,
}

fn bench() -> Bench {
    let (selector, script) = scripted();
    let reactor = Reactor::with(selector);
    let descriptor = reactor.open(&mut Nothing).unwrap();
    Bench {
        reactor,
        descriptor,
        script,
    }
}

impl Bench {
    /// A turn in which the source becomes ready for reading.
    fn becomes_readable(&self) -> Vec<&'static str> {
        let token = self.script.borrow().tokens[0];
        let harvest = harvest(token, Readiness::READ);
        self.script.borrow_mut().next.push_back(harvest);
        let mut out = Vec::new();
        self.reactor.turn(NOW, &mut out).unwrap();
        out
    }

    /// Tries to read, where each attempt comes to the next of `results`.
    fn try_read(
        &self,
        w: &'static str,
        results: impl IntoIterator<Item = io::Result<u8>>,
    ) -> TryIo<Result<u8, ErrorKind>, &'static str> {
        let mut results = results.into_iter();
        let attempt = || results.next().expect("one attempt too many");
        let tried = self.descriptor.try_io(Direction::Read, w, attempt);
        assert!(results.next().is_none(), "an attempt too few");
        match tried {
            TryIo::Done(done, w) => TryIo::Done(done.map_err(|error| error.kind()), w),
            TryIo::Parked => TryIo::Parked,
            TryIo::Refused(refusal, w) => TryIo::Refused(refusal, w),
        }
    }
}

fn error(kind: ErrorKind) -> io::Result<u8> {
    Err(kind.into())
}

#[test]
fn what_succeeds_or_fails_at_once_gives_the_w_back() {
    let bench = bench();
    assert_eq!(bench.try_read("w", [Ok(7)]), TryIo::Done(Ok(7), "w"));
    let reset = ErrorKind::ConnectionReset;
    let tried = bench.try_read("w", [error(reset)]);
    assert_eq!(tried, TryIo::Done(Err(reset), "w"));
    assert_eq!(bench.descriptor.unpark(Direction::Read), None);
}

#[test]
fn what_would_block_parks_and_comes_back_with_the_next_edge() {
    let bench = bench();
    bench.becomes_readable();
    assert_eq!(
        bench.try_read("w", [error(ErrorKind::WouldBlock)]),
        TryIo::Parked
    );
    let mut out = Vec::new();
    bench.reactor.turn(NOW, &mut out).unwrap();
    assert!(
        out.is_empty(),
        "the readiness of before the attempt is gone"
    );
    assert_eq!(bench.becomes_readable(), ["w"]);
    assert_eq!(bench.try_read("w", [Ok(7)]), TryIo::Done(Ok(7), "w"));
}

#[test]
fn an_interrupted_attempt_is_made_again() {
    let bench = bench();
    let interrupted = || error(ErrorKind::Interrupted);
    let tried = bench.try_read("w", [interrupted(), interrupted(), Ok(7)]);
    assert_eq!(tried, TryIo::Done(Ok(7), "w"));
}

#[test]
fn nothing_is_tried_after_the_deadline_or_the_close() {
    let bench = bench();
    let past = Some(Instant::now());
    bench.descriptor.set_deadline(Direction::Read, past);
    let refused = bench.try_read("w", []);
    assert_eq!(refused, TryIo::Refused(Refusal::TimedOut, "w"));
    bench.descriptor.set_deadline(Direction::Read, None);
    assert_eq!(bench.try_read("w", [Ok(7)]), TryIo::Done(Ok(7), "w"));
    bench.descriptor.evict();
    let refused = bench.try_read("w", []);
    assert_eq!(refused, TryIo::Refused(Refusal::Closed, "w"));
}

#[test]
fn a_close_in_the_midst_of_the_attempt_is_seen() {
    let bench = bench();
    let attempt = || {
        bench.descriptor.evict();
        error(ErrorKind::WouldBlock)
    };
    let tried = bench.descriptor.try_io(Direction::Read, "w", attempt);
    assert!(matches!(tried, TryIo::Refused(Refusal::Closed, "w")));
}

#[test]
fn a_second_waiter_panics_and_the_first_is_still_parked() {
    let bench = bench();
    assert_eq!(
        bench.descriptor.park(Direction::Read, "first"),
        Park::Parked
    );
    let second = || bench.try_read("second", [error(ErrorKind::WouldBlock)]);
    assert!(catch_unwind(AssertUnwindSafe(second)).is_err());
    assert_eq!(bench.becomes_readable(), ["first"]);
}
