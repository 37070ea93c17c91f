//! Models that a fuzzer, and a replay of its corpus, hold the library to: bytes in, a panic if the
//! library and the model disagree.

pub mod choices;
pub mod sockets;
