mod cancel;
mod cancel_safety;
mod ending;
mod fairness;
mod heartbeat;
mod host;
mod lifetimes;
mod machines;
mod panics;
mod reentrancy;

mod time;
mod yielding;
