//! Runtimes on a virtual clock. In a run of `tests/it/schedules.rs` they follow the schedule of a
//! seed as well.

use std::cell::RefCell;
use std::env;
use std::fmt::Write;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::path::PathBuf;
use std::rc::Rc;
use std::thread;

use netpoller::{Builder, Runtime};

use super::faulty::faulty;
use super::random::Random;

/// The seed, as a number.
pub const SEED: &str = "SCHEDULE_SEED";
/// A folder for what each test's runtimes found and chose, in a file of the test's name.
pub const LOGS: &str = "SCHEDULE_LOGS";

/// A runtime on a virtual clock.
pub struct Virtual {
    runtime: Runtime,
    log: Option<PathBuf>,
    turns: Turns,
}

/// What each turn found and chose: two runs with one seed differ only where these do.
type Turns = Rc<RefCell<String>>;

/// The schedule of a seed, over a faulty selector. Machines run in an order of the seed's choice.
/// What is left over of a batch keeps its place before what is woken later, so that a round ends as
/// it does without a seed.
// Go: `-race` builds shuffle the run queue (`randomizeScheduler` in runtime/proc.go).
pub fn scheduled(seed: u64) -> Builder {
    schedule(seed, Turns::default())
}

fn schedule(seed: u64, turns: Turns) -> Builder {
    // Not the numbers that the selector has.
    let random = RefCell::new(Random::new(!seed));
    let builder = Runtime::builder().virtual_clock().selector(faulty(seed));
    builder.schedule(move |ids, round, max, tick| {
        let mut random = random.borrow_mut();
        let mut hash = DefaultHasher::new();
        ids.hash(&mut hash);
        for left in (2..=round.min(ids.len())).rev() {
            ids.swap(left - 1, random.below(left as u64) as usize);
        }
        // At least one runs, where any may.
        let max = max.min(ids.len());
        let chosen = match max == 0 || random.one_in(2) {
            true => max,
            false => 1 + random.below(max as u64) as usize,
        };
        let (runnable, hash) = (ids.len(), hash.finish());
        let mut turns = turns.borrow_mut();
        let _ = writeln!(turns, "tick {tick}: {chosen} of {runnable}, {hash:x}");
        chosen
    })
}

pub fn virtual_runtime() -> Virtual {
    let turns = Turns::default();
    let builder = match env::var(SEED) {
        Ok(seed) => schedule(seed.parse().expect("a seed is a number"), turns.clone()),
        Err(_) => Runtime::builder().virtual_clock(),
    };
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let log = env::var_os(LOGS).map(|logs| PathBuf::from(logs).join(test.replace("::", ".")));
    Virtual {
        runtime: builder.build().unwrap(),
        log,
        turns,
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
        text += &self.turns.borrow();
        let _ = fs::write(log, text);
    }
}

/// A runtime on the real clock; in the schedule of a seed, on a virtual one.
pub fn real_runtime() -> Virtual {
    match env::var_os(SEED) {
        Some(_) => virtual_runtime(),
        None => Virtual {
            runtime: Runtime::new().unwrap(),
            log: None,
            turns: Turns::default(),
        },
    }
}
