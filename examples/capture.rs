//! What closing looks like: on the wire, and in the system's table.
//! Rows C1, C2, O5 of examples/README.md.
//!
//! ```text
//! sudo tcpdump -i lo -n -S tcp port 7777 &     # what to look for: examples/README.md
//! cargo run --example capture -- --addr 127.0.0.1:7777
//! ```
//!
//! A client and a server say hello to each other, twice. The client closes by FIN the first time,
//! by RST the second. Meanwhile the states of both ends are read from /proc/net/tcp, which is there
//! on Linux alone.

mod common;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use netpoller::{TcpListener, TcpStream, time};

/// Closes by FIN and by RST, and shows the states of both ends
#[derive(Parser)]
struct Flags {
    /// Where to listen, as HOST:PORT; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    addr: String,
}

fn main() -> ExitCode {
    common::run(async |flags: Flags| {
        let listener = common::listen(&flags.addr).await?;
        for (title, by_rst) in [("closed by FIN", false), ("closed by RST", true)] {
            println!("{title:<24}{:<14}server", "client");
            close(&listener, by_rst, |when, [client, server]| {
                let name = |state: Option<State>| state.map_or("-", State::name);
                println!("  {when:<22}{:<14}{}", name(client), name(server));
            })
            .await?;
        }
        Ok(())
    })
}

/// One connection from hello to its end. `note` receives the states of the two ends.
pub async fn close(
    listener: &TcpListener,
    by_rst: bool,
    mut note: impl FnMut(&'static str, [Option<State>; 2]),
) -> io::Result<()> {
    let client = TcpStream::connect(listener.local_addr()?).await?;
    let (server, _) = listener.accept().await?;
    let ends = [client.local_addr()?, server.local_addr()?];
    for (from, to) in [(&client, &server), (&server, &client)] {
        from.write_all(b"hello").await?;
        to.read_exact(&mut [0; 5]).await?;
    }
    note("after hello", states(ends));
    if by_rst {
        client.abort()?;
    } else {
        client.close()?;
    }
    server.hung_up().await?;
    settle(ends, |[client, _]| client != Some(State::FIN_WAIT1)).await;
    note("the client has closed", states(ends));
    server.close()?;
    settle(ends, |[_, server]| server.is_none()).await;
    note("the server too", states(ends));
    Ok(())
}

/// Waits for the last acknowledgements, which the system sends by itself.
async fn settle(ends: [SocketAddr; 2], settled: impl Fn([Option<State>; 2]) -> bool) {
    for _ in 0..1000 {
        if settled(states(ends)) {
            return;
        }
        time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// The state of one end, as /proc/net/tcp numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State(u8);

impl State {
    pub const ESTABLISHED: State = State(1);
    pub const FIN_WAIT1: State = State(4);
    pub const FIN_WAIT2: State = State(5);
    pub const TIME_WAIT: State = State(6);
    pub const CLOSE_WAIT: State = State(8);

    fn name(self) -> &'static str {
        const NAMES: [&str; 12] = [
            "?",
            "ESTABLISHED",
            "SYN_SENT",
            "SYN_RECV",
            "FIN_WAIT1",
            "FIN_WAIT2",
            "TIME_WAIT",
            "CLOSE",
            "CLOSE_WAIT",
            "LAST_ACK",
            "LISTEN",
            "CLOSING",
        ];
        NAMES.get(usize::from(self.0)).unwrap_or(&"?")
    }
}

/// The states of both ends of a connection over IPv4. `None`: the system has forgotten that end, or
/// has no such table.
pub fn states([client, server]: [SocketAddr; 2]) -> [Option<State>; 2] {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    [(client, server), (server, client)].map(|(local, remote)| {
        // "  0: 0100007F:1E61 0100007F:A137 01 …": number, local, remote, state.
        let ends = format!(" {} {} ", as_in_table(local)?, as_in_table(remote)?);
        let (_, rest) = table.split_once(&ends)?;
        u8::from_str_radix(rest.get(..2)?, 16).ok().map(State)
    })
}

fn as_in_table(addr: SocketAddr) -> Option<String> {
    match addr {
        SocketAddr::V4(v4) => {
            let ip = u32::from_ne_bytes(v4.ip().octets());
            Some(format!("{ip:08X}:{:04X}", v4.port()))
        }
        SocketAddr::V6(_) => None,
    }
}
