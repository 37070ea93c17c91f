//! The models of `tests/it/models`, for fuzzers: bytes in, a panic if the library and the model
//! disagree.

#[path = "../../tests/it/support"]
pub mod support {
    pub mod scripted_selector;
    pub mod stall;
}

#[path = "../../tests/it/models/choices.rs"]
pub mod choices;
#[path = "../../tests/it/models/host_port.rs"]
pub mod host_port;
#[path = "../../tests/it/models/poll_desc.rs"]
pub mod poll_desc;
#[path = "../../tests/it/models/protocol.rs"]
pub mod protocol;
#[path = "../../tests/it/models/sockets.rs"]
pub mod sockets;
#[path = "../../tests/it/models/parsers.rs"]
pub mod parsers;
#[path = "../../tests/it/models/timers.rs"]
pub mod timers;
