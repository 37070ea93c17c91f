//! How a `host:port` is dialled: Go's rules, written a second time; and in `host_port.tsv`, what Go
//! itself made of many texts. `fuzz/go/host_port.go` makes the table.
//!
//! Where ours differ (`Rules::Ours`):
//!
//! - A port of 2^32 and more is invalid. Some overflow in Go: `4294967376` is port 80.
//! - Digits before a letter are no number, however many. Go stops reading where it is too large.
//! - A zone that is no interface is an error. Go dials without it.
//! - A name of hexadecimal numbers (`0x7f.1`), which the system takes for an address, does not exist.
//! - A missing address is `127.0.0.1` at once; in Go a socket's control sees an empty address.
//! - An error shows a literal address in the usual form, and Go as it was written.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use netpoller::{Dialer, Runtime};

use super::choices::Choices;

/// The rules that a host and a port are read by.
#[derive(Clone, Copy, PartialEq)]
pub enum Rules {
    Gos,
    /// Go's, but for the differences in the list above.
    Ours,
}

/// Addresses with their zones as they are written; or an error; or a name to be looked up, with a port.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    Addresses(Vec<String>),
    Error(String),
    Name(String),
}

// ---- Go's rules ----

/// What a dial of `text` comes to.
pub fn expected(rules: Rules, network: &str, text: &str) -> Outcome {
    outcome(rules, network, text)
        .unwrap_or_else(|reason| Outcome::Error(format!("dial {network}: {reason}")))
}

fn outcome(rules: Rules, network: &str, text: &str) -> Result<Outcome, String> {
    if text.is_empty() {
        return Err("missing address".to_owned());
    }
    let (host, port) = split(text).map_err(|reason| format!("address {text}: {reason}"))?;
    let port = number(rules, port)?;
    let six = network == "tcp6";
    let unsuitable = || match text.parse::<SocketAddr>() {
        Ok(address) if rules == Rules::Ours => address.ip().to_string(),
        _ => host.to_owned(),
    };
    let unsuitable = || format!("address {}: no suitable address found", unsuitable());
    let (ip, zone) = match literal(rules, host)? {
        // Go leaves it empty, and means this computer, too.
        _ if host.is_empty() && rules == Rules::Gos => return Ok(address("", port)),
        _ if host.is_empty() && six => return Ok(address("::1", port)),
        _ if host.is_empty() => return Ok(address("127.0.0.1", port)),
        Some(found) => found,
        None if is_domain_name(rules, host) => return Ok(Outcome::Name(format!("{host}:{port}"))),
        None => return Err(format!("lookup {host}: no such host")),
    };
    let four = ip.to_ipv4_mapped();
    if ip.is_unspecified() && rules == Rules::Gos {
        return Ok(match network {
            "tcp4" => address("0.0.0.0", port),
            "tcp6" => address("::", port),
            _ => Outcome::Addresses(vec![format!("[::]:{port}"), format!("0.0.0.0:{port}")]),
        });
    }
    if ip.is_unspecified() {
        // It is this computer; and where IPv6 is set up in part, `0.0.0.0` is tried after `::`.
        return Ok(match network {
            "tcp4" => address("127.0.0.1", port),
            "tcp6" => address("::1", port),
            _ => Outcome::Addresses(vec![format!("[::1]:{port}"), format!("127.0.0.1:{port}")]),
        });
    }
    match four {
        Some(_) if six => Err(unsuitable()),
        Some(four) if four.is_unspecified() && rules == Rules::Ours => {
            Ok(address("127.0.0.1", port))
        }
        Some(four) if rules == Rules::Ours => Ok(address(&four.to_string(), port)),
        Some(four) => Ok(address(&format!("{four}{zone}"), port)),
        None if network == "tcp4" => Err(unsuitable()),
        None => Ok(address(&format!("{ip}{zone}"), port)),
    }
}

fn address(ip: &str, port: u16) -> Outcome {
    Outcome::Addresses(vec![match ip.contains(':') {
        true => format!("[{ip}]:{port}"),
        false => format!("{ip}:{port}"),
    }])
}

/// Go's `SplitHostPort`, byte by byte.
fn split(text: &str) -> Result<(&str, &str), &'static str> {
    let bytes = text.as_bytes();
    let find = |from: usize, byte: u8| (from..bytes.len()).find(|&at| bytes[at] == byte);
    let last = (0..bytes.len()).rfind(|&at| bytes[at] == b':');
    let last = last.ok_or("missing port in address")?;
    let (host, opening, closing) = match bytes[0] {
        b'[' => {
            let end = find(0, b']').ok_or("missing ']' in address")?;
            match bytes.get(end + 1) {
                Some(b':') if end + 1 == last => (1..end, 1, end + 1),
                Some(b':') => return Err("too many colons in address"),
                _ => return Err("missing port in address"),
            }
        }
        _ if find(0, b':') != Some(last) => return Err("too many colons in address"),
        _ => (0..last, 0, 0),
    };
    if find(opening, b'[').is_some() {
        return Err("unexpected '[' in address");
    }
    if find(closing, b']').is_some() {
        return Err("unexpected ']' in address");
    }
    Ok((&text[host], &text[last + 1..]))
}

/// Go's `LookupPort`.
fn number(rules: Rules, port: &str) -> Result<u16, String> {
    const CUTOFF: u32 = 1 << 30;
    let digits = match port.as_bytes() {
        [b'+' | b'-', digits @ ..] => digits,
        digits => digits,
    };
    let service = || service(port).ok_or_else(|| format!("lookup tcp/{port}: unknown port"));
    if rules == Rules::Ours && !digits.iter().all(u8::is_ascii_digit) {
        return service();
    }
    let mut number = 0u32;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return service();
        }
        if number >= CUTOFF {
            number = u32::MAX;
            break;
        }
        let digit = u32::from(digit - b'0');
        number = match (rules, number.wrapping_mul(10).checked_add(digit)) {
            (Rules::Gos, Some(number)) => number,
            (Rules::Gos, None) => u32::MAX,
            (Rules::Ours, _) => number.saturating_mul(10).saturating_add(digit),
        };
        if number == u32::MAX {
            break;
        }
    }
    match u16::try_from(number) {
        Ok(0) => Ok(0),
        Ok(number) if !port.starts_with('-') => Ok(number),
        _ => Err(format!("address {port}: invalid port")),
    }
}

/// The system's list, over Go's own.
fn service(name: &str) -> Option<u16> {
    let name = name.to_ascii_lowercase();
    let listed = fs::read_to_string("/etc/services").unwrap_or_default();
    let listed = listed.lines().find_map(|line| {
        let line = line.split('#').next()?;
        let mut words = line.split_ascii_whitespace();
        let (first, port) = (words.next()?, words.next()?.strip_suffix("/tcp")?);
        let known = first == name || words.any(|alias| alias == name);
        known.then(|| port.parse().expect("a port"))
    });
    listed.or(match &*name {
        "domain" => Some(53),
        "ftp" => Some(21),
        "http" => Some(80),
        "https" => Some(443),
        "smtp" => Some(25),
        "ssh" => Some(22),
        "telnet" => Some(23),
        _ => None,
    })
}

/// Go's `netip.ParseAddr`, with IPv4 as the IPv6 address that it is mapped to; and the zone with
/// its `%`.
fn literal(rules: Rules, host: &str) -> Result<Option<(Ipv6Addr, String)>, String> {
    let first = host.bytes().find(|byte| b".:%".contains(byte));
    match first {
        Some(b'.') => Ok(four(host).map(|ip| (ip.to_ipv6_mapped(), String::new()))),
        Some(b':') => {
            let (ip, zone) = match host.split_once('%') {
                Some((_, "")) => return Ok(None),
                Some((ip, zone)) => (ip, Some(zone)),
                None => (host, None),
            };
            let Some(ip) = six(ip) else { return Ok(None) };
            let zone = zone.map_or(Ok(String::new()), |zone| scope(rules, host, zone))?;
            Ok(Some((ip, zone)))
        }
        _ => Ok(None),
    }
}

/// `lo` is the first interface. If a zone is no interface, Go dials without it; ours is an error.
fn scope(rules: Rules, host: &str, zone: &str) -> Result<String, String> {
    match (rules, zone.parse::<u32>()) {
        (Rules::Gos, _) => Ok(format!("%{zone}")),
        (Rules::Ours, _) if zone == "lo" => Ok("%1".to_owned()),
        (Rules::Ours, Ok(0)) if zone.bytes().all(|byte| byte == b'0') => Ok(String::new()),
        (Rules::Ours, Ok(number)) if !zone.starts_with('+') => Ok(format!("%{number}")),
        (Rules::Ours, _) => Err(format!("address {host}: no such network interface")),
    }
}

fn four(text: &str) -> Option<Ipv4Addr> {
    let mut fields = [0; 4];
    let mut parts = text.split('.');
    for field in &mut fields {
        let part = parts.next()?;
        let is_plain = matches!(part.as_bytes(), [b'0'] | [b'1'..=b'9', ..]);
        let is_number = part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit());
        *field = (is_plain && is_number).then(|| part.parse().ok())??;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(fields))
}

/// Up to eight groups, of which one gap of at least one group may stand for zeros.
fn six(text: &str) -> Option<Ipv6Addr> {
    let groups = |text: &str, last: bool| {
        let mut all = Vec::new();
        let mut parts = text.split(':').peekable();
        while let Some(part) = parts.next() {
            if part.contains('.') && last && parts.peek().is_none() {
                let [a, b, c, d] = four(part)?.octets();
                all.extend([u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]);
            } else {
                let is_hex = part.bytes().all(|byte| byte.is_ascii_hexdigit());
                ((1..=4).contains(&part.len()) && is_hex).then_some(())?;
                all.push(u16::from_str_radix(part, 16).ok()?);
            }
        }
        Some(all)
    };
    let side = |text: &str, last| match text.is_empty() {
        true => Some(Vec::new()),
        false => groups(text, last),
    };
    let all: Vec<u16> = match text.split_once("::") {
        None => groups(text, true)?,
        Some((before, after)) => {
            let (mut before, after) = (side(before, false)?, side(after, true)?);
            let zeros = 8usize.checked_sub(before.len() + after.len())?;
            (zeros > 0).then_some(())?;
            before.extend(vec![0; zeros]);
            before.extend(after);
            before
        }
    };
    <[u16; 8]>::try_from(all).ok().map(Ipv6Addr::from)
}

/// Go's `isDomainName`.
fn is_domain_name(rules: Rules, name: &str) -> bool {
    if name == "." {
        return true;
    }
    let labels = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // The system would take a name of numbers for an address: no host has one.
    let is_number = |label: &str| match label.strip_prefix("0x").or(label.strip_prefix("0X")) {
        Some(digits) if rules == Rules::Ours => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        _ => label.bytes().all(|byte| byte.is_ascii_digit()),
    };
    labels.len() <= 253 && labels.split('.').all(is_label) && !labels.split('.').all(is_number)
}

// ---- what the library does ----

thread_local! {
    static RUNTIME: RefCell<Option<Runtime>> = const { RefCell::new(None) };
}

/// What a dial of `text` comes to, without connecting anywhere: names are looked up here, and no socket
/// is let through.
pub fn dialled(network: &str, text: &str) -> Outcome {
    const SOME: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 7)), 0);
    let seen = Arc::new(Mutex::new((Vec::new(), None)));
    let (found, asked) = (seen.clone(), seen.clone());
    let dialer = Dialer::new()
        .network(network)
        .resolver(move |name| {
            asked.lock().unwrap().1 = Some(name.to_owned());
            Ok(vec![SOME.ip(), Ipv6Addr::from_bits(7).into()])
        })
        .control(move |_, address| {
            found.lock().unwrap().0.push(address);
            Err(io::Error::other("far enough"))
        });
    let error = RUNTIME.with_borrow_mut(|runtime| {
        let runtime = runtime.get_or_insert_with(|| Runtime::new().unwrap());
        let error = runtime.block_on(dialer.dial(text)).unwrap_err();
        assert_eq!(runtime.stats().descriptors, 0, "nothing is left");
        error.to_string()
    });
    let (found, asked) = std::mem::take(&mut *seen.lock().unwrap());
    match (asked, found.first()) {
        (Some(name), Some(first)) => Outcome::Name(format!("{name}:{}", first.port())),
        (None, Some(_)) => Outcome::Addresses(found.iter().map(SocketAddr::to_string).collect()),
        (_, None) => Outcome::Error(error),
    }
}

/// Texts of single bytes and of what matters in an address.
fn text(choices: &mut Choices) -> String {
    const PIECES: [&str; 40] = [
        ":",
        ":",
        ":",
        "[",
        "]",
        "]:",
        "%",
        ".",
        "-",
        "+",
        "::",
        "::1",
        "fe80::1",
        "::ffff:",
        "1.2.3.4",
        "127.0.0.1",
        "0.0.0.0",
        "255",
        "256",
        "0",
        "00",
        "1",
        "80",
        "65535",
        "65536",
        "4294967296",
        "ffff",
        "0x7f",
        "%lo",
        "%1",
        "%nosuch",
        "http",
        "DOMAIN",
        "ssh",
        "a",
        "b.",
        "xn--",
        "é",
        ".invalid",
        "_",
    ];
    let length = choices.below(12);
    let mut text = String::new();
    for _ in 0..length {
        match choices.byte() {
            byte @ 0..128 => text.push(char::from(byte)),
            // A label, and a name, that are about as long as they may be.
            255 => text.push_str(&"l".repeat(60 + choices.below(6))),
            254 => text.push_str(&"n.".repeat(122 + choices.below(8))),
            byte => text.push_str(PIECES[usize::from(byte) % PIECES.len()]),
        }
    }
    text
}

/// Dials the texts that `bytes` spell.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    while !choices.is_empty() {
        let network = ["tcp", "tcp", "tcp4", "tcp6"][choices.below(4)];
        let text = text(&mut choices);
        assert_eq!(
            dialled(network, &text),
            expected(Rules::Ours, network, &text),
            "{network} {text:?}"
        );
    }
}
