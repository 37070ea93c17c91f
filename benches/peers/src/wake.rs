//! What the wake-up programs share: when each was sent, how long it took, the line they print.
//!
//! Another thread than the loop's sends something to the sleeping loop, `count` times, with a pause
//! between. What counts is the time from just before the sending until the loop's side runs, by one
//! monotonic clock.

use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use hdrhistogram::Histogram;

/// Flags of a wake-up program.
#[derive(Parser, Clone, Copy)]
pub struct WakeFlags {
    #[arg(long, default_value_t = 5_000)]
    pub count: u32,
    /// The pause between two of them, in which the loop falls asleep.
    #[arg(long, default_value = "200us", value_parser = humantime::parse_duration)]
    pub pause: Duration,
}

impl WakeFlags {
    /// Calls `send` with the time, `count` times, from a thread of its own.
    pub fn send_all(self, mut send: impl FnMut(Instant) + Send + 'static) {
        thread::spawn(move || {
            for _ in 0..self.count {
                thread::sleep(self.pause);
                send(Instant::now());
            }
        });
    }
}

/// How long the wake-ups took.
pub struct Wakes(Histogram<u64>);

impl Default for Wakes {
    fn default() -> Self {
        Wakes(Histogram::new(3).expect("3 digits are allowed"))
    }
}

impl Wakes {
    pub fn took(&mut self, time: Duration) {
        self.0 += time.as_nanos() as u64;
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// One line of JSON, in microseconds.
    pub fn print(&self) {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e3;
        println!(
            "{{\"count\":{},\"p50\":{:.2},\"p99\":{:.2},\"p99.9\":{:.2}}}",
            self.count(),
            at(0.5),
            at(0.99),
            at(0.999)
        );
    }
}
