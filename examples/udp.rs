//! Datagrams: no connection, no stream, no promise that they arrive. An echo server, and a client that
//! asks again when no answer comes.
//! Row O3 of examples/README.md.
//!
//! ```text
//! cargo run --example udp                                 # listening on 127.0.0.1:41273
//! cargo run --example udp -- --to 127.0.0.1:41273 hello world
//! ```
//!
//! A datagram comes with the address of its sender, and the answer goes there. Deadlines work as
//! they do on streams.

mod common;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use netpoller::{NetError, UdpSocket, time};

/// Sends datagrams back, or sends them and waits for an answer.
#[derive(Parser)]
struct Flags {
    /// Where to listen, as HOST:PORT; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    addr: String,
    /// A server to send the words to, as HOST:PORT
    #[arg(long)]
    to: Option<String>,
    /// How long to wait for an answer before asking again: 500ms, 2s, or a number of seconds
    #[arg(short = 'W', long, default_value = "1s", value_parser = common::duration)]
    wait: Duration,
    /// What to send, each word in its own datagram
    #[arg(requires = "to")]
    words: Vec<String>,
}

fn main() -> ExitCode {
    common::run(async |flags: Flags| match flags.to {
        Some(server) => {
            let socket = UdpSocket::bind(":0").await?;
            // From now on it receives from this server alone.
            socket.connect(server).await?;
            for word in flags.words {
                let answer = ask(&socket, word.as_bytes(), flags.wait).await?;
                println!("{}", String::from_utf8_lossy(&answer));
            }
            Ok(())
        }
        None => {
            let socket = UdpSocket::bind(flags.addr).await?;
            common::announce(socket.local_addr()?)?;
            echo(&socket).await
        }
    })
}

/// The longest payload of a datagram over IPv6; over IPv4 it is 65,507.
const LONGEST: usize = 65_527;

pub async fn echo(socket: &UdpSocket) -> io::Result<()> {
    let mut buffer = vec![0; LONGEST];
    loop {
        let (length, sender) = socket.recv_from(&mut buffer).await?;
        log::info!("{length} bytes from {sender}");
        // The others are served although this one can't be answered.
        if let Err(error) = socket.send_to(&buffer[..length], sender).await {
            log::warn!("{error}");
        }
    }
}

/// Asks up to three times.
pub async fn ask(socket: &UdpSocket, word: &[u8], wait: Duration) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; LONGEST];
    let mut number = 1;
    loop {
        socket.send(word).await?;
        socket.set_read_deadline(Some(time::now() + wait))?;
        match socket.recv(&mut buffer).await {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(error) if error.is_timeout() && number < 3 => {
                log::info!("{error}; asking again");
                number += 1;
            }
            Err(error) => return Err(error),
        }
    }
}
