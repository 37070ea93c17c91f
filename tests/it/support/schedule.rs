//! Runtimes whose clock jumps. In a run of `tests/it/schedules.rs` they follow the schedule of a
//! seed as well.

use std::env;
use std::fmt::Write;
use std::fs;
use std::ops::Deref;
use std::path::PathBuf;
use std::thread;

use netpoller::Runtime;

/// The seed, as a number.
pub const SEED: &str = "SCHEDULE_SEED";
/// A folder for what each test's runtimes found and chose, in a file of the test's name.
pub const LOGS: &str = "SCHEDULE_LOGS";

/// A runtime whose clock jumps.
pub struct Virtual {
    runtime: Runtime,
    log: Option<PathBuf>,
}

pub fn virtual_runtime() -> Virtual {
    let mut builder = Runtime::builder().virtual_clock();
    if let Ok(seed) = env::var(SEED) {
        builder = builder.schedule_seed(seed.parse().expect("a seed is a number"));
    }
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let log = env::var_os(LOGS).map(|logs| PathBuf::from(logs).join(test.replace("::", ".")));
    Virtual {
        runtime: builder.build().unwrap(),
        log,
    }
}

impl Deref for Virtual {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        &self.runtime
    }
}

impl Drop for Virtual {
    fn drop(&mut self) {
        let Some(log) = &self.log else { return };
        let mut text = fs::read_to_string(log).unwrap_or_default();
        for turn in self.runtime.schedule() {
            let _ = writeln!(text, "{turn:?}");
        }
        let _ = fs::write(log, text);
    }
}

/// A runtime by the wall's clock; in the schedule of a seed its clock jumps.
pub fn real_runtime() -> Virtual {
    match env::var_os(SEED) {
        Some(_) => virtual_runtime(),
        None => Virtual {
            runtime: Runtime::new().unwrap(),
            log: None,
        },
    }
}
