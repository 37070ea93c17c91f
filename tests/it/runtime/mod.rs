mod cancel;
mod cancel_safety;
mod dump;
mod embedding;
mod ending;
mod fairness;
mod figures;
mod fresh_time;
mod heartbeat;
mod host;
mod late_news;
mod lifetimes;
mod machines;
mod mail;
mod notify_host;
mod panics;
mod reentrancy;

mod time;
#[cfg(feature = "trace")]
mod trace;
mod turns;
mod yielding;
