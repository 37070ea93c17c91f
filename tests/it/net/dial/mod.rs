//! Dialling: limits and scopes, several addresses, sockets and what the system gets wrong.

mod addresses;
mod limits;
mod sockets;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use netpoller::{Dialer, TcpListener};

use crate::support::dead_ends::Silent;

pub const SECOND: Duration = Duration::from_secs(1);

/// A port that is silent for IPv4 and answers for IPv6.
pub async fn silent_and_answering() -> (Silent, TcpListener) {
    loop {
        let silent = Silent::v4();
        let other = SocketAddr::from((Ipv6Addr::LOCALHOST, silent.address.port()));
        if let Ok(listener) = TcpListener::bind(other).await {
            return (silent, listener);
        }
    }
}

/// Resolves every name to `127.0.0.1`, then `::1`.
pub fn both_families() -> Dialer {
    Dialer::new().resolver(|_| Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]))
}
