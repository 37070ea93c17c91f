//! Dialling TCP.
//!
//! ```text
//!   dialer.rs: resolve ──► race.rs: first family ──(300 ms, or all failed)──► the other family
//!                                      │                                         │
//!                                      └─► one address after the other, each with a share of
//!                                          the time ─► connect.rs: socket, control, bind, connect
//! ```

mod connect;
mod dialer;
mod race;

pub use dialer::Dialer;
