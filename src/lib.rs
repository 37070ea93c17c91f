//! Go's network poller, hand-rolled in Rust on mio.
#![warn(missing_docs)]
#![deny(unsafe_code)]

pub mod cancel;
mod endpoints;
mod heartbeat;
pub mod net;
pub mod reactor;
mod runtime;
mod sys;
pub mod time;
pub mod wheel;

pub use cancel::{CancelError, CancelToken};
pub use endpoints::Addr;
pub use heartbeat::{Heartbeat, HeartbeatBuilder};
pub use net::{
    Cause, Dialer, KeepAlive, ListenConfig, NetError, OpError, Relay, Serve, Source, TcpListener,
    TcpStream, ToAddr, UdpSocket, UnixDatagram, UnixListener, UnixStream, copy, copy_bidirectional,
};
pub use reactor::{Direction, Park, Reactor, Selector, Turn};
pub use runtime::{
    Builder, Handle, JoinError, JoinHandle, Runtime, Stats, spawn, spawn_blocking, yield_now,
};
