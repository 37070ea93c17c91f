//! TCP: connecting, listening, and the options only it has.
//!
//! May touch: fd/, stream/, dial/, listen.rs. Mirrors Go's `net/tcpsock.go`.

use std::io;
use std::net::SocketAddr;

use super::addr::ToAddr;
use super::dial::Dialer;
use super::listener::{ListenConfig, Listener};
use super::stream::Stream;
use crate::endpoints::{Addr, End};

/// The kind of a [`TcpStream`] and a [`TcpListener`].
#[derive(Debug)]
pub enum Tcp {}

/// A TCP connection: see [`Stream`] for what it can do.
pub type TcpStream = Stream<Tcp>;

/// A TCP listener: see [`Listener`].
pub type TcpListener = Listener<Tcp>;

impl Stream<Tcp> {
    /// Dials `addr`, as [`Dialer::dial`] does with its defaults.
    ///
    /// # Errors
    ///
    /// As [`Dialer::dial`].
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub async fn connect(addr: impl ToAddr) -> io::Result<TcpStream> {
        Dialer::new().dial(addr).await
    }

    /// Our end's address.
    ///
    /// # Errors
    ///
    /// Closed, if it was not asked for before.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket_addr(End::Local)
    }

    /// The peer's address.
    ///
    /// # Errors
    ///
    /// Closed, or no longer connected, if it was not asked for before.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket_addr(End::Peer)
    }

    fn socket_addr(&self, end: End) -> io::Result<SocketAddr> {
        match self.fd.endpoint(end) {
            Some(Addr::Socket(address)) => Ok(address),
            _ => Err(self.fd.no_address()),
        }
    }
}

impl Listener<Tcp> {
    /// Listens on `addr`, as [`ListenConfig::bind`] does with its defaults.
    ///
    /// # Errors
    ///
    /// As [`ListenConfig::bind`].
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub async fn bind(addr: impl ToAddr) -> io::Result<TcpListener> {
        ListenConfig::new().bind(addr).await
    }
}
