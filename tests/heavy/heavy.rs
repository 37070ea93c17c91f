//! Tests that need crates which take long to compile: TLS from outside, arbitrary input, and the
//! recipes of docs/cookbook.md that need other runtimes.
#![allow(
    clippy::duplicate_mod,
    reason = "each example has what it shares with others"
)]

mod arbitrary;
// Under poll(2) a runtime has no descriptor to lend.
#[cfg(not(mio_unsupported_force_poll_poll))]
mod recipes;
mod tls;

#[path = "../examples/allocator.rs"]
mod allocator;
#[path = "../../examples/frames.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod frames;
#[path = "../../examples/http/main.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod http;
#[path = "../../examples/tlv.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod tlv;
