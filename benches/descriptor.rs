//! The cost of one registered source without its system calls: `cargo bench -p netpoller-benches
//! --bench descriptor`.
//!
//! The selector is a scripted one. A deadline is moved in two ways: all moves of a turn to one
//! instant, as in a server, and each to a new one. A move takes Go 188 to 242 ns, and tokio's reset
//! 181 to 340. The ceiling here is 10 ns, with one timer and with a million.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use netpoller::reactor::{Event, Harvest, Readiness};
use netpoller::{Descriptor, Direction, Park, Reactor};

#[path = "common/mod.rs"]
mod common;
#[path = "../tests/it/support/scripted_selector.rs"]
mod scripted_selector;
#[allow(dead_code, reason = "only `stall` is used")]
#[path = "../tests/it/support/stall.rs"]
mod stall;

use common::{CpuTime, brief, timed, worked};
use scripted_selector::{Nothing, scripted};

const IDLE: Duration = Duration::from_secs(30);
const MANY: usize = 1_000_000;
/// Descriptors that become ready in one turn.
const READY: usize = 1_000;

/// A reactor, and descriptors with deadlines.
fn armed(count: usize) -> (Reactor<usize>, Vec<Descriptor<usize>>) {
    let reactor = Reactor::with(scripted().0);
    let open = |_| {
        let descriptor = reactor.open(&mut Nothing).expect("there are keys");
        descriptor.set_deadline(Direction::Read, Some(reactor.now() + IDLE));
        descriptor
    };
    let descriptors = (0..count).map(open).collect();
    (reactor, descriptors)
}

fn park(criterion: &mut Criterion<CpuTime>) {
    let (_reactor, descriptors) = armed(1);
    let descriptor = &descriptors[0];
    criterion.bench_function("check", |bencher| {
        bencher.iter(|| black_box(descriptor).check(Direction::Read));
    });
    criterion.bench_function("park and unpark", |bencher| {
        bencher.iter(|| {
            assert_eq!(black_box(descriptor).park(Direction::Read, 7), Park::Parked);
            descriptor.unpark(Direction::Read)
        });
    });
}

/// Park, an event, handed out: a thousand in a turn, and the share of each.
fn ready(criterion: &mut Criterion<CpuTime>) {
    let (selector, script) = scripted();
    let reactor: Reactor<usize> = Reactor::with(selector);
    let open = |_| reactor.open(&mut Nothing).expect("there are keys");
    let descriptors: Vec<_> = (0..READY).map(open).collect();
    let mut out = Vec::with_capacity(READY);
    criterion.bench_function("park, ready, handed back, drained", |bencher| {
        bencher.iter_custom(|iterations| {
            timed(iterations, READY as u64, || {
                let mut play = script.borrow_mut();
                let events = play.tokens.iter().map(|&token| Event {
                    token,
                    readiness: Readiness::READ,
                });
                let events = events.collect();
                play.next.push_back((events, Harvest::Complete));
                play.waits.clear();
                drop(play);
                out.clear();
                let spent = worked(|| {
                    for (number, descriptor) in descriptors.iter().enumerate() {
                        assert_eq!(descriptor.park(Direction::Read, number), Park::Parked);
                    }
                    reactor
                        .turn(Some(Duration::ZERO), &mut out)
                        .expect("the script has no errors");
                    for descriptor in &descriptors {
                        descriptor.drained(Direction::Read);
                    }
                });
                assert_eq!(out.len(), READY);
                spent
            })
        });
    });
}

fn deadlines(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("move a deadline");
    let reactor = Reactor::<usize>::with(scripted().0);
    group.bench_function("a new instant alone, to compare", |bencher| {
        let mut moves = 0u64;
        bencher.iter(|| {
            moves += 1;
            black_box(&reactor).now() + IDLE + Duration::from_secs(moves % 2)
        });
    });
    for count in [1, MANY] {
        let (reactor, descriptors) = armed(count);
        let all = &descriptors[..];
        // As that of a busy connection. With a million, each in turn, so that none is in the cache.
        let whose = [("of one", &all[..1]), ("of each in turn", all)];
        for (whose, descriptors) in &whose[..if count == 1 { 1 } else { 2 }] {
            let usual = BenchmarkId::new(format!("to the usual instant, {whose}"), count);
            group.bench_function(usual, |bencher| {
                let mut turns = descriptors.iter().cycle();
                bencher.iter(|| {
                    let descriptor = turns.next().expect("it goes round");
                    let when = black_box(&reactor).now() + IDLE;
                    descriptor.set_deadline(Direction::Read, Some(when));
                });
            });
            let new = BenchmarkId::new(format!("to a new instant, {whose}"), count);
            group.bench_function(new, |bencher| {
                let mut turns = descriptors.iter().cycle();
                let mut moves = 0u64;
                bencher.iter(|| {
                    let descriptor = turns.next().expect("it goes round");
                    moves += 1;
                    let when = black_box(&reactor).now() + IDLE + Duration::from_secs(moves % 2);
                    descriptor.set_deadline(Direction::Read, Some(when));
                });
            });
        }
        let descriptor = &descriptors[0];
        group.bench_function(
            BenchmarkId::new("to none and back again", count),
            |bencher| {
                bencher.iter(|| {
                    descriptor.set_deadline(Direction::Read, None);
                    descriptor
                        .set_deadline(Direction::Read, Some(black_box(&reactor).now() + IDLE));
                });
            },
        );
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = brief();
    targets = park, ready, deadlines
}
criterion_main!(benches);
