//! The examples do what `examples/README.md` says. Their logic runs in this process, on the virtual
//! clock where time matters. Flags, log, signals and exit status are tested on processes.
#![allow(
    clippy::duplicate_mod,
    reason = "each example has what it shares with others"
)]

mod allocator;
mod closing;
mod contents;
mod datagrams;
mod dialling;
mod embedding;
mod framing;
mod idling;
mod measuring;
mod operating;
mod playing;
mod plumbing;
mod process;
mod rooms;
mod serving_files;
#[cfg(all(feature = "trace", feature = "observe"))]
mod study_http;
mod web;

#[path = "../it/support/mod.rs"]
mod support;

#[path = "../../examples/broadcast.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod broadcast;
#[path = "../../examples/capture.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod capture;
#[path = "../../examples/dial_race.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod dial_race;
#[path = "../../examples/echo_client.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod echo_client;
#[path = "../../examples/embed_host_loop.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod embed_host_loop;
#[path = "../../examples/frames.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod frames;
#[path = "../../examples/http/main.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod http;
#[path = "../../examples/idle_server.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod idle_server;
#[path = "../../examples/lines/main.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod lines;
#[path = "../../examples/metrics/main.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod metrics;
#[path = "../../examples/monitor.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod monitor;
#[path = "../../examples/proxy.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod proxy;
#[path = "../../examples/reactor_http/main.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod reactor_http;
#[path = "../../examples/retry_write.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod retry_write;
#[cfg(all(feature = "trace", feature = "observe"))]
#[path = "../../examples/study/main.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod study;
#[path = "../../examples/tcp_ping.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod tcp_ping;
#[path = "../../examples/time_server.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod time_server;
#[path = "../../examples/tlv.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod tlv;
#[path = "../../examples/udp.rs"]
#[allow(dead_code, reason = "its main is not run here")]
mod udp;

use std::time::Duration;

use netpoller::TcpListener;

use support::bytes::read_all;
use support::loopback;
use support::run::{run, run_virtual};
use support::watchdog;

const SECOND: Duration = Duration::from_secs(1);

/// A listener, and its address as text.
async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    (listener, addr)
}
