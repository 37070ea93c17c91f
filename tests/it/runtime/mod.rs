mod cancel;
mod cancel_safety;
mod fairness;
mod heartbeat;
mod host;
mod lifetimes;
mod machines;
mod reentrancy;

mod time;
mod yielding;
