//! Taking `host:port` apart: literals, zones, ports, services, and what is no name at all. It blocks
//! only in [`service_port`].
// Mirrors Go's `net.SplitHostPort`, `net/port.go`, `lookupPortMap` and `isDomainName`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::error::Cause;
use crate::endpoints::Network;
use crate::sys::{self, NotFound};

pub(super) fn wrong(text: &str, reason: &'static str) -> Cause {
    Cause::Address {
        text: text.to_owned(),
        reason,
    }
}

/// Splits at the last colon; a host with colons of its own has brackets around it.
pub(super) fn split(text: &str) -> Result<(&str, &str), Cause> {
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
pub(super) fn number(port: &str) -> Result<Option<u16>, Cause> {
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
pub(super) fn literal(host: &str) -> Result<Option<SocketAddr>, Cause> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(Some(SocketAddr::new(ip, 0)));
    }
    // Only IPv6 addresses have a zone. One that is IPv4 loses it later.
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
pub(super) fn is_domain_name(name: &str) -> bool {
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

/// Whether a label is a number in the eyes of the system, decimal, octal or hexadecimal. Of a name
/// that is all numbers the system would make an address (`0x7f.1` is 127.0.0.1). In Go it is a name
/// that does not exist.
fn is_number(label: &str) -> bool {
    match label.strip_prefix("0x").or(label.strip_prefix("0X")) {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// Services that every system is taken to know, even one without a list: Go's `services`.
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
pub(super) fn service_port(network: Network, service: &str) -> Result<u16, NotFound> {
    // The system would skip a blank and read a number behind it, whose upper half it drops.
    if service
        .bytes()
        .any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control())
    {
        return Err(NotFound::NoSuch);
    }
    let service = service.to_ascii_lowercase();
    let kind = match network.is_tcp() {
        true => libc::SOCK_STREAM,
        false => libc::SOCK_DGRAM,
    };
    let found = sys::address_info(None, Some(&service), kind);
    match found.map(|all| all.first().map(SocketAddr::port)) {
        Ok(Some(port)) => Ok(port),
        Ok(None) => Err(NotFound::NoSuch),
        Err(failed) => {
            let known = SERVICES.iter().find(|(name, _)| *name == service);
            match known {
                Some(&(_, port)) if network.is_tcp() => Ok(port),
                _ if service == "domain" => Ok(53),
                _ => Err(failed),
            }
        }
    }
}

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
