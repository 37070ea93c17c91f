//! Random numbers, ticks and the seeds they come from.

use netpoller::wheel::Tick;

use crate::support::random::Random;

impl Random {
    /// A distance of any magnitude up to `2^bits`: small ones as likely as large ones.
    pub fn distance(&mut self, bits: u64) -> u64 {
        let magnitude = self.below(bits + 1);
        self.bits().checked_shr(64 - magnitude as u32).unwrap_or(0)
    }

    /// A tick around `now`: mostly later, often beside a slot's boundary, sometimes past.
    pub fn tick(&mut self, now: Tick, bits: u64) -> Tick {
        let distance = self.distance(bits);
        match self.below(16) {
            0 => Tick::new(now.get().saturating_sub(distance)),
            1..=3 => {
                let span = 1u64 << (6 * self.below(bits / 6 + 1));
                let boundary = (now.get() / span).saturating_add(1 + self.below(3));
                let offset = self.below(3);
                Tick::new(
                    boundary
                        .saturating_mul(span)
                        .saturating_add(offset)
                        .saturating_sub(1),
                )
            }
            _ => now.saturating_add(distance),
        }
    }
}

/// Says which seed failed, when a test does.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to repeat: WHEEL_SEED={}", self.0);
        }
    }
}

/// Runs a walk with a seed that is always the same and with one that never is.
pub fn with_seeds(walk: impl Fn(Random)) {
    let fresh = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
    let seeds = match std::env::var("WHEEL_SEED") {
        Ok(seed) => vec![seed.parse().expect("WHEEL_SEED is a number")],
        Err(_) => vec![1, fresh()],
    };
    for seed in seeds {
        let _told = Seed(seed);
        walk(Random::new(seed));
    }
}
