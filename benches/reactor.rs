//! The cost of a turn of the bare reactor, its system calls included: `cargo bench -p
//! netpoller-benches --bench reactor`.
//!
//! The sockets are pairs of Unix streams on the system's selector. A byte is written to each, and
//! only the turn that finds them is timed.

use std::hint::black_box;
use std::io::{Read, Write};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use mio::net::UnixStream;
use netpoller::{Descriptor, Direction, Park, Reactor};

#[path = "common/mod.rs"]
mod common;
#[allow(dead_code, reason = "only the limit is of interest here")]
#[path = "../examples/echo_bench/measure/system.rs"]
mod system;

use common::{CpuTime, brief, taken, timed};

struct Connection {
    ours: UnixStream,
    theirs: UnixStream,
    descriptor: Descriptor<usize>,
}

fn connections(reactor: &Reactor<usize>, count: usize) -> Vec<Connection> {
    let open = |_| {
        let (mut ours, theirs) = UnixStream::pair().expect("there are descriptors");
        let descriptor = reactor.open(&mut ours).expect("there are keys");
        Connection {
            ours,
            theirs,
            descriptor,
        }
    };
    (0..count).map(open).collect()
}

fn empty(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("a turn that finds nothing");
    for idle in [0, 1_000] {
        let reactor = Reactor::new().expect("there are descriptors");
        let connections = connections(&reactor, idle);
        let mut out = Vec::new();
        let far = reactor.now() + Duration::from_secs(3_600);
        for connection in &connections {
            connection
                .descriptor
                .set_deadline(Direction::Read, Some(far));
        }
        // Open sockets can be written to, and the first turn says so.
        while turn(&reactor, &mut out) > 0 {}
        group.bench_function(
            BenchmarkId::new("idle sockets with deadlines", idle),
            |bencher| {
                bencher.iter(|| turn(&reactor, &mut out));
            },
        );
    }
    group.finish();
}

/// Returns how many events there were.
fn turn(reactor: &Reactor<usize>, out: &mut Vec<usize>) -> usize {
    let turn = black_box(reactor).turn(Some(Duration::ZERO), out);
    turn.expect("the system polls").events
}

fn ready(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("a turn that finds ready sockets, each one's share");
    for count in [1, 64, 1_000] {
        let reactor = Reactor::new().expect("there are descriptors");
        let mut connections = connections(&reactor, count);
        let mut out = Vec::with_capacity(count);
        while turn(&reactor, &mut out) > 0 {}
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter_custom(|iterations| {
                timed(iterations, count as u64, || {
                    for (number, connection) in connections.iter_mut().enumerate() {
                        let descriptor = &connection.descriptor;
                        descriptor.drained(Direction::Read);
                        assert_eq!(descriptor.park(Direction::Read, number), Park::Parked);
                        connection.theirs.write_all(b"!").expect("there is room");
                    }
                    out.clear();
                    let spent = taken(|| {
                        while out.len() < count {
                            turn(&reactor, &mut out);
                        }
                    });
                    for connection in &mut connections {
                        connection.ours.read_exact(&mut [0]).expect("it has come");
                    }
                    spent
                })
            });
        });
    }
    group.finish();
}

fn reactor(criterion: &mut Criterion<CpuTime>) {
    let limit = system::descriptor_limit();
    assert!(
        limit > 2_100,
        "{limit} open descriptors are too few: ulimit -n"
    );
    empty(criterion);
    ready(criterion);
}

criterion_group! {
    name = benches;
    config = brief();
    targets = reactor
}
criterion_main!(benches);
