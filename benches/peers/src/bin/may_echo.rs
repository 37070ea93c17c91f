//! Echo on may, as its `examples/echo.rs` has it: a coroutine each, with a stack of its own, that
//! reads and writes as if it blocked.

use std::io::{self, Read, Write};

use clap::Parser;
use may::go;
use may::net::{TcpListener, TcpStream};
use peers::EchoFlags;

#[derive(Parser, Clone, Copy)]
struct Flags {
    #[command(flatten)]
    echo: EchoFlags,
    /// Threads; without this one for each CPU it may run on.
    #[arg(long, default_value_t = 0)]
    workers: usize,
}

fn main() -> io::Result<()> {
    let flags = Flags::parse();
    may::config().set_workers(flags.workers);
    let accepting = go!(move || serve(flags.echo));
    accepting.join().expect("no panic")
}

fn serve(flags: EchoFlags) -> io::Result<()> {
    let listener = TcpListener::bind(flags.addr)?;
    peers::announce(listener.local_addr()?)?;
    for stream in listener.incoming() {
        let stream = stream?;
        go!(move || echo(stream, flags));
    }
    Ok(())
}

fn echo(mut stream: TcpStream, flags: EchoFlags) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(flags.idle_timeout)?;
    let mut buffer = vec![0; flags.buffer];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length])?;
    }
}
