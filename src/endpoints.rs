//! Which network a socket is of, and the addresses of its two ends, in a dozen bytes.
//!
//! May touch: std. Mirrors `net`, `laddr` and `raddr` of Go's `netFD`, which takes a few hundred.

use std::cell::Cell;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;

/// One end of an operation, as errors name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Addr {
    /// An address and a port.
    Socket(SocketAddr),
    /// A path of a Unix socket; empty for one that has none.
    Path(PathBuf),
    /// What was asked for and did not resolve, or does not parse.
    Name(String),
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Addr::Socket(address) => address.fmt(f),
            // Go prints `@` for a Unix socket without a name.
            Addr::Path(path) if path.as_os_str().is_empty() => f.write_str("@"),
            Addr::Path(path) => path.display().fmt(f),
            Addr::Name(name) => f.write_str(name),
        }
    }
}

impl From<SocketAddr> for Addr {
    fn from(address: SocketAddr) -> Self {
        Addr::Socket(address)
    }
}

/// The network's name, as Go has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Network {
    Tcp,
    Tcp4,
    Tcp6,
    Udp,
    Unix,
    Unixgram,
    /// Any other source.
    File,
}

impl Network {
    pub(crate) const fn is_tcp(self) -> bool {
        matches!(self, Network::Tcp | Network::Tcp4 | Network::Tcp6)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Network::Tcp => "tcp",
            Network::Tcp4 => "tcp4",
            Network::Tcp6 => "tcp6",
            Network::Udp => "udp",
            Network::Unix => "unix",
            Network::Unixgram => "unixgram",
            Network::File => "file",
        }
    }
}

/// The network, and the addresses of both ends as far as they are of IPv4: fourteen bytes.
pub(crate) struct Endpoints {
    pub(crate) network: Network,
    known: Cell<u8>,
    v4: [Cell<[u8; 6]>; 2],
}

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Local = 0,
    Peer = 1,
}

impl Endpoints {
    pub(crate) fn new(network: Network) -> Self {
        Endpoints {
            network,
            known: Cell::new(0),
            v4: [Cell::new([0; 6]), Cell::new([0; 6])],
        }
    }

    pub(crate) fn get(&self, end: End) -> Option<Addr> {
        if self.known.get() & 1 << end as u8 == 0 {
            return None;
        }
        let [a, b, c, d, high, low] = self.v4[end as usize].get();
        let port = u16::from_be_bytes([high, low]);
        let address = SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), port);
        Some(Addr::Socket(SocketAddr::V4(address)))
    }

    /// Notes an end; an address that does not fit comes back.
    pub(crate) fn set(&self, end: End, address: Addr) -> Option<Addr> {
        let Addr::Socket(SocketAddr::V4(v4)) = address else {
            return Some(address);
        };
        let [a, b, c, d] = v4.ip().octets();
        let [high, low] = v4.port().to_be_bytes();
        self.v4[end as usize].set([a, b, c, d, high, low]);
        self.known.set(self.known.get() | 1 << end as u8);
        None
    }

    pub(crate) fn forget(&self) {
        self.known.set(0);
    }
}
