//! Dialling: limits and scopes, several addresses, sockets and what the system gets wrong.

mod addresses;
mod limits;
mod sockets;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use netpoller::{Dialer, Runtime, TcpListener, time};

use crate::support::dead_ends::Silent;

pub const SECOND: Duration = Duration::from_secs(1);

/// On the real clock, with a watchdog; nothing may be left when it is done.
pub fn run<F: Future>(future: F) -> F::Output {
    run_on(&Runtime::new().unwrap(), future)
}

/// On a clock that jumps to the next deadline when nothing else is left to happen.
pub fn run_virtual<F: Future>(future: F) -> F::Output {
    run_on(&Runtime::builder().virtual_clock().build().unwrap(), future)
}

pub fn run_on<F: Future>(runtime: &Runtime, future: F) -> F::Output {
    let limited = runtime.block_on(async { time::timeout(60 * SECOND, future).await });
    let stats = runtime.stats();
    let left = (stats.tasks, stats.descriptors, stats.timers, stats.waiters);
    assert_eq!(
        left,
        (0, 0, 0, 0),
        "tasks, descriptors, timers, waiters are left"
    );
    limited.expect("the test hangs")
}

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
