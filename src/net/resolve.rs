//! Resolving: from `host:port`, as it is written, to addresses; which family they are of, IPv4, IPv6 or
//! both on one socket; and the settings that a `Dialer` and a `ListenConfig` share.
//!
//! ```text
//!   literal ────────────────────────────────────────────┐
//!   "host:port" ─► split ─► port ─► host a literal? ────┴─► fits the network? ─► addresses
//!                           │              │ no
//!                           └ a service    └ a name ─► a thread for look-ups, within the scope
//! ```
// Mirrors Go's `net/ipsock.go` (`internetAddrList`, `SplitHostPort`), `net/lookup.go`, `net/port.go`,
// `lookupPortMap`, `isDomainName`, and `net/ipsock_posix.go` (`ipStackCapabilities`,
// `favoriteAddrFamily`).

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use socket2::{Domain, Socket, Type};

use super::addr::unmapped;
use super::error::{Cause, OpError};
use crate::cancel::CancelToken;
use crate::endpoints::{Addr, Network};
use crate::runtime::look::noted;
use crate::runtime::{blocking, context};
use crate::sys::{self, NotFound};

/// The operation for which an empty host is every address.
pub(super) const LISTEN: &str = "listen";

/// How to resolve, and for what.
#[derive(Clone, Debug)]
pub(super) struct Resolution {
    /// The operation that it is for, as errors name it.
    op: &'static str,
    pub(super) network: Network,
    /// The unknown name that was given for the network.
    pub(super) unknown: Option<String>,
    /// Whether an IPv6 listener refuses IPv4. If `None`, the network decides.
    pub(super) only_v6: Option<bool>,
    /// The system's, if there is none.
    pub(super) resolver: Option<Resolver>,
}

impl Resolution {
    pub(super) const fn new(op: &'static str, network: Network) -> Self {
        Resolution {
            op,
            network,
            unknown: None,
            only_v6: None,
            resolver: None,
        }
    }

    /// Takes `tcp`, `tcp4` or `tcp6`. Any other is an error of the operation.
    pub(super) fn set_tcp(&mut self, name: &str) {
        let names = [Network::Tcp, Network::Tcp4, Network::Tcp6];
        let known = names.into_iter().find(|network| network.name() == name);
        self.unknown = known.is_none().then(|| name.to_owned());
        self.network = known.unwrap_or(self.network);
    }

    /// The error of the operation that it is for.
    pub(super) fn error(&self, addr: Option<Addr>, cause: Cause) -> OpError {
        let known = self.unknown.is_none();
        let net = if known { self.network.name() } else { "" };
        OpError::new(self.op, net, addr, cause)
    }

    /// At least one address, and only addresses of the network. What needs no look-up never leaves
    /// the thread. When `scope` ends, a look-up is abandoned; if it has not begun by then, it never does.
    pub(super) async fn addresses(
        &self,
        target: &Addr,
        scope: &CancelToken,
    ) -> io::Result<Vec<SocketAddr>> {
        // A target that needs no look-up waits for nothing, so a loop over such targets yields here.
        context::yield_once().await;
        let Some(name) = self.name_to_look_up(target) else {
            return self.look_up(target);
        };
        let (resolution, asked, lane) = (self.clone(), target.clone(), blocking::look_ups());
        let look_up = move || resolution.look_up(&asked);
        let (look_up, ticket) = blocking::call("a look-up", lane, look_up);
        let _cancel = blocking::CancelOnDrop(lane, ticket);
        let cause = match scope.run(noted("look-up", look_up)).await {
            Ok(Ok(outcome)) => return outcome,
            Ok(Err(panic)) => Cause::Other(io::Error::other(panic)),
            Err(ended) => Cause::from(ended),
        };
        let cause = Cause::Lookup {
            name,
            cause: Box::new(cause),
            temporary: false,
        };
        Err(self.error(Some(target.clone()), cause).into())
    }

    /// As [`Resolution::addresses`], on this thread: it blocks in a look-up.
    pub(super) fn look_up(&self, target: &Addr) -> io::Result<Vec<SocketAddr>> {
        let found = self.find(target);
        debug_assert!(found.iter().all(|found| !found.is_empty()));
        found.map_err(|cause| self.error(Some(target.clone()), cause).into())
    }

    /// The name that a look-up waits for, if there is one.
    fn name_to_look_up(&self, target: &Addr) -> Option<String> {
        let (Addr::Name(text), None) = (target, &self.unknown) else {
            return None;
        };
        let (host, port) = split(text).ok()?;
        if matches!(literal(host), Ok(None)) && is_domain_name(host) {
            return Some(host.to_owned());
        }
        match number(port) {
            Ok(None) => Some(self.service(port)),
            _ => None,
        }
    }

    /// The name of a service in errors: `tcp/http`, whatever the family.
    fn service(&self, port: &str) -> String {
        let network = self.network.name().trim_end_matches(['4', '6']);
        format!("{network}/{port}")
    }

    fn find(&self, target: &Addr) -> Result<Vec<SocketAddr>, Cause> {
        if let Some(name) = &self.unknown {
            return Err(Cause::UnknownNetwork(name.clone()));
        }
        let text = match target {
            Addr::Socket(address) => {
                return self.suitable(vec![*address], &address.ip().to_string());
            }
            name => name.to_string(),
        };
        let text = match &*text {
            "" if self.op == LISTEN => ":",
            "" => return Err(wrong("", "missing address")),
            text => text,
        };
        let (host, port) = split(text)?;
        let port = match number(port)? {
            Some(port) => port,
            None => service_port(self.network, port)
                .map_err(|failed| failed_lookup(self.service(port), failed, "unknown port"))?,
        };
        if host.is_empty() {
            return Ok(vec![SocketAddr::new(self.own_address(), port)]);
        }
        let mut found = match literal(host)? {
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

    /// The address of an empty host: loopback to dial, of IPv4 if possible; any to listen, where `to_bind`
    /// tries both families.
    fn own_address(&self) -> IpAddr {
        let listens = self.op == LISTEN;
        let v4 = self.takes_v4() && (listens || !self.takes_v6() || has_v4());
        match (v4, listens) {
            (true, true) => Ipv4Addr::UNSPECIFIED.into(),
            (true, false) => Ipv4Addr::LOCALHOST.into(),
            (false, true) => Ipv6Addr::UNSPECIFIED.into(),
            (false, false) => Ipv6Addr::LOCALHOST.into(),
        }
    }

    /// Makes a socket for one of the addresses found, and hands both to `bind`. The address is the first
    /// of IPv4, or the first if none is, as in Go.
    pub(super) fn bind_first<T>(
        &self,
        target: &Addr,
        found: &[SocketAddr],
        bind: impl FnOnce(Socket, SocketAddr) -> Result<T, Cause>,
    ) -> io::Result<T> {
        let first = found.iter().find(|address| address.is_ipv4());
        let address = *first.unwrap_or(&found[0]);
        let opened = self.to_bind(address);
        let bound = opened.and_then(|(socket, address)| bind(socket, address));
        bound.map_err(|cause| {
            let asked = asked_for(target, address);
            self.error(Some(asked), cause).into()
        })
    }

    /// A socket to listen on `address`, and what to bind it to.
    ///
    /// "Every address" of a network without a family means both families on one IPv6 socket, where the
    /// system can do that. `tcp6` is for IPv6 alone.
    fn to_bind(&self, address: SocketAddr) -> Result<(Socket, SocketAddr), Cause> {
        debug_assert!(self.takes_v4() || self.takes_v6());
        let takes_both = self.takes_v4() && self.takes_v6();
        let open = |address: SocketAddr, only_v6| {
            let socket = sys::socket(Domain::for_address(address), self.network.kind());
            let socket = socket.map_err(Cause::by("socket"))?;
            if address.is_ipv6() {
                let set = socket.set_only_v6(only_v6);
                set.map_err(Cause::by("setsockopt"))?;
            }
            Ok((socket, address))
        };
        if takes_both && address.ip().is_unspecified() {
            match open((Ipv6Addr::UNSPECIFIED, address.port()).into(), false) {
                // There is no IPv6, or no IPv4 on its sockets.
                Err(Cause::System { error, .. }) if !sys::is_shortage(&error) => {}
                opened => return opened,
            }
        }
        open(address, self.only_v6.unwrap_or(!takes_both))
    }

    fn takes_v4(&self) -> bool {
        match self.network {
            Network::Tcp4 => true,
            Network::Tcp6 => false,
            _ => self.only_v6 != Some(true),
        }
    }

    fn takes_v6(&self) -> bool {
        self.network != Network::Tcp4
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
        found.retain(|address| match address {
            SocketAddr::V4(_) => self.takes_v4(),
            SocketAddr::V6(_) => self.takes_v6(),
        });
        some_of(found, host)
    }

    fn host(&self, host: &str) -> Result<Vec<SocketAddr>, NotFound> {
        let bare = host.strip_suffix('.').unwrap_or(host);
        let found = match &self.resolver {
            _ if !is_domain_name(host) => vec![],
            Some(Hook(resolver)) => {
                let found = resolver(host).map_err(NotFound::System)?.into_iter();
                found.map(|ip| SocketAddr::new(ip, 0)).collect()
            }
            // RFC 6761: there are no names below it.
            None if bare.ends_with(".invalid") || bare == "invalid" => vec![],
            None => sys::address_info(Some(host), None, Type::STREAM)?,
        };
        match found.is_empty() {
            true => Err(NotFound::NoSuch),
            false => Ok(found),
        }
    }
}

/// The addresses that were found and can be used for `host`: at least one.
pub(super) fn some_of(found: Vec<SocketAddr>, host: &str) -> Result<Vec<SocketAddr>, Cause> {
    match found.is_empty() {
        true => Err(wrong(host, "no suitable address found")),
        false => Ok(found),
    }
}

fn failed_lookup(name: String, failed: NotFound, no_such: &str) -> Cause {
    let temporary = matches!(failed, NotFound::Again(_));
    let error = match failed {
        NotFound::NoSuch => io::Error::new(io::ErrorKind::NotFound, no_such),
        NotFound::Again(error) | NotFound::System(error) => error,
    };
    Cause::Lookup {
        name,
        cause: Box::new(Cause::Other(error)),
        temporary,
    }
}

/// The address in a listen error: for an empty host, the port alone.
fn asked_for(target: &Addr, address: SocketAddr) -> Addr {
    match target {
        Addr::Name(text)
            if text.is_empty() || split(text).is_ok_and(|(host, _)| host.is_empty()) =>
        {
            Addr::Name(format!(":{}", address.port()))
        }
        _ => Addr::Socket(address),
    }
}

// ---- `host:port`, as it is written ----

fn wrong(text: &str, reason: &'static str) -> Cause {
    Cause::Address {
        text: text.to_owned(),
        reason,
    }
}

/// Splits at the last colon; a host with colons of its own has brackets around it.
fn split(text: &str) -> Result<(&str, &str), Cause> {
    const NO_PORT: &str = "missing port in address";
    const COLONS: &str = "too many colons in address";
    let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong(text, NO_PORT))?;
    let Some(inside) = text.strip_prefix('[') else {
        return match host {
            _ if host.contains(':') => Err(wrong(text, COLONS)),
            _ => no_brackets(text, text).map(|()| (host, port)),
        };
    };
    let (host, rest) = inside
        .split_once(']')
        .ok_or_else(|| wrong(text, "missing ']' in address"))?;
    match rest.strip_prefix(':') {
        None => return Err(wrong(text, NO_PORT)),
        Some(port) if port.contains(':') => return Err(wrong(text, COLONS)),
        Some(_) => {}
    }
    no_brackets(text, host)?;
    no_brackets(text, port)?;
    Ok((host, port))
}

fn no_brackets(text: &str, part: &str) -> Result<(), Cause> {
    match part {
        _ if part.contains('[') => Err(wrong(text, "unexpected '[' in address")),
        _ if part.contains(']') => Err(wrong(text, "unexpected ']' in address")),
        _ => Ok(()),
    }
}

/// The number of a port; an empty one is 0, even after a sign. `None` if it is a service's name.
fn number(port: &str) -> Result<Option<u16>, Cause> {
    let digits = port.strip_prefix(['+', '-']).unwrap_or(port);
    if digits.is_empty() {
        return Ok(Some(0));
    }
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match port.parse::<i64>().map(u16::try_from) {
        Ok(Ok(number)) => Ok(Some(number)),
        _ => Err(wrong(port, "invalid port")),
    }
}

/// An IP address, with the zone it may have. `None` if the host is a name.
fn literal(host: &str) -> Result<Option<SocketAddr>, Cause> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(Some(SocketAddr::new(ip, 0)));
    }
    // Only IPv6 addresses have a zone. `unmapped` drops the zone of an IPv4-mapped one later.
    let Some((ip, zone)) = host.split_once('%').filter(|(_, zone)| !zone.is_empty()) else {
        return Ok(None);
    };
    let Ok(ip) = ip.parse::<Ipv6Addr>() else {
        return Ok(None);
    };
    let by_name = sys::interface_index(zone);
    let scope = match by_name.map_err(Cause::by("if_nametoindex"))? {
        None if zone.bytes().all(|byte| byte.is_ascii_digit()) => zone.parse().ok(),
        by_name => by_name,
    };
    let scope = scope.ok_or_else(|| wrong(host, "no such network interface"))?;
    Ok(Some(SocketAddrV6::new(ip, 0, 0, scope).into()))
}

/// Whether a name can be one of DNS at all: any other is not asked for.
fn is_domain_name(name: &str) -> bool {
    // In DNS's own form a byte of length precedes each label, and a zero ends it; that makes 255.
    const LONGEST: usize = 253;
    const LONGEST_LABEL: usize = 63;
    if name == "." {
        return true;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=LONGEST_LABEL).contains(&label.len())
            && label.bytes().all(allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= LONGEST && !name.split('.').all(is_number) && name.split('.').all(is_label)
}

/// Whether a label is a number in the eyes of the system, decimal, octal or hexadecimal. The system
/// would take a name of numbers for an address (`0x7f.1` for 127.0.0.1). In Go it is a name that does
/// not exist.
fn is_number(label: &str) -> bool {
    match label.strip_prefix("0x").or(label.strip_prefix("0X")) {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// Services that work even without /etc/services: Go's `services`.
const SERVICES: [(&str, u16); 14] = [
    ("ftp", 21),
    ("ftps", 990),
    ("gopher", 70),
    ("http", 80),
    ("https", 443),
    ("imap2", 143),
    ("imap3", 220),
    ("imaps", 993),
    ("pop3", 110),
    ("pop3s", 995),
    ("smtp", 25),
    ("ssh", 22),
    ("submissions", 465),
    ("telnet", 23),
];

/// A service's port: asks the system, so it may block.
fn service_port(network: Network, service: &str) -> Result<u16, NotFound> {
    // getaddrinfo would skip a leading blank, and cut the number after it to 16 bits.
    if service
        .bytes()
        .any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control())
    {
        return Err(NotFound::NoSuch);
    }
    let service = service.to_ascii_lowercase();
    let found = sys::address_info(None, Some(&service), network.kind());
    match found.map(|all| all.first().map(SocketAddr::port)) {
        Ok(Some(port)) => Ok(port),
        Ok(None) => Err(NotFound::NoSuch),
        Err(failed) => match SERVICES.iter().find(|(name, _)| *name == service) {
            Some(&(_, port)) if network.is_tcp() => Ok(port),
            _ if service == "domain" => Ok(53),
            _ => Err(failed),
        },
    }
}

// ---- families ----

/// Dialling "every address" dials this machine. Linux does so by itself, others do not.
pub(super) fn to_dial(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, v6.port()).into(),
        _ => address,
    }
}

/// Whether the system has IPv4. A shortage tells nothing, and most systems have it.
fn has_v4() -> bool {
    let tried = Socket::new(Domain::IPV4, Type::STREAM, None);
    tried.map_or_else(|error| sys::is_shortage(&error), |_| true)
}

// ---- the settings that a `Dialer` and a `ListenConfig` share ----
//
// Mirrors the fields `Control` and `Resolver` of Go's `net.Dialer` and `net.ListenConfig`.

/// A function of the user's. Cheap to clone; any thread may call it.
pub(crate) struct Hook<F: ?Sized>(pub(crate) Arc<F>);

impl<F: ?Sized> Clone for Hook<F> {
    fn clone(&self) -> Self {
        Hook(self.0.clone())
    }
}

impl<F: ?Sized> fmt::Debug for Hook<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

/// A hook that is given a socket before it is bound or connected, to set options.
pub(super) type Control = Hook<dyn Fn(BorrowedFd<'_>, SocketAddr) -> io::Result<()> + Send + Sync>;

/// Finds a host's addresses in place of the system. It may block: it runs on a thread for look-ups.
pub(super) type Resolver = Hook<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// The settings that both have, as setters.
macro_rules! common_settings {
    ($Settings:ident) => {
        impl Default for $Settings {
            fn default() -> Self {
                $Settings::new()
            }
        }

        impl $Settings {
            /// `tcp`, or `tcp4` or `tcp6` for one family alone. Any other name is an error when
            /// you dial or bind.
            pub fn network(mut self, network: &str) -> Self {
                self.resolution.set_tcp(network);
                self
            }

            /// A hook that is given every socket before it is bound and connected, with the address
            /// that it is for, in order to set options. Its error fails that address.
            ///
            /// ```
            /// # fn main() -> std::io::Result<()> {
            /// use netpoller::{Dialer, ListenConfig};
            /// use socket2::SockRef;
            /// netpoller::Runtime::new()?.block_on(async {
            ///     let config = ListenConfig::new()
            ///         .control(|fd, _address| SockRef::from(&fd).set_recv_buffer_size(64 << 10));
            ///     let listener = config.bind("127.0.0.1:0").await?;
            ///     let dialer = Dialer::new()
            ///         .control(|_fd, address| Err(std::io::Error::other(format!("not {address}"))));
            ///     let refused = dialer.dial(listener.local_addr()?).await.unwrap_err();
            ///     assert!(refused.to_string().contains("not 127.0.0.1:"));
            ///     Ok(())
            /// })
            /// # }
            /// ```
            pub fn control(
                mut self,
                hook: impl Fn(std::os::fd::BorrowedFd<'_>, std::net::SocketAddr) -> std::io::Result<()> + Send + Sync + 'static,
            ) -> Self {
                self.control = Some($crate::net::Hook(std::sync::Arc::new(hook)));
                self
            }

            /// Looks names up in place of the system: given a host, finds its addresses, the
            /// preferred first. It may block: it runs on a thread for look-ups. When the time is up,
            /// its answer is no longer waited for.
            ///
            /// ```
            /// # fn main() -> std::io::Result<()> {
            /// use netpoller::{Dialer, TcpListener};
            /// netpoller::Runtime::new()?.block_on(async {
            ///     let listener = TcpListener::bind("127.0.0.1:0").await?;
            ///     let dialer = Dialer::new().resolver(|host: &str| match host {
            ///         "db.test" => Ok(vec![[127, 0, 0, 1].into()]),
            ///         _ => Err(std::io::Error::other("not one of ours")),
            ///     });
            ///     dialer.dial(("db.test", listener.local_addr()?.port())).await?;
            ///     let error = dialer.dial("elsewhere.test:1").await.unwrap_err();
            ///     assert_eq!(error.to_string(), "dial tcp: lookup elsewhere.test: not one of ours");
            ///     Ok(())
            /// })
            /// # }
            /// ```
            pub fn resolver(
                mut self,
                look_up: impl Fn(&str) -> std::io::Result<Vec<std::net::IpAddr>> + Send + Sync + 'static,
            ) -> Self {
                self.resolution.resolver = Some($crate::net::Hook(std::sync::Arc::new(look_up)));
                self
            }
        }
    };
}

pub(super) use common_settings;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_as_go_does() {
        for (text, parts) in [
            ("127.0.0.1:80", ("127.0.0.1", "80")),
            ("[::1]:http", ("::1", "http")),
            ("[fe80::1%lo]:", ("fe80::1%lo", "")),
            ("[]:1", ("", "1")),
            (":", ("", "")),
        ] {
            assert_eq!(split(text).unwrap(), parts, "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_an_address_in_go_s_words() {
        for (text, reason) in [
            ("127.0.0.1", "missing port in address"),
            ("[::1]", "missing port in address"),
            ("[::1]x:80", "missing port in address"),
            ("::1:80", "too many colons in address"),
            ("[::1]:1:2", "too many colons in address"),
            ("[::1", "missing ']' in address"),
            ("a[b:80", "unexpected '[' in address"),
            ("a]b:80", "unexpected ']' in address"),
            ("[a[b]:80", "unexpected '[' in address"),
            ("[::1]:8]0", "unexpected ']' in address"),
        ] {
            let error = split(text).unwrap_err().to_string();
            assert_eq!(error, format!("address {text}: {reason}"));
        }
    }

    #[test]
    fn a_port_is_a_number_within_bounds_or_a_service() {
        for (port, number_is) in [
            ("", 0),
            ("0", 0),
            ("80", 80),
            ("+80", 80),
            ("-", 0),
            ("065535", 65535),
        ] {
            assert_eq!(number(port).unwrap(), Some(number_is), "{port}");
        }
        for port in ["65536", "-1", "99999999999999999999999"] {
            let error = number(port).unwrap_err().to_string();
            assert_eq!(error, format!("address {port}: invalid port"));
        }
        for port in ["http", "8o", "--", "80 "] {
            assert_eq!(number(port).unwrap(), None, "{port}");
        }
        for port in [" 80", "80 ", "\t80", "\u{b}80", " +80", "ht tp"] {
            let found = service_port(Network::Tcp, port);
            assert!(matches!(found, Err(NotFound::NoSuch)), "{port:?}");
        }
    }

    #[test]
    fn knows_what_can_be_a_name() {
        let longest = [&*"a".repeat(63); 4].join(".");
        for name in [".", "a", "a.b.", "x-y.z_1", "1.a", &longest[..253]] {
            assert!(is_domain_name(name), "{name}");
        }
        let label = "a".repeat(64);
        for name in [
            "",
            "..",
            "a..b",
            "-a",
            "a-",
            "a b",
            "a\0b",
            "1.2",
            "300.1.1.1",
            "0x7f.1",
            "127.0X1",
            "0xdeadBEEF",
            "0x.",
            "é",
            &label,
            &longest,
        ] {
            assert!(!is_domain_name(name), "{name}");
        }
    }
}
