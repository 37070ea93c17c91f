//! What the benches share: their length, and their clocks.
//!
//! An operation that never waits is timed by the CPU time of the thread, so that the figure holds on
//! a computer with other work. An operation that waits is timed by the clock.
#![allow(dead_code, reason = "each bench uses some")]
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

use criterion::Criterion;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};

/// The time that this thread has run on a CPU.
pub struct CpuTime;

impl CpuTime {
    pub fn now() -> Duration {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the pointer is to a live timespec that the call fills in.
        let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
        assert_eq!(status, 0, "the system counts a thread's time");
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
}

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        CpuTime::now()
    }

    fn end(&self, start: Duration) -> Duration {
        CpuTime::now() - start
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// About a second for each function, so that the benches can be run often. `-- --measurement-time 10`
/// gives them more.
pub fn brief() -> Criterion<CpuTime> {
    Criterion::default()
        .with_measurement(CpuTime)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .sample_size(20)
}

/// The time of `iterations` of an operation. Each `round` does `share` of them and returns their
/// time, without that of their preparation.
pub fn timed(iterations: u64, share: u64, mut round: impl FnMut() -> Duration) -> Duration {
    let rounds = iterations.div_ceil(share);
    let spent: Duration = (0..rounds).map(|_| round()).sum();
    spent.mul_f64(iterations as f64 / (rounds * share) as f64)
}

/// The CPU time of an operation. Reading it costs some 200 ns.
pub fn worked(operation: impl FnOnce()) -> Duration {
    let start = CpuTime::now();
    operation();
    CpuTime::now() - start
}

/// The time of an operation by the clock. Reading it costs some 50 ns.
pub fn taken(operation: impl FnOnce()) -> Duration {
    let start = Instant::now();
    operation();
    start.elapsed()
}
