//! What can be dialled and listened on, as people write it.
//!
//! May touch: the endpoints. Mirrors Go's `net.SplitHostPort` and `net/ipsock.go`.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::endpoints::Addr;

/// An address as it was asked for: see [`ToAddr`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing to resolve.
    Literal(SocketAddr),
    /// `host:port`, as Go reads it: names and services, `[::1]:http`, an empty host or port.
    Text(String),
}

impl From<Target> for Addr {
    fn from(target: Target) -> Self {
        match target {
            Target::Literal(address) => Addr::Socket(address),
            Target::Text(text) => match text.parse() {
                Ok(address) => Addr::Socket(address),
                Err(_) => Addr::Name(text),
            },
        }
    }
}

/// What can be given where an address is asked for: `"host:port"` as `&str` or `String`,
/// a [`SocketAddr`], or a pair of host and port.
pub trait ToAddr {
    /// The address, not resolved yet.
    fn to_addr(&self) -> Target;
}

impl<T: ToAddr + ?Sized> ToAddr for &T {
    fn to_addr(&self) -> Target {
        (**self).to_addr()
    }
}

/// For one that was taken earlier.
impl ToAddr for Target {
    fn to_addr(&self) -> Target {
        self.clone()
    }
}

impl ToAddr for str {
    fn to_addr(&self) -> Target {
        match self.parse() {
            Ok(address) => Target::Literal(address),
            Err(_) => Target::Text(self.to_owned()),
        }
    }
}

impl ToAddr for String {
    fn to_addr(&self) -> Target {
        self.as_str().to_addr()
    }
}

impl ToAddr for SocketAddr {
    fn to_addr(&self) -> Target {
        Target::Literal(*self)
    }
}

impl ToAddr for (IpAddr, u16) {
    fn to_addr(&self) -> Target {
        Target::Literal((*self).into())
    }
}

impl ToAddr for (Ipv4Addr, u16) {
    fn to_addr(&self) -> Target {
        Target::Literal((*self).into())
    }
}

impl ToAddr for (Ipv6Addr, u16) {
    fn to_addr(&self) -> Target {
        Target::Literal((*self).into())
    }
}

impl ToAddr for (&str, u16) {
    fn to_addr(&self) -> Target {
        let (host, port) = *self;
        match host.parse::<IpAddr>() {
            Ok(ip) => Target::Literal((ip, port).into()),
            // Go's JoinHostPort: what has a colon goes into brackets.
            Err(_) if host.contains(':') => Target::Text(format!("[{host}]:{port}")),
            Err(_) => Target::Text(format!("{host}:{port}")),
        }
    }
}

impl ToAddr for (&String, u16) {
    fn to_addr(&self) -> Target {
        (self.0.as_str(), self.1).to_addr()
    }
}

impl ToAddr for (String, u16) {
    fn to_addr(&self) -> Target {
        (self.0.as_str(), self.1).to_addr()
    }
}

/// What the system says of a socket's end.
pub(crate) fn from_system(address: &socket2::SockAddr) -> Option<Addr> {
    if let Some(address) = address.as_socket() {
        return Some(Addr::Socket(unmapped(address)));
    }
    if address.is_unix() {
        return Some(Addr::Path(unix_name(address)));
    }
    None
}

/// A Unix socket's name as Go has it: a path, `@name` for an abstract one, empty for none.
pub(crate) fn unix_name(address: &socket2::SockAddr) -> PathBuf {
    if let Some(name) = address.as_abstract_namespace() {
        return OsString::from_vec([b"@", name].concat()).into();
    }
    address
        .as_pathname()
        .map(Path::to_owned)
        .unwrap_or_default()
}

/// A dual-stack socket has IPv4 peers in IPv6 clothes; Go shows them as IPv4.
pub(crate) fn unmapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), v6.port()),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}
