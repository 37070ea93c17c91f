//! From what people write to addresses.
//!
//! May touch: the blocking pool. Mirrors Go's `net/ipsock.go` and `net/lookup.go`.

use std::io;
use std::net::SocketAddr;

use super::addr::Target;
use super::error::Cause;
use crate::endpoints::Network;

/// What the addresses are for: an empty host means this machine, or every address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Dial,
    Listen,
}

pub(crate) async fn resolve(
    _network: Network,
    target: Target,
    _purpose: Purpose,
) -> Result<Vec<SocketAddr>, Cause> {
    match target {
        Target::Literal(address) => Ok(vec![address]),
        Target::Text(text) => Err(Cause::Other(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("address {text}: not an address and port"),
        ))),
    }
}
