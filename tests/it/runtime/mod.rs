mod cancel;
mod cancel_safety;
mod embedding;
mod ending;
mod fairness;
mod fresh_time;
mod heartbeat;
mod host;
mod late_news;
mod lifetimes;
mod machines;
mod mail;
mod panics;
mod reentrancy;

mod time;
mod turns;
mod yielding;
