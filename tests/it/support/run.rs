//! A test's future, run to its end in a runtime, and not for ever.

use std::future::Future;

use netpoller::Runtime;

use super::loopback::virtual_runtime;
use super::watchdog::watchdog;

/// By the wall's clock.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let _watchdog = watchdog();
    Runtime::new().unwrap().block_on(test)
}

/// On a clock that jumps.
pub fn run_virtual<T>(test: impl Future<Output = T>) -> T {
    let _watchdog = watchdog();
    virtual_runtime().block_on(test)
}
