//! IPv4 or IPv6, or both on one socket.
// Mirrors Go's `net/ipsock_posix.go`: `ipStackCapabilities`, `favoriteAddrFamily`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::OnceLock;

use socket2::{Domain, Socket, Type};

use crate::endpoints::Network;
use crate::sys;

/// Whether addresses of this kind belong to the network: `tcp4` takes only IPv4.
pub(crate) fn fits(network: Network, ip: IpAddr) -> bool {
    match network.name().as_bytes().last() {
        Some(b'4') => ip.is_ipv4(),
        Some(b'6') => ip.is_ipv6(),
        _ => true,
    }
}

/// Every address of this machine, as a network has it.
pub(crate) fn everywhere(network: Network) -> IpAddr {
    match fits(network, Ipv4Addr::UNSPECIFIED.into()) {
        true => Ipv4Addr::UNSPECIFIED.into(),
        false => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// This machine, to dial it: over IPv4, where the network and the system have it.
pub(crate) fn this_machine(network: Network) -> IpAddr {
    let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    match fits(network, v4) && (has_v4() || !fits(network, v6)) {
        true => v4,
        false => v6,
    }
}

/// Dialling "every address" dials this machine. Linux does so by itself, others do not.
pub(crate) fn to_dial(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, v6.port()).into(),
        _ => address,
    }
}

/// What to bind for listening on `address`, and for an IPv6 socket whether IPv4 stays out (as
/// `only_v6` says, if it is given).
///
/// "Every address" of a network without a family means both families on one IPv6 socket, where the
/// system can do that. `tcp6` is for IPv6 alone.
pub(crate) fn to_bind(
    network: Network,
    address: SocketAddr,
    only_v6: Option<bool>,
) -> (SocketAddr, Option<bool>) {
    let any = !network.name().ends_with(['4', '6']);
    let both = any && only_v6 != Some(true) && (has_mapped() || !has_v4());
    let address = match address.ip().is_unspecified() && both {
        true => (Ipv6Addr::UNSPECIFIED, address.port()).into(),
        false => address,
    };
    (address, address.is_ipv6().then(|| only_v6.unwrap_or(!any)))
}

fn has_v4() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    is_possible(&KNOWN, || {
        Socket::new(Domain::IPV4, Type::STREAM, None).map(drop)
    })
}

/// Whether an IPv6 socket can have IPv4 peers.
fn has_mapped() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    is_possible(&KNOWN, || {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
        socket.set_only_v6(false)?;
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 0));
        socket.bind(&loopback.into())
    })
}

/// Whether the system can do what `attempt` tries with a socket. The answer is kept.
fn is_possible(known: &OnceLock<bool>, attempt: impl Fn() -> io::Result<()>) -> bool {
    known.get().copied().unwrap_or_else(|| match attempt() {
        // A shortage tells nothing, so nothing is kept. Most systems can do it.
        Err(error) if sys::is_shortage(&error) => true,
        tried => *known.get_or_init(|| tried.is_ok()),
    })
}
