//! How a netpoller works, in pictures: a page of ten steps.
//!
//! ```text
//! cargo run --release --features trace,observe --example study     # then open the address in a browser
//! ```
//!
//! There are two runtimes in one thread. One serves the page. The other is the stage: a small server and a
//! few clients, which take one turn of the loop when a reader says so. The page draws the stage from its
//! dump and its trace. That a program can drive a runtime turn by turn is the point: see [`run`].
//!
//! | file | what it is |
//! |---|---|
//! | `stage.rs`, `happened.rs` | the stage: turns, a clock that stands still, clients; what a turn did |
//! | `scenes.rs` | the servers on the stage |
//! | `tour.rs` | the ten steps: a sentence, an action, a check |
//! | `code.rs` | our lines of code, beside Go's names |
//! | `book.rs` | one stage for all readers; commands in order |
//! | `web.rs`, `response.rs` | the page's server |
//! | `page.html`, `page.css`, `page.js` | the page |

mod book;
pub mod code;
#[path = "../common/mod.rs"]
mod common;
mod happened;
#[path = "../http/request.rs"]
mod request;
mod response;
mod scenes;
mod stage;
mod tour;
mod web;

use std::io;
use std::net::TcpListener as Listening;
use std::process::ExitCode;

use clap::Parser;
use netpoller::{ListenConfig, Runtime, TcpListener};

/// Serves a page that shows how a netpoller works
#[derive(Parser)]
struct Flags {
    /// Where to listen, as HOST:PORT; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    addr: String,
}

fn main() -> ExitCode {
    common::run_blocking(|flags: Flags| {
        let listening = ListenConfig::new().bind_std(&flags.addr)?;
        let addr = listening.local_addr()?;
        common::exit_on_signals()?;
        run(listening, |page| {
            common::dump_on_quit(page.handle())?;
            common::announce(addr)
        })
    })
}

/// Serves the page, and drives the stage between the turns of the page's runtime.
pub fn run(listening: Listening, begin: impl FnOnce(&Runtime) -> io::Result<()>) -> io::Result<()> {
    let mut commander = book::Commander::new()?;
    let page = Runtime::new()?;
    begin(&page)?;
    let book = commander.book();
    let serving = page.spawn(async move {
        let listener = TcpListener::from_std(listening)?;
        web::serve(listener, book).await
    });
    while !serving.is_finished() {
        page.turn(None)?;
        commander.carry_out();
    }
    page.block_on(serving).map_err(io::Error::other)?
}
