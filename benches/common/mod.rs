//! What the benches share: how long they take, and the time of what is run now and then only.
//!
//! Touches criterion only. The benches are to be run often, so each function has about a second;
//! `-- --measurement-time 10` gives it more.

use std::time::{Duration, Instant};

use criterion::Criterion;

pub fn brief() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .sample_size(20)
}

/// The time that `iterations` of an operation take, when each `round` does `share` of them and
/// says how long they took: what prepares them is not counted.
#[allow(dead_code, reason = "the descriptors' bench times nothing apart")]
pub fn timed(iterations: u64, share: u64, mut round: impl FnMut() -> Duration) -> Duration {
    let rounds = iterations.div_ceil(share);
    let spent: Duration = (0..rounds).map(|_| round()).sum();
    spent.mul_f64(iterations as f64 / (rounds * share) as f64)
}

/// How long it takes.
#[allow(dead_code, reason = "as above")]
pub fn taken(operation: impl FnOnce()) -> Duration {
    let start = Instant::now();
    operation();
    start.elapsed()
}
