//! What the timer programs share: deadlines, a stop-watch, resident memory, the line they print.

use std::time::{Duration, Instant};

use clap::Parser;

/// Flags of a timer program.
#[derive(Parser)]
pub struct TimerFlags {
    /// How many timers are there at once.
    #[arg(long, default_value_t = 10_000_000)]
    pub count: usize,
}

impl TimerFlags {
    /// Deadlines in no order, one to two minutes ahead: none passes while we measure.
    pub fn waits(&self) -> Vec<Duration> {
        let mut random = fastrand::Rng::with_seed(1);
        let wait = |_| Duration::from_millis(random.u64(60_000..120_000));
        (0..self.count).map(wait).collect()
    }
}

/// Nanoseconds for each timer of each step, and the memory they took.
pub struct Timing {
    count: usize,
    steps: Vec<(&'static str, f64)>,
    before: usize,
    bytes: f64,
}

impl Timing {
    pub fn new(count: usize) -> Self {
        Timing {
            count,
            steps: Vec::new(),
            before: resident(),
            bytes: 0.0,
        }
    }

    /// Times one step, which does something to every timer.
    pub fn step<T>(&mut self, name: &'static str, run: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let made = run();
        let each = start.elapsed().as_nanos() as f64 / self.count as f64;
        self.steps.push((name, each));
        if self.steps.len() == 1 {
            self.bytes = resident().saturating_sub(self.before) as f64 / self.count as f64;
        }
        made
    }

    /// One line of JSON.
    pub fn print(&self) {
        let steps: Vec<_> = self
            .steps
            .iter()
            .map(|(name, each)| format!("\"{name}\":{each:.2}"))
            .collect();
        println!(
            "{{\"count\":{},\"bytes\":{:.1},{}}}",
            self.count,
            self.bytes,
            steps.join(",")
        );
    }
}

/// Bytes of anonymous memory of this process, by the kernel's page tables.
pub fn resident() -> usize {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<usize>().ok());
    kib.unwrap_or(0) * 1024
}
