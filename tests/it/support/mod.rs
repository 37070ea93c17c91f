//! What several subjects use.
#![allow(dead_code, reason = "not every backend uses all of it")]

pub mod bytes;
pub mod counting;
pub mod dead_ends;
pub mod faulty;
pub mod hand_clock;
pub mod hooked;
pub mod loopback;
pub mod on_drop;
pub mod random;
pub mod run;
pub mod running;
pub mod schedule;
pub mod scripted_protocol;
pub mod scripted_selector;
pub mod stall;
pub mod temp_path;
pub mod wakers;
pub mod watchdog;
