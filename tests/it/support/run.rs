//! A test's future, run to its end in a runtime, and not for ever.

use std::future::Future;
use std::time::Duration;

use netpoller::Runtime;

use super::schedule::{real_runtime, virtual_runtime};
use super::watchdog::watchdog;

/// On the real clock.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let _watchdog = watchdog();
    real_runtime().block_on(test)
}

/// On a virtual clock.
pub fn run_virtual<T>(test: impl Future<Output = T>) -> T {
    let _watchdog = watchdog();
    virtual_runtime().block_on(test)
}

/// On the real clock; nothing may be left in the runtime afterwards.
pub fn run_clean<T>(test: impl Future<Output = T>) -> T {
    run_clean_in(&real_runtime(), test)
}

/// On a virtual clock; nothing may be left in the runtime afterwards.
pub fn run_virtual_clean<T>(test: impl Future<Output = T>) -> T {
    run_clean_in(&virtual_runtime(), test)
}

/// In that runtime, in which nothing may be left afterwards.
pub fn run_clean_in<T>(runtime: &Runtime, test: impl Future<Output = T>) -> T {
    let _watchdog = watchdog();
    let result = runtime.block_on(test);
    let stats = runtime.stats();
    let left = (stats.tasks, stats.descriptors, stats.timers, stats.waiters);
    assert_eq!(left, (0, 0, 0, 0), "tasks, descriptors, timers, waiters");
    result
}

/// In that runtime.
pub fn run_in<T>(runtime: &Runtime, test: impl Future<Output = T>) -> T {
    let _watchdog = watchdog();
    runtime.block_on(test)
}

/// Turns until nothing is left that can run at once.
pub fn turns(runtime: &Runtime) {
    while runtime.turn(Some(Duration::ZERO)).unwrap().more {}
}
