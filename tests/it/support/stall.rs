//! The only places where a test's thread sleeps, and why.

use std::thread;
use std::time::Duration;

/// Holds up this thread, as a task that computes holds up its loop. Nothing is waited for.
pub fn stall(time: Duration) {
    thread::sleep(time);
}

/// A moment in which another thread's loop falls asleep, as a rule. The test holds without it too.
pub fn moment() {
    thread::sleep(Duration::from_millis(10));
}

/// Between two checks of a condition that another thread brings about, under a watchdog.
pub fn between_looks() {
    thread::sleep(Duration::from_millis(1));
}
