//! Resolving: from `host:port`, as it is written, to addresses.
//!
//! ```text
//!   literal ────────────────────────────────────────────┐
//!   "host:port" ─► split ─► port ─► host a literal? ────┴─► fits the network? ─► addresses
//!                           │              │ no
//!                           └ a service    └ a name ─► a thread for look-ups, within the scope
//! ```
// Mirrors Go's `net/ipsock.go` (`internetAddrList`) and `net/lookup.go`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use super::addr::unmapped;
use super::config::{Hook, Resolver};
use super::error::Cause;
use super::{family, host_port};
use crate::cancel::CancelToken;
use crate::endpoints::{Addr, Network};
use crate::runtime::look::noted;
use crate::runtime::{blocking, context};
use crate::sys::{self, NotFound};

/// What the addresses are for: an empty host means this machine, or every address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Dial,
    Listen,
}

/// How to resolve.
#[derive(Clone)]
pub(crate) struct Resolution {
    pub(super) network: Network,
    pub(super) purpose: Purpose,
    /// The system's, if there is none.
    pub(super) resolver: Option<Resolver>,
}

impl Resolution {
    /// At least one address, and only addresses of the network. What needs no look-up never leaves
    /// the thread. The end of `scope` ends a look-up.
    pub(crate) async fn addresses(
        &self,
        target: Addr,
        scope: &CancelToken,
    ) -> Result<Vec<SocketAddr>, Cause> {
        // A target that needs no look-up waits for nothing, so a loop over such targets yields here.
        context::yield_once().await;
        match self.name_to_look_up(&target) {
            None => self.look_up(target),
            Some(name) => {
                let resolution = self.clone();
                on_a_thread(name, scope, move || resolution.look_up(target)).await
            }
        }
    }

    /// The name that a look-up waits for, if there is one.
    fn name_to_look_up(&self, target: &Addr) -> Option<String> {
        let Addr::Name(text) = target else {
            return None;
        };
        let (host, port) = host_port::split(text).ok()?;
        if matches!(host_port::literal(host), Ok(None)) && host_port::is_domain_name(host) {
            return Some(host.to_owned());
        }
        match host_port::number(port) {
            Ok(None) => Some(self.service(port)),
            _ => None,
        }
    }

    /// The name of a service in errors: `tcp/http`, whatever the family.
    fn service(&self, port: &str) -> String {
        let network = self.network.name().trim_end_matches(['4', '6']);
        format!("{network}/{port}")
    }

    /// As [`Resolution::addresses`], on this thread: it blocks in a look-up.
    pub(crate) fn look_up(&self, target: Addr) -> Result<Vec<SocketAddr>, Cause> {
        let text = match target {
            Addr::Socket(address) => {
                return self.suitable(vec![address], &address.ip().to_string());
            }
            name => name.to_string(),
        };
        let text = match self.purpose {
            Purpose::Dial if text.is_empty() => {
                return Err(host_port::wrong("", "missing address"));
            }
            Purpose::Listen if text.is_empty() => ":",
            _ => &text,
        };
        let (host, port) = host_port::split(text)?;
        let port = match host_port::number(port)? {
            Some(port) => port,
            None => host_port::service_port(self.network, port)
                .map_err(|failed| failed_lookup(self.service(port), failed, "unknown port"))?,
        };
        if host.is_empty() {
            let ip = match self.purpose {
                Purpose::Dial => family::this_machine(self.network),
                Purpose::Listen => family::everywhere(self.network),
            };
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let mut found = match host_port::literal(host)? {
            Some(literal) => vec![literal],
            None => self
                .host(host)
                .map_err(|failed| failed_lookup(host.to_owned(), failed, "no such host"))?,
        };
        for address in &mut found {
            address.set_port(port);
        }
        self.suitable(found, host)
    }

    /// Keeps the addresses of the network, and gives a lone `::` an IPv4 sibling.
    fn suitable(&self, mut found: Vec<SocketAddr>, host: &str) -> Result<Vec<SocketAddr>, Cause> {
        for address in &mut found {
            *address = unmapped(*address);
        }
        if let [SocketAddr::V6(only)] = found[..]
            && only.ip().is_unspecified()
        {
            // Where IPv6 is set up in part, a machine can't reach itself by `::`.
            found.push((Ipv4Addr::UNSPECIFIED, only.port()).into());
        }
        found.retain(|address| family::fits(self.network, address.ip()));
        match found.is_empty() {
            true => Err(host_port::wrong(host, "no suitable address found")),
            false => Ok(found),
        }
    }

    fn host(&self, host: &str) -> Result<Vec<SocketAddr>, NotFound> {
        if !host_port::is_domain_name(host) {
            return Err(NotFound::NoSuch);
        }
        let found = match &self.resolver {
            Some(Hook(resolver)) => {
                let found = resolver(host).map_err(NotFound::System)?.into_iter();
                found.map(|ip| SocketAddr::new(ip, 0)).collect()
            }
            None => ask_the_system(host)?,
        };
        match found.is_empty() {
            true => Err(NotFound::NoSuch),
            false => Ok(found),
        }
    }
}

/// Runs the look-up of `name` on a thread for look-ups. When the scope ends, the look-up is abandoned;
/// if it has not begun by then, it never does.
async fn on_a_thread(
    name: String,
    scope: &CancelToken,
    look_up: impl FnOnce() -> Result<Vec<SocketAddr>, Cause> + Send + 'static,
) -> Result<Vec<SocketAddr>, Cause> {
    let lane = blocking::look_ups();
    let (look_up, ticket) = blocking::call("a look-up", lane, look_up);
    let _wanted = blocking::Wanted(lane, ticket);
    let cause = match scope.run(noted("look-up", look_up)).await {
        Ok(Ok(outcome)) => return outcome,
        Ok(Err(panic)) => Cause::Other(io::Error::other(panic)),
        Err(ended) => Cause::from(ended),
    };
    Err(Cause::Lookup {
        name,
        cause: Box::new(cause),
        temporary: false,
    })
}

fn ask_the_system(name: &str) -> Result<Vec<SocketAddr>, NotFound> {
    // RFC 6761: there are no names below it.
    let bare = name.strip_suffix('.').unwrap_or(name);
    if bare.ends_with(".invalid") || bare == "invalid" {
        return Err(NotFound::NoSuch);
    }
    sys::address_info(Some(name), None, libc::SOCK_STREAM)
}

fn failed_lookup(name: String, failed: NotFound, no_such: &str) -> Cause {
    let temporary = matches!(failed, NotFound::Again(_));
    let error = match failed {
        NotFound::NoSuch => io::Error::new(io::ErrorKind::NotFound, no_such),
        NotFound::Again(text) | NotFound::Failed(text) => io::Error::other(text),
        NotFound::System(error) => error,
    };
    Cause::Lookup {
        name,
        cause: Box::new(Cause::Other(error)),
        temporary,
    }
}

/// What an error of listening names: an address, or for an empty host what was asked for.
pub(crate) fn asked_for(target: &Addr, address: SocketAddr) -> Addr {
    let host_is_empty = match target {
        Addr::Name(text) => text.is_empty() || text.starts_with(':') || text.starts_with("[]:"),
        _ => false,
    };
    match host_is_empty {
        true => Addr::Name(format!(":{}", address.port())),
        false => Addr::Socket(address),
    }
}
