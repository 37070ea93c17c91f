//! What a [`Dialer`](crate::Dialer) and a [`ListenConfig`](crate::ListenConfig) have in common: the
//! network by its name, a hook on the socket, a resolver.
// Mirrors the fields `Control` and `Resolver` of Go's `net.Dialer` and `net.ListenConfig`.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::error::Cause;
use crate::endpoints::Network;

/// A network as the user named it: one of TCP, or unknown.
#[derive(Clone, Debug)]
pub(super) enum AskedNetwork {
    Known(Network),
    Unknown(String),
}

impl AskedNetwork {
    pub(super) fn tcp(name: &str) -> Self {
        let all = [Network::Tcp, Network::Tcp4, Network::Tcp6];
        match all.into_iter().find(|network| network.name() == name) {
            Some(network) => AskedNetwork::Known(network),
            None => AskedNetwork::Unknown(name.to_owned()),
        }
    }

    pub(super) fn network(&self) -> Result<Network, Cause> {
        match self {
            AskedNetwork::Known(network) => Ok(*network),
            AskedNetwork::Unknown(name) => Err(Cause::UnknownNetwork(name.clone())),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            AskedNetwork::Known(network) => network.name(),
            AskedNetwork::Unknown(_) => "",
        }
    }
}

/// A hook that is given a socket before it is bound or connected, to set options.
#[derive(Clone)]
pub(super) struct Control(Arc<Hook>);

type Hook = dyn Fn(BorrowedFd<'_>, SocketAddr) -> io::Result<()> + Send + Sync;

impl Control {
    pub(super) fn new(
        hook: impl Fn(BorrowedFd<'_>, SocketAddr) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Control(Arc::new(hook))
    }

    pub(super) fn call(&self, socket: BorrowedFd<'_>, address: SocketAddr) -> Result<(), Cause> {
        (self.0)(socket, address).map_err(Cause::Other)
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

/// Finds a host's addresses in place of the system. It may block: it runs on a thread for look-ups.
#[derive(Clone)]
pub(super) struct Resolver(Arc<LookUp>);

type LookUp = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

impl Resolver {
    pub(super) fn new(
        look_up: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        Resolver(Arc::new(look_up))
    }

    pub(super) fn look_up(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        let found = (self.0)(host)?.into_iter();
        Ok(found.map(|ip| SocketAddr::new(ip, 0)).collect())
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}
