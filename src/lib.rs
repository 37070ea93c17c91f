//! Go's network poller, hand-rolled in Rust on mio.
#![warn(missing_docs)]
#![deny(unsafe_code)]

mod endpoints;
pub mod net;
pub mod reactor;
mod runtime;
mod sys;
pub mod time;
pub mod wheel;

pub use endpoints::Addr;
pub use net::{
    Cause, Dialer, KeepAlive, ListenConfig, NetError, OpError, Source, TcpListener, TcpStream,
    ToAddr, UdpSocket, UnixDatagram, UnixListener, UnixStream,
};
pub use reactor::{Direction, Park, Reactor, Selector, Turn};
pub use runtime::{
    Builder, Handle, JoinError, JoinHandle, Runtime, Stats, spawn, spawn_blocking, yield_now,
};
