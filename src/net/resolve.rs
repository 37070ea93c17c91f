//! From what people write to addresses.
//!
//! May touch: the blocking pool, where getaddrinfo waits. Mirrors Go's `net/ipsock.go`
//! (`internetAddrList`) and `net/lookup.go`.
//!
//! ```text
//!   literal ────────────────────────────────────────────┐
//!   "host:port" ─► split ─► port ─► host a literal? ────┴─► fits the network? ─► addresses
//!                           │              │ no
//!                           └ a service    └ a name ─► the pool, inside the scope
//! ```

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::addr::{Target, unmapped};
use super::error::Cause;
use super::{family, hostport};
use crate::cancel::CancelToken;
use crate::endpoints::{Addr, Network};
use crate::runtime::{JoinError, blocking, context};
use crate::sys::{self, NotFound};

/// What the addresses are for: an empty host means this machine, or every address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Dial,
    Listen,
}

/// Finds a host's addresses in place of the system. May block: it runs on the pool.
#[derive(Clone)]
pub(crate) struct Resolver(Arc<LookUp>);

type LookUp = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

impl Resolver {
    pub(crate) fn new(
        look_up: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        Resolver(Arc::new(look_up))
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

/// Resolves with the system's resolver and no limit: see [`Resolution::addresses`].
pub(crate) async fn resolve(
    network: Network,
    target: Target,
    purpose: Purpose,
) -> Result<Vec<SocketAddr>, Cause> {
    let resolution = Resolution {
        network,
        purpose,
        resolver: None,
        scope: None,
    };
    resolution.addresses(target).await
}

/// How to resolve.
pub(crate) struct Resolution<'a> {
    pub(crate) network: Network,
    pub(crate) purpose: Purpose,
    pub(crate) resolver: Option<&'a Resolver>,
    /// What ends the look-ups.
    pub(crate) scope: Option<&'a CancelToken>,
}

impl Resolution<'_> {
    /// At least one address, all of them of the network. A literal never leaves the thread.
    pub(crate) async fn addresses(&self, target: Target) -> Result<Vec<SocketAddr>, Cause> {
        // Neither what is no address nor what then becomes of a literal need ever have waited.
        context::take_turn().await;
        let text = match target {
            Target::Literal(address) => {
                return self.suitable(vec![address], &address.ip().to_string());
            }
            Target::Text(text) if text.is_empty() => match self.purpose {
                Purpose::Dial => return Err(hostport::wrong("", "missing address")),
                Purpose::Listen => ":".to_owned(),
            },
            Target::Text(text) => text,
        };
        let (host, port) = hostport::split(&text)?;
        let port = match hostport::number(port)? {
            Some(port) => port,
            None => self.service(port).await?,
        };
        if host.is_empty() {
            let ip = match self.purpose {
                Purpose::Dial => family::this_machine(self.network),
                Purpose::Listen => family::everywhere(self.network),
            };
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let mut found = match hostport::literal(host)? {
            Some(literal) => vec![literal],
            None => self.host(host).await?,
        };
        for address in &mut found {
            address.set_port(port);
        }
        self.suitable(found, host)
    }

    /// Those of the network.
    fn suitable(&self, mut found: Vec<SocketAddr>, host: &str) -> Result<Vec<SocketAddr>, Cause> {
        for address in &mut found {
            *address = unmapped(*address);
        }
        if let [SocketAddr::V6(only)] = found[..]
            && only.ip().is_unspecified()
        {
            // A machine with half of an IPv6 can't reach itself by `::`.
            found.push((Ipv4Addr::UNSPECIFIED, only.port()).into());
        }
        found.retain(|address| family::fits(self.network, address.ip()));
        match found.is_empty() {
            true => Err(hostport::wrong(host, "no suitable address found")),
            false => Ok(found),
        }
    }

    async fn service(&self, service: &str) -> Result<u16, Cause> {
        let network = self.network;
        let name = format!("{}/{service}", network.name());
        let service = service.to_owned();
        let work = move || hostport::service_port(network, &service);
        let outcome = self.on_the_pool(&name, work).await?;
        outcome.map_err(|failed| failed_lookup(name, failed, "unknown port"))
    }

    async fn host(&self, host: &str) -> Result<Vec<SocketAddr>, Cause> {
        let no_such = |failed| failed_lookup(host.to_owned(), failed, "no such host");
        if !hostport::is_domain_name(host) {
            return Err(no_such(NotFound::NoSuch));
        }
        let name = host.to_owned();
        let resolver = self.resolver.cloned();
        let work = move || match resolver {
            Some(Resolver(look_up)) => look_up(&name)
                .map(|found| found.into_iter().map(|ip| (ip, 0).into()).collect())
                .map_err(NotFound::System),
            None => ask_the_system(&name),
        };
        match self.on_the_pool(host, work).await? {
            Ok(found) if found.is_empty() => Err(no_such(NotFound::NoSuch)),
            outcome => outcome.map_err(no_such),
        }
    }

    /// Runs a look-up where it may block, until the scope ends: then it is abandoned, and not even
    /// begun if it has not been.
    async fn on_the_pool<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Cause> {
        let wanted = Arc::new(());
        let still = Arc::downgrade(&wanted);
        let wanted_still = move || still.upgrade().map(|_| work());
        let look_up = blocking::call("a look-up", blocking::look_ups(), wanted_still);
        let outcome = match self.scope {
            Some(scope) => scope.run(look_up).await,
            None => Ok(look_up.await),
        };
        // A look-up that has not begun is skipped when this is gone.
        drop(wanted);
        let cause = match outcome {
            Ok(Ok(Some(done))) => return Ok(done),
            Ok(Ok(None)) => Cause::Canceled,
            Ok(Err(panic)) => Cause::Other(io::Error::other(JoinError::panicked(panic))),
            Err(ended) => Cause::from(ended),
        };
        Err(Cause::Lookup {
            name: name.to_owned(),
            cause: Box::new(cause),
            temporary: false,
        })
    }
}

fn ask_the_system(name: &str) -> Result<Vec<SocketAddr>, NotFound> {
    // RFC 6761: there are none below it, and nobody need be asked.
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
        NotFound::Again(words) | NotFound::Failed(words) => io::Error::other(words),
        NotFound::System(error) => error,
    };
    Cause::Lookup {
        name,
        cause: Box::new(Cause::Other(error)),
        temporary,
    }
}

/// What an error of listening names: an address, or for an empty host what was asked for.
pub(crate) fn asked_for(target: &Target, address: SocketAddr) -> Addr {
    let host_is_empty = match target {
        Target::Text(text) => {
            text.is_empty() || hostport::split(text).is_ok_and(|(host, _)| host.is_empty())
        }
        Target::Literal(_) => false,
    };
    match host_is_empty {
        true => Addr::Name(format!(":{}", address.port())),
        false => Addr::Socket(address),
    }
}
