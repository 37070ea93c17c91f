//! The cost of a timer, from a thousand of them to ten million: `cargo bench -p netpoller-benches
//! --bench wheel`.
//!
//! Deadlines are random within 60,000 ticks (a minute of milliseconds). Go's counterparts are in
//! time/sleep_test.go (BenchmarkAfterFunc and on). At 1,000,000 timers an insert and a cancel take
//! tokio 278 and 86 ns, and Go 414 and 197. The ceiling here is 80 ns each.
//!
//! The figure is the share of one timer. A sample does the whole population at least once, in the
//! order of insertion or, where its name says so, in random order. What a sample does is the same
//! however many iterations criterion asks for. The time is the CPU time of the thread.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use netpoller::wheel::{Tick, TimerKey, Timers};

#[path = "common/mod.rs"]
mod common;

use common::{CpuTime, brief};

const SIZES: [usize; 4] = [1_000, 100_000, 1_000_000, 10_000_000];

/// How far away the deadlines are.
const RANGE: u64 = 60_000;

/// A sample repeats small populations until it has done as many operations.
const OPERATIONS: usize = 200_000;

/// Timers that one `advance` fires here.
const BUDGET: usize = 1_024;

/// xorshift64: cheap beside what is measured.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn deadline(&mut self) -> Tick {
        Tick::new(1 + self.bits() % RANGE)
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for left in (1..items.len()).rev() {
            items.swap(left, (self.bits() % (left as u64 + 1)) as usize);
        }
    }
}

/// Timers with random deadlines, and their keys in the order of insertion.
fn populated(size: usize, random: &mut Random) -> (Timers<u64>, Vec<TimerKey>) {
    let mut timers = Timers::new();
    let keys = (0..size as u64).map(|value| timers.insert(random.deadline(), value));
    let keys = keys.collect();
    (timers, keys)
}

/// Benches an operation on every timer of a population: `prepared` is not measured, `measured`
/// is.
fn bench<T>(
    criterion: &mut Criterion<CpuTime>,
    name: &str,
    prepared: impl Fn(usize, &mut Random) -> T,
    measured: impl Fn(T) -> T,
) {
    let mut group = criterion.benchmark_group(name);
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.warm_up_time(Duration::from_nanos(1));
    for size in SIZES {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let rounds = OPERATIONS.div_ceil(size);
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let state = prepared(size, &mut random);
                    let start = CpuTime::now();
                    let state = measured(state);
                    spent += CpuTime::now() - start;
                    drop(black_box(state));
                }
                spent.mul_f64(iterations as f64 / (rounds * size) as f64)
            });
        });
    }
    group.finish();
}

fn insert(criterion: &mut Criterion<CpuTime>) {
    let deadlines = |size, random: &mut Random| {
        let whens: Vec<_> = (0..size).map(|_| random.deadline()).collect();
        (whens, Timers::new())
    };
    let all = |(whens, mut timers): (Vec<Tick>, Timers<u64>)| {
        for &when in &whens {
            timers.insert(when, 0);
        }
        (whens, timers)
    };
    bench(criterion, "insert", deadlines, all);
    let freed = |size, random: &mut Random| {
        let (mut timers, keys) = shuffled(size, random);
        for key in keys {
            timers.cancel(key);
        }
        let (whens, _) = deadlines(size, random);
        (whens, timers)
    };
    bench(criterion, "insert after cancels in no order", freed, all);
}

fn fire(criterion: &mut Criterion<CpuTime>) {
    bench(criterion, "fire", populated, |(mut timers, keys)| {
        let mut sum = 0;
        while let Some(now) = timers.next() {
            while timers.advance(now, BUDGET, |value| sum += value) {}
        }
        black_box(sum);
        (timers, keys)
    });
}

fn cancel(criterion: &mut Criterion<CpuTime>) {
    let all = |(mut timers, keys): (Timers<u64>, Vec<TimerKey>)| {
        for &key in &keys {
            black_box(timers.cancel(key));
        }
        (timers, keys)
    };
    bench(criterion, "cancel", populated, all);
    bench(criterion, "cancel in no order", shuffled, all);
}

fn move_later(criterion: &mut Criterion<CpuTime>) {
    let all = |(mut timers, keys): (Timers<u64>, Vec<TimerKey>)| {
        for &key in &keys {
            timers.move_to(key, Tick::new(2 * RANGE));
        }
        (timers, keys)
    };
    bench(criterion, "move later", populated, all);
    bench(criterion, "move later in no order", shuffled, all);
}

fn shuffled(size: usize, random: &mut Random) -> (Timers<u64>, Vec<TimerKey>) {
    let (timers, mut keys) = populated(size, random);
    random.shuffle(&mut keys);
    (timers, keys)
}

criterion_group! {
    name = benches;
    config = brief();
    targets = insert, fire, cancel, move_later
}
criterion_main!(benches);
