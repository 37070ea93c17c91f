//! Seeds, and the selector that errs by them.

use netpoller::reactor::MioSelector;
use netpoller::schedule::FaultySelector;

/// The system's selector, with the faults of `seed`.
pub fn faulty(seed: u64) -> Box<FaultySelector> {
    FaultySelector::new(Box::new(MioSelector::new().unwrap()), seed)
}

/// Runs a test for many seeds, or for the one in `SEED`; one that fails is named.
pub fn with_seeds(count: u64, test: impl Fn(u64)) {
    struct Named(u64);
    impl Drop for Named {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("to repeat: SEED={} cargo test", self.0);
            }
        }
    }
    let seeds = match std::env::var("SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().expect("SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..count,
    };
    for seed in seeds {
        let _named = Named(seed);
        test(seed);
    }
}
