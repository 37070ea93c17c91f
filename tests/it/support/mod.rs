//! What several subjects use.
#![allow(dead_code, reason = "not every backend uses all of it")]

pub mod counting;
pub mod faulty;
pub mod loopback;
pub mod running;
pub mod script;
pub mod scripted;
pub mod wakers;
pub mod watchdog;
